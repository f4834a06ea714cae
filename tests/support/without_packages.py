"""Makes packages absent in a child process, as on a host that has not installed their extra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

_SITE = """
import os, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["ABSENT"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
if "EDGEBURST_TEST_CHILDREN" in os.environ:
    behind = os.environ["EDGEBURST_TEST_CHILDREN"] + "/sitecustomize.py"  # this file hides it
    exec(open(behind).read(), {"__name__": "sitecustomize", "__file__": behind})
"""
BEYOND_CLIENT = ("flask", "werkzeug", "cv2", "torch", "torchvision", "onnxruntime", "onnx", "onnxscript")
"""What a client host has not, imported names."""
CLIENT = (
    "aiohttp",
    "uvloop",
    "orjson",
    "requests",
    "pydantic",
    "prometheus_client",
    "rich",
    "alibabacloud_fc20230330",
    "alibabacloud_tea_openapi",
    "darabonba",
)
"""What the extra `client` installs."""


def without(folder: Path, names: Iterable[str]) -> Mapping[str, str]:
    """Returns variables for a child's environment: its Python imports our code, but none of these packages.

    Args:
        folder: an empty one, for what Python reads at its start.
        names: as they are imported.
    """
    (folder / "sitecustomize.py").write_text(_SITE)
    root = Path(__file__).parents[2]
    return {"PYTHONPATH": f"{folder}:{root}", "ABSENT": ",".join(names)}
