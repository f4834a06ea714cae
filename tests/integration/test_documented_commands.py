"""Every command that the pages of documentation show does what they say, page by page, with real processes.

Commands run as they stand, in a folder of their own, but for names in capitals, addresses, and options that make a
measurement short. What is not run is in `support/documents.py`, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.daemon_process import LIMIT_S, environment, stub_edge_process
from support.documents import PAGES, ROOT, blocks, run_commands
from support.local_fc_process import KEY, SECRET, LocalFc, running

pytestmark = pytest.mark.xdist_group("documents")

PROGRAMS = {
    "edgeburst": "-m scheduler.cli",
    "edgeburst-edge": "-m edge_server",
    "edgeburst-function": "-m serverless_fn",
    "edgeburst-local-fc": "-m serverless_fn.local_fc",
    "edgeburst-model": "-m models",
    "python3": "",
}
SERVERS = {"edgeburst serve": "HOST:8600", "edgeburst-edge": "EDGE:8700", "edgeburst-local-fc": "127.0.0.1:9100"}
"""Commands that run until they are stopped, and print a line of JSON when ready; what the pages call their address."""

WALKED = {
    "README.md",
    "scheduler/README.md",
    "scheduler/DECISIONS.md",
    "scheduler/PLANNING.md",
    "edge_server/README.md",
    "serverless_fn/README.md",
    "models/README.md",
    "scripts/README.md",
}

SHORT = {
    "edgeburst-edge": "--host 127.0.0.1 --port 0 --max-batch 2 --torch-threads 1 --decode-threads 1",
    "edgeburst-local-fc": "--port 0 --log-level warning",
    "edgeburst profile edge": "--batches 1,2 --repetitions 1 --warm-up 0",
    "edgeburst profile function": "--batches 1,2 --repetitions 1 --warm-up 0 --protocol http --endpoint FC",
    "python3 -m scripts.bench_edge": "--batches 1,2 --repetitions 1 --warm-up 0 --url http://EDGE:8700",
    "edgeburst replay": "--duration-s 0.5",
    "edgeburst explain 4711": "--url http://HOST:8600",
    "edgeburst fc apply": "--yes",
    "edgeburst fc destroy": "--yes",
    "edgeburst simulate --policy edgeburst --poisson 120": "--requests 500",
}
"""Options that are added, of which the last one counts: free ports, short measurements, no question."""

PROGRAM = ROOT / "tests" / "support" / "frame_function.py"
ENDPOINT = f"""
[access_keys]
{KEY} = "{SECRET}"
[account]
update_s = 0.1
stop_limit_s = 0.3
max_instances = 40
[images."registry.example.com/team/edgeburst-function:1-cpu"]
command = ["python", "{PROGRAM}"]
env = {{ PYTHONPATH = "{environment({})["PYTHONPATH"]}" }}
"""
EDITS = {
    "# port = 8600": "port = 0",
    '"http://127.0.0.1:8700"': '"http://EDGE:8700"',
    'endpoint = ""': 'endpoint = "FC"',
    '# protocol = "https"': 'protocol = "http"',
    "# vcpu = 0": "vcpu = 1",
    '# admin_socket = ""': 'admin_socket = "admin.sock"',
}
"""What a user edits in the example, here for servers of this machine."""

KEYS = {"ALIBABA_CLOUD_ACCESS_KEY_ID": KEY, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": SECRET}


@dataclass
class Walk:
    """A reader who tries the commands of one page in order.

    Attributes:
        folder: where the commands run; has what stands for files that the page names.
        names: what stands for names of the page, like EDGE:8700.
        edits: what the reader changes in the example configuration.
    """

    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    edits: Mapping[str, str] = field(default_factory=lambda: EDITS)
    servers: list[subprocess.Popen[str]] = field(default_factory=list)
    told_to_stop: set[str] = field(default_factory=set)
    """Process ids that a command of the page has stopped: a second signal would end them at once."""

    def __post_init__(self) -> None:
        for name, module in {**PROGRAMS, "../.venv/bin/python": ""}.items():
            program = self.folder / "bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
            program.chmod(0o755)
        (self.folder / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "edgeburst.example.toml", self.folder / "scripts")

    def try_all(self, page: str) -> dict[str, str]:
        """Runs every command of a page that is run there; returns the outputs."""
        return {command: self.try_out(command) for command in run_commands(page)}

    def try_out(self, command: str) -> str:
        """Runs one command and returns its output; a server is left running."""
        added = [options for start, options in SHORT.items() if f"{command} ".startswith(f"{start} ")]
        text = self.filled(" ".join([command, *added]))
        if command.startswith(tuple(SERVERS)) and "--help" not in command:
            self.start(command, text)
            return ""
        done = subprocess.run(
            ["bash", "-euc", text],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        if command.startswith("cp scripts/edgeburst.example.toml"):
            self.edit()
        if command == "kill -TERM PID":
            self.told_to_stop.add(self.names["PID"])
        return done.stdout

    def filled(self, text: str) -> str:
        """Returns a text with what stands for the names of the page."""
        for name, value in self.names.items():
            text = re.sub(rf"\b{name}\b", value, text)
        return text

    def edit(self) -> None:
        """Edits the example configuration as its user would."""
        path = self.folder / "edgeburst.toml"
        text = path.read_text(encoding="utf-8")
        for shown, wanted in self.edits.items():
            assert re.search(shown, text), shown
            text = re.sub(shown, wanted, text)
        path.write_text(self.filled(text), encoding="utf-8")

    def start(self, command: str, text: str) -> None:
        """Starts a server; once it is ready, its address stands for the name that the pages use."""
        process = subprocess.Popen(
            ["bash", "-euc", f"exec {text}"],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.servers.append(process)
        assert process.stdout is not None
        address = f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        name = next(SERVERS[start] for start in SERVERS if command.startswith(start))
        self.names |= {name: address, "PID": str(process.pid)}

    def stop(self) -> None:
        """Stops what still runs, and sees that each server ends in order."""
        statuses = []
        for process in reversed(self.servers):
            if process.poll() is None and str(process.pid) not in self.told_to_stop:
                process.send_signal(signal.SIGTERM)
            try:
                statuses.append(process.wait(timeout=LIMIT_S))
            finally:
                process.kill()
                process.communicate()
        assert statuses == [0] * len(statuses)

    def environment(self) -> dict[str, str]:
        """Returns the environment in which the commands run: our programs first, the keys of the endpoint."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath)])
        return {**environment(KEYS), "PATH": path}


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    reader = Walk(tmp_path)
    try:
        yield reader
    finally:
        reader.stop()


