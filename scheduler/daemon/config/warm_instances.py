"""The provisioned instances that a configuration's expected traffic needs, and those that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from scheduler.daemon.config.config import Config
from scheduler.daemon.config.deploy_sections import DeploySection
from scheduler.planner.site.warm_instances import Proposal
from scheduler.planning.warm_instances import DAY_S, InstanceTerms, Traffic, configured_sentence, tier_proposals


def expected_traffic(config: Config) -> dict[str, Traffic]:
    """Returns the traffic that [deploy.traffic] expects, by model."""
    sections = config.deploy.traffic if config.deploy else {}
    return {
        name: Traffic(section.rps, section.hold_s, float(section.request_bytes)) for name, section in sections.items()
    }


def instance_terms(config: Config, *, uplink_bytes_per_s: float | None = None) -> InstanceTerms:
    """Returns prices and times of instances; the times are those of [deploy], or its defaults without the table."""
    defaults = DeploySection.model_fields
    start_s = config.deploy.start_s if config.deploy else float(defaults["start_s"].default)
    kept_s = config.deploy.kept_s if config.deploy else float(defaults["kept_s"].default)
    return InstanceTerms(config.idle_prices(), start_s, kept_s, uplink_bytes_per_s)


def configured_counts(config: Config) -> Mapping[str, int]:
    """Returns the provisioned instances of [deploy], by tier; tiers that it does not name have none."""
    return config.deploy.provisioned if config.deploy else {}


def proposals(config: Config) -> tuple[Proposal, ...]:
    """Returns the proposal for each tier whose traffic is expected; none without [deploy.traffic]."""
    traffic = expected_traffic(config)
    return tier_proposals(config.engine_settings(), traffic, instance_terms(config)) if traffic else ()


def instance_warnings(config: Config, proposed: Sequence[Proposal]) -> Iterator[str]:
    """Yields a sentence for each configured number of instances that costs more than it saves, or is too small.

    Args:
        config: the configuration.
        proposed: its `proposals`, which take a second to compute.
    """
    counts, currency, planned = configured_counts(config), config.currency(), set()
    for proposal in proposed:
        planned.add(proposal.tier)
        if sentence := configured_sentence(proposal, counts.get(proposal.tier, 0), currency=currency):
            yield sentence
    terms = instance_terms(config)
    for model in config.engine_settings().models:
        for tier in model.tiers:
            count = counts.get(tier.name, 0)
            if not count or tier.name in planned:
                continue
            idle = terms.idle_prices[model.name, tier.name] * DAY_S
            saved = tier.price.cost(terms.start_s) * DAY_S / terms.kept_s
            if idle > saved:
                yield (
                    f"`provisioned` in [deploy] has {count} for tier {tier.name}: each costs {idle:.4g} {currency} a"
                    f" day while idle and saves at most {saved:.4g} in starts, so that it pays only by late answers"
                    f" that it prevents; [deploy.traffic.{model.name}] lets `edgeburst plan` say how many do"
                )
