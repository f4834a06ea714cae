"""Routes: the operation of an HTTP method and a path."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from serverless_fn.local_fc.errors import FcError

API_PREFIX = "/2023-03-30"
FUNCTION, ITEM = "{function}", "{item}"


class Plane(Enum):
    """Object that serves an operation."""

    INVOKER = "invoker"
    CONTROL = "control"
    CAPACITY = "capacity"


@dataclass(frozen=True, slots=True)
class Match:
    """Operation, the object that serves it, and the names in the path."""

    plane: Plane
    operation: str
    function: str = ""
    item: str = ""


_F = f"/functions/{FUNCTION}"
# Each operation has the name of the method that serves it.
ROUTES = (
    (Plane.INVOKER, "POST", f"{_F}/invocations", "invoke_function"),
    (Plane.CONTROL, "POST", "/functions", "create_function"),
    (Plane.CONTROL, "GET", "/functions", "list_functions"),
    (Plane.CONTROL, "GET", _F, "get_function"),
    (Plane.CONTROL, "PUT", _F, "update_function"),
    (Plane.CONTROL, "DELETE", _F, "delete_function"),
    (Plane.CONTROL, "GET", f"{_F}/code", "get_function_code"),
    (Plane.CONTROL, "POST", f"{_F}/versions", "publish_function_version"),
    (Plane.CONTROL, "GET", f"{_F}/versions", "list_function_versions"),
    (Plane.CONTROL, "DELETE", f"{_F}/versions/{ITEM}", "delete_function_version"),
    (Plane.CONTROL, "POST", f"{_F}/aliases", "create_alias"),
    (Plane.CONTROL, "GET", f"{_F}/aliases", "list_aliases"),
    (Plane.CONTROL, "GET", f"{_F}/aliases/{ITEM}", "get_alias"),
    (Plane.CONTROL, "PUT", f"{_F}/aliases/{ITEM}", "update_alias"),
    (Plane.CONTROL, "DELETE", f"{_F}/aliases/{ITEM}", "delete_alias"),
    (Plane.CONTROL, "POST", f"{_F}/triggers", "create_trigger"),
    (Plane.CONTROL, "GET", f"{_F}/triggers", "list_triggers"),
    (Plane.CONTROL, "GET", f"{_F}/triggers/{ITEM}", "get_trigger"),
    (Plane.CONTROL, "DELETE", f"{_F}/triggers/{ITEM}", "delete_trigger"),
    (Plane.CAPACITY, "PUT", f"{_F}/provision-config", "put_provision_config"),
    (Plane.CAPACITY, "GET", f"{_F}/provision-config", "get_provision_config"),
    (Plane.CAPACITY, "DELETE", f"{_F}/provision-config", "delete_provision_config"),
    (Plane.CAPACITY, "GET", "/provision-configs", "list_provision_configs"),
    (Plane.CAPACITY, "PUT", f"{_F}/scaling-config", "put_scaling_config"),
    (Plane.CAPACITY, "GET", f"{_F}/scaling-config", "get_scaling_config"),
    (Plane.CAPACITY, "DELETE", f"{_F}/scaling-config", "delete_scaling_config"),
    (Plane.CAPACITY, "GET", "/scaling-configs", "list_scaling_configs"),
    (Plane.CAPACITY, "PUT", f"{_F}/concurrency", "put_concurrency_config"),
    (Plane.CAPACITY, "GET", f"{_F}/concurrency", "get_concurrency_config"),
    (Plane.CAPACITY, "DELETE", f"{_F}/concurrency", "delete_concurrency_config"),
    (Plane.CAPACITY, "GET", "/concurrency-configs", "list_concurrency_configs"),
    (Plane.CAPACITY, "GET", f"{_F}/instances", "list_instances"),
)

OPERATIONS = frozenset(operation for _, _, _, operation in ROUTES)


def match(method: str, path: str) -> Match:
    """Returns the operation; `path` is percent-encoded, as it arrived.

    Raises:
        FcError: 400 PathNotSupported.

    >>> match("GET", "/2023-03-30/functions/infer/triggers/a%20b").item
    'a b'
    """
    segments = path.split("/")
    for plane, wanted_method, pattern, operation in ROUTES:
        wanted = f"{API_PREFIX}{pattern}".split("/")
        if method == wanted_method and len(segments) == len(wanted):
            names = {want: unquote(have) for want, have in zip(wanted, segments, strict=True) if want[:1] == "{"}
            fits = all(want[:1] == "{" or want == have for want, have in zip(wanted, segments, strict=True))
            if fits and all(names.values()):
                return Match(plane, operation, names.get(FUNCTION, ""), names.get(ITEM, ""))
    raise FcError(400, "PathNotSupported", f"{method} {path} is no operation of this API")
