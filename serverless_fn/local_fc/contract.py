"""What the platform tells a container: environment variables, and headers of its requests.

Source: functioncompute/fc/environment-variables and context-and-log-format (custom containers), read 2026-11. Keys of a
role are left out: our functions have none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from serverless_fn.local_fc.config import Account, Image
from serverless_fn.local_fc.function_spec import FunctionSpec

# What a program needs of this machine to start at all; everything else comes from image and function.
_INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "TZ", "CUDA_VISIBLE_DEVICES")


def instance_command(image: Image, spec: FunctionSpec) -> tuple[str, ...]:
    """Returns program and arguments, put together as of a container's entrypoint and command."""
    return (spec.entrypoint or image.command) + spec.command


def instance_environment(
    *, image: Image, spec: FunctionSpec, account: Account, instance_id: str, version_id: str, port: int
) -> dict[str, str]:
    """Returns the variables of one instance.

    Args:
        image: gives the lowest layer.
        spec: gives the user's variables.
        account: gives account and region.
        instance_id: of this instance.
        version_id: "0" for LATEST.
        port: on which the program must listen; another for each instance, for they share this machine's loopback.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # The image's `python` is the one that this endpoint runs on.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    platform = {
        "FC_FUNC_CODE_PATH": "/code",
        "FC_ACCOUNT_ID": account.id,
        "FC_FUNCTION_HANDLER": spec.handler,
        "FC_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "FC_FUNCTION_NAME": spec.name,
        "FC_REGION": account.region,
        "FC_CUSTOM_LISTEN_PORT": str(port),
        "FC_INSTANCE_ID": instance_id,
        "FC_FUNCTION_VERSION": "LATEST" if version_id == "0" else version_id,
        # The platform wants containers to listen on all addresses; here nothing outside shall reach them.
        "EDGEBURST_LISTEN_HOST": "127.0.0.1",
    }
    return {**inherited, "PATH": path, **image.env, **spec.environment, **platform}


def request_headers(
    *, path: str, request_id: str, spec: FunctionSpec, account: Account, qualifier: str, version_id: str
) -> Mapping[str, str]:
    """Returns the headers of one request to a container; `path` is /invoke, /initialize or /pre-stop."""
    return {
        "content-type": "application/octet-stream",
        "x-fc-request-id": request_id,
        "x-fc-access-key-id": "",
        "x-fc-access-key-secret": "",
        "x-fc-security-token": "",
        "x-fc-function-name": spec.name,
        "x-fc-function-handler": spec.handler,
        "x-fc-function-memory": str(spec.memory_mb),
        "x-fc-function-timeout": str(spec.timeout_s),
        "x-fc-region": account.region,
        "x-fc-account-id": account.id,
        "x-fc-qualifier": qualifier,
        "x-fc-version-id": version_id,
        "x-fc-service-logproject": "",
        "x-fc-service-logstore": "",
        "x-fc-control-path": path,
    }
