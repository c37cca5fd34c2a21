from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from plasticity.monitors import hessian_top_eigenvalue
from plasticity.monitors.curvature import NOISE, hessian_product, lanczos, product_of, tridiagonal
from plasticity.networks.spec import Convolution, NetworkSpec
from plasticity.optim.optimizers import adam


def symmetric(eigenvalues, seed=0):
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))[0]
    return jnp.asarray((q * np.asarray(eigenvalues)) @ q.T, jnp.float32)


def ritz(matrix, iterations, start=None):
    start = jax.random.normal(jax.random.key(3), matrix.shape[:1]) if start is None else start
    return np.asarray(ritz_values(matrix, start, iterations))


@partial(jax.jit, static_argnums=2)
def ritz_values(matrix, start, iterations):
    return jnp.linalg.eigvalsh(tridiagonal(*lanczos(lambda vector: matrix @ vector, start, iterations)))


def extremes_only(found):
    return {name: value for name, value in found.items() if "/" not in name}


@pytest.fixture(scope="module")
def extremes(probes):
    """(matrix A, iterations, seed) -> metrics of the loss 0.5 x^T A x, whose Hessian is A, at x = 1, 2, ..."""

    @partial(jax.jit, static_argnums=1)
    def measure(matrix, iterations, key):
        probe = probes.written({}, {"w": jnp.arange(1.0, 1.0 + len(matrix))}, lambda p: 0.5 * p["w"] @ matrix @ p["w"])
        return extremes_only(hessian_top_eigenvalue(iterations=iterations).measure(key, (), probe)[1])

    def metrics(matrix, iterations=20, seed=0):
        return {k: float(v) for k, v in measure(matrix, iterations, jax.random.key(seed)).items()}

    return metrics


def test_tridiagonal():
    found = tridiagonal(jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([4.0, 5.0]))
    assert found.tolist() == [[1, 4, 0], [4, 2, 5], [0, 5, 3]]


def test_two_steps_by_hand():
    """diag(1, 3) from (1, 1): q1 = (1, 1)/sqrt(2), a1 = 2, b1 = 1, q2 = (-1, 1)/sqrt(2), a2 = 2."""
    alphas, betas = lanczos(lambda v: jnp.asarray([1.0, 3.0]) * v, jnp.ones(2), 2)
    np.testing.assert_allclose(alphas, [2, 2], rtol=1e-6)
    np.testing.assert_allclose(betas, [1], rtol=1e-6)


def test_all_steps_give_the_whole_spectrum_with_its_signs():
    eigenvalues = [-5.0, -1.0, 0.0, 0.5, 2.0, 2.5, 7.0, 40.0]
    np.testing.assert_allclose(ritz(symmetric(eigenvalues), 8), eigenvalues, atol=1e-4)


def test_no_more_steps_than_dimensions():
    assert ritz(symmetric([1.0, 2.0, 3.0]), 20).shape == (3,)
    np.testing.assert_allclose(ritz(symmetric([4.0]), 20), [4.0], rtol=1e-6)


def test_the_coefficients_stay_right_long_after_the_top_has_converged():
    """Without re-orthogonalisation copies of the isolated top eigenvalue appear ("ghosts")."""
    eigenvalues = np.concatenate([np.linspace(0, 1, 59), [1e3]])
    found = ritz(symmetric(eigenvalues), 40)
    assert found[-1] == pytest.approx(1e3, rel=1e-5)
    assert found[-2] < 1.001


@pytest.mark.parametrize("eigenvalues", [[2.0] * 6, [3.0, 3.0, 5.0, 5.0, 5.0, 5.0], [0.0] * 6, [0.0] * 5 + [9.0]])
def test_an_exhausted_krylov_space_is_left_and_nothing_is_padded(eigenvalues):
    """Repeated eigenvalues: the dimension of the Krylov space is the number of distinct ones."""
    np.testing.assert_allclose(ritz(symmetric(eigenvalues), 6), eigenvalues, atol=1e-4)


