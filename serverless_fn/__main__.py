"""Entry point of `python -m serverless_fn`, the container program; configured by environment variables only."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from waitress.server import create_server

from serverless_fn.app import create_app
from serverless_fn.inference import Inference
from serverless_fn.log_tail import LogTail
from serverless_fn.settings import Settings, SettingsError, read_settings

_HELP = """\
Serves a model inside a Function Compute container: POST /invoke, POST /initialize, GET /pre-stop, GET /healthz.
It is configured by environment variables:
  MODEL                   model of the catalogue (digits)
  WEIGHTS_PATH            file of weights, if the model has no shipped weights
  WEIGHTS_SHA256          its SHA-256, checked before loading
  RANDOM_WEIGHTS          name of the model, to run it with random weights
  EDGEBURST_EMULATE       profile whose predicted service times are emulated
  DEVICE                  cpu or cuda (cpu)
  TORCH_THREADS           threads of one prediction (1)
  MAX_BATCH               largest number of items in an invocation (that of the emulated profile, else 32)
  FC_CUSTOM_LISTEN_PORT   port (9000)
  EDGEBURST_LISTEN_HOST   address (0.0.0.0, which the platform requires)
"""

# The platform sends POSTs on kept connections and does not repeat a POST that meets a closed connection (502).
_NEVER_S = 10 * 365 * 86_400
# The platform's limit for a request is 32 MB. This one is slightly higher, so that clients see the platform's answer.
_MAX_BODY_BYTES = 33 * 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serverless_fn", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    try:
        serve(read_settings(os.environ))
    except SettingsError as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"the function cannot listen: {error.strerror or error}; set FC_CUSTOM_LISTEN_PORT")
    return 0


def serve(settings: Settings) -> None:
    """Listens and answers until SIGTERM or SIGINT; blocks.

    Raises:
        OSError: the port cannot be opened.
    """
    signal.signal(signal.SIGTERM, _exit)
    server = create_server(
        create_app(Inference(settings, LogTail.of_this_process())),
        host=settings.host,
        port=settings.port,
        # One thread computes; the others answer health checks and hold the requests that wait for it.
        threads=8,
        channel_timeout=_NEVER_S,
        connection_limit=1000,
        asyncore_use_poll=True,
        max_request_body_size=_MAX_BODY_BYTES,
        inbuf_overflow=_MAX_BODY_BYTES,
        recv_bytes=2**16,
        ident="edgeburst-function",
    )
    server.run()


def _exit(_signal: int, _frame: FrameType | None) -> None:
    # waitress ends its loop and finishes the running requests on SystemExit.
    raise SystemExit(0)


def _refused(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
