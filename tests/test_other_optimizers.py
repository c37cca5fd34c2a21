"""Muon, Adam with critical momenta, and optax's optimizers by name, against NumPy and against optax itself."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from plasticity.config.settings import Parser
from plasticity.core.errors import UserError
from plasticity.core.types import Optimizer
from plasticity.interventions import surgery
from plasticity.optim import named
from plasticity.optim.critical_momenta import adam_cm
from plasticity.optim.muon import COEFFICIENTS, muon, orthogonalised
from plasticity.optim.named import by_name
from plasticity.optim.schedules import linear
from plasticity.optim.step_sizes import reports_step_size
from plasticity.runs import launch

RNG = np.random.default_rng(0)
PARAMS = {
    "hidden": {"kernel": RNG.normal(size=(3, 5)), "bias": RNG.normal(size=5)},
    "conv": {"kernel": RNG.normal(size=(2, 2, 3, 4))},
    "output": {"kernel": RNG.normal(size=(5, 2))},
}
GRADIENTS = [jax.tree.map(lambda x: RNG.normal(size=x.shape), PARAMS) for _ in range(6)]


def single(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def updates_of(optimizer: Any, gradients: list[Any], params: Any = PARAMS) -> list[Any]:
    """The updates for a sequence of gradients, each applied before the next."""
    params, found = single(params), []
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for g in gradients:
        updates, state = update(single(g), state, params)
        params = jax.tree.map(jnp.add, params, updates)
        found.append(jax.tree.map(np.asarray, updates))
    return found


def close(a: Any, b: Any, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


# Muon.


def by_svd(matrix: np.ndarray, steps: int = 5) -> np.ndarray:
    """What the iteration does to each singular value, all else unchanged."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(steps):
        s = COEFFICIENTS[0] * s + COEFFICIENTS[1] * s**3 + COEFFICIENTS[2] * s**5
    return (u * s) @ vt


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 6)])
def test_the_iteration_acts_on_singular_values(shape: tuple[int, int]) -> None:
    matrix = RNG.normal(size=shape)
    got = np.asarray(orthogonalised(jnp.asarray(matrix, jnp.float32), 5))
    np.testing.assert_allclose(got, by_svd(matrix), atol=1e-4)
    values = np.linalg.svd(got, compute_uv=False)
    assert 0.67 < values.min() <= values.max() < 1.21


def test_no_momentum_makes_no_step() -> None:
    np.testing.assert_array_equal(orthogonalised(jnp.zeros((3, 2)), 5), np.zeros((3, 2)))


def muon_by_hand(rate: float, adam_rate: float, momentum: float, nesterov: bool, scale: str) -> list[Any]:
    """``output`` is left to Adam, as are vectors."""
    b1, b2, eps = 0.9, 0.95, 1e-10
    m, v = (jax.tree.map(np.zeros_like, PARAMS) for _ in range(2))
    found = []
    for t, g in enumerate(GRADIENTS, start=1):
        made: Any = {name: {} for name in PARAMS}
        for name, part in (("hidden", "kernel"), ("conv", "kernel")):
            slope = g[name][part]
            m[name][part] = momentum * m[name][part] + (1 - momentum) * slope
            u = (1 - momentum) * slope + momentum * m[name][part] if nesterov else m[name][part]
            flat = u.reshape(-1, u.shape[-1])
            inputs, outputs = flat.shape
            factor = np.sqrt(max(1, outputs / inputs)) if scale == "shape" else 0.2 * np.sqrt(max(inputs, outputs))
            made[name][part] = -rate * factor * by_svd(flat).reshape(u.shape)
        for name, part in (("hidden", "bias"), ("output", "kernel")):
            slope = g[name][part]
            m[name][part] = b1 * m[name][part] + (1 - b1) * slope
            v[name][part] = b2 * v[name][part] + (1 - b2) * slope**2
            unbiased = np.sqrt(v[name][part] / (1 - b2**t)) + eps
            made[name][part] = -adam_rate * m[name][part] / (1 - b1**t) / unbiased
        found.append(made)
    return found


