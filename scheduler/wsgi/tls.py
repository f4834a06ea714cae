"""TLS of a server, by the standard library: its certificate and key, and the authorities of clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


class TlsError(Exception):
    """Error: the files cannot be used; the message names the one, and what to do."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files of PEM.

    Attributes:
        certificate: the server's, followed by those between it and its authority.
        key: its private key, without a passphrase.
        client_ca: authorities whose certificates clients must have; None: clients need none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Reads the files.

        Raises:
            TlsError: one is missing or is not what it should be.
        """
        for path, what in ((self.certificate, "certificate"), (self.key, "key"), (self.client_ca, "client CA")):
            if path is not None:
                _check_readable(path, what)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without this, OpenSSL asks for a passphrase on the terminal.
            context.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(
                f"the certificate {self.certificate} and the key {self.key} cannot be used together"
                f" ({_words(error)}): both must be PEM, of the same key, and the key without a passphrase"
            ) from None
        if self.client_ca is not None:
            try:
                context.load_verify_locations(cafile=self.client_ca)
            except ssl.SSLError as error:
                raise TlsError(f"the client CA {self.client_ca} holds no certificate ({_words(error)})") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _check_readable(path: Path, what: str) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise TlsError(f"the {what} {path} cannot be read: {error.strerror or error}") from None


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")


def _words(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
