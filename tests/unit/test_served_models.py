"""Which files each place serves: heard from answers, compared with this host's, one warning for each difference."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from support.card_edge import CARD, card_folder

from scheduler.daemon.config.config import load_config
from scheduler.daemon.served_models import ServedModels, model_metrics
from scheduler.domain.messages import ModelBarred
from scheduler.domain.requests import Place

CONFIG = """
[edge]
[function]
[[model]]
card = "ragged"
[[model.tier]]
name = "cpu"
function = "f"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""


def served(folder: Path, card: str = CARD) -> tuple[ServedModels, str]:
    card_folder(folder, card)
    (folder / "edgeburst.toml").write_text(CONFIG)
    config = load_config(folder / "edgeburst.toml", {})
    models = ServedModels()
    models.reload(config)
    identity = config.identities()["ragged"]
    assert identity is not None
    return models, identity


def metric(models: ServedModels) -> list[float]:
    [family] = model_metrics({"models": models.rows()})
    assert isinstance(family, Metric)
    return [sample.value for sample in family.samples]


def test_nothing_heard_is_nothing_known(tmp_path: Path) -> None:
    models, identity = served(tmp_path)
    nothing = {"identity": identity, "places": {}, "agree": None, "edge_profile": None, "edge_profiles": {}}
    expected = {"expected": identity, "expected_by": "card", "unidentified": [], "refused": {}}
    assert models.rows()["ragged"] == {**nothing, **expected}
    assert metric(models) == []


def test_places_agree_or_one_warning_names_the_one_that_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models, identity = served(tmp_path)
    edge, cpu = Place.edge(), Place.function("cpu")
    models.heard("ragged", edge, identity)
    assert (models.rows()["ragged"]["agree"], metric(models)) == (True, [1.0])
    with caplog.at_level(logging.WARNING, "edgeburst"):
        for _ in range(3):
            models.heard("ragged", cpu, "sha256:other")
    assert (models.rows()["ragged"]["agree"], metric(models)) == (False, [0.0])
    assert [record.getMessage() for record in caplog.records] == ["identity_differs", "identity_refused"]
    models.heard("ragged", cpu, identity)
    assert metric(models) == [1.0]


def test_an_edge_that_is_back_is_compared_before_it_gets_batches(tmp_path: Path) -> None:
    models, identity = served(tmp_path)
    posted: list[ModelBarred] = []
    models.identities.post = posted.append
    models.edge_back(Place.edge(), {"ragged": "sha256:other", "unknown": "sha256:1"})
    models.edge_back(Place.edge(), {"ragged": identity})
    assert [message.barred for message in posted] == [True, False]


@pytest.mark.parametrize("identity", [None, "", 7, {"a": 1}])
def test_a_place_that_reports_nothing_is_not_counted(tmp_path: Path, identity: object) -> None:
    models, _ = served(tmp_path)
    models.heard("ragged", Place.edge(), identity)
    models.heard("unknown", Place.edge(), "sha256:1")
    assert models.rows()["ragged"]["places"] == {}


def test_a_reload_keeps_what_was_heard_of_the_same_card(tmp_path: Path) -> None:
    models, identity = served(tmp_path)
    models.heard("ragged", Place.edge(), identity)
    models.reload(load_config(tmp_path / "edgeburst.toml", {}), now_s=5.0)
    assert models.rows()["ragged"]["places"] == {"edge:main": identity}


def test_a_changed_card_is_compared_with_what_is_reported_after_the_reload_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models, old = served(tmp_path)
    posted: list[ModelBarred] = []
    models.identities.post = posted.append
    models.heard("ragged", Place.edge(), old, asked=True, sent_at_s=1.0)
    (tmp_path / "ragged" / "model.toml").write_text(CARD + 'summary = "x"\n')
    config = load_config(tmp_path / "edgeburst.toml", {})
    new = config.identities()["ragged"]
    with caplog.at_level(logging.WARNING, "edgeburst"):
        models.reload(config, now_s=5.0)
        # Under way when the card changed: what it was computed with was right then.
        assert models.answered("ragged", Place.function("cpu"), old, 4.9) == ""
        models.edge_back(Place.edge(), {"ragged": old}, 4.9)
        models.edge_back(Place.edge(), {"ragged": new}, 5.1)
    assert (caplog.records, posted) == ([], [])
    assert (models.rows()["ragged"]["places"], models.rows()["ragged"]["agree"]) == ({"edge:main": new}, True)
    assert "is expected" in models.answered("ragged", Place.function("cpu"), old, 5.2)


def test_a_model_without_a_card_is_new_once_and_stays_as_it_is(tmp_path: Path) -> None:
    tensors = 'inputs = [{name = "x", datatype = "FP32"}]\noutputs = [{name = "y", datatype = "FP32"}]'
    (tmp_path / "edgeburst.toml").write_text(CONFIG.replace('card = "ragged"', f'name = "plain"\n{tensors}'))
    config, models = load_config(tmp_path / "edgeburst.toml", {}), ServedModels()
    models.reload(config)
    models.heard("plain", Place.function("cpu"), "sha256:1")
    models.reload(config, now_s=5.0)
    assert models.rows()["plain"]["places"] == {"function:cpu": "sha256:1"}


def test_what_another_edge_server_reported_is_forgotten(tmp_path: Path) -> None:
    models, identity = served(tmp_path)
    models.heard("ragged", Place.edge(), identity)
    models.heard("ragged", Place.function("cpu"), identity)
    (tmp_path / "edgeburst.toml").write_text(CONFIG.replace("[edge]", '[edge]\nurl = "http://127.0.0.1:9"'))
    models.reload(load_config(tmp_path / "edgeburst.toml", {}), now_s=5.0)
    assert models.rows()["ragged"]["places"] == {"function:cpu": identity}
