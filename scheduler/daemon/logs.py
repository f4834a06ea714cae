"""One log line for each event: `level event key=value ...`, on stderr; the journal adds the time."""

import json
import logging
import sys

_logger = logging.getLogger("edgeburst")


class LineFormatter(logging.Formatter):
    """A formatter for one line per record, with its fields; an exception's traceback follows on further lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns `info batch_failed batch_id=7 kind=timeout message="..."`."""
        values = getattr(record, "fields", {})
        parts = [record.levelname.lower(), record.getMessage()]
        parts += [f"{key}={_value(value)}" for key, value in values.items()]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _value(value: object) -> str:
    """Returns a value as text, quoted if it has blanks."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def set_up(level: str) -> None:
    """Writes the daemon's lines from `level` on to stderr, and other libraries' lines from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _logger.setLevel(level.upper())


def log(level: int, event: str, **values: object) -> None:
    """Writes one line: `event` is a fixed word that can be searched for; the values are its fields."""
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", event, extra={"fields": values})


def fields(**values: object) -> dict[str, object]:
    """Returns the `extra` that gives fields to a logger's own method: `.exception(event, extra=fields(...))`."""
    return {"fields": values}
