"""Edge servers in the configuration: one table or several, what each serves, and every mistake in one sentence."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from support.card_edge import card_folder

from models.profile import AtOnceRow, ProfileRow, load_profile, save_profile
from scheduler.cli import main
from scheduler.daemon.assembly import edge_trials, places
from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.config.credentials import secret_references
from scheduler.daemon.config.measured import remember
from scheduler.daemon.config_command import summary
from scheduler.domain.errors import ConfigError
from scheduler.domain.plans import EdgeSettings
from scheduler.domain.requests import FUNCTIONS, Place

DIGITS = '[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n'
OTHER = (
    '[[model]]\nname = "other"\n'
    'inputs = [{name = "x", datatype = "FP32"}]\noutputs = [{name = "y", datatype = "FP32"}]\n'
)
NEAR = '[[edge]]\nname = "near"\nurl = "http://near:8700"\n'
FAR = '[[edge]]\nname = "far"\nurl = "http://far:8700"\n'


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    path = tmp_path / "edgeburst.toml"
    path.write_text(text)
    return load_config(path, environ or {})


def refusal(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environ)
    return str(caught.value).replace(f"{tmp_path}/", "")


def slower(tmp_path: Path, factor: float) -> str:
    """Writes a profile that is so many times as slow; returns its name."""
    profile = load_profile("orin-resnet50")
    rows = tuple(replace(row, p50_s=factor * row.p50_s, p95_s=factor * row.p95_s) for row in profile.rows)
    law = {"alpha_s": factor * profile.alpha_s, "beta_s": factor * profile.beta_s}
    save_profile(replace(profile, name="slow", rows=rows, **law), tmp_path / "slow.json")
    return "slow.json"


def test_one_table_is_an_edge_by_the_name_main_that_says_nothing_of_how_many_batches_it_serves(tmp_path: Path) -> None:
    settings = load(tmp_path, "[edge]\n" + DIGITS).engine_settings()
    assert settings.edges == (EdgeSettings("main", None),)
    assert settings.models[0].edge_latencies == {}
    named = load(tmp_path, '[edge]\nname = "box"\nparallel = 2\n' + DIGITS).engine_settings()
    assert named.edges == (EdgeSettings("box", 2),)


def test_without_an_edge_there_is_one_that_serves_nothing(tmp_path: Path) -> None:
    text = '[function]\n[[model]]\nname = "digits"\n[[model.tier]]\nname = "1gb"\nfunction = "f"\nmemory_gb = 1.0\n'
    config = load(tmp_path, text + 'profile = "fc-resnet50-1gb"\n')
    assert config.edges == ()
    assert config.engine_settings().edges == (EdgeSettings(),)
    assert config.engine_settings().models[0].edge_latency_on("main") is None


def test_each_of_several_has_models_and_laws_of_its_own(tmp_path: Path) -> None:
    own = f'[[edge]]\nname = "far"\nurl = "http://far:8700"\nprofiles = {{ digits = "{slower(tmp_path, 3.0)}" }}\n'
    only = OTHER + 'edge_profile = "orin-resnet50"\n'
    config = load(tmp_path, NEAR + 'models = ["digits"]\n' + own + "parallel = 4\n" + DIGITS + only)
    settings = config.engine_settings()
    assert settings.edges == (EdgeSettings("near", None), EdgeSettings("far", 4))
    digits, other = settings.models
    near, far = (digits.edge_latency_on(name) for name in ("near", "far"))
    assert near is not None
    assert far is not None
    assert far.predict_s(8) == pytest.approx(3.0 * near.predict_s(8))
    assert (other.edge_latency_on("near"), other.edge_latency_on("far")) == (None, near)
    assert config.edge_profile(0) == config.edge_profile(0, config.edges[0])
    assert config.edge_profile(1, config.edges[0]) is None
    trials = edge_trials(config)
    assert {str(place): list(of) for place, of in trials.items()} == {
        "edge:near": ["digits"],
        "edge:far": ["digits", "other"],
    }
    where = places(config, {})
    assert [name for name, _ in where.edges["near"].models] == ["digits"]
    assert where.all() == (Place.edge("near"), Place.edge("far"))


def test_a_model_may_have_its_only_law_in_an_edges_table(tmp_path: Path) -> None:
    text = NEAR + FAR + 'profiles = { other = "orin-resnet50" }\n' + OTHER
    [model] = load(tmp_path, text).engine_settings().models
    assert model.edge_latency_on("near") is None
    assert model.edge_latency_on("far") == model.edge_latency


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (NEAR + NEAR.replace("8700", "8701") + DIGITS, "edgeburst.toml:5: the edge name near occurs twice; rename one"),
        (
            NEAR + FAR.replace("far:", "near:") + DIGITS,
            "edgeburst.toml:6: edges near and far have the same `url`; write",
        ),
        (
            NEAR + 'models = ["digit"]\n' + DIGITS,
            "edgeburst.toml:4: `models` in [edge] names digit, which is no [[model]]",
        ),
        (
            NEAR + FAR + 'profiles = { digit = "x" }\n' + DIGITS,
            "edgeburst.toml:7: `profiles` in [[edge]] far names digit, which is no [[model]]; name one of digits",
        ),
        (
            NEAR + FAR + 'models = ["other"]\nprofiles = { digits = "orin-resnet50" }\n' + DIGITS + OTHER,
            "edgeburst.toml:8: [[edge]] far has a profile of model digits, which is not in its `models`; add it",
        ),
        (
            NEAR + FAR + "paralel = 2\n" + DIGITS,
            "edgeburst.toml:7: unknown key `paralel` in [[edge]]; did you mean `parallel`?",
        ),
        (
            "[edge]\nparalel = 2\n" + DIGITS,
            "edgeburst.toml:2: unknown key `paralel` in [edge]; did you mean `parallel`?",
        ),
        (NEAR + FAR + "parallel = 0\n" + DIGITS, "edgeburst.toml:7: `parallel` in [[edge]] must be at least 1, not 0"),
        ("[edge]\nparallel = 65\n" + DIGITS, "edgeburst.toml:2: `parallel` in [edge] must be at most 64, not 65"),
        (NEAR + FAR + 'client_key = "k"\n' + DIGITS, "edgeburst.toml:7: `client_key` in [[edge]] far needs a `client"),
        (
            NEAR + '[[edge]]\nname = "b"\nurl = "http://h:0"\n' + DIGITS,
            "edgeburst.toml:6: `url` in [[edge]] b has no host",
        ),
        (
            NEAR + FAR + 'profiles = { digits = "fc-resnet50-1gb" }\n' + DIGITS,
            "edgeburst.toml:7: profile fc-resnet50-1gb was",
        ),
        (
            NEAR + 'models = ["other"]\n' + FAR + 'models = ["other"]\n' + DIGITS + OTHER,
            "edgeburst.toml:11: model digits has an edge profile, but is in the `models` of no [[edge]]; add it to one",
        ),
        ("edge = 5\n" + DIGITS, "edgeburst.toml:1: `edge` must be a table; begin it with the line [edge]"),
        (
            "[[edge]]\nname = 'near'\n[[edge]]\nname = 5\n" + DIGITS,
            "edgeburst.toml:4: `name` in [[edge]] must be a text",
        ),
    ],
)
def test_mistakes_are_named_by_table_and_line(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text).startswith(sentence)


def test_the_environment_overrides_the_only_one(tmp_path: Path) -> None:
    environ = {"EDGEBURST_EDGE__URL": "http://elsewhere:1", "EDGEBURST_EDGE__PARALLEL": "3"}
    for text in ("[edge]\n", NEAR):
        [edge] = load(tmp_path, text + DIGITS, environ).edges
        assert (edge.url, edge.parallel) == ("http://elsewhere:1", 3)
    sentence = refusal(tmp_path, NEAR + FAR + DIGITS, environ)
    assert sentence.startswith(
        "environment variable EDGEBURST_EDGE__PARALLEL: there are 2 tables [[edge]]; set `parallel`"
    )
    assert refusal(tmp_path, NEAR + DIGITS, {"EDGEBURST_EDGE__PARALLEL": "0"}) == (
        "environment variable EDGEBURST_EDGE__PARALLEL: `parallel` in [[edge]] must be at least 1, not 0"
    )


def test_each_has_a_token_of_its_own(tmp_path: Path) -> None:
    config = load(tmp_path, NEAR + 'token_env = "NEAR"\n' + FAR + 'token_env = "FAR"\n' + DIGITS)
    found = [(secret.purpose, secret.present) for secret in secret_references(config, {"NEAR": "x"})]
    assert found == [("edge token near", True), ("edge token far", False)]
    with pytest.raises(ConfigError, match=r"edgeburst.toml:8: environment variable FAR is not set"):
        places(config, {"NEAR": "x"})
    where = places(config, {"NEAR": "x", "FAR": "y"})
    assert where.edges["near"].access != where.edges["far"].access


def test_the_example_with_several_is_valid_and_says_what_each_serves() -> None:
    config = load_config(Path(__file__).parents[2] / "scripts" / "edgeburst.edges.example.toml", {})
    digits, resnet50 = config.engine_settings().models
    served = {edge.name: [m.name for m in (digits, resnet50) if m.edge_latency_on(edge.name)] for edge in config.edges}
    assert served == {
        "jetson": ["digits", "resnet50"],
        "workstation": ["resnet50"],
        "cluster": ["digits"],
        "gpu-digits": ["digits"],
        "gpu-resnet50": ["resnet50"],
    }


def test_check_config_shows_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = NEAR + "parallel = 2\n" + FAR + f'models = ["digits"]\nprofiles = {{ digits = "{slower(tmp_path, 3.0)}" }}\n'
    config = load(tmp_path, text + DIGITS)
    assert main(["check-config", "--config", str(config.path)]) == 0
    shown = capsys.readouterr().out
    assert "edge         near: http://near:8700, 2 batches at once\n" in shown
    assert "edge         far: http://far:8700, for digits\n" in shown
    assert "  edge near: 0.051 s for one item" in shown
    assert "  edge far: 0.1" in shown
    found = json.loads(json.dumps(summary(config, {})))
    assert found["edge"] == "http://near:8700"
    assert [edge["name"] for edge in found["edges"]] == ["near", "far"]
    assert set(found["models"][0]["edges"]) == {"near", "far"}


def test_a_reload_replaces_those_that_are_called_otherwise_and_drops_those_that_are_gone(tmp_path: Path) -> None:
    before = places(load(tmp_path, NEAR + FAR + DIGITS), {})
    same = places(load(tmp_path, NEAR + "parallel = 2\n" + FAR + DIGITS), {})
    assert (same.changed(before), same.gone(before)) == ((), ())
    after = places(load(tmp_path, NEAR.replace("8700", "8701") + FAR.replace("far", "new") + DIGITS), {})
    assert after.changed(before) == (Place.edge("near"), Place.edge("new"))
    assert after.gone(before) == (Place.edge("far"),)
    account = replace(after, account=object())  # type: ignore[arg-type]
    assert account.changed(after) == (FUNCTIONS,)
    assert after.gone(account) == (FUNCTIONS,)


def card_config(tmp_path: Path) -> Config:
    card_folder(tmp_path)
    return load(tmp_path, '[daemon]\nstate = "state"\n' + NEAR + FAR + '[[model]]\ncard = "ragged"\n')


def test_each_is_measured_and_remembered_by_itself(tmp_path: Path) -> None:
    config = card_config(tmp_path)
    assert [(card.name, edge.name) for card, edge in config.to_measure()] == [("ragged", "near"), ("ragged", "far")]
    assert config.measured_later() == {"ragged"}
    profile = replace(
        load_profile("orin-resnet50"),
        model="ragged",
        environment={"identity": config.identities()["ragged"] or "", "edge": "http://far:8700"},
    )
    remember(config.state_folder(), profile, "far")
    again = card_config(tmp_path)
    assert [(card.name, edge.name) for card, edge in again.to_measure()] == [("ragged", "near")]
    assert again.measured_later() == frozenset()
    [model] = again.engine_settings().models
    assert model.edge_latency_on("near") is None
    assert model.edge_latency_on("far") == model.edge_latency
    other = card_config(tmp_path)
    other._measured.clear()
    other.recall_measured(again)
    assert asdict(other.edge_profile(0, other.edges[1])) == asdict(profile)  # type: ignore[arg-type]


def test_what_was_measured_says_how_many_batches_at_once_where_the_table_does_not(tmp_path: Path) -> None:
    profile = load_profile("orin-resnet50")
    alone = (ProfileRow(1, 0.05, 0.06, 20.0, 30), ProfileRow(16, 0.17, 0.2, 94.0, 30))
    more = (AtOnceRow(2, 16, 0.17, 0.2, 180.0, 30), AtOnceRow(3, 16, 0.25, 0.3, 185.0, 30))
    save_profile(replace(profile, name="two", rows=alone, at_once=more), tmp_path / "two.json")
    own = FAR + 'profiles = { digits = "two.json" }\n'
    assert load(tmp_path, NEAR + own + DIGITS).engine_settings().edges == (
        EdgeSettings("near", None),
        EdgeSettings("far", 2),
    )
    assert load(tmp_path, own + "parallel = 5\n" + DIGITS).engine_settings().edges == (EdgeSettings("far", 5),)
