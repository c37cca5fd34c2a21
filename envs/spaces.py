"""Host environments with gymnasium spaces, converted to one shape for all tasks of a stream."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity.config.counters import check_visits
from plasticity.core.errors import cut, listed, nearest, shown, suggestion
from plasticity.core.types import FIRST, LAST, MID, StreamSpec, VisitPlan
from plasticity.envs.base import StreamFactory
from plasticity.envs.host import MakePool, SeedsOf, Stepped, emulator_seeds, host

Options = Mapping[str, Any]


class Made(NamedTuple):
    """One task: an environment's id and the keywords for making it."""

    name: str
    id: str
    options: Options


def variants(ids: Sequence[str], variations: Sequence[Options]) -> list[Made]:
    """Every variation of every id, ids outermost; names ``Id[key=value]`` show the options that differ."""
    keys = dict.fromkeys(key for options in variations for key in options)
    differing = [
        key for key in keys if any(options.get(key, ...) != variations[0].get(key, ...) for options in variations)
    ]

    def name(id: str, options: Options) -> str:
        settings = ", ".join(f"{key}={shown(options[key])}" for key in differing if key in options)
        return f"{id}[{settings}]" if settings else id

    return [Made(name(id, options), id, options) for id, options in product(ids, variations)]


def _newest_first(name: str) -> tuple[str, int]:
    stem, _, version = name.rpartition("-v")
    return (stem, -int(version)) if version.isdigit() else (name, 0)


def unknown_name(what: str, word: str, known: Iterable[str]) -> str:
    """``unknown WHAT "word"; 117 are known``, with a suggestion that ignores a missing ``-v1`` or ``ALE/``."""
    names = sorted(known, key=_newest_first)
    short = {re.sub(r"-v[0-9]+$", "", name.rpartition("/")[2]): name for name in reversed(names)}
    close = nearest(word, names) or short.get(nearest(word, short) or "")
    hint = f"; did you mean `{close}`?" if close else ""
    return f"unknown {what} {shown(word)}; {len(names)} are known{hint}"


class Space(NamedTuple):
    """The observations and actions of an environment."""

    shape: tuple[int, ...]  # shape of an observation
    dtype: np.dtype[Any]  # uint8, or float32 for all other numbers
    actions: int  # number of actions, or of real numbers
    action: Any  # the gymnasium space of actions
    limit: int = 0  # env steps of the longest episode; 0 if unknown

    @property
    def discrete(self) -> bool:
        return hasattr(self.action, "n")


def seen_as(dtype: Any) -> np.dtype[Any]:
    """uint8 is kept; all other types become float32."""
    return np.dtype(np.uint8) if dtype == np.uint8 else np.dtype(np.float32)


def space_of(name: str, shape: tuple[int, ...], dtype: Any, action: Any, limit: int | None) -> Space:
    """The space of an environment.

    ``ValueError`` if actions are neither a Discrete space nor a Box of real numbers, or if a space is empty.
    """
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
    """The common space of all tasks: they must be equal, or with ``pad`` the largest is used; else ``ValueError``."""
    (one, first), *others = spaces.items()
    for other, space in others:
        if space.discrete != first.discrete:
            raise ValueError(f"{one} and {other}: actions must be all discrete or all real-valued")
        if len(space.shape) != len(first.shape):
            raise ValueError(f"{one} and {other}: observations of shapes {first.shape} and {space.shape} do not "
                             "have the same number of axes, which padding cannot change")  # fmt: skip
        if not pad and (space.shape, space.dtype, space.actions) != (first.shape, first.dtype, first.actions):
            raise ValueError(f"{one} and {other}: observations {first.dtype}{first.shape} and "
                             f"{space.dtype}{space.shape}, {first.actions} and {space.actions} actions; if they "
                             "differ, `pad: true` is required")  # fmt: skip
    return first._replace(
        shape=tuple(int(n) for n in np.max([space.shape for space in spaces.values()], axis=0)),
        dtype=np.dtype(np.result_type(*(space.dtype for space in spaces.values()))),
        actions=max(space.actions for space in spaces.values()),
    )


