"""The daemon's configuration, which the scenes change: caps come and go with a reload."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from models.profile import load_profile
from scheduler.measuring.profiling import write_profile
from scripts.fault_table.neighbours import EDGE_PROFILE, FUNCTION_PROFILE, INSTANCES

SLO_S = 2.0
_SLOWER = 1.5
TENANTS = ("lab", "ward", "flood")
KEY_ID_VARIABLE, KEY_SECRET_VARIABLE = "DEMO_ACCESS_KEY_ID", "DEMO_ACCESS_KEY_SECRET"


def slower_edge(folder: Path) -> str:
    """Writes the profile of a slower edge; returns its file.

    It has two thirds of the Orin's speed: what is too much for it is then little enough for clients, daemon and
    containers on one small machine.
    """
    orin = load_profile(EDGE_PROFILE)
    slower = replace(
        orin,
        name=f"{orin.name}-slower",
        alpha_s=_SLOWER * orin.alpha_s,
        beta_s=_SLOWER * orin.beta_s,
        rows=(),  # of the fit, as the original has none
        note=f"The latencies of {orin.name}, times {_SLOWER:g}, for the demo of failures.",
    )
    path = (folder / "edge-profile.json").resolve()
    write_profile(slower, path)
    return str(path)


@dataclass(frozen=True, slots=True)
class Site:
    """Ports of what the daemon serves with, and the cap on money.

    Attributes:
        edge_port: of the edge server.
        endpoint_port: of the local Function Compute endpoint.
        edge_profile: file of the profile that the edge server emulates.
        port: of the daemon; 0 for a free one.
        per_hour_cny: cap; None for none.
    """

    edge_port: int
    endpoint_port: int
    edge_profile: str
    port: int = 0
    per_hour_cny: float | None = None

    def toml(self) -> str:
        """Returns the configuration."""
        cap = [] if self.per_hour_cny is None else ["[spend]", f"per_hour = {self.per_hour_cny:.9f}"]
        tenants = [line for name in TENANTS for line in ("[[tenant]]", f'name = "{name}"', "share = 1")]
        lines = [
            "# The daemon of the demo of failures: edgeburst serve --config THIS",
            "[daemon]",
            f"port = {self.port}",
            *("[explain]", "ring = 50000"),
            *cap,
            *("[edge]", f'url = "http://127.0.0.1:{self.edge_port}"'),
            *("[function]", f'endpoint = "127.0.0.1:{self.endpoint_port}"', 'protocol = "http"'),
            'region = "cn-hangzhou"',
            f'access_key_id_env = "{KEY_ID_VARIABLE}"',
            f'access_key_secret_env = "{KEY_SECRET_VARIABLE}"',
            'price_sheet = "cny-gbs-2023"',
            *tenants,
            *("[[model]]", 'name = "digits"', f'edge_profile = "{self.edge_profile}"'),
            *("[[model.class]]", f"slo_s = {SLO_S}", "percentile = 0.99"),
            *("[[model.tier]]", 'name = "1gb"', 'function = "digits"', f'profile = "{FUNCTION_PROFILE}"'),
            *("memory_gb = 1.0", f"max_in_flight = {INSTANCES}"),
        ]
        return "\n".join(lines) + "\n"
