"""Environments on the host whose observations and actions are gymnasium spaces: one shape for all tasks of a stream."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity.config.counters import check_visits
from plasticity.core.errors import cut, listed, nearest, shown
from plasticity.core.types import FIRST, LAST, MID, StreamSpec, VisitPlan
from plasticity.envs.base import StreamFactory
from plasticity.envs.host import MakePool, Stepped, host

Options = Mapping[str, Any]


class Made(NamedTuple):
    """One task: an environment's id and the keywords that it is made with."""

    name: str
    id: str
    options: Options


def variants(ids: Sequence[str], variations: Sequence[Options]) -> list[Made]:
    """Every variation of every id, ids outermost; the name ``Id[key=value]`` says where several variations differ."""
    keys = dict.fromkeys(key for options in variations for key in options)
    differing = [
        key for key in keys if any(options.get(key, ...) != variations[0].get(key, ...) for options in variations)
    ]

    def name(id: str, options: Options) -> str:
        told = ", ".join(f"{key}={shown(options[key])}" for key in differing if key in options)
        return f"{id}[{told}]" if told else id

    return [Made(name(id, options), id, options) for id, options in product(ids, variations)]


def _newest_first(name: str) -> tuple[str, int]:
    stem, _, version = name.rpartition("-v")
    return (stem, -int(version)) if version.isdigit() else (name, 0)


def unknown_name(what: str, word: str, known: Iterable[str]) -> str:
    """``unknown WHAT "word"; 117 are known``, with a suggestion that does not mind a missing ``-v1`` or ``ALE/``."""
    names = sorted(known, key=_newest_first)
    short = {re.sub(r"-v[0-9]+$", "", name.rpartition("/")[2]): name for name in reversed(names)}
    close = nearest(word, names) or short.get(nearest(word, short) or "")
    hint = f"; did you mean `{close}`?" if close else ""
    return f"unknown {what} {shown(word)}; {len(names)} are known{hint}"


class Space(NamedTuple):
    """What an environment shows and takes."""

    shape: tuple[int, ...]  # of an observation
    dtype: np.dtype[Any]  # uint8, or float32 for all other numbers
    actions: int  # how many, or how many real numbers
    action: Any  # the gymnasium space of actions
    limit: int = 0  # env steps of the longest episode; 0 where unknown

    @property
    def discrete(self) -> bool:
        return hasattr(self.action, "n")


def seen_as(dtype: Any) -> np.dtype[Any]:
    """uint8 stays; all other numbers become float32."""
    return np.dtype(np.uint8) if dtype == np.uint8 else np.dtype(np.float32)


def space_of(name: str, shape: tuple[int, ...], dtype: Any, action: Any, limit: int | None) -> Space:
    """``ValueError`` where actions are neither a Discrete space nor a Box of real numbers, or nothing is shown or
    taken."""
    from gymnasium import spaces

    for what, numbers in (("observations", shape), ("actions", action.shape or ())):
        if 0 in numbers:
            raise ValueError(f"{name}: its {what} are empty, of shape {numbers}; every axis must be at least 1")
    known = 0 if limit is None or limit >= np.iinfo(np.int32).max else int(limit)
    if isinstance(action, spaces.Discrete):
        return Space(shape, np.dtype(dtype), int(action.n), action, known)
    if isinstance(action, spaces.Box) and np.issubdtype(action.dtype, np.floating):
        return Space(shape, np.dtype(dtype), int(np.prod(action.shape)), action, known)
    raise ValueError(
        f"{name}: its actions, {described(action)}, are not allowed; must be Discrete or a Box of real numbers"
    )


def described(space: Any) -> str:
    """The space as one short line."""
    return cut(" ".join(str(space).split()), 80)


def joined(spaces: Mapping[str, Space], pad: bool) -> Space:
    """What all tasks show and take: the same, or with ``pad`` the largest; ``ValueError`` where that cannot be."""
    (one, first), *others = spaces.items()
    for other, space in others:
        if space.discrete != first.discrete:
            raise ValueError(f"{one} and {other}: one has discrete actions, the other real ones; no stream has both")
        if len(space.shape) != len(first.shape):
            raise ValueError(f"{one} and {other}: observations of shapes {first.shape} and {space.shape} have not "
                             "the same number of axes, which padding does not change")  # fmt: skip
        if not pad and (space.shape, space.dtype, space.actions) != (first.shape, first.dtype, first.actions):
            raise ValueError(f"{one} and {other}: observations {first.dtype}{first.shape} and "
                             f"{space.dtype}{space.shape}, {first.actions} and {space.actions} actions; where they "
                             "differ, `pad: true` is needed")  # fmt: skip
    return first._replace(
        shape=tuple(int(n) for n in np.max([space.shape for space in spaces.values()], axis=0)),
        dtype=np.dtype(np.result_type(*(space.dtype for space in spaces.values()))),
        actions=max(space.actions for space in spaces.values()),
    )


