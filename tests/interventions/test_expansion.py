"""Neuroplastic expansion: which connections exist, appear and disappear, by hand and against NumPy."""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import MLP, Loop, Run, batch_at, error, joined, make

from plasticity.core import trees
from plasticity.core.types import Activation, Learner
from plasticity.interventions import neuroplastic_expansion
from plasticity.interventions.base import Intervention, compose
from plasticity.interventions.expansion import Numbers, active_share, changed, falling
from plasticity.interventions.restriction import restricted
from plasticity.interventions.topology import erdos_renyi, largest
from plasticity.optim.optimizers import adam, sgd

KEY = jax.random.key(4)
KERNELS = ("hidden_0", "hidden_1", "output")  # 3 x 5, 5 x 4, 4 x 2
QUICKLY: Any = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def test_an_erdos_renyi_network_by_hand() -> None:
    """43 weights and 8 + 9 + 6 = 23 units: at half of them, 21.5 / 23 weights for each unit, rounded up."""
    assert erdos_renyi([(3, 5), (5, 4), (4, 2)], 0.5) == [8, 9, 6]
    assert erdos_renyi([(3, 5), (5, 4), (4, 2)], 0.0) == [15, 20, 8]
    assert erdos_renyi([(3, 3, 2, 4), (10, 10)], 0.5) == [33, 54]  # 86 / 32 for each unit and position


def test_a_kernel_that_would_be_more_than_full_is_dense() -> None:
    """The second would have 21 / 71 of the 117.8 weights, more than its 20; the first gets the other 97.8."""
    assert erdos_renyi([(30, 20), (20, 1)], 0.81) == [98, 20]


def test_the_largest_among_some() -> None:
    scores = jnp.asarray([[3.0, 1.0], [2.0, 5.0]])
    among = jnp.asarray([[True, True], [True, False]])
    np.testing.assert_array_equal(largest(KEY, scores, among, 2), [[True, False], [True, False]])
    np.testing.assert_array_equal(largest(KEY, scores, among, jnp.int32(9)), among)
    assert not largest(KEY, scores, among, 0).any()
    found = jax.vmap(lambda key: largest(key, jnp.zeros(4), jnp.ones(4, bool), 2))(jax.random.split(KEY, 2000))
    assert (found.sum(1) == 2).all()
    assert np.all(np.abs(np.asarray(found).mean(0) - 0.5) < 4 * 0.5 / math.sqrt(2000))


MASK = jnp.asarray([[True, True, False], [False, True, False]])
WEIGHTS = jnp.asarray([[0.5, -0.1, 0.0], [0.0, 0.3, 0.0]])
SLOPE = jnp.asarray([[9.0, 0.5, 1.0], [-3.0, 9.0, 2.0]])
ALL = jnp.ones((), bool)


def numbers(growing: bool, appear: int, disappear: int) -> Numbers:
    return Numbers(jnp.asarray(growing), jnp.int32(appear), jnp.int32(disappear))


@pytest.mark.parametrize(
    ("number", "removable", "slope", "after", "lost"),
    [
        (numbers(True, 2, 1), ALL, SLOPE, [[1, 0, 0], [1, 1, 1]], [[0, 1, 0], [0, 0, 0]]),
        (numbers(True, 2, 1), ALL, SLOPE.at[0, 1].set(-7.0), [[1, 1, 0], [1, 1, 0]], np.zeros((2, 3))),
        (
            numbers(True, 1, 2),
            jnp.arange(3) == 0,
            SLOPE.at[0, 0].set(0.0),
            [[0, 1, 0], [1, 1, 0]],
            [[1, 0, 0], [0, 0, 0]],
        ),
        (numbers(True, 1, 0), ALL, SLOPE, [[1, 1, 0], [1, 1, 0]], np.zeros((2, 3))),
        (numbers(False, 5, 1), ALL, SLOPE, [[1, 0, 0], [1, 1, 0]], [[0, 1, 0], [0, 0, 0]]),
        (numbers(True, 9, 0), ALL, SLOPE, np.ones((2, 3)), np.zeros((2, 3))),
    ],
    ids=["both", "one comes back", "removable", "growth", "exchange", "everything"],
)
def test_a_kernel_by_hand(number: Numbers, removable: Any, slope: Any, after: Any, lost: Any) -> None:
    found = changed(KEY, MASK, WEIGHTS, slope, removable, number)
    np.testing.assert_array_equal(found[0], np.asarray(after, bool))
    np.testing.assert_array_equal(found[1], np.asarray(lost, bool))


