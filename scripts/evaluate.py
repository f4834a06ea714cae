"""Entry point of `python -m scripts.evaluate`: simulates policies and writes tables, rows and plots."""

import sys

from scripts.evaluation.command import main

if __name__ == "__main__":
    sys.exit(main())
