"""A replica behind Ray: what its options can be, and how many replicas it says there are."""

from __future__ import annotations

import logging

import pytest

from edge_server.errors import StartupError
from edge_server.replica import Replicas, settings_of
from models.errors import ModelError


def test_options_are_those_of_our_own_server() -> None:
    settings = settings_of("--model digits --open --max-batch 8 --emulate 'my profile.json'")
    assert [choice.card.name for choice in settings.models] == ["digits"]
    assert (settings.max_batch, settings.emulate, settings.is_open) == (8, "my profile.json", True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--no-such-option", "the options '--no-such-option' are wrong: see python -m edge_server --help"),
        ("--open 'a", 'the options "--open \'a" are wrong: No closing quotation'),
        ("--open --certificate a --key b", "are not for Ray Serve: put TLS in front of its port"),
        ("--open --mps-percentage 30", "set num_gpus below 1 in its ray_actor_options"),
        ("--model digits", "add --token-env NAME, or --open in a network of your own"),
    ],
)
def test_what_is_not_for_a_replica_is_one_sentence(options: str, sentence: str) -> None:
    with pytest.raises(StartupError) as refused:
        settings_of(options)
    assert sentence in str(refused.value)


def test_a_model_that_does_not_exist_is_told_as_ever() -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        settings_of("--open --model no-such-model")


def test_the_number_of_replicas_follows_what_runs_and_is_never_below_this_one() -> None:
    runs = iter((2, 0, 5))
    replicas = Replicas(lambda: next(runs))
    seen = [replicas.count()]
    for _ in range(3):
        replicas.ask()
        seen.append(replicas.count())
    assert seen == [1, 2, 1, 5]


def test_the_number_stays_while_it_is_not_to_be_had_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[int] = [3]
    replicas = Replicas(lambda: answers.pop())
    with caplog.at_level(logging.ERROR, logger="edge_server"):
        for _ in range(3):
            replicas.ask()
        assert replicas.count() == 3
        answers.append(2)
        replicas.ask()
        assert replicas.count() == 2
        replicas.ask()
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "The number of replicas is not to be had; it stays 3",
        "The number of replicas is not to be had; it stays 2",
    ]
