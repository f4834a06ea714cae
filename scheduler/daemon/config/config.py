"""The daemon's configuration: one frozen object, read once from a TOML file and EDGEBURST_* variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import PrivateAttr, ValidationError

from models import toml_lines
from models.card import Card
from models.profile import Profile, ProfileError, load_profile, shipped_profiles
from scheduler.daemon.config.cards import described, read_cards
from scheduler.daemon.config.contradictions import contradictions
from scheduler.daemon.config.edge_sections import EdgeSection
from scheduler.daemon.config.errors import config_error
from scheduler.daemon.config.fixed_plan import loaded_buffers
from scheduler.daemon.config.measured import remembered
from scheduler.daemon.config.model_sections import ClassSection, Late, ModelSection, TierSection
from scheduler.daemon.config.sections import ConfigFile
from scheduler.daemon.config.source import EDGE, Source, read_source
from scheduler.dispatch.spend_cap import LENDER, STATE
from scheduler.domain.errors import ConfigError, EdgeburstError
from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.plans import EdgeSettings, EngineSettings, LoadedBuffer, ModelSettings, ServiceClass
from scheduler.domain.requests import EDGE_NAME
from scheduler.domain.tenants import TenantSettings
from scheduler.planner.catalogue.prices import PriceSheet, PriceSheetError, load_sheet, shipped_sheets
from scheduler.planning.plan_file import PlanFileError, read_plan
from scheduler.systemd import CREDENTIALS
from scheduler.wire import FRAME_BYTES


class ToMeasure(NamedTuple):
    """A model whose latency on an edge server the daemon has to measure."""

    card: Card
    edge: EdgeSection


class Config(ConfigFile):
    """A valid configuration; `daemon`, `engine`, `spend`, `explain`, `edges`, `function`, `models` are its tables."""

    _source: Source = PrivateAttr(default=Source(Path("the configuration")))
    _with_plans: bool = PrivateAttr(default=True)
    _cards: tuple[Card | None, ...] = PrivateAttr(default=())
    _identities: tuple[str | None, ...] = PrivateAttr(default=())
    _credentials: str = PrivateAttr(default="")
    """The folder in which systemd passes credentials; empty: none."""
    _measured: dict[tuple[str, str], Profile] = PrivateAttr(default_factory=dict)
    """By model and edge server: profiles that the daemon measured."""

    @property
    def path(self) -> Path:
        """The file that it was read from."""
        return self._source.path

    def error(self, at: toml_lines.KeyPath, sentence: str) -> ConfigError:
        """Returns an error with a sentence about the value at a path of keys and indices."""
        return self._source.error(at, sentence)

    def engine_settings(self) -> EngineSettings:
        """Returns the engine's settings, with profiles as latency models and price sheets as prices.

        Raises:
            ConfigError: a profile or price sheet is missing, of the wrong kind, or not valid.
        """
        sheet = self.price_sheet()
        models = tuple(self._model(index, model, sheet) for index, model in enumerate(self.models))
        engine = self.engine.model_dump()
        changepoints = engine.pop("changepoints")
        return EngineSettings(
            models=models,
            max_timeout_s=self.daemon.max_timeout_s,
            changepoints=changepoints != "off",
            changepoint_package=changepoints == "package",
            spend_per_hour=self.spend.per_hour,
            spend_per_day=self.spend.per_day,
            over_cap=self.spend.over_cap,
            spend_leased=LENDER if self.spend.lender else STATE if self.daemon.state else "",
            explain_ring=self.explain.ring,
            edges=tuple([self._edge_settings(edge) for edge in self.edges]) or (EdgeSettings(),),
            tenants=tuple(TenantSettings(**tenant.model_dump()) for tenant in self.tenants),
            **engine,
        )

    def _edge_settings(self, edge: EdgeSection) -> EdgeSettings:
        return EdgeSettings(edge.name, self._parallel(edge), None if edge.ahead == "auto" else edge.ahead)

    def _parallel(self, edge: EdgeSection) -> int | None:
        """Returns how many batches an edge server is given at once: as configured, or as measured of its models."""
        profiles = (self.edge_profile(index, edge) for index in range(len(self.models)))
        measured = [number for profile in profiles if profile is not None and (number := profile.parallel())]
        return min(measured, default=None) if edge.parallel is None else edge.parallel

    @property
    def capped(self) -> bool:
        """Whether there is a spend cap."""
        return self.spend.per_hour is not None or self.spend.per_day is not None

    def refuse_idle_over_cap(self) -> None:
        """Checks that the caps of [spend] leave money beside what provisioned instances cost while idle.

        Raises:
            ConfigError: they alone would use up a cap.
        """
        sheet, idle_per_s = self.price_sheet(), self._idle_per_s()
        caps = (("per_hour", "an hour", self.spend.per_hour, 3600), ("per_day", "a day", self.spend.per_day, 86400))
        for key, words, cap, window_s in caps:
            if sheet is not None and cap is not None and idle_per_s > 0 and cap <= idle_per_s * window_s:
                raise self.error(
                    ("spend", key),
                    f"the instances in `provisioned` of [deploy] cost {idle_per_s * window_s:.4g} {sheet.currency}"
                    f" {words} while idle, which uses up `{key}` = {cap:g} in [spend]; raise it or provision fewer",
                )

    def _idle_per_s(self) -> float:
        """Returns what provisioned instances cost a second while idle."""
        tiers = [tier for model in self.engine_settings().models for tier in model.tiers]
        return sum(tier.provisioned * tier.idle_per_s for tier in tiers)

    def caps_beside_idle(self) -> tuple[float | None, float | None]:
        """Returns the caps an hour and a day, less what provisioned instances cost while idle; None: no cap."""
        idle_per_s = self._idle_per_s()
        hour, day = self.spend.per_hour, self.spend.per_day
        return (
            None if hour is None else max(0.0, hour - idle_per_s * 3600),
            None if day is None else max(0.0, day - idle_per_s * 86400),
        )

    def currency(self) -> str:
        """Returns the currency of the price sheet; empty without functions."""
        sheet = self.price_sheet()
        return "" if sheet is None else sheet.currency

    def idle_prices(self) -> dict[tuple[str, str], float]:
        """Returns the price of a second of a provisioned instance without requests, by model and tier."""
        sheet = self.price_sheet()
        return {
            (model.name, tier.name): sheet.idle_per_s(**_hardware(tier))
            for model in self.models
            for tier in model.tiers
            if sheet is not None
        }

    def edge_at(self, edge: EdgeSection) -> toml_lines.KeyPath:
        """Returns the path of an edge server's table."""
        return self._source.written((EDGE, self.edges.index(edge)))

    def edge_table(self, edge: EdgeSection) -> str:
        """Returns the header of an edge server's table, with its name where there are several."""
        return "[edge]" if len(self.edges) == 1 else f"[[edge]] {edge.name}"

    def edge_profile(self, index: int, edge: EdgeSection | None = None) -> Profile | None:
        """Returns the profile of the model at that index on an edge server; None if that does not serve it.

        Args:
            index: of the model.
            edge: None: the first that serves the model.
        """
        model = self.models[index]
        if edge is None:
            found = (self.edge_profile(index, each) for each in self.edges)
            return next((profile for profile in found if profile is not None), None)
        if not edge.serves(model.name):
            return None
        if name := edge.profiles.get(model.name, ""):
            return self._profile(name, "edge", (*self.edge_at(edge), "profiles"))
        if model.edge_profile:
            return self._profile(model.edge_profile, "edge", ("model", index, "edge_profile"))
        return self._measured.get((model.name, edge.name))

    def card(self, index: int) -> Card | None:
        """Returns the card of the model at that index, None if the configuration describes it."""
        return self._cards[index]

    def identities(self) -> dict[str, str | None]:
        """Returns the hash of each model's card and files as they are here; None where a file is not known here."""
        return {model.name: identity for model, identity in zip(self.models, self._identities, strict=True)}

    def to_measure(self) -> tuple[ToMeasure, ...]:
        """Returns the cards of the models whose latency the daemon has to measure, and on which edge servers."""
        return tuple(
            ToMeasure(card, edge)
            for edge in self.edges
            for index, (model, card) in enumerate(zip(self.models, self._cards, strict=True))
            if model.card
            and card is not None
            and edge.serves(model.name)
            and not (model.edge_profile or edge.profiles.get(model.name) or self.edge_profile(index, edge))
        )

    def measured_later(self) -> frozenset[str]:
        """Returns the names of the models whose latency has to be measured and is known of no edge server yet."""
        wanted = {each.card.name for each in self.to_measure()}
        models = enumerate(self.models)
        return frozenset(m.name for i, m in models if m.name in wanted and self.edge_profile(i) is None)

    def note_measured(self, profile: Profile, edge: str = EDGE_NAME) -> None:
        """Uses a profile that the daemon measured on an edge server, for the model that it names."""
        self._measured[profile.model, edge] = profile

    def recall_measured(self, before: Config | None = None) -> None:
        """Uses the profiles measured earlier, by this process or another, of the same cards on the same edge."""
        urls = {} if before is None else {edge.name: edge.url for edge in before.edges}
        for card, edge in self.to_measure():
            identity = self.identities()[card.name]
            profile = remembered(self.state_folder(), card.name, identity=identity, edge=edge.url, name=edge.name)
            same = before is not None and urls.get(edge.name) == edge.url
            known = before._measured.get((card.name, edge.name)) if before is not None and same else None
            if profile is None and known is not None and known.environment.get("identity", "") == (identity or ""):
                profile = known
            if profile is not None:
                self.note_measured(profile, edge.name)

    def tier_profile(self, index: int, tier_index: int) -> Profile:
        """Returns the profile of a tier of the model at that index."""
        name = self.models[index].tiers[tier_index].profile
        return self._profile(name, "function", ("model", index, "tier", tier_index, "profile"))

    def access_key_file(self) -> Path | None:
        """Returns the file that holds the access key, None if environment variables hold it."""
        return self._secret_file(self.function.access_key_file) if self.function else None

    def explain_file(self) -> Path | None:
        """Returns the file that explanations are written to, None if there is none."""
        name = self.explain.file
        return self._source.path.parent / name if name else None

    def record_folder(self) -> Path | None:
        """Returns the folder that arrivals are recorded in, None if none are."""
        return self._source.path.parent / self.record.folder if self.record.folder else None

    def state_folder(self) -> Path | None:
        """Returns the folder for what outlives the process, None if nothing does."""
        name = self.daemon.state
        return self._source.path.parent / name if name else None

    def daemon_file(self, key: str) -> Path | None:
        """Returns the file that a key of [daemon] names, None if it names none."""
        return self._secret_file(str(getattr(self.daemon, key)))

    def edge_file(self, edge: EdgeSection, key: str) -> Path | None:
        """Returns the file that a key of an edge server's table names, None if it names none."""
        return self._secret_file(str(getattr(edge, key)))

    def spend_file(self, key: str) -> Path | None:
        """Returns the file that a key of [spend] names, None if it names none."""
        return self._secret_file(str(getattr(self.spend, key)))

    def _secret_file(self, name: str) -> Path | None:
        """Returns a file that may be one of systemd's credentials: a name without a folder that is among them."""
        if not name:
            return None
        passed = Path(self._credentials) / name
        return passed if self._credentials and "/" not in name and passed.exists() else self._source.path.parent / name

    def price_sheet(self) -> PriceSheet | None:
        if self.function is None:
            return None
        try:
            return load_sheet(self._source.resolve(self.function.price_sheet, shipped=shipped_sheets()))
        except PriceSheetError as error:
            raise self.error(("function", "price_sheet"), str(error)) from None

    def _profile(self, name: str, backend: str, at: toml_lines.KeyPath) -> Profile:
        try:
            profile = load_profile(self._source.resolve(name, shipped=shipped_profiles()))
        except ProfileError as error:
            raise self.error(at, str(error)) from None
        if profile.backend != backend:
            raise self.error(
                at, f"profile {name} was measured on the {profile.backend}; name one that was measured on the {backend}"
            )
        return profile

    def _model(self, index: int, model: ModelSection, sheet: PriceSheet | None) -> ModelSettings:
        laws = {edge.name: self._edge_latency(index, edge) for edge in self.edges}
        first = next((law for law in laws.values() if law is not None), None)
        classes = tuple(_service_class(section, self.daemon.late) for section in model.classes or (ClassSection(),))
        tiers = tuple(self._tier(index, number, tier, sheet) for number, tier in enumerate(model.tiers))
        return ModelSettings(
            name=model.name,
            max_items=model.max_items,
            classes=classes,
            edge_latency=first,
            tiers=tiers,
            buffers=self._loaded(index, model, classes, tiers) if model.function_plan and self._with_plans else (),
            default_priority=model.default_priority,
            identity=self._identities[index] or "",
            edge_latencies={name: law for name, law in laws.items() if law != first},
        )

    def _edge_latency(self, index: int, edge: EdgeSection) -> LatencyModel | None:
        profile, own = self.edge_profile(index, edge), (*self.edge_at(edge), "profiles")
        at = own if self.models[index].name in edge.profiles else ("model", index, "edge_profile")
        return None if profile is None else self._latency(profile, at)

    def _loaded(
        self, index: int, model: ModelSection, classes: tuple[ServiceClass, ...], tiers: tuple[FunctionTier, ...]
    ) -> tuple[LoadedBuffer, ...]:
        path = self._source.path.parent / model.function_plan
        try:
            return loaded_buffers(read_plan(path), model, classes=classes, tiers=tiers)
        except PlanFileError as error:
            raise self.error(("model", index, "function_plan"), str(error)) from None
        except EdgeburstError as error:
            raise self.error(("model", index, "function_plan"), f"{path}: {error}") from None

    def _tier(self, index: int, number: int, tier: TierSection, sheet: PriceSheet | None) -> FunctionTier:
        at = ("model", index, "tier", number)
        if sheet is None:
            raise self.error(at, f"tier {tier.name} needs a function account; add a [function] table")
        try:
            price, idle_per_s = sheet.tier_price(**_hardware(tier)), sheet.idle_per_s(**_hardware(tier))
        except PriceSheetError as error:
            raise self.error(at, f"tier {tier.name} cannot be priced: {error}") from None
        return FunctionTier(
            name=tier.name,
            function_name=tier.function,
            latency=self._latency(self.tier_profile(index, number), (*at, "profile")),
            price=price,
            qualifier=tier.qualifier,
            max_in_flight=tier.max_in_flight,
            max_body_bytes=sheet.max_body_bytes(beside=FRAME_BYTES),
            provisioned=0 if self.deploy is None else self.deploy.provisioned.get(tier.name, 0),
            idle_per_s=idle_per_s,
        )

    def _latency(self, profile: Profile, at: toml_lines.KeyPath) -> LatencyModel:
        try:
            return LatencyModel(
                alpha_s=profile.alpha_s,
                beta_s=profile.beta_s,
                max_batch=profile.max_batch,
                rows=tuple((row.batch, row.p50_s) for row in profile.rows),
                decode_s=profile.decode_s,
            )
        except ValueError as error:
            raise self.error(at, f"profile {profile.name} has no valid latency model: {error}") from None


