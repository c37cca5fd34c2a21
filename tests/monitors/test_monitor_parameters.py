import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.monitors import (
    distance_from_initialisation,
    effective_learning_rate,
    gradient_norm,
    spectral_norm,
    weight_norm,
)
from plasticity.monitors.parameters import largest_singular_value
from plasticity.networks.spec import Convolution, NetworkSpec

PARAMS = {
    "hidden_0": {"kernel": jnp.asarray([[3.0, 0.0], [0.0, 4.0]]), "bias": jnp.asarray([100.0, 0.0])},
    "hidden_1": {"kernel": jnp.asarray([[6.0], [8.0]]), "norm": {"scale": jnp.asarray([50.0])}},
    "output": {"kernel": jnp.asarray([[2.0]]), "bias": jnp.asarray([7.0])},
}
LAYERS = {"hidden_0": jnp.ones((2, 2)), "hidden_1": jnp.ones((2, 1))}


def test_the_weight_norm_is_that_of_kernels_alone(probes):
    """Norms 5, 10 and 2."""
    found = probes.measured(weight_norm(), probes.written(LAYERS, PARAMS))
    layers = {"weight_norm/hidden_0": 5, "weight_norm/hidden_1": 10, "weight_norm/output": 2}
    assert found == pytest.approx({"weight_norm": np.sqrt(129), **layers})


def test_the_norm_of_a_convolution_is_over_all_its_entries(probes):
    spec = NetworkSpec((5, 5, 2), 3, (Convolution(4, 3),), (6,))
    params = jax.tree.map(jnp.ones_like, probes.initial(spec))
    found = probes.measured(weight_norm(), probes.of_network(spec, params, jnp.ones((2, 5, 5, 2))))
    sizes = {"hidden_0": 3 * 3 * 2 * 4, "hidden_1": 3 * 3 * 4 * 6, "output": 6 * 3}
    expected = {f"weight_norm/{name}": np.sqrt(size) for name, size in sizes.items()}
    assert found == pytest.approx({"weight_norm": np.sqrt(sum(sizes.values())), **expected})


def test_the_distance_counts_every_parameter(probes):
    monitor = distance_from_initialisation()
    state = monitor.init(PARAMS)
    probe = probes.written(LAYERS, PARAMS)
    same, found = monitor.measure(jax.random.key(0), state, probe)
    assert float(found["distance_from_initialisation"]) == 0
    moved = jax.tree.map(lambda leaf: leaf + 0.5, PARAMS)  # 11 numbers
    _, found = monitor.measure(jax.random.key(0), same, probes.written(LAYERS, moved))
    assert float(found["distance_from_initialisation"]) == pytest.approx(0.5 * np.sqrt(11))
    turned = PARAMS | {"output": {"kernel": jnp.asarray([[-2.0]]), "bias": jnp.asarray([7.0])}}  # of the same norm
    _, found = monitor.measure(jax.random.key(0), same, probes.written(LAYERS, turned))
    assert float(found["distance_from_initialisation"]) == pytest.approx(4)


def test_the_cosine_to_the_initial_parameters(probes):
    """theta_0 = (3, 0, 4), of length 5."""
    monitor = distance_from_initialisation()
    state = monitor.init({"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(4.0)})

    def cosine(a, b):
        probe = probes.written({}, {"a": jnp.asarray(a), "b": jnp.asarray(b)})
        return float(monitor.measure(jax.random.key(0), state, probe)[1]["distance_from_initialisation/cosine"])

    assert cosine([6.0, 0.0], 8.0) == pytest.approx(1)
    assert cosine([0.0, 7.0], 0.0) == 0
    assert cosine([-3.0, 0.0], -4.0) == pytest.approx(-1)
    assert cosine([5.0, 12.0], 0.0) == pytest.approx(15 / 65)
    assert cosine([0.0, 0.0], 0.0) == 0
    assert np.isnan(cosine([0.0, np.nan], 0.0))


def test_spectral_norms_by_hand(probes):
    """diag(3, 4), a column of length 10, and 2."""
    found = probes.measured(spectral_norm(), probes.written(LAYERS, PARAMS))
    layers = {"spectral_norm/hidden_0": 4, "spectral_norm/hidden_1": 10, "spectral_norm/output": 2}
    assert found == pytest.approx({"spectral_norm": 10, **layers})


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (2, 3, 2, 5), (1, 1)])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_spectral_norms_against_numpy(shape, size):
    """Squares of such numbers are outside float32's range."""
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = np.linalg.norm(kernel.reshape(-1, shape[-1]).astype(np.float64), 2) * size
    assert float(largest_singular_value(jnp.asarray(kernel * np.float32(size)))) == pytest.approx(expected, rel=1e-5)


