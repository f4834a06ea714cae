"""Begins every Python process that tests start, as its `sitecustomize`: log lines that tell of a fault are kept.

`hygiene.FaultsOfChildren` copies this file into a folder of the run. It writes there, whatever the process does with
its log, and whatever starts it: a test, a command that a test runs, a container. It imports the standard library only.
"""

import logging
import os
import re
import sys
import traceback
from typing import Any

FAULTS = re.compile(r"^(?:\S+Z )?\w+ \w+_bug\b|Request for model .* failed|^ERROR.* Exception on ", re.MULTILINE)
"""How the daemon, the edge server and Flask log a fault of the program; a 500 is answered nowhere else."""


def fault(record: logging.LogRecord) -> str:
    """Returns the line of a record that tells of a fault of the program; empty for any other."""
    if record.levelno < logging.ERROR:
        return ""
    message = record.getMessage()
    if not message.endswith("_bug") and not FAULTS.search(f"{record.levelname} {message}"):
        return ""
    return f"{record.name}: {message}: {record.exc_info[1] if record.exc_info else ''}"


def keep(folder: str) -> None:
    """Has what this process logs of faults written to a file of its own in a folder."""
    handle, print_exc = logging.Logger.handle, traceback.print_exc

    def write(line: str) -> None:
        with open(os.path.join(folder, f"{os.getpid()}.faults"), "a", encoding="utf-8") as file:
            file.write(" ".join(f"{' '.join(sys.orig_argv)[:200]}: {line}".split()) + "\n")

    def handled(logger: logging.Logger, record: logging.LogRecord) -> None:
        line = fault(record)
        if line:
            write(line)
        handle(logger, record)

    def printed(*arguments: Any, **options: Any) -> None:
        # A container writes to its standard output before it answers with 500, as the platform wants it.
        if sys._getframe(1).f_globals["__name__"].startswith("serverless_fn."):
            write(f"a function failed: {sys.exc_info()[1]!r}")
        print_exc(*arguments, **options)

    logging.Logger.handle = handled  # type: ignore[method-assign]
    traceback.print_exc = printed


if __name__ == "sitecustomize":
    keep(os.path.dirname(os.path.abspath(__file__)))
