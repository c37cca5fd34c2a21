"""The names of the exact findings, known without the numerics."""

EXACT_NAMES = ("adam_over_step", "clip_and_rank")
