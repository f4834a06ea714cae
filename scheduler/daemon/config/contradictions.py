"""Contradictions between keys of a configuration that are valid each by itself."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from models import catalogue, toml_lines
from models.card import ROWS_SUFFIX
from scheduler.daemon.config.borrowing import borrowing
from scheduler.daemon.config.model_sections import ModelSection
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.tenants import OTHER
from scheduler.estimators.package_changepoint import package_detectors

if TYPE_CHECKING:
    from scheduler.daemon.config.config import Config

ADMIN_TOKEN = "admin"
"""Name of the token in `admin_token_env`."""

Found = Iterator[tuple[toml_lines.KeyPath, str]]
"""Paths of keys, and a sentence about each."""


def contradictions(config: Config) -> Found:
    """Yields the path of each contradiction between valid keys, and a sentence about it."""
    if config.grpc is not None and not _installed("grpc", "google.protobuf"):
        yield (
            ("grpc",),
            "[grpc] needs the packages grpcio and protobuf; run: pip install 'edgeburst[grpc]', or remove the table",
        )
    if config.engine.changepoints == "package":
        try:
            package_detectors()
        except EdgeburstError as error:
            yield ("engine", "changepoints"), str(error)
    if config.otel is not None and not _installed("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        yield ("otel",), "[otel] needs OpenTelemetry's packages; install them: pip install 'edgeburst[otel]'"
    file = config.explain_file()
    if file is not None and (_is_folder(file) or _is_folder(file.parent) is False):
        wrong = f"{file} is a folder" if _is_folder(file) else f"there is no folder {file.parent}"
        yield ("explain", "file"), f"`file` in [explain] cannot be written: {wrong}; create the folder or name a file"
    folder, record = config.record_folder(), config.record
    if folder is not None and _is_folder(folder) is False and folder.exists():
        yield ("record", "folder"), f"`folder` in [record] cannot be used: {folder} is a file; name a folder"
    if record.keep_bytes < 2 * record.max_bytes:
        yield (
            ("record", "keep_bytes"),
            f"`keep_bytes` in [record] must be at least twice `max_bytes`, which is {record.max_bytes}",
        )
    yield from _urls(config)
    yield from _open_listeners(config)
    yield from _incomplete(config)
    yield from _edges(config)
    yield from _tenants(config)
    yield from _tokens(config)
    yield from borrowing(config)
    yield from _twice("model", ("model",), [model.name for model in config.models])
    names = [model.name for model in config.models]
    for name in config.deploy.traffic if config.deploy else ():
        if name not in names:
            yield ("deploy", "traffic"), f"[deploy.traffic.{name}] names no model; name one of {', '.join(names)}"
    for index, model in enumerate(config.models):
        at = ("model", index)
        yield from _twice("class", (*at, "class"), [section.name for section in model.classes])
        yield from _twice("tier", (*at, "tier"), [tier.name for tier in model.tiers])
        yield from _unserved(config, model, at)
        yield from _undescribed(model, at)
        if model.default_priority > model.priority_levels:
            yield (
                (*at, "default_priority"),
                f"`default_priority` of model {model.name} must be at most its `priority_levels`,"
                f" which is {model.priority_levels}",
            )


def _is_folder(path: Path) -> bool | None:
    """Returns whether a folder is there; None: this user may not look, as the daemon's own may."""
    try:
        return path.is_dir()
    except PermissionError:
        return None


