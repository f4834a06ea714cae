"""Entry point of `python -m scripts.evaluate`: simulates policies and writes tables, rows and plots."""

import sys

from scripts.evaluation.command import main
from scripts.support.script import run_script

if __name__ == "__main__":
    sys.exit(run_script("evaluate", main, shown=False))