@pytest.mark.parametrize(("nesterov", "scale"), [(True, "shape"), (False, "rms")])
def test_muon(nesterov: bool, scale: Any) -> None:
    optimizer = muon(
        learning_rate=0.1, adam_learning_rate=0.01, momentum=0.8, nesterov=nesterov, scale=scale,
        adam_modules=("output",),
    )  # fmt: skip
    expected = muon_by_hand(0.1, 0.01, 0.8, nesterov, scale)
    close(updates_of(optimizer, GRADIENTS), expected, atol=1e-4)


def test_muon_is_that_of_optax_for_matrices() -> None:
    """Theirs also corrects the momentum for its start at 0, but without Nesterov's term a factor has no effect."""
    params, gradients = PARAMS["hidden"], [g["hidden"] for g in GRADIENTS]
    theirs = optax.contrib.muon(0.1, nesterov=False, adam_b2=0.95, adam_learning_rate=0.01, eps=1e-8)
    ours = muon(learning_rate=0.1, nesterov=False, adam_learning_rate=0.01, eps=1e-8)
    close(updates_of(ours, gradients, params), updates_of(theirs, gradients, params), rtol=1e-3, atol=1e-4)


def test_a_schedule_is_a_factor_of_both_step_sizes_of_muon() -> None:
    plain, slowed = (muon(schedule=schedule) for schedule in (None, functools.partial(linear, duration=2)))
    whole, parts = updates_of(plain, GRADIENTS[:2]), updates_of(slowed, GRADIENTS[:2])
    close(parts[0], whole[0])
    close(parts[1], jax.tree.map(lambda x: x / 2, whole[1]))
    np.testing.assert_allclose(slowed.learning_rate(slowed.init(single(PARAMS))), 0.02, rtol=1e-6)


def test_unknown_settings_of_muon() -> None:
    with pytest.raises(ValueError, match='scale: "spectral" is not allowed; must be one of shape, rms'):
        muon(scale="spectral")
    with pytest.raises(ValueError, match="adam_modules: unknown module `outptu`; known: conv, hidden, output; did you"):
        muon(adam_modules=("outptu",)).init(single(PARAMS))


# Adam with critical momenta.


def critical_by_hand(gradients: np.ndarray, rate: float, b1: float, b2: float, capacity: int, decay: float) -> Any:
    """A list of (priority, momentum) that is searched, for vectors of gradients."""
    m, v = np.zeros(2), np.zeros(2)
    buffer: list[list[Any]] = []
    updates, sizes = [], []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        a = m + (np.mean([each[1] for each in buffer], axis=0) if buffer else 0.0)
        v = b2 * v + (1 - b2) * a**2
        updates.append(-rate * a / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + 1e-8))
        norm = np.linalg.norm(g)
        if len(buffer) < capacity:
            buffer.append([norm, m])
        else:
            lowest = min(buffer, key=lambda each: each[0])
            if norm > lowest[0]:
                lowest[:] = [norm, m]
        for each in buffer:
            each[0] *= decay
        sizes.append(sorted(each[0] for each in buffer))
    return updates, sizes


@pytest.mark.parametrize(("capacity", "decay"), [(2, 0.7), (3, 0.99), (5, 1.0)])
def test_adam_with_critical_momenta(capacity: int, decay: float) -> None:
    """Gradients of many sizes, so that some momenta are stored and others are not."""
    rng = np.random.default_rng(3)
    gradients = rng.normal(size=(30, 2)) * np.exp(rng.normal(size=(30, 1)))
    optimizer = adam_cm(learning_rate=0.1, b1=0.8, b2=0.9, capacity=capacity, decay=decay)
    expected, sizes = critical_by_hand(gradients, 0.1, 0.8, 0.9, capacity, decay)
    got = updates_of(optimizer, [{"w": g} for g in gradients], {"w": np.zeros(2)})
    np.testing.assert_allclose([each["w"] for each in got], expected, rtol=1e-3, atol=1e-6)
    changes = sum(a != [decay * x for x in b] for a, b in zip(sizes[capacity:], sizes[capacity - 1 :], strict=False))
    assert 0 < changes < len(gradients) - capacity  # replaced sometimes


