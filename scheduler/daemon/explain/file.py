"""Lines appended to a file, which is rotated when it is full. A full or broken disk fails no request."""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from scheduler.daemon.logs import log


class ExplanationFile(RotatingFileHandler):
    """A file of explanations, rotated like a log: FILE is the newest, FILE.1 the one before.

    `write_lines` blocks, so call it in a thread.
    """

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        """Stores where to write; opens no file yet.

        Args:
            path: path of the newest file.
            max_bytes: size at which it is rotated.
            files: how many files are kept, at least 2.
        """
        super().__init__(path, maxBytes=max_bytes, backupCount=files - 1, encoding="utf-8", delay=True)
        self.written = 0
        self.lost = 0
        """Lines that could not be written."""
        self.failure = ""
        """Why the last line could not be written; empty if it was."""

    def write_lines(self, lines: Sequence[str]) -> None:
        """Appends lines; counts those that cannot be written, and logs the first of them."""
        for line in lines:
            before, self.failure = self.failure, ""
            # After a failure the file may end within a line: a line end separates the next line from it.
            self.emit(logging.LogRecord("", logging.INFO, "", 0, f"\n{line}" if before else line, None, None))
            self.written += not self.failure
            self.lost += bool(self.failure)
            if self.failure and not before:
                log(logging.WARNING, "explain_file_failed", path=self.baseFilename, message=self.failure)
            elif before and not self.failure:
                log(logging.WARNING, "explain_file_mended", path=self.baseFilename, lost=self.lost)

    def _open(self) -> TextIOWrapper:
        """Opens the file for the daemon's user alone, also one that was written before it was so."""
        stream = super()._open()
        with suppress(OSError):
            os.fchmod(stream.fileno(), 0o600)
        return stream

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - called by the standard library
        """Records why a line could not be written, and closes the file: the next line opens it again."""
        error = sys.exc_info()[1]
        self.failure = str(error) or type(error).__name__
        with suppress(OSError):
            self.close()
