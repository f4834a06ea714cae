"""Moments as people and traces write them: ISO 8601, or numbers of seconds, milli-, micro- or nanoseconds."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

_ISO = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?)?\s*(Z|UTC|GMT|[+-]\d\d:?\d\d)?\s*",
    re.IGNORECASE,
)
UNITS_S: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_EPOCHS = (("ns", 1e17), ("us", 1e14), ("ms", 1e11))
"""Numbers from which a date since 1970 is in such a unit: before 1973 in it, and after the year 5000 in the next."""
DATED_S = 3e8
"""Seconds from which a number is a date (1979) and not a time from a file's own zero."""
LATEST_S = 253402300800.0
"""The year 10000: what is later, or as long before 1970, is no time."""


def iso_s(text: str) -> tuple[float, bool] | None:
    """Returns seconds since 1970 and whether the text names a zone; without one it is read as UTC. None: it is no date.

    >>> iso_s("2026-01-05 09:00:00.1000000"), iso_s("2026-01-05T10:00+01:00"), iso_s("12.5")
    ((1767603600.1, False), (1767603600.0, True), None)
    """
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        whole = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=timezone.utc
        )
    except ValueError:
        return None
    at_s = whole.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
    return at_s - _offset_s(zone), zone is not None


def _offset_s(zone: str | None) -> float:
    if zone is None or zone[0] not in "+-":
        return 0.0
    digits = zone[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return offset.total_seconds() * (-1 if zone[0] == "-" else 1)


def unit_of(largest: float) -> str:
    """Returns the unit of numbers whose largest is this: of dates by their size, of all others seconds."""
    return next((unit for unit, least in _EPOCHS if abs(largest) >= least), "s")


def moment_s(text: str) -> tuple[float, str]:
    """Returns seconds since 1970, and in which zone they were read, in words; a date without one is this host's.

    Raises:
        ValueError: the text is neither a date nor a number of seconds before the year 10000.
    """
    found = iso_s(text)
    if found is not None:
        at_s, zoned = found
        if zoned:
            return at_s, "UTC offset as given"
        return datetime.fromtimestamp(at_s, timezone.utc).replace(tzinfo=None).timestamp(), "local time"
    number = float(text)
    at_s = number * UNITS_S[unit_of(number)]
    if not abs(at_s) < LATEST_S:
        raise ValueError(text)
    return at_s, "seconds since 1970"
