"""Which card and files of each model its places serve, as they say themselves, and where its edge profile is from."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from models.profile import Profile
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.expected import expected_identities
from scheduler.daemon.identities import Identities
from scheduler.daemon.logs import log
from scheduler.domain.requests import Place

_MAX_LENGTH = 128


@dataclass(slots=True)
class ServedModels:
    """What is known of the models beside their requests.

    An identity is the SHA-256 of a card and its files. Edge and functions report theirs; this host knows its own where
    all files, or their hashes in the card, are here.
    """

    _cards: dict[str, str | None] = field(default_factory=dict)
    """By model: the identity on this host; None: not known."""
    _heard: dict[str, dict[str, str]] = field(default_factory=dict)
    """By model and place: the identity that it reported last."""
    _profiles: dict[str, dict[str, dict[str, object]]] = field(default_factory=dict)
    """By model and edge server: where its profile there is from."""
    _compared_since_s: dict[str, float] = field(default_factory=dict)
    """By model: since when this host's card is the present one; earlier reports are not compared with it."""
    _edge_urls: dict[str, str] = field(default_factory=dict)
    """By edge server."""
    _told: set[tuple[str, str, str]] = field(default_factory=set)
    identities: Identities = field(default_factory=Identities)
    """Compares them with what is expected."""

    def reload(self, config: Config, *, now_s: float = -math.inf) -> None:
        """Follows a configuration. What models that stay have reported is kept, unless their card or files are others.

        Then the places may be others too, and are compared when they report what they serve now.
        """
        before, self._cards = self._cards, config.identities()
        # A model that is new counts as changed, even where nothing is known of its files.
        changed = {model for model, identity in self._cards.items() if before.get(model, "") != identity}
        self._compared_since_s = {
            model: now_s if model in changed else self._compared_since_s[model] for model in self._cards
        }
        self.identities.reload(expected_identities(config), now_s=now_s)
        urls = {edge.name: edge.url for edge in config.edges}
        gone = {str(Place.edge(name)) for name, url in self._edge_urls.items() if urls.get(name) != url}
        self.identities.forget([str(Place.edge(name)) for name in self._edge_urls.keys() - urls.keys()])
        self._edge_urls = urls
        places = {
            model.name: {
                *(str(Place.edge(edge.name)) for edge in config.edges if edge.serves(model.name)),
                *(str(Place.function(tier.name)) for tier in model.tiers),
            }
            for model in config.models
        }
        self._heard = {
            model: {place: said for place, said in self._heard.get(model, {}).items() if place in known - gone}
            if model not in changed
            else {}
            for model, known in places.items()
        }
        self._profiles = {
            model.name: {
                edge.name: _profile(profile, measured=not (model.edge_profile or edge.profiles.get(model.name)))
                for edge in config.edges
                if (profile := config.edge_profile(index, edge)) is not None
            }
            for index, model in enumerate(config.models)
        }
        for model, heard in self._heard.items():
            for place, identity in heard.items():
                self._compare(model, place, identity)

    def heard(
        self, model: str, place: Place, identity: object, *, asked: bool = False, sent_at_s: float = math.inf
    ) -> str:
        """Notes what a place reports; anything but a text means that it reports nothing.

        Args:
            model: the model.
            place: the place.
            identity: what it reports.
            asked: whether it was asked for its metadata; otherwise it came with an answer.
            sent_at_s: when the question or the batch was sent; a report that began before the present card is compared
                with what was expected then.

        Returns:
            Why its answers cannot be used, in one sentence; empty if they can.
        """
        known = self._heard.get(model) if sent_at_s >= self._compared_since_s.get(model, -math.inf) else None
        if known is not None and isinstance(identity, str) and identity and known.get(str(place)) != identity:
            known[str(place)] = identity[:_MAX_LENGTH]
            self._compare(model, str(place), identity[:_MAX_LENGTH])
        return self.identities.heard(model, str(place), identity, asked=asked, sent_at_s=sent_at_s)

    def answered(self, model: str, place: Place, identity: object, sent_at_s: float) -> str:
        """Notes what a place reports with the answer to a batch that was sent then; `heard` says more."""
        return self.heard(model, place, identity, sent_at_s=sent_at_s)

    def edge_back(self, place: Place, identities: Mapping[str, object], asked_at_s: float = math.inf) -> None:
        """Notes what an edge server that answers again reports by model, asked at that time, before it gets batches."""
        for model, identity in identities.items():
            self.heard(model, place, identity, asked=True, sent_at_s=asked_at_s)

    def not_measured(self, model: str, edge: str, reason: str) -> None:
        """Notes why a model has no profile on an edge server."""
        self._profiles.setdefault(model, {})[edge] = {"source": "not measured", "reason": reason, "rows": []}

    def why_unmeasured(self, model: str) -> str:
        """Returns why a model has no edge profile, as `not_measured` noted it; empty where nothing was noted."""
        return str((self._first_profile(model) or {}).get("reason", ""))

    def _first_profile(self, model: str) -> dict[str, object] | None:
        """Returns the profile of the first edge server that has one, or else why the first has none."""
        of_edges = self._profiles.get(model, {}).values()
        measured = (profile for profile in of_edges if profile["rows"])
        return next(measured, next(iter(of_edges), None))

    def rows(self) -> dict[str, dict[str, object]]:
        """Returns it by model, as GET /v1/status shows it."""
        return {
            model: {
                "identity": card,
                "places": dict(self._heard.get(model, {})),
                "agree": _agree(card, self._heard.get(model, {})),
                **self.identities.row(model),
                "edge_profile": self._first_profile(model),
                "edge_profiles": dict(self._profiles.get(model, {})),
            }
            for model, card in self._cards.items()
        }

    def _compare(self, model: str, place: str, identity: str) -> None:
        """Logs one warning where two identities of a model differ."""
        others = {"this host": self._cards.get(model), **self._heard[model]}
        other = next((name for name, said in others.items() if said is not None and said != identity), None)
        if other is None or (model, place, identity) in self._told:
            return
        self._told.add((model, place, identity))
        message = (
            f"{place} serves model {model} with another card or other files than {other};"
            " bring the same folder to all of them"
        )
        what = {"place": place, "identity": identity, "other": other, "other_identity": others[other]}
        log(logging.WARNING, "identity_differs", model=model, **what, message=message)


def model_metrics(status: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields the metrics of GET /v1/status's `models`."""
    text = (
        "1 while all places that serve a model report the same card and files, 0 while two differ; absent: not known."
    )
    family = GaugeMetricFamily("edgeburst_model_identity_agrees", text, labels=["model"])
    for model, row in (status.get("models") or {}).items():
        if row["agree"] is not None:
            family.add_metric([model], float(row["agree"]))
    yield family


def _agree(card: str | None, heard: Mapping[str, str]) -> bool | None:
    known = [identity for identity in (card, *heard.values()) if identity is not None]
    return None if len(known) < 2 else len(set(known)) == 1


def _profile(profile: Profile, *, measured: bool) -> dict[str, object]:
    rows = [{"items": row.batch, "p50_s": row.p50_s} for row in profile.rows]
    return {
        "source": "measured" if measured else "configured",
        "name": profile.name,
        "date": profile.date,
        "rows": rows,
    }
