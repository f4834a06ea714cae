"""An edge server is asked what it is by several questions at once; whatever becomes of one, none is left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest

from scheduler.daemon.backends import edge_description
from scheduler.daemon.backends.edge_description import describe


class Session:
    """Refuses the question at one path, and answers no other."""

    def __init__(self, refused: str) -> None:
        self._refused = refused
        self.asked: list[str] = []

    @asynccontextmanager
    async def get(self, url: Any, **_: object) -> AsyncIterator[None]:
        self.asked.append(url.path)
        if url.path == self._refused:
            raise aiohttp.ClientOSError(111, "Connection refused")
        await asyncio.Event().wait()
        yield


@pytest.mark.parametrize("refused", ["/v2", "/v2/models/m", "/v2/models/m/config", "/none"])
def test_no_question_goes_on_when_another_has_failed_or_time_is_up(
    monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    monkeypatch.setattr(edge_description, "LIMIT_S", 0.01 if refused == "/none" else 60.0)

    async def ask() -> None:
        session = Session(refused)
        assert await describe(cast("aiohttp.ClientSession", session), "http://edge:8700", ["m"]) is None
        assert sorted(session.asked) == ["/v2", "/v2/models/m", "/v2/models/m/config"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(ask())
