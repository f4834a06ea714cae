"""Emulation: the whole service takes what the profile's law says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.emulation import emulation_for
from models.profile import ProfileError

ORIN = emulation_for("orin-resnet50")


@given(items=st.integers(1, 64), elapsed_s=st.floats(0, 10))
def test_elapsed_and_remaining_make_the_law_or_the_law_is_over(items: int, elapsed_s: float) -> None:
    law_s = 0.04234 + 0.008165 * items
    remaining_s = ORIN.remaining_s(items, elapsed_s)

    assert remaining_s >= 0
    assert elapsed_s + remaining_s == pytest.approx(max(law_s, elapsed_s))


def test_without_a_name_nothing_is_emulated() -> None:
    true_speed = emulation_for(None)

    assert true_speed.name is None
    assert true_speed.remaining_s(64, 0.0) == 0.0


def test_an_emulation_goes_by_its_profile() -> None:
    assert ORIN.name == "orin-resnet50"


def test_an_unknown_profile_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ProfileError, match="did you mean 'orin-resnet50'"):
        emulation_for("orin-resnet5")
