"""systemd itself finds nothing wrong with the units."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel

from scheduler.daemon.admin_socket import SYSTEMD_PLACE
from scheduler.daemon.config.sections import DaemonSection, GrpcSection

FOLDER = Path(__file__).parents[2] / "scripts" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
SOCKETS = sorted(FOLDER.glob("*.socket"))


def verified(unit: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Verify a copy whose program exists: it is not installed where the tests run."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (Debian's package systemd has it)")
    # Of a template, an instance.
    copy = folder / unit.name.replace("@.", "@digits.")
    copy.write_text(re.sub(r"^(Exec\w+=)/opt/\S+", r"\1/bin/true", unit.read_text(), flags=re.MULTILINE))
    return subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False)


def test_the_edge_server_has_a_unit() -> None:
    assert "edgeburst-edge.service" in [unit.name for unit in UNITS]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_is_valid(unit: Path, tmp_path: Path) -> None:
    result = verified(unit, tmp_path)

    assert result.returncode == 0, result.stderr
    # A key that systemd does not know is a warning to it, and a mistake to us. Units of the machine are not ours.
    name = unit.name.replace("@.", "@digits.")
    assert [line for line in result.stderr.splitlines() if name in line] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_is_exposed_no_more_than_it_must(unit: Path, tmp_path: Path) -> None:
    verified(unit, tmp_path)  # skips without systemd
    copy = tmp_path / unit.name.replace("@.", "@digits.")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=35", str(copy)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0, result.stdout.splitlines()[-1:] or result.stderr


def test_the_edges_port_is_that_of_its_service() -> None:
    service = (FOLDER / "edgeburst-edge.service").read_text()
    assert " --host 0.0.0.0 --port 8700 " in service
    assert "ListenStream=0.0.0.0:8700\n" in (FOLDER / "edgeburst-edge.socket").read_text()


@pytest.mark.parametrize("unit", ["edgeburst-edge.service", "edgeburst-edge@.service"])
def test_an_edge_that_other_machines_reach_needs_a_token_unless_it_is_said_otherwise(unit: str) -> None:
    text = (FOLDER / unit).read_text()
    assert 'Environment="EDGEBURST_EDGE_ACCESS=--token-env EDGE_TOKEN"\n' in text
    assert " $EDGEBURST_EDGE_ACCESS $EDGEBURST_EDGE_OPTIONS\n" in text
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in text


def test_each_model_of_the_template_is_a_process_of_its_own() -> None:
    template = next(unit for unit in UNITS if unit.name == "edgeburst-edge@.service").read_text()
    single = next(unit for unit in UNITS if unit.name == "edgeburst-edge.service").read_text()
    assert "--model /srv/models/%i " in template
    # What protects one protects the other; the user is shared, which MPS needs.
    assert "User=edgeburst-edge\n" in template

    def kept(text: str) -> list[str]:
        [section] = re.findall(r"^DynamicUser=yes$.*?(?=^\[Install\])", text, re.MULTILINE | re.DOTALL)
        return [line for line in section.splitlines() if line and not line.startswith(("#", "User="))]

    assert kept(template) == kept(single)


def test_each_daemon_of_the_template_has_a_configuration_and_folders_of_its_own() -> None:
    template = (FOLDER / "edgeburst@.service").read_text()
    single = (FOLDER / "edgeburst.service").read_text()
    assert " serve --config /etc/edgeburst/%i.toml\n" in template
    for folder in ("State", "Runtime", "Logs"):
        assert f"\n{folder}Directory=edgeburst-%i\n" in template

    def kept(text: str) -> list[str]:
        own = text[text.index("[Unit]") :].replace("edgeburst-%i", "edgeburst").replace(" %i", "")
        own = own.replace("/%i.toml", "/edgeburst.toml")
        return [line for line in own.splitlines() if line and not line.startswith("#")]

    assert kept(template) == kept(single)


def test_a_misspelt_key_would_be_noticed(tmp_path: Path) -> None:
    unit = tmp_path / "misspelt.service"
    unit.write_text("[Service]\nExecStart=/bin/true\nWatchdogSecond=1\n")
    folder = tmp_path / "copy"
    folder.mkdir()

    assert unit.name in verified(unit, folder).stderr


def test_the_daemons_unit_makes_the_folder_of_the_operators_socket() -> None:
    unit = next(unit for unit in UNITS if unit.name == "edgeburst.service").read_text()
    [name] = re.findall(r"^RuntimeDirectory=(.*)$", unit, re.MULTILINE)
    assert Path("/run") / name / "admin.sock" == SYSTEMD_PLACE
    assert "RuntimeDirectoryMode=0700\n" in unit


def test_the_daemons_unit_makes_the_folder_that_the_example_names_for_its_state() -> None:
    unit = next(unit for unit in UNITS if unit.name == "edgeburst.service").read_text()
    example = (UNITS[0].parents[1] / "edgeburst.example.toml").read_text()
    assert "\nStateDirectory=edgeburst\n" in unit
    assert '"/var/lib/edgeburst"' in example


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_service_starts_when_the_clock_is_set(unit: Path) -> None:
    assert re.search(r"^After=.*\btime-sync\.target\b", unit.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("unit", SOCKETS, ids=lambda unit: unit.name)
def test_a_socket_is_valid_beside_its_service(unit: Path, tmp_path: Path) -> None:
    for service in UNITS:
        verified(service, tmp_path)
    result = verified(unit, tmp_path)
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if unit.name in line] == []


@pytest.mark.parametrize(
    ("unit", "section"), [("edgeburst.socket", DaemonSection), ("edgeburst-grpc.socket", GrpcSection)]
)
def test_a_socket_has_the_address_that_the_configuration_has_by_default(unit: str, section: type[BaseModel]) -> None:
    at = "{}:{}".format(*(section.model_fields[key].default for key in ("host", "port")))
    assert f"ListenStream={at}\n" in (FOLDER / unit).read_text()
