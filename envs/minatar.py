"""Sequences of MinAtar games in JAX."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.counters import check_visits
from plasticity.config.fields import Count, Cycles, Natural, Size, metadata
from plasticity.core.errors import listed, shown, suggestion
from plasticity.core.types import Array, Key, State, StreamSpec, Task, Visit, VisitPlan
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import OBSERVATIONS, changed, limited, permutation, stream
from plasticity.envs.episodes import warn_if_short
from plasticity.envs.minatar_games import SIZE, Game, asterix, breakout, freeway
from plasticity.envs.minatar_invaders import space_invaders
from plasticity.envs.minatar_seaquest import seaquest

GAMES: Mapping[str, Callable[[bool], Game]] = {
    "asterix": asterix,
    "breakout": breakout,
    "freeway": freeway,
    "seaquest": seaquest,
    "space_invaders": space_invaders,
}


class ConfigProblem(NamedTuple):
    """The parameters of a visit's problem."""

    game: Array  # index of the game
    channels: Any  # int32[channels]: order of the channels, or () for the game's own order


class GameChoice(NamedTuple):
    """The functions of :class:`plasticity.envs.minatar_games.Game`, with the index of the game to play.

    The index is int32 and traced.
    """

    channels: int
    words: int
    start: Callable[[Array], tuple[State, ...]]
    act: Callable[[Array, Array, tuple[State, ...], Array], tuple[Any, ...]]  # states, packed picture, reward, over
    picture: Callable[[Array, tuple[State, ...]], Array]


class Playing(NamedTuple):
    """The state of one env."""

    games: tuple[State, ...]  # one state per game; only that of the visit's game changes
    action: Array  # the last action, one of six


def known(name: str) -> str:
    """Return ``name``; for an unknown name, ``ValueError`` suggests the nearest game."""
    if name not in GAMES:
        known = listed(sorted(GAMES))
        raise ValueError(f"games: unknown game {shown(name)}; known: {known}{suggestion(name, GAMES)}")
    return name


def replaced(states: tuple[State, ...], index: int, state: State) -> tuple[State, ...]:
    return (*states[:index], state, *states[index + 1 :])


def one_of(games: Sequence[Game]) -> GameChoice:
    """Combine games into one choice; a single game needs no branches."""
    channels, words = max(game.channels for game in games), max(game.words for game in games)

    def padded(game: Game, state: Any) -> Array:
        return jnp.pad(game.picture(state), ((0, 0), (0, channels - game.channels)))

    def choose(index: Array, branches: list[Callable[..., Any]], *operands: Any) -> Any:
        return branches[0](*operands) if len(branches) == 1 else jax.lax.switch(index, branches, *operands)

    def start(words: Array) -> tuple[State, ...]:
        return tuple(game.start(words[: game.words]) for game in games)

    def act(index: Array, words: Array, states: tuple[State, ...], action: Array) -> tuple[Any, ...]:
        def branch(i: int, game: Game) -> Callable[..., Any]:
            def played(words: Array, states: tuple[State, ...], action: Array) -> tuple[Any, ...]:
                state, *outcome = game.act(words[: game.words], states[i], action)
                return replaced(states, i, state), padded(game, state), *outcome

            return played

        return choose(index, [branch(i, game) for i, game in enumerate(games)], words, states, action)

    def picture(index: Array, states: tuple[State, ...]) -> Array:
        branches = [lambda states, i=i, game=game: padded(game, states[i]) for i, game in enumerate(games)]
        return choose(index, branches, states)

    return GameChoice(channels, words, start, act, picture)


def action_table(games: Sequence[Game], full: bool) -> np.ndarray:
    """int32[games, actions]: the game's action for each action of the stream; 0 (no-op) if a game has fewer."""
    rows = [tuple(range(6)) if full else game.actions for game in games]
    most = max(map(len, rows))
    return np.array([(*row, *[0] * (most - len(row))) for row in rows], np.int32)


def unpacked(rows: Array, channels: Any) -> Array:
    """bool[10, 10, channels] of a packed picture, its channels in the given order."""
    rows = rows if isinstance(channels, tuple) else rows[:, channels]
    return ((rows[:, None, :] >> jnp.arange(SIZE)[:, None]) & 1).astype(bool)


