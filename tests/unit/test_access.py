"""Callers are known by their tokens alone: what each may do, how often, for which tenant; no message has a secret."""

from __future__ import annotations

import re
import ssl
from hashlib import sha256
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.certificates import Authority

from scheduler import cli
from scheduler.client_access import client_access
from scheduler.daemon.access_check import access_warnings
from scheduler.daemon.admin_socket import socket_path
from scheduler.daemon.calls import InferenceCall
from scheduler.daemon.config.config import load_config
from scheduler.daemon.config.secrets import secret_of
from scheduler.daemon.http.admission import check_host, check_origin, host_name, wanted_scopes
from scheduler.daemon.ingress import access as module
from scheduler.daemon.ingress.access import ALL, WITHOUT_TOKEN, Access, Caller, Scope, Token, bearer_of, tokens_of
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.server_tls import server_tls
from scheduler.domain.errors import ConfigError, EdgeburstError

MODEL = '[edge]\n[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n'
INFER, READ, ADMIN = frozenset({Scope.INFER}), frozenset({Scope.READ}), frozenset({Scope.ADMIN})
SECRET = "open-sesame-4711"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def token(name: str, secret: str = SECRET, **changes: object) -> Token:
    return Token(name, sha256(secret.encode()).digest(), **changes)  # type: ignore[arg-type]


def access(*tokens: Token, is_open: bool = False, clock: Clock | None = None) -> Access:
    made = Access(clock or Clock())
    made.configure(tokens, is_open=is_open)
    return made


def call(tenant: str = "") -> InferenceCall:
    return InferenceCall("m", (), items=1, body_bytes=0, received_at_s=0.0, tenant=tenant)


def refused(work: object) -> Rejected:
    with pytest.raises(Rejected) as caught:
        work()  # type: ignore[operator]
    return caught.value


class TestHeader:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ([], None),
            (["Bearer abc"], "abc"),
            (["bEaReR \t abc  "], "abc"),
            (["Bearer several words are one token"], "several words are one token"),
            (["Basic eDp5"], None),
            (["Digest username=x"], None),
        ],
    )
    def test_a_bearer_token_is_read(self, given: list[str], expected: str | None) -> None:
        assert bearer_of(given) == expected

    @pytest.mark.parametrize(
        "given", [["Bearer"], ["Bearer "], [""], ["Bearer a\x00b"], ["Bearer " + "a" * 513], ["Bearer a", "Bearer a"]]
    )
    def test_what_is_no_token_is_refused_with_a_challenge(self, given: list[str]) -> None:
        error = refused(lambda: bearer_of(given))
        assert error.status == 401
        assert error.headers["WWW-Authenticate"].startswith("Bearer")

    @given(st.lists(st.text(max_size=40) | st.from_regex(r"[Bb]earer .{0,30}", fullmatch=True), max_size=3))
    def test_whatever_is_sent_gives_a_token_nothing_or_one_sentence(self, given: list[str]) -> None:
        known = access(token("a"), is_open=True)
        error = None
        try:
            caller = known.caller(given, peer="192.0.2.1")
        except Rejected as met:
            error = met
        if error is None:
            assert (caller.token, caller.scopes) == ("", WITHOUT_TOKEN), "no drawn text is the secret"
        else:
            assert (error.status, "\n" in str(error)) == (401, False)
            assert not any(len(each) > 8 and each in str(error) for each in given)

    @given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60))
    def test_each_token_of_printed_characters_is_taken_as_it_is(self, secret: str) -> None:
        assert access(token("a", secret)).caller([f"Bearer {secret}"], peer="").token == "a"


