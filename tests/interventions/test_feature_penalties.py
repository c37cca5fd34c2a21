"""Penalties on features and outputs, by hand, by finite differences and against NumPy."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP, clock_at, make

from plasticity.core.outputs import Logits
from plasticity.core.types import Activation, Context, HiddenLayer, Learner, Network
from plasticity.interventions import c_chain, effective_rank, infer, pfo
from plasticity.interventions.base import Intervention
from plasticity.interventions.feature_penalties import nearest, of_network, spectrum
from plasticity.networks.build import build, join
from plasticity.networks.spec import Head
from plasticity.optim.optimizers import sgd

KEY = jax.random.key(0)
X = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 1.0]], np.float32)
OTHERS = np.array([[1.0, 0.0], [2.0, 2.0]], np.float32)
W = np.array([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0]], np.float32)
V = np.array([[1.0], [-1.0], [2.0]], np.float32)


def apply(params: dict, x: jax.Array, carry: Any = (), first: Any = None) -> tuple[Any, dict, Any]:
    """A linear network: what enters a layer's non-linearity leaves it doubled."""
    z = x @ params["first"]["kernel"]
    return {"value": 2.0 * z @ params["output"]["kernel"]}, {"first": Activation(z, 2.0 * z)}, carry


LINEAR = Network(
    lambda key: {"first": {"kernel": jnp.asarray(W)}, "output": {"kernel": jnp.asarray(V)}},
    apply,
    hidden=(("first",),),
    outputs=(("output",),),
    layers=(HiddenLayer("first"),),
)


def context(params: Any, update: int = 0, network: Network = LINEAR, x: Any = X) -> Context:
    _, activations = network.forward(params, jnp.asarray(x))
    return Context(
        clock_at(update),
        jnp.asarray(x),
        activations,
        (),
        network,
        sgd(),
        lambda key: None,
        lambda p: jnp.zeros(()),
        lambda: jnp.asarray(OTHERS),
    )


def moved(by: Any = 0.5) -> dict:
    params = LINEAR.init(KEY)
    return {**params, "first": {"kernel": params["first"]["kernel"] + by}}


def penalised(method: Intervention, state: Any, params: Any, update: int = 0, x: Any = X) -> tuple[Any, float, Any]:
    """The state after ``prepare``, the penalty and its gradient."""
    state, _ = method.prepare(KEY, state, Learner(params, (), ()), context(params, update, x=x))
    value, gradient = jax.value_and_grad(lambda p: method.penalty(state, p, context(p, update, x=x)))(params)
    return state, float(value), gradient


def test_pfo_is_zero_after_a_refresh_and_right_after_a_change() -> None:
    method = pfo(strength=2.0, period=3)
    state, value, gradient = penalised(method, method.init(KEY, moved(9.0), None), LINEAR.init(KEY), update=3)
    assert value == 0.0
    assert not gradient["first"]["kernel"].any()
    _, value, gradient = penalised(method, state, moved(), update=4)
    change = X @ np.full((2, 3), 0.5)
    assert value == pytest.approx(2.0 * np.mean(change**2))
    np.testing.assert_allclose(gradient["first"]["kernel"], 2.0 * X.T @ (2.0 * change) / change.size, rtol=1e-5)
    assert penalised(method, state, moved(), update=6)[1] == 0.0


def test_pfo_on_all_layers_adds_them() -> None:
    network = build(MLP)
    old, new = network.init(KEY), network.init(jax.random.key(1))
    x = jax.random.normal(KEY, (6, 3))
    (_, before), (_, after) = network.forward(old, x), network.forward(new, x)
    apart = [float(np.mean((np.asarray(after[name].pre) - before[name].pre) ** 2)) for name in ("hidden_0", "hidden_1")]
    for layers, expected in (("last", apart[1]), ("all", sum(apart))):
        got = pfo(layers=layers).penalty(old, new, context(new, network=network, x=x))
        assert float(got) == pytest.approx(expected, rel=1e-5)