def minatar_task(
    spec: StreamSpec, games: Sequence[Game], played: np.ndarray, table: np.ndarray, sticky: float, permute: bool
) -> Task:
    """``played`` int32[tasks]: the index of each task's game; ``table``: see :func:`action_table`."""
    whole = one_of(games)

    def params(key: Key, visit: Visit) -> ConfigProblem:
        order = permutation(jax.random.fold_in(key, OBSERVATIONS), visit.task, whole.channels) if permute else ()
        return ConfigProblem(jnp.asarray(played)[visit.task], order)

    def reset(key: Key, problem: ConfigProblem) -> tuple[Playing, Array]:
        states = whole.start(jax.random.bits(key, (whole.words,)))
        return Playing(states, jnp.int32(0)), unpacked(whole.picture(problem.game, states), problem.channels)

    def step(
        key: Key, state: Playing, action: Array, problem: ConfigProblem
    ) -> tuple[Playing, Array, Array, Array, Array]:
        words = jax.random.bits(key, (whole.words + 1,))
        action = jnp.asarray(table)[problem.game, action]
        if sticky:
            action = jnp.where(words[-1] < jnp.uint32(round(sticky * (2**32 - 1))), state.action, action)
        states, rows, reward, over = whole.act(problem.game, words, state.games, action)
        return Playing(states, action), unpacked(rows, problem.channels), reward, jnp.where(over, 0.0, 1.0), over

    return Task(spec, params, reset, step)


@metadata(
    paper="Young, Tian 2019, MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning "
    "Experiments",
    example={"games": ["breakout", "asterix"], "steps_per_visit": 10_000, "cycles": 2},
)
def minatar(
    *,
    games: Annotated[list[str], Field(min_length=1)],
    steps_per_visit: Count = 1_000_000,
    cycles: Cycles = 1,
    change: Literal["none", "channels", "actions"] = "none",
    envs: Size = 1,
    sticky: Annotated[float, Field(ge=0, le=1)] = 0.1,
    ramping: bool = True,
    full_actions: bool = True,
    episode_steps: Natural = 0,
) -> StreamFactory:
    """MinAtar games in sequence, the whole list ``cycles`` times; reward = the game's score.

    Young, Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning
    Experiments": ``asterix``, ``breakout``, ``freeway``, ``seaquest``, ``space_invaders``, by the rules of its
    reference implementation. Observations are bool[10, 10, channels], one channel per kind of object. If games differ
    in their number of channels, all get the largest number, and surplus channels stay empty.

    All settings are static. ``change``: ``none``, a repeated game is another visit to the same task; ``channels`` or
    ``actions``, every visit is a new task with a new permutation of the channels or actions (visit 0 has none).
    ``sticky``: probability that the last action is repeated instead. ``ramping``: asterix, seaquest and space_invaders
    get harder over an episode. ``full_actions``: the same six actions in all games, otherwise those that a game uses;
    if games differ, all get the largest number, and surplus actions do nothing. ``episode_steps``: episodes are
    truncated there, with discount 1; 0: never. The end of freeway after 2501 steps is the game's own, with discount 0.

    ``ValueError`` for an unknown game. Difference from the paper's program: each episode starts without a last action,
    not with that of the previous episode.
    """
    warn_if_short("steps_per_visit", steps_per_visit, episode_steps)
    names = tuple(dict.fromkeys(known(game) for game in games))  # a repeated game is the same task
    check_visits(len(games), cycles)
    visits = games * cycles
    made = [GAMES[name](ramping) for name in names]
    tasks = names if change == "none" else tuple(f"{game}_{i}" for i, game in enumerate(visits))
    table = action_table(made, full_actions)
    whole = one_of(made)
    spec = StreamSpec(
        observation=jax.ShapeDtypeStruct((SIZE, SIZE, whole.channels), jnp.bool_),
        actions=table.shape[1],
        tasks=tasks,
        visits=tuple(
            VisitPlan(names.index(game) if change == "none" else i, steps_per_visit) for i, game in enumerate(visits)
        ),
        envs=envs,
        episodic=True,
        alike=len(names) == 1,  # variants of one game
        reward_name="return",
        reward_range=(0, max(game.highest for game in made)),
    )
    played = np.array([names.index(game) for game in (names if change == "none" else visits)], np.int32)
    task = limited(minatar_task(spec, made, played, table, sticky, change == "channels"), episode_steps)
    return changed(stream(task, envs), "action" if change == "actions" else "none")
