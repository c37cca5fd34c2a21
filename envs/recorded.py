"""Datasets of recorded transitions: their layout in an ``.npz`` file, its checks, and two that are made here.

One row is a step of an environment. The arrays have the rows on their first axis:

    observation, next_observation   [N, ...], of one type and shape
    action                          int[N], or float[N, size] for real-valued actions
    reward                          float[N]
    terminated, truncated           bool[N]: how the episode ended with this step, if it did

and ``metadata`` is a text, a JSON object whose keys may all be missing:

    actions        number of discrete actions; otherwise the largest action + 1
    stack          the first axis of an observation holds this many frames
    environment    where the transitions come from: ``stream`` and ``transforms`` as in a config, ``visit`` and ``task``
                   (numbers), and ``data_key``, from which the problem of that visit was drawn
    source         run, arm, seed, step, agent, versions: for the reader
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.errors import suggestion
from plasticity.core.types import FIRST, LAST, Clock, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.data import BROKEN, identified, message_of
from plasticity.envs.tables import ArrayError, finite, kind_of, load
from plasticity.envs.toys import catch

ROWS = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
METADATA = "metadata"
MOST_ACTIONS = 1_048_576


class Recorded(NamedTuple):
    """A dataset, ``N`` rows."""

    observation: np.ndarray
    action: np.ndarray  # int32[N], or float32[N, size]
    reward: np.ndarray  # float32[N]
    next_observation: np.ndarray
    terminated: np.ndarray  # bool[N]
    truncated: np.ndarray  # bool[N]
    metadata: Mapping[str, Any]

    @property
    def discrete(self) -> bool:
        return self.action.ndim == 1

    @property
    def actions(self) -> int:
        """The number of discrete actions, or of real numbers in an action."""
        if not self.discrete:
            return int(self.action.shape[1])
        return int(self.metadata.get("actions") or self.action.max() + 1)

    @property
    def stack(self) -> int:
        return int(self.metadata.get("stack", 0))

    @property
    def environment(self) -> Mapping[str, Any] | None:
        """Where the transitions come from, as written; None if the file does not say."""
        found: Mapping[str, Any] | None = self.metadata.get("environment")
        return found


def as_actions(array: np.ndarray) -> np.ndarray:
    """Check actions; returns int32[N], or float32[N, size]."""
    if array.dtype.kind in "iu" and array.ndim == 1:
        if array.size and (array.min() < 0 or array.max() >= MOST_ACTIONS):
            raise ArrayError(f"action: must be in 0 ... {MOST_ACTIONS - 1}, got {array.min()} ... {array.max()}")
        return array.astype(np.int32)
    if array.dtype.kind == "f" and array.ndim == 2 and array.shape[1]:
        return finite("action", array.astype(np.float32), "finite numbers in float32")
    raise ArrayError(f"action: must be int[N] or float[N, size], got {kind_of(array)}")


def as_observations(name: str, array: np.ndarray) -> np.ndarray:
    """Check observations; returns them as they are, or as float32."""
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise ArrayError(f"{name}: must be numbers [N, d] or [N, ...], got {kind_of(array)}")
    if array.dtype.kind == "f":
        return finite(name, array.astype(np.float32), "finite numbers in float32")
    return array if array.dtype.itemsize <= 4 else array.astype(np.int32)


def as_flags(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype != bool or array.ndim != 1:
        raise ArrayError(f"{name}: must be bool[N], got {kind_of(array)}")
    return array


def as_rewards(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu" or array.ndim != 1:
        raise ArrayError(f"reward: must be float[N], got {kind_of(array)}")
    return finite("reward", array.astype(np.float32), "finite numbers in float32")


def as_metadata(arrays: Mapping[str, Any]) -> Mapping[str, Any]:
    """The file's JSON; empty if it has none."""
    if METADATA not in arrays:
        return {}
    text = load(arrays, METADATA)
    try:
        found = json.loads(str(text[()]))
    except (ValueError, IndexError) as error:
        raise ArrayError(f"metadata: must be a text, a JSON object ({error})") from error
    if not isinstance(found, dict):
        raise ArrayError("metadata: must be a text, a JSON object")
    if not isinstance(found.get("environment", {}), dict):
        raise ArrayError("metadata: environment must be a JSON object")
    for key in ("actions", "stack"):
        value = found.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_ACTIONS:
            raise ArrayError(f"metadata: {key} must be a whole number, got {json.dumps(value)[:40]}")
    return found


