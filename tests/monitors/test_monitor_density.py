import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from plasticity.monitors import hessian_density, hessian_trace
from plasticity.monitors.curvature import hessian_product
from plasticity.monitors.density import density_edges, mass_in_bins, quadrature
from plasticity.networks.spec import NetworkSpec


def phi(x):
    """The standard normal distribution function."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def quadratic(probes, eigenvalues, seed=0):
    """A probe of 0.5 x^T A x: its Hessian A has these eigenvalues."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))[0]
    matrix = jnp.asarray((q * np.asarray(eigenvalues)) @ q.T, jnp.float32)
    return probes.written({}, {"w": jnp.ones(len(eigenvalues))}, lambda p: 0.5 * p["w"] @ matrix @ p["w"])


def bins_of(found):
    names = sorted(name for name in found if name.startswith("hessian_density/bin_"))
    return np.asarray([found[name] for name in names])


@pytest.fixture(scope="module")
def network(probes):
    """A probe of a network of 26 parameters, and its dense Hessian."""
    spec = NetworkSpec((3,), 2, widths=(4,), activation="tanh")
    probe = probes.of_network(spec, probes.initial(spec, 4), jax.random.normal(jax.random.key(5), (8, 3)))
    flat, unravel = ravel_pytree(probe.learner.params)
    return probe, np.asarray(jax.jit(jax.hessian(lambda v: probe.loss(unravel(v))))(flat), np.float64)


@pytest.fixture(scope="module")
def from_every_direction(network):
    """Nodes and weights of the network's Hessian from each unit vector, by 5 steps; and the dense Hessian."""
    probe, dense = network

    @jax.jit
    def rule():
        product, flat = hessian_product(probe.loss, probe.learner.params)
        return quadrature(product, jnp.eye(flat.size), 5)

    nodes, weights = rule()
    return np.asarray(nodes, np.float64), np.asarray(weights, np.float64), dense


@pytest.mark.parametrize("power", [0, 1, 2, 3, 5])
def test_the_quadrature_is_exact_for_low_powers(from_every_direction, power):
    """The mean over the unit vectors of e_i^T H^p e_i is trace H^p / P; 5 steps are exact below degree 10."""
    nodes, weights, dense = from_every_direction
    expected = np.trace(np.linalg.matrix_power(dense, power)) / len(dense)
    assert np.sum(weights * nodes**power) / len(dense) == pytest.approx(expected, rel=2e-4)


def test_the_second_moment_is_the_frobenius_norm(from_every_direction):
    nodes, weights, dense = from_every_direction
    assert np.sum(weights * nodes**2) == pytest.approx(np.linalg.norm(dense) ** 2, rel=1e-4)


def test_a_quadratic_of_known_spectrum(probes):
    """Each eigenvalue's weight is the start's squared share in its eigenspace; with equal shares, the multiplicity."""
    diagonal = jnp.asarray([-2.0, 0.0, 0.0, 1.0, 1.0, 1.0, 5.0, 5.0])
    nodes, weights = quadrature(lambda v: diagonal * v, jnp.ones((1, 8)), 8)
    for value, count in ((-2, 1), (0, 2), (1, 3), (5, 2)):
        near = np.abs(np.asarray(nodes) - value) < 1e-3
        assert np.asarray(weights)[near].sum() == pytest.approx(count / 8, abs=1e-4)
    assert float(jnp.sum(weights)) == pytest.approx(1, abs=1e-5)


def test_the_smoothed_mass_in_bins_by_hand():
    """Two starts, nodes 0 and 4; the spectrum's range is 4, so s^2 = 0.25 * 4 = 1."""
    nodes, weights = jnp.asarray([[0.0, 4.0], [0.0, 4.0]]), jnp.asarray([[0.25, 0.75], [0.75, 0.25]])
    found = mass_in_bins(nodes, weights, np.asarray([-3.0, -1.0, 1.0, 3.0]), 0.25)
    first, middle = 0.5 * phi(-1) + 0.5 * phi(-5), 0.5 * (phi(1) - phi(-1)) + 0.5 * (phi(-3) - phi(-5))
    np.testing.assert_allclose(found, [first, middle, 1 - first - middle], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("smoothing", "nodes"), [(0.0, [-9.0, 0.5, 99.0]), (0.1, [2.0, 2.0, 2.0])])
def test_without_a_width_each_node_falls_into_one_bin(smoothing, nodes):
    """Without smoothing or a range; nodes beyond the grid count in its end bins."""
    weights = jnp.asarray([[0.5, 0.3, 0.2]])
    found = mass_in_bins(jnp.asarray([nodes]), weights, np.asarray([-3.0, -1.0, 1.0, 3.0]), smoothing)
    expected = [0.5, 0.3, 0.2] if smoothing == 0 else [0, 0, 1]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_grids():
    np.testing.assert_allclose(density_edges(5, 0.1, 10.0, "symlog"), [-10, -1, -0.1, 0.1, 1, 10])
    np.testing.assert_allclose(density_edges(5, 0.1, 10.0, "linear"), [-10, -6, -2, 2, 6, 10])


