"""Warning for visits that may be too short for an episode."""

import warnings


def warn_if_short(key: str, given: int, longest: int, unit: str = "steps", least: int | None = None) -> None:
    """Warn if ``given``, the value of setting ``key``, is below ``least``.

    ``least`` defaults to ``longest``, the maximum length of an episode (0: unlimited or unknown).
    """
    if longest and given < (longest if least is None else min(least, longest)):
        warnings.warn(
            f"{key}: {given:,} is shorter than an episode may last (up to {longest:,} {unit}); a visit in which no "
            "episode ends has no return to report",
            stacklevel=3,
        )
