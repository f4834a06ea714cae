"""The manifests for KServe: its own classes know all that is in them, and our container takes what they give it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.edge_process import ROOT, options_of_a_quick_server, running

from edge_server.settings import parse_arguments

PYTHON = os.environ.get("EDGEBURST_PEERS", "")
FOLDER = ROOT / "scripts" / "kserve"
CHECK = Path(__file__).parent / "checks" / "inference_service.py"
MANIFESTS = sorted(path.name for path in FOLDER.glob("*.yaml"))
OURS = "edgeburst-edge.yaml"


def checked(path: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [PYTHON, str(CHECK), str(path)], env=environ, capture_output=True, text=True, timeout=120, check=False
    )


def content(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def container() -> Any:
    [found] = content(OURS)["spec"]["predictor"]["containers"]
    return found


def without_empty(value: Any) -> Any:
    """Without the texts that the classes put where nothing is given."""
    if isinstance(value, dict):
        return {name: without_empty(one) for name, one in value.items() if one != ""}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


def test_there_is_one_for_our_container_and_one_for_triton() -> None:
    assert MANIFESTS == [OURS, "triton.yaml"]
    assert content("triton.yaml")["spec"]["predictor"]["model"]["modelFormat"] == {"name": "triton"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_classes_of_kserve_read_all_of_it(name: str) -> None:
    ended = checked(FOLDER / name)
    assert ended.returncode == 0, ended.stderr
    assert without_empty(json.loads(ended.stdout)) == content(name)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("minReplicas: 2", "minimumReplicas: 2", "manifest.spec.predictor has ['minimumReplicas']"),
        ("minReplicas: 2", 'minReplicas: "2"', "manifest.spec.predictor.minReplicas is '2', not of the kind int"),
        ("memory: 4Gi", "memory: 4", "containers[0].resources.requests.memory is 4, not of the kind str"),
        ("name: kserve-container", "nam: kserve-container", "has ['nam'], which V1Container does not know"),
    ],
)
def test_the_check_finds_what_is_wrong(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    wrong = tmp_path / OURS
    text = (FOLDER / OURS).read_text(encoding="utf-8")
    assert old in text
    wrong.write_text(text.replace(old, new, 1))
    ended = checked(wrong)
    assert ended.returncode == 1
    assert sentence in ended.stderr


def test_our_server_takes_the_arguments_of_the_container() -> None:
    dockerfile = (ROOT / "edge_server" / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ENTRYPOINT (.+)$", dockerfile, re.MULTILINE)
    assert found is not None
    _, *first = json.loads(found[1])
    settings = parse_arguments([*first, *container()["args"]])
    assert (settings.host, settings.token_env) == ("0.0.0.0", "EDGE_TOKEN")
    assert [port["containerPort"] for port in container()["ports"]] == [settings.port]
    assert [variable["name"] for variable in container()["env"]] == ["EDGE_TOKEN"]


def test_the_probe_of_the_container_passes_when_our_server_is_ready_for_its_token() -> None:
    command = container()["readinessProbe"]["exec"]["command"]
    with running(*options_of_a_quick_server(), "--token-env", "EDGE_TOKEN", environ={"EDGE_TOKEN": "a" * 32}) as edge:
        here = [*command[:-1], command[-1].replace("127.0.0.1:8700", edge.address)]
        assert here[-1] != command[-1]
        statuses = {}
        for token in ("a" * 32, "b" * 32):
            environ = {**os.environ, "EDGE_TOKEN": token}
            ended = subprocess.run(here, env=environ, capture_output=True, timeout=60, check=False)
            statuses[token[0]] = ended.returncode
        assert statuses == {"a": 0, "b": 1}
