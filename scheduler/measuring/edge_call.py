"""Times a batch to an edge server: Open Inference Protocol v2 over one kept-alive connection."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import quote

import requests

from models.card import ROWS_SUFFIX
from scheduler import wire
from scheduler.client_access import NO_ACCESS, ClientAccess, set_up
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.payloads import batch_of
from scheduler.wire import InferRequest, Tensor, WireError
from scheduler.wire.servers import TensorForm, encoded_in, likely_form, without_text

_TIMEOUT_S = 120.0


class _NotAnswered(MeasuringError):
    """Error: there was no answer that can be read, perhaps because of the form of the tensors."""


class EdgeCaller:
    """A caller of an edge server, with batches of given payloads."""

    def __init__(
        self,
        *,
        url: str,
        model: str,
        payloads: Sequence[tuple[Tensor, ...]],
        server: str = "",
        access: ClientAccess = NO_ACCESS,
        form: TensorForm | None = None,
    ) -> None:
        """Stores its parts.

        Args:
            url: URL of the server, without a path.
            model: name of the model.
            payloads: one item of each input, at least one of them; batches take them in turn.
            server: the server's name of itself, by which the form of its tensors is guessed; empty: not known.
            access: what the server is shown.
            form: of the tensors; None: the one that the server takes.
        """
        self._address = f"{url.rstrip('/')}/v2/models/{quote(model, safe='')}/infer"
        self._payloads = payloads
        self._bodies: dict[int, wire.Encoded] = {}
        self._form, self._is_sure = form or likely_form(server), form is not None
        self._session = requests.Session()
        self._access = access
        set_up(self._session, access)

    def __call__(self, items: int) -> float:
        """Returns the seconds from the first byte sent to the last byte read, which the daemon will see as well.

        A batch that fails before any was answered is sent again in the other form of tensors, as the daemon does.

        Raises:
            MeasuringError: the batch was not answered, or an item failed.
        """
        try:
            elapsed_s = self._timed(items)
        except _NotAnswered as error:
            if self._is_sure:
                raise
            self._in_the_other_form()
            try:
                elapsed_s = self._timed(items)
            except (MeasuringError, WireError):
                self._in_the_other_form()
                raise error from None
        self._is_sure = True
        return elapsed_s

    def _in_the_other_form(self) -> None:
        self._form = self._form.other
        self._bodies.clear()

    def _timed(self, items: int) -> float:
        body = self._body(items)
        started_s = time.perf_counter()
        try:
            response = self._session.post(
                self._address, data=body.body, headers=body.headers, timeout=_TIMEOUT_S, verify=self._access.verify
            )
        except requests.RequestException as error:
            raise _NotAnswered(
                f"the server failed at a batch of {items} ({type(error).__name__}); see its log"
            ) from error
        elapsed_s = time.perf_counter() - started_s
        _check(response, items)
        return elapsed_s

    def _body(self, items: int) -> wire.Encoded:
        """Returns the body of a size, which is made once, so that only the server's work is timed."""
        if items not in self._bodies:
            inputs = batch_of(self._payloads, items)
            request = InferRequest(str(items), inputs, binary_by_default=True)
            self._bodies[items] = encoded_in(request, self._form, as_base64=without_text(request)).joined()
        return self._bodies[items]


def _check(response: requests.Response, items: int) -> None:
    if response.status_code != 200:
        try:
            sentence = str(response.json()["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            sentence = f"HTTP status {response.status_code}"
        raise _NotAnswered(f"the server refused a batch of {items}: {sentence[:300]}")
    try:
        check_outputs(response.content, wire.json_length_of(response.headers), items)
    except WireError as error:
        raise _NotAnswered(f"the answer to a batch of {items} cannot be read: {error}") from error


def check_outputs(body: bytes, json_length: int | None, items: int) -> None:
    """Checks that every item was processed: a failed item takes less time than a processed one.

    Raises:
        WireError: the body is not an answer.
        MeasuringError: it has another number of items, or an item failed.
    """
    answer = wire.parse_response(body, json_length)
    # The rows of an output with as many as each item has are counted by another output.
    ragged = {output.name.removesuffix(ROWS_SUFFIX) for output in answer.outputs if output.name.endswith(ROWS_SUFFIX)}
    counted = [output.items for output in answer.outputs if output.name not in ragged]
    if not counted or any(count != items for count in counted):
        raise MeasuringError(f"the answer to a batch of {items} has another number of items")
    failed = [sentence for sentence in wire.item_errors(answer.outputs) if sentence]
    if failed:
        raise MeasuringError(f"the server refuses an item of the batch: {failed[0][:300]}")