@pytest.fixture(scope="module")
def fc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFc]:
    with running(tmp_path_factory.mktemp("fc"), ENDPOINT) as endpoint:
        yield endpoint


def draw(path: Path) -> None:
    path.write_bytes(cv2.imencode(".png", np.full((28, 28, 3), 90, np.uint8))[1].tobytes())


def picture_network(path: Path) -> None:
    """Writes an ONNX file as a user has one: the mean of each colour of a picture of 224 x 224."""
    import onnx
    from onnx import TensorProto, helper

    shape = ["n", 3, 224, 224]
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["image"], ["means"]), helper.make_node("Flatten", ["means"], ["y"])],
        "means",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def random_weights(folder: Path) -> dict[str, str]:
    """Writes a file of weights as a user has one; returns what stands for it on the pages."""
    import torch
    from torchvision.models import resnet50

    path = folder / "resnet50.pth"
    torch.save(resnet50(weights=None).state_dict(), path)
    return {"FILE": path.name, "HEX": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_every_page_with_commands_is_walked_through() -> None:
    assert {page for page in PAGES if run_commands(page)} == WALKED


def test_the_first_page_leads_from_ones_own_file_to_an_answer(walk: Walk) -> None:
    picture_network(walk.folder / "mynet.onnx")
    draw(walk.folder / "picture.jpg")
    for command in run_commands("README.md"):
        if command.startswith("edgeburst serve"):
            # The edge's address is known by now; the port of the daemon is a free one.
            config = walk.filled(blocks("README.md", "toml")[0])
            (walk.folder / "edgeburst.toml").write_text(f"[daemon]\nport = 0\n{config}", encoding="utf-8")
        told = walk.try_out(command)
    answer = json.loads(told)
    assert (answer["model"], answer["backend"]) == ("mynet", "edge")


def test_the_daemons_page_leads_from_installation_to_a_stop(walk: Walk, fc: LocalFc) -> None:
    draw(walk.folder / "seven.png")
    with stub_edge_process() as edge:
        walk.names |= {"EDGE:8700": f"127.0.0.1:{edge.port}", "FC": fc.address, "4711": "1"}
        walk.names |= {"run/edgeburst/admin.sock": f"{walk.folder}/admin.sock".removeprefix("/")}
        outputs = walk.try_all("scheduler/README.md")
    told = {command.split(" -")[0]: text for command, text in outputs.items()}
    assert "request 1" in told["edgeburst explain 4711"]
    assert json.loads(outputs["curl http://HOST:8600/v1/status"])["engine"]
    assert (walk.folder / "out" / "replay" / "batches.csv").exists()


def test_the_page_of_decisions_is_walked(walk: Walk) -> None:
    """`test_documents.py` compares what it prints with the page."""
    walk.try_all("scheduler/DECISIONS.md")


def test_the_planners_page_leads_from_applications_to_functions(walk: Walk, fc: LocalFc) -> None:
    page = "scheduler/PLANNING.md"
    (walk.folder / "apps.toml").write_text(blocks(page, "toml")[0])
    (walk.folder / "functions.json").write_text(blocks(page, "json")[0])
    (walk.folder / "hour.json").write_text('{"D0": [[-3.5, 0.5], [1.0, -26.0]], "D1": [[3.0, 0.0], [0.0, 25.0]]}')
    (walk.folder / "trace.gaps").write_text("\n".join(str(0.02 + 0.06 * (i % 7) / 7) for i in range(400)))
    walk.names |= {"FC": fc.address}
    walk.edits = {**EDITS, '"cny-gbs-2023"': '"fc3-cu-usd"', '"edgeburst-cpu"': '"planned"', "EDGE:8700": "127.0.0.1:1"}
    walk.try_out("cp scripts/edgeburst.example.toml edgeburst.toml")
    for command in run_commands(page):
        told = walk.try_out(command)
        if command.startswith("edgeburst fc apply"):
            walk.names |= dict(
                zip("FQ", re.findall(r'^(?:function|qualifier) = "(\S+)"', told, re.MULTILINE)[:2], strict=True)
            )
    assert (walk.folder / "f.png").exists()
    assert json.loads((walk.folder / "plan.json").read_text())["groups"]


@pytest.mark.slow
def test_the_edge_servers_page_starts_each_variant_and_measures_it(walk: Walk) -> None:
    walk.names |= random_weights(walk.folder)
    shutil.copytree(ROOT / "models" / "shipped" / "digits", walk.folder / "my-models" / "detector")
    outputs = walk.try_all("edge_server/README.md")
    assert json.loads(outputs["curl http://EDGE:8700/v2/models/digits"])["parameters"]["emulated"] == "orin-resnet50"
    assert (walk.folder / "edge.png").exists()


def test_the_functions_page_deploys_and_removes_and_starts_the_local_endpoint(walk: Walk, fc: LocalFc) -> None:
    config = blocks("serverless_fn/README.md", "toml")[0]
    # The two instances would load torch only to be stopped again.
    (walk.folder / "local-fc.toml").write_text(config.replace("defaultTarget = 2", "defaultTarget = 0"))
    walk.names |= {"FC": fc.address}
    walk.edits = {**EDITS, '"edgeburst-cpu"': '"removed"', "EDGE:8700": "127.0.0.1:1"}
    walk.try_out("cp scripts/edgeburst.example.toml edgeburst.toml")
    # The measurement stands after the removal: it is of a function that another page made.
    page = [
        command for command in run_commands("serverless_fn/README.md") if not command.startswith("edgeburst profile")
    ]
    outputs = {command: walk.try_out(command) for command in page}
    assert "destroyed" in outputs["edgeburst fc destroy edgeburst.toml"]


def test_the_models_page_makes_a_folder_and_shows_the_hash_that_the_server_asks_for(walk: Walk) -> None:
    (walk.folder / "weights.pt").write_bytes(b"weights")
    picture_network(walk.folder / "mynet.onnx")
    walk.names |= {"FILE": "weights.pt"}
    outputs = walk.try_all("models/README.md")
    assert "items/s" in outputs["edgeburst-model check mynet"]
    assert hashlib.sha256(b"weights").hexdigest() in outputs["sha256sum FILE"]


def test_the_scripts_page_shows_help(walk: Walk) -> None:
    outputs = walk.try_all("scripts/README.md")
    assert "usage" in outputs[".venv/bin/python -m scripts.evaluate --help"]
