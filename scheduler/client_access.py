"""What this host shows servers as their client, the edge or a daemon: a token, and certificates for TLS."""

from __future__ import annotations

import argparse
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from scheduler.domain.errors import EdgeburstError

_TOKEN = re.compile(r"[!-~](?:[ -~]*[!-~])?")


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """A token and certificates; equal where their contents are, so that a renewed file shows."""

    token: str = field(default="", repr=False)
    """Bearer token; empty: none."""
    ca_file: Path | None = None
    """PEM file with the authorities that the server's certificate may be from; None: those of this host."""
    certificate: Path | None = None
    """PEM file with the client's own certificate; None: none."""
    key: Path | None = None
    """PEM file with its key; None: in the file of the certificate."""
    digest: str = field(default="", repr=False)
    """Of the contents of the files."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of each request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def cert(self) -> tuple[str, str] | str | None:
        """The certificate as the library `requests` takes it."""
        if self.certificate is None:
            return None
        return str(self.certificate) if self.key is None else (str(self.certificate), str(self.key))

    @property
    def verify(self) -> str | bool:
        """What the library `requests` checks servers with."""
        return True if self.ca_file is None else str(self.ca_file)

    def context(self) -> ssl.SSLContext | bool:
        """Returns what aiohttp checks servers with.

        Raises:
            EdgeburstError: a file cannot be read, or is not what it should be.
        """
        if self.ca_file is None and self.certificate is None:
            return True
        try:
            made = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError) as error:
            raise EdgeburstError(
                f"{self.ca_file} cannot be used ({_why(error)}); name a PEM file with certificates"
            ) from None
        if self.certificate is not None:
            try:
                made.load_cert_chain(self.certificate, self.key, password=_no_password)
            except (OSError, ValueError) as error:
                raise EdgeburstError(
                    f"the client's certificate in {self.certificate} and its key cannot be used ({_why(error)}); name"
                    " PEM files that belong together, the key without a password"
                ) from None
        return made


def stray_character(value: str) -> str:
    r"""Returns what a secret holds that cannot be sent, in words and never the secret; empty where it can be.

    >>> stray_character("abc\r"), stray_character(" abc"), stray_character("a b")
    ('a carriage return (CR)', 'a blank at an end', '')
    """
    names = {"\r": "a carriage return (CR)", "\n": "a line break", "\t": "a tab"}
    found = next((character for character in value if not " " <= character <= "~"), "")
    if found:
        return names.get(found, "a character that is no printed ASCII")
    return "" if value == value.strip() else "a blank at an end"


def client_access(
    *, token: str = "", ca_file: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ClientAccess:
    """Returns the access of a client, whose files can be read.

    Raises:
        EdgeburstError: a file cannot be read or used, or the token cannot be sent in a header.
    """
    if token and not _TOKEN.fullmatch(token):
        raise EdgeburstError("the token holds characters that a header cannot: it must be printed ASCII, in one line")
    digest = sha256()
    for path in (ca_file, certificate, key):
        if path is not None:
            try:
                digest.update(sha256(path.read_bytes()).digest())
            except OSError as error:
                raise EdgeburstError(
                    f"{path} cannot be read ({error.strerror}); name a file that may be read"
                ) from None
    made = ClientAccess(token, ca_file, certificate, key, digest.hexdigest())
    made.context()
    return made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a command that asks a server."""
    group = parser.add_argument_group("access to the server")
    group.add_argument("--token-env", metavar="NAME", help="environment variable with the token that is sent")
    group.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help="certificates that an https server's is from (default: this host's)",
    )
    group.add_argument("--client-certificate", type=Path, metavar="FILE", help="certificate to show to the server")
    group.add_argument(
        "--client-key", type=Path, metavar="FILE", help="its key (default: in the file of --client-certificate)"
    )


def of_arguments(args: argparse.Namespace, environ: Mapping[str, str]) -> ClientAccess:
    """Returns the access that a command's options describe.

    Raises:
        EdgeburstError: the variable is not set, or a file cannot be used.
    """
    token = environ.get(args.token_env, "") if args.token_env else ""
    if args.token_env and not token:
        raise EdgeburstError(
            f"environment variable {args.token_env[:64]} is not set; set it to the token, or leave out --token-env"
        )
    if stray := stray_character(token):
        raise EdgeburstError(
            f"environment variable {args.token_env[:64]} holds {stray}, which no header takes; set it without that"
        )
    if args.client_key is not None and args.client_certificate is None:
        raise EdgeburstError("--client-key needs --client-certificate")
    return client_access(token=token, ca_file=args.ca_file, certificate=args.client_certificate, key=args.client_key)


NO_ACCESS = ClientAccess()


def set_up(session: Any, access: ClientAccess) -> None:
    """Lets a session of the library `requests` show it; each of its calls must be given `verify`, too.

    A session's own `verify` gives way to the variable REQUESTS_CA_BUNDLE. As the daemon does, it goes through no proxy:
    edges and daemons are in the local network, where a proxy for the internet does not find them.
    """
    session.trust_env = False
    session.headers.update(access.headers)
    session.cert = access.cert


def _no_password() -> str:
    raise ValueError("a key with a password")


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else getattr(error, "strerror", None) or str(error)
