"""A place that serves other files than are expected is refused until an operator accepts them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support.card_edge import CARD, card_folder

from models.card_reader import read_card
from scheduler.daemon.config.config import load_config
from scheduler.daemon.config.expected import expected_identities
from scheduler.daemon.identities import TRY_AGAIN_S, Acceptance, AcceptedBy, Identities
from scheduler.domain.errors import ConfigError
from scheduler.domain.messages import ModelBarred
from scheduler.domain.requests import FUNCTIONS, Place

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
EDGE, CPU, GPU = "edge:main", "function:cpu", "function:gpu"
NOTHING = ("", AcceptedBy.CARD)


def identities(
    expected: str = "", before: dict[str, Acceptance] | None = None
) -> tuple[Identities, list[ModelBarred], dict[str, Acceptance | None]]:
    saved: dict[str, Acceptance | None] = {}
    made = Identities(before=before, save=lambda model, accepted: saved.update({model: accepted}))
    posted: list[ModelBarred] = []
    made.post = posted.append
    made.reload({"m": (expected, AcceptedBy.CONFIG) if expected else NOTHING, "other": NOTHING})
    return made, posted, saved


def test_without_an_expectation_the_first_report_is_the_one_that_others_are_compared_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known, posted, _ = identities()
    assert known.heard("m", EDGE, ONE) == ""
    assert known.expected("m") == (ONE, AcceptedBy.FIRST_REPORT)
    with caplog.at_level(logging.ERROR, "edgeburst"):
        sentences = {known.heard("m", CPU, TWO) for _ in range(3)}
    assert sentences == {
        f"function:cpu serves model m with the identity {TWO}, but {ONE} is expected (it was the first that was"
        " reported); bring the same card and files there, or accept what it serves with `identity` in [[model]] or"
        " PUT /v1/models/m/identity"
    }
    assert [record.getMessage() for record in caplog.records] == ["identity_refused"]
    assert posted[0] == ModelBarred("m", FUNCTIONS, barred=True)
    assert known.heard("other", CPU, TWO) == ""
    assert known.heard("m", CPU, ONE) == ""
    assert posted[-1] == ModelBarred("m", FUNCTIONS, barred=False)


def test_what_the_configuration_says_is_expected_from_the_first_answer_on() -> None:
    known, posted, _ = identities(ONE)
    assert "`identity` in [[model]]" in known.heard("m", EDGE, TWO)
    assert posted == [ModelBarred("m", Place.edge(), barred=True)]
    assert known.row("m")["expected"] == ONE
    assert list(known.row("m")["refused"]) == [EDGE]  # type: ignore[call-overload]


def test_a_foreign_server_is_not_compared_and_named_as_such() -> None:
    known, posted, _ = identities(ONE)
    for said in (None, "", 7, {"a": 1}):
        assert known.heard("m", EDGE, said) == ""
    assert posted == []
    assert known.row("m")["unidentified"] == [EDGE]
    assert known.heard("unknown", EDGE, ONE) == ""


def test_a_place_that_stops_to_report_is_another_one() -> None:
    known, posted, _ = identities()
    known.heard("m", EDGE, ONE)
    assert "that it no longer reports" in known.heard("m", EDGE, None)
    assert "that it no longer reports" in known.heard("m", EDGE, None)
    assert posted[-1] == ModelBarred("m", Place.edge(), barred=True)
    known.accept("m", None)
    assert posted[-1] == ModelBarred("m", Place.edge(), barred=False)
    assert known.heard("m", EDGE, None) == ""


def test_a_server_that_reports_only_when_it_is_asked_is_compared_then() -> None:
    known, _, _ = identities(ONE)
    assert known.heard("m", EDGE, ONE, asked=True) == ""
    assert known.heard("m", EDGE, None) == ""
    assert known.heard("m", EDGE, TWO, asked=True)
    assert TWO in known.heard("m", EDGE, None)
    assert known.heard("m", EDGE, ONE, asked=True) == known.heard("m", EDGE, None) == ""
    assert "that it no longer reports" in known.heard("m", EDGE, None, asked=True)


def test_functions_are_kept_away_as_long_as_one_tier_is_refused() -> None:
    known, posted, _ = identities(ONE)
    known.heard("m", CPU, TWO)
    known.heard("m", GPU, TWO)
    known.heard("m", CPU, ONE)
    assert posted[-1].barred
    known.heard("m", GPU, ONE)
    assert not posted[-1].barred


def test_an_operators_word_holds_until_the_configuration_expects_another() -> None:
    known, posted, saved = identities(ONE)
    known.heard("m", EDGE, TWO)
    known.heard("m", CPU, ONE)
    posted.clear()
    known.accept("m", TWO)
    assert set(posted) == {
        ModelBarred("m", Place.edge(), barred=False),
        ModelBarred("m", FUNCTIONS, barred=True),
    }
    assert known.expected("m") == (TWO, AcceptedBy.OPERATOR)
    assert saved == {"m": Acceptance(TWO, ONE)}
    three = "sha256:" + "3" * 64
    known.reload({"m": (three, AcceptedBy.CONFIG)})
    assert known.expected("m") == (three, AcceptedBy.CONFIG)
    assert known.row("m")["refused"] == {}
    assert known.heard("m", EDGE, TWO)
    assert list(known.row("m")["refused"]) == [EDGE]  # type: ignore[call-overload]


def test_what_was_sent_before_another_identity_was_expected_is_compared_with_the_earlier_one() -> None:
    known, posted, _ = identities(ONE)
    known.reload({"m": (TWO, AcceptedBy.CONFIG)}, now_s=10.0)
    assert known.heard("m", CPU, ONE, sent_at_s=9.0) == ""
    assert f"but {ONE} is expected" in known.heard("m", CPU, "sha256:3", sent_at_s=9.0)
    assert known.heard("m", CPU, None, sent_at_s=9.0) == ""
    assert (posted, known.row("m")["refused"]) == ([], {})
    assert f"but {TWO} is expected" in known.heard("m", CPU, ONE, sent_at_s=11.0)


def test_it_outlives_the_process_for_the_same_configuration_only() -> None:
    before = {"m": Acceptance(TWO, ONE)}
    assert identities(ONE, before)[0].expected("m") == (TWO, AcceptedBy.OPERATOR)
    assert identities(TWO, before)[0].expected("m") == (TWO, AcceptedBy.CONFIG)
    assert identities("", before)[0].expected("m") == ("", AcceptedBy.FIRST_REPORT)


def test_refused_functions_are_tried_now_and_then_because_only_answers_tell() -> None:
    known, posted, _ = identities(ONE)
    known.let_functions_try(0.0)
    known.heard("m", CPU, TWO)
    known.heard("m", EDGE, TWO)
    known.let_functions_try(TRY_AGAIN_S - 1.0)
    assert posted[-2:] == [ModelBarred("m", place, barred=True) for place in (FUNCTIONS, Place.edge())]
    known.let_functions_try(TRY_AGAIN_S)
    assert posted[-1] == ModelBarred("m", FUNCTIONS, barred=False)
    assert known.edge_refused()


def test_a_model_that_a_reload_removes_is_forgotten() -> None:
    known, posted, _ = identities(ONE)
    known.heard("m", EDGE, TWO)
    known.reload({"other": NOTHING})
    assert posted[-1] == ModelBarred("m", Place.edge(), barred=False)
    assert known.heard("m", EDGE, TWO) == ""


CONFIG = """
[edge]
[[model]]
card = "ragged"
"""


def test_the_configuration_expects_its_own_word_or_the_card_that_it_names(tmp_path: Path) -> None:
    path, folder = tmp_path / "edgeburst.toml", card_folder(tmp_path)

    def expected(text: str) -> dict[str, tuple[str, AcceptedBy]]:
        path.write_text(text)
        return expected_identities(load_config(path, {}))

    assert expected(CONFIG) == {"ragged": (read_card(folder).identity(), AcceptedBy.CARD)}
    assert expected(f'{CONFIG}identity = "{ONE}"\n') == {"ragged": (ONE, AcceptedBy.CONFIG)}
    shipped = '[edge]\n[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n'
    assert expected(shipped) == {"digits": ("", AcceptedBy.CARD)}
    network = 'format = "state-dict"\narchitecture = "torchvision:resnet18"'
    (folder / "model.toml").write_text(CARD.replace('format = "python"\nclass = "handler.py:Rows"', network))
    assert expected(CONFIG) == {"ragged": ("", AcceptedBy.CARD)}
    with pytest.raises(ConfigError, match="`identity` in"):
        expected(f'{CONFIG}identity = "sha256:12"\n')


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    card = read_card(card_folder(tmp_path))
    assert len({card.identity(), card.identity("random"), card.identity("1" * 64), card.identity("2" * 64)}) == 4
