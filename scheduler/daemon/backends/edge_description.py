"""Asks an edge server what it is: its metadata, and for each model the largest batch. One that says nothing is fine."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from scheduler.daemon.backends.bounded_reading import read_within
from scheduler.daemon.backends.edge_servers import Description
from scheduler.daemon.model_outputs import HEADER_BYTES
from scheduler.wire.servers import NAME_CHARACTERS, said_of_model

LIMIT_S = 1.0
"""Longest that all questions together may take."""


async def describe(session: aiohttp.ClientSession, url: str, models: Iterable[str]) -> Description | None:
    """Returns what a server says of itself and its models; None where it was not to be had in time.

    Args:
        session: the connections.
        url: of the server, without a slash at its end.
        models: names of the models.
    """
    names = tuple(models)

    async def asking() -> list[dict[str, Any]]:
        # In a task of its own: a gathering that `wait_for` cancels itself would be reported as never looked at.
        return await _all(_json(session, f"{url}/v2"), *(_said(session, url, name) for name in names))

    try:
        server, *said = await asyncio.wait_for(asking(), LIMIT_S)
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
        return None
    version = " ".join(str(server.get(key) or "")[:NAME_CHARACTERS] for key in ("name", "version")).strip()
    listed = server.get("extensions")
    extensions = tuple(str(each) for each in listed) if isinstance(listed, list) else ()
    return Description(version, extensions, {name: of for name, of in zip(names, said, strict=True) if of})


async def _said(session: aiohttp.ClientSession, url: str, model: str) -> dict[str, object]:
    of_model = f"{url}/v2/models/{quote(model, safe='')}"
    metadata, config = await _all(_json(session, of_model), _json(session, f"{of_model}/config"))
    return said_of_model(metadata, config)


async def _all(*questions: Coroutine[Any, Any, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the answers to all questions, which are asked together; where one fails, none of the others goes on."""
    asked = [asyncio.ensure_future(question) for question in questions]
    try:
        return await asyncio.gather(*asked)
    finally:
        for question in asked:
            question.cancel()
        await asyncio.wait(asked)


async def _json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Returns the JSON object at a URL; an empty one where there is none."""
    async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
        body = await read_within(response, HEADER_BYTES) if response.status == 200 else b""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
