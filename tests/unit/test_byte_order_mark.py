"""A UTF-8 mark at the beginning, as editors on Windows write it, is skipped in every file that a person writes."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.profile import SHIPPED as PROFILES
from models.profile import load_profile
from scheduler.daemon.config.config import load_config
from scheduler.daemon.config.credentials import read_access_key
from scheduler.planner.catalogue.prices import SHIPPED as SHEETS
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planning.applications import read_applications
from scheduler.planning.plan_file import read_plan
from scheduler.planning.profiles import read_profiles
from scheduler.simulator.network import read_log
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.scenario_file import read_scenario
from scheduler.workloads import read_gaps, read_map, read_rates
from serverless_fn.local_fc.config import load_config as load_local_fc

CONFIG = '[edge]\n[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n'
WITH_KEY = CONFIG + '[function]\nendpoint = "1.cn-hangzhou.fc.aliyuncs.com"\naccess_key_file = "{key}"\n'


def access_key(path: Path) -> object:
    """Reads the key in a file beside a configuration that names it."""
    config = path.with_name("config.toml")
    config.write_text(WITH_KEY.format(key=path))
    return read_access_key(load_config(config, {}), {})


def function_profile(path: Path) -> object:
    return repr(read_profiles([str(path)]))


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "configuration": (CONFIG, lambda path: load_config(path, {}).models),
    "access key": ('access_key_id = "a"\naccess_key_secret = "b"\n', access_key),
    "gaps": ("0.5 0.25\n", lambda path: read_gaps(path).times_s.tolist()),
    "rates": (
        "3,4\n5\n",
        lambda path: read_rates(path, unit_s=1.0, rng=np.random.default_rng(1)).times_s.tolist(),
    ),
    "arrival process": ('{"D0": [[-1.0]], "D1": [[1.0]]}', read_map),
    "bandwidth log": ("0 0 0 0 1000 500\n", read_log),
    "scenario": ("rate_steps = [[0.0, 5.0]]\n", lambda path: read_scenario(path, Scenario(policy="ours"))),
    "applications": ('[[app]]\nname = "a"\nslo_s = 1.0\nrps = 2.0\n', read_applications),
    "price sheet": ((SHEETS / "fc3-cu-usd.json").read_text(), load_sheet),
    "measured profile": ((PROFILES / "orin-resnet50.json").read_text(), load_profile),
    "function's profile": (
        (PROFILES / "fc-resnet50-1gb.json").read_text(),
        function_profile,
    ),
    "plan": (json.dumps({"groups": [{}]}), lambda path: outcome(read_plan, path)),
    "local endpoint": ("[access_keys]\n", lambda path: outcome(load_local_fc, path)),
}


def outcome(read: Callable[[Path], object], path: Path) -> object:
    """Returns what is read, or the sentence of what is missing in it."""
    try:
        return read(path)
    except Exception as error:  # noqa: BLE001 - compared with the same file's without the mark
        return str(error)


@pytest.mark.parametrize("kind", READERS)
def test_a_file_with_the_mark_is_read_like_one_without(tmp_path: Path, kind: str) -> None:
    text, read = READERS[kind]
    path = tmp_path / "file.json"
    path.write_text(text)
    plain = read(path)
    path.write_bytes(BOM_UTF8 + text.encode())
    assert read(path) == plain


def test_lines_are_counted_as_without_it(tmp_path: Path) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_bytes(BOM_UTF8 + b"[daemon]\nport = 1\nprot = 2\n")
    with pytest.raises(Exception, match=r"edgeburst.toml:3: "):
        load_config(path, {})