class TestCaller:
    def test_a_wrong_or_missing_token_is_401_and_a_lacking_scope_403(self) -> None:
        known = access(token("camera"))
        wrong = refused(lambda: known.caller([f"Bearer {SECRET}x"], peer="127.0.0.1"))
        assert (wrong.status, SECRET in str(wrong)) == (401, False)
        missing = refused(lambda: known.caller([], peer="127.0.0.1").check(INFER))
        assert (missing.status, missing.headers["WWW-Authenticate"]) == (401, "Bearer")
        caller = known.caller([f"Bearer {SECRET}"], peer="127.0.0.1")
        caller.check(INFER)
        lacking = refused(lambda: caller.check(READ))
        assert (lacking.status, "token camera lacks the scope read" in str(lacking)) == (403, True)

    def test_admin_stands_for_everything(self) -> None:
        caller = access(token("root", scopes=ADMIN)).caller([f"Bearer {SECRET}"], peer="")
        for wanted in (INFER, READ, ADMIN, INFER | READ, frozenset()):
            caller.check(wanted)
        assert caller.sees is None

    def test_without_tokens_loopback_asks_and_reads_and_sets_nothing(self) -> None:
        known = access(is_open=True)
        caller = known.caller(["Basic eDp5"], peer="127.0.0.1")
        caller.check(INFER)
        caller.check(READ)
        assert "admin_socket" in str(refused(lambda: caller.check(ADMIN)))
        assert (caller.key, caller.sees) == ("peer 127.0.0.1", "")

    def test_the_socket_s_caller_may_do_everything(self) -> None:
        assert (Access.operator().scopes, Access.operator().key, Access.operator().sees) == (ALL, "socket", None)

    def test_shares_are_by_token_else_by_address(self) -> None:
        assert Caller("192.0.2.1", "lab").key == Caller("192.0.2.9", "lab").key == "token lab"
        assert Caller("192.0.2.1").key != Caller("192.0.2.9").key

    def test_every_hash_is_compared_in_constant_time(self) -> None:
        known = access(*(token(f"t{n}", f"secret-{n}") for n in range(5)))
        with mock.patch.object(module.hmac, "compare_digest", wraps=module.hmac.compare_digest) as compared:
            assert known.caller(["Bearer secret-0"], peer="").token == "t0"
        assert compared.call_count == 5

    def test_repr_shows_no_hash(self) -> None:
        assert sha256(SECRET.encode()).hexdigest() not in repr(token("a"))
        assert "sha256" not in repr(token("a"))


class TestTenant:
    def test_the_token_s_tenant_counts_whatever_the_request_names(self) -> None:
        known = access(token("camera", tenant="lab"), token("gateway", "other"))
        caller = known.caller([f"Bearer {SECRET}"], peer="")
        for named in ("", "ward", "lab"):
            found = known.of_caller(caller, call(named))
            assert (found.tenant, found.owner) == ("lab", "camera")

    def test_a_tenant_with_a_token_is_named_by_that_token_only(self) -> None:
        known = access(token("camera", tenant="lab"), token("gateway", "other"), is_open=True)
        for caller in (known.caller(["Bearer other"], peer=""), known.caller([], peer="")):
            assert known.of_caller(caller, call("ward")).tenant == "ward"
            error = refused(lambda caller=caller: known.of_caller(caller, call("lab")))
            assert (error.status, "tenant lab has a token of its own" in str(error)) == (403, True)


class TestTurn:
    def test_the_rate_lets_a_second_s_worth_through_at_once_and_says_when_to_come_again(self) -> None:
        clock = Clock()
        known = access(token("a", rate_rps=4.0), clock=clock)
        caller = known.caller([f"Bearer {SECRET}"], peer="")

        def one() -> None:
            with known.turn(caller):
                pass

        for _ in range(4):
            one()
        error = refused(one)
        assert (error.status, error.headers["Retry-After"]) == (429, "1")
        clock.now_s += 0.25
        one()
        refused(one)

    @given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.floats(0.1, 20))
    def test_over_any_time_no_more_pass_than_the_rate_and_one_burst(self, gaps_s: list[float], rate_rps: float) -> None:
        clock = Clock()
        known = access(token("a", rate_rps=rate_rps), clock=clock)
        caller, passed = known.caller([f"Bearer {SECRET}"], peer=""), 0
        for gap_s in gaps_s:
            clock.now_s += gap_s
            try:
                with known.turn(caller):
                    passed += 1
            except Rejected:
                continue
        assert passed <= max(1.0, rate_rps) + sum(gaps_s) * rate_rps + 1e-6
        assert passed >= 1

    def test_a_slow_rate_says_how_long(self) -> None:
        known = access(token("a", rate_rps=0.1))
        caller = known.caller([f"Bearer {SECRET}"], peer="")
        with known.turn(caller):
            pass
        assert refused(lambda: known.turn(caller).__enter__()).headers["Retry-After"] == "10"

    def test_concurrency_counts_those_that_are_not_answered(self) -> None:
        known = access(token("a", concurrency=2))
        caller = known.caller([f"Bearer {SECRET}"], peer="")
        with known.turn(caller):
            with known.turn(caller):
                assert refused(lambda: known.turn(caller).__enter__()).status == 429
            with pytest.raises(ValueError, match="of the work"), known.turn(caller):
                raise ValueError("of the work")
        with known.turn(caller), known.turn(caller):
            pass

    def test_a_reload_keeps_what_is_used_and_forgets_tokens_that_went(self) -> None:
        known = access(token("a", concurrency=1))
        caller = known.caller([f"Bearer {SECRET}"], peer="")
        with known.turn(caller):
            known.configure([token("a", concurrency=1)], is_open=False)
            assert refused(lambda: known.turn(caller).__enter__()).status == 429
            known.configure([], is_open=True)
        with known.turn(caller):
            pass


