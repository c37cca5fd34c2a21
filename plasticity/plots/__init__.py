"""Figures from tables: one stateless function per figure, and :func:`save_all`."""

from plasticity.plots.aggregates import aggregates, profiles, sensitivity
from plasticity.plots.behaviour import first_against_later, learning_speed
from plasticity.plots.curves import learning_curve, monitor_names, monitors
from plasticity.plots.layers import hessian_density, layer_names, layers
from plasticity.plots.matrix import performance_matrix
from plasticity.plots.mechanisms import correlations, mechanisms
from plasticity.plots.methods import against_baseline
from plasticity.plots.options import Options
from plasticity.plots.performance import performance
from plasticity.plots.run_figures import figures
from plasticity.plots.save import save, save_all
from plasticity.plots.thin import thinned

__all__ = [
    "Options",
    "against_baseline",
    "aggregates",
    "correlations",
    "figures",
    "first_against_later",
    "hessian_density",
    "layer_names",
    "layers",
    "learning_curve",
    "learning_speed",
    "mechanisms",
    "monitor_names",
    "monitors",
    "performance",
    "performance_matrix",
    "profiles",
    "save",
    "save_all",
    "sensitivity",
    "thinned",
]
