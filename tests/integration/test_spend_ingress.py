"""Money borrowed over HTTP: a borrower and the ingress of a lender with its state folder, on a real socket."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.certificates import Authority
from support.fake_runner import FakeRunner

from scheduler.client_access import ClientAccess, client_access
from scheduler.daemon.config.config import load_config
from scheduler.daemon.http.app import INGRESS, create_app
from scheduler.daemon.state import borrowed
from scheduler.daemon.state.borrowed import UNKNOWN_CAP, Borrower, Lender
from scheduler.daemon.state.keeper import StateKeeper
from scheduler.dispatch.spend_cap import LENDER
from scheduler.domain.errors import ConfigError
from scheduler.domain.messages import Message, RequestSpend, ReturnSpend, SpendGranted
from scheduler.domain.plans import EngineSettings

TOKEN, OTHER = "a token that borrows", "a token that asks"
MODEL = """
[function]
[[model]]
name = "digits"
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""
TOKENS = "".join(
    f'[[token]]\nname = "{scope}"\nsha256 = "{sha256(token.encode()).hexdigest()}"\nscopes = ["{scope}"]\n'
    for scope, token in (("spend", TOKEN), ("infer", OTHER))
)
LENDS = '[daemon]\nstate = "state"\n[spend]\nper_hour = 1.0\nper_day = 8.0\n' + TOKENS + MODEL
REPORT: dict[str, Any] = {
    "name": "host:8600",
    "process": "0" * 32,
    "number": 1,
    "currency": "CNY",
    "amount": 0.25,
    "left": 0.0,
    "spent": 0.0,
    "unreported": 0.0,
}
ADMIN = {"ADMIN": "a token for all"}


class LenderServer:
    """The ingress of a daemon that may lend; `port` stays when it starts again."""

    def __init__(self, folder: Path, text: str = LENDS) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "edgeburst.toml").write_text(text.replace("[daemon]\n", '[daemon]\nadmin_token_env = "ADMIN"\n'))
        self.port = 0

    async def __aenter__(self) -> LenderServer:
        config = load_config(self.folder / "edgeburst.toml", ADMIN)
        state = config.state_folder()
        self.keeper = StateKeeper(state, currency=config.currency()) if state is not None else None
        parts = FakeRunner().parts()
        if self.keeper is not None:
            parts = replace(parts, lend=self.keeper.lend)
        app = create_app(parts, config, ADMIN)
        app[INGRESS].service.ready = True
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()
        if self.keeper is not None:
            await self.keeper.close(clean=True)
            self.keeper.release()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rows(self) -> Any:
        assert self.keeper is not None
        return self.keeper.status()["borrowers"]

    async def asked(self, content: object, token: str = TOKEN) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{self.url}/v1/spend/lease", json=content) as response,
        ):
            return response.status, await response.json()


class Borrows:
    """A borrower with an engine that only listens, and spends what it is told to."""

    def __init__(
        self, url: str, *, token: str = TOKEN, currency: str = "CNY", access: ClientAccess | None = None
    ) -> None:
        self.borrower = Borrower(Lender(url, "host:8600", currency, access or ClientAccess(token)))
        self.heard: list[SpendGranted] = []
        self.left = 0.0
        self.changes = 0
        self.borrower.connect(post=self.hear, left=lambda: self.left)
        self.borrower.when_caps_change(self.change)

    async def __aenter__(self) -> Borrows:
        self.task = asyncio.get_running_loop().create_task(self.borrower.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.borrower.close(clean=True)

    def hear(self, message: Message) -> None:
        assert isinstance(message, SpendGranted)
        self.heard.append(message)
        self.left += message.amount

    def change(self) -> None:
        self.changes += 1

    async def ask(self, amount: float) -> SpendGranted:
        count = len(self.heard)
        self.borrower.request(RequestSpend(amount, self.left, None, None))
        await until(lambda: len(self.heard) > count)
        return self.heard[-1]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30.0))


def test_a_borrower_knows_the_caps_first_and_then_gets_slices_and_gives_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with LenderServer(tmp_path) as lender:
            async with Borrows(lender.url) as borrows:
                await until(lambda: borrows.changes)
                settings = EngineSettings(models=(), spend_per_hour=2.0, spend_per_day=4.0)
                applied = borrows.borrower.applied(settings)
                assert (applied.spend_per_hour, applied.spend_per_day) == (1.0, 4.0)
                assert await borrows.ask(0.25) == SpendGranted(0.25)
                borrows.left -= 0.125
                assert (await borrows.ask(0.25)).amount == 0.25
                [row] = lender.rows()
                assert (row["name"], row["held"], row["spent"]) == ("host:8600", 0.375, 0.125)
                borrows.left -= 0.25
                borrows.borrower.give_back(ReturnSpend(0.25))
                await until(lambda: lender.rows()[0]["held"] == 0.125)
                assert borrows.borrower.status()["up"] is True
                assert borrows.changes == 1
            # A clean stop gives back the rest.
            [row] = lender.rows()
            assert (row["held"], row["spent"]) == (0.0, 0.125)
            assert (await lender.asked(REPORT | {"amount": 0.4}))[1]["amount"] == 0.4

    run(work)


