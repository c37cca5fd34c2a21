"""When a streaming agent draws its action: as it acts, or one step ahead, as SARSA needs it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from plasticity.agents.base import ACTION, SAMPLE
from plasticity.core.types import Array, Clock, Key

Memory = Mapping[str, Any]  # of the agent besides its learner: ``AgentState.rest``
Draw = Callable[[Key, Array], Array]  # key, env step at which it is taken -> the action for the newest observation


class Choice(NamedTuple):
    """When an action is drawn."""

    act: Callable[[Key, Draw, Memory, Clock], Array]
    ahead: Callable[[Key, Draw, Memory, Clock], Memory]  # in ``learn``, before the update; the observation is the next


def drawn_now(key: Key, draw: Draw, memory: Memory, clock: Clock) -> Array:
    del memory
    return draw(jax.random.fold_in(key, ACTION), clock.step)


def nothing_ahead(key: Key, draw: Draw, memory: Memory, clock: Clock) -> Memory:
    del key, draw, clock
    return memory


def kept_action(key: Key, draw: Draw, memory: Memory, clock: Clock) -> Array:
    """The action that was drawn ahead; the first one of a visit is drawn now."""
    drawn: Array = jax.lax.cond(
        clock.step_in_visit == 0, lambda: drawn_now(key, draw, memory, clock), lambda: memory["action"]
    )
    return drawn


def next_action(key: Key, draw: Draw, memory: Memory, clock: Clock) -> Memory:
    return {**memory, "action": draw(jax.random.fold_in(key, SAMPLE), clock.step + 1)}


NOW = Choice(drawn_now, nothing_ahead)
AHEAD = Choice(kept_action, next_action)  # the memory has the discrete ``action``, int32[1]
