"""Which policy of an earlier task explores, by each rule, from what was tried."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.interventions.base import Tried, clashes, compose
from plasticity.interventions.exploration import old_policy_exploration
from plasticity.interventions.restriction import restricted
from plasticity.interventions.task import task_heads

KEYS = jax.random.split(jax.random.key(0), 4_000)


def tried(ended: Any, begun: Any = (0, 0, 0, 0), finished: Any = (0, 0, 0, 0), returns: Any = (0, 0, 0, 0)) -> Tried:
    counts = [jnp.asarray(each, jnp.int32) for each in (begun, finished)]
    return Tried(jnp.asarray(ended, bool), jnp.int32(2), *counts, jnp.asarray(returns, jnp.float32))


def chosen(how: str, seen: Tried, **settings: Any) -> int:
    made = old_policy_exploration(how=how, **settings).explore(KEYS[0], seen)  # type: ignore[arg-type]
    assert (made.dtype, made.shape) == (jnp.int32, ())
    return int(made)


def shares(how: str, seen: Tried, **settings: Any) -> np.ndarray:
    """How often each policy is chosen in 4,000 draws; the last is the current task's."""
    explore = old_policy_exploration(how=how, **settings).explore  # type: ignore[arg-type]
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: explore(key, seen)))(KEYS))
    return np.bincount(np.where(drawn == -1, 4, drawn), minlength=5) / len(KEYS)


def test_the_previous_one() -> None:
    assert chosen("previous", tried([1, 0, 1, 0])) == 2


def test_each_earlier_one_is_equally_likely() -> None:
    np.testing.assert_allclose(shares("uniform", tried([1, 0, 1, 1])), [1 / 3, 0, 1 / 3, 1 / 3, 0], atol=0.04)


def test_or_the_current_one() -> None:
    np.testing.assert_allclose(
        shares("uniform_or_current", tried([1, 0, 0, 1])), [1 / 3, 0, 0, 1 / 3, 1 / 3], atol=0.04
    )


@pytest.mark.parametrize("how", ["best_return", "softmax_return"])
@pytest.mark.parametrize(
    ("begun", "finished", "next_one"),
    [
        ((0, 0, 0, 0), (0, 0, 0, 0), 0),
        ((1, 0, 0, 0), (1, 0, 0, 0), 2),  # task 1 was never visited
        ((1, 0, 1, 0), (1, 0, 1, 0), 3),
        ((1, 0, 0, 0), (0, 0, 0, 0), 2),  # the first is still playing in another env
        ((1, 0, 1, 1), (0, 0, 1, 1), 0),  # and is the only one without a return
        ((2, 0, 1, 1), (0, 0, 0, 1), 2),
    ],
)
def test_each_is_tried_once(how: str, begun: Any, finished: Any, next_one: int) -> None:
    assert chosen(how, tried([1, 0, 1, 1], begun, finished, (9, 9, 9, 9))) == next_one


def test_the_best_mean_return() -> None:
    """Means -3, -2 and -2.5; task 1, which was never visited, does not count with its 0."""
    counts = (2, 0, 3, 1), (2, 0, 2, 1)
    assert chosen("best_return", tried([1, 0, 1, 1], *counts, (-6, 0, -4, -2.5))) == 2
    assert chosen("best_return", tried([1, 0, 1, 1], *counts, (-6, 0, -5, -2.5))) == 2  # a tie: the first
    assert chosen("best_return", tried([1, 0, 1, 1], *counts, (-6, 0, -4, -1.5))) == 3


def test_by_the_softmax_of_returns_between_0_and_1() -> None:
    """Means 1, 3 and 2 are scores 0, 1 and 1/2."""
    seen = tried([1, 0, 1, 1], (2, 0, 1, 1), (2, 0, 1, 1), (2, 0, 3, 2))
    for temperature in (1.0, 0.5):
        weights = np.exp(np.array([0, 1, 0.5]) / temperature)
        expected = weights / weights.sum()
        found = shares("softmax_return", seen, temperature=temperature)
        np.testing.assert_allclose(found[[0, 2, 3]], expected, atol=0.04)
        assert found[[1, 4]].tolist() == [0, 0]


def test_it_needs_a_policy_that_knows_the_task() -> None:
    one = tried([1])._replace(**{name: jnp.zeros(1, jnp.int32) for name in ("begun", "finished")})
    with pytest.raises(ValueError, match=r"^needs a policy that knows the task; add task_heads or task_input$"):
        old_policy_exploration().explore(KEYS[0], one)


def test_it_knows_the_tasks_and_belongs_to_the_whole_agent() -> None:
    made = old_policy_exploration()
    assert made.knows_tasks
    assert made.reads_task
    assert compose(task_heads(), made).knows_tasks
    with pytest.raises(ValueError, match=r"^modules: .*actor.* is not allowed; which policy explores belongs"):
        restricted(made, ["actor"]).explore(KEYS[0], tried([1, 0, 0, 0]))


def test_only_one_may_choose() -> None:
    both = {"a": old_policy_exploration(), "b": old_policy_exploration(how="uniform")}
    assert clashes(both) == "interventions: a and b both choose the policy that explores; keep one"
    assert clashes({"a": old_policy_exploration(), "heads": task_heads()}) is None


def test_a_composition_passes_it_on() -> None:
    seen = tried([1, 0, 1, 1])
    made = compose(task_heads(), old_policy_exploration(how="previous"))
    assert int(made.explore(KEYS[0], seen)) == 2
    assert int(compose(task_heads()).explore(KEYS[0], seen)) == -1