def test_a_reset_parameter_is_in_no_stored_momentum() -> None:
    optimizer, params = adam_cm(capacity=2), {"w": jnp.zeros(2)}
    state = optimizer.init(params)
    for _ in range(3):
        state = optimizer.update({"w": jnp.ones(2)}, state, params)[1]
    reset = surgery.reset_slots(optimizer, state, params, {"w": jnp.array([True, False])})
    for new, old in zip(reset.direction[1].stored, state.direction[1].stored, strict=True):
        np.testing.assert_array_equal(new["w"], [0.0, old["w"][1]])
        assert old["w"][1] != 0


# By name.


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("lion", {"b1": 0.8}), ("adamw", {"weight_decay": 0.1}), ("nadam", {}), ("lamb", {}), ("adopt", {"b2": 0.9})],
)
def test_an_optimizer_by_name_is_that_of_optax(name: str, arguments: dict[str, Any]) -> None:
    """Also with a schedule, which optax counts in its own state."""
    maker = getattr(optax, name, None) or getattr(optax.contrib, name)
    mine = by_name(name=name, learning_rate=0.1, arguments=arguments)
    close(updates_of(mine, GRADIENTS), updates_of(maker(0.1, **arguments), GRADIENTS), rtol=1e-5)
    mine = by_name(name=name, learning_rate=0.1, arguments=arguments, schedule=functools.partial(linear, duration=4))
    theirs = maker(optax.linear_schedule(0.1, 0.0, 4), **arguments)
    close(updates_of(mine, GRADIENTS), updates_of(theirs, GRADIENTS), rtol=1e-4)


