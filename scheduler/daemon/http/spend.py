"""The call by which other daemons borrow money under this one's caps."""

from __future__ import annotations

import math
import re
from typing import Any

import orjson
from aiohttp import web

from scheduler.daemon.config.config import Config
from scheduler.daemon.http.admin import json_response
from scheduler.daemon.http.body_reader import BodyReader
from scheduler.daemon.ingress.errors import RETRY_HEADER, Rejected
from scheduler.daemon.ingress.parts import DaemonParts
from scheduler.daemon.ingress.service import InferenceService
from scheduler.daemon.state.lending import Report, StaleReport
from scheduler.daemon.state.loans import MAX_BORROWERS, Caps, TooManyBorrowers

PATH = "/v1/spend/lease"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_PROCESS = re.compile(r"[0-9a-f]{32}")
_AGAIN = {RETRY_HEADER: "1"}
_TEXTS, _AMOUNTS = ("name", "process", "currency"), ("amount", "left", "spent", "unreported")


class SpendCalls:
    """The handler of borrowers' calls."""

    def __init__(self, parts: DaemonParts, service: InferenceService, bodies: BodyReader) -> None:
        """Stores the ledger, the configuration in force, and what reads bodies."""
        self._parts = parts
        self._service = service
        self._bodies = bodies
        self._known: tuple[Config, Caps, str] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Returns the path."""
        return [web.post(PATH, self.lease)]

    async def lease(self, request: web.Request) -> web.Response:
        """POST /v1/spend/lease: takes up a borrower's report, and lends as much of what it asks for as the caps allow.

        The answer has the caps of all daemons together, by which a borrower asks in slices of a fitting size.
        """
        report, currency = parse_report(await self._bodies.read(request))
        caps, own_currency = self._terms()
        if currency != own_currency:
            raise Rejected(
                409,
                f"the caps of this daemon are in {own_currency or 'no currency, because it has no [function]'}, and the"
                f" borrower's prices in {currency or 'none'}: use price sheets of one currency",
            )
        assert self._parts.lend is not None  # as `_terms` has checked
        try:
            leased = await self._parts.lend(report, caps)
        except StaleReport:
            raise Rejected(409, "a later report of this process has been taken up; send the present one") from None
        except TooManyBorrowers:
            raise Rejected(429, f"{MAX_BORROWERS} daemons borrow here, and no more may; stop one", _AGAIN) from None
        if leased is None:
            raise Rejected(503, "the ledger cannot be written; look at this daemon's log for `state_failed`", _AGAIN)
        return json_response(
            {
                "amount": leased.amount,
                "closed_by": leased.closed_by,
                "opens_in_s": leased.opens_in_s,
                "per_hour": caps.per_hour,
                "per_day": caps.per_day,
                "currency": own_currency,
            }
        )

    def _terms(self) -> tuple[Caps, str]:
        """Returns the caps and their currency.

        Raises:
            Rejected: this daemon lends nothing.
        """
        config = self._service.config
        if config.spend.lender:
            raise Rejected(409, "this daemon borrows itself; let `from` name the daemon that it borrows from")
        if not config.capped:
            raise Rejected(409, "this daemon has no spend cap to lend from; set `per_hour` or `per_day` in its [spend]")
        if self._parts.lend is None:
            raise Rejected(409, "this daemon keeps no ledger to lend from; name a folder in `state` of its [daemon]")
        if self._known is None or self._known[0] is not config:
            self._known = config, Caps(*config.caps_beside_idle()), config.currency()
        return self._known[1], self._known[2]


def parse_report(body: bytes) -> tuple[Report, str]:
    """Returns a borrower's report and its currency.

    Raises:
        Rejected: the body is no report.
    """
    try:
        values: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Rejected(400, f"the report is not valid JSON: {error}") from None
    known = (*_TEXTS, "number", *_AMOUNTS)
    if not isinstance(values, dict) or any(key not in values for key in known):
        raise Rejected(400, f"the report must be a JSON object with the keys {', '.join(known)}")
    for key in _TEXTS:
        if not isinstance(values[key], str):
            raise Rejected(400, f"`{key}` of the report must be a text")
    if not _NAME.fullmatch(values["name"]):
        raise Rejected(400, "`name` of the report must be of letters, digits and . _ : -, at most 128")
    if not _PROCESS.fullmatch(values["process"]):
        raise Rejected(400, "`process` of the report must be 32 hexadecimal digits")
    if type(values["number"]) is not int or not 0 < values["number"] < 2**53:
        raise Rejected(400, "`number` of the report must be a whole number above 0")
    return (
        Report(
            values["name"],
            values["process"],
            values["number"],
            amount=max(0.0, _money(values, "amount")),
            left=_money(values, "left"),
            spent=_money(values, "spent"),
            unreported=_money(values, "unreported"),
        ),
        values["currency"],
    )


def _money(values: dict[str, Any], key: str) -> float:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e15:
        raise Rejected(400, f"`{key}` of the report must be an amount of money")
    return float(value)
