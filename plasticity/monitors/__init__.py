"""Monitors: what can be recorded of a learner without touching it. ``MONITORS`` names every member of the family."""

from collections.abc import Callable, Mapping

from plasticity.monitors.base import Monitor, compose
from plasticity.monitors.curvature import hessian_top_eigenvalue
from plasticity.monitors.parameters import (
    distance_from_initialisation,
    effective_learning_rate,
    gradient_norm,
    weight_norm,
)
from plasticity.monitors.representation import (
    approximate_rank,
    effective_rank,
    feature_rank,
    numerical_rank,
    participation_ratio,
    srank,
    stable_rank,
)
from plasticity.monitors.units import constant_units, dead_units, dormant_units, linearised_units

_MEMBERS: tuple[Callable[..., Monitor], ...] = (
    effective_rank,
    srank,
    approximate_rank,
    feature_rank,
    numerical_rank,
    stable_rank,
    participation_ratio,
    dormant_units,
    dead_units,
    constant_units,
    linearised_units,
    hessian_top_eigenvalue,
    weight_norm,
    distance_from_initialisation,
    gradient_norm,
    effective_learning_rate,
)

MONITORS: Mapping[str, Callable[..., Monitor]] = {member.__name__: member for member in _MEMBERS}

__all__ = ["MONITORS", "Monitor", "compose", *MONITORS]
