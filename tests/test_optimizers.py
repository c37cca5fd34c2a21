"""Optimizers against loops in NumPy, and the over-step of Adam after a quiet phase."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.core.types import Optimizer
from plasticity.interventions import surgery
from plasticity.optim.optimizers import OPTIMIZERS, STREAMING, adam, one_minus_exp, radam, rmsprop, sgd, wrap
from plasticity.optim.schedules import constant, cosine, linear, piecewise

PLAIN = [factory for name, factory in OPTIMIZERS.items() if name not in STREAMING]
MATRIX = jnp.zeros((2, 3))
GRADIENTS = np.array([0.5, -1.0, 2.0, 0.25, 0.0, -3.0], np.float64)


def run(optimizer: Optimizer, gradients: np.ndarray) -> np.ndarray:
    """The updates for a sequence of scalar gradients."""

    def body(state: optax.OptState, g: jax.Array) -> tuple[optax.OptState, jax.Array]:
        updates, state = optimizer.update({"w": g}, state, {"w": jnp.zeros(())})
        return state, updates["w"]

    state = optimizer.init({"w": jnp.zeros(())})
    return np.asarray(jax.lax.scan(body, state, jnp.asarray(gradients, jnp.float32))[1])


def sgd_by_hand(rate: float, momentum: float, nesterov: bool) -> list[float]:
    m, updates = 0.0, []
    for g in GRADIENTS:
        m = momentum * m + g
        updates.append(-rate * (g + momentum * m if nesterov else m))
    return updates


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(momentum: float, nesterov: bool) -> None:
    got = run(sgd(learning_rate=0.1, momentum=momentum, nesterov=nesterov), GRADIENTS)
    np.testing.assert_allclose(got, sgd_by_hand(0.1, momentum, nesterov), rtol=1e-5)


@pytest.mark.parametrize("counts", ["shared", "parameter"])
def test_adam_with_both_epsilons(counts: str) -> None:
    rate, b1, b2, eps, eps_root = 0.1, 0.8, 0.9, 1e-2, 1e-3
    m = v = 0.0
    expected = []
    for t, g in enumerate(GRADIENTS, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        expected.append(-rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps))
    got = run(adam(learning_rate=rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, counts=counts), GRADIENTS)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("centred", [False, True])
def test_rmsprop_has_its_epsilon_inside_the_root(centred: bool, momentum: float) -> None:
    rate, decay, eps = 0.1, 0.95, 0.01 / 32**2
    a = v = m = 0.0
    expected = []
    for g in GRADIENTS:
        v = decay * v + (1 - decay) * g * g
        a = decay * a + (1 - decay) * g if centred else 0.0
        m = momentum * m + g / np.sqrt(v - a * a + eps)
        expected.append(-rate * m)
    got = run(rmsprop(learning_rate=rate, centred=centred, momentum=momentum), GRADIENTS)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("b2", "threshold", "rectified"), [(0.9, 5.0, 6), (0.9, 4.0, 5), (0.999, 5.0, 6), (0.6, 5.0, 99)]
)
def test_radam(b2: float, threshold: float, rectified: int) -> None:
    """Momentum at first, then Adam with a factor; below ``b2`` = 2/3 the second moments are never reliable."""
    rate, b1, eps, eps_root = 0.1, 0.8, 1e-2, 1e-3
    long, m, v = 2.0 / (1.0 - b2) - 1.0, 0.0, 0.0
    gradients, expected = np.tile(GRADIENTS, 3), []
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        first, second = m / (1 - b1**t), v / (1 - b2**t)
        length = long - 2 * t * b2**t / (1 - b2**t)
        assert (length >= threshold) == (t >= rectified)
        if t >= rectified:
            r = np.sqrt((length - 4) * (length - 2) * long / ((long - 4) * (long - 2) * length))
            first *= r / (np.sqrt(second + eps_root) + eps)
        expected.append(-rate * first)
    settings = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root, "threshold": threshold}
    got = run(radam(learning_rate=rate, **settings), gradients)
    tolerance = 2e-2 if b2 == 0.999 else 1e-4  # in float32, r^2 is a small difference of large numbers
    np.testing.assert_allclose(got, expected, rtol=tolerance)


@pytest.mark.parametrize("settings", [{}, {"nesterov": True, "b2": 0.9, "eps_root": 1e-3, "threshold": 4.5}])
def test_radam_is_that_of_optax(settings: dict[str, Any]) -> None:
    theirs: Any = optax.radam(0.1, **settings)
    gradients = np.tile(GRADIENTS, 3)
    np.testing.assert_allclose(run(radam(learning_rate=0.1, **settings), gradients), run(theirs, gradients), rtol=1e-6)


def test_adam_over_steps_after_a_quiet_phase() -> None:
    """(1 - b1) / sqrt(1 - b2) = sqrt(10) at the first large gradient, 6.568 eleven updates later."""
    gradients = np.concatenate([np.full(10_000, 1e-6), np.ones(50)])
    steps = -run(adam(learning_rate=1e-3), gradients)[10_000:] / 1e-3
    np.testing.assert_allclose(steps[[0, 1, 4, 49]], [3.162, 4.25, 5.80, 4.50], atol=5e-3)
    np.testing.assert_allclose(steps.max(), 6.568, atol=2e-3)
    assert steps.argmax() == 11
    equal = -run(adam(learning_rate=1e-3, b1=0.9, b2=0.9), gradients)[10_000:] / 1e-3
    assert equal.max() <= 1.0 + 1e-5


def test_counts_of_their_own_are_as_exact_late_as_early() -> None:
    """A constant gradient makes steps of the step size, whatever the count (but for eps); b = 0 is allowed."""
    for b1, b2 in ((0.9, 0.999), (0.0, 0.0)):
        steps = -run(adam(learning_rate=1.0, b1=b1, b2=b2, counts="parameter"), np.full(300, 0.5))
        np.testing.assert_allclose(steps, 1.0, rtol=2e-5)


def test_a_parameter_reset_late_starts_with_a_step_of_the_step_size() -> None:
    """With separate counts; its neighbour continues bit for bit as without the reset."""
    rate, params = 1e-3, {"w": jnp.zeros(2)}
    masks = {"w": jnp.array([True, False])}

    def woken(counts: str, reset: bool) -> jax.Array:
        optimizer = adam(learning_rate=rate, counts=counts)

        def body(state: optax.OptState, _: None) -> tuple[optax.OptState, None]:
            return optimizer.update({"w": jnp.full(2, 1e-6)}, state, params)[1], None

        state = jax.lax.scan(body, optimizer.init(params), length=10_000)[0]
        state = surgery.reset_slots(optimizer, state, params, masks) if reset else state
        return -optimizer.update({"w": jnp.ones(2)}, state, params)[0]["w"] / rate

    np.testing.assert_allclose(woken("shared", True), [3.162, 3.162], atol=2e-3)
    reset, kept = woken("parameter", True), woken("parameter", False)
    np.testing.assert_allclose(reset, [1.0, 3.162], atol=2e-3)
    np.testing.assert_allclose(reset[0], 1.0, rtol=1e-6)
    assert reset[1] == kept[1]


def test_what_a_count_is_turned_into() -> None:
    x = -np.concatenate([np.logspace(-6, 3, 500), [0.1, 0.0999, np.inf]]).astype(np.float32)
    np.testing.assert_allclose(one_minus_exp(jnp.asarray(x)), -np.expm1(x.astype(np.float64)), rtol=2e-6)


def test_unknown_counts() -> None:
    with pytest.raises(ValueError, match='counts: "unit" is not allowed; must be one of shared, parameter'):
        adam(counts="unit")


def test_clipping_bounds_the_global_norm() -> None:
    optimizer = sgd(learning_rate=1.0, max_gradient_norm=1.0)
    long, short = {"a": jnp.array([3.0]), "b": jnp.array([-4.0])}, {"a": jnp.array([0.3]), "b": jnp.array([-0.4])}
    state = optimizer.init(long)
    np.testing.assert_allclose(optimizer.update(long, state)[0]["b"], [0.8], rtol=1e-6)
    np.testing.assert_allclose(optimizer.update(short, state)[0]["b"], [0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (None, [0.4, 0.4, 0.4, 0.4]),
        (functools.partial(constant, warm_up=2), [0.2, 0.4, 0.4, 0.4]),
        (functools.partial(linear, end=0.25, duration=2, warm_up=2), [0.2, 0.4, 0.4, 0.25]),
        (functools.partial(cosine, start=0.5, end=1.0, duration=2), [0.2, 0.3, 0.4, 0.4]),
    ],
)
def test_learning_rate_is_that_of_the_next_update(schedule: Any, rates: list[float]) -> None:
    optimizer = sgd(learning_rate=0.4, schedule=schedule)
    state = optimizer.init(jnp.zeros(()))
    for rate in rates:
        np.testing.assert_allclose(optimizer.learning_rate(state), rate, rtol=1e-6)
        updates, state = optimizer.update(jnp.ones(()), state)
        np.testing.assert_allclose(updates, -rate, rtol=1e-6)


@pytest.mark.parametrize("factory", PLAIN)
def test_a_grid_of_learning_rates_is_one_program(factory: Callable[..., Optimizer]) -> None:
    traces = 0

    def second_update(rate: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        optimizer = factory(learning_rate=rate, schedule=functools.partial(cosine, duration=10))
        state = optimizer.init(MATRIX)
        _, state = optimizer.update(jnp.ones_like(MATRIX), state, MATRIX)
        return optimizer.update(jnp.ones_like(MATRIX), state, MATRIX)[0]

    grid = jax.jit(jax.vmap(second_update))(jnp.array([0.1, 0.2, 0.3]))
    assert traces == 1
    np.testing.assert_allclose(grid / grid[0], np.ones((3, 2, 3)) * [[[1.0]], [[2.0]], [[3.0]]], rtol=1e-5)


@pytest.mark.parametrize("factory", PLAIN)
def test_wrap_keeps_the_learning_rate_and_tells_it(factory: Callable[..., Optimizer]) -> None:
    def replace_by_rate(updates, state, params=None, *, learning_rate, **extra):
        return jax.tree.map(lambda u: jnp.zeros_like(u) + learning_rate, updates), state

    last = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), replace_by_rate)
    plain = factory(learning_rate=0.4, schedule=functools.partial(linear, duration=2))
    optimizer = wrap(wrap(plain, before=optax.scale(2.0)), after=last)
    state = optimizer.init(MATRIX)
    for rate in (0.4, 0.2):
        np.testing.assert_allclose(optimizer.learning_rate(state), rate, rtol=1e-6)
        updates, state = optimizer.update(jnp.ones_like(MATRIX), state, MATRIX)
        np.testing.assert_allclose(updates, np.full(MATRIX.shape, rate), rtol=1e-6)


def test_a_piecewise_schedule_is_that_of_numpy() -> None:
    at, values = (0, 5, 6, 40), (1.0, 0.2, 0.9, 0.0)
    counts = np.arange(60)
    found = [float(piecewise(at=at, values=values)(jnp.int32(count))) for count in counts]
    np.testing.assert_allclose(found, np.interp(counts, at, values), rtol=1e-6, atol=1e-7)
    assert float(piecewise(at=at, values=values, warm_up=10)(jnp.int32(4))) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("at", "values", "said"),
    [
        ((), (), "values: got 0 for 0 counts in `at`"),
        ((0, 5), (1.0,), "values: got 1 for 2 counts in `at`"),
        ((0, 5, 5), (1.0, 0.5, 0.2), "at: 5 after 5 is not allowed; the counts must increase"),
    ],
)
def test_points_of_a_piecewise_schedule_that_are_refused(at, values, said) -> None:
    with pytest.raises(ValueError, match=said):
        piecewise(at=at, values=values)


def test_wrap_puts_transformations_on_their_side() -> None:
    squared = optax.stateless(lambda updates, params: jax.tree.map(lambda u: jnp.sign(u) * u * u, updates))
    plain = sgd(learning_rate=0.1)
    for sides, expected in (({"before": squared}, -0.9), ({"after": squared}, -0.09)):
        optimizer = wrap(plain, **sides)
        updates, _ = optimizer.update(jnp.array(3.0), optimizer.init(jnp.zeros(())))
        np.testing.assert_allclose(updates, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (functools.partial(linear, end=0.1, duration=50), optax.linear_schedule(1e-3, 1e-4, 50)),
        (functools.partial(cosine, end=0.1, duration=50), optax.cosine_decay_schedule(1e-3, 50, alpha=0.1)),
    ],
)
def test_schedules_equal_those_of_optax(mine: Callable, theirs: Callable) -> None:
    def path(rule: Any) -> np.ndarray:
        params, found = jnp.array([1.0, -2.0]), []
        state = rule.init(params)
        for i in range(80):
            updates, state = rule.update(jnp.sin(jnp.array([1.0, 2.0]) * i), state, params)
            params = params + updates
            found.append(params)
        return np.stack(found)

    ours, plain = path(adam(learning_rate=1e-3, schedule=mine)), path(adam(learning_rate=1e-3))
    np.testing.assert_allclose(ours, path(optax.adam(theirs)), rtol=1e-6)
    assert np.abs(ours - plain).max() > 1e-4
