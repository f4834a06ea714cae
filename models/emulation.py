"""A device that is not there: how long to wait so that a batch takes as long as a profile says it would."""

from __future__ import annotations

from dataclasses import dataclass

from models.profile import Profile, load_profile


@dataclass(frozen=True, slots=True)
class Emulation:
    """The device whose speed is copied, or none.

    Attributes:
        profile: the profile whose law is copied; None runs at the machine's true speed.
    """

    profile: Profile | None = None

    @property
    def name(self) -> str | None:
        """The profile's name, None at true speed."""
        return self.profile.name if self.profile else None

    def remaining_s(self, items: int, elapsed_s: float) -> float:
        """Returns the wait that is left so that the whole service takes the law's time.

        Args:
            items: items in the batch, at least 1.
            elapsed_s: seconds since the batch began being worked on.

        Returns:
            seconds; 0 if the law's time is over already, and always at true speed.

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
    """Returns the emulation of a shipped profile or a profile's file; of none, true speed.

    Raises:
        ProfileError: there is no such profile, or it is not valid.
    """
    return Emulation() if name is None else Emulation(load_profile(name))
