"""Shared by every other package: records of functions, trees of arrays, errors, schedules, exact sums.

Imports nothing of the project outside this package. ``errors`` does not import JAX.
"""
