"""Entry point of `python -m models` and `edgeburst-model`."""

from __future__ import annotations

import sys

from models.authoring.command import main

if __name__ == "__main__":
    sys.exit(main())
