"""The endpoint's configuration file: what it gives, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from serverless_fn.local_fc.__main__ import main
from serverless_fn.local_fc.config import Account, ConfigError, load_config

GOOD = """
[access_keys]
demo = "demo-secret"

[account]
max_instances = 7

[images."edgeburst/function:cpu"]
command = ["python", "-m", "serverless_fn"]
env = { MODEL = "digits" }

[[function]]
functionName = "infer"
runtime = "custom-container"
handler = "index.handler"
cpu = 1
memorySize = 1024
customContainerConfig = { image = "edgeburst/function:cpu" }
provisionConfig = { defaultTarget = 2 }
concurrencyConfig = { reservedConcurrency = 4 }
"""
TWICE = GOOD[GOOD.index("[[function]]") :]


def written(folder: Path, text: str) -> Path:
    path = folder / "fc.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_config_gives_keys_images_limits_and_functions(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD))
    assert config.access_keys == {"demo": "demo-secret"}
    assert config.images["edgeburst/function:cpu"].command == ("python", "-m", "serverless_fn")
    assert config.account == Account(max_instances=7)
    assert config.functions[0].content["functionName"] == "infer"
    assert "provisionConfig" not in config.functions[0].content
    assert config.functions[0].provision == {"defaultTarget": 2}
    assert config.functions[0].reserved_concurrency == 4


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("max_instances", "max_instance", "did you mean 'max_instances'?"),
        ("max_instances = 7", "max_instances = 0", "account.max_instances must be a whole number from 1"),
        ("[access_keys]", "[access_key]", "did you mean 'access_keys'?"),
        ('demo = "demo-secret"', "", "[access_keys] is missing"),
        ('command = ["python", "-m", "serverless_fn"]', "", "needs command"),
        ("command =", "comand =", "did you mean 'command'?"),
        ("memorySize = 1024", "memorySize = 1100", "memorySize is 1100"),
        ("[[function]]", "[function]", "[[function]]"),
        ("defaultTarget = 2", "defaultTarget = -2", "defaultTarget"),
        ("reservedConcurrency = 4", 'reservedConcurrency = "4"', "reservedConcurrency"),
        ("cpu = 1", "cpu = ", "not TOML"),
        ("[[function]]", TWICE + "[[function]]", "two [[function]] have the functionName 'infer'"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], old: str, new: str, sentence: str
) -> None:
    assert old in GOOD
    assert main(["--config", str(written(tmp_path, GOOD.replace(old, new)))]) == 2
    err = capfd.readouterr().err
    assert sentence in err
    assert "Traceback" not in err
    assert "demo-secret" not in err
    assert len(err.strip().splitlines()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.toml cannot be read"):
        load_config(tmp_path / "nowhere.toml")
