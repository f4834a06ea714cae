"""Our densities in the form of bayesian_changepoint_detection."""

import numpy as np

from scheduler.estimators.densities import Density, Floats


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