def load_config(path: str | Path, environ: Mapping[str, str], *, with_plans: bool = True) -> Config:
    """Reads and checks a configuration, with every profile, price sheet and plan that it names.

    Args:
        path: the TOML file.
        environ: the process environment; EDGEBURST_TABLE__KEY overrides a key of [daemon], [grpc], [engine],
            [spend], [explain], [record], [edge], [function].
        with_plans: False ignores plans, for the command that makes their functions.

    Raises:
        ConfigError: the configuration is not valid; one sentence with file and line.
    """
    tables, source = read_source(Path(path), environ)
    try:
        config = Config.model_validate(_tuples(tables))
    except ValidationError as error:
        raise config_error(source, error.errors(include_url=False)) from None
    cards = read_cards(config.models, source)
    models = tuple(described(model, card) for model, card in zip(config.models, cards, strict=True))
    config = config.model_copy(update={"models": models})
    config._source, config._with_plans, config._cards = source, with_plans, cards
    config._credentials = environ.get(CREDENTIALS, "")
    for at, sentence in contradictions(config):
        raise source.error(at, sentence)
    config._identities = tuple(None if card is None else card.identity() for card in cards)
    config.recall_measured()
    config.engine_settings()
    if with_plans:
        config.refuse_idle_over_cap()
    return config


def _hardware(tier: TierSection) -> dict[str, Any]:
    """Returns what a price sheet charges of a tier."""
    return tier.model_dump(include={"memory_gb", "vcpu", "gpu_gb", "gpu_type", "disk_gb"})


def _tuples(value: Any) -> Any:
    """Returns a value with tuples for its lists, because the strict check of types converts nothing."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def _service_class(section: ClassSection, late: Late) -> ServiceClass:
    return ServiceClass(
        name=section.name,
        slo_s=section.slo_s,
        percentile=section.percentile,
        serve_late=(section.late or late) == "serve",
        spends=section.budget == "spend",
        edge_only="edge-only" in section.labels,
        deferrable="deferrable" in section.labels,
    )