def test_a_rate_that_falls() -> None:
    shares = [float(falling(0.2, jnp.int32(done), 100)) for done in (0, 50, 99, 100, 500)]
    np.testing.assert_allclose(shares, [0.2, 0.1, 0.1 * (1 + math.cos(0.99 * math.pi)), 0, 0], rtol=1e-5, atol=1e-7)


# One event on a network, against NumPy.


def seen_at(loop: Loop, learner: Learner, update: int) -> Any:
    """What the method sees after this update, with the activations of the present parameters."""
    inputs, targets = batch_at(MLP, jnp.int32(update))
    return loop.context(jnp.int32(update))._replace(
        observation=inputs,
        loss=lambda params: error(loop.network.forward(params, inputs)[0], targets),
        activations=loop.network.forward(learner.params, inputs)[1],
    )


def event(method: Intervention, **biases: float) -> tuple[Run, Run, Any]:
    """The state and learner before and after an event at the second update, and what the method saw."""
    loop = make(method, adam())
    state, learner = loop.init(KEY)
    params = learner.params
    params = trees.put(params, ("hidden_0", "bias"), params["hidden_0"]["bias"].at[1].add(biases.get("second", 0.0)))
    slots = jax.tree.map(lambda x: jnp.ones_like(x) if x.shape else x, learner.opt_state)
    state, learner = method.prepare(
        KEY, state, learner._replace(params=params, opt_state=slots), loop.context(jnp.int32(1))
    )
    seen = seen_at(loop, learner, 1)
    return Run(state, learner), Run(*method.step(KEY, state, learner, seen)), seen


def kernels(tree: Any) -> list[np.ndarray]:
    return [np.asarray(tree[name]["kernel"]) for name in KERNELS]


def slots_of(learner: Learner) -> list[Any]:
    """The slots of the optimizer, each like the parameters."""
    nodes = jax.tree.leaves(learner.opt_state, is_leaf=lambda x: isinstance(x, dict))
    return [node for node in nodes if isinstance(node, dict)]


# At a sparsity of 0.7, 12.9 of 43 weights exist, 12.9 / 23 for each unit: 4.49, 5.05 and 3.37, rounded up.
FIRST = [5, 6, 4]


def test_what_exists_at_first() -> None:
    before, _, _ = event(neuroplastic_expansion(sparsity=0.7, period=2))
    network = make(compose(), adam()).init(KEY).learner.params
    for mask, first, number in zip(kernels(before.state["masks"]), kernels(network), FIRST, strict=True):
        assert mask.sum() == number
        assert np.abs(first[mask]).min() > np.abs(first[~mask]).max()
    for tree in (before.learner.params, before.learner.target):
        for mask, kernel, first in zip(kernels(before.state["masks"]), kernels(tree), kernels(network), strict=True):
            np.testing.assert_array_equal(kernel, np.where(mask, first, 0.0))
    other = event(neuroplastic_expansion(sparsity=0.7, period=2, first="random"))[0].state["masks"]
    assert [mask.sum() for mask in kernels(other)] == FIRST
    assert any((a != b).any() for a, b in zip(kernels(other), kernels(before.state["masks"]), strict=True))


