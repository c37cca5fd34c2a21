"""The names of the exact findings, available without importing the numerics."""

EXACT_NAMES = ("adam_over_step", "clip_and_rank")
