"""Agents with memory: how a network's carry passes through acting, learning, evaluation and probes.

The carry is part of the learner (``Learner.carry``): before the current observation, reset when an episode starts. A
batch for a network with memory is a ``Sequence``, which ``Network.forward`` unrolls; losses, interventions and monitors
therefore see rows as they do without memory. For a network without memory all functions here pass observations through.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.types import FIRST, Array, Learner, Network, Params, Sequence, TimeStep
from plasticity.networks.cells import Memory
from plasticity.networks.modules import reset_where


class Recalled(NamedTuple):
    """Consecutive rows as a network with memory sees them, and its carry after them."""

    previous: Any  # of the earlier observation of each pair
    current: Any  # of the later one
    carry: Any


class Later(NamedTuple):
    """The next observations of the transitions of sequences: rows of longer sequences."""

    sequence: Sequence  # [T, B]
    rows: Array  # int32[number of transitions]: indices into T * B


def forward(network: Network, params: Params, observation: Any) -> tuple[Any, Any]:
    """``Network.forward``; of :class:`Later` its rows, through which no gradient passes."""
    if not isinstance(observation, Later):
        return network.forward(params, observation)
    made = network.forward(jax.lax.stop_gradient(params), observation.sequence)
    outputs, activations = jax.tree.map(lambda x: x[observation.rows], made)
    return outputs, activations


def single(network: Network, observation: Any, carry: Any) -> Any:
    """Observations ``[E, ...]`` of one step as a batch: a sequence of length 1 if the network has memory."""
    if not network.remembers:
        return observation
    rows = len(jax.tree.leaves(observation)[0])
    return Sequence(jax.tree.map(lambda x: x[None], observation), jnp.zeros((1, rows), bool), carry)


def after(network: Network, params: Params, observation: Any, carry: Any) -> Any:
    """The carry after one more observation of each env."""
    return network.apply(params, observation, carry, None)[2] if network.remembers else carry


def truncation_notices(network: Network) -> tuple[str, ...]:
    """For an agent that learns from one step at a time: a notice if the carry lacks the derivatives of its state."""
    carry = jax.eval_shape(lambda: network.initial(1))
    states = jax.tree.leaves(carry, is_leaf=lambda x: isinstance(x, Memory))
    if all(isinstance(state, Memory) and state.traces for state in states):
        return ()
    return (
        "agent.network: gradients of this agent end at the current step; with rtu (gradient: rtrl) they reach the "
        "start of the episode",
    )


def restarted(network: Network, carry: Any, first: Array) -> Any:
    """The carry, as at the start of an episode where ``first`` (bool[E])."""
    return reset_where(first, network.initial(len(first)), carry) if network.remembers else carry


def recall(network: Network, params: Params, previous: Any, current: Any, step_type: Array, carry: Any) -> Recalled:
    """One pair of consecutive observations ``[E, ...]`` as batches; ``step_type`` int8[E] is the later one's."""
    then = jax.lax.stop_gradient(after(network, params, previous, carry))
    kept = restarted(network, then, step_type == FIRST)
    return Recalled(single(network, previous, carry), single(network, current, then), kept)


def remembering(network: Network, learner: Learner) -> Learner:
    """The learner with the carry of a fresh episode: a task switch starts one in every env."""
    if not network.remembers:
        return learner
    rows = len(jax.tree.leaves(learner.carry)[0])
    return learner._replace(carry=network.initial(rows))


def in_order(tree: Any, envs: int, step: Array) -> Any:
    """The rows of the monitors' ring ``[slots * E, ...]``, from slot order to the order in time."""

    def leaf(x: Array) -> Array:
        slots = x.reshape(-1, envs, *x.shape[1:])
        return jnp.roll(slots, -(step % len(slots)), axis=0).reshape(x.shape)

    return jax.tree.map(leaf, tree)


def recall_rows(network: Network, params: Params, previous: Any, current: Any, before: TimeStep, envs: int) -> Recalled:
    """Pairs of consecutive observations ``[T * E, ...]``, in the order of time, each row with its own carry.

    ``before`` holds the earlier time steps. The carry is that of the current parameters, from the start of the rows or
    of the episode. Gradients of a row go through its own step only.
    """
    if not network.remembers:
        return Recalled(previous, current, ())
    steps, first = jax.tree.map(lambda x: x.reshape(-1, envs, *x.shape[1:]), (previous, before.step_type == FIRST))

    def step(carry: Any, inputs: tuple[Any, Array]) -> tuple[Any, Any]:
        carry = restarted(network, carry, inputs[1])
        then = after(network, params, inputs[0], carry)
        return then, (carry, then)

    last, found = jax.lax.scan(step, network.initial(envs), (steps, first))
    carries = jax.tree.map(lambda x: jax.lax.stop_gradient(x.reshape(-1, *x.shape[2:])), found)
    return Recalled(single(network, previous, carries[0]), single(network, current, carries[1]), last)
