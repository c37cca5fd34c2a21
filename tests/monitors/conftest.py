"""Probes written by hand, and probes of real networks."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from plasticity.core.types import Activation, Clock, HiddenLayer, Learner, Network, Optimizer, Probe
from plasticity.monitors import Monitor
from plasticity.networks.build import build
from plasticity.networks.spec import NetworkSpec


def clock() -> Clock:
    return Clock(*[jnp.zeros((), jnp.int32)] * 4)


def sgd(rate: Any = 0.25) -> Optimizer:
    transform = optax.sgd(rate)
    return Optimizer(transform.init, transform.update, lambda state: jnp.asarray(rate, jnp.float32))


def wired(names: tuple[str, ...]) -> Network:
    """A network of which only the names of its layers matter."""
    layers = tuple(HiddenLayer(name, len(names) - i) for i, name in enumerate(names))
    hidden = tuple((name,) for name in names)
    return Network(lambda key: {}, lambda params, x, *memory: (x, {}, ()), (), hidden, (("output",),), layers=layers)


def written(activations: Mapping[str, Any], params: Any = (), loss: Callable[[Any], Any] | None = None) -> Probe:
    """A probe of these activations; an array is used for both the pre- and the post-activation."""
    full = {k: v if isinstance(v, Activation) else Activation(v, v) for k, v in activations.items()}
    loss = loss or (lambda p: jnp.zeros(()))
    rows = len(next(iter(full.values())).post) if full else 1
    return Probe(
        learner=Learner(params, (), ()),
        network=wired(tuple(full)),
        optimizer=sgd(),
        activations=full,
        loss=loss,
        clock=clock(),
        observation=jnp.zeros((rows, 1)),
        losses=lambda p: jnp.full(rows, loss(p)),
        valid=jnp.ones(rows, bool),
        scores=lambda p, x: jnp.zeros((len(x), 1)),
        meaning="prediction",
        fresh=lambda key: Learner(params, (), ()),
    )


def of_network(
    spec: NetworkSpec, params: Any, inputs: Any, rate: Any = 0.25, optimizer: Optimizer | None = None
) -> Probe:
    """A probe of a real network on a regression to ones."""
    network = build(spec)
    optimizer = optimizer or sgd(rate)
    learner = Learner(params, (), optimizer.init(params))

    def losses(p: Any) -> Any:
        return jnp.mean((network.forward(p, inputs)[0] - 1) ** 2, axis=-1)

    def fresh(key: Any) -> Learner:
        fresh_params = network.init(key)
        return Learner(fresh_params, (), optimizer.init(fresh_params))

    return Probe(
        learner=learner,
        network=network,
        optimizer=optimizer,
        activations=jax.jit(network.forward)(params, inputs)[1],
        loss=lambda p: jnp.mean(losses(p)),
        clock=clock(),
        observation=inputs,
        losses=losses,
        valid=jnp.ones(len(inputs), bool),
        scores=lambda p, x: network.forward(p, x)[0],
        meaning="prediction",
        fresh=fresh,
    )


def initial(spec: NetworkSpec, seed: int = 0) -> Any:
    """A real network's parameters."""
    return jax.jit(build(spec).init)(jax.random.key(seed))


def measured(monitor: Monitor, probe: Probe, seed: int = 0) -> dict[str, float]:
    state = monitor.init(probe.learner.params)
    found = jax.jit(lambda key: monitor.measure(key, state, probe)[1])(jax.random.key(seed))
    return {k: float(v) for k, v in found.items()}


@pytest.fixture(scope="session")
def probes() -> Any:
    """The helpers of this file."""

    class Probes:
        pass

    helpers: Any = Probes
    for helper in (written, of_network, initial, measured):
        setattr(helpers, helper.__name__, staticmethod(helper))
    return helpers
