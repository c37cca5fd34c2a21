"""An actor and an ensemble of critics that learn from replay: their networks, actions and target networks."""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.agents.base import built
from plasticity.agents.replay import Batch
from plasticity.core.outputs import Outputs, Values
from plasticity.core.schedules import Number
from plasticity.core.task_entries import separated, with_entries
from plasticity.core.types import Array, Clock, Key, Network, Params, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.networks.build import join

ACTOR, CRITIC = "actor", "critic"
# The kernels of the published programs: larger ones saturate a deterministic actor before it has learned anything.
NETWORK: Mapping[str, Any] = {"kind": "mlp", "widths": [256, 256], "initialiser": "pytorch"}
ADAM = {"kind": "adam", "learning_rate": 3e-4}
REPLAY = {"kind": "uniform", "capacity": 100_000, "minimum": 1_000}
Ensemble = Annotated[int, Field(ge=1, le=64)]
Rate = Annotated[float, Field(gt=0, le=1)]


class StateAction(NamedTuple):
    """What critics of real-valued actions read, ``[B, ...]``; the actor reads the state alone."""

    state: Array
    action: Array


def state_and_action(batch: Batch) -> StateAction:
    return StateAction(batch.observation, batch.action)


class Scale(NamedTuple):
    """The affine map from (-1, 1) to a stream's actions: ``middle + half * a``."""

    middle: np.ndarray
    half: np.ndarray

    def __call__(self, action: Array) -> Array:
        return self.middle + self.half * action


def with_action(seen: Any, scale: Scale) -> StateAction:
    """Observations ``[B, ...]`` with actions of zeros, which the actor does not read; a pair is returned as it is."""
    if isinstance(seen, StateAction):
        return seen
    return StateAction(seen, jnp.zeros((len(seen), len(scale.half))))


def scale_of(name: str, spec: StreamSpec) -> Scale:
    """The map to the actions of ``spec``; ``ValueError`` if these are discrete or not bounded."""
    if spec.discrete or spec.action_bounds is None:
        found = "discrete" if spec.discrete else "not bounded"
        raise ValueError(f"agent.kind: {name} is not allowed; it needs bounded real-valued actions; these are {found}")
    low, high = (np.asarray(end, np.float32) for end in spec.action_bounds)
    if not (low < high).all():
        raise ValueError(f"agent.kind: {name} is not allowed; it needs actions with a range; one of these has none")
    return Scale((low + high) / 2, (high - low) / 2)


def critic_names(count: int) -> tuple[str, ...]:
    return tuple(f"{CRITIC}_{i + 1}" for i in range(count))


def reading(network: Network, see: Callable[[Any], Any]) -> Network:
    """The network, which reads ``see(observations)``."""

    def apply(params: Params, observations: Any, carry: Any = (), first: Array | None = None) -> Any:
        return network.apply(params, see(observations), carry, first)

    return network._replace(apply=apply)


def state_of(seen: StateAction) -> Array:
    return seen.state


def side_by_side(seen: StateAction, entries: int = 0) -> Array:
    """State and action as one vector; the ``entries`` (static) of the state that are the task come last."""
    state, task = separated(seen.state, entries)
    return with_entries(jnp.concatenate([jnp.asarray(state, jnp.float32), seen.action], axis=-1), task)


def networks(
    name: str,
    spec: StreamSpec,
    actor: Callable[[Any, int], Any],
    critic: Callable[[Any, int], Any],
    outputs: int,
    count: int,
    method: Intervention,
) -> Network:
    """An actor with this number of outputs and ``count`` critics, which share no parameters.

    With real-valued actions, critics read state and action (:class:`StateAction`) and have one output; otherwise they
    read the state and have one output per action. ``ValueError`` if state and action cannot be joined, or for a network
    with memory.
    """
    observation, names = spec.observation, critic_names(count)
    if spec.discrete:
        made = {ACTOR: built(actor(observation, outputs), method, ACTOR)}
        made |= {each: built(critic(observation, spec.actions), method, each) for each in names}
    else:
        if len(observation.shape) != 1:
            raise ValueError(
                f"agent.kind: {name} is not allowed; with real-valued actions it needs observations that are vectors; "
                f"these have the shape {tuple(observation.shape)}"
            )
        both = jax.ShapeDtypeStruct((observation.shape[0] + spec.actions,), jnp.float32)
        beside = functools.partial(side_by_side, entries=spec.task_entries)
        made = {ACTOR: reading(built(actor(observation, outputs), method, ACTOR), state_of)}
        made |= {each: reading(built(critic(both, 1), method, each), beside) for each in names}
    if any(each.remembers for each in made.values()):
        raise ValueError("agent.network: has memory, which this agent does not use; choose a network without")
    return join(made)


def critic_values(outputs: Mapping[str, Array]) -> Array:
    """The values of all critics, ``[K, B]``, or ``[K, B, actions]`` for discrete actions."""
    values = jnp.stack([each for name, each in outputs.items() if name.startswith(CRITIC)])
    return values[..., 0] if values.shape[-1] == 1 else values


def read_critics(outputs: Mapping[str, Array]) -> Outputs:
    """What the critics say, by name."""
    return {name: Values(each) for name, each in outputs.items() if name.startswith(CRITIC)}


def polyak(rate: Number) -> Callable[[Params, Params], Params]:
    """``target <- (1 - rate) target + rate params``."""
    return lambda params, target: jax.tree.map(lambda new, old: (1 - rate) * old + rate * new, params, target)


def every(period: int, parts: tuple[str, ...], names: tuple[str, ...]) -> Callable[[Clock], Mapping[str, Array]] | None:
    """``parts`` of the parameters, of all ``names``, change at every ``period``-th update only (static)."""
    if period == 1:
        return None

    def due(clock: Clock) -> Mapping[str, Array]:
        now = (clock.update + 1) % period == 0
        return {name: now if name in parts else jnp.ones((), bool) for name in names}

    return due


def uniform(key: Key, shape: tuple[int, ...]) -> Array:
    """Random actions in (-1, 1)."""
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
