"""Emulation of another device: how long to wait so that a batch takes as long as the device's profile predicts."""

from __future__ import annotations

from dataclasses import dataclass

from models.profile import Profile, load_profile


@dataclass(frozen=True, slots=True)
class Emulation:
    """Emulated device, or none.

    Attributes:
        profile: profile of the emulated device; None for this machine's own speed.
    """

    profile: Profile | None = None

    @property
    def name(self) -> str | None:
        """Name of the profile; None without emulation."""
        return self.profile.name if self.profile else None

    @property
    def decode_s(self) -> float:
        """Seconds that a batch is decoded beside the device; 0 without emulation."""
        return self.profile.decode_s if self.profile else 0.0

    def remaining_s(self, items: int, elapsed_s: float) -> float:
        """Returns the remaining wait after which the service has taken the time that the profile predicts.

        Args:
            items: items in the batch, at least 1.
            elapsed_s: seconds since the service of the batch began.

        Returns:
            Seconds; 0 if this time has passed already, and always 0 without emulation.

        >>> emulation = emulation_for("orin-resnet50")
        >>> round(emulation.remaining_s(20, 0.1), 5)
        0.10564
        >>> emulation_for(None).remaining_s(20, 0.1)
        0.0
        """
        if self.profile is None:
            return 0.0
        return max(0.0, self.profile.predict_s(items) - elapsed_s)


def emulation_for(name: str | None) -> Emulation:
    """Returns the emulation of a profile, given by its name or its file; no emulation for None.

    Raises:
        ProfileError: there is no such profile, or it is not valid.
    """
    return Emulation() if name is None else Emulation(load_profile(name))