def recorded(arrays: Mapping[str, Any]) -> Recorded:
    """The dataset in the arrays of a file. ``ArrayError`` names the array that is missing or invalid."""
    missing = [name for name in ROWS if name not in arrays]
    if missing:
        raise ArrayError(f"{missing[0]}: missing; the file has {', '.join(arrays) or 'no arrays'}")
    given = {name: load(arrays, name) for name in ROWS}
    seen, following = (as_observations(name, given[name]) for name in ("observation", "next_observation"))
    terminated, truncated = (as_flags(name, given[name]) for name in ("terminated", "truncated"))
    action, reward = as_actions(given["action"]), as_rewards(given["reward"])
    made = Recorded(seen, action, reward, following, terminated, truncated, as_metadata(arrays))
    if not len(seen):
        raise ArrayError("observation: the file has no rows")
    for name in ROWS[1:]:
        if len(given[name]) != len(seen):
            raise ArrayError(f"{name}: must have the {len(seen)} rows of observation, got {len(given[name])}")
    if (following.shape, following.dtype) != (seen.shape, seen.dtype):
        raise ArrayError(f"next_observation: must be {kind_of(seen)} like observation, got {kind_of(following)}")
    if made.discrete and made.action.max() >= made.actions:
        raise ArrayError(f"action: must be below metadata's {made.actions} actions, got {made.action.max()}")
    if made.stack and (made.stack != seen.shape[1]):
        raise ArrayError(f"observation: must have metadata's stack of {made.stack} as its second axis")
    return made


def read(path: str) -> Recorded:
    """Read the dataset in a file. ``ValueError`` in one line that names the file and the array."""
    place = Path(path).expanduser()
    try:
        with place.open("rb") as file:  # NumPy leaves its own handle open for a truncated file
            arrays = np.load(file)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ArrayError("it is not an .npz archive")
            with arrays:
                return recorded(arrays)
    except BROKEN as error:
        near = suggestion(path, BUILT_IN) if isinstance(error, FileNotFoundError) else ""
        raise ValueError(f"paths: {path}: {message_of(error).removeprefix(f'{place}: ')}{near}") from error


CATCH: Mapping[str, Any] = {"change": "none", "tasks": 1}
STEPS = 4_500  # 450 episodes of 9 steps, and the steps that open them


@functools.cache
def of_catch(noise: float) -> Recorded:
    """Catch, played with random actions with probability ``noise`` and otherwise towards the ball."""
    source = catch(**CATCH)
    return played(source, {"kind": "catch", **CATCH}, noise)


def played(source: StreamFactory, settings: Mapping[str, Any], noise: float) -> Recorded:
    """Record ``STEPS`` steps of one env of catch, without the pairs that span two episodes."""
    stream, key = source.make(1), jax.random.key(0)
    zero = jnp.zeros((), jnp.int32)

    def step(carry: Any, i: Any) -> Any:
        state, timestep = carry
        board = timestep.observation[0, 0]
        ball, paddle = jnp.argmax(jnp.max(board[:-1], 0)), jnp.argmax(board[-1])
        coin, draw = jax.random.split(jax.random.fold_in(key, i))
        wanted = jnp.sign(ball - paddle).astype(jnp.int32) + 1
        other = jax.random.randint(draw, (), 0, source.spec.actions)
        action = jnp.where(jax.random.uniform(coin) < noise, other, wanted)
        state, following = stream.step(key[None], state, action[None, None], Clock(i, i, zero, i))
        return (state, following), (timestep, action, following)

    start = stream.reset(key[None], Visit(zero, zero), zero)
    _, made = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(STEPS, dtype=jnp.int32)))(start)
    before, action, after = jax.device_get(made)
    rows = after.step_type[:, 0, 0] != FIRST
    terminated = after.discount[rows, 0, 0] == 0
    words = np.asarray(jax.random.key_data(key)).tolist()
    environment = {"stream": dict(settings), "transforms": [], "visit": 0, "task": 0, "data_key": words}
    return Recorded(
        before.observation[rows, 0, 0],
        action[rows],
        after.reward[rows, 0, 0],
        after.observation[rows, 0, 0],
        terminated,
        (after.step_type[rows, 0, 0] == LAST) & ~terminated,
        {"actions": source.spec.actions, "environment": environment},
    )


BUILT_IN = {"catch_random": 1.0, "catch_skilled": 0.1}  # the share of random actions


def dataset_of(name: str) -> tuple[Recorded, tuple[tuple[str, str], ...]]:
    """The dataset of a built-in name or a path, and its file with the SHA-256 of its contents, if it has one."""
    if name in BUILT_IN:
        return of_catch(BUILT_IN[name]), ()
    return read(name), (identified(Path(name).expanduser().absolute()),)
