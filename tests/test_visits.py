"""The order and length of visits, and which arms may know of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from plasticity import results
from plasticity.config.documents import from_yaml, to_yaml
from plasticity.config.experiments import read_experiment
from plasticity.core.errors import UserError
from plasticity.core.types import StreamSpec, VisitPlan
from plasticity.engine.lanes import lane_keys
from plasticity.engine.visits import own_task, scheduled
from plasticity.runs import launch

VISITS = (VisitPlan(0, 10), VisitPlan(1, 20), VisitPlan(2, 30))
SPEC = StreamSpec(None, 2, ("a", "b", "c"), VISITS, 1, False)
FRESH = {"interventions": [{"kind": "reset", "when": "switch"}]}


def plans(**settings):
    return [tuple(plan) for plan in scheduled(SPEC, **settings).visits]


def test_without_settings_the_sequence_is_the_streams_own():
    assert scheduled(SPEC) == SPEC


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"cycles": 2}, [(0, 10), (1, 20), (2, 30), (0, 10), (1, 20), (2, 30)]),
        ({"steps": 5}, [(0, 5), (1, 5), (2, 5)]),
        ({"steps": [5, 7]}, [(0, 5), (1, 7), (2, 5)]),
        ({"visits": ["c", "a", "c"]}, [(2, 30), (0, 10), (2, 30)]),
        ({"visits": [0, 1, 0], "steps": [4, 6], "cycles": 2}, [(0, 4), (1, 6), (0, 4), (0, 6), (1, 4), (0, 6)]),
    ],
)
def test_sequences(settings, expected):
    assert plans(**settings) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visits": ["a", "bb"]}, r'visits\[1\]: unknown task "bb"; the stream has a, b, c$'),
        ({"visits": [3]}, r"visits\[0\]: 3 is not allowed; must be one of the stream's tasks, 0 ... 2"),
        ({"visits": []}, "visits: must name at least one task"),
        ({"steps": [3, 0]}, r"steps: \[3, 0\] is not allowed; must be at least 1"),
    ],
)
def test_what_is_no_sequence_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        scheduled(SPEC, **settings)


def own(spec, seeds):
    """int[lanes, tasks]"""
    keys = jax.vmap(lane_keys)(jnp.asarray(seeds)).data
    return np.stack([own_task(spec, keys, jnp.int32(task)) for task in range(len(spec.tasks))], axis=1)


def test_a_fixed_order_is_that_of_every_lane():
    assert own(SPEC, [0, 5]).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_a_shuffled_order_is_a_permutation_of_each_seed_and_every_one_as_likely():
    orders = own(scheduled(SPEC, order="shuffled"), range(600))
    assert (np.sort(orders, axis=1) == np.arange(3)).all()
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert abs(counts - 100).max() < 5 * math.sqrt(600 * 1 / 6 * 5 / 6)
    assert (orders[:5] == own(scheduled(SPEC, order="shuffled"), range(5))).all()


def test_a_run_records_the_task_of_each_lane(tmp_path):
    document = tiny.document(
        schedule={"order": "shuffled", "visits": [0, 1, 2, 0]}, arms={"baseline": {}, "decayed": {}}, seeds=4
    )
    experiment = read_experiment(document, launch.registry())
    visits = results.visits(launch.run(experiment, tmp_path / "run"))
    orders = own(launch.plan(experiment).spec, range(4))
    for (_, lane), rows in visits.groupby(["arm", "lane"]):
        first, second, third = (f"labels_{task}" for task in orders[lane])
        assert rows["task"].tolist() == [first, second, third, first]
    assert len({tuple(order) for order in orders.tolist()}) > 1


def test_the_resolved_experiment_keeps_schedule_and_task_aware():
    given = {"order": "shuffled", "visits": [0, "labels_1"], "steps": [20, 40], "cycles": 2}
    experiment = tiny.experiment(schedule=given, task_aware=True, arms={"a": {}, "b": {"task_aware": False}})
    resolved = experiment.resolve()
    assert resolved["schedule"] == given
    assert (resolved["task_aware"], resolved["arms"]) == (True, {"a": {}, "b": {"task_aware": False}})
    assert read_experiment(from_yaml(to_yaml(resolved), "x"), launch.registry()) == experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": {"visits": ["labels_7"]}}, r'schedule: visits\[0\]: unknown task "labels_7"'),
        ({"schedule": {"order": "shufled"}}, r"schedule.order: .*did you mean `shuffled`"),
        ({"schedule": {"cycle": 2}}, r"schedule.cycle: unknown key; .*did you mean `cycles`"),
        ({"task_aware": "yes"}, r"task_aware: \"yes\" is not allowed; must be true or false"),
        ({"arms": {"a": {"task_aware": 3}}}, r"arms.a.task_aware: 3 is not allowed; must be true or false"),
        (
            {"arms": {"a": {}, "fresh": FRESH}},
            r"arms.fresh: interventions.reset must know of task switches; set `task_aware: true`",
        ),
        (
            {"arms": {"b": {"interventions": ["shrink_perturb", {"kind": "optimizer_reset"}]}}},
            "arms.b: interventions.shrink_perturb and interventions.optimizer_reset must know",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        launch.plan(tiny.experiment(**changes))


def test_an_agent_whose_normaliser_is_reset_must_be_task_aware():
    streaming = {"kind": "stream_q", "network": {"kind": "mlp", "widths": [8]}, "normalise": "switch"}
    stream = {"kind": "catch", "rows": 3, "tasks": 2, "steps_per_task": 20}
    settings = {"agent": streaming, "stream": stream, "monitors": [], "seeds": 1}
    with pytest.raises(UserError, match=r"arms.baseline: agent.normalise must know"):
        launch.plan(tiny.experiment(**settings))
    assert launch.plan(tiny.experiment(**settings, task_aware=True)).describe()["arms"][0]["task_aware"]


def test_task_aware_arms_and_single_visits_are_allowed():
    assert launch.plan(tiny.experiment(arms={"fresh": {**FRESH, "task_aware": True}})).jobs
    assert launch.plan(tiny.experiment(arms={"fresh": FRESH}, task_aware=True)).jobs
    assert launch.plan(tiny.experiment(arms={"fresh": FRESH}, schedule={"visits": [0]})).jobs
    periodic = {"interventions": [{"kind": "reset", "when": "periodic", "period": 10}]}
    assert launch.plan(tiny.experiment(arms={"a": periodic})).jobs
