"""The endpoint as a process: runs until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from scheduler.program_options import add_everywhere, show_where, take_everywhere
from serverless_fn.local_fc.config import Config, ConfigError, load_config
from serverless_fn.local_fc.endpoint import Endpoint, build_services
from serverless_fn.local_fc.ids import Ids
from serverless_fn.local_fc.uplink import Uplink, open_listener

_HELP = """\
A local Function Compute endpoint. It serves the provider's unmodified SDK, verifies every signature, runs functions
as processes that are started and stopped on demand, and meters cost as the provider bills it.
"""
_EXAMPLE = """\
A configuration for this package's own function with two provisioned instances:

  [access_keys]
  demo = "demo-secret"

  [images."edgeburst/function:cpu"]
  command = ["python", "-m", "serverless_fn"]

  [[function]]
  functionName = "infer"
  runtime = "custom-container"
  handler = "index.handler"
  cpu = 1
  memorySize = 1024
  timeout = 60
  customContainerConfig = { image = "edgeburst/function:cpu" }
  instanceLifecycleConfig = { initializer = { handler = "index.initialize", timeout = 120 } }
  environmentVariables = { MODEL = "digits" }
  provisionConfig = { defaultTarget = 2 }

[account] sets limits: max_instances, burst_instances, growth_per_min, idle_s, ready_limit_s, stop_limit_s, update_s,
wake_s. Paths without a signature, for this machine only: GET /admin/meter, GET /admin/instances,
GET|POST|DELETE /admin/faults, GET|POST /admin/uplink. A fault acts on invocations, or on the `operation` that it names,
for instance publish_function_version: {"kind": "close", "after": true, "operation": ..., "calls": [1]} loses an answer.
When the endpoint listens, it prints one line of JSON with its host and port.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the endpoint; returns the exit status."""
    options = _parse(take_everywhere(sys.argv[1:] if argv is None else argv))
    logging.basicConfig(level=options.log_level.upper(), format="%(levelname)s %(name)s %(message)s")
    try:
        config = load_config(options.config)
        listener = open_listener(options.host, options.port)
    except ConfigError as error:
        return _refused(str(error))
    except OSError as error:
        where = f"{options.host} port {options.port}"
        return _refused(f"cannot listen on {where}: {error.strerror or error}; choose another --host or --port")
    asyncio.run(_run(config, listener, options))
    return 0


async def _run(config: Config, listener: socket.socket, options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    uplink = Uplink(mbit_per_s=options.uplink_mbit_per_s, rtt_s=options.rtt_s)
    services = build_services(config, seed=options.seed, uplink=uplink)
    endpoint = Endpoint(services, access_keys=config.access_keys, uplink=uplink, ids=Ids(Random()))
    await endpoint.start(listener)
    print(json.dumps({"event": "ready", "host": options.host, "port": listener.getsockname()[1]}), flush=True)
    await stop.wait()
    await endpoint.stop()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edgeburst-local-fc",
        description=_HELP,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_everywhere(parser)
    parser.add_argument("--config", type=Path, required=True, help="TOML file, see below")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="port to listen on; 0 for a free port (default)")
    parser.add_argument(
        "--uplink-mbit-per-s",
        type=_not_negative,
        metavar="X",
        help="rate of the uplink that all connections share (default: no limit)",
    )
    parser.add_argument(
        "--rtt-s",
        type=_not_negative,
        default=0.0,
        metavar="S",
        help="round-trip time added to each request (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of faults and alias weights (default %(default)s)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="warning")
    return parser.parse_args(argv)


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a number of at least 0")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number from 0 to 65535")
    return int(text)


def _refused(message: str) -> int:
    show_where()
    print(message, file=sys.stderr)
    return 2
