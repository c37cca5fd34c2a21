"""A warning that visits may be too short for episodes."""

import warnings


def warn_if_short(key: str, given: int, longest: int, unit: str = "steps", least: int | None = None) -> None:
    """Warns where ``given``, the setting ``key``, is below ``least``, by default the ``longest`` that an episode lasts
    (0: it has no limit, and nothing is known)."""
    if longest and given < (longest if least is None else min(least, longest)):
        warnings.warn(
            f"{key}: {given:,} is shorter than an episode may last (up to {longest:,} {unit}); a visit in which no "
            "episode ends has no return to report",
            stacklevel=3,
        )
