"""The options of ReDo's released code, by hand and against NumPy. The default is in test_recycling.py."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP, Loop, Run, make

from plasticity.core.types import Activation, Context
from plasticity.interventions import redo
from plasticity.interventions.dormant import between
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import adam

KEY = jax.random.key(1)
POST = np.array([[0, 1, -4, 0.1, 1.9], [0, -1, 0, 0.1, -1.9]], np.float32)  # E|h|: 0, 1, 2, 0.1, 1.9


def learned(method: Any, spec: NetworkSpec = MLP) -> tuple[Loop, Run, Any]:
    """A learner with random parameters, and other random parameters as the fresh ones."""
    loop = make(method, adam(), spec)
    rng, shapes = np.random.default_rng(2), jax.eval_shape(loop.init, KEY).learner
    params, fresh = (jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes.params) for _ in range(2))
    slots = jax.tree.map(lambda x: np.full(x.shape, 2, x.dtype), shapes.opt_state)
    learner = shapes._replace(params=params, opt_state=slots, target=params)
    return loop, Run(method.init(KEY, params, loop.network), learner), learner._replace(params=fresh)


def context(loop: Loop, fresh: Any, update: int, post: Any = POST) -> Context:
    activations = {"hidden_0": Activation(jnp.zeros(()), jnp.asarray(post)), "hidden_1": two(jnp.ones((2, 4)))}
    return loop.context(jnp.int32(update))._replace(activations=activations, fresh=lambda key: fresh)


def two(values: Any) -> Activation:
    return Activation(values, values)


def recycled(update: int = 0, key: jax.Array = KEY, **settings: Any) -> list[int]:
    """The recycled units of hidden_0."""
    method = redo(**{"period": 1, "layers": ["hidden_0"]} | settings)
    loop, run, fresh = learned(method)
    _, learner = method.step(key, *run, context(loop, fresh, update))
    changed = np.asarray(learner.params["hidden_0"]["kernel"]) != run.learner.params["hidden_0"]["kernel"]
    np.testing.assert_array_equal(changed.any(0), changed.all(0))
    return np.flatnonzero(changed.any(0)).tolist()


def test_a_fraction_of_the_layer() -> None:
    fraction = {"select": "fraction"}
    assert recycled(**fraction, fraction=0.4) == [0, 3]
    assert recycled(**fraction, fraction=0.01) == [0]  # at least one
    assert recycled(**fraction, fraction=0.0) == []
    assert recycled(**fraction, fraction=0.4, score="inverted") == [2, 4]
    assert recycled(**fraction, fraction=0.3, score="centred") == [0, 3]  # 1.5 rounds to 2; 0 and 0.1 are constant
    assert recycled(**fraction, fraction=0.1, score="centred") == [0, 3]  # one, and what ties with it


def test_the_fraction_falls_along_a_cosine() -> None:
    """0.8 cos(pi / 2 * u / 10) of 5 units: 4.0 at u = 1, 2.8 at 5, 1.2 at 8, 0.6 at 9, nothing at 10."""
    falling = {"select": "fraction", "fraction": 0.8, "end": 10}
    found = {u: len(recycled(u - 1, **falling)) for u in (1, 5, 8, 9, 10)}
    assert found == {1: 4, 5: 3, 8: 1, 9: 1, 10: 0}


def test_random_units() -> None:
    drawn = [recycled(key=jax.random.key(i), select="fraction", fraction=0.4, score="random") for i in range(12)]
    assert {len(units) for units in drawn} == {2}
    assert set().union(*map(set, drawn)) == {0, 1, 2, 3, 4}


def test_centred_activity_finds_units_that_are_constant() -> None:
    assert recycled(threshold=0.0) == [0]
    assert recycled(threshold=0.0, score="centred") == [0, 3]


def test_utility_is_that_of_continual_backprop() -> None:
    settings = {"select": "fraction", "score": "utility"}
    _, run, _ = learned(redo())
    params = run.learner.params
    apart = np.abs(POST - POST.mean(0)).mean(0)
    worth = np.abs(params["hidden_1"]["kernel"]).sum(1) / np.abs(params["hidden_0"]["kernel"]).sum(0)
    order = np.argsort(apart * worth, kind="stable")
    assert recycled(**settings, fraction=0.6) == sorted(order[:3].tolist())
    assert recycled(**settings, fraction=0.8) == sorted(order[:4].tolist())
    assert order.tolist() != np.argsort(apart, kind="stable").tolist()


def test_utility_behind_a_convolution_sums_over_positions() -> None:
    method = redo(period=1, layers=["hidden_1"], select="fraction", fraction=0.5, score="utility")
    loop, run, fresh = learned(method, CNN)
    post = np.random.default_rng(5).normal(size=(3, 2, 2, 2)).astype(np.float32)
    activations = {name: two(jnp.asarray(post)) for name in ("hidden_0", "hidden_1", "hidden_2")}
    facts = loop.context(jnp.int32(0))._replace(activations=activations, fresh=lambda key: fresh)
    state, _ = method.step(KEY, *run, facts)
    apart = np.abs(post - post.mean((0, 1, 2))).mean((0, 1, 2))
    leaving = np.abs(run.learner.params["hidden_2"]["kernel"]).reshape(4, 2, 4).sum((0, 2)) / 16
    worth = apart * leaving / np.abs(run.learner.params["hidden_1"]["kernel"]).mean((0, 1, 2))
    kept = int(np.argmax(worth))
    np.testing.assert_allclose(state["hidden_1"][kept], worth[kept], rtol=1e-5)
    np.testing.assert_allclose(state["hidden_1"][1 - kept], worth.mean(), rtol=1e-5)  # recycled


def test_start_and_end() -> None:
    due = between(3, 5, 12)
    loop = make(redo(), adam())
    assert [u for u in range(1, 20) if bool(due(loop.context(jnp.int32(u - 1)).clock))] == [6, 9]
    first = between(3, 6, None)
    assert [u for u in range(1, 13) if bool(first(loop.context(jnp.int32(u - 1)).clock))] == [6, 9, 12]


def norms(kernel: Any, axis: int) -> np.ndarray:
    return np.sqrt(np.square(np.asarray(kernel, np.float64)).sum(axis))


def test_norms_and_random_outgoing_weights() -> None:
    """Units 0 and 3 are recycled: fresh directions, with lengths relative to those of units 1, 2 and 4."""
    method = redo(
        period=1, threshold=0.11, layers=["hidden_0"], outgoing="random", incoming_norm=0.5, outgoing_norm=2.0
    )
    loop, run, fresh = learned(method)
    _, learner = method.step(KEY, *run, context(loop, fresh, 0))
    chosen = np.array([True, False, False, True, False])
    for layer, axis, factor in (("hidden_0", 0, 0.5), ("hidden_1", 1, 2.0)):
        old, new, drawn = (x.params[layer]["kernel"] for x in (run.learner, learner, fresh))
        lengths = norms(old, axis)[~chosen].mean() * factor / norms(drawn, axis)
        scaled = drawn * np.expand_dims(lengths, axis)
        expected = np.where(np.expand_dims(chosen, axis), scaled, old)
        np.testing.assert_allclose(new, expected, rtol=1e-5)
        np.testing.assert_allclose(norms(new, axis)[chosen], factor * norms(old, axis)[~chosen].mean(), rtol=1e-5)
    plain = redo(period=1, threshold=0.11, layers=["hidden_0"], outgoing="random")
    _, learner = plain.step(KEY, *run, context(loop, fresh, 0))
    kernels = [x.params["hidden_1"]["kernel"] for x in (run.learner, learner, fresh)]
    np.testing.assert_array_equal(kernels[1], np.where(chosen[:, None], kernels[2], kernels[0]))
    slot = learner.opt_state.direction[1].mu["hidden_1"]["kernel"]
    np.testing.assert_array_equal(slot, np.where(chosen[:, None], 0, 2) * np.ones((5, 4)))


def test_norms_behind_a_convolution_are_those_of_its_channels_and_of_the_rows_of_a_map() -> None:
    """Channel 1 of 2 is recycled: in the dense kernel behind it, the rows 1, 3, 5 and 7."""
    method = redo(period=1, threshold=0.0, layers=["hidden_1"], outgoing="random", incoming_norm=0.5, outgoing_norm=2.0)
    loop, run, fresh = learned(method, CNN)
    post = jnp.ones((3, 2, 2, 2)).at[..., 1].set(0.0)
    activations = {name: two(post) for name in ("hidden_0", "hidden_1", "hidden_2")}
    _, learner = method.step(KEY, *run, context(loop, fresh, 0)._replace(activations=activations))
    old, new, drawn = (np.asarray(x.params["hidden_1"]["kernel"]) for x in (run.learner, learner, fresh))
    length = np.sqrt(np.square(old[..., 0]).sum())
    np.testing.assert_array_equal(new[..., 0], old[..., 0])
    expected = 0.5 * length * drawn[..., 1] / np.sqrt(np.square(drawn[..., 1]).sum())
    np.testing.assert_allclose(new[..., 1], expected, rtol=1e-5)
    old, new, drawn = (np.asarray(x.params["hidden_2"]["kernel"]) for x in (run.learner, learner, fresh))
    np.testing.assert_array_equal(new[::2], old[::2])
    expected = 2 * norms(old[::2], 1).mean() * drawn[1::2] / norms(drawn[1::2], 1)[:, None]
    np.testing.assert_allclose(new[1::2], expected, rtol=1e-5)


def test_if_all_units_are_recycled_their_norms_are_the_fresh_ones() -> None:
    method = redo(period=1, threshold=9.0, layers=["hidden_0"], incoming_norm=0.5)
    loop, run, fresh = learned(method)
    _, learner = method.step(KEY, *run, context(loop, fresh, 0))
    np.testing.assert_array_equal(learner.params["hidden_0"]["kernel"], fresh.params["hidden_0"]["kernel"])


def test_a_batch_of_its_own() -> None:
    """Units are judged by the new parameters on the reference batch: unit 1 is silent there and nowhere else."""
    spec = NetworkSpec((2,), 1, widths=(2,))
    method = redo(period=1, threshold=0.0, statistics="reference")
    loop, run, fresh = learned(method, spec)
    params: Mapping[str, Any] = {**run.learner.params, "hidden_0": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    run = Run(run.state, run.learner._replace(params=params))
    loud = {"hidden_0": two(jnp.ones((3, 2)))}
    facts = loop.context(jnp.int32(0))._replace(
        activations=loud, fresh=lambda key: fresh, reference=lambda: jnp.array([[1.0, -1.0], [2.0, 0.0]])
    )
    _, learner = method.step(KEY, *run, facts)
    np.testing.assert_array_equal(learner.params["hidden_0"]["kernel"][:, 0], [1, 0])
    np.testing.assert_array_equal(learner.params["hidden_0"]["kernel"][:, 1], fresh.params["hidden_0"]["kernel"][:, 1])
    _, same = redo(period=1, threshold=0.0).step(KEY, *run, facts)
    jax.tree.map(np.testing.assert_array_equal, same.params, run.learner.params)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="score: random is not allowed with select: threshold; must be one of"):
        redo(score="random")
    with pytest.raises(ValueError, match=r"end: 10 is not allowed; must be above start \(10\)"):
        redo(start=10, end=10)
    with pytest.raises(ValueError, match='select: "some" is not allowed; must be one of threshold, fraction'):
        redo(select="some")  # type: ignore[arg-type]
