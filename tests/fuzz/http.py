"""Calls made of the descriptions that a real daemon and a real edge server give of themselves, by schemathesis.

No answer may be a 500 or have a status that the description lacks, and neither may log a fault. `make fuzz-ci` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from support import edge_process, operators
from support.daemon_process import daemon_process, stub_edge_process

CONFIG = """
[daemon]
port = 0
max_timeout_s = 2
[edge]
url = "{edge}"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model]]
name = "own"
edge_profile = "orin-resnet50"
inputs = [{{ name = "x", datatype = "BYTES", shape = [1] }}]
outputs = [{{ name = "y", datatype = "FP32", shape = [2] }}]
"""
NAMES = ("digits", "own", "1")
"""Of models and versions, so that not all that is asked is unknown."""
TIMEOUT_S = 20


def main() -> int:
    """Returns the exit status: 0, or 1 where an answer was not as described."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=60, help="calls of each operation")
    parser.add_argument("--seconds", type=float, default=60.0, help="longest time for each server")
    parser.add_argument("--seed", type=int, default=0, help="default: another one each time, which is printed")
    args = parser.parse_args()
    drawn = args.seed or int.from_bytes(os.urandom(3), "little") + 1
    print(f"seed {drawn}; the same again: --seed {drawn}", flush=True)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, stub_edge_process() as stub:
        config = Path(folder) / "edgeburst.toml"
        config.write_text(CONFIG.format(edge=stub.url), encoding="utf-8")
        with daemon_process(config) as daemon:
            wrong += asked("daemon", daemon.url, args, drawn, headers=operators.HEADERS)
    with edge_process.running(*edge_process.options_of_a_quick_server()) as edge:
        wrong += asked("edge", edge.url, args, drawn, headers={})
    for sentence in wrong:
        print(sentence)
    return 1 if wrong else 0


def asked(name: str, url: str, args: argparse.Namespace, drawn: int, *, headers: dict[str, str]) -> list[str]:
    """Returns what was wrong with a server's answers, one sentence for each operation."""
    import schemathesis  # only `make fuzz-ci` has it

    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    limits = settings(
        max_examples=args.examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    wrong: list[str] = []
    statuses: Counter[int] = Counter()
    end_s = time.monotonic() + args.seconds
    with requests.Session() as session:
        session.trust_env = False

        def checked(case: Any, documented: Collection[int]) -> None:
            """Sends one call."""
            if time.monotonic() > end_s:
                return
            if len(str(case.body)) % 2:
                for key in case.path_parameters:
                    case.path_parameters[key] = NAMES[len(str(case.body)) % len(NAMES)]
            answer = case.call(base_url=url, session=session, headers=headers, timeout=TIMEOUT_S)
            statuses[answer.status_code] += 1
            assert answer.status_code != 500, answer.text[:200]
            assert answer.status_code in documented, f"{answer.status_code} is not described: {answer.text[:200]}"
            if answer.status_code != 200 and answer.content:
                assert isinstance(json.loads(answer.content)["error"], str)

        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path == "/v1/events":
                continue  # it ends with the daemon
            documented = {int(status) for status in operation.definition.raw["responses"]}
            try:
                seed(drawn)(limits(given(operation.as_strategy())(_of(checked, documented))))()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other operations are asked too
                wrong.append(f"{name}: {operation.method.upper()} {operation.path}: {str(error)[:600]}")
    print(f"{name}: {statuses.total()} calls, {dict(sorted(statuses.items()))}; {len(wrong)} wrong", flush=True)
    return wrong


def _of(checked: Callable[[Any, Collection[int]], None], documented: Collection[int]) -> Callable[[Any], None]:
    """Returns the check of one operation, as hypothesis wants it: a function of its own."""

    def check(case: Any) -> None:
        checked(case, documented)

    return check


if __name__ == "__main__":
    sys.exit(main())
