import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.core.types import Learner
from plasticity.monitors import second_moment, update_ratio, value_scale
from plasticity.monitors.updates import intended_update, second_moments
from plasticity.optim import optimizers
from plasticity.optim.eligibility import adaptive_q, eligible, obgd, parts

PARAMS = {
    "hidden_0": {"kernel": jnp.asarray([[3.0, 0.0], [0.0, 4.0]]), "bias": jnp.asarray([100.0, 0.0])},
    "output": {"kernel": jnp.asarray([[12.0], [0.0]])},
}
SLOPES = {  # the gradient of the loss below
    "hidden_0": {"kernel": jnp.asarray([[1.0, 2.0], [2.0, 4.0]]), "bias": jnp.asarray([1000.0, 0.0])},
    "output": {"kernel": jnp.asarray([[0.0], [-12.0]])},
}
LAYERS = {"hidden_0": jnp.ones((2, 2))}


def linear_loss(params):
    products = jax.tree.map(lambda slope, leaf: jnp.sum(slope * leaf), SLOPES, params)
    return sum(jax.tree.leaves(products))


def probe_of(probes, optimizer, updates=0, params=PARAMS):
    """A probe of the linear loss with an optimizer that has seen its gradient some times."""
    state = optimizer.init(params)
    for _ in range(updates):
        state = optimizer.update(SLOPES, state, params)[1]
    probe = probes.written(LAYERS, params, linear_loss)
    return probe._replace(optimizer=optimizer, learner=Learner(params, (), state))


def test_the_update_ratio_of_sgd_by_hand(probes):
    """Kernels of norms 5 and 12 move by 0.1 times gradients of norms 5 and 12; the bias doesn't count."""
    found = probes.measured(update_ratio(), probe_of(probes, optimizers.sgd(learning_rate=0.1)))
    expected = {"update_ratio": 0.1, "update_ratio/hidden_0": 0.1, "update_ratio/output": 0.1}
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_update_ratio_counts_the_momentum(probes):
    """After two updates the momentum is 1.5 g; the update would be 0.1 (g + 0.5 * 1.5 g)."""
    found = probes.measured(update_ratio(), probe_of(probes, optimizers.sgd(learning_rate=0.1, momentum=0.5), 2))
    assert found["update_ratio/hidden_0"] == pytest.approx(0.175, rel=1e-5)


def test_the_update_ratio_of_adam_by_hand(probes):
    """A constant gradient: every number moves by the step size, 0 where the gradient is 0."""
    found = probes.measured(update_ratio(), probe_of(probes, optimizers.adam(learning_rate=0.01), 3))
    first, last = 0.02 / 5, 0.01 / 12
    expected = {"update_ratio/hidden_0": first, "update_ratio/output": last}
    assert found == pytest.approx(expected | {"update_ratio": np.hypot(0.02, 0.01) / 13}, rel=1e-4)


def test_weights_of_zeros(probes):
    """0 / 0 is no change; a move away from zero is infinitely large."""
    zeros = PARAMS | {"hidden_0": jax.tree.map(jnp.zeros_like, PARAMS["hidden_0"])}
    found = probes.measured(update_ratio(), probe_of(probes, optimizers.sgd(learning_rate=0.1), params=zeros))
    assert found["update_ratio/hidden_0"] == np.inf
    found = probes.measured(update_ratio(), probe_of(probes, optimizers.sgd(learning_rate=0.0), params=zeros))
    assert found["update_ratio/hidden_0"] == 0


@pytest.mark.parametrize("inner", [optimizers.sgd(learning_rate=0.1), optimizers.adam(learning_rate=0.1)])
def test_behind_a_trace_the_update_is_that_of_the_gradient(probes, inner):
    """The trace starts from zero, whatever it was."""
    optimizer = eligible(inner)
    state = optimizer.init(PARAMS)._replace(trace=jax.tree.map(jnp.ones_like, PARAMS), going=jnp.ones(()))
    probe = probe_of(probes, inner)
    traced = probe._replace(optimizer=optimizer, learner=Learner(PARAMS, (), state))
    found, expected = (intended_update(jax.random.key(0), each) for each in (traced, probe))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_bounded_step_bounds_the_ratio(probes):
    """|g|_1 = 9 + 1000 + 12 = 1021, kappa 2: the step size is 1 / 2042."""
    found = probes.measured(update_ratio(), probe_of(probes, eligible(obgd())))
    assert found["update_ratio/hidden_0"] == pytest.approx(1 / 2042, rel=1e-5)


def test_second_moments_by_hand(probes):
    """After one update v = (1 - 0.75) g^2, over 8 numbers of which g is 0 for two."""
    found = probes.measured(second_moment(eps=0.6), probe_of(probes, optimizers.adam(b2=0.75), 1))
    squares = 0.25 * np.asarray([1, 4, 4, 16, 1e6, 0, 0, 144])
    expected = {"": squares.mean(), "/max": 250000, "/min": 0, "/small": 3 / 8}  # 0, 0 and 0.25 < 0.36
    expected |= {"/hidden_0": 25 / 16, "/output": 18}
    assert found == pytest.approx({f"second_moment{what}": value for what, value in expected.items()}, rel=1e-5)


