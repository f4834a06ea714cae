"""The edge server's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_server.errors import StartupError
from edge_server.settings import ModelChoice, parse_arguments


def test_digits_is_served_where_nothing_is_said() -> None:
    settings = parse_arguments([])

    assert settings.models == (ModelChoice("digits", weights=None, weights_sha256=None, random_weights=False),)
    assert (settings.host, settings.port, settings.max_batch, settings.emulate) == ("127.0.0.1", 8700, 64, None)


def test_each_model_gets_its_own_weights() -> None:
    given = ["--model=resnet50", "--model=digits", "--model=mobilenet_v3_small", "--model=digits"]
    given += ["--weights=resnet50=a=b.pth", "--weights-sha256=resnet50=0a", "--random-weights=mobilenet_v3_small"]

    assert parse_arguments(given).models == (
        ModelChoice("resnet50", weights=Path("a=b.pth"), weights_sha256="0a", random_weights=False),
        ModelChoice("digits", weights=None, weights_sha256=None, random_weights=False),
        ModelChoice("mobilenet_v3_small", weights=None, weights_sha256=None, random_weights=True),
    )


@pytest.mark.parametrize("option", ["--weights=resnet50=x", "--weights-sha256=resnet50=x", "--random-weights=resnet50"])
def test_weights_for_a_model_that_is_not_served_are_a_mistake(option: str) -> None:
    with pytest.raises(StartupError, match="add --model resnet50"):
        parse_arguments([option])


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