def test_a_lender_that_is_away_gives_nothing_and_that_is_said_once_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(borrowed, "REPORT_EVERY_S", 0.02)
    caplog.set_level(logging.INFO, "edgeburst")

    async def work() -> None:
        lender = LenderServer(tmp_path)
        async with lender:
            borrows = Borrows(lender.url)
            await borrows.__aenter__()
            await until(lambda: borrows.changes)
            await borrows.ask(0.25)
        assert (await borrows.ask(0.25)).closed_by == LENDER
        assert (await borrows.ask(0.25)).amount == 0.0
        status = borrows.borrower.status()
        assert status["up"] is False
        assert "cannot be reached" in str(status["message"])
        # The caps stay known: a slice keeps its size, and nothing is open.
        assert borrows.borrower.applied(EngineSettings(models=())).spend_per_hour == 1.0
        async with lender:
            await until(lambda: borrows.borrower.status()["up"])
            [row] = lender.rows()
            assert row["held"] == 0.25
            assert (await borrows.ask(0.25)).amount == 0.25
            await borrows.__aexit__()

    run(work)
    assert [record.message for record in caplog.records if record.message.startswith("lender")] == [
        "lender_away",
        "lender_back",
    ]


def test_without_a_lender_from_the_start_on_nothing_is_asked_for_and_the_cap_is_unknown(tmp_path: Path) -> None:
    async def work() -> None:
        async with Borrows("http://127.0.0.1:1") as borrows:
            assert await borrows.ask(0.25) == SpendGranted(0.0, LENDER, borrowed.AGAIN_S)
            settings = EngineSettings(models=())
            assert borrows.borrower.applied(settings).spend_per_hour == UNKNOWN_CAP
            assert borrows.borrower.applied(replace(settings, spend_per_day=3.0)).spend_per_hour is None

    run(work)


@pytest.mark.parametrize(
    ("text", "given", "why"),
    [
        (LENDS, {"token": "wrong"}, "status 401: the bearer token is wrong"),
        (LENDS, {"token": OTHER}, "status 403: token infer lacks the scope spend"),
        (LENDS, {"token": ""}, "status 401: this call needs a token with the scope spend"),
        (LENDS, {"currency": "USD"}, "the caps of this daemon are in CNY, and the borrower's prices in USD"),
        (MODEL, {"token": ""}, "status 401: this call needs a token with the scope spend"),
        ("[daemon]\n" + MODEL, {"token": ADMIN["ADMIN"]}, "has no spend cap to lend from; set `per_hour`"),
        ("[daemon]\n[spend]\nper_day = 1\n" + MODEL, {"token": ADMIN["ADMIN"]}, "keeps no ledger to lend from"),
        ('[daemon]\n[spend]\nfrom = "http://x"\n' + MODEL, {"token": ADMIN["ADMIN"]}, "this daemon borrows itself"),
    ],
)
def test_a_lender_that_refuses_gives_nothing_and_says_why(
    tmp_path: Path, text: str, given: dict[str, str], why: str
) -> None:
    async def work() -> None:
        async with LenderServer(tmp_path, text) as lender, Borrows(lender.url, **given) as borrows:
            grant = await borrows.ask(0.25)
            assert (grant.amount, grant.closed_by) == (0.0, LENDER)
            assert why in str(borrows.borrower.status()["message"])

    run(work)


