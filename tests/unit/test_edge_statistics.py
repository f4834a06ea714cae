"""What a batch takes besides the device is read from a server's sums of all inferences, if they are of ours alone."""

import asyncio
import json
from types import TracebackType
from typing import Any

import pytest
from yarl import URL

from scheduler.daemon.backends.edge_statistics import FEWEST, ServerStatistics, counted


class Server:
    """A session to a server whose statistics the test sets."""

    def __init__(self) -> None:
        self.inferences, self.seconds, self.status, self.asked = 0, 0.0, 200, []
        self.headers: dict[str, str] = {}
        self.content_length: int | None = None

    def get(self, url: URL, **_: object) -> "Server":
        self.asked.append(url.path)
        return self

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def content(self) -> Any:
        return self

    async def iter_any(self) -> Any:
        ns = int(self.seconds * 1e9)
        stats = {"success": {"count": self.inferences, "ns": ns}, "queue": {"ns": 0}, "compute_infer": {"ns": ns}}
        yield json.dumps({"model_stats": [{"inference_stats": stats}]}).encode()


async def told(statistics: ServerStatistics, server: Server, batches: int, *, others: int = 0) -> float | None:
    """Has the server serve batches of 0.2 s each, which take 0.05 s besides; returns what is known of that."""
    for _ in range(batches):
        server.inferences += 1
        server.seconds += 0.2
        beside_s = statistics.answered(server, URL("http://edge/v2/models/m"), "m", 0.25)  # type: ignore[arg-type]
        server.inferences, server.seconds = server.inferences + others, server.seconds + 3.0 * others
        assert statistics.asking is not None
        await asyncio.wait([statistics.asking])
    return beside_s


def test_it_is_known_after_two_looks_and_only_now_and_then_looked() -> None:
    async def story() -> None:
        statistics, server = ServerStatistics(), Server()
        assert await told(statistics, server, 1) is None
        assert await told(statistics, server, FEWEST - 1) is None
        assert await told(statistics, server, 2) == pytest.approx(0.05)
        assert server.asked == ["/v2/models/m/stats"] * 2
        await statistics.close()

    asyncio.run(story())


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_does_not_answer_leaves_it_unknown(status: int) -> None:
    async def story() -> None:
        statistics, server = ServerStatistics(), Server()
        server.status = status
        assert await told(statistics, server, 3 * FEWEST) is None

    asyncio.run(story())


def test_with_other_clients_nothing_is_learned() -> None:
    async def story() -> None:
        statistics, server = ServerStatistics(), Server()
        assert await told(statistics, server, 3 * FEWEST, others=1) is None

    asyncio.run(story())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"model_stats": []}',
        b'{"model_stats": [7]}',
        b'{"model_stats": [{"inference_stats": {"success": 3}}]}',
    ],
)
def test_statistics_that_are_none_say_nothing(body: bytes) -> None:
    assert counted(body) is None
