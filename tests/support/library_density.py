"""Densities of bayesian_changepoint_detection in the form that our run-length recursion needs."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from scheduler.estimators.densities import Density, Floats, Rows

MIN_PDF = 1e-300
"""Stands in for a density that has underflowed to 0, whose logarithm would end the recursion."""


class LibraryForm(Protocol):
    """A density as the library writes it."""

    def pdf(self, data: float) -> Floats:
        """Returns the predictive density under each row."""

    def update_theta(self, data: float) -> None:
        """Updates every row with the value, then puts the prior in front."""


class LibraryDensity:
    """Adapts a density in the library's form, such as its StudentT, to our bounded recursion.

    Args:
        density: the library's object.
        parameters: names of its attributes that hold one value per row.
    """

    def __init__(self, density: LibraryForm, parameters: Sequence[str] = ("alpha", "beta", "kappa", "mu")) -> None:
        """Stores the density."""
        self._density = density
        self._parameters = tuple(parameters)

    def log_pdf(self, value: float) -> Floats:
        """Returns the log predictive density of `value` under each row."""
        return np.log(np.maximum(self._density.pdf(value), MIN_PDF))

    def update_theta(self, value: float) -> None:
        """Updates every row with `value`."""
        self._density.update_theta(value)

    def select(self, rows: Rows) -> None:
        """Keeps only these rows."""
        for name in self._parameters:
            setattr(self._density, name, getattr(self._density, name)[rows])


class InLibraryForm:
    """Adapts one of our densities to the library's recursion.

    Args:
        density: ours.
    """

    def __init__(self, density: Density) -> None:
        """Stores the density."""
        self._density = density

    def pdf(self, data: float) -> Floats:
        """Returns the predictive density under each row."""
        return np.exp(self._density.log_pdf(data))

    def update_theta(self, data: float) -> None:
        """Updates every row with the value."""
        self._density.update_theta(data)