def test_a_start_inside_an_invariant_subspace():
    matrix = jnp.diag(jnp.asarray([1.0, 2.0, 8.0]))
    alphas, betas = lanczos(lambda vector: matrix @ vector, jnp.asarray([1.0, 0.0, 0.0]), 3)
    assert float(betas[0]) == 0.0
    np.testing.assert_allclose(jnp.linalg.eigvalsh(tridiagonal(alphas, betas)), [1, 2, 8], rtol=1e-5)


def test_a_quadratic_of_known_spectrum(extremes):
    """Separated extremes of 30 dimensions in 20 steps."""
    eigenvalues = np.concatenate([[-4.0], np.linspace(-0.5, 1.0, 28), [6.0]])
    found = extremes(symmetric(eigenvalues))
    expected = {"hessian_top_eigenvalue": 6, "hessian_bottom_eigenvalue": -4}
    assert found == pytest.approx(expected, rel=1e-3)


def test_top_means_algebraic_not_absolute(extremes):
    found = extremes(symmetric([-9.0, -3.0, -2.0]))
    expected = {"hessian_top_eigenvalue": -2, "hessian_bottom_eigenvalue": -9}
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_positive_definite_hessian_has_no_zero_eigenvalue(extremes):
    """The identity exhausts the Krylov space at the first step."""
    found = extremes(3 * jnp.eye(30))
    expected = {"hessian_top_eigenvalue": 3, "hessian_bottom_eigenvalue": 3}
    assert found == pytest.approx(expected, rel=1e-5)


def test_rank_one_and_zero_hessians(extremes):
    vector = jnp.linspace(-1.0, 1.0, 30)
    found = extremes(jnp.outer(vector, vector))
    assert found["hessian_top_eigenvalue"] == pytest.approx(float(vector @ vector), rel=1e-5)
    assert found["hessian_bottom_eigenvalue"] == pytest.approx(0, abs=1e-4)
    found = extremes(jnp.zeros((30, 30)))
    assert found == {"hessian_top_eigenvalue": 0, "hessian_bottom_eigenvalue": 0}


def dense_hessian(probe):
    flat, unravel = ravel_pytree(probe.learner.params)
    return np.asarray(jax.jit(jax.hessian(lambda vector: probe.loss(unravel(vector))))(flat), np.float64)


def dense_extremes(probe):
    eigenvalues = np.linalg.eigvalsh(dense_hessian(probe))
    return {"hessian_top_eigenvalue": eigenvalues[-1], "hessian_bottom_eigenvalue": eigenvalues[0]}


def network_probe(probes, spec, samples=12):
    inputs = jax.random.normal(jax.random.key(5), (samples, *spec.observation))
    return probes.of_network(spec, probes.initial(spec, 4), inputs)


def test_a_small_network_against_the_dense_hessian(probes):
    probe = network_probe(probes, NetworkSpec((3,), 2, widths=(4, 3), activation="tanh"))
    found = probes.measured(hessian_top_eigenvalue(iterations=30), probe)
    assert extremes_only(found) == pytest.approx(dense_extremes(probe), rel=1e-3)


def test_a_small_convolutional_network_against_the_dense_hessian(probes):
    spec = NetworkSpec((6, 6, 1), 2, (Convolution(2, 3, 2),), (3,), "tanh", convolution="patches")
    probe = network_probe(probes, spec, samples=5)
    found = probes.measured(hessian_top_eigenvalue(iterations=40), probe)
    assert extremes_only(found) == pytest.approx(dense_extremes(probe), rel=1e-3)


