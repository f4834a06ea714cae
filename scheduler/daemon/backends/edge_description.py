"""Asks an edge server what it is: its metadata, and for each model the largest batch, in the words of each server.

Ours and other servers say `max_batch` in a model's metadata parameters; Triton says `max_batch_size` in a model's
configuration, with `dynamic_batching` and `instance_group`. A server that says nothing of this is fine.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from scheduler.daemon.backends.bounded_reading import read_within
from scheduler.daemon.backends.edge_servers import Description
from scheduler.daemon.model_outputs import HEADER_BYTES

LIMIT_S = 1.0
"""Longest that all questions together may take."""
NAME_CHARACTERS = 128

_KEYS = ("max_batch", "max_batch_size")


async def describe(session: aiohttp.ClientSession, url: str, models: Iterable[str]) -> Description | None:
    """Returns what a server says of itself and its models; None where it was not to be had in time.

    Args:
        session: the connections.
        url: of the server, without a slash at its end.
        models: names of the models.
    """
    names = tuple(models)
    asking = asyncio.gather(_json(session, f"{url}/v2"), *(_said(session, url, name) for name in names))
    try:
        server, *said = await asyncio.wait_for(asking, LIMIT_S)
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
        return None
    version = " ".join(str(server.get(key) or "")[:NAME_CHARACTERS] for key in ("name", "version")).strip()
    listed = server.get("extensions")
    extensions = tuple(str(each) for each in listed) if isinstance(listed, list) else ()
    return Description(version, extensions, {name: of for name, of in zip(names, said, strict=True) if of})


async def _said(session: aiohttp.ClientSession, url: str, model: str) -> dict[str, object]:
    of_model = f"{url}/v2/models/{quote(model, safe='')}"
    metadata, config = await asyncio.gather(_json(session, of_model), _json(session, f"{of_model}/config"))
    return said_of_model(metadata, config)


def said_of_model(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, object]:
    """Returns what metadata and Triton's configuration of a model say of its batches, and of its card and files.

    >>> said_of_model({"parameters": {"max_batch": 16, "identity": "sha256:1"}}, {})
    {'max_batch': 16, 'identity': 'sha256:1'}
    >>> batching = {"preferred_batch_size": [4, 8]}
    >>> said_of_model({}, {"max_batch_size": 8, "dynamic_batching": batching, "instance_group": [{"count": 2}]})
    {'max_batch': 8, 'preferred_batches': [4, 8], 'instances': 2}
    >>> said_of_model({"parameters": None}, {"max_batch_size": 0})
    {}
    """
    found: dict[str, object] = {}
    parameters = metadata.get("parameters")
    sources = (parameters if isinstance(parameters, dict) else {}, config)
    # A batch size of 0 is Triton's word for a model whose tensors have no batch axis of its own making.
    limits = [limit for source in sources for key in _KEYS if (limit := _count(source.get(key))) is not None]
    if limits:
        found["max_batch"] = min(limits)
    identity = sources[0].get("identity")
    if isinstance(identity, str):
        found["identity"] = identity[:NAME_CHARACTERS]
    batching = config.get("dynamic_batching")
    preferred = batching.get("preferred_batch_size") if isinstance(batching, dict) else None
    if isinstance(preferred, list) and preferred:
        found["preferred_batches"] = [size for size in map(_count, preferred) if size is not None]
    groups = config.get("instance_group")
    if isinstance(groups, list) and groups:
        found["instances"] = sum(_count(group.get("count")) or 1 for group in groups if isinstance(group, dict))
    return found


def _count(value: object) -> int | None:
    """Returns a whole number of at least 1, which some servers write as text; None for anything else."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and 1 <= int(text) <= 2**31 else None


async def _json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Returns the JSON object at a URL; an empty one where there is none."""
    async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
        body = await read_within(response, HEADER_BYTES) if response.status == 200 else b""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