class TestHost:
    @pytest.mark.parametrize(
        ("host", "fine"),
        [
            ("127.0.0.1:8600", True),
            ("localhost", True),
            ("LOCALHOST.:80", True),
            ("[::1]:8600", True),
            ("edge.local:8600", True),
            ("evil.example", False),
            ("evil.example:8600", False),
            ("127.0.0.1.evil.example", False),
            ("localhost@evil.example", False),
            ("192.0.2.7", False),
            ("", False),
            ("[::1", False),
        ],
    )
    def test_only_names_of_this_host_are_answered(self, host: str, fine: bool) -> None:
        if fine:
            check_host(host, {"edge.local"}, asked_address="")
        else:
            assert refused(lambda: check_host(host, {"edge.local"}, asked_address="")).status == 421
            check_host(host, {"*"}, asked_address="")

    def test_a_request_of_http_1_0_needs_none(self) -> None:
        check_host(None, (), asked_address="")

    @given(st.text(max_size=60))
    def test_whatever_is_sent_is_a_name_or_none(self, text: str) -> None:
        name = host_name(text)
        assert name is None or (name == name.lower() and name and not re.search(r"[\s/@\\]", name))

    @pytest.mark.parametrize(
        ("origin", "fine"),
        [
            ("http://localhost:8600", True),
            ("https://localhost:8600", True),
            ("https://shop.example", True),
            ("http://localhost:3000", False),
            ("https://evil.example", False),
            ("null", False),
            ("", False),
        ],
    )
    def test_only_pages_that_are_let_in_ask(self, origin: str, fine: bool) -> None:
        if fine:
            check_origin(origin, "localhost:8600", ["https://shop.example"])
        else:
            assert refused(lambda: check_origin(origin, "localhost:8600", ["https://shop.example"])).status == 403


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v2/models/digits/infer", INFER),
        ("POST", "/v1/classify/digits", INFER),
        ("GET", "/v2/models/digits", INFER | READ),
        ("GET", "/v1/explain/7", INFER | READ),
        ("GET", "/v1/status", READ),
        ("GET", "/v1/batches", READ),
        ("GET", "/metrics", READ),
        ("GET", "/v1/models/digits/limits", READ),
        ("PUT", "/v1/models/digits/limits", ADMIN),
        ("PUT", "/v1/models/digits/identity", ADMIN),
        ("DELETE", "/v2/health/live", ADMIN),
        ("GET", "/v2/health/live", frozenset()),
        ("GET", "/", frozenset()),
        ("GET", "/no/such/path", INFER | READ),
    ],
)
def test_each_path_has_its_scope(method: str, path: str, expected: frozenset[Scope]) -> None:
    assert wanted_scopes(method, path) == expected


