"""Two network namespaces with a shaped link between them; made by root only.

A pair is named after the process that made it. What processes that were killed left behind is deleted when the next
pair is made.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "edgeburst"
BURST_BYTES = 4_000
QUEUE_MS = 200
"""What waits in the shaper longer than this is dropped, as by the buffer of a modem."""


@dataclass(frozen=True)
class ShapedLink:
    """A client's namespace and a server's, and the link from the client to the server."""

    name: str
    """Of the process and the number of its pair."""

    @property
    def client(self) -> str:
        return f"{PREFIX}-{self.name}-c"

    @property
    def server(self) -> str:
        return f"{PREFIX}-{self.name}-s"

    client_address = "10.77.0.1"
    server_address = "10.77.0.2"
    """Each pair has a network of its own, so all can use the same addresses."""

    def shape(self, bytes_per_s: float) -> None:
        """Lets so much through from the client to the server; the way back is not shaped."""
        bits = max(8_000, round(8 * bytes_per_s))
        shaper = ["tbf", "rate", f"{bits}bit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms"]
        _run("tc", "-n", self.client, "qdisc", "replace", "dev", "up0", "root", *shaper)

    def cut(self) -> None:
        """Takes the way back away without a word to either end."""
        _run("ip", "-n", self.server, "route", "add", "blackhole", f"{self.client_address}/32")

    def mend(self) -> None:
        """Ends a cut."""
        _run("ip", "-n", self.server, "route", "del", "blackhole", f"{self.client_address}/32")

    def inside_client(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command in the client's namespace."""
        return ["ip", "netns", "exec", self.client, *command]

    def inside_server(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command in the server's namespace."""
        return ["ip", "netns", "exec", self.server, *command]


def missing() -> str:
    """Why no namespaces can be made here, in one sentence; empty if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root: run `make testbed` as root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"network namespaces need `{tool}`: install iproute2"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    _run("ip", "netns", "del", probe)
    return ""


@contextmanager
def shaped_link(number: int = 0) -> Iterator[ShapedLink]:
    """Makes the pair, and deletes it whatever happens in between."""
    delete_stale()
    link = ShapedLink(f"{os.getpid()}-{number}")
    try:
        for namespace in (link.client, link.server):
            _run("ip", "netns", "add", namespace)
        _run(
            "ip",
            "link",
            "add",
            "up0",
            "netns",
            link.client,
            "type",
            "veth",
            "peer",
            "name",
            "up1",
            "netns",
            link.server,
        )
        for namespace, device, address in (
            (link.client, "up0", link.client_address),
            (link.server, "up1", link.server_address),
        ):
            _run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", device)
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
            _run("ip", "-n", namespace, "link", "set", device, "up")
        yield link
    finally:
        for namespace in (link.client, link.server):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def delete_stale() -> list[str]:
    """Deletes the namespaces of processes that are gone; returns their names."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    stale = [
        name
        for name in (line.split()[0] for line in listed.splitlines() if line.strip())
        if (ours := re.fullmatch(rf"{PREFIX}-(\d+)-.*", name)) and not Path(f"/proc/{ours[1]}").exists()
    ]
    for name in stale:
        # What still runs in it keeps it alive without a name.
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return stale


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
