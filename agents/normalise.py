"""Normalisation of observations and rewards by running statistics.

The statistics are part of the agent's memory (``rest["normaliser"]``, ``rest["reward_scale"]``). They include every
observation exactly once. ``learn`` adds ``current``. The first observation of a visit is never ``current``; it is added
when ``clock.step_in_visit`` is 0.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import TRACED
from plasticity.core import counting
from plasticity.core.counting import Count, Moments
from plasticity.core.schedules import Number
from plasticity.core.task_entries import separated, with_entries
from plasticity.core.types import LAST, Array, Clock, StreamSpec, Transition, is_transition

Normalise = Literal["running", "exponential", "switch", "none"]
NEEDS = {"normalise_rate": {"normalise": ("exponential",)}}  # as ``Metadata.only_with``
NORMALISE = ("running", "exponential", "switch", "none")
Share = Annotated[float, Field(gt=0, lt=1), TRACED]
EPSILON = 1e-8


class Statistics(NamedTuple):
    """Elementwise mean and variance of all data so far, with exact counts and compensated means."""

    samples: Count  # observations so far
    batches: Count  # batches so far
    moments: Moments  # the variance is the population variance (divided by the count)

    @property
    def seen(self) -> Array:
        """Number of observations so far, float32[]."""
        return counting.as_float(self.samples)

    @property
    def mean(self) -> Array:
        return self.moments.mean.value

    @property
    def variance(self) -> Array:
        return self.moments.variance.value


class RewardScale(NamedTuple):
    """Statistics of each env's discounted sum of rewards."""

    total: Array  # float32[E], of the current episodes
    statistics: Statistics


def unit(rest: Mapping[str, Any]) -> Array:
    del rest
    return jnp.ones(())


class Preprocessor(NamedTuple):
    """What the agent sees of its stream; ``rest`` is the part of its memory that :attr:`init` returns."""

    observation: Any  # jax.ShapeDtypeStruct of the network's input
    init: Callable[[], Mapping[str, Any]]
    act: Callable[[Mapping[str, Any], Any, Clock], Array]  # rest, observation [E, ...], clock -> network input
    learn: Callable[[Mapping[str, Any], Transition, Clock], tuple[Mapping[str, Any], Array, Array, Array]]
    # rest, transition, clock -> rest, both observations as network inputs, scaled rewards [E]
    look: Callable[[Mapping[str, Any], Transition], tuple[Array, Array, Array]]  # as `learn`, with fixed statistics
    play: Callable[[Mapping[str, Any], Any], Array]  # rest, observation [B, ...] -> network input
    switch: Callable[[Mapping[str, Any]], Mapping[str, Any]]  # at a task switch
    size: Callable[[Array], Array]  # network input -> float32[], its root mean square without the task
    switch_setting: str = ""  # the setting that makes it act at task switches; "" if it does not
    scale: Callable[[Mapping[str, Any]], Array] = unit  # rest -> float32[], by which rewards are divided


def blank(shape: tuple[int, ...]) -> Statistics:
    """Empty statistics."""
    return Statistics(counting.count(), counting.count(), counting.moments(shape))


def include(
    statistics: Statistics, values: Array, valid: Array | bool = True, rate: Number | None = None
) -> Statistics:
    """Update the statistics with the valid rows of a batch ``values[E, ...]``; ``valid`` is bool[] or bool[E].

    With ``s`` the weight of the batch, ``m`` and ``w`` its mean and variance, ``d = m - mean``:
    ``mean <- mean + s d``, ``variance <- (1 - s) (variance + s d^2) + s w``. If ``rate`` is None (static),
    ``s = E / n`` with n the number of observations so far, so all observations have equal weight. Otherwise
    ``s = rate / (1 - (1 - rate)^updates)``, a bias-corrected exponential average. If no row is valid, the statistics
    are bitwise unchanged. The relative error is at most 1e-5 after 1e9 observations and more
    (``plasticity.core.counting``).

    References: Welford 1962, "Note on a method for calculating corrected sums of squares and products"; Chan, Golub,
    LeVeque 1983, "Algorithms for computing the sample variance".
    """
    values = jnp.asarray(values, jnp.float32)
    counts = jnp.broadcast_to(jnp.asarray(valid, bool), values.shape[:1])
    new = jnp.sum(counts, dtype=jnp.uint32)
    samples = counting.counted(statistics.samples, new)
    batches = counting.counted(statistics.batches, new > 0)
    if rate is None:
        share = new.astype(jnp.float32) / jnp.maximum(counting.as_float(samples), 1.0)
    else:
        updates = jnp.maximum(counting.as_float(batches), 1.0)
        share = rate / -jnp.expm1(updates * jnp.log1p(-jnp.asarray(rate, jnp.float32)))
        # Rounding to more than 1 in the first updates would give a constant input a negative variance.
        share = jnp.where(new > 0, jnp.where(updates <= 1, 1.0, jnp.minimum(share, 1.0)), 0.0)
    step, variance = counting.batch_moments(values, counts, statistics.moments.mean)
    return Statistics(samples, batches, counting.merged(statistics.moments, share, step, variance))


def deviation(statistics: Statistics, rate: Number | None = None) -> Array:
    """``sqrt(var + 1e-8)``, var the unbiased variance (with ``rate``, uncorrected), or 1 for fewer than two values."""
    seen = statistics.seen
    unbiased = seen / jnp.maximum(seen - 1, 1.0) if rate is None else 1.0
    variance = jnp.maximum(statistics.variance, 0.0)  # rounding can make the variance of a constant negative
    return jnp.sqrt(jnp.where(seen < 2, 1.0, unbiased * variance) + EPSILON)


