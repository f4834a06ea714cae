"""Which operation a method and path name."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from serverless_fn.local_fc.errors import FcError

API_PREFIX = "/2023-03-30"
FUNCTION, ITEM = "{function}", "{item}"


@dataclass(frozen=True, slots=True)
class Match:
    """An operation, and the names in the path."""

    operation: str
    function: str = ""
    item: str = ""


_F = f"/functions/{FUNCTION}"
# Operation names are methods of ControlPlane, but for the invocation.
ROUTES = (
    ("POST", f"{_F}/invocations", "invoke_function"),
    ("POST", "/functions", "create_function"),
    ("GET", "/functions", "list_functions"),
    ("GET", _F, "get_function"),
    ("PUT", _F, "update_function"),
    ("DELETE", _F, "delete_function"),
    ("GET", f"{_F}/code", "get_function_code"),
    ("POST", f"{_F}/versions", "publish_function_version"),
    ("POST", f"{_F}/aliases", "create_alias"),
    ("PUT", f"{_F}/aliases/{ITEM}", "update_alias"),
    ("PUT", f"{_F}/provision-config", "put_provision_config"),
    ("GET", f"{_F}/provision-config", "get_provision_config"),
    ("PUT", f"{_F}/scaling-config", "put_scaling_config"),
    ("GET", f"{_F}/scaling-config", "get_scaling_config"),
    ("PUT", f"{_F}/concurrency", "put_concurrency_config"),
    ("GET", f"{_F}/concurrency", "get_concurrency_config"),
    ("GET", f"{_F}/instances", "list_instances"),
    ("POST", f"{_F}/triggers", "create_trigger"),
    ("GET", f"{_F}/triggers/{ITEM}", "get_trigger"),
)


def match(method: str, path: str) -> Match:
    """Return the operation; `path` is percent-encoded, as it arrived.

    Raises:
        FcError: 400 PathNotSupported.

    >>> match("GET", "/2023-03-30/functions/infer/triggers/a%20b")
    Match(operation='get_trigger', function='infer', item='a b')
    """
    segments = path.split("/")
    for wanted_method, pattern, operation in ROUTES:
        wanted = f"{API_PREFIX}{pattern}".split("/")
        if method == wanted_method and len(segments) == len(wanted):
            names = {want: unquote(have) for want, have in zip(wanted, segments, strict=True) if want[:1] == "{"}
            fits = all(want[:1] == "{" or want == have for want, have in zip(wanted, segments, strict=True))
            if fits and all(names.values()):
                return Match(operation, names.get(FUNCTION, ""), names.get(ITEM, ""))
    raise FcError(400, "PathNotSupported", f"{method} {path} is no operation of this API")
