"""A run's folder as tidy tables: metrics, visits, lanes, and a summary with intervals over seeds.

Reads files only. A run may be under way: arms without a folder and records not written yet are left out. A lane that
diverged has missing values from then on; it drops out of every mean, and :func:`summary` counts it.
"""

from plasticity.results.compare import Point, points, summary
from plasticity.results.intervals import Interval, curve, mean_interval
from plasticity.results.read import evaluations, hyper_parameters, lanes, load, plan, visits
from plasticity.results.show import print_summary

__all__ = [
    "Interval",
    "Point",
    "curve",
    "evaluations",
    "hyper_parameters",
    "lanes",
    "load",
    "mean_interval",
    "plan",
    "points",
    "print_summary",
    "summary",
    "visits",
]
