"""PackNet on a network that learns three tasks in turn."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core.types import Clock, Context, Drawn, Learner, Past
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.packnet import pruned
from plasticity.networks.build import build
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import sgd

KEY = jax.random.key(0)


def test_pruning_takes_the_smallest_weights_of_the_task_only() -> None:
    kernel = jnp.array([[0.1, -5.0, 3.0], [0.2, 0.2, -0.05]])
    owner = jnp.array([[0, 1, 1], [1, 1, 1]])
    free = pruned(kernel, owner, jnp.int32(1), jnp.array([1, 2]))
    np.testing.assert_array_equal(free, [[False, False, False], [True, False, True]])  # half of five, rounded down
    assert not pruned(kernel, owner, jnp.int32(1), jnp.array([0, 1])).any()


WIDE = NetworkSpec((4,), 3, widths=(8, 8), normalisation="layer")


def packed(retrain: int, tasks: int = 3) -> dict[str, Any]:
    """Three tasks of ten updates, each towards targets of its own: states and outputs at the end of each."""
    network, rule = build(WIDE), sgd(learning_rate=0.1)
    method = INTERVENTIONS["packnet"](tasks=tasks, retrain=retrain, batch=4)
    params = network.init(KEY)
    inputs = jax.random.normal(jax.random.key(1), (6, 4))
    state, learner = method.init(KEY, params, network), Learner(params, (), rule.init(params))
    found: dict[str, Any] = {"owners": [], "views": [], "learners": [], "losses": []}

    def loss_of(task: int) -> Any:
        targets = jnp.cos(jnp.arange(18.0).reshape(6, 3) + 2.0 * task)
        return lambda params, rows: jnp.mean((network.forward(params, inputs[rows])[0] - targets[rows]) ** 2)

    def seen_at(task: int, loss: Any) -> Context:
        drawn: Any = Drawn(jnp.arange(6), {}, jnp.ones(6, bool))
        old: Any = lambda tag, params, drawn: loss(params, drawn.rows)  # noqa: E731
        past = Past(lambda tag, number: drawn, lambda: drawn, lambda rows: rows, old)
        clock = Clock(*(jnp.int32(x) for x in (task * 10, task * 10, task, 0)))
        return Context(clock, (), {}, (), network, rule, lambda key: learner, lambda p: jnp.zeros(()), tuple, past=past)

    for task in range(tasks):
        loss = loss_of(task)
        seen = seen_at(task, loss)
        for _ in range(10):
            gradients = jax.grad(loss)(learner.params, jnp.arange(6))
            gradients = method.gradient(KEY, state, gradients, learner, seen)
            updates, opt_state = rule.update(gradients, learner.opt_state, learner.params)
            moved = jax.tree.map(lambda p, u: p + u + 0.01, learner.params, updates)  # also what another method adds
            state, learner = method.step(KEY, state, learner._replace(params=moved, opt_state=opt_state), seen)
        found["losses"].append(float(loss(learner.params, jnp.arange(6))))
        if task < tasks - 1:
            before = state
            state, learner = method.switch(jax.random.fold_in(KEY, task), state, learner, seen)
            found["pruned"] = (before, state)
        found["owners"].append(state["owner"])
        found["learners"].append(learner.params)
        now = jnp.int32(task + 1)
        found["views"].append(
            [
                network.forward(method.view(state, learner.params, jnp.int32(old), now), inputs)[0]
                for old in range(task + 1)
            ]
        )
        found["losses"].append(float(loss(method.view(state, learner.params, jnp.int32(task), now), jnp.arange(6))))
    return found


@pytest.mark.parametrize("retrain", [0, 5])
def test_packnet_keeps_old_outputs_bit_for_bit(retrain: int) -> None:
    found = packed(retrain)
    for old in (0, 1):
        for views in found["views"][old + 1 :]:
            np.testing.assert_array_equal(views[old], found["views"][old][old])
    assert not np.allclose(found["views"][-1][0], found["views"][-1][1])


def test_packnet_gives_equal_shares_that_never_overlap() -> None:
    owners = packed(0)["owners"]
    kernel = [np.asarray(tree["hidden_0"]["kernel"]) for tree in owners]
    counts = [np.bincount(owner.reshape(-1), minlength=3) for owner in kernel]
    np.testing.assert_array_equal(counts[0], [11, 21, 0])  # of 32, two thirds are pruned
    np.testing.assert_array_equal(counts[1], [11, 11, 10])
    for earlier, later in itertools.pairwise(kernel):
        kept = later < np.max(later)
        assert (earlier[kept] <= later[kept]).all()
    np.testing.assert_array_equal(kernel[1] == 0, kernel[2] == 0)


def test_packnet_retrains_what_it_keeps() -> None:
    without, retrained = packed(0)["losses"], packed(40)["losses"]
    assert without[0] == retrained[0]
    assert retrained[1] < without[1]


def test_packnet_retrains_by_hand() -> None:
    """Two steps of plain descent on ``sum c w^2 / 2``: kept weights shrink, pruned ones are 0, the bias stays."""
    network, rule, c = (
        build(NetworkSpec((2,), 3)),
        sgd(learning_rate=0.1),
        jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    )
    kernel = jnp.array([[0.1, -5.0, 3.0], [-0.4, 2.0, 0.2]])
    params = {"output": {"kernel": kernel, "bias": jnp.array([1.0, 2.0, 3.0])}}
    learner = Learner(params, (), rule.init(params))

    def loss(tag: Any, params: Any, drawn: Drawn) -> Any:
        return 0.5 * jnp.sum(c * params["output"]["kernel"] ** 2) + jnp.sum(params["output"]["bias"] ** 2)

    rows: Any = jnp.arange(4)
    drawn = Drawn(rows, {}, jnp.ones(4, bool))
    past = Past(lambda tag, number: drawn, lambda: drawn, lambda rows: rows, loss)
    clock = Clock(*(jnp.int32(0) for _ in range(4)))
    seen = Context(clock, (), {}, (), network, rule, lambda key: learner, lambda p: jnp.zeros(()), tuple, past=past)
    method = INTERVENTIONS["packnet"](tasks=2, retrain=2, batch=2)
    state, after = method.switch(KEY, method.init(KEY, params, network), learner, seen)
    kept = np.array([[0, 1, 1], [0, 1, 0]])  # the larger half
    expected = kept * np.asarray(kernel) * (1 - 0.1 * np.asarray(c)) ** 2
    np.testing.assert_allclose(after.params["output"]["kernel"], expected, rtol=1e-6)
    np.testing.assert_array_equal(after.params["output"]["bias"], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(state["owner"]["output"]["kernel"], 1 - kept)


def test_packnet_freezes_biases_and_normalisations_after_the_first_task() -> None:
    first, second, third = packed(0)["learners"]
    for path in (("hidden_0", "bias"), ("hidden_1", "norm", "scale"), ("output", "bias")):
        leaves = []
        for tree in (first, second, third):
            for name in path:
                tree = tree[name]
            leaves.append(np.asarray(tree))
        np.testing.assert_array_equal(leaves[0], leaves[1])
        np.testing.assert_array_equal(leaves[0], leaves[2])


def test_packnet_needs_a_weight_for_every_task() -> None:
    network = build(WIDE)
    with pytest.raises(ValueError, match="tasks: 25 is not allowed; output has only 24 weights"):
        INTERVENTIONS["packnet"](tasks=25).init(KEY, network.init(KEY), network)
