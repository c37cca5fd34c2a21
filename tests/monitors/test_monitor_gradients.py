import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.monitors import gradient_covariance, ntk
from plasticity.monitors.gradients import loss_kernel, tangent_kernel
from plasticity.networks.spec import NetworkSpec

INPUTS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def of_losses(probes, losses, params, rows, valid=None):
    """A probe in which only the losses matter."""
    probe = probes.written({"hidden_0": jnp.zeros((rows, 1))}, params)
    valid = jnp.ones(rows, bool) if valid is None else jnp.asarray(valid)
    return probe._replace(losses=losses, valid=valid)


def with_gradients(probes, gradients, valid=None):
    """``l_i = <g_i, theta>``: the gradients are these rows, wherever ``theta`` is."""
    rows = jnp.asarray(gradients, jnp.float32)
    return of_losses(probes, lambda params: rows @ params, jnp.zeros(rows.shape[1]), len(rows), valid)


def with_kernel(probes, jacobian, valid=None):
    """Scores ``f_o(x_i) = <J_io, theta>`` of the rows whose numbers are observed; Jacobian [rows, outputs, P]."""
    jacobian = jnp.asarray(jacobian, jnp.float32)
    probe = with_gradients(probes, jacobian[:, 0], valid)
    observation = jnp.arange(len(jacobian))
    return probe._replace(observation=observation, scores=lambda params, rows: jacobian[rows] @ params)


def entropy_rank(eigenvalues):
    p = np.asarray(eigenvalues, np.float64) / np.sum(eigenvalues)
    p = p[p > 0]
    return np.exp(-np.sum(p * np.log(p)))


def short(found, name):
    return {metric.removeprefix(name).removeprefix("/"): value for metric, value in found.items()}


def test_the_cosines_by_hand(probes):
    """(1, 0), (2, 2), (-3, 0): cosines 1/sqrt(2), -1 and -1/sqrt(2).

    Eigenvalues: of the unit gradients' moments [[5/2, 1/2], [1/2, 1/2]], with trace 3 and determinant 1.
    """
    found = short(
        probes.measured(gradient_covariance(k=3), with_gradients(probes, [[1, 0], [2, 2], [-3, 0]])),
        "gradient_covariance",
    )
    expected = {
        "": -1 / 3,
        "absolute": (1 + np.sqrt(2)) / 3,
        "negative": 2 / 3,
        "effective_rank": entropy_rank([(3 + np.sqrt(5)) / 2, (3 - np.sqrt(5)) / 2]),
        "vanishing": 0,
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_gradients_of_a_linear_model(probes):
    """``l_i = (w x_i + b - 1)^2``: ``g_i = 2 e_i (x_i, 1)``, the cosines of ``(x, 1)`` up to sign."""
    params = probes.initial(NetworkSpec((3,), 1), 1)
    probe = probes.of_network(NetworkSpec((3,), 1), params, jnp.asarray(INPUTS))
    errors = INPUTS @ np.asarray(params["output"]["kernel"])[:, 0] + np.asarray(params["output"]["bias"]) - 1
    gradients = 2 * errors[:, None] * np.concatenate([INPUTS, np.ones((6, 1))], axis=1)
    np.testing.assert_allclose(loss_kernel(probe, jnp.arange(6)), gradients @ gradients.T, rtol=1e-4, atol=1e-5)
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(6, dtype=bool)]
    found = short(probes.measured(gradient_covariance(k=6), probe), "gradient_covariance")
    assert found[""] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert found["absolute"] == pytest.approx(np.mean(np.abs(cosines)), abs=1e-5)
    assert found["negative"] == pytest.approx(np.mean(cosines < 0))
    assert found["effective_rank"] == pytest.approx(entropy_rank(np.linalg.svd(unit, compute_uv=False) ** 2), rel=1e-4)


