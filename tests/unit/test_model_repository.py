"""The index of the models says which can be asked, and why others cannot."""

from scheduler.daemon.model_repository import SENTENCES, Unsupported, repository_index


def test_ready_models_are_listed_with_their_version() -> None:
    assert repository_index({"a": "", "b": ""}) == [
        {"name": "a", "version": "1", "state": "READY", "reason": ""},
        {"name": "b", "version": "1", "state": "READY", "reason": ""},
    ]


def test_models_that_cannot_be_asked_say_why_or_are_left_out() -> None:
    assert repository_index({"a": "it stops"}) == [
        {"name": "a", "version": "1", "state": "UNAVAILABLE", "reason": "it stops"}
    ]
    assert repository_index({"a": "it stops"}, ready_only=True) == []
    assert [row["name"] for row in repository_index({"a": "it stops", "b": ""}, ready_only=True)] == ["b"]


def test_each_group_of_calls_that_is_not_supported_has_one_sentence() -> None:
    assert set(SENTENCES) == set(Unsupported)
    assert not any("\n" in sentence or sentence.endswith(".") for sentence in SENTENCES.values())
