"""Verifies the provider's request signature, ACS3-HMAC-SHA256.

Source: the provider's "V3 request body and signature mechanism" (help.aliyun.com document_detail/159972), and the
requests of the Python SDK 4.8.3: it signs every header that it sets, and the request lists the signed headers.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlsplit

from serverless_fn.local_fc.errors import FcError

ALGORITHM = "ACS3-HMAC-SHA256"
_WINDOW = timedelta(minutes=15)
_REQUIRED = ("authorization", "host", "x-acs-date", "x-acs-content-sha256", "x-acs-signature-nonce")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """Request as it arrived.

    Attributes:
        method: POST, GET, ...
        target: path and query exactly as on the request line, percent-encoding untouched.
        headers: names and values in the order received.
        body_sha256: hexadecimal digest of the body.
        has_body: whether the body holds any byte.
    """

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body_sha256: str
    has_body: bool


def verify(request: SignedRequest, secrets: Mapping[str, str], now: datetime) -> str:
    """Returns the id of the access key that signed the request.

    Args:
        request: the request.
        secrets: access key secrets by access key id.
        now: the current time, with its zone.

    Raises:
        FcError: 400 MissingRequiredHeader, 403 InvalidAccessKeyID, or 403 SignatureNotMatch.
    """
    headers = _by_name(request.headers)
    for name in _REQUIRED:
        if name not in headers:
            raise FcError(400, "MissingRequiredHeader", f"header {name!r} is missing")
    credential, signed_names, signature = _authorization(headers["authorization"][0])
    if credential not in secrets:
        raise FcError(403, "InvalidAccessKeyID", f"access key {credential!r} is not known here")
    names = signed_names.split(";")
    if not _must_be_signed(headers, request.has_body) <= set(names) <= set(headers):
        raise _mismatch("SignedHeaders leaves out a header that must be signed, or names one that was not sent")
    if headers["x-acs-content-sha256"] != [request.body_sha256]:
        raise _mismatch("x-acs-content-sha256 is not the digest of the body")
    if abs(now - _date(headers["x-acs-date"][0])) > _WINDOW:
        raise _mismatch("x-acs-date is more than 15 minutes from this host's clock")
    wanted = _signature(request, headers, signed_names, secrets[credential])
    if not hmac.compare_digest(wanted, signature):
        raise _mismatch("the signature is not the one that this access key's secret gives")
    return credential


def canonical_request(
    *, method: str, target: str, headers: Mapping[str, Sequence[str]], signed_names: str, body_sha256: str
) -> str:
    """Returns the canonical request, whose digest is signed.

    Args:
        method: POST, GET, ...
        target: path and query as on the request line.
        headers: values by lower-case name.
        signed_names: the names of the signed headers, joined by ";".
        body_sha256: hexadecimal digest of the body.
    """
    url = urlsplit(target)
    # On the wire the query is form-encoded (space = "+"); signed is percent-encoding (space = "%20"), sorted.
    pairs = sorted(parse_qsl(url.query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
    lines = "".join(f"{name}:{','.join(sorted(headers[name]))}\n" for name in signed_names.split(";"))
    return "\n".join([method, url.path or "/", query, lines, signed_names, body_sha256])


def _signature(request: SignedRequest, headers: Mapping[str, Sequence[str]], signed_names: str, secret: str) -> str:
    text = canonical_request(
        method=request.method,
        target=request.target,
        headers=headers,
        signed_names=signed_names,
        body_sha256=request.body_sha256,
    )
    to_sign = f"{ALGORITHM}\n{sha256(text.encode()).hexdigest()}"
    return hmac.new(secret.encode(), to_sign.encode(), sha256).hexdigest()


def _by_name(headers: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value.strip())
    return found


def _authorization(value: str) -> tuple[str, str, str]:
    """Returns credential, SignedHeaders and signature."""
    algorithm, _, rest = value.partition(" ")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if algorithm != ALGORITHM or not {"Credential", "SignedHeaders", "Signature"} <= set(fields):
        raise _mismatch(f"the Authorization header is not {ALGORITHM} Credential=,SignedHeaders=,Signature=")
    return fields["Credential"], fields["SignedHeaders"], fields["Signature"]


def _must_be_signed(headers: Mapping[str, Sequence[str]], has_body: bool) -> set[str]:
    names = {name for name in headers if name.startswith("x-acs-")} | {"host"}
    # A GET of the asynchronous SDK has an unsigned content-type; without a body it does not matter.
    return names | ({"content-type"} & set(headers)) if has_body else names


def _date(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise _mismatch(f"x-acs-date is {text!r}, not of the form 2026-01-31T12:00:00Z") from None


def _mismatch(message: str) -> FcError:
    return FcError(403, "SignatureNotMatch", message)
