"""Growing sets of samples: which classes and which rows a visit shows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, visit_of
from sklearn.datasets import load_digits

from plasticity.envs.base import PARAMS
from plasticity.envs.growing import class_incremental, warm_start
from plasticity.envs.supervised import TARGETS

PIXELS, LABELS = load_digits(return_X_y=True)
KNOWN = (PIXELS[:100] - PIXELS[:100].mean()) / PIXELS[:100].std()
DRAWN = 600


def openings(source: Any, tasks: int, eval_replica: int = 0) -> list[Any]:
    """Rows of the first 100 digits that open the visits of one lane, and their targets."""
    reset = jax.jit(source.make(1).reset)
    found = []
    for task in range(tasks):
        visit = visit_of(task)._replace(eval_replica=jnp.int32(eval_replica))
        seen = reset(lane_keys(0), visit, jnp.int32(0))[1].observation
        row = np.abs(np.asarray(seen.input[0])[:, None] - KNOWN).max(-1).argmin(1)
        np.testing.assert_allclose(seen.input[0], KNOWN[row], atol=1e-5)
        np.testing.assert_array_equal(seen.target[0], LABELS[row])
        found.append(row)
    return found


@pytest.mark.parametrize("shown", ["seen", "new"])
@pytest.mark.parametrize("order", ["fixed", "random"])
def test_classes_arrive_in_groups(shown: Any, order: Any) -> None:
    source = class_incremental(samples=100, classes_per_task=4, shown=shown, order=order, envs=DRAWN)
    assert (source.spec.actions, source.spec.tasks) == (10, ("groups_0", "groups_1", "groups_2"))
    key = jax.random.fold_in(jax.random.fold_in(lane_keys(0)[0], PARAMS), TARGETS)
    classes = np.arange(10) if order == "fixed" else np.asarray(jax.random.permutation(key, 10))
    for task, rows in enumerate(openings(source, 3)):
        present = classes[4 * task * (shown == "new") : 4 * (task + 1)]
        assert set(LABELS[rows]) == set(present)
        of_them = np.isin(LABELS[:100], present)
        counts, even = np.bincount(rows, minlength=100)[of_them], DRAWN / of_them.sum()
        free = of_them.sum() - 1  # chi-squared: mean `free`, variance `2 free`
        assert abs(((counts - even) ** 2 / even).sum() - free) < 5 * np.sqrt(2 * free)


def test_classes_need_true_labels() -> None:
    with pytest.raises(ValueError, match="inputs: gaussian is not allowed; this stream needs inputs with true labels"):
        class_incremental(inputs="gaussian")


@pytest.fixture(scope="module")
def warm() -> tuple[Any, np.ndarray]:
    """A stream that trains on 40 and on 80 of 100 samples, and the lane's order of them."""
    source = warm_start(samples=100, envs=DRAWN)
    key = jax.random.fold_in(jax.random.fold_in(lane_keys(0)[0], PARAMS), TARGETS)
    return source, np.asarray(jax.random.permutation(key, 100))


def test_half_of_the_samples_then_all(warm: Any) -> None:
    source, order = warm
    assert source.spec.tasks == ("share_0", "share_1")
    half, all_of_them = openings(source, 2)
    assert set(half) == set(order[:40])
    assert set(all_of_them) <= set(order[:80])
    assert len(set(all_of_them)) > 70


def test_evaluation_shows_the_samples_held_out(warm: Any) -> None:
    source, order = warm
    for rows in openings(source, 2, eval_replica=3):
        assert set(rows) == set(order[80:])


def test_nothing_held_out() -> None:
    source = warm_start(samples=100, envs=DRAWN, held_out=0.0, shares=(0.1, 0.3, 1.0))
    trained, evaluated = openings(source, 3), openings(source, 3, eval_replica=3)
    assert [len(set(rows)) for rows in trained[:2]] == [10, 30]
    assert [set(rows) for rows in trained[:2]] == [set(rows) for rows in evaluated[:2]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"shares": (0.5, 1.1)},
            r"shares: \[0.5, 1.1\] is not allowed; must be numbers in \(0, 1\], one for each task",
        ),
        ({"shares": (0.0, 1.0)}, r"shares: \[0.0, 1.0\] is not allowed"),
        ({"shares": ()}, r"shares: \[\] is not allowed"),
        ({"held_out": 1.0}, "held_out: 1.0 is not allowed; it leaves none of the 1797 samples for training"),
    ],
)
def test_warm_start_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warm_start(**settings)
