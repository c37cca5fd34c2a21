"""Sequences of Atari games, emulated on the host by envpool or by ale-py."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
from pydantic import Field

from plasticity.config.counters import check_visits
from plasticity.config.fields import Count, Cycles, Natural, Repeats, Size, Threads, metadata
from plasticity.core.cores import cores
from plasticity.core.types import FIRST, LAST, MID, StreamSpec, VisitPlan
from plasticity.envs.atari_ale import AlePool, ale_actions
from plasticity.envs.atari_games import Game, curriculum, parse
from plasticity.envs.atari_presets import FRAME_SKIP, PRESETS, SIDE, STACK, Preset
from plasticity.envs.atari_suites import suite_of
from plasticity.envs.base import StreamFactory
from plasticity.envs.episodes import warn_if_short
from plasticity.envs.host import Pool, Stepped, host

# Five minutes of play, the episode limit in Bellemare et al. 2013, "The Arcade Learning Environment". The length of a
# game is not known in advance: Freeway lasts 8,160 frames, Breakout under a random policy a thousand.
USUAL_EPISODE = 18_000

ListOfModes = Annotated[list[Natural], Field(min_length=1, max_length=1000)] | Literal["all"]


def library() -> Any:
    """Import envpool, which takes a second; ``ValueError`` if it is not installed."""
    try:
        import envpool
    except ImportError as error:
        raise ValueError(f"backend: envpool cannot be imported ({error}); install it, or use `backend: ale`") from error
    return envpool


def make_envs(game: Game, preset: Preset, seeds: Sequence[int], threads: int) -> Any:
    """An envpool with one env per seed: 84 x 84 grey frames, the maximum of the last two of each 4; raw rewards."""
    envpool = library()

    return envpool.make(
        f"{game.name}-v5",
        env_type="gymnasium",
        num_envs=len(seeds),
        seed=list(seeds),
        num_threads=threads,
        mode=game.mode,
        difficulty=game.difficulty,
        frame_skip=FRAME_SKIP,
        stack_num=STACK,
        img_height=SIDE,
        img_width=SIDE,
        repeat_action_probability=preset.sticky,
        full_action_space=preset.full_actions,
        max_episode_steps=preset.episode_frames // FRAME_SKIP,
        noop_max=preset.noops,
        use_fire_reset=preset.fire,
        episodic_life=False,
        reward_clip=False,
    )


@cache
def minimal_actions(name: str) -> int:
    """Number of actions the game uses, in each of its modes."""
    envs = make_envs(Game(name), PRESETS["dqn_legacy"], [1], 1)
    count = int(envs.action_space.n)
    envs.close()
    return count


def envpool_actions(game: Game, preset: Preset) -> int:
    """Number of the game's actions; ``ValueError`` if envpool is not installed."""
    library()
    return 18 if preset.full_actions else minimal_actions(game.name)


class AtariPool:
    """The :class:`plasticity.envs.host.Pool` of one game."""

    def __init__(self, game: Game, preset: Preset, seeds: np.ndarray, threads: int) -> None:
        self.envs = make_envs(game, preset, [int(seed) for seed in seeds], min(threads, len(seeds)))
        self.actions = int(self.envs.action_space.n)
        self.life_loss = preset.life_loss
        self.lives = np.zeros(len(seeds), np.int32)

    def reset(self) -> np.ndarray:
        observation, info = self.envs.reset()
        self.lives = info["lives"]
        return observation

    def step(self, actions: np.ndarray) -> Stepped:
        known = np.where(actions < self.actions, actions, 0).astype(np.int32)  # 0 is NOOP
        observation, reward, terminated, truncated, info = self.envs.step(known)
        opens = info["elapsed_step"] == 0
        dead = info["terminated"].astype(bool)  # the game's own end, even if it coincides with the time limit
        if self.life_loss:
            dead |= (info["lives"] < self.lives) & ~opens
        self.lives = info["lives"]
        step_type = np.where(opens, FIRST, np.where(terminated | truncated, LAST, MID)).astype(np.int8)
        return observation, reward, (~dead).astype(np.float32), step_type

    def close(self) -> None:
        self.envs.close()


class Backend(NamedTuple):
    """The emulator of the games."""

    pool: Callable[[Game, Preset, np.ndarray, int], Pool]  # game, preset, seeds, threads
    actions: Callable[[Game, Preset], int]  # `ValueError` if the backend cannot play it


BACKENDS: Mapping[str, Backend] = {
    "envpool": Backend(AtariPool, envpool_actions),
    "ale": Backend(AlePool, ale_actions),
}