def test_the_spectral_norm_of_a_kernel_of_zeros_is_zero():
    assert float(largest_singular_value(jnp.zeros((3, 2)))) == 0


def test_the_kept_parameters_survive_the_donation_of_the_originals():
    params = {"w": jnp.arange(3.0)}
    state = distance_from_initialisation().init(params)
    params["w"].delete()  # what donation does to a buffer
    assert state["w"].tolist() == [0, 1, 2]


def test_gradient_norms_by_hand(probes):
    """L = 3 a - 4 b^2 / 2 at b = 1: the gradient is (3, -4)."""
    params = {"x": {"kernel": jnp.asarray(5.0)}, "y": jnp.asarray([1.0])}
    probe = probes.written({}, params, lambda p: 3 * p["x"]["kernel"] - 2 * p["y"][0] ** 2)
    assert probes.measured(gradient_norm(), probe) == pytest.approx({"gradient_norm": 5, "gradient_norm_l1": 7})


@pytest.mark.parametrize(("law", "rates"), [("adam", (0.25 / 5, 0.25 / 10)), ("sgd", (0.25 / 25, 0.25 / 100))])
def test_effective_learning_rate_by_hand(probes, law, rates):
    """Step size 0.25; hidden kernels of norms 5 and 10; the output layer doesn't count."""
    found = probes.measured(effective_learning_rate(law=law), probes.written(LAYERS, PARAMS))
    name = "effective_learning_rate"
    assert found == pytest.approx({name: sum(rates) / 2, f"{name}/hidden_0": rates[0], f"{name}/hidden_1": rates[1]})


@pytest.mark.parametrize(("law", "power"), [("adam", 1), ("sgd", 2)])
def test_the_law_is_that_of_a_scale_invariant_layer(probes, law, power):
    """Before a normalisation, c W rotates as much with step size c^power eta as W with eta."""
    spec = NetworkSpec((3,), 2, widths=(4,), activation="tanh", normalisation="layer", bias=False)
    params = probes.initial(spec)
    inputs = jax.random.normal(jax.random.key(1), (8, 3))

    @jax.jit
    def turn(scale, eta):
        """How far a step of size eta moves the first kernel's direction, and the monitor's number for that step."""
        kernel = scale * params["hidden_0"]["kernel"]
        scaled = params | {"hidden_0": params["hidden_0"] | {"kernel": kernel}}
        probe = probes.of_network(spec, scaled, inputs, eta)
        gradient = jax.grad(probe.loss)(scaled)["hidden_0"]["kernel"]
        moved = kernel - eta * (jnp.sign(gradient) if law == "adam" else gradient)
        direction = moved / jnp.linalg.norm(moved) - kernel / jnp.linalg.norm(kernel)
        found = effective_learning_rate(law=law).measure(jax.random.key(0), (), probe)[1]
        return jnp.linalg.norm(direction), found["effective_learning_rate"]

    (angle, rate), (angle_scaled, rate_scaled) = turn(1.0, 1e-2), turn(3.0, 1e-2 * 3.0**power)
    assert rate_scaled == pytest.approx(float(rate), rel=1e-5)
    assert angle_scaled == pytest.approx(float(angle), rel=1e-3)
    assert turn(3.0, 1e-2)[0] < 0.7 * angle


def test_an_unknown_law_is_refused():
    with pytest.raises(
        ValueError, match='effective_learning_rate: law: "rmsprop" is not allowed; must be one of adam, sgd'
    ):
        effective_learning_rate(law="rmsprop")