@pytest.mark.parametrize(("gradients", "expected"), [(np.eye(4), (0, 0, 0, 4)), (np.ones((4, 4)), (1, 1, 0, 1))])
def test_orthogonal_and_equal_gradients(probes, gradients, expected):
    scaled = gradients * np.asarray([[1e-8], [1.0], [1e8], [3.0]])  # cosines do not see lengths
    found = short(probes.measured(gradient_covariance(k=4), with_gradients(probes, scaled)), "gradient_covariance")
    measured = [found[name] for name in ("", "absolute", "negative", "effective_rank")]
    assert measured == pytest.approx(expected, abs=1e-5)


def test_a_sample_without_a_gradient(probes):
    """Rows 0, (1, 0), (1, 0): one pair of three has cosine 1, the others count as 0."""
    found = short(
        probes.measured(gradient_covariance(k=3), with_gradients(probes, [[0, 0], [1, 0], [1, 0]])),
        "gradient_covariance",
    )
    assert found == pytest.approx(
        {"": 1 / 3, "absolute": 1 / 3, "negative": 0, "effective_rank": 1, "vanishing": 1 / 3}
    )


def test_only_the_first_valid_rows_count(probes):
    """Of five rows the second is no transition; the first three others are orthogonal, opposite, orthogonal."""
    rows, valid = [[1, 0], [9, 9], [0, 1], [-1, 0], [5, 5]], [True, False, True, True, True]
    probe = with_gradients(probes, rows, valid)
    found = probes.measured(gradient_covariance(k=3), probe)
    assert found["gradient_covariance"] == pytest.approx(-1 / 3)
    assert found["gradient_covariance/negative"] == pytest.approx(1 / 3)
    few = probe._replace(valid=jnp.asarray([True, False, False, True, False]))  # fewer than k: those two
    found = short(probes.measured(gradient_covariance(k=4), few), "gradient_covariance")
    assert found == pytest.approx({"": -1, "absolute": 1, "negative": 1, "effective_rank": 1, "vanishing": 0})
    alone = probe._replace(valid=jnp.asarray([True, False, False, False, False]))
    assert np.isnan(list(probes.measured(gradient_covariance(k=4), alone).values())).all()


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_kernel_of_a_linear_network(probes, outputs):
    """``K = X X^T + 1``: one from the bias, whatever the number of outputs."""
    spec = NetworkSpec((3,), outputs)
    probe = probes.of_network(spec, probes.initial(spec), jnp.asarray(INPUTS))
    kernel = INPUTS @ INPUTS.T + 1
    np.testing.assert_allclose(tangent_kernel(probe, jnp.arange(6)), kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tangent_kernel(probe, jnp.asarray([4, 1])), kernel[[4, 1]][:, [4, 1]], rtol=1e-5)
    eigenvalues = np.linalg.eigvalsh(kernel[:4, :4].astype(np.float64))[::-1]
    found = short(probes.measured(ntk(k=4), probe), "ntk")
    assert found[""] == pytest.approx(entropy_rank(eigenvalues), rel=1e-4)
    assert found["numerical_rank"] == 4
    assert found["condition"] == pytest.approx(eigenvalues[0] / eigenvalues[-1], rel=1e-3)
    assert found["top"] == pytest.approx(eigenvalues[0] / eigenvalues.sum(), rel=1e-4)


def test_the_kernel_of_a_hidden_layer(probes):
    """``f = a . tanh(W x)`` by hand: ``tanh . tanh + (a^2 tanh' tanh') (x . x + 1) + 1``."""
    spec = NetworkSpec((3,), 1, widths=(4,), activation="tanh")
    params = probes.initial(spec, 2)
    inner, outer = (np.asarray(params[name]["kernel"]) for name in ("hidden_0", "output"))
    hidden = np.tanh(INPUTS @ inner + np.asarray(params["hidden_0"]["bias"]))
    slopes = (1 - hidden**2) * outer[:, 0]
    expected = hidden @ hidden.T + 1 + (slopes @ slopes.T) * (INPUTS @ INPUTS.T + 1)
    found = tangent_kernel(probes.of_network(spec, params, jnp.asarray(INPUTS)), jnp.arange(6))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_spectrum_of_the_kernel_by_hand(probes):
    """Two outputs with Jacobians diag(2, 1, 1) and zero: eigenvalues 2, 1/2, 1/2 after the mean over outputs."""
    jacobian = np.zeros((3, 2, 3))
    jacobian[[0, 1, 2], 0, [0, 1, 2]] = [2, 1, 1]
    found = short(probes.measured(ntk(k=3), with_kernel(probes, jacobian)), "ntk")
    expected = {"": entropy_rank([4, 1, 1]), "numerical_rank": 3, "condition": 4, "diagonal": 1, "top": 2 / 3}
    assert found == pytest.approx(expected, rel=1e-5)


