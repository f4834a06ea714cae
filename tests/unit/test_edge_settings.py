"""The edge server's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_server.errors import StartupError
from edge_server.gpu_share import GpuShare
from edge_server.settings import ModelChoice, parse_arguments
from models.catalogue import SHIPPED, shipped
from models.errors import ModelError


def test_digits_is_served_where_nothing_is_said() -> None:
    settings = parse_arguments([])

    assert settings.models == (ModelChoice(shipped("digits")),)
    assert (settings.host, settings.port, settings.max_batch, settings.emulate) == ("127.0.0.1", 8700, None, None)
    assert (settings.runtimes.of("digits"), settings.share) == ("auto", None)


def test_each_model_gets_its_own_weights() -> None:
    given = ["--model=resnet50", "--model=digits", "--model=mobilenet_v3_small", "--model=digits"]
    given += ["--weights=resnet50=a=b.pth", "--weights-sha256=resnet50=0a", "--random-weights=mobilenet_v3_small"]

    assert parse_arguments(given).models == (
        ModelChoice(shipped("resnet50"), weights=Path("a=b.pth"), weights_sha256="0a"),
        ModelChoice(shipped("digits")),
        ModelChoice(shipped("mobilenet_v3_small"), random_weights=True),
    )


def folder_of(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / "model.toml").write_text((SHIPPED / "digits" / "model.toml").read_text())
    return folder


def test_folders_are_served_alone_and_all_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    alone, a, b = folder_of(tmp_path, "alone"), folder_of(tmp_path / "many", "a"), folder_of(tmp_path / "many", "b")
    given = ["--model", str(alone), "--models", str(tmp_path / "many"), "--model", str(a)]

    choices = parse_arguments(given).models

    assert [(choice.card.name, choice.card.folder) for choice in choices] == [("alone", alone), ("a", a), ("b", b)]


def test_two_folders_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="are both named digits: rename one"):
        parse_arguments(["--model", "digits", "--model", str(folder_of(tmp_path, "digits"))])


def test_a_folder_without_models_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        parse_arguments(["--models", str(tmp_path)])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--mps-memory", "0=4G"], "add --mps-percentage"),
        (["--mps-percentage", "30", "--device", "cpu"], "--device is cpu: leave one of them out"),
    ],
)
def test_shares_of_what_is_not_shared_are_a_mistake(given: list[str], words: str) -> None:
    with pytest.raises(StartupError, match=words):
        parse_arguments(given)


def test_a_share_of_the_gpu_is_read() -> None:
    assert parse_arguments(["--mps-percentage", "30", "--mps-memory", "0=4G"]).share == GpuShare(30, "0=4G")


@pytest.mark.parametrize("option", ["--weights=resnet50=x", "--weights-sha256=resnet50=x", "--random-weights=resnet50"])
def test_weights_for_a_model_that_is_not_served_are_a_mistake(option: str) -> None:
    with pytest.raises(StartupError, match="add --model resnet50"):
        parse_arguments([option])


def test_a_runtime_is_named_for_all_models_or_for_one() -> None:
    given = ["--model=resnet50", "--model=digits", "--runtime=torch", "--runtime", "digits=onnxruntime"]

    runtimes = parse_arguments(given).runtimes

    assert (runtimes.of("resnet50"), runtimes.of("digits")) == ("torch", "onnxruntime")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("resnet50=torch", "a runtime is given for model 'resnet50', which is not served: add --model resnet50"),
        ("digits=tensorflow", "there is no runtime 'tensorflow'"),
        ("=torch", "names no model"),
    ],
)
def test_a_runtime_that_cannot_be_is_a_mistake(given: str, words: str) -> None:
    with pytest.raises((StartupError, ModelError), match=words):
        parse_arguments(["--runtime", given])


def test_emulation_leaves_the_machine_to_the_others_unless_told_otherwise() -> None:
    assert parse_arguments(["--emulate", "orin-resnet50"]).torch_threads == 1
    assert parse_arguments(["--emulate", "orin-resnet50", "--torch-threads", "3"]).torch_threads == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--port", "65536"], "65536 is not a TCP port"),
        (["--port", "http"], "'http' is not a whole number"),
        (["--max-batch", "0"], "0 is below 1"),
        (["--weights", "resnet50"], "'resnet50' is not of the form NAME=VALUE"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--mps-percentage", "0"], "0 is not a percentage above 0"),
        (["--mps-percentage", "x"], "'x' is not a percentage"),
        (["--mps-memory", "4G"], "'4G' is not of the form DEVICE=SIZE"),
        (["--batch-limit-s", "0"], "0 is not above 0"),
    ],
)
def test_a_wrong_option_is_named_and_ends_with_2(
    given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(given)

    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_help_shows_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(["--help"])

    assert end.value.code == 0
    assert "--emulate orin-resnet50" in capsys.readouterr().out
