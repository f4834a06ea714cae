"""Service time of a batch in a function, called through the provider's SDK, as the container measured it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from scheduler import wire
from scheduler.fc_client import Account, CallFailed, FunctionCaller, Invoked, proxy_variable
from scheduler.measuring.edge_call import check_outputs
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.payloads import batch_of
from scheduler.wire import InferRequest, Tensor, WireError

_READ_TIMEOUT_S = 600.0
_COLD_STARTS_IN_A_ROW = 20


@dataclass(frozen=True, slots=True)
class FunctionAddress:
    """A function, its version, and the account to call it with.

    Attributes:
        function: name of the function.
        qualifier: version or alias.
        account: endpoint and access key.
    """

    function: str
    qualifier: str
    account: Account


class NotCalled(MeasuringError):
    """Error: the provider refused an invocation, or could not be reached."""

    def __init__(self, sentence: str, failed: CallFailed) -> None:
        """Stores the sentence, and what the call ended with."""
        super().__init__(sentence)
        self.failed = failed


class BatchCaller:
    """A caller of a function, with batches of given payloads, which it takes in turn."""

    def __init__(
        self,
        address: FunctionAddress,
        *,
        model: str,
        payloads: Sequence[tuple[Tensor, ...]],
        asks: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Stores its parts; the first call imports the SDK.

        Args:
            address: the function.
            model: name of the model.
            payloads: one item of each input, at least one of them.
            asks: what the header of each frame holds besides.
        """
        self._asks = asks
        self._address = address
        self._model = model
        self._payloads = payloads
        self._caller = FunctionCaller(address.account, connections=1)
        self.invocations = 0
        """Number of invocations, cold starts included; each is billed."""
        self.cold_starts = 0
        self.answered: Mapping[str, object] = {}
        """Header of the last answer."""

    def __call__(self, items: int) -> float:
        """Returns the service time of a batch on a warm instance, seconds, as the container measured it.

        An invocation with a cold start is repeated, because its time does not depend on the batch size alone.

        Raises:
            MeasuringError: the function cannot be called, failed, or had a cold start every time.
        """
        for _ in range(_COLD_STARTS_IN_A_ROW):
            header = self._invoked(items)
            if header.get("cold_start") is not True:
                return self._service_s(header)
            self.cold_starts += 1
        raise MeasuringError(
            f"{_COLD_STARTS_IN_A_ROW} invocations in a row had a cold start; provision an instance of the function"
        )

    def _service_s(self, header: Mapping[str, object]) -> float:
        service_s = header.get("service_s")
        if isinstance(service_s, bool) or not isinstance(service_s, (int, float)):
            raise MeasuringError("the function does not report its `service_s`; deploy this project's container")
        return float(service_s)

    def _invoked(self, items: int) -> Mapping[str, object]:
        """Invokes the function with a batch and returns the header of its answer."""
        request = InferRequest("", batch_of(self._payloads, items))
        header = {"model": self._model, "batch_id": secrets.token_hex(8), **self._asks}
        invoked = self._answer(wire.pack_frame(header, wire.encode_request(request)))
        self.invocations += 1
        try:
            answered, payload = wire.unpack_frame(invoked.body)
            self.answered = answered
            if answered.get("status") != 200 or invoked.error_type:
                raise MeasuringError(
                    f"the function refused a batch of {items}: {str(answered.get('error') or invoked.error_type)[:300]}"
                )
            check_outputs(payload.body, payload.json_length, items)
        except WireError as error:
            raise MeasuringError(invoked.without_frame(error)) from error
        return answered

    def _answer(self, frame: bytes) -> Invoked:
        address, caller = self._address, self._caller
        try:
            caller.open()
            return caller.invoke(
                function=address.function, qualifier=address.qualifier, body=frame, read_timeout_s=_READ_TIMEOUT_S
            )
        except CallFailed as failed:
            raise NotCalled(_reason(failed, address.account.host), failed) from None


def proxy_note(host: str) -> str:
    """Returns a sentence if calls of a host (HOST or HOST:PORT) will go through a proxy; empty if not."""
    found = proxy_variable(host)
    return f"calls use the proxy in {found}; unset it, or name {host} in NO_PROXY, to avoid that" if found else ""


def _reason(failed: CallFailed, host: str) -> str:
    if failed.status:
        refusal = f"refused the call ({failed.status} {failed.code}); check function, qualifier and access key"
        return f"Function Compute at {host} {refusal}"
    return f"{failed.failure.message}; check the endpoint {host} and the protocol"
