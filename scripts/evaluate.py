"""Runs policies over workloads, networks and faults, and writes a table, rows and plots: python -m scripts.evaluate."""

import sys

from scripts.evaluation.command import main

if __name__ == "__main__":
    sys.exit(main())
