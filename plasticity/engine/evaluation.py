"""Evaluation: episodes in environments of their own, played by a learner that does not learn from them.

An evaluation sees a *replica* of a visit: the same problem with other chance (see ``types.Visit``), so that neither the
training stream nor its random numbers are touched. Every env plays the same number of whole episodes; to stop at the
first so many episodes of all envs would favour short ones.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core import counting
from plasticity.core.counting import Precise, plus
from plasticity.core.lane_axis import across, enter, leave
from plasticity.core.types import FIRST, LAST, Array, Clock, Key, Metrics, Stream, StreamSpec, TimeStep, Visit

Which = Literal["current", "seen", "all"]
Play = Callable[[Array, Any], Array]  # number of the step, observation -> actions; as `lanes.enter` gives arrays


class Evaluation(NamedTuple):
    """When and how a program's lanes are evaluated (static)."""

    every: int | None  # env steps of training; None: at the end of every visit
    tasks: Which = "current"  # the task being learned, all tasks met so far, or all of the stream
    episodes: int = 10  # of a lane, rounded up to a multiple of its envs
    steps: int = 10_000  # env steps at most; of a stream without episodes exactly so many
    epsilon: float = 0.0  # probability of a random action


class Target(NamedTuple):
    """A visit to be evaluated (Python ints)."""

    visit: int
    task: int


class Books(NamedTuple):
    """What one lane counts, ``[E]`` each."""

    running: Precise  # return of the episode under way
    age: Array  # int32: its steps so far
    episodes: Array  # int32, finished
    returns: Precise  # of the finished ones, summed
    lengths: Array  # int32
    reward: Precise  # of all steps, summed


def targets(spec: StreamSpec, visit: int, which: Which) -> list[Target]:
    """The visits that stand for the tasks to evaluate during ``visit``: of each task the last so far, else the next.

    The visit under way comes first.
    """
    now = Target(visit, spec.visits[visit].task)
    last = {plan.task: i for i, plan in enumerate(spec.visits[: visit + 1])}
    coming = {plan.task: i for i, plan in reversed(list(enumerate(spec.visits)))}
    known = {"current": {}, "seen": last, "all": coming | last}[which]
    return [now, *(Target(i, task) for task, i in sorted(known.items()) if task != now.task)]


def blank(envs: int) -> Books:
    zero, none = counting.zeros((envs,)), jnp.zeros(envs, jnp.int32)
    return Books(zero, none, none, zero, none, zero)


def entered(books: Books, timestep: TimeStep, score: Array, wanted: int) -> Books:
    """The books after one more time step and its ``score``; an env that has played its ``wanted`` episodes counts no
    more."""
    counts = (books.episodes < wanted) & (timestep.step_type != FIRST)
    running = plus(books.running, jnp.where(counts, score, 0.0))
    age = books.age + counts
    last = counts & (timestep.step_type == LAST)
    return Books(
        running=jax.tree.map(lambda x: jnp.where(last, 0.0, x), running),
        age=jnp.where(last, 0, age),
        episodes=books.episodes + last,
        returns=plus(books.returns, jnp.where(last, running.value, 0.0)),
        lengths=books.lengths + jnp.where(last, age, 0),
        reward=plus(books.reward, jnp.where(counts, score, 0.0)),
    )


def summary(books: Books, steps: Array, episodic: bool) -> Metrics:
    """One lane's numbers; NaN where no episode was finished."""
    if not episodic:
        return {"reward": jnp.mean(books.reward.value) / steps}
    count = jnp.sum(books.episodes)

    def mean(total: Array) -> Array:
        return jnp.where(count > 0, jnp.sum(total.astype(jnp.float32)) / jnp.maximum(count, 1), jnp.nan)

    return {"episodes": count, "episodic_return": mean(books.returns.value), "episode_length": mean(books.lengths)}


def evaluate(
    stream: Stream, width: int, settings: Evaluation, play: Play, data: Key, visit: Visit, block: Array
) -> Metrics:
    """Plays a replica of ``visit`` with a block of ``width`` lanes; numbers ``[width]``.

    ``data``: the lanes' data keys ``[width]``; ``play`` and everything inside the loop see a single lane without axis.
    The steps are numbered -1, -2, ..., apart from those of training. The visit stands still at its ``moment``.
    """
    spec = stream.spec
    wanted = -(-settings.episodes // spec.envs)
    state, timestep = stream.reset(data, visit, block)
    replica = jax.vmap(lambda key: jax.random.fold_in(key, visit.replica))(data)

    def unfinished(carry: Any) -> Array:
        i, _, _, books = carry
        return (i < settings.steps) & (jnp.any(books.episodes < wanted) | (not spec.episodic))

    def step(carry: Any) -> Any:
        i, state, timestep, books = carry
        action = leave(play(i, timestep.observation), width)
        clock = Clock(-1 - i, -1 - i, visit.number, jnp.asarray(visit.moment, jnp.int32))
        state, following = stream.step(replica, state, action, clock)
        timestep, score = enter((following, stream.score(state, following)), width)
        return i + 1, state, timestep, across(lambda b, t, s: entered(b, t, s, wanted), width)(books, timestep, score)

    books = jax.tree.map(lambda x: jnp.broadcast_to(x, (width, *x.shape)), blank(spec.envs))
    start = (jnp.zeros((), jnp.int32), state, enter(timestep, width), enter(books, width))
    steps, _, _, books = jax.lax.while_loop(unfinished, step, start)
    return leave(across(lambda b: summary(b, steps, spec.episodic), width)(books), width)
