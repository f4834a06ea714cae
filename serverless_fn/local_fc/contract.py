"""The contract with a container: environment variables, and headers of its requests.

Source: functioncompute/fc/environment-variables and context-and-log-format (custom containers), read 2026-11. Keys of a
role are omitted: the functions of this project have no role.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from serverless_fn.local_fc.config import Account, Image
from serverless_fn.local_fc.function_spec import FunctionSpec

# Variables of this machine that a program needs to start; all others come from image and function.
_INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "TZ", "CUDA_VISIBLE_DEVICES")


def instance_command(image: Image, spec: FunctionSpec) -> tuple[str, ...]:
    """Returns program and arguments, combined from entrypoint and command as for a container."""
    return (spec.entrypoint or image.command) + spec.command


def instance_environment(
    *, image: Image, spec: FunctionSpec, account: Account, instance_id: str, version_id: str, port: int
) -> dict[str, str]:
    """Returns the variables of one instance.

    Args:
        image: its variables have the lowest priority.
        spec: the function, with the user's variables.
        account: the account and the region.
        instance_id: id of this instance.
        version_id: "0" for LATEST.
        port: port on which the program must listen; different for each instance, since all share one loopback.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # `python` in an image means the interpreter of this endpoint.
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
        # On the platform containers listen on all addresses; here no other machine shall reach them.
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