def discounted(
    scale: RewardScale, transition: Transition, gamma: Number, rate: Number | None = None, opens: Array | bool = False
) -> RewardScale:
    """Update ``u <- gamma (1 - done) u + r`` and its statistics; pairs that are not transitions change nothing.

    ``done`` holds at terminations, including lost lives, and at truncations. As in the paper's code, the last reward of
    an episode therefore enters the first sum of the next one. At the start of a visit (``opens``, bool[]) the sum is
    reset to 0 first, because a task switch cuts off the episode without ending it.
    """
    valid, current = is_transition(transition), transition.current
    done = (current.step_type == LAST) | (current.discount == 0) | opens
    total = gamma * jnp.where(done, 0.0, scale.total) + current.reward
    total = jnp.where(valid, total, scale.total)
    return RewardScale(total, include(scale.statistics, total, valid, rate))


def preprocessing(
    spec: StreamSpec, *, normalise: Normalise, rate: Number, scale_rewards: bool, discount: Number
) -> Preprocessor:
    """Observations as ``(o - mean) / sqrt(var + 1e-8)``, rewards as ``r / sqrt(var(u) + 1e-8)`` (see `discounted`).

    ``normalise`` (static):

    * "running": statistics over the agent's whole life, as in the paper. At step n they adapt at rate 1/n, so an input
      that was constant before a task switch is initially off by sqrt(n) after it.
    * "exponential": exponential averages with ``rate`` (traced).
    * "switch": like "running", but reset at every task switch.
    * "none": observations are unchanged.

    ``scale_rewards`` is static. Reward statistics use ``discount`` (traced) and the same forgetting ("none": running).

    Each observation is normalised by statistics that include it. Stacked frames are normalised by the statistics of
    single frames; each step contributes one, the newest. The paper instead stacks frames that were normalised when they
    were observed. The task, if observations end in it, is left as it is. ``ValueError`` for an unknown ``normalise`` or
    an observation that is not one array.

    Reference: Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works".
    """
    if normalise not in NORMALISE:
        raise ValueError(f"agent.normalise: {normalise} is not allowed; must be one of {', '.join(NORMALISE)}")
    if not hasattr(spec.observation, "shape"):
        raise ValueError("agent.normalise: not allowed on this stream; it needs observations that are one array")
    shape = spec.observation.shape[1:] if spec.stack else spec.observation.shape
    shape = (*shape[:-1], shape[-1] - spec.task_entries) if spec.task_entries else shape
    forget = rate if normalise == "exponential" else None
    normalises = normalise != "none"

    def init() -> Mapping[str, Any]:
        rest: dict[str, Any] = {"normaliser": blank(shape)} if normalises else {}
        if scale_rewards:
            rest["reward_scale"] = RewardScale(jnp.zeros(spec.envs, jnp.float32), blank(()))
        return rest

    def observe(rest: Mapping[str, Any], observation: Any, valid: Array | bool = True) -> Mapping[str, Any]:
        if not normalises:
            return rest
        newest = observation[:, -1] if spec.stack else observation
        newest, _ = separated(newest, spec.task_entries)
        return {**rest, "normaliser": include(rest["normaliser"], newest, valid, forget)}

    def play(rest: Mapping[str, Any], observation: Any) -> Array:
        if not normalises:
            return jnp.asarray(observation)
        statistics = rest["normaliser"]
        seen, task = separated(jnp.asarray(observation), spec.task_entries)
        centred = counting.minus(jnp.asarray(seen, jnp.float32), statistics.moments.mean)
        return with_entries(centred / deviation(statistics, forget), task)

    def scale(rest: Mapping[str, Any]) -> Array:
        return deviation(rest["reward_scale"].statistics, forget)

    def rewards(rest: Mapping[str, Any], reward: Array) -> Array:
        return reward / scale(rest) if scale_rewards else reward

    def act(rest: Mapping[str, Any], observation: Any, clock: Clock) -> Array:
        return play(observe(rest, observation, clock.step_in_visit == 0), observation)

    def learn(
        rest: Mapping[str, Any], transition: Transition, clock: Clock
    ) -> tuple[Mapping[str, Any], Array, Array, Array]:
        opens = clock.step_in_visit == 0
        before = observe(rest, transition.previous.observation, opens)
        after = observe(before, transition.current.observation)
        if scale_rewards:
            after = {**after, "reward_scale": discounted(after["reward_scale"], transition, discount, forget, opens)}
        previous, current = play(before, transition.previous.observation), play(after, transition.current.observation)
        return after, previous, current, rewards(after, transition.current.reward)

    def look(rest: Mapping[str, Any], transition: Transition) -> tuple[Array, Array, Array]:
        previous, _, current = transition
        return play(rest, previous.observation), play(rest, current.observation), rewards(rest, current.reward)

    def switch(rest: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**rest, **init()} if normalise == "switch" else rest

    def size(observation: Array) -> Array:
        seen = jnp.asarray(separated(observation, spec.task_entries)[0], jnp.float32)
        return jnp.sqrt(jnp.mean(jnp.square(seen)))

    given = jax.ShapeDtypeStruct(spec.observation.shape, jnp.float32) if normalises else spec.observation
    acts = "normalise" if normalise == "switch" else ""
    return Preprocessor(given, init, act, learn, look, play, switch, size, acts, scale if scale_rewards else unit)
