"""A plot of a profile: latency and throughput by batch size, with the latency model."""

from __future__ import annotations

from pathlib import Path

from models.profile import Profile
from scheduler.measuring.errors import MeasuringError
from scheduler.plotting import new_figure


def plot_profile(profile: Profile, path: Path) -> None:
    """Draws a profile; the suffix of the file selects the format.

    Raises:
        EdgeburstError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure("--plot", width_in=10, height_in=4.5)
    figure.suptitle(f"{profile.model} on {profile.device}, {profile.date}")
    latency, throughput = figure.subplots(1, 2)
    batches = [row.batch for row in profile.rows]
    medians_ms = [row.p50_s * 1e3 for row in profile.rows]
    to_p95_ms = [(row.p95_s - row.p50_s) * 1e3 for row in profile.rows]
    nothing = [0.0] * len(batches)
    latency.errorbar(batches, medians_ms, yerr=[nothing, to_p95_ms], fmt="o", capsize=3, label="median, bar to p95")
    ends = [0, profile.max_batch]
    latency.plot(ends, [profile.predict_s(items) * 1e3 for items in ends], label="fitted model")
    latency.set(xlabel="items in a batch", ylabel="latency, ms", ylim=(0, None), xlim=(0, None))
    latency.legend()
    throughput.plot(batches, [row.items_per_s for row in profile.rows], "o-")
    throughput.set(xlabel="items in a batch", ylabel="throughput, items/s", ylim=(0, None), xlim=(0, None))
    for axes in (latency, throughput):
        axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise MeasuringError(f"cannot draw the profile to {path}: {error}; name another file") from error
