#!/usr/bin/env bash
# Writes what the services are installed from where nothing may change, as `make locked`: the releases that the
# tests ran with, and the hash of every file of each.
set -euo pipefail
cd "$(dirname "$0")/../.."
pins=scripts/requirements

lock() {
    local service=$1
    shift
    .venv-lint/bin/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --generate-hashes \
        --custom-compile-command 'make locked' --constraint "$pins/test.txt" "$@" setup.cfg --output-file "$pins/$service.txt"
}

lock client --extra client --extra grpc --extra otel
# A board brings its own numpy, which is never replaced.
lock edge --extra edge --no-emit-package numpy
# Elsewhere than on a board.
lock edge-host --extra edge --extra opencv --extra onnx
lock function --extra function --extra onnx
# The edge server as a Ray Serve application, with all that it needs where no board brings it.
lock ray --extra edge --extra opencv --extra onnx --extra ray
