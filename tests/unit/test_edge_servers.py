"""How an edge server takes tensors is learned from its answers; what its errors mean is read from their words."""

from __future__ import annotations

import logging

import pytest

from scheduler.daemon.backends.edge_refusals import about_form, largest_batch, refused
from scheduler.daemon.backends.edge_servers import AGAINST_ITS_WORD, Description, EdgeServers, TensorForm
from scheduler.domain.batches import FailureKind
from scheduler.wire import InferRequest, Tensor, WireError, base64_elements, encode_request, parse_request
from scheduler.wire.servers import said_of_model

URL = "http://127.0.0.1:1"
BINARY, JSON = TensorForm.BINARY, TensorForm.JSON


def test_binary_is_tried_first_but_where_the_server_is_known_to_take_json_only() -> None:
    servers = EdgeServers()
    assert servers.form(URL, "m") is BINARY
    servers.described(URL, Description("mlserver 1.7.1"))
    assert servers.form(URL, "m") is JSON
    servers.described(URL, Description("kserve 0.16.0"))
    assert servers.form(URL, "m") is BINARY
    servers.answered(URL, "m", BINARY)
    servers.described(URL, Description("mlserver 1.7.1"))
    assert servers.form(URL, "m") is BINARY


def test_what_was_answered_is_known_until_the_server_was_away_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    servers = EdgeServers()
    assert not servers.sure(URL, "m")
    servers.answered(URL, "m", JSON)
    servers.answered(URL, "m", JSON)
    assert (servers.form(URL, "m"), servers.sure(URL, "m")) == (JSON, True)
    assert not servers.sure(URL, "other")
    servers.doubt(URL)
    assert (servers.form(URL, "m"), servers.sure(URL, "m")) == (JSON, False)
    servers.answered(URL, "m", JSON)
    assert [record.message for record in caplog.records] == ["edge_tensors_learned"]
    servers.doubt(URL)
    servers.answered(URL, "m", BINARY)
    assert servers.form(URL, "m") is BINARY
    assert len(caplog.records) == 2


def test_a_server_that_says_that_it_takes_binary_tensors_is_not_disbelieved_for_one_failure() -> None:
    servers = EdgeServers()
    servers.described(URL, Description("ours 1", ("binary_tensor_data",)))
    for _ in range(AGAINST_ITS_WORD - 1):
        servers.answered(URL, "m", JSON)
        assert servers.form(URL, "m") is BINARY
    servers.answered(URL, "m", BINARY)
    servers.doubt(URL)
    for _ in range(AGAINST_ITS_WORD):
        servers.answered(URL, "m", JSON)
    assert servers.form(URL, "m") is JSON


def test_forms_outlive_the_process_and_what_is_damaged_is_not_taken_up() -> None:
    servers, heir = EdgeServers(), EdgeServers()
    servers.answered(URL, "m", JSON)
    assert servers.form(URL, "never used") is BINARY
    content = servers.remembered().snapshot(0.0)
    assert content == [{"url": URL, "model": "m", "form": "json"}]
    for broken in ({}, [{"url": URL}], [{"url": URL, "model": "m", "form": "xml"}]):
        with pytest.raises((KeyError, TypeError, ValueError)):
            heir.remembered().restore(broken, 0.0, 0.0)
    assert heir.form(URL, "m") is BINARY
    heir.remembered().restore(content, 60.0, 0.0)
    assert (heir.form(URL, "m"), heir.sure(URL, "m")) == (JSON, False)
    assert heir.form("http://127.0.0.1:2", "m") is BINARY


@pytest.mark.parametrize(
    ("sentence", "most"),
    [
        ("[request id: 7] inference request batch-size must be <= 8 for 'x'", 8),
        ("inference request batch-size must be <= 8 for 'digits'", 8),
        ("the batch has 12 items, but at most 8 fit: send it in parts", 8),
        ("the request has 12 items, but model digits takes at most 8; send fewer at once", 8),
        ("the edge takes at most 8 items of model m at once, and the request has 12; send fewer items at once", 8),
        ("batch size 12 is larger than 8", 8),
        ("Batch size 12 exceeds the maximum batch size of 8", 8),
        ("batch_size (12) exceeds max_batch_size=8", 8),
        ("maximum batch size is 8", 8),
        ("batch size must be no more than 8", 8),
        ("batch size 12 is not supported", None),
        ("batch size must be <= 64", None),
        ("picture 3 of the batch is larger than 4 MB", None),
        ("request body is larger than 8 bytes", None),
        ("no picture", None),
        ("", None),
    ],
)
def test_a_limit_is_read_only_from_a_sentence_about_the_batchs_size(sentence: str, most: int | None) -> None:
    assert largest_batch(sentence, items=12) == most


@pytest.mark.parametrize(
    ("status", "sentence", "by_size", "form"),
    [
        (400, "batch-size must be <= 8", True, False),
        (400, "batch size 12 is not supported", True, False),
        (400, "cannot parse the body", False, True),
        (413, "Request Entity Too Large", True, False),
        (500, "Internal Server Error", True, True),
        (500, "max batch size is 8", True, False),
        (503, "not ready", False, False),
        (429, "batch size queue full", False, False),
        (404, "no model", False, False),
        (401, "who", False, False),
    ],
)
def test_a_refusal_says_whether_size_or_form_may_be_its_cause(
    status: int, sentence: str, by_size: bool, form: bool
) -> None:
    failure = refused(status, None, b'{"error": "%s"}' % sentence.encode(), items=12)
    assert (failure.by_size, about_form(failure)) == (by_size, form)
    assert failure.message == f"the edge server answered {status}: {sentence}"
    assert failure.kind is not FailureKind.BROKEN


def test_metadata_and_configuration_are_read_with_care() -> None:
    assert said_of_model({"parameters": {"max_batch": "16"}}, {"max_batch_size": 8}) == {"max_batch": 8}
    for odd in ({}, {"parameters": []}, {"parameters": {"max_batch": -3}}, {"parameters": {"max_batch": 1.5}}):
        assert said_of_model(odd, {"max_batch_size": 0, "dynamic_batching": [], "instance_group": 3}) == {}


@pytest.mark.parametrize(
    ("models", "parallel"),
    [
        ({}, None),
        ({"a": {"max_batch": 8}}, None),
        ({"a": {"parallel": 4}}, 4),
        ({"a": {"instances": 3}, "b": {"instances": 2}, "c": {}}, 2),
        ({"a": {"instances": 1, "parallel": 4}}, 4),
    ],
)
def test_a_server_serves_as_many_batches_at_once_as_it_says_of_the_model_with_the_fewest(
    models: dict[str, dict[str, object]], parallel: int | None
) -> None:
    assert Description(models=models).parallel() == parallel


def test_json_carries_pictures_as_base64_with_the_content_type_by_which_mlserver_decodes_them() -> None:
    picture, text = Tensor.from_elements("image", [b"\x89PNG", b"\xff"]), Tensor.from_elements("text", [b"a", b"b"])
    encoded = encode_request(InferRequest("1", (picture, text)), binary=False, as_base64={"image"})
    assert encoded.json_length is None
    assert b'"parameters":{"content_type":"base64"},"data":["iVBORw==","/w=="]' in encoded.body
    read = parse_request(encoded.body, None).inputs
    assert base64_elements(read[0]).elements() == picture.elements()
    assert read[1].elements() == text.elements()
    with pytest.raises(WireError, match="not UTF-8"):
        encode_request(InferRequest("1", (picture,)), binary=False)
