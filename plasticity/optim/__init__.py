"""Optimizers as members, eligibility traces, schedules and step sizes.

Imports ``core`` and ``config``.
"""