def test_the_layers_nearest_to_the_outputs() -> None:
    assert nearest(build(CNN), 1) == ["hidden_2"]
    assert nearest(build(CNN), 2) == ["hidden_2", "hidden_1"]
    assert set(nearest(build(CNN), 9)) == {"hidden_0", "hidden_1", "hidden_2"}
    branched = replace(MLP, heads=(Head("policy", 1, (3,)), Head("value", 1)))
    assert set(nearest(build(branched), 1)) == {"hidden_1", "policy_hidden_0"}
    both = join({"policy": build(MLP), "value": build(MLP)})
    assert of_network(nearest(both, 1), "policy") == ["policy/hidden_1"]
    with pytest.raises(
        ValueError,
        match=r'network: "actor" is not allowed; must be .* first part of one of policy/hidden_1, value/hidden_1',
    ):
        of_network(nearest(both, 1), "actor")
    with pytest.raises(ValueError, match="needs a network with a hidden layer"):
        nearest(build(replace(MLP, widths=())), 2)


def reference_rank(matrix: np.ndarray) -> float:
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.eye(4), 4.0),
        (np.ones((3, 5)), 1.0),
        (np.outer([1.0, -2.0, 3.0, 0.5], [2.0, 1.0]), 1.0),
        (np.zeros((3, 2)), 0.0),
        (np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))),
    ],
    ids=["identity", "ones", "rank one", "zeros", "three and one"],
)
def test_effective_rank_of_known_matrices(matrix: np.ndarray, expected: float) -> None:
    found = spectrum(jnp.asarray(matrix, jnp.float32))
    assert float(found.rank) == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(found.gradient).all()


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_effective_rank_and_its_gradient_by_finite_differences(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape)
    found = spectrum(jnp.asarray(matrix, jnp.float32))
    assert float(found.rank) == pytest.approx(reference_rank(matrix), rel=1e-5)
    slopes = np.zeros(shape)
    for index in np.ndindex(shape):
        bump = np.zeros(shape)
        bump[index] = 1e-5
        slopes[index] = (reference_rank(matrix + bump) - reference_rank(matrix - bump)) / 2e-5
    np.testing.assert_allclose(found.gradient, slopes, rtol=1e-3, atol=1e-4)


def test_effective_rank_does_not_count_the_rounding_of_squares() -> None:
    """Of one strong and one faint direction. Roots of the Gram matrix's eigenvalues would give 1.01."""
    left, right = (np.linalg.qr(np.random.default_rng(i).normal(size=(n, 2)))[0] for i, n in ((0, 64), (1, 32)))
    matrix = left @ np.diag([1.0, 1e-5]) @ right.T
    assert float(spectrum(jnp.asarray(matrix, jnp.float32)).rank) == pytest.approx(reference_rank(matrix), abs=2e-3)
    squares = np.linalg.eigvalsh((matrix.T @ matrix).astype(np.float32))
    assert reference_rank(np.diag(np.sqrt(np.abs(squares)))) > 1.01