def test_outputs_that_cancel_each_other_do_not_cancel_in_the_kernel(probes):
    """``f_2 = -f_1``, as the advantages of two actions: the kernel is that of ``f_1``; the sum's would be zero."""
    rows = np.asarray([[1.0, 2.0], [0.0, 3.0]])
    found = tangent_kernel(with_kernel(probes, np.stack([rows, -rows], axis=1)), jnp.arange(2))
    np.testing.assert_allclose(found, [[5, 6], [6, 9]], rtol=1e-6)


def test_a_kernel_of_rank_one_has_the_floor_for_a_condition(probes):
    found = short(probes.measured(ntk(k=4), with_kernel(probes, np.ones((4, 1, 2)))), "ntk")
    floor = 1 / (4 * np.finfo(np.float32).eps)
    expected = {"": 1, "numerical_rank": 1, "condition": floor, "diagonal": 1 / 4, "top": 1}
    assert found == pytest.approx(expected, rel=1e-4)


def test_diagonal_plus_rank_one(probes):
    """``K = I + 1 1^T`` on 4 rows: diagonal 4 of 2^2, off-diagonal 12 of 1; eigenvalues 5, 1, 1, 1."""
    jacobian = np.concatenate([np.eye(4), np.ones((4, 1))], axis=1)[:, None]
    found = short(probes.measured(ntk(k=4), with_kernel(probes, jacobian)), "ntk")
    assert found["diagonal"] == pytest.approx(16 / 28)
    assert found["top"] == pytest.approx(5 / 8)
    assert found["condition"] == pytest.approx(5, rel=1e-4)


def test_the_kernel_of_fewer_valid_rows_is_that_of_the_valid_ones(probes):
    """Rows 0 and 2 of diag(3, 1, 1): eigenvalues 9 and 1, although k is 3."""
    probe = with_kernel(probes, np.diag([3.0, 1, 1])[:, None], [True, False, True])
    found = short(probes.measured(ntk(k=3), probe), "ntk")
    expected = {"": entropy_rank([9, 1]), "numerical_rank": 2, "condition": 9, "diagonal": 1, "top": 0.9}
    assert found == pytest.approx(expected, rel=1e-5)
    none = probe._replace(valid=jnp.zeros(3, bool))
    assert np.isnan(list(probes.measured(ntk(k=3), none).values())).all()


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_kernels_summaries_are_scale_free(probes, scale):
    jacobian = np.random.default_rng(3).normal(size=(4, 2, 5))
    before = probes.measured(ntk(k=4), with_kernel(probes, jacobian))
    assert probes.measured(ntk(k=4), with_kernel(probes, scale * jacobian)) == pytest.approx(before, rel=1e-3)


def test_a_kernel_of_zeros(probes):
    assert set(probes.measured(ntk(k=2), with_kernel(probes, np.zeros((2, 1, 3)))).values()) == {0}


@pytest.mark.parametrize(("factory", "least"), [(gradient_covariance, 2), (ntk, 1)])
def test_impossible_numbers_of_samples(probes, factory, least):
    with pytest.raises(
        ValueError,
        match=f"{factory.__name__}: k: {least - 1} is not allowed; must be an integer of at least {least}",
    ):
        factory(k=least - 1)
    probe = with_kernel(probes, np.ones((3, 1, 2)))
    with pytest.raises(
        ValueError, match=rf"{factory.__name__}: k: 4 is not allowed; must be at most the size of the batch .*, 3"
    ):
        jax.eval_shape(lambda key: factory(k=4).measure(key, (), probe)[1], jax.random.key(0))
