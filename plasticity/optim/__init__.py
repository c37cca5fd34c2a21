"""Optimizers: optax's as members, eligibility traces, and the step size of one that hides it.

Imports ``core`` and ``config``.
"""