def padded(observation: np.ndarray, whole: Space) -> np.ndarray:
    """``[M, *own] -> [M, *whole]``: zeros at the end of each axis."""
    if observation.shape[1:] == whole.shape:  # NumPy's padding takes longer than some environments
        return observation.astype(whole.dtype, copy=False)
    missing = [(0, n - have) for n, have in zip(whole.shape, observation.shape[1:], strict=True)]
    return np.pad(observation, [(0, 0), *missing]).astype(whole.dtype, copy=False)


def played(actions: np.ndarray, own: Space, idle: int) -> np.ndarray:
    """The actions as the environment takes them: surplus ones are ``idle``, surplus numbers fall away, others are
    clipped; what is not a number, as of a lane that has diverged, is 0."""
    if own.discrete:
        return np.where(actions < own.actions, actions, idle) + getattr(own.action, "start", 0)
    numbers = np.nan_to_num(actions[:, : own.actions]).reshape(-1, *own.action.shape)
    return np.clip(numbers, own.action.low, own.action.high)


class VectorPool:
    """The :class:`plasticity.envs.host.Pool` of a gymnasium vector environment.

    The environment resets at the step after an episode's end.

    ``begin``: its first observations. ``see``: its observations as one array. ``dtype``: of actions.
    """

    def __init__(
        self, envs: Any, own: Space, whole: Space, idle: int, dtype: Any,
        begin: Callable[[], Any], see: Callable[[Any], np.ndarray] = np.asarray,
    ) -> None:  # fmt: skip
        self.envs, self.own, self.whole, self.idle, self.dtype = envs, own, whole, idle, dtype
        self.begin, self.see = begin, see
        self.over = np.zeros(0, bool)

    def reset(self) -> np.ndarray:
        seen = padded(self.see(self.begin()), self.whole)
        self.over = np.zeros(len(seen), bool)
        return seen

    def step(self, actions: np.ndarray) -> Stepped:
        taken = played(actions, self.own, self.idle).astype(self.dtype)
        seen, reward, terminated, truncated, _ = self.envs.step(taken)
        opens = self.over
        self.over = (terminated | truncated) & ~opens
        step_type = np.where(opens, FIRST, np.where(self.over, LAST, MID)).astype(np.int8)
        discount = np.where(terminated & ~opens, 0, 1).astype(np.float32)
        reward = np.where(opens, 0, reward).astype(np.float32)  # some envs show the last episode's here
        return padded(self.see(seen), self.whole), reward, discount, step_type

    def close(self) -> None:
        self.envs.close()


def sequence(
    spaces: Mapping[str, Space], make_pool: MakePool, order: Sequence[str],
    *, steps: int, cycles: int, envs: int, pad: bool, idle: int,
) -> StreamFactory:  # fmt: skip
    """The tasks ``order`` one after the other, the whole list ``cycles`` times, each for ``steps``."""
    whole, fewest = joined(spaces, pad), min(space.actions for space in spaces.values())
    if whole.discrete and idle >= fewest:
        raise ValueError(f"idle: {idle} is not allowed; must be one of the {fewest} actions that all tasks have")
    longest = {name: space.limit for name, space in spaces.items() if space.limit > steps}
    if longest:
        name = max(longest, key=longest.__getitem__)
        warnings.warn(
            f"steps_per_visit: {steps} is less than an episode may last in {listed(list(longest))} "
            f"(up to {longest[name]} steps); in such a visit no episode may end, and none is recorded",
            stacklevel=3,
        )
    names = tuple(spaces)
    check_visits(len(order), cycles)
    spec = StreamSpec(
        observation=jax.ShapeDtypeStruct(whole.shape, whole.dtype),
        actions=whole.actions,
        tasks=names,
        visits=tuple(VisitPlan(names.index(name), steps) for name in order) * cycles,
        envs=envs,
        episodic=True,
        discrete=whole.discrete,
        reward_name="return",
    )
    return StreamFactory(spec, lambda lanes: host(spec, make_pool, lanes, envs), make_pool)
