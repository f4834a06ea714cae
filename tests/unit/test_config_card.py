"""`card` of a model: what its folder says is not repeated, and every mistake names both lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.card_edge import CARD, card_folder

from models.profile import load_profile
from scheduler import cli
from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.config.measured import remember, remembered
from scheduler.daemon.ingress.model_metadata import model_cards
from scheduler.domain.errors import ConfigError

BASE = """
[daemon]
state = "state"
[edge]
[[model]]
card = "ragged"
"""


def load(folder: Path, text: str = BASE, card: str = CARD) -> Config:
    card_folder(folder, card)
    (folder / "edgeburst.toml").write_text(text)
    return load_config(folder / "edgeburst.toml", {})


def test_the_card_says_all_but_places_and_objectives(tmp_path: Path) -> None:
    config = load(tmp_path)
    [model] = config.models
    assert (model.name, model.max_items) == ("ragged", 8)
    assert [tensor.shape for tensor in model.inputs] == [(-1,)]
    [settings] = config.engine_settings().models
    assert (settings.name, settings.edge_latency) == ("ragged", None)
    assert settings.identity == config.identities()["ragged"]
    assert settings.identity.startswith("sha256:")
    assert [wanted.card.name for wanted in config.to_measure()] == ["ragged"]
    card = model_cards(config)["ragged"]
    assert card.output_names() == ("sum", "rows", "rows_rows")


def test_a_smaller_largest_batch_and_an_own_profile_are_allowed(tmp_path: Path) -> None:
    config = load(tmp_path, BASE + 'max_items = 4\nedge_profile = "orin-resnet50"\n')
    assert config.models[0].max_items == 4
    assert config.to_measure() == ()


@pytest.mark.parametrize(
    ("text", "card", "sentence"),
    [
        (
            BASE,
            CARD.replace("max_batch = 8", "max_batch = 0"),
            "edgeburst.toml:6: the card cannot be used: {folder}/ragged/model.toml:10: ",
        ),
        (BASE.replace('"ragged"', '"other"'), CARD, "edgeburst.toml:6: the card cannot be used: {folder}/other"),
        (
            BASE + 'name = "mine"\n',
            CARD,
            "edgeburst.toml:7: the card in {folder}/ragged names its model ragged, not mine; remove `name` here",
        ),
        (
            BASE + 'labels = ["a"]\n',
            CARD,
            "edgeburst.toml:7: `labels` of model ragged are those of its card; remove them here",
        ),
        (BASE + "max_items = 9\n", CARD, "edgeburst.toml:7: `max_items` of model ragged is 9, but its card says"),
        (BASE.replace('card = "ragged"', ""), CARD, "edgeburst.toml:5: [[model]] lacks the key `name`"),
        (BASE.replace("[edge]\n", ""), CARD, "edgeburst.toml:4: no backend serves model ragged"),
    ],
)
def test_mistakes_are_named_by_line(tmp_path: Path, text: str, card: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, card)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(sentence.format(folder=tmp_path))


def test_a_measured_profile_is_remembered_for_the_same_card_on_the_same_edge(tmp_path: Path) -> None:
    config = load(tmp_path)
    identity, url = config.identities()["ragged"], "http://127.0.0.1:8700"
    assert identity is not None
    profile = replace(
        load_profile("orin-resnet50"),
        name="measured-ragged",
        model="ragged",
        environment={"identity": identity, "edge": url},
    )
    remember(config.state_folder(), profile)
    again = load(tmp_path)
    assert again.edge_profile(0) == profile
    assert again.to_measure() == ()
    assert again.engine_settings().models[0].edge_latency is not None
    state = config.state_folder()
    assert remembered(state, "ragged", identity=identity, edge="http://another:8700") is None
    assert remembered(state, "ragged", identity="sha256:other", edge=url) is None
    assert remembered(None, "ragged", identity=identity, edge=url) is None
    assert [wanted.card.name for wanted in load(tmp_path, card=CARD + 'summary = "x"\n').to_measure()] == ["ragged"]


def test_a_reload_keeps_what_was_measured_of_the_same_card(tmp_path: Path) -> None:
    before = load(tmp_path, BASE.replace('state = "state"', ""))
    identity = before.identities()["ragged"] or ""
    profile = replace(load_profile("orin-resnet50"), model="ragged", environment={"identity": identity})
    before.note_measured(profile)
    after = load(tmp_path, BASE.replace('state = "state"', ""))
    after.recall_measured(before)
    assert after.edge_profile(0) == profile
    other = load(tmp_path, BASE.replace('state = "state"', ""), CARD + 'summary = "x"\n')
    other.recall_measured(before)
    assert other.edge_profile(0) is None
    moved = load(tmp_path, BASE.replace("[edge]", '[edge]\nurl = "http://another:8700"'))
    moved.recall_measured(before)
    assert moved.edge_profile(0) is None


def test_check_config_and_plan_say_what_is_measured_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load(tmp_path)
    assert cli.main(["check-config", "--config", str(config.path)]) == 0
    shown = capsys.readouterr().out
    assert f"  card: {tmp_path}/ragged, {config.identities()['ragged']}" in shown
    assert "  edge: measured when the daemon starts" in shown
    assert "warning" not in shown
    cli.main(["plan", "--config", str(config.path), "--rps", "5"])
    assert "model ragged is not measured on the edge yet" in capsys.readouterr().err


def test_a_file_that_is_no_profile_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / "state" / "edge_profiles").mkdir(parents=True)
    (tmp_path / "state" / "edge_profiles" / "ragged.json").write_text("{")
    assert [wanted.card.name for wanted in load(tmp_path).to_measure()] == ["ragged"]
