"""A run's folder as tidy tables: metrics, visits, lanes, and a summary with intervals over seeds.

The functions only read files, and the run may still be in progress: arms without a folder and unwritten records are
left out. A lane that diverged has missing values from then on. Means exclude it, and :func:`summary` counts it.
"""

from plasticity.results.aggregate import aggregates
from plasticity.results.areas import carried_over, evaluation_areas, forward_transfer_of_areas
from plasticity.results.atari_scores import human_normalised, human_normalised_score
from plasticity.results.behaviour import (
    Scores,
    learning_curves_area,
    relative_learning_speed,
    revisits,
    steps_to_threshold,
)
from plasticity.results.best import BestPoints, best_points, tuned_points
from plasticity.results.change import Compared, Rule, alike, compare_lanes, rule
from plasticity.results.compare import summary, task_changes
from plasticity.results.continual import ContinualWorld, continual_world, final_performance, shortfall
from plasticity.results.export import csv_text, latex_text, save_table
from plasticity.results.forks import forks
from plasticity.results.intervals import Interval, curve, mean_interval
from plasticity.results.per_visit import visits
from plasticity.results.points import Point, points
from plasticity.results.profiles import performance_profiles, probability_of_improvement
from plasticity.results.ranges import difference_range, metric_ranges, performance_range
from plasticity.results.read import (
    by_stream,
    controls,
    evaluations,
    hyper_parameters,
    lanes,
    load,
    plan,
)
from plasticity.results.run_folder import RunFolder
from plasticity.results.scales import Scale, Scales
from plasticity.results.scores import TaskScores, differences, normalise, task_scores
from plasticity.results.selection import Selection, select, sensitivity
from plasticity.results.show import print_summary
from plasticity.results.show_two_runs import print_comparison
from plasticity.results.transfer import (
    Matrix,
    average_performance,
    backward_transfer,
    forgetting,
    forgetting_from_best,
    forward_transfer,
    intransigence,
    isolated_forgetting,
    isolated_forward_transfer,
    performance_matrix,
)
from plasticity.results.two_runs import TwoRuns, compare_runs

__all__ = [
    "BestPoints",
    "Compared",
    "ContinualWorld",
    "Interval",
    "Matrix",
    "Point",
    "Rule",
    "RunFolder",
    "Scale",
    "Scales",
    "Scores",
    "Selection",
    "TaskScores",
    "TwoRuns",
    "aggregates",
    "alike",
    "average_performance",
    "backward_transfer",
    "best_points",
    "by_stream",
    "carried_over",
    "compare_lanes",
    "compare_runs",
    "continual_world",
    "controls",
    "csv_text",
    "curve",
    "difference_range",
    "differences",
    "evaluation_areas",
    "evaluations",
    "final_performance",
    "forgetting",
    "forgetting_from_best",
    "forks",
    "forward_transfer",
    "forward_transfer_of_areas",
    "human_normalised",
    "human_normalised_score",
    "hyper_parameters",
    "intransigence",
    "isolated_forgetting",
    "isolated_forward_transfer",
    "lanes",
    "latex_text",
    "learning_curves_area",
    "load",
    "mean_interval",
    "metric_ranges",
    "normalise",
    "performance_matrix",
    "performance_profiles",
    "performance_range",
    "plan",
    "points",
    "print_comparison",
    "print_summary",
    "probability_of_improvement",
    "relative_learning_speed",
    "revisits",
    "rule",
    "save_table",
    "select",
    "sensitivity",
    "shortfall",
    "steps_to_threshold",
    "summary",
    "task_changes",
    "task_scores",
    "tuned_points",
    "visits",
]