def test_a_lender_that_is_none_or_counts_wrong_gives_nothing(tmp_path: Path) -> None:
    fine = {"amount": 0.0, "closed_by": "", "opens_in_s": 0.0, "per_hour": 1.0, "per_day": None}
    answers = [
        b"[]",
        b"{}",
        b"<html>",
        b'{"amount": 1e999}',
        # Too large for a float, which is another error than that of any other answer.
        b'{"amount": 1%s, "closed_by": "", "opens_in_s": 0, "per_hour": 1.0, "per_day": null}' % (b"0" * 400),
        *(
            str(fine | wrong).replace("'", '"').replace("None", "null").encode()
            for wrong in ({"amount": -1.0}, {"closed_by": "x"}, {"per_hour": "much"})
        ),
    ]

    async def work() -> None:
        body = b""

        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=body)

        app = web.Application()
        app.router.add_post("/v1/spend/lease", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        for body in answers:
            async with Borrows(f"http://127.0.0.1:{runner.addresses[0][1]}") as borrows:
                assert (await borrows.ask(0.25)).closed_by == LENDER, body
        # Never more than was asked for.
        body = b'{"amount": 9.0, "closed_by": "", "opens_in_s": 0, "per_hour": 1.0, "per_day": null}'
        async with Borrows(f"http://127.0.0.1:{runner.addresses[0][1]}") as borrows:
            await until(lambda: borrows.changes)
            assert (await borrows.ask(0.25)).amount == 0.25
        await runner.cleanup()

    run(work)


def test_a_lender_with_tls_is_checked_and_shown_a_certificate(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    server, client = ca.server(), ca.client()
    fine = b'{"amount": 0, "closed_by": "", "opens_in_s": 0, "per_hour": 1.0, "per_day": null}'

    async def work() -> None:
        async def answer(request: web.Request) -> web.Response:
            assert request.transport is not None
            assert request.transport.get_extra_info("peercert")
            return web.Response(body=fine)

        app = web.Application()
        app.router.add_post("/v1/spend/lease", answer)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca.ca_file)
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(server.certificate, server.key)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        shown = client_access(ca_file=ca.ca_file, certificate=client.certificate, key=client.key)
        async with Borrows(url, access=shown) as borrows:
            await until(lambda: borrows.borrower.status()["up"])
        async with Borrows(url) as borrows:
            assert (await borrows.ask(0.25)).closed_by == LENDER
        gone = ClientAccess(ca_file=tmp_path / "gone.pem")
        async with Borrows(url, access=gone) as borrows:
            assert (await borrows.ask(0.25)).closed_by == LENDER
        await runner.cleanup()

    run(work)


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": "much"},
        {"left": None},
        {"spent": True},
        {"name": "a b"},
        {"process": "x"},
        {"number": 0},
        {"number": 1.5},
        {"currency": 1},
        {"amount": 1e300},
    ],
)
def test_a_report_that_is_none_is_refused_with_its_key(tmp_path: Path, wrong: dict[str, object]) -> None:
    async def work() -> None:
        async with LenderServer(tmp_path) as lender:
            status, content = await lender.asked(REPORT | wrong)
            assert status == 400
            assert f"`{next(iter(wrong))}` of the report" in content["error"]
            assert (await lender.asked([1]))[0] == 400
            assert lender.rows() == []

    run(work)


def test_a_report_that_comes_twice_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with LenderServer(tmp_path) as lender:
            assert (await lender.asked(REPORT))[1] == {
                "amount": 0.25,
                "closed_by": "",
                "opens_in_s": 0.0,
                "per_hour": 1.0,
                "per_day": 8.0,
                "currency": "CNY",
            }
            assert (await lender.asked(REPORT))[0] == 409

    run(work)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[spend]\nfrom_name = "x"\n', "`from_name` in [spend] needs `from`"),
        ('[spend]\nfrom = "http://x:99999"\n', "`from` in [spend] has no host or port that can be reached"),
        ('[spend]\nfrom = "http://127.0.0.1:8600"\n', "`from` in [spend] is this daemon itself"),
        ('[spend]\nfrom = "http://x"\nfrom_ca_file = "x"\n', "`from_ca_file` in [spend] is for a daemon with https"),
        ('[spend]\nfrom = "https://x"\nfrom_client_key = "x"\n', "`from_client_key` in [spend] needs"),
        ('[spend]\nfrom = "http://x"\n' + TOKENS, "token spend has the scope spend, but this daemon borrows itself"),
        (TOKENS, "token spend has the scope spend, but [spend] has no cap to lend from"),
        ("[spend]\nper_day = 1\n" + TOKENS, "token spend has the scope spend, but there is no ledger to lend from"),
    ],
)
def test_contradictions_of_borrowed_money_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(text + MODEL)
    with pytest.raises(ConfigError) as error:
        load_config(path, {})
    assert sentence in str(error.value)


def test_borrowing_without_functions_has_no_use(tmp_path: Path) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text('[spend]\nfrom = "http://x"\n[edge]\n[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n')
    with pytest.raises(ConfigError, match="`from` in \\[spend\\] has no use without functions"):
        load_config(path, {})


def test_a_variable_overrides_the_key(tmp_path: Path) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(MODEL)
    assert load_config(path, {"EDGEBURST_SPEND__FROM": "http://x:1"}).spend.lender == "http://x:1"
