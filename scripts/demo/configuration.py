"""Configuration files of the processes of the demo, written as examples for other configurations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from scripts.demo.instances import MAX_INSTANCES
from scripts.demo.settings import (
    DISK_GB,
    FUNCTION,
    MEMORY_GB,
    MODEL,
    PRICE_SHEET,
    TIER,
    VCPU,
    Settings,
)

# They are used only on the loopback of this machine.
KEY_ID = "demo"
KEY_SECRET = "demo-secret"
KEY_ID_VARIABLE = "DEMO_ACCESS_KEY_ID"
KEY_SECRET_VARIABLE = "DEMO_ACCESS_KEY_SECRET"
REGION = "cn-hangzhou"
_IMAGE = "edgeburst/function:demo"
_COLD_STARTS = 16
_IDLE_S = 20.0
"""Seconds after which an instance that is not provisioned ends: the cold start needs all of them gone."""


def function_endpoint_toml(settings: Settings) -> str:
    """Returns the configuration of the local Function Compute endpoint, with the function."""
    variables = {"MODEL": MODEL, "OMP_NUM_THREADS": "1"}
    if settings.function_emulate:
        variables["EDGEBURST_EMULATE"] = settings.function_emulate
    return f"""\
# The local Function Compute endpoint of the demo: python -m serverless_fn.local_fc --config THIS
[access_keys]
{KEY_ID} = {_text(KEY_SECRET)}

[account]
region = {_text(REGION)}
max_instances = {MAX_INSTANCES + _COLD_STARTS}
idle_s = {_IDLE_S:g}                       # instances that a call has started beside the provisioned ones end soon

[images.{_text(_IMAGE)}]
command = ["python", "-m", "serverless_fn"]

[[function]]
functionName = {_text(FUNCTION)}
runtime = "custom-container"
handler = "index.handler"
cpu = {VCPU:g}
memorySize = {MEMORY_GB * 1024:.0f}
diskSize = {DISK_GB * 1024:.0f}
timeout = 60
instanceConcurrency = 1
customContainerConfig = {{ image = {_text(_IMAGE)} }}
instanceLifecycleConfig = {{ initializer = {{ handler = "index.initialize", timeout = 120 }} }}
environmentVariables = {_table(variables)}
provisionConfig = {{ defaultTarget = {max(1, settings.provisioned)} }}
"""


@dataclass(frozen=True, slots=True)
class Places:
    """Addresses and profiles that the daemon uses.

    Attributes:
        edge_url: address of the edge server.
        function_endpoint: HOST:PORT of Function Compute.
        edge_profile: profile of the edge, a name or a file.
        function_profile: profile of the function, a name or a file.
    """

    edge_url: str
    function_endpoint: str
    edge_profile: str
    function_profile: str


def daemon_toml(settings: Settings, places: Places) -> str:
    """Returns the daemon's configuration."""
    return f"""\
# The daemon of the demo: edgeburst serve --config THIS
[daemon]
port = 0
late = "serve"                  # the demo wants an answer to each request, late or not

[edge]
url = {_text(places.edge_url)}

[function]
endpoint = {_text(places.function_endpoint)}
region = {_text(REGION)}
protocol = "http"
access_key_id_env = {_text(KEY_ID_VARIABLE)}
access_key_secret_env = {_text(KEY_SECRET_VARIABLE)}
price_sheet = {_text(PRICE_SHEET)}

[[model]]
name = {_text(MODEL)}
edge_profile = {_text(places.edge_profile)}

[[model.class]]
slo_s = {settings.slo_s}
percentile = 0.99

[[model.tier]]
name = {_text(TIER)}
function = {_text(FUNCTION)}
profile = {_text(places.function_profile)}
memory_gb = {MEMORY_GB}
vcpu = {VCPU}
disk_gb = {DISK_GB}
max_in_flight = {settings.provisioned}              # no more than are kept warm: a further one would start cold
"""


def key_variables() -> dict[str, str]:
    """Returns the environment variables that hold the access key."""
    return {KEY_ID_VARIABLE: KEY_ID, KEY_SECRET_VARIABLE: KEY_SECRET}


def write(path: Path, content: str) -> Path:
    """Writes a configuration file and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def _text(value: str) -> str:
    """Returns a TOML basic string; a JSON string is one."""
    return json.dumps(value)


def _table(values: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {_text(value)}" for key, value in values.items()) + " }"