def test_the_learning_rate_of_an_optimizer_by_name_is_traced() -> None:
    traces = []

    def first_update(rate: jax.Array) -> Any:
        traces.append(rate)
        optimizer = by_name(name="lion", learning_rate=rate)
        return optimizer.update(single(GRADIENTS[0]), optimizer.init(single(PARAMS)), single(PARAMS))[0]

    grid = jax.jit(jax.vmap(first_update))(jnp.array([0.1, 0.3]))
    assert len(traces) == 1
    expected = optax.lion(0.3)
    close(
        jax.tree.map(lambda x: x[1], grid),
        expected.update(single(GRADIENTS[0]), expected.init(single(PARAMS)), single(PARAMS))[0],
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", named.known())
def test_every_optimizer_of_optax_keeps_its_state(name: str) -> None:
    """Traced: structure, shapes and dtypes; only those that find their step size themselves do not report it."""
    optimizer: Optimizer = by_name(name=name)
    params = jax.eval_shape(lambda: single(PARAMS))
    state = jax.eval_shape(optimizer.init, params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    facts = [[(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (updates, params, after, state)]
    assert facts[0] == facts[1]
    assert facts[2] == facts[3]
    assert reports_step_size(optimizer) == (name not in named.SELF_TUNED)


@pytest.mark.parametrize("name", named.known())
def test_which_optimizers_of_optax_have_slots_for_each_parameter(name: str) -> None:
    """The state of the others cannot be reset unit by unit, which they say in one line."""
    optimizer, params = by_name(name=name), {"hidden": {"kernel": jnp.ones((130, 128)), "bias": jnp.ones(128)}}
    masks = {"hidden": {"kernel": jnp.zeros((1, 128), bool), "bias": jnp.zeros(128, bool)}}

    def reset() -> Any:
        return surgery.reset_slots(optimizer, optimizer.init(params), params, masks)

    if name not in surgery.FACTORED:
        jax.eval_shape(reset)
        return
    with pytest.raises(ValueError, match=r"adafactor, galore, novograd, sm3\); choose another") as caught:
        jax.eval_shape(reset)
    assert len(str(caught.value).splitlines()) == 1


def test_a_bound_on_the_gradient_of_an_optimizer_by_name() -> None:
    optimizer = by_name(name="sgd", learning_rate=1.0, max_gradient_norm=1.0)
    (got,) = updates_of(optimizer, [{"w": np.array([3.0, -4.0])}], {"w": np.zeros(2)})
    np.testing.assert_allclose(got["w"], [-0.6, 0.8], rtol=1e-5)


REFUSALS = {
    "did you mean `lion`": {"name": "lyon"},
    "of optax [0-9.]+; known: acprop, adabelief": {"name": "velo"},
    'name: "lbfgs" is not allowed; it needs the loss at every update': {"name": "lbfgs"},
    'name: "noisy_sgd" is not allowed; it draws noise': {"name": "noisy_sgd"},
    'name: "schedule_free_adamw" is not allowed; it acts with': {"name": "schedule_free_adamw"},
    "arguments.weight_decai: unknown argument of optax's adamw; allowed: b1, .*; did you mean `weight_decay`": {
        "name": "adamw",
        "arguments": {"weight_decai": 0.1},
    },
    "arguments.learning_rate is not allowed here; set": {"arguments": {"learning_rate": 0.1}},
    "arguments.mask: unknown argument": {"name": "adamw", "arguments": {"mask": True}},
    r"arguments.nesterov: \[1\] is not allowed; must be true or false": {
        "name": "adamw",
        "arguments": {"nesterov": [1]},
    },
    "schedule has no effect with rprop": {"name": "rprop", "schedule": functools.partial(linear, duration=2)},
    'arguments.b1: "half" is not allowed; must be a number': {"arguments": {"b1": "half"}},
    "arguments.b1: true is not allowed; must be a number": {"arguments": {"b1": True}},
    "arguments: optax's lion refuses them: ": {"arguments": {"mu_dtype": "fast"}},
}


@pytest.mark.parametrize("message", REFUSALS)
def test_what_optax_does_not_have_is_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        by_name(**REFUSALS[message])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("raw", "key", "message"),
    [
        ({"name": "lion", "b1": 0.9}, "b1", "; `b1` is an argument of optax's lion: write `arguments: {b1: ...}`"),
        ({"weight_decai": 0.1}, "weight_decai", "; `weight_decay` is an argument of optax's lion: write `arguments: "),
        ({"name": "sgd", "rho": 1}, "rho", "; optax's sgd has in `arguments`: momentum, nesterov, accumulator_dtype"),
        ({"name": "lyon", "b1": 0.9}, "b1", "unknown key; allowed: arguments, learning_rate, "),
        ({"name": ["lion"], "b1": 0.9}, "b1", "unknown key; allowed: arguments, learning_rate, "),
    ],
)
def test_an_argument_of_optax_at_the_wrong_place(raw: dict[str, Any], key: str, message: str) -> None:
    parser = Parser(launch.registry())
    parser.member("optimizers", {"kind": "optax", **raw}, ("agent", "optimizer"))
    problem = next(each for each in parser.problems if each.at == ("agent", "optimizer", key))
    assert problem.text.startswith("unknown key; allowed: arguments, learning_rate, max_gradient_norm, name, schedule")
    assert message in problem.text
    assert ("optax's" in problem.text) == ("optax's" in message)


def test_an_optimizer_that_only_optax_has_is_pointed_to() -> None:
    with pytest.raises(UserError, match=r"unknown optimizer `lion`; .*; those of optax: \{kind: optax, name: lion\}$"):
        launch.registry().factory("optimizers", "lion")
    with pytest.raises(UserError, match=r"unknown optimizer `adm`; .*; did you mean `adam`\?$"):
        launch.registry().factory("optimizers", "adm")


def test_an_error_of_a_schedule_names_its_place() -> None:
    schedule = {"kind": "piecewise", "at": [0, 60, 60], "values": [1.0, 0.1, 0.0]}
    agent = {"kind": "classifier", "network": "mlp", "optimizer": {"kind": "adam", "schedule": schedule}}
    said = r"^arms.baseline: agent\.optimizer\.schedule: at: 60 after 60 is not allowed; the counts must increase$"
    with pytest.raises(UserError, match=said):
        launch.plan(tiny.experiment(agent=agent))


def test_an_optimizer_by_name_in_a_config() -> None:
    parser = Parser(launch.registry())
    raw = {"kind": "optax", "name": "lion", "learning_rate": 3e-4, "arguments": {"b1": 0.95}}
    member = parser.member("optimizers", raw, ("agent", "optimizer"))
    assert parser.problems == []
    assert member is not None
    assert member.traced() == {"learning_rate": 3e-4}
    assert member.dump()["arguments"] == {"b1": 0.95}
    hash(member)
