"""The certificates of the daemon's listeners: read at the start and at each reload, for HTTP and for gRPC."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from scheduler.daemon.config.config import Config

HANDSHAKE_LIMIT_S = 10.0
"""Longest that a client may take to agree on keys; until then its connection is counted nowhere."""
_HTTP, _GRPC = ("http/1.1",), ("h2",)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What the listeners encrypt with."""

    http: ssl.SSLContext
    grpc: ssl.SSLContext


def server_tls(config: Config) -> ServerTls | None:
    """Reads the certificates of `[daemon]`; returns None where it names none.

    Raises:
        ConfigError: a file cannot be read, or certificate and key do not belong together.
    """
    if not config.daemon.certificate_file:
        return None
    return ServerTls(_context(config, _HTTP), _context(config, _GRPC))


def _context(config: Config, protocols: tuple[str, ...]) -> ssl.SSLContext:
    certificate, key = config.daemon_file("certificate_file"), config.daemon_file("key_file")
    authorities = config.daemon_file("client_ca_file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(protocols)
    assert certificate is not None
    at = "key_file" if key is not None else "certificate_file"
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        # Of OpenSSL's words only the reason: no path, no line.
        sentence = (
            f"the certificate in {certificate} and its key cannot be used ({_reason(error)}); name PEM files that"
        )
        raise config.error(("daemon", at), f"{sentence} belong together, the key without a password") from None
    except (OSError, ValueError) as error:
        unread = key if key is not None and _unreadable(key) else certificate
        why = getattr(error, "strerror", None) or "it has a password"
        raise config.error(
            ("daemon", at), f"{unread} cannot be read ({why}); name a file that the daemon may read"
        ) from None
    if authorities is not None:
        _trust(context, config, authorities)
    return context


def _trust(context: ssl.SSLContext, config: Config, authorities: Path) -> None:
    """Lets a listener accept only clients with a certificate of these authorities."""
    try:
        context.load_verify_locations(authorities)
    except (OSError, ValueError) as error:
        why = _reason(error) if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None) or "no PEM"
        raise config.error(
            ("daemon", "client_ca_file"), f"{authorities} cannot be used ({why}); name a PEM file with certificates"
        ) from None
    context.verify_mode = ssl.CERT_REQUIRED


def _unreadable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return False
    except OSError:
        return True


def _no_password() -> str:
    """Is asked for the password of a key, which would otherwise be asked for at a terminal."""
    raise ValueError("a key with a password")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "no PEM").replace("_", " ").lower()
