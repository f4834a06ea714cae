"""Plots are drawn with matplotlib: the extra `plots` brings it, and nothing else needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.domain.errors import EdgeburstError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_plots(asked_by: str) -> None:
    """Checks that plots can be drawn, before work begins whose result would be lost.

    Args:
        asked_by: the option or program that asks for a plot, for the message.

    Raises:
        EdgeburstError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise EdgeburstError(
            f"{asked_by} needs the extra `plots` (the Python package matplotlib): install it from the source tree with"
            " pip install '.[plots]', or leave the plot out"
        ) from error


def new_figure(asked_by: str, *, width_in: float, height_in: float) -> Figure:
    """Returns an empty figure that can be saved to a file; sizes are inches.

    Raises:
        EdgeburstError: matplotlib is not installed.
    """
    require_plots(asked_by)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
