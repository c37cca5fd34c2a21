"""Monitors: measurements of a learner that do not change it. ``MONITORS`` lists every member of the family."""

from collections.abc import Callable, Mapping

from plasticity.monitors.base import Monitor, compose
from plasticity.monitors.capacity import capacity
from plasticity.monitors.churn import churn, policy_change
from plasticity.monitors.curvature import hessian_top_eigenvalue
from plasticity.monitors.density import hessian_density, hessian_trace
from plasticity.monitors.gradients import gradient_covariance, ntk
from plasticity.monitors.parameters import (
    distance_from_initialisation,
    effective_learning_rate,
    gradient_norm,
    spectral_norm,
    weight_norm,
)
from plasticity.monitors.plasticity import plasticity_probe, upgd_plasticity, warm_start_gap
from plasticity.monitors.representation import (
    approximate_rank,
    effective_rank,
    feature_norm,
    feature_rank,
    numerical_rank,
    participation_ratio,
    srank,
    stable_rank,
)
from plasticity.monitors.units import (
    activation_sparsity,
    constant_units,
    dead_units,
    dormant_units,
    linearised_units,
    saturated_units,
)
from plasticity.monitors.updates import second_moment, update_ratio, value_scale

_MEMBERS: tuple[Callable[..., Monitor], ...] = (
    effective_rank,
    srank,
    approximate_rank,
    feature_rank,
    numerical_rank,
    stable_rank,
    participation_ratio,
    feature_norm,
    dormant_units,
    dead_units,
    constant_units,
    saturated_units,
    linearised_units,
    activation_sparsity,
    gradient_covariance,
    ntk,
    churn,
    policy_change,
    hessian_top_eigenvalue,
    hessian_trace,
    hessian_density,
    weight_norm,
    spectral_norm,
    distance_from_initialisation,
    gradient_norm,
    effective_learning_rate,
    update_ratio,
    second_moment,
    value_scale,
    plasticity_probe,
    capacity,
    upgd_plasticity,
    warm_start_gap,
)

MONITORS: Mapping[str, Callable[..., Monitor]] = {member.__name__: member for member in _MEMBERS}

__all__ = ["MONITORS", "Monitor", "compose", *MONITORS]
