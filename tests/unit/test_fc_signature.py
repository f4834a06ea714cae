"""ACS3-HMAC-SHA256: what a second implementation signs is accepted, what was changed on the way is not."""

from __future__ import annotations

import hmac
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverless_fn.local_fc.errors import FcError
from serverless_fn.local_fc.signature import SignedRequest, verify

NOW = datetime(2026, 11, 21, 23, 12, 35, tzinfo=timezone.utc)
SECRETS = {"demo": "demo-secret"}


def sign(
    *,
    method: str = "POST",
    path: str = "/2023-03-30/functions/infer/invocations",
    query: tuple[tuple[str, str], ...] = (),
    body: bytes = b"payload",
    headers: tuple[tuple[str, str], ...] = (),
    secret: str = "demo-secret",
    leave_out: tuple[str, ...] = (),
    date: str = "2026-11-21T23:12:35Z",
) -> SignedRequest:
    """Sign as the document describes it: independent of the code under test, with the query given decoded."""
    digest = sha256(body).hexdigest()
    sent = {
        "host": "127.0.0.1:9000",
        "x-acs-version": "2023-03-30",
        "x-acs-action": "InvokeFunction",
        "x-acs-date": date,
        "x-acs-signature-nonce": "7f3803b33ec7a81f481169333d0f4dba",
        "x-acs-content-sha256": digest,
        **({"content-type": "application/octet-stream"} if body else {}),
        **dict(headers),
    }
    names = sorted(name for name in sent if name not in leave_out)
    unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
    percent = str.maketrans({chr(i): f"%{i:02X}" for i in range(128) if chr(i) not in unreserved})
    canonical_query = "&".join(f"{k.translate(percent)}={v.translate(percent)}" for k, v in sorted(query))
    canonical_headers = "".join(f"{name}:{sent[name].strip()}\n" for name in names)
    request = f"{method}\n{path}\n{canonical_query}\n{canonical_headers}\n{';'.join(names)}\n{digest}"
    to_sign = "ACS3-HMAC-SHA256\n" + sha256(request.encode()).hexdigest()
    signature = hmac.new(secret.encode(), to_sign.encode(), sha256).hexdigest()
    authorization = f"ACS3-HMAC-SHA256 Credential=demo,SignedHeaders={';'.join(names)},Signature={signature}"
    target = path + ("?" + "&".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in query) if query else "")
    mixed_case = tuple((name.title(), f" {value} ") for name, value in sent.items())
    received = (*mixed_case, ("Authorization", authorization), ("Accept-Encoding", "identity"), ("Content-Length", "7"))
    return SignedRequest(method, target, received, digest, has_body=bool(body))


def code(request: SignedRequest, now: datetime = NOW) -> str:
    """Return the code of the refusal."""
    with pytest.raises(FcError) as caught:
        verify(request, SECRETS, now)
    return caught.value.code


def without(request: SignedRequest, name: str) -> SignedRequest:
    return replace(request, headers=tuple(pair for pair in request.headers if pair[0].lower() != name))


def changed(request: SignedRequest, name: str, value: str) -> SignedRequest:
    return replace(request, headers=tuple((k, value if k.lower() == name else v) for k, v in request.headers))


def test_a_signed_request_names_its_key() -> None:
    assert verify(sign(), SECRETS, NOW) == "demo"


@given(
    query=st.dictionaries(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
        st.text(st.characters(max_codepoint=126)),
    ),
    headers=st.dictionaries(
        st.from_regex(r"x-[a-z]{1,8}", fullmatch=True).filter(lambda name: not name.startswith("x-acs")),
        st.text(st.characters(min_codepoint=33, max_codepoint=126)),
    ),
    body=st.binary(max_size=50),
)
def test_any_query_header_and_body_that_is_signed_is_accepted(
    query: dict[str, str], headers: dict[str, str], body: bytes
) -> None:
    assert verify(sign(query=tuple(query.items()), headers=tuple(headers.items()), body=body), SECRETS, NOW) == "demo"


def test_a_space_in_the_query_travels_as_plus_and_is_signed_as_percent_20() -> None:
    request = sign(query=(("qualifier", "a b*~"),))
    assert "a+b%2A" in request.target
    assert verify(request, SECRETS, NOW) == "demo"


@pytest.mark.parametrize(
    "tampered",
    [
        lambda r: replace(r, method="PUT"),
        lambda r: replace(r, target=r.target + "x"),
        lambda r: replace(r, target=r.target + "?qualifier=1"),
        lambda r: replace(r, body_sha256=sha256(b"other").hexdigest()),
        lambda r: changed(r, "x-acs-content-sha256", sha256(b"other").hexdigest()),
        lambda r: changed(r, "host", "elsewhere"),
        lambda r: changed(r, "x-acs-action", "DeleteFunction"),
        lambda r: changed(r, "x-acs-date", "2026-11-21T23:12:36Z"),
        lambda r: changed(r, "x-acs-date", "yesterday"),
        lambda r: changed(r, "content-type", "text/plain"),
        lambda r: changed(r, "authorization", "Basic abc"),
        lambda r: changed(r, "authorization", r.headers[-3][1].replace("Signature=", "Signature=0")),
        lambda r: replace(r, headers=(*r.headers, ("x-acs-security-token", "t"))),
        lambda r: replace(r, headers=(*r.headers, ("x-acs-action", "Twice"))),
        lambda r: without(r, "x-acs-action"),
    ],
)
def test_whatever_was_changed_on_the_way_is_refused(tampered: object) -> None:
    assert callable(tampered)
    assert code(tampered(sign())) == "SignatureNotMatch"


def test_another_secret_is_refused() -> None:
    assert code(sign(secret="wrong")) == "SignatureNotMatch"


def test_an_unknown_key_is_told_apart_from_a_wrong_secret() -> None:
    with pytest.raises(FcError, match="'demo' is not known"):
        verify(sign(), {"other": "demo-secret"}, NOW)


@pytest.mark.parametrize(
    "name", ["authorization", "host", "x-acs-date", "x-acs-content-sha256", "x-acs-signature-nonce"]
)
def test_a_missing_header_is_named(name: str) -> None:
    with pytest.raises(FcError, match=name) as caught:
        verify(without(sign(), name), SECRETS, NOW)
    assert (caught.value.status, caught.value.code) == (400, "MissingRequiredHeader")


@pytest.mark.parametrize("name", ["host", "x-acs-date", "x-acs-version", "content-type"])
def test_a_header_that_must_be_signed_may_not_be_left_out(name: str) -> None:
    assert code(sign(leave_out=(name,))) == "SignatureNotMatch"


def test_without_a_body_the_content_type_need_not_be_signed() -> None:
    request = sign(method="GET", body=b"")
    received = (*request.headers, ("Content-Type", "application/octet-stream"))
    assert verify(replace(request, headers=received), SECRETS, NOW) == "demo"


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_date_is_good_for_fifteen_minutes(minutes: int) -> None:
    assert verify(sign(), SECRETS, NOW + timedelta(minutes=minutes * 14 / 16)) == "demo"
    assert code(sign(), NOW + timedelta(minutes=minutes)) == "SignatureNotMatch"
