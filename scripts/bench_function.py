"""Measures the function container's start, from nothing to its first answer, and its memory, by runtime.

Each start is a process of its own, as on the platform: POST /initialize as soon as its port is open, then POST /invoke
with one picture. Torch and ONNX Runtime alternate, so that both meet the same disturbances:

    .venv/bin/python -m scripts.bench_function --repetitions 5
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from models.catalogue import shipped
from models.rehearsal import rehearsal_inputs
from scheduler import wire
from scheduler.terminal import counted
from scripts.support.script import run_script

_LIMIT_S = 120.0
_RUNTIMES = ("torch", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with a way to run it on each runtime.

    Attributes:
        name: for the table.
        environment: variables of the container, by runtime.
    """

    name: str
    environment: dict[str, dict[str, str]]


@dataclass(slots=True)
class Starts:
    """Measured starts of one runtime: seconds to the first answer, seconds of the initializer, peak memory."""

    answer_s: list[float] = field(default_factory=list)
    init_s: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """Returns the median of each."""
        return {
            "first_answer_s": round(statistics.median(self.answer_s), 3),
            "init_s": round(statistics.median(self.init_s), 3),
            "memory_mb": round(statistics.median(self.memory_bytes) / 1e6, 1),
        }


def main() -> int:
    """Measures and prints; returns the exit status."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="bench-function-") as scratch:
        # A started process inherits the peak memory of the one that starts it; so torch is used in another one.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as elsewhere:
            subjects = [elsewhere.submit(_SUBJECTS[name], Path(scratch)).result() for name in arguments.model]
        figures = [_figures(subject, arguments.repetitions) for subject in subjects]
    print(json.dumps(figures, indent=2) if arguments.json else "\n".join(_lines(figures)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", nargs="+", choices=list(_SUBJECTS), default=list(_SUBJECTS), help="models (default: all)"
    )
    parser.add_argument("--repetitions", type=int, default=5, metavar="N", help="starts of each (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def _figures(subject: Subject, repetitions: int) -> dict[str, object]:
    starts = {runtime: Starts() for runtime in _RUNTIMES}
    for number in counted(range(repetitions + 1), "starting", "rounds"):
        for runtime in _RUNTIMES:
            # The first start of each reads its files from the disk.
            into = starts[runtime] if number else Starts()
            _start(subject.name, subject.environment[runtime] | {"RUNTIME": runtime}, into)
    medians = {runtime: starts[runtime].medians() for runtime in _RUNTIMES}
    ratios = {key: round(medians["onnxruntime"][key] / medians["torch"][key], 3) for key in medians["torch"]}
    return {"model": subject.name, **medians, "ratio": ratios}


def _lines(figures: list[dict[str, object]]) -> Iterator[str]:
    yield f"{'model':12} {'runtime':12} {'first answer':>13} {'initializer':>12} {'memory':>10}"
    for figure in figures:
        for runtime in (*_RUNTIMES, "ratio"):
            row = figure[runtime]
            assert isinstance(row, dict)
            unit = ("", "", "") if runtime == "ratio" else (" s", " s", " MB")
            cells = [f"{value:g}{suffix}" for value, suffix in zip(row.values(), unit, strict=True)]
            yield f"{figure['model']:12} {runtime:12} {cells[0]:>13} {cells[1]:>12} {cells[2]:>10}"


def _start(model: str, environment: dict[str, str], starts: Starts) -> None:
    """Starts a container, has it answer one picture, and notes how long that took."""
    port = _free_port()
    request = wire.InferRequest("1", (_picture(),))
    frame = wire.pack_frame({"batch_id": "1", "model": model}, wire.encode_request(request))
    environ = os.environ | environment | {"FC_CUSTOM_LISTEN_PORT": str(port), "EDGEBURST_LISTEN_HOST": "127.0.0.1"}
    began_s = time.monotonic()
    with _container(environ) as process:
        _post(f"http://127.0.0.1:{port}/initialize", b"", process)
        answer = _post(f"http://127.0.0.1:{port}/invoke", frame, process)
        starts.answer_s.append(time.monotonic() - began_s)
    header, _ = wire.unpack_frame(answer)
    if header["status"] != 200:
        raise SystemExit(f"bench_function: the container answered: {header.get('error')}")
    starts.init_s.append(float(str(header["init_s"])))
    starts.memory_bytes.append(int(str(header["memory_bytes"])))


def _picture() -> wire.Tensor:
    picture = rehearsal_inputs(shipped("digits"), 1)["image"][0]
    return wire.Tensor.from_elements("image", [picture])


@contextmanager
def _container(environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "serverless_fn"], env=environ, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=_LIMIT_S)


def _post(url: str, body: bytes, process: subprocess.Popen[bytes]) -> bytes:
    """Returns the answer; tries again, like the platform, until the port is open."""
    ends_s = time.monotonic() + _LIMIT_S
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=_LIMIT_S) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            raise SystemExit(f"bench_function: {url} answered {error.code}: {error.read()[:500]!r}") from None
        except OSError:
            if process.poll() is not None or time.monotonic() > ends_s:
                raise SystemExit("bench_function: the container does not answer; its log is above") from None
            time.sleep(0.005)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _digits(scratch: Path) -> Subject:
    """Returns the shipped ONNX file beside the same network in TorchScript, with other weights."""
    import torch

    from scripts.train_digits import DigitNetwork

    folder = scratch / "digits"
    shutil.copytree(shipped("digits").folder, folder)
    with warnings.catch_warnings():
        # TorchScript is being retired, but it is what many have.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(DigitNetwork().eval(), torch.zeros(2, 1, 28, 28))
        torch.jit.save(traced, str(folder / "digits.pt"))
    card = (folder / "model.toml").read_text(encoding="utf-8")
    card = re.sub(r"^sha256 = .*\n", "", card, flags=re.M)
    card = card.replace('format = "onnx"', 'format = "torchscript"').replace("digits.onnx", "digits.pt")
    (folder / "model.toml").write_text(card, encoding="utf-8")
    return Subject("digits", {"torch": {"MODEL": str(folder)}, "onnxruntime": {"MODEL": "digits"}})


def _resnet50(scratch: Path) -> Subject:
    """Returns ResNet-50 with random weights, converted to ONNX beforehand as `edgeburst-model convert` does it."""
    import torch

    from models.card_reader import read_card
    from models.formats.torch_networks import network_of
    from models.loading import load

    folder = scratch / "resnet50"
    shutil.copytree(shipped("resnet50").folder, folder, ignore=shutil.ignore_patterns(".converted"))
    torch.save(network_of(shipped("resnet50"), None).state_dict(), folder / "resnet50.pt")
    text = (folder / "model.toml").read_text(encoding="utf-8")
    (folder / "model.toml").write_text(
        text.replace('format = "state-dict"', 'format = "state-dict"\nfile = "resnet50.pt"'), encoding="utf-8"
    )
    load(read_card(folder), device="cpu", runtime="onnxruntime")
    return Subject("resnet50", dict.fromkeys(_RUNTIMES, {"MODEL": str(folder)}))


_SUBJECTS = {"digits": _digits, "resnet50": _resnet50}


if __name__ == "__main__":
    sys.exit(run_script("bench_function", main))
