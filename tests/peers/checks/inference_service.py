"""Reads a manifest into KServe's own classes, in the peers' environment: python inference_service.py FILE.

Prints it as a line of JSON, as these classes write it. What they do not know, and values of another kind, end it with a
sentence.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import kserve.models
import kubernetes.client.models
import yaml
from kserve.api_client import ApiClient

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float)}


def read(kind: str, value: Any, where: str) -> Any:
    """Returns a value as an object of the class that the kind names."""
    many = re.fullmatch(r"[Ll]ist\[(.+)\]", kind)
    if many:
        assert isinstance(value, list), f"{where} is not a list"
        return [read(many[1], one, f"{where}[{number}]") for number, one in enumerate(value)]
    named = re.fullmatch(r"dict\(str, (.+)\)|Dict\[str, (.+)\]", kind)
    if named:
        assert isinstance(value, dict), f"{where} is not a table"
        return {name: read(named[1] or named[2], one, f"{where}.{name}") for name, one in value.items()}
    if kind in PLAIN:
        assert isinstance(value, PLAIN[kind]), f"{where} is {value!r}, not of the kind {kind}"
        assert kind == "bool" or not isinstance(value, bool), f"{where} is {value!r}, not of the kind {kind}"
        return value
    if kind == "object":
        return value
    return of_class(kind, value, where)


def of_class(kind: str, value: Any, where: str) -> Any:
    found = getattr(kserve.models, kind, None) or getattr(kubernetes.client.models, kind)
    assert isinstance(value, dict), f"{where} is not a table"
    by_key = {key: attribute for attribute, key in found.attribute_map.items()}
    unknown = sorted(set(value) - set(by_key))
    assert not unknown, f"{where} has {unknown}, which {kind} does not know"
    kinds = {key: found.openapi_types[attribute] for key, attribute in by_key.items()}
    return found(**{by_key[key]: read(kinds[key], one, f"{where}.{key}") for key, one in value.items()})


def main(path: str) -> None:
    [manifest] = yaml.safe_load_all(Path(path).read_text(encoding="utf-8"))
    try:
        service = read("V1beta1InferenceService", manifest, "manifest")
    except (AssertionError, ValueError) as error:  # the classes refuse what is missing
        sys.exit(str(error))
    print(json.dumps(ApiClient().sanitize_for_serialization(service)))


if __name__ == "__main__":
    main(sys.argv[1])