def _installed(*packages: str) -> bool:
    """Returns whether packages are there; imports only the packages that they are in."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in packages)
    except ModuleNotFoundError:
        return False  # the outer package is missing


def _tenants(config: Config) -> Found:
    yield from _twice("tenant", ("tenant",), [tenant.name for tenant in config.tenants])
    for index, tenant in enumerate(config.tenants):
        if tenant.name == OTHER:
            yield (
                ("tenant", index, "name"),
                f"the tenant name {OTHER} stands for all that are not configured; choose another one",
            )


def _open_listeners(config: Config) -> Found:
    """Yields the listeners that other hosts reach, where callers need no token and the file does not say so."""
    if config.tokens or config.daemon.open:
        return
    for table, section in (("daemon", config.daemon), ("grpc", config.grpc)):
        if section is not None and not is_loopback(section.host):
            yield (table, "host"), unasked(f"`host` in [{table}]")
    read = config.daemon.read_address
    if read is not None and not is_loopback(read[0]):
        yield ("daemon", "read_listen"), unasked("`read_listen` in [daemon]")


def _urls(config: Config) -> Found:
    """Yields the URLs that no client can split into host and port."""
    given: list[tuple[toml_lines.KeyPath, str, str]] = [
        ((*config.edge_at(edge), "url"), config.edge_table(edge), edge.url) for edge in config.edges
    ]
    if config.spend.lender:
        given.append((("spend", "from"), "[spend]", config.spend.lender))
    if config.otel is not None:
        given.append((("otel", "endpoint"), "[otel]", config.otel.endpoint))
    for at, table, url in given:
        try:
            split = urlsplit(url)
            sound = bool(split.hostname) and split.port != 0
        except ValueError:
            sound = False
        if not sound:
            yield at, f"`{at[-1]}` in {table} has no host or port that can be reached; write http://HOST:PORT"


def _edges(config: Config) -> Found:
    """Yields edge servers that cannot be told apart, models that there are not, and keys that do nothing alone."""
    yield from _twice("edge", ("edge",), [edge.name for edge in config.edges])
    names = [model.name for model in config.models]
    for index, edge in enumerate(config.edges):
        at, table = config.edge_at(edge), config.edge_table(edge)
        same = next((other for other in config.edges[:index] if other.url.rstrip("/") == edge.url.rstrip("/")), None)
        if same is not None:
            yield (
                (*at, "url"),
                f"edges {same.name} and {edge.name} have the same `url`; write it once, with `parallel` for the batches"
                " that it serves at once",
            )
        for key, named in (("models", edge.models), ("profiles", edge.profiles)):
            for name in named:
                if name not in names:
                    yield (
                        (*at, key),
                        f"`{key}` in {table} names {name}, which is no [[model]]; name one of {', '.join(names)}",
                    )
        for name in edge.profiles:
            if not edge.serves(name):
                yield (*at, "profiles"), f"{table} has a profile of model {name}, which is not in its `models`; add it"
        if edge.client_key and not edge.client_certificate:
            yield (*at, "client_key"), f"`client_key` in {table} needs a `client_certificate`; add one, or remove it"
        for key in ("ca_file", "client_certificate"):
            if getattr(edge, key) and not edge.url.startswith("https://"):
                yield (*at, key), f"`{key}` in {table} is for an edge with https; correct `url`, or remove it"


def _incomplete(config: Config) -> Found:
    """Yields the keys of TLS that do nothing without another one, and a port that there is not."""
    read = config.daemon.read_address
    if read is not None and read[1] > 65535:
        yield ("daemon", "read_listen"), f"`read_listen` in [daemon] names port {read[1]}; the largest is 65535"
    for key in ("key_file", "client_ca_file"):
        if getattr(config.daemon, key) and not config.daemon.certificate_file:
            yield ("daemon", key), f"`{key}` in [daemon] needs a `certificate_file`; add one, or remove it"


def unasked(what: str) -> str:
    """Returns the sentence about a listener that other hosts reach without a token."""
    return (
        f"{what} lets other hosts ask, and there is no [[token]]: make one with `edgeburst token new NAME`, or write"
        " `open = true` into [daemon] if everything that reaches it may ask and read"
    )


def is_loopback(host: str) -> bool:
    """Returns whether only this host reaches an address or name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return host == "localhost"
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


def _tokens(config: Config) -> Found:
    yield from _twice("token", ("token",), [token.name for token in config.tokens])
    tenants = [tenant.name for tenant in config.tenants]
    for index, token in enumerate(config.tokens):
        if token.sha256 in [other.sha256 for other in config.tokens[:index]]:
            yield (
                ("token", index, "sha256"),
                f"token {token.name} has the hash of another one; make a token for each client",
            )
        if token.name == ADMIN_TOKEN and config.daemon.admin_token_env:
            yield (
                ("token", index, "name"),
                f"the name {ADMIN_TOKEN} is that of the token in `admin_token_env`; rename one",
            )
        if token.tenant and tenants and token.tenant not in tenants:
            yield (
                ("token", index, "tenant"),
                f"tenant {token.tenant} of token {token.name} is not in a [[tenant]]; name one of {', '.join(tenants)}",
            )


def _twice(kind: str, at: toml_lines.KeyPath, names: list[str]) -> Found:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield (*at, index, "name"), f"the {kind} name {name} occurs twice; rename one"


def _unserved(config: Config, model: ModelSection, at: toml_lines.KeyPath) -> Found:
    serving = [edge for edge in config.edges if edge.serves(model.name)]
    profiled = model.edge_profile or any(model.name in edge.profiles for edge in serving)
    if not (profiled or model.tiers or (model.card and serving)):
        yield at, f"no backend serves model {model.name}; give it an `edge_profile`, a [[model.tier]], or both"
    if model.edge_profile and not config.edges:
        yield (
            (*at, "edge_profile"),
            f"model {model.name} has an edge profile, but there is no edge; add an [edge] table",
        )
    elif model.edge_profile and not serving:
        yield (
            (*at, "edge_profile"),
            f"model {model.name} has an edge profile, but is in the `models` of no [[edge]]; add it to one",
        )


def _undescribed(model: ModelSection, at: toml_lines.KeyPath) -> Found:
    if bool(model.inputs) != bool(model.outputs):
        yield at, f"model {model.name} needs both `inputs` and `outputs`, or neither if it is in the catalogue"
    if not model.inputs and model.name not in catalogue.names():
        yield (
            (*at, "name"),
            f"model {model.name} is not in the catalogue ({', '.join(catalogue.names())});"
            " correct the name, or describe it with `inputs` and `outputs`",
        )
    for kind in ("inputs", "outputs"):
        tensors = getattr(model, kind)
        rows = [tensor.name + ROWS_SUFFIX for tensor in tensors if tensor.ragged]
        yield from _twice("tensor", (*at, kind), [tensor.name for tensor in tensors])
        for number, tensor in enumerate(tensors):
            if kind == "inputs" and tensor.ragged:
                yield (*at, kind, number), f"input {tensor.name} of model {model.name} is ragged: only outputs can be"
            if not tensor.finite and (kind == "inputs" or not tensor.datatype.startswith("FP")):
                yield (
                    (*at, kind, number),
                    f"`finite` of {tensor.name} says nothing: only outputs of floats have it",
                )
            if tensor.name in rows:
                yield (*at, kind, number), f"output {tensor.name} is added for a ragged output by itself; remove it"