def bounds_of(spaces: Iterable[Space]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The lowest and highest value of each real-valued action in any task; None if some are infinite."""
    ends = [(np.ravel(space.action.low), np.ravel(space.action.high)) for space in spaces if not space.discrete]
    if not ends or not all(np.isfinite(end).all() for both in ends for end in both):
        return None
    longest = max(len(low) for low, _ in ends)

    def of(column: int) -> tuple[float, float]:
        own = [(low[column], high[column]) for low, high in ends if column < len(low)]
        return float(min(low for low, _ in own)), float(max(high for _, high in own))

    lows, highs = zip(*map(of, range(longest)), strict=True)
    return lows, highs


def padded(observation: np.ndarray, whole: Space) -> np.ndarray:
    """``[M, *own] -> [M, *whole]``: zeros at the end of each axis."""
    if observation.shape[1:] == whole.shape:  # NumPy's padding is slower than some environments
        return observation.astype(whole.dtype, copy=False)
    missing = [(0, n - have) for n, have in zip(whole.shape, observation.shape[1:], strict=True)]
    return np.pad(observation, [(0, 0), *missing]).astype(whole.dtype, copy=False)


def played(actions: np.ndarray, own: Space, idle: int) -> np.ndarray:
    """Convert actions to the form that the environment accepts.

    Surplus actions become ``idle``, surplus numbers are dropped, others are clipped; NaN, which a diverged lane may
    produce, becomes 0.
    """
    if own.discrete:
        return np.where(actions < own.actions, actions, idle) + getattr(own.action, "start", 0)
    numbers = np.nan_to_num(actions[:, : own.actions]).reshape(-1, *own.action.shape)
    return np.clip(numbers, own.action.low, own.action.high)


def check_measures(name: str, measures: Sequence[str], known: Iterable[str]) -> None:
    """``ValueError`` if the infos of an environment do not have these numbers, with the nearest, or if one is twice."""
    has = list(known)
    for each in measures:
        if each not in has:
            raise ValueError(f"measures: {shown(each)} is not allowed; the numbers in the infos of {name} are "
                             f"{', '.join(has) or 'none'}{suggestion(each, has)}")  # fmt: skip
    if len(set(measures)) < len(measures):
        raise ValueError(f"measures: {shown(list(measures))} is not allowed; each may be named once")


def rows_of(infos: Mapping[str, Any], measures: Sequence[str], count: int) -> np.ndarray:
    """Numbers of a step's infos, float32[count, measures]; 0 where an environment has none."""
    columns = [np.asarray(infos.get(name, 0), np.float32) for name in measures]
    return np.stack([np.broadcast_to(column, (count,)) for column in columns], 1)


class VectorPool:
    """The :class:`plasticity.envs.host.Pool` of a gymnasium vector environment.

    The environment resets at the step after an episode's end.

    ``begin`` returns the first observations. ``see`` converts observations to one array. ``dtype``: type of actions.
    ``measures``: the infos to return with each step.
    """

    def __init__(
        self, envs: Any, own: Space, whole: Space, idle: int, dtype: Any,
        begin: Callable[[], Any], see: Callable[[Any], np.ndarray] = np.asarray, measures: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.envs, self.own, self.whole, self.idle, self.dtype = envs, own, whole, idle, dtype
        self.begin, self.see, self.measures = begin, see, tuple(measures)
        self.over = np.zeros(0, bool)

    def reset(self) -> np.ndarray:
        seen = padded(self.see(self.begin()), self.whole)
        self.over = np.zeros(len(seen), bool)
        return seen

    def step(self, actions: np.ndarray) -> Stepped:
        taken = played(actions, self.own, self.idle).astype(self.dtype)
        seen, reward, terminated, truncated, infos = self.envs.step(taken)
        opens = self.over
        self.over = (terminated | truncated) & ~opens
        step_type = np.where(opens, FIRST, np.where(self.over, LAST, MID)).astype(np.int8)
        discount = np.where(terminated & ~opens, 0, 1).astype(np.float32)
        reward = np.where(opens, 0, reward).astype(np.float32)  # some envs return the last episode's reward here
        rows = [rows_of(infos, self.measures, len(reward))] if self.measures else []
        return padded(self.see(seen), self.whole), reward, discount, step_type, *rows

    def close(self) -> None:
        self.envs.close()


def sequence_spec(
    spaces: Mapping[str, Space], order: Sequence[str],
    *, steps: int, cycles: int, envs: int, pad: bool, idle: int, measures: Sequence[str] = (),
) -> StreamSpec:  # fmt: skip
    """The spec of the tasks ``order`` in sequence, the whole list ``cycles`` times, each visit of ``steps`` steps."""
    whole, fewest = joined(spaces, pad), min(space.actions for space in spaces.values())
    if whole.discrete and idle >= fewest:
        raise ValueError(f"idle: {idle} is not allowed; must be one of the {fewest} actions that all tasks have")
    longest = {name: space.limit for name, space in spaces.items() if space.limit > steps}
    if longest:
        name = max(longest, key=longest.__getitem__)
        warnings.warn(
            f"steps_per_visit: {steps} is shorter than an episode may last in {listed(list(longest))} "
            f"(up to {longest[name]} steps); a visit in which no episode ends has no return to report",
            stacklevel=4,
        )
    names = tuple(spaces)
    check_visits(len(order), cycles)
    return StreamSpec(
        observation=jax.ShapeDtypeStruct(whole.shape, whole.dtype),
        actions=whole.actions,
        tasks=names,
        visits=tuple(VisitPlan(names.index(name), steps) for name in order) * cycles,
        envs=envs,
        episodic=True,
        discrete=whole.discrete,
        reward_name="return",
        action_bounds=bounds_of(spaces.values()),
        measures=tuple(measures),
    )


def sequence(
    spaces: Mapping[str, Space], make_pool: MakePool, order: Sequence[str],
    *, steps: int, cycles: int, envs: int, pad: bool, idle: int, measures: Sequence[str] = (),
    seeds: SeedsOf = emulator_seeds, alike: bool = False,
) -> StreamFactory:  # fmt: skip
    """A stream of host environments with :func:`sequence_spec`."""
    spec = sequence_spec(spaces, order, steps=steps, cycles=cycles, envs=envs, pad=pad, idle=idle, measures=measures)
    spec = spec._replace(alike=alike)
    return StreamFactory(spec, lambda lanes: host(spec, make_pool, lanes, envs, seeds), make_pool)