def test_the_monitor_on_a_quadratic(probes):
    """6 of 10 eigenvalues beyond epsilon, which the mean of many starts finds; the exact sums for each one."""
    probe = quadratic(probes, [-20.0] * 2 + [0.0] * 4 + [3.0] * 3 + [5000.0])
    grid = {"bins": 5, "smallest": 0.1, "largest": 10.0}  # edges -10 -1 -0.1 0.1 1 10
    settings = {"iterations": 6, "starts": 400, "smoothing": 0.0, "epsilon": 1.0}
    found = probes.measured(hessian_density(**grid, **settings), probe)
    masses = bins_of(found)
    assert len(masses) == 5
    assert masses.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        masses, [0.2, 0, 0.4, 0, 0.4], atol=0.04
    )  # 4 deviations: the variance of a share p is p (1 - p) / 6
    assert found["hessian_epsilon_rank"] == pytest.approx(0.6, abs=0.04)
    assert found["hessian_density"] + found["hessian_epsilon_rank"] == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(masses[0] + masses[-1], found["hessian_epsilon_rank"], atol=1e-5)


def test_the_monitor_on_a_network(probes, network):
    """Means over Gaussian directions u on the sphere: 4 standard deviations of u^T H u, and of u^T H^2 u."""
    probe, dense = network
    starts, size = 300, len(dense)
    found = probes.measured(hessian_density(iterations=12, starts=starts), probe)
    assert bins_of(found).sum() == pytest.approx(1, abs=1e-4)
    for name, matrix in (("mean", dense), ("mean_square", dense @ dense)):
        mean, square = np.trace(matrix) / size, np.trace(matrix @ matrix) / size
        deviation = math.sqrt(2 / (size + 2) * (square - mean**2) / starts)
        assert found[f"hessian_density/{name}"] == pytest.approx(mean, abs=4 * deviation)
    eigenvalues = np.linalg.eigvalsh(dense)
    assert found["hessian_epsilon_rank"] == pytest.approx(np.mean(np.abs(eigenvalues) > 1e-3), abs=0.05)


def test_the_trace_of_a_network(probes, network):
    probe, dense = network
    found = probes.measured(hessian_trace(samples=200), probe)
    off_diagonal = np.sum(dense**2) - np.sum(np.diag(dense) ** 2)
    assert found["hessian_trace/standard_error"] == pytest.approx(math.sqrt(2 * off_diagonal / 200), rel=0.3)
    assert found["hessian_trace"] == pytest.approx(np.trace(dense), abs=3 * found["hessian_trace/standard_error"])


def test_the_trace_of_a_diagonal_matrix_is_exact(probes):
    params = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(-3.0)}
    probe = probes.written({}, params, lambda p: jnp.sum(p["a"] ** 3) + p["b"] ** 3)  # the Hessian is diag(6, 12, -18)
    found = probes.measured(hessian_trace(samples=3), probe)
    assert found == pytest.approx({"hessian_trace": 0, "hessian_trace/standard_error": 0}, abs=1e-5)


def test_the_standard_error_by_hand(probes):
    """H = [[0, 1], [1, 0]]: each term is 2 or -2, so that the mean m of n terms tells their deviation."""
    probe = probes.written({}, {"w": jnp.ones(2)}, lambda p: p["w"][0] * p["w"][1])
    found = probes.measured(hessian_trace(samples=9), probe)
    mean = found["hessian_trace"]
    assert abs(mean) <= 2
    assert found["hessian_trace/standard_error"] == pytest.approx(math.sqrt((4 - mean**2) / 8), rel=1e-5)


def test_lanes_in_one_program_equal_lanes_alone(probes):
    """Lanczos, its eigenvectors and the loop over the starts under vmap; epsilon and smoothing swept."""

    def measure(scale, epsilon, key):
        probe = quadratic(probes, [-1.0, 0.0, 2.0, 7.0])
        scaled = probe._replace(loss=lambda p: scale * probe.loss(p))
        return hessian_density(iterations=4, epsilon=epsilon, smoothing=epsilon).measure(key, (), scaled)[1]

    settings = jnp.asarray([1.0, 10.0]), jnp.asarray([0.5, 15.0]), jax.random.split(jax.random.key(0), 2)
    together, alone = jax.jit(jax.vmap(measure))(*settings), jax.jit(measure)
    for i in range(2):
        single = alone(*(values[i] for values in settings))
        for name, value in single.items():
            assert float(together[name][i]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bins": 4}, r"bins: 4 is not allowed; must be odd \(the middle bin is around 0\) and at least 3"),
        ({"bins": 1}, "bins: 1 is not allowed; must be odd"),
        ({"largest": 0.0}, "largest: 0.0 is not allowed; must be positive and finite"),
        ({"largest": math.inf}, "largest: Infinity is not allowed; must be positive and finite"),
        ({"smallest": -1.0}, r"smallest: -1.0 is not allowed; must be positive and below largest \(1000.0\)"),
        (
            {"smallest": 2.0, "largest": 1.0},
            r"smallest: 2.0 is not allowed; must be positive and below largest \(1.0\)",
        ),
        ({"scale": "log"}, "scale: .log. is not allowed; must be one of symlog, linear"),
        ({"starts": 0}, "starts: 0 is not allowed; must be an integer of at least 1"),
        ({"iterations": 0}, "iterations: 0 is not allowed; must be an integer of at least 1"),
        ({"loss": "td"}, "loss: .td. is not allowed; must be one of task, perturbed"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"hessian_density: {message}"):
        hessian_density(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 1}, "samples: 1 is not allowed; must be an integer of at least 2"),
        ({"matrix": "fisher"}, "matrix: .fisher. is not allowed; must be one of"),
    ],
)
def test_settings_of_the_trace_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"hessian_trace: {message}"):
        hessian_trace(**settings)


def test_a_linear_grid_needs_no_smallest():
    assert hessian_density(scale="linear", smallest=0.0).measure is not None