def test_small_means_below_the_square_of_eps_however_small_that_is(probes):
    """The squares of both are below float32's range."""
    optimizer = optimizers.adam()
    state = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-36), optimizer.init(PARAMS))
    probe = probe_of(probes, optimizer)._replace(learner=Learner(PARAMS, (), state))
    for eps, share in ((1e-17, 1), (1e-19, 0)):
        assert probes.measured(second_moment(eps=eps), probe)["second_moment/small"] == share


@pytest.mark.parametrize(
    "optimizer",
    [optimizers.rmsprop(), optimizers.adam(counts="parameter"), optimizers.adam(max_gradient_norm=1.0)],
)
def test_second_moments_are_found_in_every_optimizer(optimizer):
    state = optimizer.update(SLOPES, optimizer.init(PARAMS), PARAMS)[1]
    found = second_moments("here", state, PARAMS)
    ratios = jax.tree.map(lambda v, g: v[g != 0] / g[g != 0] ** 2, found, SLOPES)
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(ratios)])
    assert flat.min() > 0
    np.testing.assert_allclose(flat, flat[0], rtol=1e-5)


def test_second_moments_behind_wrappers_and_traces():
    """Second moments with another name, behind a trace, and behind an intervention's wrapper."""
    optimizer = optimizers.wrap(eligible(adaptive_q(b2=0.75)), before=optax.identity())
    told = {"td_error": jnp.ones(()), "trace_decay": jnp.zeros(()), "trace_end": jnp.ones((), bool)}
    state = optimizer.update(SLOPES, optimizer.init(PARAMS), PARAMS, **told)[1]
    found = second_moments("here", state, PARAMS)
    jax.tree.map(lambda v, g: np.testing.assert_allclose(v, 0.25 * g**2, rtol=1e-5), found, SLOPES)


def test_second_moments_of_parts():
    """An actor and a critic with separate optimizers: each provides its part."""
    optimizer = parts({"hidden_0": optimizers.adam(b2=0.5), "output": optimizers.adam(b2=0.75)})
    state = optimizer.update(SLOPES, optimizer.init(PARAMS), PARAMS)[1]
    found = second_moments("here", state, PARAMS)
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    np.testing.assert_allclose(found["hidden_0"]["kernel"], [[0.5, 2], [2, 8]], rtol=1e-5)
    np.testing.assert_allclose(found["output"]["kernel"], [[0], [36]], rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.sgd(momentum=0.9),
        eligible(obgd()),
        parts({"hidden_0": optimizers.adam(), "output": optimizers.sgd()}),
    ],
)
def test_an_optimizer_without_second_moments_is_refused(probes, optimizer):
    with pytest.raises(
        ValueError, match="second_moment: the agent's optimizer does not keep second moments of all parameters"
    ):
        jax.eval_shape(lambda: second_moment().measure(jax.random.key(0), (), probe_of(probes, optimizer))[1])


SCORES = [[1.0, 4.0, 2.0], [-3.0, -3.0, -5.0], [1e6, 0.0, 0.0]]  # the last row is no transition


def scored(probes, scores, meaning, valid=(True, True, False)):
    table = jnp.asarray(scores)
    probe = probes.written({"hidden_0": jnp.ones((len(table), 2))}, PARAMS)
    return probe._replace(scores=lambda params, x: table, valid=jnp.asarray(valid), meaning=meaning)


def test_the_scale_of_values_by_hand(probes):
    """1 4 2 -3 -3 -5: the best values 4 and -3 lead by 2 and 0."""
    found = probes.measured(value_scale(), scored(probes, SCORES, "values"))
    numbers = np.asarray(SCORES[:2])
    expected = {
        "": np.sqrt(64 / 6),
        "/mean": -4 / 6,
        "/std": numbers.std(),
        "/max": 4,
        "/greedy": 0.5,
        "/action_gap": 1,
    }
    assert found == pytest.approx({f"value_scale{what}": value for what, value in expected.items()}, rel=1e-5)


@pytest.mark.parametrize("meaning", ["logits", "prediction"])
def test_scores_that_are_no_values_have_no_best_action(probes, meaning):
    found = probes.measured(value_scale(), scored(probes, SCORES, meaning))
    assert set(found) == {"value_scale", "value_scale/mean", "value_scale/std", "value_scale/max"}


def test_a_large_offset_leaves_the_spread(probes):
    """E q^2 - (E q)^2 would be lost in float32."""
    found = probes.measured(value_scale(), scored(probes, [[1e5, 1e5 + 2]], "values", (True,)))
    assert found["value_scale/std"] == pytest.approx(1, rel=1e-3)
    assert found["value_scale/action_gap"] == pytest.approx(2, rel=1e-3)


def test_one_action_has_no_gap(probes):
    found = probes.measured(value_scale(), scored(probes, [[3.0], [5.0]], "values", (True, True)))
    assert found["value_scale/greedy"] == pytest.approx(4)
    assert "value_scale/action_gap" not in found


def test_a_batch_without_a_valid_row_has_no_scale(probes):
    found = probes.measured(value_scale(), scored(probes, SCORES, "values", (False,) * 3))
    assert np.isnan(list(found.values())).all()
