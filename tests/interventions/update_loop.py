"""The order of one update, on a small regression, for the tests of interventions."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.agents.base import informed
from plasticity.core.outputs import OUTPUT, Values
from plasticity.core.types import Array, Clock, Context, Drawn, Key, Learner, Network, Optimizer, Past
from plasticity.interventions.base import Intervention
from plasticity.networks.build import build, join
from plasticity.networks.spec import Convolution, NetworkSpec
from plasticity.optim.eligibility import eligible

MLP = NetworkSpec((3,), 2, widths=(5, 4))
CNN = NetworkSpec((4, 4, 2), 2, convolutions=(Convolution(3, 2), Convolution(2, 2)), widths=(4,))


class Run(NamedTuple):
    state: Any
    learner: Learner


class Loop(NamedTuple):
    """An agent reduced to what an intervention sees."""

    network: Network
    optimizer: Optimizer
    init: Callable[[Key], Run]
    update: Callable[[Key, Run, Array], Run]  # the number of the update
    switch: Callable[[Key, Run, Array], Run]
    context: Callable[[Array], Context]


def clock_at(update: Any) -> Clock:
    update = jnp.asarray(update, jnp.int32)
    return Clock(update, update, jnp.int32(0), update)


def batch_at(spec: NetworkSpec, update: Array) -> tuple[Array, Array]:
    """Six inputs and targets between -1 and 1, others at every update (cheaper to compile than random numbers)."""
    inputs = jnp.sin(jnp.arange(6 * math.prod(spec.reads)) * 1.7 + update)
    targets = jnp.cos(jnp.arange(6 * spec.outputs) * 2.3 - update)
    return inputs.reshape(6, *spec.reads), targets.reshape(6, spec.outputs)


def said(outputs: Any) -> Any:
    """Outputs as what networks say, by part."""
    parts = outputs if isinstance(outputs, dict) else {OUTPUT: outputs}
    return {name: Values(each) for name, each in parts.items()}


def error(outputs: Any, targets: Array) -> Array:
    """The mean squared error, summed over joined networks."""
    return sum((jnp.mean((each - targets) ** 2) for each in jax.tree.leaves(outputs)), jnp.zeros(()))


def past_of(spec: NetworkSpec, network: Network, update: Array) -> Past:
    """Rows of other inputs and targets than those of the update; the outputs at the end were halves of the targets."""

    def drawn(shift: Any) -> Drawn:
        inputs, targets = batch_at(spec, update + shift)
        rows: Any = (inputs, targets)
        old = {name: Values(targets / 2) for name in network.parts or (OUTPUT,)}
        return Drawn(rows, old, jnp.ones(len(inputs), bool))

    def loss(tag: Any, params: Any, drawn: Drawn) -> Array:
        del tag
        rows: Any = drawn.rows
        inputs, targets = rows
        return error(network.forward(params, inputs)[0], targets)

    def draw(tag: Any, number: int) -> Drawn:
        rows = jnp.arange(number) % 6
        return jax.tree.map(lambda x: x[rows], drawn(100 + tag))

    return Past(draw, lambda: drawn(50), lambda rows: rows[0], loss)


def make(
    intervention: Intervention,
    optimizer: Optimizer,
    spec: NetworkSpec = MLP,
    trace: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer,
) -> Loop:
    """``prepare``, forward with penalty, gradient, optimizer, apply, ``step``; the target network keeps its values."""
    spec = intervention.network(replace(spec, task_entries=2) if intervention.reads_task else spec)
    return around(build(spec), intervention, optimizer, spec, trace)


def joined(intervention: Intervention, optimizer: Optimizer, names: tuple[str, ...], spec: NetworkSpec = MLP) -> Loop:
    """:func:`make` of networks with these names, joined, which share no parameters and no losses."""
    spec = replace(spec, task_entries=2) if intervention.reads_task else spec
    networks = {name: build(intervention.network(replace(spec, part=name))) for name in names}
    return around(join(networks), intervention, optimizer, spec)


def around(
    network: Network,
    intervention: Intervention,
    optimizer: Optimizer,
    spec: NetworkSpec,
    trace: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer,
) -> Loop:
    """The loop of a built network; the outputs of joined networks all have the same targets."""
    optimizer = informed(trace(intervention.optimizer(optimizer)), network)

    def fresh(key: Key) -> Learner:
        params = network.init(key)
        rest = {"replay": jax.random.normal(key, (2,)), "schedule": jnp.int32(0)}
        return Learner(params, params, optimizer.init(params), rest)

    def context(update: Array) -> Context:
        return Context(
            clock_at(update), (), {}, (), network, optimizer, fresh, lambda params: jnp.zeros(()), tuple,
            lambda params, inputs: said(network.forward(params, inputs)[0]), past_of(spec, network, update),
        )  # fmt: skip

    def init(key: Key) -> Run:
        learner = fresh(key)._replace(rest={})
        state = intervention.init(jax.random.fold_in(key, 1), learner.params, network)
        return Run(intervention.start(jax.random.fold_in(key, 2), state, learner, context(jnp.int32(0))), learner)

    def update(key: Key, run: Run, number: Array) -> Run:
        inputs, targets = batch_at(spec, number)
        key = jax.random.fold_in(key, number)

        def task_loss(params: Any) -> Array:
            return error(network.forward(params, inputs)[0], targets)

        def another(key: Key, other: Learner) -> Learner:
            gradients = jax.grad(task_loss)(other.params)
            updates, opt_state = optimizer.update(gradients, other.opt_state, other.params, key=key, loss=task_loss)
            return other._replace(params=optax.apply_updates(other.params, updates), opt_state=opt_state)

        reference = lambda: inputs[::-1] / 2  # noqa: E731
        seen = context(number)._replace(observation=inputs, loss=task_loss, reference=reference, learn=another)
        state, learner = intervention.prepare(jax.random.fold_in(key, 1), *run, seen)

        def loss(params: Any) -> tuple[Array, Any]:
            outputs, activations = network.forward(params, inputs)
            penalty = intervention.penalty(state, params, seen._replace(activations=activations))
            return error(outputs, targets) + penalty, activations

        gradients, activations = jax.grad(loss, has_aux=True)(learner.params)
        there = intervention.point(state, learner.params, gradients, seen)
        gradients = jax.grad(loss, has_aux=True)(there)[0] if there is not learner.params else gradients
        gradients = intervention.gradient(jax.random.fold_in(key, 3), state, gradients, learner, seen)
        updates, opt_state = optimizer.update(
            gradients, learner.opt_state, learner.params, key=jax.random.fold_in(key, 2), loss=task_loss
        )
        learner = learner._replace(params=optax.apply_updates(learner.params, updates), opt_state=opt_state)
        seen = seen._replace(activations=activations, gradients=gradients)
        return Run(*intervention.step(key, state, learner, seen))

    def switch(key: Key, run: Run, number: Array) -> Run:
        rest = {"replay": jnp.ones(2), "schedule": jnp.int32(7)}
        state, learner = intervention.switch(key, run.state, run.learner._replace(rest=rest), context(number))
        return Run(state, learner)

    return Loop(network, optimizer, init, update, switch, context)


def traced(optimizer: Optimizer) -> Optimizer:
    """The optimizer behind a trace, with an error of 1 at every update."""
    inner = eligible(optimizer)
    facts = {"td_error": jnp.ones(()), "trace_decay": jnp.full((), 0.5), "trace_end": jnp.zeros((), bool)}
    return inner._replace(update=lambda *args, **extra: inner.update(*args, **(facts | extra)))


def train(loop: Loop, key: Key, run: Run, updates: int, start: int = 0) -> Run:
    """``updates`` updates in one scan: the carry proves that structure, shapes and dtypes stay as they were."""

    def body(run: Run, number: Array) -> tuple[Run, None]:
        return loop.update(key, run, number), None

    return jax.lax.scan(body, run, start + jnp.arange(updates))[0]
