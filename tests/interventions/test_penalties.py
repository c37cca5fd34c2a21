"""Penalties on the weights, by hand on small matrices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, clock_at, make, train

from plasticity.core import trees
from plasticity.core.types import Context, Learner, Network
from plasticity.interventions import l2, l2_init, parseval, spectral_regularization, wasserstein_init
from plasticity.interventions.base import Intervention
from plasticity.networks.build import build
from plasticity.networks.residual import impala
from plasticity.optim.optimizers import adam, sgd

KEY = jax.random.key(0)
KERNEL = np.array([[1.0, -2.0], [4.0, 0.5]], np.float32)
OUTPUT = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]], np.float32)
NETWORK = Network(lambda key: {}, lambda params, x, *memory: (x, {}, ()), (), (("hidden",),), (("output",),))


def params(hidden: Any = KERNEL, output: Any = OUTPUT, **norm: Any) -> dict:
    layer = {"kernel": jnp.asarray(hidden, jnp.float32), "bias": jnp.array([3.0, -1.0])}
    parts = {name: jnp.asarray(value, jnp.float32) for name, value in norm.items()}
    layer |= {"norm": parts} if parts else {}
    return {"hidden": layer, "output": {"kernel": jnp.asarray(output, jnp.float32), "bias": jnp.array([0.5, 0.0])}}


def context(update: int = 0) -> Context:
    return Context(clock_at(update), (), {}, (), NETWORK, sgd(), lambda key: None, lambda p: jnp.zeros(()), tuple)


def penalised(method: Intervention, now: dict, state: Any = (), update: int = 0) -> tuple[float, dict]:
    """The penalty and its gradient, after ``prepare``."""
    state, _ = method.prepare(KEY, state, Learner(now, (), ()), context(update))
    value, gradient = jax.value_and_grad(lambda p: method.penalty(state, p, context(update)))(now)
    return float(value), gradient


def test_l2_by_hand() -> None:
    value, gradient = penalised(l2(strength=0.1), params())
    assert value == pytest.approx(0.05 * (1 + 4 + 16 + 0.25 + 9 + 1))
    np.testing.assert_allclose(gradient["hidden"]["kernel"], 0.1 * KERNEL)
    assert not gradient["hidden"]["bias"].any()
    value, gradient = penalised(l2(strength=0.1, which="all"), params())
    assert value == pytest.approx(0.05 * (31.25 + 10.25))
    np.testing.assert_allclose(gradient["hidden"]["bias"], [0.3, -0.1], rtol=1e-6)


@pytest.mark.parametrize(("reduce", "shares"), [("sum", (1, 1, 1)), ("mean", (1 / 4, 1 / 2, 1 / 6))])
def test_l2_init_by_hand(reduce: str, shares: tuple[float, ...]) -> None:
    method = l2_init(strength=0.1, reduce=reduce)
    state = method.init(KEY, params(), None)
    assert penalised(method, params(), state)[0] == 0.0
    later = params(KERNEL + np.array([[1.0, 0.0], [0.0, -2.0]]), OUTPUT + 1.0)
    later["hidden"]["bias"] = later["hidden"]["bias"] + 2.0
    value, gradient = penalised(method, later, state)
    kernel, bias, output = shares
    assert value == pytest.approx(0.1 * (5 * kernel + 8 * bias + 6 * output))
    np.testing.assert_allclose(gradient["hidden"]["kernel"], [[0.2 * kernel, 0], [0, -0.4 * kernel]], rtol=1e-5)
    np.testing.assert_allclose(gradient["hidden"]["bias"], np.full(2, 0.4 * bias), rtol=1e-5)
    np.testing.assert_allclose(gradient["output"]["kernel"], np.full((3, 2), 0.2 * output), rtol=1e-5)


def test_wasserstein_by_hand() -> None:
    """Initial values -2, 0.5, 1, 4; then 0, 1, 2, 3 in another order: differences 2, 0.5, 1 and -1 by rank."""
    method = wasserstein_init(strength=0.1)
    state = method.init(KEY, params(), None)
    assert penalised(method, params(), state)[0] == 0.0
    assert penalised(method, params(KERNEL[::-1]), state)[0] == 0.0  # a permutation has the same distribution
    value, gradient = penalised(method, params([[3.0, 0.0], [1.0, 2.0]]), state)
    assert value == pytest.approx(0.1 * (4 + 0.25 + 1 + 1))
    np.testing.assert_allclose(gradient["hidden"]["kernel"], 0.2 * np.array([[-1.0, 2.0], [0.5, 1.0]]), rtol=1e-6)
    assert not gradient["hidden"]["bias"].any()


def test_wasserstein_gradient_is_that_through_the_sort() -> None:
    first, now = (np.random.default_rng(i).normal(size=(3, 2)) for i in (0, 1))
    method = wasserstein_init(strength=1.0)
    _, gradient = penalised(method, params(now), method.init(KEY, params(first), None))

    def sorted_distance(kernel: jax.Array) -> jax.Array:
        return jnp.sum((jnp.sort(kernel.ravel()) - jnp.sort(jnp.asarray(first, jnp.float32).ravel())) ** 2)

    np.testing.assert_allclose(gradient["hidden"]["kernel"], jax.grad(sorted_distance)(params(now)["hidden"]["kernel"]))


def test_wasserstein_keeps_the_ranks_for_a_period() -> None:
    method = wasserstein_init(strength=1.0, period=2)
    state = method.init(KEY, params(), None)
    swapped = params(KERNEL[::-1])
    assert penalised(method, swapped, state, update=2)[0] == 0.0
    assert penalised(method, swapped, state, update=3)[0] == pytest.approx(np.sum((KERNEL - KERNEL[::-1]) ** 2))


def exact(first: dict, method: Intervention) -> Any:
    """The state after many power iterations on the same parameters."""
    state = method.init(KEY, first, None)
    for _ in range(20):
        state, _ = method.step(KEY, state, Learner(first, (), ()), context())
    return state


def test_spectral_by_hand() -> None:
    """A diagonal kernel of 2 and 1, an output kernel of 3 and 1: largest singular values 2 and 3."""
    now = params(np.diag([2.0, 1.0]))
    method = spectral_regularization(strength=0.1)
    value, gradient = penalised(method, now, exact(now, method))
    assert value == pytest.approx(0.1 * ((4 - 1) ** 2 + 10**2 + (9 - 1) ** 2 + 0.25**2), rel=1e-5)
    kernel = gradient["hidden"]["kernel"]  # 2 (s^2 - 1) 2 s along the first axes
    np.testing.assert_allclose(kernel, [[0.1 * 2 * 3 * 4, 0], [0, 0]], atol=1e-4)
    np.testing.assert_allclose(gradient["hidden"]["bias"], 0.1 * 4 * 10 * np.array([3.0, -1.0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"output": False}, 9 + 100),
        ({"reduce": "mean"}, (9 + 100 + 64 + 0.0625) / 2),
        ({"target": 2.0}, 0 + 100 + 25 + 0.0625),
        ({"power": 1}, 1 + 10 + 4 + 0.25),
        ({"power": 3}, 49 + 1000 + 26**2 + 0.25**3),
        ({"iterations": 4}, 9 + 100 + 64 + 0.0625),
    ],
)
def test_spectral_settings(settings: dict, expected: float) -> None:
    now = params(np.diag([2.0, 1.0]))
    method = spectral_regularization(strength=1.0, **settings)
    assert penalised(method, now, exact(now, method))[0] == pytest.approx(expected, rel=1e-4)


def test_spectral_holds_the_scale_of_a_normalisation_near_one() -> None:
    now = params(np.diag([1.0, 0.5]), scale=[2.0, 1.0], offset=[1.0, 1.0])
    method = spectral_regularization(strength=1.0, output=False)
    assert penalised(method, now, exact(now, method))[0] == pytest.approx(100 + 9 + 4, rel=1e-4)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_spectral_includes_normalisations_that_belong_to_no_layer(reduce: str) -> None:
    """All arrays of an IMPALA network by NumPy, found by their names; four of its normalisations are nodes."""
    image = jax.ShapeDtypeStruct((8, 8, 2), jnp.float32)
    spec = impala(image, 3, filters=(2, 3), blocks=1, widths=(4,), normalisation="layer", layout="channels_last")
    network = build(spec)
    rng = np.random.default_rng(0)
    now = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), network.init(KEY))
    method = spectral_regularization(strength=0.1, iterations=50, reduce=reduce)
    facts = context()._replace(network=network)
    state, _ = method.step(KEY, method.init(KEY, now, network), Learner(now, (), ()), facts)
    terms: dict[str, list[float]] = {"kernel": [], "bias": [], "offset": [], "scale": []}
    for path, value in zip(trees.paths(now), jax.tree.leaves(now), strict=True):
        name, x = path[-1], np.asarray(value, np.float64)
        norm = np.linalg.norm(x.reshape(-1, x.shape[-1]), 2) if name == "kernel" else np.linalg.norm(x)
        of = {"kernel": (norm**2 - 1) ** 2, "scale": np.sum((x**2 - 1) ** 2)}
        terms[name].append(of.get(name, norm**4))
    assert {name: len(each) for name, each in terms.items()} == {"kernel": 8, "bias": 8, "offset": 6, "scale": 6}
    expected = 0.1 * sum(map(sum, terms.values())) / (8 if reduce == "mean" else 1)
    assert float(method.penalty(state, now, facts)) == pytest.approx(expected, rel=1e-3)


def test_one_power_iteration_after_each_update() -> None:
    now, method = params(), spectral_regularization()
    state = method.init(KEY, now, None)
    after, _ = method.step(KEY, state, Learner(now, (), ()), context())
    u = np.asarray(state["hidden"])
    expected = KERNEL @ (KERNEL.T @ u)
    np.testing.assert_allclose(after["hidden"], expected / np.linalg.norm(expected), rtol=1e-5)
    assert np.linalg.norm(u) == pytest.approx(1.0)


def test_spectral_follows_training() -> None:
    """Along fifty updates the kept vectors see the largest singular values, of maps and of matrices."""
    loop = make(spectral_regularization(strength=1e-3), adam(learning_rate=0.01), CNN)
    run = jax.jit(lambda run: train(loop, KEY, run, 50))(loop.init(KEY))
    for name, module in run.learner.params.items():
        matrix = np.asarray(module["kernel"]).reshape(-1, module["kernel"].shape[-1])
        seen = np.linalg.norm(np.asarray(run.state[name]) @ matrix)
        np.testing.assert_allclose(seen, np.linalg.norm(matrix, 2), rtol=0.02)


def test_parseval_by_hand() -> None:
    """[[1, -2], [4, 0.5]]: Gram matrix [[5, 3], [3, 16.25]]; the output layer does not count."""
    value, gradient = penalised(parseval(strength=0.1, scale=2.0, scale_width=False), params())
    assert value == pytest.approx(0.1 * (3**2 + 2 * 3**2 + 14.25**2))
    apart = np.array([[3.0, 3.0], [3.0, 14.25]])
    np.testing.assert_allclose(gradient["hidden"]["kernel"], 0.4 * apart @ KERNEL, rtol=1e-5)
    assert not gradient["output"]["kernel"].any()
    scaled = penalised(parseval(strength=0.1, scale=2.0), params())[0]
    assert scaled == pytest.approx(value * (64 / 2) ** 2)


def test_parseval_takes_the_short_side() -> None:
    """Three inputs and two units, or two and three: the Gram matrix is 2 x 2."""
    tall = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])  # Gram matrix [[2, 1], [1, 2]]
    for kernel in (tall, tall.T):
        value, _ = penalised(parseval(strength=1.0, scale=2.0, scale_width=False), params(kernel))
        assert value == pytest.approx(2.0)
    maps = tall.T.reshape(1, 2, 1, 3)  # a convolution that reads two positions
    assert penalised(parseval(strength=1.0, scale_width=False), params(maps))[0] == pytest.approx(2.0)


def test_parseval_leaves_an_orthogonal_kernel_of_the_right_length_alone() -> None:
    rotated = np.sqrt(2.0) * np.array([[0.6, -0.8], [0.8, 0.6]])
    value, gradient = penalised(parseval(strength=1.0), params(rotated))
    assert value == pytest.approx(0.0, abs=1e-8)
    np.testing.assert_allclose(gradient["hidden"]["kernel"], np.zeros((2, 2)), atol=2e-3)
    assert penalised(parseval(strength=1.0), params(2.0 * rotated))[0] > 1.0


@pytest.mark.parametrize(
    ("factory", "settings"),
    [
        (l2, {"which": "biases"}),
        (l2_init, {"which": "biases"}),
        (l2_init, {"reduce": "max"}),
        (wasserstein_init, {"which": "biases"}),
        (wasserstein_init, {"period": 0}),
        (spectral_regularization, {"reduce": "max"}),
        (spectral_regularization, {"power": 0}),
        (spectral_regularization, {"iterations": 0}),
    ],
)
def test_bad_settings(factory: Any, settings: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}: .* is not allowed; must be "):
        factory(**settings)
