"""Entry point of `python -m edge_server` and `edgeburst-edge`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from edge_server.errors import StartupError
from edge_server.settings import Settings, parse_arguments
from models.errors import DeviceLost, ModelError
from models.packages import missing_for
from scheduler.program_options import show_where, take_everywhere


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server.

    Args:
        argv: the arguments; None for those of the command line.

    Returns:
        The exit status: 0 after an orderly stop, 2 if the server cannot start, 1 if the GPU does
        not answer this process, which another may cure; the reason is on standard error.
    """
    try:
        settings = parse_arguments(take_everywhere(sys.argv[1:] if argv is None else argv))
        logging.basicConfig(
            level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        return _run(settings)
    except (StartupError, ModelError) as error:
        show_where()
        print(f"edgeburst-edge: {error}", file=sys.stderr)
        return 1 if isinstance(error, DeviceLost) else 2


def _run(settings: Settings) -> int:
    # Here, so that an installation without the extra is told in one sentence.
    try:
        from edge_server.process import run
    except ModuleNotFoundError as error:
        raise StartupError(missing_for("the server", error, "edge")) from None
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
