"""What `edgeburst check-config` says of access: by which ways the daemon is asked, and what a configuration lacks."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scheduler.daemon.admin_socket import socket_path
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.contradictions import is_loopback
from scheduler.daemon.config.credentials import edge_access, lender_access
from scheduler.daemon.config.edge_sections import EdgeSection
from scheduler.daemon.config.secrets import secret_of
from scheduler.daemon.ingress.access import known_hosts
from scheduler.daemon.server_tls import server_tls
from scheduler.domain.errors import ConfigError

_WILDCARDS = ("0.0.0.0", "::")


def access_summary(config: Config, environ: Mapping[str, str]) -> dict[str, Any]:
    """Returns which callers the daemon knows, as JSON shows it; no hash is among it."""
    path = socket_path(config, environ)
    return {
        "tokens": [
            {"name": token.name, "scopes": list(token.scopes), "tenant": token.tenant or None}
            for token in config.tokens
        ],
        "without_token": "infer and read" if config.daemon.open or not config.tokens else "nothing",
        "admin_socket": None if path is None else str(path),
        "tls": bool(config.daemon.certificate_file),
        "client_certificates": bool(config.daemon.client_ca_file),
        "hosts": sorted(known_hosts(config)),
    }


def access_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields the summary as lines."""
    kind = "TLS and certificates of clients" if found["client_certificates"] else "TLS" if found["tls"] else "no TLS"
    names = [f"{token['name']} ({', '.join(token['scopes'])})" for token in found["tokens"]]
    yield f"tokens       {'; '.join(names) or 'none'}; without a token: {found['without_token']}; {kind}"
    yield f"operators    over the socket {found['admin_socket'] or '(none)'}, or with a token that has the scope admin"


def access_warnings(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    """Yields what is valid but lacks something, also what an earlier version did not ask for."""
    name = config.daemon.admin_token_env
    admins = [token.name for token in config.tokens if "admin" in token.scopes]
    admin = secret_of(name, environ)
    socket = socket_path(config, environ)
    if name and not admin:
        yield f"environment variable {name} is not set, so that no token in it is known; set it"
    if socket is None and not admins and not admin:
        yield (
            "limits and identities cannot be set: there is neither a socket nor a token with the scope admin, and being"
            " on this host is not enough; set `admin_socket` or `state` in [daemon], or `admin_token_env`"
        )
    yield from _tls(config)
    for edge in config.edges:
        yield from _edge(config, edge, environ)
    if config.spend.lender:
        yield from _lender(config, environ)
    if config.daemon.host in _WILDCARDS and not config.daemon.hosts:
        names = ", ".join(sorted(known_hosts(config) - set(_WILDCARDS)))
        yield (
            f"clients may call the daemon by its addresses and as {names}; requests by other names get 421: list them"
            " in `hosts` of [daemon]"
        )


def _tls(config: Config) -> Iterator[str]:
    try:
        server_tls(config)
    except ConfigError as error:
        yield str(error)
    reached = [section for section in (config.daemon, config.grpc) if section and not is_loopback(section.host)]
    if config.tokens and reached and not config.daemon.certificate_file:
        yield "tokens cross the network unencrypted; set `certificate_file` in [daemon], or put a TLS proxy in front"
    # Where no file is named for a key, it is in that of the certificate.
    files = [
        config.daemon_file("key_file") or config.daemon_file("certificate_file"),
        *(
            config.edge_file(edge, "client_key") or config.edge_file(edge, "client_certificate")
            for edge in config.edges
        ),
        config.spend_file("from_client_key") or config.spend_file("from_client_certificate"),
        config.access_key_file(),
    ]
    for path in dict.fromkeys(files):
        if path is not None and _others_read(path):
            yield f"{path} can be read by every user of this host; run: chmod 600 {path}"


def _edge(config: Config, edge: EdgeSection, environ: Mapping[str, str]) -> Iterator[str]:
    try:
        edge_access(config, edge, environ)
    except ConfigError as error:
        yield str(error)
    split = urlsplit(edge.url)
    if split.hostname and not is_loopback(split.hostname):
        if not edge.token_env and not edge.client_certificate:
            yield (
                f"the edge at {edge.url} is asked without a token, which our edge server refuses unless it is"
                f" started with --open; set `token_env` in {config.edge_table(edge)}"
            )
        elif edge.token_env and split.scheme == "http":
            yield f"the token of the edge at {edge.url} crosses the network unencrypted; use https"


def _lender(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    try:
        lender_access(config, environ)
    except ConfigError as error:
        yield str(error)
    spend, split = config.spend, urlsplit(config.spend.lender)
    if not spend.from_token_env:
        yield (
            f"the daemon at {spend.lender} lends nothing without a token that has the scope spend; set `from_token_env`"
            " in [spend]"
        )
    elif split.scheme == "http" and split.hostname and not is_loopback(split.hostname):
        yield f"the token of the daemon at {spend.lender} crosses the network unencrypted; use https"


def _others_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
