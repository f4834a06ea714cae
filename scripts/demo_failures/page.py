"""What the daemon's page gets: its figures, its list of misses, its explanations and its history."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import requests

from scheduler.explain.json_lines import from_values
from scheduler.explain.text import describe
from scripts.demo.errors import DemoError
from scripts.demo_failures.checklist import Explained

T = TypeVar("T")
_LIMIT_S = 10.0
_POLL_S = 0.25


class Page:
    """Asks the daemon what its page asks.

    Args:
        url: address of the daemon.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = requests.Session()
        self._http.trust_env = False

    def close(self) -> None:
        """Ends its connection."""
        self._http.close()

    def get(self, path: str) -> dict[str, Any]:
        """Returns an answer of the daemon.

        Raises:
            DemoError: the daemon does not answer.
        """
        try:
            answer = self._http.get(self.url + path, timeout=_LIMIT_S)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise DemoError(f"the daemon does not answer: {error}") from error
        content: dict[str, Any] = answer.json()
        return content

    def now(self) -> dict[str, Any]:
        """Returns the figures that the page shows."""
        figures: dict[str, Any] = self.get("/v1/now")["now"]
        return figures

    def until(self, found: Callable[[Mapping[str, Any]], T | None], *, limit_s: float) -> T | None:
        """Looks at the figures until something is found in them; returns it, or None after the limit."""
        end_s = time.monotonic() + limit_s
        while (what := found(self.now())) is None and time.monotonic() < end_s:
            time.sleep(_POLL_S)
        return what

    def place(self, name: str, *, up: bool, limit_s: float) -> Mapping[str, Any] | None:
        """Returns the row of a place once it is used, or not used any more; None if it does not come to that."""

        def row(figures: Mapping[str, Any]) -> Mapping[str, Any] | None:
            return next((one for one in figures["places"] if one["place"] == name and one["up"] is up), None)

        return self.until(row, limit_s=limit_s)

    def explained(self, scene: str, path: str) -> Explained | None:
        """Returns the explanation that a click on a miss opens; None if there is none."""
        try:
            values = self.get(path)["explanations"][0]
        except (DemoError, LookupError):
            return None
        return Explained(scene, int(values["request_id"]), describe(*from_values(values)))

    def batches_after(self, record: int) -> list[Mapping[str, Any]]:
        """Returns the batches of the strip that have ended since a record."""
        found: list[Mapping[str, Any]] = []
        while rows := self.get(f"/v1/batches?after={record}&limit=1000")["batches"]:
            found += rows
            record = int(rows[-1]["record"])
        return found

    def last_record(self) -> int:
        """Returns the number of the newest record of a batch; 0 without any."""
        rows = self.batches_after(0)
        return int(rows[-1]["record"]) if rows else 0