def test_a_loss_with_a_custom_vjp_has_no_forward_mode_and_needs_none(probes):
    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))
    params = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(-3.0)}
    probe = probes.written({}, params, lambda p: jnp.sum(cube(p["a"])) + cube(p["b"]))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(probe.loss, (params,), (params,))
    found = probes.measured(hessian_top_eigenvalue(), probe)  # the Hessian is diag(6, 12, -18)
    expected = {"hessian_top_eigenvalue": 12, "hessian_bottom_eigenvalue": -18}
    assert extremes_only(found) == pytest.approx(expected, rel=1e-5)


def test_the_product_is_the_hessians(probes):
    probe = network_probe(probes, NetworkSpec((3,), 2, widths=(4,), activation="silu"))

    @jax.jit
    def product(vector):
        return hessian_product(probe.loss, probe.learner.params)[0](vector)

    vector = np.cos(np.arange(26.0, dtype=np.float32))
    np.testing.assert_allclose(product(vector), dense_hessian(probe) @ vector, rtol=1e-4, atol=1e-5)


SPEC = NetworkSpec((3,), 2, widths=(4,), activation="tanh")  # 26 parameters


@pytest.fixture(scope="module")
def probe(probes):
    """With a row that is not valid, and an Adam that has seen one gradient."""
    found = network_probe(probes, SPEC, 6)
    valid = jnp.asarray([True, True, False, True, True, True])
    rule = adam(learning_rate=0.5, b2=0.5)
    gradient = jax.jit(jax.grad(found.loss))(found.learner.params)
    state = rule.update(gradient, rule.init(gradient), found.learner.params)[1]
    learner = found.learner._replace(opt_state=state)
    return found._replace(learner=learner, optimizer=rule, valid=valid)


@pytest.fixture(scope="module")
def jacobian(probe):
    """float64[5 valid rows, 2 outputs, 26], and the outputs [5, 2]."""
    flat, unravel = ravel_pytree(probe.learner.params)

    def scores(vector):
        return probe.scores(unravel(vector), probe.observation)

    values, found = jax.jit(lambda vector: (scores(vector), jax.jacrev(scores)(vector)))(flat)
    rows = np.asarray(probe.valid)
    return np.asarray(found, np.float64)[rows], np.asarray(values, np.float64)[rows]


def dense(probe, loss, matrix, eps=1e-8, key=0):
    """The whole matrix of the products with unit vectors."""

    @jax.jit
    def columns():
        product, flat = product_of("here", loss, matrix, eps)(jax.random.key(key), probe)
        return jax.lax.map(product, jnp.eye(flat.size))

    return np.asarray(columns(), np.float64).T


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_gauss_newton_matrix_of_values(probe, jacobian):
    """J^T J, the mean over the valid rows."""
    j, _ = jacobian
    close(dense(probe, "task", "gauss_newton"), np.einsum("boi,boj->ij", j, j) / 5)
    close(dense(probe, "perturbed", "gauss_newton"), 2 * np.einsum("boi,boj->ij", j, j) / 5)


def test_the_gauss_newton_matrix_of_logits_is_the_fisher_matrix(probe, jacobian):
    """E_{y ~ p} of the outer product of grad log p(y), the mean over the valid rows."""
    j, logits = jacobian
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.zeros((26, 26))
    for row, chances in zip(j, p, strict=True):
        for y in range(2):
            gradient = row[y] - chances @ row
            expected += chances[y] * np.outer(gradient, gradient) / 5
    close(dense(probe._replace(meaning="logits"), "task", "gauss_newton"), expected)


def test_the_perturbed_hessian_is_gauss_newton_plus_noise_times_curvature(probe, jacobian):
    """2 mean_x (J^T J + sum_o e_o Hessian of f_o); the task's targets don't enter."""
    j, _ = jacobian
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(3), NOISE), (6, 2))
    flat, unravel = ravel_pytree(probe.learner.params)
    weights = probe.valid[:, None] / 5

    def second_part(vector):
        return 2 * jnp.sum(weights * noise * probe.scores(unravel(vector), probe.observation))

    expected = 2 * np.einsum("boi,boj->ij", j, j) / 5 + np.asarray(jax.jit(jax.hessian(second_part))(flat))
    other = probe._replace(loss=lambda params: jnp.zeros(()), losses=lambda params: jnp.zeros(6))
    close(dense(other, "perturbed", "hessian", key=3), expected)