def threads_of_a_block() -> int:
    """Threads per block: blocks on different devices step at the same time and share the cores."""
    return max(1, cores() // jax.local_device_count())


def preset_of(preset: str, overrides: Mapping[str, Any]) -> Preset:
    given = {name: value for name, value in overrides.items() if value is not None}
    settings = PRESETS[preset]._replace(**given)
    if settings.episode_frames % FRAME_SKIP:
        raise ValueError(
            f"episode_frames: {settings.episode_frames} is not allowed; must be a multiple of {FRAME_SKIP}"
        )
    return settings


def visit_frames(frames: int | None, usual: int, episode: int) -> int:
    """Frames of each env in a visit, as given or about ``usual``; warns if an episode may last longer."""
    if frames is not None and frames % FRAME_SKIP:
        raise ValueError(f"frames_per_visit: {frames} is not allowed; must be a multiple of {FRAME_SKIP}")
    if frames is not None:
        warn_if_short("frames_per_visit", frames, episode, "frames", least=USUAL_EPISODE)
    return usual // FRAME_SKIP * FRAME_SKIP if frames is None else frames


@metadata(
    paper="Machado et al. 2018, Revisiting the Arcade Learning Environment",
    example={"games": ["Breakout", "Pong"], "frames_per_visit": 40_000},
)
def atari(
    *,
    games: Annotated[list[str], Field(min_length=1)] | None = None,
    suite: str | None = None,
    modes: ListOfModes | None = None,
    difficulties: ListOfModes | None = None,
    preset: Literal["machado18", "dqn_legacy", "cora"] | None = None,
    backend: Literal["envpool", "ale"] = "envpool",
    frames_per_visit: Count | None = None,
    cycles: Cycles | None = None,
    envs: Size = 1,
    sticky: Annotated[float, Field(ge=0, le=1)] | None = None,
    full_actions: bool | None = None,
    life_loss: bool | None = None,
    episode_frames: Count | None = None,
    noops: Repeats | None = None,
    fire: bool | None = None,
    threads: Threads = 0,
) -> StreamFactory:
    """Atari games in sequence, the whole list ``cycles`` times; reward = the game's score, never clipped.

    Presets: ``machado18``, Machado et al. 2018, "Revisiting the Arcade Learning Environment: Evaluation Protocols and
    Open Problems for General Agents" (sticky actions with probability 0.25, all 18 actions, an episode is a whole game
    of at most 108,000 frames); ``dqn_legacy``, Mnih et al. 2015, "Human-level control through deep reinforcement
    learning" as in OpenAI Baselines (no sticky actions, only the actions that the games use, discount 0 at a lost life,
    up to 30 no-ops, then FIRE); ``cora``, Powers et al. 2022, "CORA: Benchmarks, Baselines, and Metrics as a Platform
    for Continual Reinforcement Learning Agents" (as ``dqn_legacy``, with all 18 actions and at most 40,000 frames).

    All settings are static. ``games``: ``Name``, ``Name:mode`` or ``Name:mode:difficulty``. ``suite``: ``cora``,
    ``sequence10``, ``rusu_space_invaders``, ``rusu_breakout`` or ``rusu_freeway``, see
    :mod:`plasticity.envs.atari_suites`. A suite sets games, modes, preset, cycles and frames; settings given explicitly
    override it. ``modes``, ``difficulties``: a curriculum, each game in each mode at the first difficulty, then at the
    next. ``all`` means all that the game has; if only one of the two is given, the other is the game's first.
    ``preset``: ``machado18`` by default. ``frames_per_visit``: frames of each env, a multiple of 4 (an agent's step is
    4 frames); by default 20,000,000, or in a suite the suite's number divided by ``envs``. ``cycles``: 1 by default.
    ``sticky`` ... ``fire`` override the preset, see ``Preset``. ``threads``: threads per block of lanes; 0 shares the
    cores among the devices. If games differ in their number of actions, all get the largest number, and surplus actions
    do nothing.

    ``backend``: ``envpool``, or ``ale`` (ale-py's vector environment) for machines without envpool. ``ale`` has no
    modes and difficulties. From the same frame on, both give the same frames, rewards and episode ends. They differ as
    follows. An episode of ``ale`` starts with 0 ... ``noops`` - 1 frames without action, where ``envpool`` has
    1 ... ``noops``. The same seed draws different numbers of them. With ``ale``, frames without action count towards
    the time limit, and the last frame of a game may be one of the four before its end.

    Observations are uint8[4, 84, 84], the newest frame last. At FIRST all four are copies of the first frame; at every
    other step the three older frames are the newest three of the previous step. A time limit has discount 1.

    ``ValueError`` for an unknown suite, game, mode or difficulty, and for a number of frames that is not a multiple of
    4. A warning if a visit is shorter than five minutes of play (and than the episode limit). Differences from Machado
    et al.: one frame without action at the start of an episode (none with ``ale``). Difference from the other two: an
    episode continues after a lost life, without no-ops and FIRE.
    """
    whole = suite_of(suite, games)
    overrides = {
        "sticky": sticky, "full_actions": full_actions, "life_loss": life_loss, "episode_frames": episode_frames,
        "noops": noops, "fire": fire,
    }  # fmt: skip
    settings = preset_of(preset or whole.preset, overrides)
    usual = whole.frames // (envs if suite else 1)
    frames = visit_frames(frames_per_visit, usual, settings.episode_frames)
    sequence = curriculum(whole.games, modes or whole.modes, difficulties or whole.difficulties)
    check_visits(len(sequence), cycles or whole.cycles)
    tasks = tuple(dict.fromkeys(sequence))  # a repeated game is another visit to the same task
    played = [parse(game) for game in tasks]
    visits = tuple(VisitPlan(tasks.index(game), frames // FRAME_SKIP) for game in sequence)
    backed = BACKENDS[backend]
    spec = StreamSpec(
        observation=jax.ShapeDtypeStruct((STACK, SIDE, SIDE), np.uint8),
        actions=max(backed.actions(game, settings) for game in played),
        tasks=tasks,
        visits=visits * (cycles or whole.cycles),
        envs=envs,
        episodic=True,
        frames_per_step=FRAME_SKIP,
        stack=STACK,
        reward_name="return",
    )

    def make_pool(task: int, seeds: np.ndarray) -> Pool:
        return backed.pool(played[task], settings, seeds, threads or threads_of_a_block())

    return StreamFactory(spec, lambda lanes: host(spec, make_pool, lanes, envs), make_pool)
