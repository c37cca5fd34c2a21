"""Evaluation: episodes in separate environments, played without learning.

An evaluation uses a *replica* of a visit: the same problem with different randomness (see ``types.Visit``). The
training stream and its random numbers are not affected. Every env plays the same number of whole episodes; stopping
after a total number of episodes over all envs would favour short ones.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core import counting
from plasticity.core.counting import Precise, plus
from plasticity.core.lane_axis import across, enter, leave
from plasticity.core.types import FIRST, LAST, Array, Clock, Key, Metrics, Stream, StreamSpec, TimeStep, Visit
from plasticity.engine import measures

Which = Literal["current", "seen", "all"]
Play = Callable[[Array, Any, Any], Array]  # number of the step, carry, observation -> actions
Advance = Callable[[Any, Any, Array], Any]  # carry, observation, whether the next one is FIRST -> carry


class Player(NamedTuple):
    """An agent that is evaluated; arrays as `lanes.enter` gives them."""

    play: Play
    initial: Callable[[], Any]  # the carry at the start of an episode; () without memory
    advance: Advance


class Evaluation(NamedTuple):
    """When and how a program's lanes are evaluated (static)."""

    every: int | None  # env steps of training; None: at the end of every visit
    tasks: Which = "current"  # the task being learned, all tasks met so far, or all of the stream
    episodes: int = 10  # per lane, rounded up to a multiple of its envs
    steps: int = 10_000  # maximum env steps; the exact number for a stream without episodes
    epsilon: float = 0.0  # probability of a random action


class Target(NamedTuple):
    """A visit to be evaluated (Python ints)."""

    visit: int
    task: int


class EpisodeStatistics(NamedTuple):
    """Evaluation statistics of one lane, ``[E]`` each."""

    running: Precise  # return of the current episode
    age: Array  # int32: steps of the current episode
    episodes: Array  # int32: finished episodes
    returns: Precise  # sum of the returns of finished episodes
    lengths: Array  # int32: sum of the lengths of finished episodes
    reward: Precise  # sum of the rewards of all steps
    largest: Any = ()  # float32[E, measures]: of the stream's measures in the current episode; () if there are none
    measured: Any = ()  # float32[E, measures, 2]: sum over finished episodes of their largest and last values


def targets(spec: StreamSpec, visit: int, which: Which) -> list[Target]:
    """The visits to evaluate during ``visit``: for each task its latest visit so far, else its next one.

    The current visit comes first.
    """
    now = Target(visit, spec.visits[visit].task)
    last = {plan.task: i for i, plan in enumerate(spec.visits[: visit + 1])}
    coming = {plan.task: i for i, plan in reversed(list(enumerate(spec.visits)))}
    known = {"current": {}, "seen": last, "all": coming | last}[which]
    return [now, *(Target(i, task) for task, i in sorted(known.items()) if task != now.task)]


def blank(envs: int, measured: int = 0) -> EpisodeStatistics:
    """Before the first step; ``measured``: the number of measures."""
    zero, none = counting.zeros((envs,)), jnp.zeros(envs, jnp.int32)
    largest = measures.blank(envs, measured)
    return EpisodeStatistics(
        zero, none, none, zero, none, zero, largest, jax.tree.map(lambda x: jnp.zeros((*x.shape, 2)), largest)
    )


def updated(
    statistics: EpisodeStatistics, timestep: TimeStep, score: Array, wanted: int, values: Any = ()
) -> EpisodeStatistics:
    """Update the statistics with a time step, its ``score`` and the ``values`` of its measures (() if there are none).

    An env is ignored after ``wanted`` episodes.
    """
    counts = (statistics.episodes < wanted) & (timestep.step_type != FIRST)
    running = plus(statistics.running, jnp.where(counts, score, 0.0))
    age = statistics.age + counts
    last = counts & (timestep.step_type == LAST)
    largest = jax.tree.map(lambda best, x: measures.largest(best, x, timestep.step_type), statistics.largest, values)
    return EpisodeStatistics(
        running=jax.tree.map(lambda x: jnp.where(last, 0.0, x), running),
        age=jnp.where(last, 0, age),
        episodes=statistics.episodes + last,
        returns=plus(statistics.returns, jnp.where(last, running.value, 0.0)),
        lengths=statistics.lengths + jnp.where(last, age, 0),
        reward=plus(statistics.reward, jnp.where(counts, score, 0.0)),
        largest=largest,
        measured=jax.tree.map(
            lambda total, best, x: total + measures.ended(best, x, last), statistics.measured, largest, values
        ),
    )


def summary(statistics: EpisodeStatistics, steps: Array, episodic: bool, names: Sequence[str] = ()) -> Metrics:
    """One lane's evaluation metrics; NaN if no episode was finished. ``names``: of the measures."""
    if not episodic:
        return {"reward": jnp.mean(statistics.reward.value) / steps}
    count = jnp.sum(statistics.episodes)

    def mean(total: Array) -> Array:
        return jnp.where(count > 0, jnp.sum(total.astype(jnp.float32)) / jnp.maximum(count, 1), jnp.nan)

    returns, lengths = mean(statistics.returns.value), mean(statistics.lengths)
    found: Metrics = {"episodes": count, "episodic_return": returns, "episode_length": lengths}
    if not names:
        return found
    totals = jax.vmap(mean, -1)(statistics.measured.reshape(len(statistics.episodes), -1))
    return {**found, **measures.named(names, totals)}


def evaluate(
    stream: Stream, width: int, settings: Evaluation, player: Player, data: Key, visit: Visit, block: Array
) -> Metrics:
    """Play a replica of ``visit`` with a block of ``width`` lanes; returns metrics ``[width]``.

    ``data``: the lanes' data keys ``[width]``. The player and everything inside the loop see a single lane without a
    lane axis. Steps are numbered -1, -2, ..., to be distinct from training steps. The visit is fixed at its
    ``elapsed``.
    """
    spec = stream.spec
    wanted = -(-settings.episodes // spec.envs)
    state, timestep = stream.reset(data, visit, block)
    eval_replica = jax.vmap(lambda key: jax.random.fold_in(key, visit.eval_replica))(data)

    def unfinished(carry: Any) -> Array:
        i, statistics = carry[0], carry[-1]
        return (i < settings.steps) & (jnp.any(statistics.episodes < wanted) | (not spec.episodic))

    def step(carry: Any) -> Any:
        i, state, timestep, memory, statistics = carry
        seen = timestep.observation
        action = leave(player.play(i, memory, seen), width)
        clock = Clock(-1 - i, -1 - i, visit.number, jnp.asarray(visit.elapsed, jnp.int32))
        state, following = stream.step(eval_replica, state, action, clock)
        timestep, score = enter((following, stream.score(state, following)), width)
        values = enter(stream.measures(state, following), width) if spec.measures else ()
        update = across(lambda b, t, s, m: updated(b, t, s, wanted, m), width)
        memory = player.advance(memory, seen, timestep.step_type == FIRST)
        return i + 1, state, timestep, memory, update(statistics, timestep, score, values)

    statistics = jax.tree.map(lambda x: jnp.broadcast_to(x, (width, *x.shape)), blank(spec.envs, len(spec.measures)))
    zero = jnp.zeros((), jnp.int32)
    start = (zero, state, enter(timestep, width), player.initial(), enter(statistics, width))
    steps, *_, statistics = jax.lax.while_loop(unfinished, step, start)
    return leave(across(lambda b: summary(b, steps, spec.episodic, spec.measures), width)(statistics), width)
