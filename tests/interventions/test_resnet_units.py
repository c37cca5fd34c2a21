"""Continual backpropagation and ReDo on ResNet-18 against NumPy, from a wiring written by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_cases import draw, shaken, small
from update_loop import make

from plasticity.interventions.continual_backprop import continual_backprop
from plasticity.interventions.dormant import redo
from plasticity.optim.optimizers import adam

SPEC = small("resnet18")
KEY = jax.random.key(5)

# name -> (activations that show the units, layers that write them, layers that read them)
BLOCKS = {
    f"stage_{s}_block_{b}_conv_0": (
        [f"stage_{s}_block_{b}_conv_0"],
        [f"stage_{s}_block_{b}_conv_0"],
        [f"stage_{s}_block_{b}_conv_1"],
    )
    for s in range(4)
    for b in range(2)
}
STREAMS = {
    "stem": (
        ["stem", "stage_0_block_0", "stage_0_block_1"],
        ["stem", "stage_0_block_0_conv_1", "stage_0_block_1_conv_1"],
        ["stage_0_block_0_conv_0", "stage_0_block_1_conv_0", "stage_1_block_0_conv_0", "stage_1_block_0_shortcut"],
    ),
    **{
        f"stage_{s}_block_0": (
            [f"stage_{s}_block_0", f"stage_{s}_block_1"],
            [f"stage_{s}_block_0_conv_1", f"stage_{s}_block_0_shortcut", f"stage_{s}_block_1_conv_1"],
            [f"stage_{s}_block_1_conv_0"]
            + ([f"stage_{s + 1}_block_0_conv_0", f"stage_{s + 1}_block_0_shortcut"] if s < 3 else ["output"]),
        )
        for s in (1, 2, 3)
    },
}


@functools.cache
def start():
    """Parameters, a batch's activations, fresh parameters, and an optimizer's state whose slots are not 0."""
    loop = make(redo(), adam(), SPEC)
    params = shaken(loop.network)
    _, activations = jax.jit(loop.network.forward)(params, draw((3, 8, 8, 3)))
    slots = jax.tree.map(lambda x: x + 1, loop.optimizer.init(params))
    learner = loop.init(KEY).learner._replace(params=params, opt_state=slots)
    return learner, activations, loop.context(jnp.int32(0)).fresh(KEY).params


def stepped(method):
    learner, activations, _ = start()
    loop = make(method, adam(), SPEC)
    context = loop.context(jnp.int32(0))._replace(activations=activations)
    state = method.init(KEY, learner.params, loop.network)
    return jax.jit(lambda state, learner: method.step(KEY, state, learner, context))(state, learner)


def size(activations, shown):
    """``E|h_i|`` over batch and positions, then over the activations."""
    posts = [np.abs(np.asarray(activations[name].post, np.float64)) for name in shown]
    return np.mean([post.mean((0, 1, 2)) for post in posts], axis=0)


def rewritten(params, fresh, units, wiring):
    """Fresh incoming weights, biases and normalisations, then outgoing weights of 0, unit by unit."""
    params = jax.tree.map(np.array, params)
    for name, chosen in units.items():
        for unit in chosen:
            for writer in wiring[name][1]:
                for old, new in zip(jax.tree.leaves(params[writer]), jax.tree.leaves(fresh[writer]), strict=True):
                    old[..., unit] = new[..., unit]
    for name, chosen in units.items():
        for unit in chosen:
            for reader in wiring[name][2]:
                params[reader]["kernel"][..., unit, :] = 0.0
    return params


def touched(params, units, wiring):
    """Where weights were rewritten, as ones."""
    zeros = jax.tree.map(lambda x: np.zeros(x.shape), params)
    ones = jax.tree.map(lambda x: np.ones(x.shape), params)
    incoming = rewritten(zeros, ones, units, {name: (*wiring[name][:2], []) for name in units})
    outgoing = rewritten(ones, ones, units, {name: (wiring[name][0], [], wiring[name][2]) for name in units})
    return jax.tree.map(lambda a, b: (a == 1) | (b == 0), incoming, outgoing)


def check(learner, units, wiring):
    before, _, fresh = start()
    expected = rewritten(before.params, fresh, units, wiring)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=0)  # zeros are exact
    jax.tree.map(close, learner.params, expected)
    where = touched(before.params, units, wiring)
    old, new = before.opt_state, learner.opt_state
    adams = [
        next(each for each in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(each, "mu"))
        for state in (old, new)
    ]
    for slot in ("mu", "nu"):
        jax.tree.map(
            lambda was, now, mask: np.testing.assert_array_equal(now, np.where(mask, 0.0, was)),
            *(getattr(state, slot) for state in adams),
            where,
        )
    assert int(adams[1].count) == int(adams[0].count)


def test_the_wiring_by_hand():
    found = {
        each.name: (
            list(each.activations),
            sorted({source.path[0] for source in each.sources}),
            sorted({sink.path[0] for sink in each.sinks}),
        )
        for each in make(redo(), adam(), SPEC).network.units
    }
    assert found == {name: (a, sorted(b), sorted(c)) for name, (a, b, c) in (BLOCKS | STREAMS).items()}


@pytest.mark.parametrize("streams", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_redo(streams):
    wiring, activations = BLOCKS | (STREAMS if streams else {}), start()[1]
    threshold, dormant = 0.8, {}
    for name, (shown, _, _) in wiring.items():
        scores = size(activations, shown)
        dormant[name] = np.flatnonzero(scores / scores.mean() <= threshold)
    numbers = [len(chosen) for chosen in dormant.values()]
    assert min(numbers) < max(numbers)
    assert sum(numbers) > 0
    _, learner = stepped(redo(threshold=threshold, period=1, streams=streams))
    check(learner, dormant, wiring)


@pytest.mark.parametrize(
    ("utility", "streams"),
    [
        ("contribution", True),
        pytest.param("contribution", False, marks=pytest.mark.slow),
        pytest.param("adaptable_contribution", True, marks=pytest.mark.slow),
    ],
)
def test_continual_backprop(utility, streams):
    """Every unit is mature at the first update and each layer replaces its least useful one."""
    wiring, (before, activations, _) = BLOCKS | (STREAMS if streams else {}), start()
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), before.params)
    least = {}
    for name, (shown, writers, readers) in wiring.items():
        leaving = [np.abs(params[reader]["kernel"]) for reader in readers]
        axes = [tuple(i for i in range(each.ndim) if i != each.ndim - 2) for each in leaving]
        count = sum(each.size // each.shape[-2] for each in leaving)
        worth = sum(each.sum(ax) for each, ax in zip(leaving, axes, strict=True)) / count
        if utility == "contribution":
            worth = worth * size(activations, shown)
        else:
            posts = [np.asarray(activations[each].post, np.float64).reshape(-1, len(worth)) for each in shown]
            mean = np.mean([post.mean(0) for post in posts], axis=0)
            worth = worth * np.mean([np.abs(post - mean).mean(0) for post in posts], axis=0)
            coming = [np.abs(params[writer]["kernel"]).reshape(-1, len(worth)) for writer in writers]
            worth = worth / np.concatenate(coming).mean(0)
        least[name] = [int(worth.argmin())]
    method = continual_backprop(utility=utility, replacement_rate=1.0, maturity_period=0, streams=streams)
    state, learner = stepped(method)
    check(learner, least, wiring)
    for name, (unit,) in least.items():
        assert np.flatnonzero(np.asarray(state.ledgers[name].age) == 0).tolist() == [unit]
    for name in STREAMS:
        assert bool((state.ledgers[name].age == 0).all()) is not streams
