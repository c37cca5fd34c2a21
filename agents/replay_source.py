"""What a replay agent samples from: a memory of transitions or sequences, and the settings of sampling."""

from collections.abc import Callable
from typing import Any, NamedTuple

from plasticity.agents.replay import Batch
from plasticity.agents.windows import Windows
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Held, Network, no_carry


class Sample(NamedTuple):
    batch: Batch | Windows
    weights: Array  # float32[rows of the batch] of the losses
    places: Array  # int32[B]: where the memory keeps its records of these transitions or sequences


class Memory(NamedTuple):
    """A source of transitions. Its state is the agent's ``replay``, which never passes through a branch."""

    init: Callable[[], Any]
    add: Callable[..., Any]
    # state, transition and, for sequences, the carry [E, ...] before it, or a key if the memory draws -> state
    ready: Callable[[Any], Array]
    sample: Callable[..., Sample]
    # state, key, age of the agent in env steps; optionally ``share``, float32[] in (0, 1]: the oldest part of what is
    # stored, from which to sample
    update_priorities: Callable[[Any, Array, Array, Array, Array], Any]
    # state, int32[] updates made (never batched), bool[] whether they count, places and losses [updates, B] -> state
    batch_size: int
    first: int  # env steps of each env before there is enough to sample
    sequences: Callable[[Array, Array], Array] | None = None
    # of a memory of sequences: errors and their validity [rows] -> the priority of each sequence [B]
    held: Callable[[Any], Held] | None = None  # state -> the transitions in it, if they are in the order of time
    switch: Callable[[Any], Any] | None = None  # at a task switch: state -> state, of a memory that knows visits apart
    draws: bool = False  # whether `add` takes a key
    reviews: bool = True  # whether there is an oldest part to sample from


class Sampling(NamedTuple):
    """How an agent samples its replay: the first two numbers are static, the next two traced unless None."""

    batch_size: int
    n_step: int
    discount: Number
    reward_clip: Number | None
    initial: Callable[[int], Any] = no_carry  # the network's: number of envs -> the carry at the start of an episode


def check_memory(network: Network, memory: Memory) -> None:
    """``ValueError`` if a network with memory would learn from single transitions."""
    if network.remembers and memory.sequences is None:
        raise ValueError(
            "agent.replay: single transitions are not allowed with a network that has memory; "
            "choose sequences or prioritised_sequences"
        )
