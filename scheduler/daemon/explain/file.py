"""Lines appended to a file that is put aside when it is full. Whatever the disk does, nobody is hurt by it."""

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from scheduler.daemon.logs import log


class ExplanationFile(RotatingFileHandler):
    """The standard library's rotated log file, without the log: FILE is the newest, FILE.1 the one before.

    Blocks: `write_lines` belongs in a thread.
    """

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        """Stores where to write; nothing is opened yet.

        Args:
            path: of the newest file.
            max_bytes: at which it is put aside.
            files: how many are kept, at least 2.
        """
        super().__init__(path, maxBytes=max_bytes, backupCount=files - 1, encoding="utf-8", delay=True)
        self.written = 0
        self.lost = 0
        """Lines that could not be written."""
        self.failure = ""
        """Why the last line could not be written; empty: it was."""

    def write_lines(self, lines: Sequence[str]) -> None:
        """Appends lines; those that cannot be written are counted, and the first of them is logged."""
        for line in lines:
            before, self.failure = self.failure, ""
            # After a failure a part of a line may stand at the end: a line's end keeps the next from joining it.
            self.emit(logging.LogRecord("", logging.INFO, "", 0, f"\n{line}" if before else line, None, None))
            self.written += not self.failure
            self.lost += bool(self.failure)
            if self.failure and not before:
                log(logging.WARNING, "explain_file_failed", path=self.baseFilename, message=self.failure)
            elif before and not self.failure:
                log(logging.WARNING, "explain_file_mended", path=self.baseFilename, lost=self.lost)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - called by the standard library
        """Notes why a line could not be written, and lets the file go: the next line opens it again."""
        error = sys.exc_info()[1]
        self.failure = str(error) or type(error).__name__
        with suppress(OSError):
            self.close()