def test_effective_rank_penalty() -> None:
    """Minus the rank of twice ``X W``, whose gradient goes back through the layer; with the norm of the parameters."""
    method, params = effective_rank(strength=0.1, decay=0.5), LINEAR.init(KEY)
    _, value, gradient = penalised(method, (), params)
    features = 2.0 * X @ W
    norm = np.sum(W**2) + np.sum(V**2)
    assert value == pytest.approx(0.5 * norm - 0.1 * reference_rank(features), rel=1e-4)
    expected = 2.0 * X.T @ np.asarray(spectrum(jnp.asarray(features)).gradient)
    np.testing.assert_allclose(gradient["first"]["kernel"], W - 0.1 * expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(gradient["output"]["kernel"], V, rtol=1e-6)


def test_effective_rank_acts_at_the_end_of_each_period() -> None:
    method, params = effective_rank(strength=0.1, period=2), LINEAR.init(KEY)
    values = [penalised(method, (), params, update)[1] for update in range(4)]
    assert values[0] == values[2] == 0.0
    assert values[1] == values[3] < -0.09


@pytest.mark.parametrize(("row", "rank"), [([[3.0, -1.0, 2.0]], 1.0), ([[0.0, 0.0, 0.0]], 0.0)], ids=["one", "zero"])
def test_one_row_has_rank_one_and_no_gradient(row: Any, rank: float) -> None:
    found = spectrum(jnp.asarray(row))
    np.testing.assert_allclose(found.rank, rank, atol=1e-6)
    np.testing.assert_allclose(found.gradient, np.zeros((1, 3)), atol=1e-7)


def test_effective_rank_refuses_a_batch_of_one() -> None:
    with pytest.raises(ValueError, match="effective_rank needs a batch of 2 or more observations"):
        penalised(effective_rank(), (), LINEAR.init(KEY), x=X[:1])
    _, _, gradient = penalised(effective_rank(), (), LINEAR.init(KEY), x=X[:2])
    assert np.abs(gradient["first"]["kernel"]).max() > 1e-4


def test_churn_by_hand_on_a_linear_network() -> None:
    """Three updates: what the last one changed on the other batch, and nothing before the first."""
    method = c_chain(strength=3.0)
    state, value, gradient = penalised(method, method.init(KEY, moved(0.0), None), moved(0.0))
    assert value == 0.0
    assert not gradient["first"]["kernel"].any()
    for now, before in ((0.5, 0.0), (0.75, 0.5)):
        state, value, gradient = penalised(method, state, moved(now))
        change = 2.0 * OTHERS @ np.full((2, 3), now - before) @ V
        assert value == pytest.approx(3.0 * np.mean(change**2), rel=1e-5)
        expected = 3.0 * 2.0 * OTHERS.T @ (2.0 * change / change.size) @ V.T
        np.testing.assert_allclose(gradient["first"]["kernel"], expected, rtol=1e-4)


def constant(value: float) -> Callable[[Any], jax.Array]:
    return lambda params: jnp.float32(value)


def test_a_share_sets_the_strength_of_churn_from_running_means_of_both_losses() -> None:
    """Six updates against a loop: a fixed strength for two of them, and a mean over all, or a window of three."""
    places = [0.0, 0.5, 0.75, 0.8, 1.4, 1.5]
    losses = [-4.0, 3.0, 2.0, 5.0, 1.0, 7.0]
    for window in (3, 100):
        method = c_chain(strength=50.0, share=0.01, warmup=2, window=window)
        state = method.init(KEY, moved(0.0), None)
        sizes = churns = 0.0
        for done, (now, before, loss) in enumerate(zip(places, [0.0, *places[:-1]], losses, strict=True)):
            churn = np.mean((2.0 * OTHERS @ np.full((2, 3), now - before) @ V) ** 2)
            expected = 50.0 if done < 2 else 0.01 * sizes / churns
            seen = context(moved(now))._replace(loss=constant(loss))
            state, _ = method.prepare(KEY, state, Learner(moved(now), (), ()), seen)
            assert float(method.penalty(state, moved(now), seen)) == pytest.approx(expected * churn, rel=1e-4)
            sizes += (abs(loss) - sizes) / min(done + 1, window)
            churns += (churn - churns) / min(done, window) if done else 0.0
    with pytest.raises(ValueError, match="warmup: 1 is not allowed; must be at least 2"):
        c_chain(share=0.01, warmup=1)


def test_churn_as_the_divergence_of_the_old_policy_from_the_new_one() -> None:
    def said(params: dict, x: jax.Array) -> dict[str, Logits]:
        return {"policy": Logits(x @ params["first"]["kernel"])}

    def softmax(x: np.ndarray) -> np.ndarray:
        sizes = np.exp(x - x.max(axis=-1, keepdims=True))
        return sizes / sizes.sum(axis=-1, keepdims=True)

    method = c_chain(strength=3.0, distance="divergence")
    old, new = moved(0.0), moved(np.array([[0.0, 0.5, 1.0], [0.25, 0.0, 0.0]], np.float32))
    state = method.init(KEY, old, None)._replace(previous=old)
    seen = context(new)._replace(outputs=said)
    value, gradient = jax.value_and_grad(lambda params: method.penalty(state, params, seen))(new)
    before, after = (softmax(OTHERS.astype(np.float64) @ np.asarray(each["first"]["kernel"])) for each in (old, new))
    assert float(value) == pytest.approx(3.0 * np.mean(np.sum(before * np.log(before / after), axis=-1)), rel=1e-4)
    # That of the cross-entropy - sum_a p_old(a) log p_new(a).
    slope = 3.0 * OTHERS.T @ (after - before) / len(OTHERS)
    np.testing.assert_allclose(gradient["first"]["kernel"], slope, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match='distance: "kl" is not allowed; must be one of squared, divergence'):
        c_chain(distance="kl")


def test_churn_adds_the_parts_of_what_an_actor_critic_gives() -> None:
    def both(params: dict, x: jax.Array, carry: Any = (), first: Any = None) -> tuple[Any, dict, Any]:
        outputs, activations, carry = apply(params, x, carry, first)
        return {**outputs, "scale": params["scale"]}, activations, carry

    network = LINEAR._replace(apply=both)
    old, new = ({**moved(by), "scale": jnp.array([by, 0.0])} for by in (0.0, 0.5))
    method = c_chain(strength=1.0)
    state = method.init(KEY, old, None)._replace(previous=old)
    change = 2.0 * OTHERS @ np.full((2, 3), 0.5) @ V
    got = method.penalty(state, new, context(new, network=network))
    assert float(got) == pytest.approx(np.mean(change**2) + 0.25 / 2, rel=1e-5)


@pytest.mark.parametrize(("reduce", "share"), [("sum", 1.0), ("mean", 0.5)])
def test_infer_by_hand(reduce: str, share: float) -> None:
    """Twice ``X W`` are the features; two further outputs must give ten times what they gave at first."""
    heads = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    extra = {"auxiliary": {"kernel": jnp.asarray(heads), "bias": jnp.array([0.5, 0.0])}}

    def wider(params: dict, x: jax.Array, *memory: Any) -> tuple[Any, dict, Any]:
        outputs, activations, carry = LINEAR.apply(params, x)
        module = params["auxiliary"]
        made = activations["first"].post @ module["kernel"] + module["bias"]
        return outputs, {**activations, "auxiliary": Activation(made, made)}, carry

    network = LINEAR._replace(apply=wider, auxiliary=(("auxiliary",),))
    old, new = {**LINEAR.init(KEY), **extra}, {**moved(), **extra}
    method = infer(strength=0.1, scale=10.0, heads=2, reduce=reduce)

    def penalty(params: dict) -> jax.Array:
        return method.penalty(method.init(KEY, old, None), params, context(params, network=network))

    value, gradient = jax.value_and_grad(penalty)(new)
    first, now = (2.0 * X @ kernel @ heads + np.array([0.5, 0.0]) for kernel in (W, W + 0.5))
    apart = now - 10.0 * first
    assert float(value) == pytest.approx(0.1 * share * np.mean(np.sum(apart**2, axis=1)), rel=1e-5)
    np.testing.assert_allclose(gradient["auxiliary"]["bias"], 0.2 * share * np.mean(apart, axis=0), rtol=1e-4)
    expected = 0.2 * share * 2.0 * X.T @ apart @ heads.T / 3
    np.testing.assert_allclose(gradient["first"]["kernel"], expected, rtol=1e-4)


@pytest.mark.slow
def test_infer_adds_outputs_that_the_network_ignores() -> None:
    spec = infer(heads=3).network(CNN)
    plain, extended = build(CNN), build(spec)
    params = extended.init(KEY)
    assert params["auxiliary"]["kernel"].shape == (4, 3)
    x = jax.random.normal(KEY, (2, 4, 4, 2))
    known = {name: module for name, module in params.items() if name != "auxiliary"}
    np.testing.assert_array_equal(extended.forward(params, x)[0], plain.forward(known, x)[0])


def test_infer_trains_them() -> None:
    loop = make(infer(strength=1e-3, scale=2.0, heads=3), sgd(learning_rate=0.1))
    run = loop.init(KEY)
    after = jax.jit(loop.update)(KEY, run, jnp.int32(0))
    before, now = (each.learner.params["auxiliary"]["kernel"] for each in (run, after))
    assert np.abs(np.asarray(now) - before).max() > 1e-6


@pytest.mark.parametrize(
    ("factory", "settings"),
    [
        (pfo, {"layers": "first"}),
        (pfo, {"period": 0}),
        (infer, {"reduce": "max"}),
        (effective_rank, {"depth": 0}),
        (effective_rank, {"period": 0}),
    ],
)
def test_bad_settings(factory: Any, settings: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}: .* is not allowed; must be "):
        factory(**settings)
