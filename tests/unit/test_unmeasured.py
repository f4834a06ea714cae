"""A request whose model is still being measured on the edge waits within its deadline, and hears that, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.card_edge import card_folder
from support.virtual_loop import run_virtual

from models.profile import Profile, ProfileRow
from scheduler.daemon.calls import InferenceCall, Refused
from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.ingress.unmeasured import RETRY_AFTER_S, Unmeasured
from scheduler.domain.errors import RefusalKind

CONFIG = """
[daemon]
port = 0
max_timeout_s = 60
[engine]
queue_max_requests = 2
[edge]
url = "http://127.0.0.1:9"
[[model]]
card = "ragged"
[[model.class]]
slo_s = 2.0
[[model.class]]
name = "patient"
slo_s = 2.0
late = "serve"
"""
PROFILE = Profile(
    name="measured-ragged",
    backend="edge",
    model="ragged",
    device="",
    source="",
    date="2026-01-01",
    note="",
    rows=(ProfileRow(1, 0.1, 0.1, 10.0, 5),),
    alpha_s=0.1,
    beta_s=0.0,
    alpha_stderr_s=None,
    beta_stderr_s=None,
    max_batch=1,
    environment={},
)
CALL = InferenceCall("ragged", (), items=1, body_bytes=5, received_at_s=0.0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    card_folder(tmp_path)
    path = tmp_path / "edgeburst.toml"
    path.write_text(CONFIG)
    return load_config(path, {})


def run(
    config: Config, scene: Callable[[Unmeasured, asyncio.AbstractEventLoop], Awaitable[None]], why: str = ""
) -> None:
    """Plays a scene on a virtual clock that begins at 0."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        unmeasured = Unmeasured(clock=loop.time, why=lambda _: why)
        unmeasured.reload(config)
        await scene(unmeasured, loop)

    run_virtual(play())


async def refused(unmeasured: Unmeasured, call: InferenceCall) -> Refused:
    with pytest.raises(Refused) as error:
        await unmeasured.wait(call)
    return error.value


def test_it_goes_on_when_the_model_is_measured(config: Config) -> None:
    async def scene(unmeasured: Unmeasured, loop: asyncio.AbstractEventLoop) -> None:
        waiting = loop.create_task(unmeasured.wait(CALL))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        config.note_measured(PROFILE)
        unmeasured.reload(config)
        await waiting
        assert loop.time() == pytest.approx(1.0)
        await unmeasured.wait(CALL)

    run(config, scene)


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("", "model 'ragged' is still being measured on the edge, and its deadline came before that was done"),
        ("Connection refused", "could not be measured on the edge yet (Connection refused)"),
    ],
)
def test_at_its_deadline_it_hears_what_it_waited_for(config: Config, why: str, words: str) -> None:
    async def scene(unmeasured: Unmeasured, loop: asyncio.AbstractEventLoop) -> None:
        error = await refused(unmeasured, CALL)
        assert loop.time() == pytest.approx(2.0)
        assert words in error.refusal.message
        assert (error.refusal.status, error.refusal.retry_after_s) == (503, RETRY_AFTER_S)

    run(config, scene, why)


def test_a_deadline_of_its_own_counts_and_one_that_is_served_late_waits_longer(config: Config) -> None:
    async def scene(unmeasured: Unmeasured, loop: asyncio.AbstractEventLoop) -> None:
        await refused(unmeasured, replace(CALL, timeout_s=0.5))
        assert loop.time() == pytest.approx(0.5)
        await refused(unmeasured, replace(CALL, class_name="patient", timeout_s=0.5))
        assert loop.time() == pytest.approx(60.0)

    run(config, scene)


def test_no_more_wait_than_fit_into_the_queue(config: Config) -> None:
    async def scene(unmeasured: Unmeasured, loop: asyncio.AbstractEventLoop) -> None:
        waiting = [loop.create_task(unmeasured.wait(CALL)) for _ in range(2)]
        await asyncio.sleep(0)
        error = await refused(unmeasured, CALL)
        assert error.refusal.kind is RefusalKind.QUEUE_FULL
        waiting[0].cancel()
        await asyncio.sleep(0.1)
        third = loop.create_task(unmeasured.wait(CALL))
        await asyncio.sleep(0.1)
        assert not third.done()
        unmeasured.close()
        ends = await asyncio.gather(*waiting, third, return_exceptions=True)
        assert isinstance(ends[0], asyncio.CancelledError)
        assert [end.refusal.kind for end in ends[1:] if isinstance(end, Refused)] == [RefusalKind.DRAINING] * 2

    run(config, scene)
