"""Inputs that found something once are still met with a value or the documented error, quickly and in little memory."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from fuzz.__main__ import IN_CI
from fuzz.guided import _instrumented_modules
from fuzz.limits import TooSlow, within_limits
from fuzz.own_loop import search
from fuzz.target import CORPUS, NAMES, Target, in_corpus, load


@pytest.mark.parametrize("name", NAMES)
def test_what_was_found_once_and_what_a_search_begins_with_is_sound(name: str) -> None:
    target = load(name)
    for data in (*target.seeds(), *(path.read_bytes() for path in in_corpus(name))):
        within_limits(target.check, data)
        assert len(data) <= target.longest_bytes


def test_every_folder_of_the_corpus_is_of_a_target_and_its_files_are_small_and_named() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(NAMES)
    files = [path for name in NAMES for path in in_corpus(name)]
    assert [path.name for path in files if path.stat().st_size > 32_768] == []
    assert [path.name for path in files if path.name.isalnum() and len(path.name) == 16] == []


def test_ci_tries_a_hundred_thousand_inputs_and_every_target() -> None:
    assert set(IN_CI) == set(NAMES)
    assert sum(IN_CI.values()) >= 100_000


@pytest.mark.parametrize("name", NAMES)
def test_what_guides_a_search_can_be_read_without_importing_it(name: str) -> None:
    assert tuple(_instrumented_modules(name)) == load(name).instrumented


def test_a_slow_input_is_a_fault() -> None:
    def slow(data: bytes) -> None:
        while os.times().user < began_s + 1.1:
            pass

    began_s = os.times().user
    with pytest.raises(TooSlow, match=r"took \d"):
        within_limits(slow, b"abc")


def test_the_search_without_atheris_finds_what_lies_behind_several_lines(tmp_path: Path) -> None:
    (tmp_path / "grown").mkdir()
    (tmp_path / "grown" / "seed").write_bytes(b"....")
    target = Target("toy", behind_lines, list, ("fuzz.test_corpus", "tests.fuzz.test_corpus"), words=(b"b", b"u", b"g"))
    assert search(target, runs=20_000, seconds=0, seed=3, work=tmp_path) == 1
    [found] = tmp_path.glob("found-*")
    assert found.read_bytes().startswith(b"bug")


def behind_lines(data: bytes) -> None:
    """A toy."""
    if data[:1] != b"b":
        return
    if data[1:2] != b"u":
        return
    if data[2:3] == b"g":
        raise RuntimeError("found")


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).mutate])
def test_mutations_take_whatever_bytes_there_are(name: str) -> None:
    mutate, rng = load(name).mutate, random.Random(1)
    assert mutate is not None
    for data in (b"", b"\0", b"\1{", b"[1, 2]", rng.randbytes(64), *load(name).seeds()):
        for _ in range(20):
            assert isinstance(mutate(data, rng), bytes)
