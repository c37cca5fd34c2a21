"""Optimizers: optax's as members, eligibility traces, and step sizes.

Imports ``core`` and ``config``.
"""
