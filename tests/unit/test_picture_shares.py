"""Pictures are weighed before they go anywhere, and no client has more of them decoded at a time than its share."""

from __future__ import annotations

import asyncio
from types import MappingProxyType

import pytest
from support.virtual_loop import run_virtual

from models.card import TensorSpec
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.daemon.ingress.pictures import PRESENT_S, PictureShares, picture_work
from scheduler.domain.errors import RefusalKind
from scheduler.wire import Tensor, WireError
from scripts.hostile_clients.attacks import one_colour_png

SMALL, LARGE = one_colour_png(100, 100), one_colour_png(1000, 900)


def card(**limits: int | None) -> ModelCard:
    return ModelCard(
        name="net",
        inputs=(TensorSpec("image", "BYTES", (1,), picture=True),),
        outputs=(),
        labels=(),
        max_items=8,
        priority_levels=1,
        default_priority=1,
        classes=MappingProxyType({}),
        default_class="default",
        pictures=frozenset({"image"}),
        **limits,
    )


def tensor(*pictures: bytes, shape: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
    return (Tensor.from_elements("image", list(pictures), shape or (len(pictures), 1)),)


def test_the_work_of_all_pictures_counts_and_of_what_is_none_nothing() -> None:
    assert picture_work(card(), tensor(SMALL, LARGE)) == 10_000 + 900_000
    assert picture_work(card(), tensor(SMALL, LARGE, b"text", b"", shape=(2, 2))) == 10_000 + 900_000
    assert picture_work(card(), tensor(b"text", b"")) == 0


def test_a_picture_over_the_limit_is_refused_with_its_pixels_and_the_limit() -> None:
    with pytest.raises(WireError) as refusal:
        picture_work(card(max_pixels=500_000), tensor(LARGE))
    assert str(refusal.value) == "the image has 1000 x 900 pixels, over the limit of 500000: scale it down"
    assert picture_work(card(max_pixels=500_000), tensor(LARGE, SMALL)) > 0, "the backend leaves it out alone"


def test_too_many_pixels_together_are_refused_too() -> None:
    with pytest.raises(
        WireError, match=r"^the pictures of this request have 1800000 pixels to decode, over the limit of"
    ):
        picture_work(card(max_batch_pixels=10**6), tensor(LARGE, LARGE))


class Clients:
    """Pictures that take a second each."""

    def __init__(self, client_pixels: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.shares = PictureShares(self.loop.time)
        self.shares.client_pixels = client_pixels
        self.working: dict[str, int] = {}
        self.most: dict[str, int] = {}

    async def one(self, client: str, work: int, limit_s: float = 1e6) -> str:
        self.shares.seen(client)
        refusal = await self.shares.begin(client, work, limit_s=limit_s)
        if refusal is not None:
            assert refusal.kind is RefusalKind.QUEUE_FULL
            return refusal.message
        self.working[client] = self.working.get(client, 0) + work
        self.most[client] = max(self.most.get(client, 0), self.working[client])
        try:
            await asyncio.sleep(1.0)
        finally:
            self.working[client] -= work
            self.shares.end(client, work)
        return ""


def test_a_client_alone_has_all_at_once_and_beside_others_its_share() -> None:
    async def run() -> None:
        clients = Clients(client_pixels=10)
        assert await asyncio.gather(*(clients.one("a", 4) for _ in range(8))) == [""] * 8
        assert clients.most["a"] == 32
        clients.most.clear()
        clients.shares.seen("b")
        began_s = clients.loop.time()
        assert await asyncio.gather(*(clients.one("a", 4) for _ in range(8))) == [""] * 8
        assert clients.most["a"] == 8
        assert clients.loop.time() - began_s == pytest.approx(4.0, abs=0.01)
        await asyncio.sleep(PRESENT_S)
        await asyncio.gather(*(clients.one("a", 4) for _ in range(8)))
        assert clients.most["a"] == 32, "the other one asks no more"

    run_virtual(run())


def test_one_that_waits_beyond_its_deadline_is_told_so_and_one_too_heavy_at_once() -> None:
    async def run() -> None:
        clients = Clients(client_pixels=10)
        clients.shares.seen("b")
        first = asyncio.ensure_future(clients.one("a", 30))
        await asyncio.sleep(0)
        late, heavy, light = await asyncio.gather(
            clients.one("a", 5, limit_s=0.5), clients.one("a", 41), clients.one("c", 0)
        )
        assert late.startswith("other pictures of this client took all the time of this one")
        assert heavy.startswith(
            "the pictures of this request have 41 pixels to decode, more than 40 while other clients"
        )
        assert (light, await first) == ("", "")
        assert await clients.one("a", 10) == ""

    run_virtual(run())


def test_one_that_leaves_while_it_waits_keeps_no_turn() -> None:
    async def run() -> None:
        clients = Clients(client_pixels=10)
        clients.shares.seen("b")
        tasks = [asyncio.ensure_future(clients.one("a", 10)) for _ in range(3)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await asyncio.wait_for(clients.one("a", 10), 1.5) == ""

    run_virtual(run())
