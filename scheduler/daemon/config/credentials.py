"""The access key of the function account, from the environment or from a file. No secret is ever shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models import toml_lines
from scheduler.client_access import ClientAccess, client_access, stray_character
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.edge_sections import EdgeSection
from scheduler.daemon.config.secrets import secret_of
from scheduler.daemon.config.sections import FunctionSection
from scheduler.daemon.config.source import TOML
from scheduler.domain.errors import ConfigError, EdgeburstError
from scheduler.fc_client import AccessKey

_REQUIRED = ("access_key_id", "access_key_secret")
_OPTIONAL = "security_token"
_TEMPORARY = "STS."


@dataclass(frozen=True, slots=True)
class SecretReference:
    """The environment variable that should hold a secret, and whether it is set."""

    purpose: str
    variable: str
    present: bool


def read_access_key(config: Config, environ: Mapping[str, str]) -> AccessKey:
    """Returns the access key that `[function]` refers to.

    Raises:
        ConfigError: a variable is not set, or the file is missing or incomplete; the message names it.
    """
    path = config.access_key_file()
    if path is not None:
        return _complete(config, ("function", "access_key_file"), _from_file(config, path))
    if config.function is None:
        raise ConfigError(f"{config.path}: the table [function], which names the access key, is missing; add it")
    key = AccessKey(
        access_key_id=_variable(config, "access_key_id_env", environ),
        access_key_secret=_variable(config, "access_key_secret_env", environ),
        security_token=_variable(config, "security_token_env", environ) if config.function.security_token_env else "",
    )
    return _complete(config, ("function", "access_key_id_env"), key)


def lender_access(config: Config, environ: Mapping[str, str]) -> ClientAccess:
    """Returns what the daemon shows the one that it borrows money from.

    Raises:
        ConfigError: the token's variable is not set, or a file cannot be used; the message names it.
    """
    name = config.spend.from_token_env
    token = _token(config, ("spend", "from_token_env"), name, environ)
    if name and not token:
        raise config.error(
            ("spend", "from_token_env"),
            f"environment variable {name} is not set; set it to a token of the daemon in `from` of [spend]",
        )
    keys = ("from_ca_file", "from_client_certificate", "from_client_key")
    return _client_access(
        config, ("spend",), token=token, token_key="from_token_env", files={key: config.spend_file(key) for key in keys}
    )


def edge_access(config: Config, edge: EdgeSection, environ: Mapping[str, str]) -> ClientAccess:
    """Returns what the daemon shows an edge server as its table refers to it.

    Raises:
        ConfigError: the token's variable is not set, or a file cannot be used; the message names it.
    """
    table = config.edge_at(edge)
    token = _token(config, (*table, "token_env"), edge.token_env, environ)
    if edge.token_env and not token:
        raise config.error(
            (*table, "token_env"),
            f"environment variable {edge.token_env} is not set; set it to the edge server's token",
        )
    files = {key: config.edge_file(edge, key) for key in ("ca_file", "client_certificate", "client_key")}
    return _client_access(config, table, token=token, token_key="token_env", files=files)


def _token(config: Config, at: toml_lines.KeyPath, name: str, environ: Mapping[str, str]) -> str:
    """Returns a token, empty without one; ConfigError where a header cannot carry it."""
    token = secret_of(name, environ)
    if stray := stray_character(token):
        raise config.error(at, f"environment variable {name} holds {stray}, which no header takes; set it without that")
    return token


def _client_access(
    config: Config, table: toml_lines.KeyPath, *, token: str, token_key: str, files: Mapping[str, Path | None]
) -> ClientAccess:
    """Returns an access of the files of authorities, certificate and key, in this order, by the keys that name them."""
    ca_file, certificate, key = files.values()
    try:
        return client_access(token=token, ca_file=ca_file, certificate=certificate, key=key)
    except EdgeburstError as error:
        at = next((name for name, path in files.items() if path is not None and str(path) in str(error)), token_key)
        raise config.error((*table, at), str(error)) from None


def _complete(config: Config, at: tuple[str, str], key: AccessKey) -> AccessKey:
    """Returns a key; raises ConfigError for a temporary one without its token."""
    if key.access_key_id.startswith(_TEMPORARY) and not key.security_token:
        message = (
            f"the access key id begins with {_TEMPORARY}, so it is a temporary one, and its token is missing; set"
            " `security_token_env`, or `security_token` in the access key file"
        )
        raise config.error(at, message)
    return key


def secret_references(config: Config, environ: Mapping[str, str]) -> tuple[SecretReference, ...]:
    """Returns a reference to every environment variable that holds a secret."""
    named = [("admin token", config.daemon.admin_token_env)]
    named.append(("spend token", config.spend.from_token_env))
    several = len(config.edges) > 1
    named += [(f"edge token {edge.name}" if several else "edge token", edge.token_env) for edge in config.edges]
    if config.function is not None and not config.function.access_key_file:
        named += _key_variables(config.function)
    return tuple(SecretReference(purpose, name, bool(secret_of(name, environ))) for purpose, name in named if name)


def _key_variables(function: FunctionSection) -> list[tuple[str, str]]:
    return [
        ("access key id", function.access_key_id_env),
        ("access key secret", function.access_key_secret_env),
        ("security token", function.security_token_env),
    ]


def _variable(config: Config, key: str, environ: Mapping[str, str]) -> str:
    name = str(getattr(config.function, key))
    value = secret_of(name, environ)
    if not value:
        raise config.error(
            ("function", key), f"environment variable {name} is not set; set it, or name a file in `access_key_file`"
        )
    if stray := stray_character(value):
        raise config.error(
            ("function", key),
            f"environment variable {name} holds {stray}, which no access key has; set it again without that, as from a"
            " file with the line ends of this system",
        )
    return value


def _from_file(config: Config, path: Path) -> AccessKey:
    at = ("function", "access_key_file")
    try:
        values = TOML.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise config.error(at, f"the access key file {path} cannot be read ({error.strerror}); name another") from None
    except (ValueError, RecursionError):
        # The parser's message may repeat a part of the secret.
        raise config.error(at, f'{path} must be TOML with lines like access_key_id = "..."') from None
    for key in values:
        if key not in (*_REQUIRED, _OPTIONAL):
            raise config.error(at, f"{path} has the unknown key `{key}`; it holds {', '.join(_REQUIRED)}, {_OPTIONAL}")
    for key in (*_REQUIRED, *(key for key in (_OPTIONAL,) if key in values)):
        if not isinstance(values.get(key), str) or not values[key]:
            raise config.error(at, f"{path} must set `{key}` to a text that is not empty")
    return AccessKey(**values)
