"""`python -m scripts.limits`."""

import sys

from scripts.limits.command import main
from scripts.support.script import run_script

if __name__ == "__main__":
    sys.exit(run_script("limits", main))
