#!/usr/bin/env bash
# Pins the newest releases of today, as `make pins`: one of each package, or one for each Python where none suits all.
set -euo pipefail
cd "$(dirname "$0")/../.."
pins=scripts/requirements

compile() {
    .venv-lint/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --no-annotate \
        --custom-compile-command 'make pins' "$@"
}

printf 'pip\nsetuptools\n' | compile - --output-file "$pins/build.txt"
build=(--constraint "$pins/build.txt" --build-constraint "$pins/build.txt")
compile "${build[@]}" --constraint "$pins/torch.txt" \
    --extra client --extra edge --extra function --extra torch --extra timm --extra plots --extra dev setup.cfg --output-file "$pins/test.txt"
# Which packages of CUDA it needs is for torch to say: they differ by index. torch.txt is changed by hand.
sed -i -E '/^(nvidia|cuda)-|^(triton|torch|torchvision|setuptools)==/d' "$pins/test.txt"
# The checkers get the same releases on every Python, so that they give the same answer.
compile "${build[@]}" --fork-strategy fewest \
    --extra client --extra edge --extra function --extra plots --extra lint setup.cfg --output-file .ci/constraints.txt
# What `make fuzz` adds to client, edge and function, in an environment of its own.
printf 'atheris\nschemathesis\n' | compile - --constraint "$pins/build.txt" --constraint "$pins/test.txt" \
    --output-file "$pins/fuzz.txt"
# Its releases have wheels for some Pythons only, which they do not declare: changed by hand.
sed -i '/^atheris==/d' "$pins/fuzz.txt"
cat >> "$pins/fuzz.txt" <<'PINS'
atheris==2.3.0 ; python_full_version < '3.11'
atheris==3.0.0 ; python_full_version == '3.11.*'
atheris==3.1.0 ; python_full_version >= '3.12'
PINS
# What `make dashboard` builds with, which has no release for Python 3.10. They are numbered by Grafana's, after a time.
printf 'grafana-foundation-sdk\n' | .venv-lint/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
    --no-annotate --custom-compile-command 'make pins' - --output-file "$pins/monitoring.txt"
# Servers and clients of others, for `make test-peers`. A KServe that MLServer's ranges exclude is not the newest.
printf 'kserve\nmlserver>=1.6\n' | compile - --constraint "$pins/build.txt" --output-file "$pins/peers.txt"
# Servers of others that `scripts.bench_peers` installs, each by itself.
for peer in bentoml litserve mosec; do
    printf '%s\n' "$peer" | compile - --constraint "$pins/build.txt" --output-file "$pins/$peer.txt"
done
# Of Ray and what it needs the newest, too.
rm -f "$pins/ray.txt"