def test_the_preconditioned_matrix(probe):
    """v = (1 - b2) g^2 after one gradient; rows and columns by (sqrt(v) + eps)^-1/2."""
    gradient = ravel_pytree(jax.jit(jax.grad(probe.loss))(probe.learner.params))[0]
    scale = 1 / np.sqrt(np.sqrt(0.5) * np.abs(np.asarray(gradient, np.float64)) + 0.01)
    close(dense(probe, "task", "preconditioned", eps=0.01), dense_hessian(probe) * np.outer(scale, scale))


def test_the_largest_k_the_smallest_and_the_step_size(probes, probe):
    found = probes.measured(hessian_top_eigenvalue(iterations=26, k=4), probe)
    eigenvalues = np.linalg.eigvalsh(dense_hessian(probe))
    name = "hessian_top_eigenvalue"
    expected = {name: eigenvalues[-1]} | {f"{name}/{i}": eigenvalues[-i] for i in (2, 3, 4)}
    expected |= {"hessian_bottom_eigenvalue": eigenvalues[0], f"{name}/times_learning_rate": 0.5 * eigenvalues[-1]}
    assert found == pytest.approx(expected, abs=1e-4, rel=1e-4)


def test_the_choice_of_loss_and_matrix_reaches_the_monitor(probes, probe, jacobian):
    j, _ = jacobian
    top = np.linalg.eigvalsh(np.einsum("boi,boj->ij", j, j) / 5)[-1]
    for loss, factor in (("task", 1), ("perturbed", 2)):
        found = probes.measured(hessian_top_eigenvalue(loss=loss, matrix="gauss_newton"), probe)
        assert found["hessian_top_eigenvalue"] == pytest.approx(factor * top, rel=1e-4)
        assert found["hessian_bottom_eigenvalue"] == pytest.approx(0, abs=1e-4)


def test_without_second_moments_nothing_preconditions(probes):
    probe = probes.written({}, {"w": jnp.ones(2)})
    monitor = hessian_top_eigenvalue(matrix="preconditioned")
    with pytest.raises(
        ValueError, match=r"hessian_top_eigenvalue: matrix preconditioned: .* does not keep second moments"
    ):
        monitor.measure(jax.random.key(0), (), probe)


def test_more_eigenvalues_than_parameters_are_refused(probes):
    probe = probes.written({}, {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"k: 3 is not allowed; must be at most the number of parameters \(2\)"):
        hessian_top_eigenvalue(k=3).measure(jax.random.key(0), (), probe)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k: 0 is not allowed; must be an integer of at least 1"),
        ({"k": 5, "iterations": 4}, r"k: 5 is not allowed; must be at most iterations \(4\)"),
        ({"loss": "td"}, "loss: .td. is not allowed; must be one of task, perturbed"),
        ({"matrix": "fisher"}, "matrix: .fisher. is not allowed; must be one of hessian, gauss_newton, preconditioned"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"hessian_top_eigenvalue: {message}"):
        hessian_top_eigenvalue(**settings)


def test_the_start_comes_from_the_key(extremes):
    matrix = symmetric(np.linspace(0.0, 1.0, 30))
    first, again, other = (extremes(matrix, 2, seed)["hessian_top_eigenvalue"] for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert max(first, other) <= 1 + 1e-5  # Ritz values lie inside the spectrum


def test_iterations_below_one_are_refused():
    with pytest.raises(
        ValueError, match="hessian_top_eigenvalue: iterations: 0 is not allowed; must be an integer of at least 1"
    ):
        hessian_top_eigenvalue(iterations=0)
