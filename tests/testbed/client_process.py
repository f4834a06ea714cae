"""An open-loop client: sends pictures to a daemon at a steady mean rate, and reads its estimate of the uplink.

`python -m testbed.client_process URL RPS SECONDS ITEM_BYTES SEED` prints one JSON object: `samples`, pairs of monotonic
seconds and bytes a second, and `outcomes`, counts by status.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter

import aiohttp

from scheduler import wire

LOOK_S = 0.25


async def main(url: str, rps: float, seconds: float, item_bytes: int, seed: int) -> None:
    """Sends, and prints what came of it."""
    draws = random.Random(seed)
    outcomes: Counter[str] = Counter()
    samples: list[tuple[float, float | None]] = []
    end_s = time.monotonic() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        tensor = wire.Tensor.from_elements("image", [draws.randbytes(item_bytes)])
        encoded = wire.encode_request(wire.InferRequest("r", (tensor,), binary_by_default=True))
        headers = {wire.JSON_LENGTH_HEADER: str(encoded.json_length)}
        try:
            async with session.post(f"{url}/v2/models/digits/infer", data=encoded.body, headers=headers) as response:
                await response.read()
                outcomes[str(response.status)] += 1
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            outcomes[type(error).__name__] += 1

    async def look(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end_s:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with session.get(f"{url}/v1/status") as response:
                    engine = (await response.json())["engine"]
                samples.append((time.monotonic(), engine["uplink_bytes_per_s"]))
            await asyncio.sleep(LOOK_S)

    timeout = aiohttp.ClientTimeout(total=30.0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        looking, sent, next_s = asyncio.create_task(look(session)), [], time.monotonic()
        while max(next_s, time.monotonic()) < end_s:
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            sent.append(asyncio.create_task(ask(session)))
            next_s += draws.expovariate(rps)
        await asyncio.gather(looking, *sent)
    print(json.dumps({"samples": samples, "outcomes": outcomes}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
