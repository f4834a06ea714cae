"""Virtual time passes from timer to timer, however late it is."""

import asyncio

import pytest
from support.virtual_loop import run_virtual


@pytest.mark.parametrize("start_s", [0.0, 100.0, 2.0**24, 2.0**40])
def test_a_timer_fires_after_any_time(start_s: float) -> None:
    async def main() -> float:
        await asyncio.sleep(0.25)
        return asyncio.get_running_loop().time() - start_s

    assert run_virtual(main(), start_s=start_s) == pytest.approx(0.25, rel=1e-3)