class TestConfiguration:
    def load(self, folder: Path, text: str, environ: dict[str, str] | None = None) -> Access:
        path = folder / "edgeburst.toml"
        path.write_text(text + MODEL)
        config = load_config(path, environ or {})
        return access(*tokens_of(config, environ or {}), is_open=config.daemon.open or not config.tokens)

    def made(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
        """A new token, and its table."""
        assert cli.main(["token", "new", *arguments]) == 0
        said, _, table = capsys.readouterr().out.partition("\n\n")
        return said.rpartition(": ")[2], table

    def test_what_the_command_prints_is_known_by_its_hash_alone(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        limits = ("--tenant", "ward", "--rate-rps", "50", "--concurrency", "3")
        secret, table = self.made(capsys, "lab", "--scopes", "infer,read", *limits)
        assert len(secret) >= 43
        assert secret not in table
        caller = self.load(tmp_path, table).caller([f"Bearer {secret}"], peer="192.0.2.1")
        assert caller == Caller("192.0.2.1", "lab", INFER | READ, "ward")
        other, _ = self.made(capsys, "lab")
        assert other != secret

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["a b"], "the name 'a b'"),
            (["a", "--scopes", "infer,root"], "scope 'root' is unknown"),
            (["a", "--rate-rps", "0"], "--rate-rps must be above 0"),
            (["a", "--concurrency", "-1"], "--concurrency must be above 0"),
            (["a", "--tenant", '"'], "the tenant"),
        ],
    )
    def test_wrong_arguments_get_one_sentence(
        self, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["token", "new", *arguments]) == 2
        assert sentence in capsys.readouterr().err

    def test_a_token_in_the_place_of_its_hash_is_refused_and_not_shown(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r":3: `sha256` in \[\[token\]\] must be the SHA-256") as caught:
            self.load(tmp_path, f'[[token]]\nname = "a"\nsha256 = "{SECRET}"\n')
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("{a}\n{a}", "token name a occurs twice"),
            ('{a}\n[[token]]\nname = "b"\nsha256 = "{h}"', "has the hash of another one"),
            ('[[tenant]]\nname = "lab"\n{a}\ntenant = "ward"', "is not in a"),
            ('[daemon]\nadmin_token_env = "X"\n[[token]]\nname = "admin"\nsha256 = "{h}"', "rename one"),
            ("{a}\nscopes = []", "has too few entries"),
            ('{a}\nscopes = ["root"]', "must be 'infer', 'read', 'spend' or 'admin'"),
            ('[daemon]\nhost = "0.0.0.0"', "there is no"),
            ('[daemon]\nhost = "::"\nadmin_token_env = "X"', "there is no"),
            ('[grpc]\nhost = "192.0.2.1"', r"`host` in \[grpc\] lets other hosts ask"),
            ('[daemon]\nhosts = ["http://x"]', "`hosts`"),
        ],
    )
    def test_contradictions_are_named(self, tmp_path: Path, text: str, sentence: str) -> None:
        table = '[[token]]\nname = "a"\nsha256 = "{h}"'
        with pytest.raises(ConfigError, match=sentence):
            self.load(tmp_path, text.replace("{a}", table).replace("{h}", "0" * 64) + "\n")

    @pytest.mark.parametrize(
        "text",
        [
            '[daemon]\nhost = "0.0.0.0"\nopen = true\n',
            f'[daemon]\nhost = "::"\n[[token]]\nname = "a"\nsha256 = "{"0" * 64}"\n',
            '[daemon]\nhost = "localhost"\n[grpc]\nhost = "::1"\n',
        ],
    )
    def test_listeners_that_are_meant_to_be_so_are_fine(self, tmp_path: Path, text: str) -> None:
        self.load(tmp_path, text)

    def test_a_daemon_s_certificates_are_read_or_refused_with_the_key_s_line(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        server, other = authority.server("a"), authority.server("b")
        (tmp_path / "empty").write_text("")
        cases = (
            (server.key, authority.ca_file, ""),
            (other.key, authority.ca_file, ":5: .*belong together"),
            (tmp_path / "missing", authority.ca_file, ":5: .*missing cannot be read"),
            (tmp_path / "empty", authority.ca_file, ":5: .*cannot be used"),
            (server.key, tmp_path / "empty", ":6: .*empty cannot be used"),
        )
        for key, authorities, sentence in cases:
            path = tmp_path / "edgeburst.toml"
            path.write_text(
                f'[grpc]\nport = 0\n[daemon]\ncertificate_file = "a.pem"\nkey_file = "{key}"\n'
                f'client_ca_file = "{authorities}"\n{MODEL}'
            )
            config = load_config(path, {})
            if sentence:
                with pytest.raises(ConfigError, match=sentence):
                    server_tls(config)
            else:
                found = server_tls(config)
                assert found is not None
                assert found.http.verify_mode is found.grpc.verify_mode is ssl.CERT_REQUIRED
                assert found.http.minimum_version is ssl.TLSVersion.TLSv1_2

    def test_files_without_a_folder_may_be_systemd_s_credentials(self, tmp_path: Path) -> None:
        passed = tmp_path / "credentials"
        passed.mkdir()
        server = Authority(passed).server("a")
        path = tmp_path / "edgeburst.toml"
        path.write_text(f'[daemon]\ncertificate_file = "{server.certificate.name}"\nkey_file = "a.key"\n{MODEL}')
        assert server_tls(load_config(path, {"CREDENTIALS_DIRECTORY": str(passed)})) is not None
        with pytest.raises(ConfigError, match="cannot be read"):
            server_tls(load_config(path, {}))

    @pytest.mark.parametrize(
        ("lines", "environ", "expected"),
        [
            ("", {}, None),
            ('state = "kept"', {}, "kept/admin.sock"),
            ('state = "kept"', {"RUNTIME_DIRECTORY": "/run/edgeburst"}, "/run/edgeburst/admin.sock"),
            ('admin_socket = "own.sock"', {"RUNTIME_DIRECTORY": "/run/edgeburst"}, "own.sock"),
            ('state = "kept"\nadmin_socket = "off"', {"RUNTIME_DIRECTORY": "/run/edgeburst"}, None),
        ],
    )
    def test_where_the_operators_socket_is(
        self, tmp_path: Path, lines: str, environ: dict[str, str], expected: str | None
    ) -> None:
        path = tmp_path / "edgeburst.toml"
        path.write_text(f"[daemon]\n{lines}\n{MODEL}")
        found = socket_path(load_config(path, environ), environ)
        assert found == (None if expected is None else tmp_path / expected)

    def test_check_config_names_what_an_old_configuration_lacks(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        authority = Authority(tmp_path)
        server = authority.server("a")
        server.key.chmod(0o644)
        path = tmp_path / "edgeburst.toml"
        path.write_text(
            '[daemon]\nhost = "0.0.0.0"\nopen = true\nadmin_token_env = "NO_SUCH_TOKEN"\n'
            'certificate_file = "a.pem"\nkey_file = "a.key"\n'
            + MODEL.replace("[edge]\n", '[edge]\nurl = "http://192.0.2.1:8700"\n')
        )
        assert cli.main(["check-config", "--config", str(path)]) == 0
        said = capsys.readouterr().out
        for sentence in (
            "environment variable NO_SUCH_TOKEN is not set",
            "limits and identities cannot be set",
            "a.key can be read by every user of this host; run: chmod 600",
            "the edge at http://192.0.2.1:8700 is asked without a token",
            "requests by other names get 421",
            "tokens       none; without a token: infer and read; TLS",
        ):
            assert sentence in said

    @pytest.mark.parametrize("inside", [False, True])
    def test_check_config_names_each_private_key_that_all_users_can_read(self, tmp_path: Path, inside: bool) -> None:
        authority, lines = Authority(tmp_path), {}
        certified = {name: authority.client(name) for name in ("own", "edge", "lender")}
        keys = {
            "own": ("certificate_file", "key_file"),
            "edge": ("client_certificate", "client_key"),
            "lender": ("from_client_certificate", "from_client_key"),
        }
        for name, (certificate, key) in keys.items():
            lines[name] = f'{certificate} = "{name}.pem"\n'
            certified[name].certificate.chmod(0o644)
            if inside:
                with certified[name].certificate.open("ab") as file:
                    file.write(certified[name].key.read_bytes())
            else:
                certified[name].key.chmod(0o644)
                lines[name] += f'{key} = "{name}.key"\n'
        path = tmp_path / "edgeburst.toml"
        path.write_text(
            f'[daemon]\n{lines["own"]}[spend]\nfrom = "https://127.0.0.1:8601"\n{lines["lender"]}[function]\n'
            + MODEL.replace("[edge]\n", f'[edge]\nurl = "https://127.0.0.1:8700"\n{lines["edge"]}')
        )
        suffix = "pem" if inside else "key"
        said = [line for line in access_warnings(load_config(path, {}), {}) if "every user" in line]
        assert [line.partition(" ")[0] for line in said] == [str(tmp_path / f"{name}.{suffix}") for name in keys]

    def test_a_client_s_files_are_read_or_named(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        mine, other = authority.client("a"), authority.client("b")
        access = client_access(token=SECRET, ca_file=authority.ca_file, certificate=mine.certificate, key=mine.key)
        assert isinstance(access.context(), ssl.SSLContext)
        assert SECRET not in repr(access)
        files = {"ca_file": authority.ca_file, "certificate": mine.certificate, "key": mine.key}
        assert access == client_access(token=SECRET, **files)
        assert access != client_access(token="other", **files)
        mine.key.write_bytes(mine.key.read_bytes() + b"\n")
        assert access != client_access(token=SECRET, **files), "a renewed file shows"
        with pytest.raises(EdgeburstError, match="belong together"):
            client_access(certificate=mine.certificate, key=other.key)
        with pytest.raises(EdgeburstError, match="none.pem cannot be read"):
            client_access(ca_file=tmp_path / "none.pem")
        with pytest.raises(EdgeburstError, match="the token holds characters"):
            client_access(token="a\nb")

    def test_the_admin_token_opens_nothing_else_to_be_without_one(self, tmp_path: Path) -> None:
        known = self.load(tmp_path, '[daemon]\nadmin_token_env = "OPERATOR"\n', {"OPERATOR": SECRET})
        assert known.caller([f"Bearer {SECRET}"], peer="").scopes == ALL
        known.caller([], peer="127.0.0.1").check(INFER)

    def test_secrets_come_from_variables_or_systemd_s_credentials(self, tmp_path: Path) -> None:
        (tmp_path / "OPERATOR").write_text(f"{SECRET}\n")
        passed = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
        assert secret_of("OPERATOR", passed) == SECRET
        assert secret_of("OPERATOR", {**passed, "OPERATOR": "mine"}) == "mine"
        assert secret_of("OTHER", passed) == secret_of("OPERATOR", {}) == ""
