"""One log line for each event, on stderr: `time level event key=value ...`, or a JSON object with the same."""

import json
import logging
import math
import sys
from collections.abc import Mapping
from datetime import datetime, timezone

_logger = logging.getLogger("edgeburst")
FORMATS = ("text", "json")
JOURNAL = "JOURNAL_STREAM"
"""The variable in which systemd says that stderr goes to the journal, which adds the time itself."""


class LineFormatter(logging.Formatter):
    """A formatter for one line per record, with its fields; an exception's traceback follows on further lines."""

    def __init__(self, *, timed: bool = False) -> None:
        """Stores whether lines begin with the time."""
        super().__init__()
        self._timed = timed

    def format(self, record: logging.LogRecord) -> str:
        """Returns `info batch_failed batch_id=7 kind=timeout message="..."`."""
        values = getattr(record, "fields", {})
        parts = [*([_time(record)] if self._timed else []), record.levelname.lower(), record.getMessage()]
        parts += [f"{key}={_value(value)}" for key, value in values.items()]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """A formatter for one JSON object per record; an exception's traceback is its `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns `{"time": "...", "level": "info", "event": "batch_failed", "batch_id": 7, ...}`."""
        fields = {key: _plain(value) for key, value in getattr(record, "fields", {}).items()}
        failed = {"traceback": self.formatException(record.exc_info)} if record.exc_info else {}
        head = {"time": _time(record), "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps({**head, **fields, **failed}, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> object:
    """Returns a value as JSON has it; what it has not, as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, (bool, int, str)) or value is None else str(value)


def _value(value: object) -> str:
    """Returns a value as text, quoted if it has blanks."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def set_up(level: str, form: str = "text", environ: Mapping[str, str] | None = None) -> None:
    """Writes the daemon's lines to stderr, and other libraries' lines from warnings on.

    Args:
        level: the lowest that is written.
        form: one of FORMATS.
        environ: of the process; says whether the journal adds the time. None: nothing adds it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else LineFormatter(timed=JOURNAL not in (environ or {})))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _logger.setLevel(level.upper())


def log(level: int, event: str, **values: object) -> None:
    """Writes one line: `event` is a fixed word that can be searched for; the values are its fields."""
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", event, extra={"fields": values})


def fields(**values: object) -> dict[str, object]:
    """Returns the `extra` that gives fields to a logger's own method: `.exception(event, extra=fields(...))`."""
    return {"fields": values}
