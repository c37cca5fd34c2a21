"""AID: expected values, masks and their frequencies, when they apply, and the two limits p = 1 and p = 0.5."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP, Loop, Run, joined, make, train

from plasticity.interventions import aid
from plasticity.interventions.base import Intervention
from plasticity.networks.layers import Intervals
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import adam

KEY = jax.random.key(8)
INPUTS = jnp.sin(1.7 * jnp.arange(600.0)).reshape(200, 3)


def prepared(loop: Loop, method: Intervention, number: int = 0) -> Run:
    """The learner as the forward pass of an update sees it."""
    run = loop.init(KEY)
    return Run(*method.prepare(jax.random.fold_in(KEY, number), *run, loop.context(jnp.int32(number))))


def test_outside_updates_values_are_expected_values() -> None:
    method = aid(p=0.7)
    loop = make(method, adam())
    run = loop.init(KEY)
    _, activations = loop.network.forward(run.learner.params, INPUTS)
    for pre, post in activations.values():
        np.testing.assert_allclose(post, np.where(pre > 0, 0.7 * pre, 0.3 * pre), rtol=1e-6, atol=1e-7)
    seeded = prepared(loop, method).learner.params
    assert float(seeded["interval_dropout"]["seed"]) != 0
    again = loop.network.forward(method.acting((), seeded), INPUTS)[0]
    np.testing.assert_array_equal(again, loop.network.forward(run.learner.params, INPUTS)[0])


@pytest.mark.parametrize("spec", [MLP, CNN])
def test_masks_keep_p_of_the_positive_and_the_rest_of_the_others(spec: NetworkSpec) -> None:
    method = aid(p=0.7)
    loop = make(method, adam(), spec)
    inputs = jnp.sin(1.7 * jnp.arange(400 * np.prod(spec.observation))).reshape(400, *spec.observation)
    found = [loop.network.forward(prepared(loop, method, i).learner.params, inputs)[1] for i in range(2)]
    for name, (pre, post) in found[0].items():
        pre, post = np.asarray(pre), np.asarray(post)
        kept = post != 0
        np.testing.assert_array_equal(post, np.where(kept, pre, 0))  # not rescaled
        for where, p in ((pre > 0, 0.7), (pre < 0, 0.3)):
            number = where.sum()
            assert number > 300
            assert abs(kept[where].mean() - p) < 5 * np.sqrt(0.21 / number)
        other = np.asarray(found[1][name].post) != 0
        assert (kept != other).mean() > 0.2  # of another update
        assert len(np.unique(kept.reshape(len(kept), -1), axis=0)) > 10  # rows have their own masks


def test_layers_have_their_own_masks() -> None:
    method = aid(p=0.5)
    loop = make(method, adam(), replace(MLP, widths=(4, 4)))
    found = loop.network.forward(prepared(loop, method).learner.params, INPUTS)[1]
    first, second = (np.asarray(found[name].post) != 0 for name in ("hidden_0", "hidden_1"))
    some = np.asarray(found["hidden_1"].pre) != 0  # some rows have lost all their inputs
    assert 0.4 < (first == second)[some].mean() < 0.6


def test_the_seed_is_set_for_an_update_only_and_gets_no_gradient() -> None:
    method = aid()
    loop = make(method, adam(learning_rate=0.05))
    run = prepared(loop, method)

    def loss(params: Any) -> jax.Array:
        return jnp.square(loop.network.forward(params, INPUTS)[0]).sum()

    gradients = jax.grad(loss)(run.learner.params)
    assert float(gradients["interval_dropout"]["seed"]) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    after = jax.jit(lambda key: train(loop, key, loop.init(key), 3))(KEY)
    assert float(after.learner.params["interval_dropout"]["seed"]) == 0


def test_a_gradient_passes_where_the_value_is_kept() -> None:
    """One layer: the gradient of the sum of the outputs with respect to its bias is the mask times the outgoing sum."""
    spec = NetworkSpec((3,), 1, widths=(6,))
    method = aid(p=0.6)
    loop = make(method, adam(), spec)
    params, row = prepared(loop, method).learner.params, INPUTS[:1]
    mask = np.asarray(loop.network.forward(params, row)[1]["hidden_0"].post)[0] != 0
    gradients = jax.grad(lambda p: loop.network.forward(p, row)[0].sum())(params)
    np.testing.assert_allclose(gradients["hidden_0"]["bias"], mask * params["output"]["kernel"][:, 0], rtol=1e-6)
    assert 0 < mask.sum() < 6


def trained(method: Intervention, spec: NetworkSpec = MLP) -> Any:
    loop = make(method, adam(learning_rate=0.05), spec)
    params = jax.jit(lambda key: train(loop, key, loop.init(key), 4))(KEY).learner.params
    return {name: part for name, part in params.items() if name != "interval_dropout"}


def test_with_p_1_it_is_relu() -> None:
    found, expected = trained(aid(p=1.0)), trained(Intervention())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, expected)


def test_with_p_0_5_the_network_that_acts_is_linear() -> None:
    loop = make(aid(p=0.5), adam())
    params = loop.init(KEY).learner.params
    outputs = loop.network.forward(params, jnp.concatenate([INPUTS, 3 * INPUTS]))[0]
    origin = loop.network.forward(params, jnp.zeros((1, 3)))[0]
    np.testing.assert_allclose(outputs[200:] - origin, 3 * (outputs[:200] - origin), rtol=1e-3, atol=1e-5)


def test_intervals() -> None:
    intervals = Intervals((-1.0, 0.0, 2.0), (0.1, 0.2, 0.3, 0.4))
    z = jnp.array([-5.0, -1.0, -0.5, 0.0, 0.5, 2.0, 2.5])
    np.testing.assert_allclose(intervals.probabilities(z), [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4])
    loop = make(aid(bounds=(-0.5, 0.5), keep=(1.0, 0.0, 1.0)), adam())
    pre, post = loop.network.forward(loop.init(KEY).learner.params, INPUTS)[1]["hidden_0"]
    outside = (np.asarray(pre) > 0.5) | (np.asarray(pre) <= -0.5)
    np.testing.assert_array_equal(post, np.where(outside, pre, 0))
    assert 0.1 < outside.mean() < 0.9


def test_joined_networks_have_their_own_seeds() -> None:
    method = aid()
    loop = joined(method, adam(), ("actor", "critic"))
    params = prepared(loop, method).learner.params
    seeds = {float(params[name]["interval_dropout"]["seed"]) for name in ("actor", "critic")}
    assert len(seeds) == 2
    assert 0 not in seeds


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bounds: \[1.0, 0.0\] is not allowed; must be ascending and finite"):
        aid(bounds=(1.0, 0.0), keep=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match=r"keep: \[0.1, 0.2, 0.3\] is not allowed; must be 2, one more than bounds"):
        aid(keep=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match=r"bounds: \[1.0\] is not allowed without keep; must be \[0.0\]"):
        aid(bounds=(1.0,))
    with pytest.raises(ValueError, match="aid needs a network with a place for a non-linearity; this one has none"):
        make(aid(), adam(), NetworkSpec((3,), 2))
    with pytest.raises(ValueError, match="dropout is not allowed with an activation that has several outputs"):
        replace(MLP, activation="crelu", dropout=Intervals((0.0,), (0.1, 0.9)))
