"""The daemon's configuration: TOML to `check-config`, as a person or a script writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fuzz import scratch
from fuzz.mutators import of_lines
from fuzz.target import Target, one_sentence

from scheduler.daemon.config.config import load_config
from scheduler.daemon.config_command import _lines, summary
from scheduler.domain.errors import ConfigError

INSTRUMENTED = ("scheduler.daemon.config", "scheduler.daemon.config_command", "models.toml_lines")
_EXAMPLE = Path(__file__).parents[3] / "scripts" / "edgeburst.example.toml"
_ENVIRONMENT = {"EDGEBURST_DAEMON__PORT": "0", "ALIBABA_CLOUD_ACCESS_KEY_ID": "an-id"}


def check(data: bytes) -> None:
    """Reads, checks, and words a configuration."""
    path = scratch.written("edgeburst.toml", data)
    try:
        found = summary(load_config(path, _ENVIRONMENT), _ENVIRONMENT)
    except ConfigError as error:
        one_sentence(error)
        return
    assert all(isinstance(line, str) for line in _lines(found))


def seeds() -> Iterable[bytes]:
    """Yields the example, with its commented keys and without, and a few of its own kind."""
    text = _EXAMPLE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    bare = [line.partition("  #")[0] for line in lines]
    yield "\n".join(bare).encode()
    with_keys = []  # [deploy.traffic] asks for a computation of a second by design, which is no check of a form
    for line in text.splitlines():
        begin = line.removeprefix("# ")
        if line.startswith("# traffic"):
            continue
        if line.startswith("# ") and ("=" in begin.split(" ")[:2] or begin.startswith("[")):
            with_keys.append(begin.partition("  #")[0])
        elif line and not line.startswith("#"):
            with_keys.append(line.partition("  #")[0])
    yield "\n".join(with_keys).encode()
    edge = b'[edge]\nurl = "http://127.0.0.1:8700"\n'
    yield edge + b'[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n'
    yield edge + (
        b'[[model]]\nname = "own"\nedge_profile = "orin-resnet50"\nmax_items = 2\nlabels = ["a", "b"]\n'
        b'inputs = [{ name = "x", datatype = "FP32", shape = [3, -1] }]\n'
        b'outputs = [{ name = "y", datatype = "FP32", shape = [2], ragged = true, finite = false }]\n'
        b'[[model.class]]\nname = "a"\nslo_s = 0.5\npercentile = 0.9\nlabels = ["deferrable"]\nlate = "serve"\n'
        b'[[tenant]]\nname = "lab"\nshare = 2.0\nper_hour = 0.5\n[spend]\nper_hour = 1.0\nover_cap = "serve-late"\n'
    )
    yield b"a = " + b"[" * 1500


TARGET = Target(
    name="config",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(
        *(
            b"[daemon]",
            b"[engine]",
            b"[spend]",
            b"[edge]",
            b"[function]",
            b"[deploy]",
            b"[[model]]",
            b"[[model.class]]",
        ),
        *(
            b"[[model.tier]]",
            b"[[tenant]]",
            b"[grpc]",
            b"[otel]",
            b"[explain]",
            b"inf",
            b"nan",
            b"-1",
            b"1e400",
            b'"""',
        ),
        *(b"1979-05-27T07:32:00", b"\\u0000", b"\\ud800", b"true", b"= [", b"= {", b"\xef\xbb\xbf", b"\r\n"),
    ),
    longest_bytes=8192,
    mutate=of_lines,
)