@pytest.mark.parametrize("prune", ["dormant", "magnitude"])
def test_pruning_and_growth_against_numpy(prune: Any) -> None:
    """At the final sparsity 0.25 the kernels have 12, 15 and 6 weights, and half of the difference appears at once."""
    method = neuroplastic_expansion(sparsity=0.7, period=2, rate=0.5, prune=prune, prune_share=0.5)
    before, after, seen = event(method, second=-100.0)
    gradients = kernels(jax.grad(seen.loss)(before.learner.params))
    silent = [np.asarray(seen.activations[name].post == 0).all(0) for name in KERNELS[:2]]
    assert silent[0][1]
    removable = [*silent, np.zeros(2, bool)] if prune == "dormant" else [np.ones(n, bool) for n in (5, 4, 2)]
    lost = 0
    for i, appear in enumerate((4, 5, 1)):  # (12 - 5) / 2, (15 - 6) / 2 and (6 - 4) / 2, rounded up
        mask, weights = kernels(before.state["masks"])[i], kernels(before.learner.params)[i]
        among = np.where(mask & removable[i], np.abs(weights), np.inf)
        kept = mask.copy()
        for place in np.argsort(among, axis=None)[: appear // 2]:
            kept.flat[place] &= not np.isfinite(among.flat[place])
        missing = np.where(kept, -np.inf, np.abs(gradients[i]))
        cut = np.sort(missing, axis=None)[-appear]
        found = kernels(after.state["masks"])[i]
        assert found.sum() == kept.sum() + appear
        assert found[kept].all()
        assert missing[found & ~kept].min() >= cut
        for field in ("params", "target"):
            new, old = (kernels(getattr(run.learner, field))[i] for run in (after, before))
            np.testing.assert_array_equal(new, np.where(found, old, 0.0))
        gone = mask & ~found
        lost += gone.sum()
        for moment in slots_of(after.learner):
            np.testing.assert_array_equal(kernels(moment)[i], np.where(gone, 0.0, 1.0))
    assert lost > 0
    for name in KERNELS:
        np.testing.assert_array_equal(after.learner.params[name]["bias"], before.learner.params[name]["bias"])


def test_slots_can_be_left_to_decay() -> None:
    method = neuroplastic_expansion(sparsity=0.7, period=2, rate=0.5, prune="magnitude", optimizer_slots=False)
    before, after, _ = event(method)
    jax.tree.map(np.testing.assert_array_equal, before.learner.opt_state, after.learner.opt_state)


def test_values_of_weights_that_appear() -> None:
    before, after, _ = event(neuroplastic_expansion(sparsity=0.7, period=2, rate=0.5, values="fresh", prune_share=0.0))
    for i in range(3):
        mask, found = kernels(before.state["masks"])[i], kernels(after.state["masks"])[i]
        params, old = kernels(after.learner.params)[i], kernels(before.learner.params)[i]
        np.testing.assert_array_equal(params[mask], old[mask])
        assert (params[found & ~mask] != 0).all()
        assert (params[~found] == 0).all()


@functools.cache
def lived(rule: str, **settings: Any) -> list[Run]:
    """Sixteen updates, each with an event."""
    optimizer = {"adam": adam(learning_rate=0.02), "momentum": sgd(learning_rate=0.05, momentum=0.9)}[rule]
    method = neuroplastic_expansion(sparsity=0.7, period=1, rate=0.2, exchange=0.3, duration=40, **settings)
    loop = make(method, optimizer)
    run, runs = loop.init(KEY), []
    update = jax.jit(loop.update).lower(KEY, run, jnp.int32(0)).compile(compiler_options=QUICKLY)
    for number in range(16):
        run = update(KEY, run, jnp.int32(number))
        runs.append(run)
    return runs


@pytest.mark.parametrize("rule", ["adam", "momentum"])
def test_missing_weights_are_zero_everywhere(rule: str) -> None:
    for run in lived(rule):
        masks = kernels(run.state["masks"])
        slots = slots_of(run.learner)
        assert len(slots) == (2 if rule == "adam" else 1)
        for tree in (run.learner.params, run.learner.target, *slots):
            for mask, kernel in zip(masks, kernels(tree), strict=True):
                assert (kernel[~mask] == 0).all()
        assert all((kernel[mask] != 0).any() for mask, kernel in zip(masks, kernels(run.learner.params), strict=True))


def test_growth_ends_at_the_final_sparsity_and_weights_are_exchanged_afterwards() -> None:
    runs = lived("adam")
    numbers = [[int(mask.sum()) for mask in kernels(run.state["masks"])] for run in runs]
    ended = [int(run.state["ended"]["network"]) for run in runs]
    totals = [sum(each) for each in numbers]
    enough = 43 - 10  # a quarter of 43, rounded down, may be missing
    last = next(i for i, total in enumerate(totals) if total >= enough)
    assert 1 < last < 12
    assert all(b > a for a, b in itertools.pairwise(totals[: last + 1]))
    assert ended == [-1] * (last + 1) + [last + 1] * (15 - last)
    assert numbers[last:] == [numbers[last]] * (16 - last)
    masks = [np.concatenate([mask.ravel() for mask in kernels(run.state["masks"])]) for run in runs[last:]]
    assert any((a != b).any() for a, b in itertools.pairwise(masks))


def test_nothing_changes_after_the_duration() -> None:
    method = neuroplastic_expansion(sparsity=0.7, period=2, rate=0.5, duration=2)
    before, after, _ = event(method)
    jax.tree.map(np.testing.assert_array_equal, before.state["masks"], after.state["masks"])


def test_joined_networks_have_their_own_sparsity() -> None:
    loop = joined(neuroplastic_expansion(sparsity=0.7, period=1), adam(), ("actor", "critic"))
    state = loop.init(KEY).state
    assert set(state["ended"]) == {"actor", "critic"}
    for part in ("actor", "critic"):
        assert [mask.sum() for mask in kernels(state["masks"][part])] == FIRST
    method = restricted(neuroplastic_expansion(sparsity=0.7, period=1), ["critic"])
    run = joined(method, adam(), ("actor", "critic")).init(KEY)
    assert set(run.state["ended"]) == {"critic"}
    params = method.acting(run.state, run.learner.params)
    assert [np.count_nonzero(kernel) for kernel in kernels(params["critic"])] == FIRST
    assert [np.count_nonzero(kernel) for kernel in kernels(params["actor"])] == [15, 20, 8]


# Experience review.


def test_the_share_of_active_units_by_hand() -> None:
    context = make(compose(), adam()).context(jnp.int32(0))
    post = {"hidden_0": jnp.asarray([[1.0, 0, 0, 2, 0]] * 2), "hidden_1": jnp.asarray([[0.0, 0, -1, 3]] * 2)}
    shown = {name: Activation(each, each) for name, each in post.items()}
    np.testing.assert_allclose(active_share(context._replace(activations=shown)), 3 / 9)


@pytest.mark.parametrize(
    ("active", "chance"), [(0.4, 0.0), (0.9, 0.0), (0.1, 1 / (1 + math.exp(-0.3) / 0.9)), (0.39, 0.4761)]
)
def test_how_often_the_oldest_part_is_reviewed(active: float, chance: float) -> None:
    state = {"active": jnp.float32(active)}
    shares = np.asarray(jax.vmap(lambda key: neuroplastic_expansion().review(key, state))(jax.random.split(KEY, 4000)))
    assert set(shares.tolist()) <= {1.0, float(np.float32(0.3))}
    assert abs((shares < 1).mean() - chance) <= 4 * math.sqrt(chance * (1 - chance) / 4000)


def test_the_smallest_share_counts() -> None:
    def asking(share: float) -> Intervention:
        return Intervention(review=lambda key, state: jnp.float32(share))

    halves, quarters = asking(0.5), asking(0.25)
    for order in ((halves, quarters), (quarters, halves), (compose(), halves, quarters)):
        method = compose(*order)
        assert method.review(KEY, tuple(() for _ in order)) == 0.25
    assert compose(compose(), Intervention()).review is Intervention().review
    assert restricted(halves, ["actor"]).review(KEY, ()) == 0.5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"final": 0.9}, "final: 0.9 is not allowed; must be at most the sparsity, 0.8"),
        ({"grow": "none"}, "grow: .none. is not allowed"),
        ({"prune": "all"}, "prune: .all. is not allowed"),
    ],
)
def test_refusals(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        neuroplastic_expansion(**settings)
