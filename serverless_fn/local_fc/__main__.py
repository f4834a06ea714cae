"""Entry point of `python -m serverless_fn.local_fc` and `edgeburst-local-fc`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from models.packages import missing_for


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the local endpoint; returns the exit status."""
    # Here, so that an installation without the extra is told in one sentence.
    try:
        from serverless_fn.local_fc.process import main as run
    except ModuleNotFoundError as error:
        print(missing_for("edgeburst-local-fc", error, "client"), file=sys.stderr)
        return 2
    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
