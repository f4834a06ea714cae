"""From a configuration to what it expects of the hosts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from models.card import Card
from scheduler.daemon.config.config import Config
from scheduler.daemon.ingress.model_metadata import model_cards
from scheduler.doctor.wanted import Wanted, WantedModel, WantedTier
from scheduler.domain.plans import EngineSettings, ModelSettings


def wanted(config: Config, warnings: tuple[str, ...]) -> Wanted:
    """Returns the expectations of a configuration; `warnings`: those of `edgeburst check-config`."""
    settings, sheet = config.engine_settings(), config.price_sheet()
    return Wanted(
        path=str(config.path.absolute()),
        models={model.name: _model(config, index, settings) for index, model in enumerate(settings.models)},
        sheet="" if sheet is None else sheet.name,
        sheet_date=None if sheet is None else date.fromisoformat(sheet.date),
        warnings=warnings,
    )


def _model(config: Config, index: int, settings: EngineSettings) -> WantedModel:
    model, section, card = settings.models[index], config.models[index], config.card(index)
    laws = {edge.name: law for edge in settings.edges if (law := model.edge_latency_on(edge.name)) is not None}
    own = {edge.name: config.edge_profile(index, edge) for edge in config.edges}
    by_function = [each.slo_s for each in model.classes if not each.edge_only]
    return WantedModel(
        name=model.name,
        inputs=model_cards(config)[model.name].inputs,
        identity=section.identity or config.identities()[model.name] or "",
        folder=str(card.folder) if section.card and card is not None else "",
        files=_hashes(card) if not section.identity else {},
        edge_batches={name: min(law.max_batch, model.max_items) for name, law in laws.items()},
        edge_one_item_s={name: law.predict_s(1) for name, law in laws.items()},
        edge_profiles={name: profile.name for name, profile in own.items() if profile is not None},
        tightest_by_function_s=min(by_function, default=None),
        tiers=_tiers(config, index, model),
    )


def _hashes(card: Card | None) -> Mapping[str, str]:
    return {} if card is None else card.file_hashes() or {}


def _tiers(config: Config, index: int, model: ModelSettings) -> tuple[WantedTier, ...]:
    return tuple(
        WantedTier(
            tier.name,
            tier.function_name,
            tier.qualifier,
            config.tier_profile(index, number).name,
            tier.latency.predict_s(1),
            config.models[index].tiers[number].memory_gb,
        )
        for number, tier in enumerate(model.tiers)
    )
