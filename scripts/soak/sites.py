"""The configurations of the worlds: drawn from a few choices each, written as the TOML that the daemon reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from scripts.soak import truth

IDENTITY = "sha256:" + "1" * 64
"""Of the right card and files of every model."""
OTHER_IDENTITY = "sha256:" + "2" * 64
ENVIRONMENT = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret"}
EDGE_LAW = (0.03, 0.008, 8)
"""Seconds of a batch: of its own, for each item; and the most items."""
TIERS = {"fast": (0.08, 0.03, 4), "slow": (0.15, 0.06, 8)}
START_S = 0.8
"""Of a function's instance."""
SLO_S = 1.0
"""Of the class `default`; where only functions serve a model, it must outlast a start."""
FAR_SLO_S = 4.0
TENANTS = ("", "a", "b")


@dataclass(frozen=True, slots=True)
class Model:
    """A served model: what it computes, and where."""

    kind: str
    edge: bool = True
    tiers: tuple[str, ...] = ("fast",)
    identified: bool = True
    """Whether the configuration says which identity its places must report."""

    @property
    def slo_s(self) -> float:
        """SLO of its class `default`."""
        return SLO_S if self.edge else FAR_SLO_S

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return ("default", "late", "patient", "local") if self.edge else ("default", "late", "patient")


@dataclass(frozen=True, slots=True)
class Site:
    """One configuration."""

    models: tuple[Model, ...]
    reopen_after_s: float = 1.0
    failures_to_open: int = 3
    queue_max_requests: int = 4096
    max_function_in_flight: int = 64
    per_hour: float | None = None
    over_cap: str = "edge-only"
    tenants: bool = False
    state: bool = False
    explained: bool = False
    """Whether ended requests are written to a file."""
    late: str = "refuse"
    changepoints: str = "native"

    def text(self, profiles: Path) -> str:
        """Returns it as TOML; profiles are in that folder."""
        cap = "" if self.per_hour is None else f"per_hour = {self.per_hour}"
        parts = [
            f'[daemon]\nport = 0\ndrain_limit_s = 4.0\nstate = "{"state" if self.state else ""}"\nlate = "{self.late}"',
            f"[engine]\nreopen_after_s = {self.reopen_after_s}\nfailures_to_open = {self.failures_to_open}\n"
            f"queue_max_requests = {self.queue_max_requests}\nmax_function_in_flight = {self.max_function_in_flight}\n"
            f'changepoints = "{self.changepoints}"',
            f'[spend]\n{cap}\nover_cap = "{self.over_cap}"',
            f'[explain]\nring = 256\nfile = "{"ended.jsonl" if self.explained else ""}"',
        ]
        if any(model.edge for model in self.models):
            parts.append('[edge]\nurl = "http://edge:8700"')
        if any(model.tiers for model in self.models):
            parts.append('[function]\nendpoint = "fc.example"\nprotocol = "http"')
        if self.tenants:
            parts.append('[[tenant]]\nname = "a"\nshare = 3\n[[tenant]]\nname = "b"')
        return "\n".join([*parts, *(_model(model, profiles) for model in self.models)]) + "\n"


def _model(model: Model, profiles: Path) -> str:
    lines = [f'[[model]]\nname = "{model.kind}"\nmax_items = 8\n{truth.tensors(model.kind)}']
    if model.identified:
        lines.append(f'identity = "{IDENTITY}"')
    if model.edge:
        lines.append(f'edge_profile = "{profiles / "edge.json"}"')
    lines.append(f'[[model.class]]\nname = "default"\nslo_s = {model.slo_s}')
    lines.append('[[model.class]]\nname = "late"\nslo_s = 0.5\nlate = "serve"')
    lines.append('[[model.class]]\nname = "patient"\nslo_s = 4.0\nlabels = ["deferrable"]')
    if model.edge:
        lines.append('[[model.class]]\nname = "local"\nslo_s = 1.0\nlabels = ["edge-only"]')
    for tier in model.tiers:
        lines.append(
            f'[[model.tier]]\nname = "{tier}"\nfunction = "{model.kind}-{tier}"\nprofile = "{profiles / tier}.json"\n'
            f"memory_gb = {1.0 if tier == 'fast' else 2.0}\nmax_in_flight = 8"
        )
    return "\n".join(lines)


def write_profiles(folder: Path) -> None:
    """Writes the profiles of the edge and of the tiers."""
    for name, (alpha_s, beta_s, max_batch) in {"edge": EDGE_LAW, **TIERS}.items():
        profile: dict[str, object] = {
            "name": name,
            "backend": "edge" if name == "edge" else "function",
            "model": "any",
            "device": "made up",
            "source": "made up",
            "date": "2026-01-01",
            "note": "",
            "rows": [],
            "alpha_s": alpha_s,
            "beta_s": beta_s,
            "max_batch": max_batch,
            "environment": {},
        }
        (folder / f"{name}.json").write_text(json.dumps(profile))


def draw(random: Random) -> Site:
    """Returns a configuration."""
    models = tuple(_draw_model(kind, random) for kind in random.sample(truth.MODELS, random.choice((1, 1, 2, 3))))
    priced = any(model.tiers for model in models) and random.random() < 0.4
    return Site(
        models=models,
        reopen_after_s=random.choice((1.0, 1.0, 2.0)),
        failures_to_open=random.choice((1, 3, 3)),
        queue_max_requests=random.choice((4096, 4096, 12)),
        max_function_in_flight=random.choice((64, 64, 2)),
        per_hour=random.choice((1e-4, 3e-4, 2e-3)) if priced else None,
        over_cap=random.choice(("edge-only", "serve-late", "refuse-low-priority")),
        tenants=random.random() < 0.3,
        state=random.random() < 0.4,
        explained=random.random() < 0.1,
        late=random.choice(("refuse", "refuse", "serve")),
    )


def redraw(site: Site, random: Random) -> Site:
    """Returns a configuration to reload with: some keys are others, and models may come, go or lose a side."""
    other = draw(random)
    models = other.models if random.random() < 0.3 else site.models
    keys = random.sample(
        ("reopen_after_s", "failures_to_open", "queue_max_requests", "max_function_in_flight", "tenants", "late"), 3
    )
    changed = {key: getattr(other, key) for key in keys}
    if any(model.tiers for model in models):
        changed |= {"per_hour": other.per_hour, "over_cap": other.over_cap}
    else:
        changed["per_hour"] = None
    return replace(site, models=models, **changed)


def tightly_capped(site: Site, random: Random) -> Site:
    """Returns a configuration whose functions use up their money within seconds, kept over the ends of processes."""
    models = (replace(site.models[0], edge=False, tiers=("fast",)),)
    return replace(
        site, models=models, per_hour=random.choice((2e-4, 4e-4, 8e-4)), over_cap="edge-only", state=True, tenants=False
    )


def retuned(site: Site, random: Random) -> Site:
    """Returns a configuration to reload with that promises requests the same."""
    other = draw(random)
    return replace(site, reopen_after_s=other.reopen_after_s, failures_to_open=other.failures_to_open)


def _draw_model(kind: str, random: Random) -> Model:
    edge, tiers = random.choice(
        (
            (True, ("fast",)),
            (True, ("fast",)),
            (True, ("fast", "slow")),
            (True, ("slow",)),
            (True, ()),
            (False, ("fast", "slow")),
        )
    )
    return Model(kind, edge, tiers, identified=random.random() < 0.6)
