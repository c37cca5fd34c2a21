"""SAM against gradients of a quadratic function by hand, and inside an agent's update."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import MLP, batch_at, error, joined, make

from plasticity.interventions import l2, sam
from plasticity.interventions.base import compose
from plasticity.interventions.restriction import restricted
from plasticity.interventions.sharpness import steepest
from plasticity.networks.build import build
from plasticity.optim.optimizers import sgd

KEY = jax.random.key(0)
PARAMS = {"layer": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5, 0.0])}}
SLOPE = {"layer": {"kernel": jnp.array([[3.0, 0.0]]), "bias": jnp.array([0.0, -4.0])}}
NOTHING: Any = None


def moved(**settings: Any) -> Any:
    there = sam(**settings).point((), PARAMS, SLOPE, NOTHING)
    return jax.tree.map(lambda a, b: np.asarray(a - b), there, PARAMS)["layer"]


def test_the_perturbation_is_as_long_as_the_radius() -> None:
    """|g| = 5."""
    e = moved(rho=0.1)
    np.testing.assert_allclose(e["kernel"], [[0.06, 0.0]], atol=1e-6)
    np.testing.assert_allclose(e["bias"], [0.0, -0.08], atol=1e-6)
    e = moved(rho=0.1, norm="maximum")
    np.testing.assert_allclose(e["kernel"], [[0.1, 0.0]], atol=1e-6)
    np.testing.assert_allclose(e["bias"], [0.0, -0.1], atol=1e-6)


def test_the_adaptive_perturbation() -> None:
    """T is 1.01 for the first weight and 1 for biases: T g = 3.03 and -4."""
    length = np.hypot(3.03, 4.0)
    e = moved(rho=0.1, adaptive=True, eta=0.01)
    np.testing.assert_allclose(e["kernel"], [[0.1 * 1.01 * 3.03 / length, 0.0]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(e["bias"], [0.0, -0.1 * 4.0 / length], rtol=1e-4, atol=1e-6)
    e = moved(rho=0.1, adaptive=True, norm="maximum", eta=0.5)
    np.testing.assert_allclose(e["kernel"], [[0.15, 0.0]], rtol=1e-4, atol=1e-6)


def test_no_gradient_perturbs_nothing() -> None:
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    for norm in ("euclidean", "maximum"):
        jax.tree.map(np.testing.assert_array_equal, steepest(still, norm), still)


def loss_of(params: Any, number: int = 0, penalty: float = 0.0) -> jax.Array:
    inputs, targets = batch_at(MLP, jnp.int32(number))
    squares = sum(jnp.sum(x**2) for name, x in kernels(params))
    return error(build(MLP).forward(params, inputs)[0], targets) + penalty * squares


def kernels(params: Any) -> list[Any]:
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return [(path, x) for path, x in flat if path[-1].key == "kernel"]


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_an_update_descends_along_the_gradient_at_the_perturbed_point(strength: float) -> None:
    """Penalties are perturbed too; l2 with strength c adds c |W|^2 / 2 or c |W|^2, as its own gradient says."""
    methods = [sam(rho=0.5)] + ([l2(strength=strength)] if strength else [])
    loop = make(compose(*methods), sgd(learning_rate=0.1))
    run = loop.init(KEY)
    params = run.learner.params
    factor = 0.0
    if strength:
        only = compose(l2(strength=strength))
        probe = float(only.penalty(((),), params, NOTHING))
        factor = probe / float(sum(jnp.sum(x**2) for _, x in kernels(params)))

    def objective(params: Any) -> jax.Array:
        return loss_of(params, penalty=factor)

    g = jax.grad(objective)(params)
    length = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))
    there = jax.tree.map(lambda x, slope: x + 0.5 * slope / length, params, g)
    expected = jax.tree.map(lambda x, slope: x - 0.1 * slope, params, jax.grad(objective)(there))
    got = loop.update(KEY, run, jnp.int32(0)).learner.params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, expected)
    plain = jax.tree.map(lambda x, slope: x - 0.1 * slope, params, g)
    assert max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (got, plain)), strict=True)) > 1e-3


def test_each_part_of_joined_networks_can_have_its_own_radius() -> None:
    """Restricted to the actor, the critic's gradient stays that at its own parameters (their losses are separate)."""
    names = ("actor", "critic")
    loops = [
        joined(method, sgd(learning_rate=0.1), names) for method in (restricted(sam(rho=0.5), ["actor"]), compose())
    ]
    run = loops[0].init(KEY)
    with_sam, without = (
        loop.update(KEY, loop.init(KEY)._replace(learner=run.learner), jnp.int32(0)).learner.params for loop in loops
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), with_sam["critic"], without["critic"]
    )
    actor = run.learner.params["actor"]
    g = jax.grad(loss_of)(actor)
    length = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))
    there = jax.tree.map(lambda x, slope: x + 0.5 * slope / length, actor, g)
    expected = jax.tree.map(lambda x, slope: x - 0.1 * slope, actor, jax.grad(loss_of)(there))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), with_sam["actor"], expected)


def test_unknown_norm() -> None:
    with pytest.raises(ValueError, match='norm: "l1" is not allowed; must be one of euclidean, maximum'):
        sam(norm="l1")  # type: ignore[arg-type]
