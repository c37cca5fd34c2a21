"""What an agent perceives: observations and rewards scaled by statistics of all it has met.

The statistics are part of the agent's memory (``rest["normaliser"]``, ``rest["reward_scale"]``). They count every
observation once: the state after ``learn`` includes ``current``, and the first observation of a visit, which is
never ``current``, is added where ``clock.step_in_visit`` is 0.
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
from plasticity.core.types import LAST, Array, Clock, StreamSpec, Transition, is_transition

Normalise = Literal["running", "exponential", "switch", "none"]
NORMALISE = ("running", "exponential", "switch", "none")
Share = Annotated[float, Field(gt=0, lt=1), TRACED]
EPSILON = 1e-8


class Statistics(NamedTuple):
    """Mean and variance of what was met so far, element by element: exact counts, compensated means."""

    samples: Count  # observations so far
    batches: Count  # of them
    moments: Moments  # the variance is that of the population: divided by the count

    @property
    def seen(self) -> Array:
        """The observations so far, float32[]."""
        return counting.as_float(self.samples)

    @property
    def mean(self) -> Array:
        return self.moments.mean.value

    @property
    def variance(self) -> Array:
        return self.moments.variance.value


class RewardScale(NamedTuple):
    """Statistics of the discounted sum of rewards of each env."""

    total: Array  # float32[E], of the episodes under way
    statistics: Statistics


class Perception(NamedTuple):
    """How an agent sees its stream; ``rest`` is the part of its memory that :attr:`init` gives."""

    observation: Any  # jax.ShapeDtypeStruct of what the network gets
    init: Callable[[], Mapping[str, Any]]
    act: Callable[[Mapping[str, Any], Any, Clock], Array]  # rest, observation [E, ...], clock -> as the network gets it
    learn: Callable[[Mapping[str, Any], Transition, Clock], tuple[Mapping[str, Any], Array, Array, Array]]
    # rest, transition, clock -> rest, both observations as the network gets them, rewards [E]
    look: Callable[[Mapping[str, Any], Transition], tuple[Array, Array, Array]]  # the same, with nothing remembered
    play: Callable[[Mapping[str, Any], Any], Array]  # rest, observation [B, ...] -> as the network gets it
    switch: Callable[[Mapping[str, Any]], Mapping[str, Any]]  # at a task switch
    told: str = ""  # the setting that makes it act there


def blank(shape: tuple[int, ...]) -> Statistics:
    """The statistics of nothing."""
    return Statistics(counting.count(), counting.count(), counting.moments(shape))


def include(
    statistics: Statistics, values: Array, valid: Array | bool = True, rate: Number | None = None
) -> Statistics:
    """The statistics with a batch ``values[E, ...]`` more, of which ``valid`` (bool[] or bool[E]) says what counts.

    With ``s`` the weight of the batch, ``m`` and ``w`` its mean and variance, ``d = m - mean``:
    ``mean <- mean + s d``, ``variance <- (1 - s) (variance + s d^2) + s w``. Where ``rate`` is None (static),
    ``s = E / n`` with n all that were met, so that all observations weigh the same (Welford 1962, "Note on a method for
    calculating corrected sums of squares and products"; Chan, Golub, LeVeque 1983, "Algorithms for computing the sample
    variance"). Else ``s = rate / (1 - (1 - rate)^updates)``: an exponential average, corrected for its start. Where
    nothing counts the statistics stay bit for bit. Right to 1e-5 of themselves after 1e9 observations and more
    (``plasticity.core.counting``).
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
        # Rounded to more than 1 at first, it would make a variance below 0 of a constant.
        share = jnp.where(new > 0, jnp.where(updates <= 1, 1.0, jnp.minimum(share, 1.0)), 0.0)
    step, variance = counting.batch_moments(values, counts, statistics.moments.mean)
    return Statistics(samples, batches, counting.merged(statistics.moments, share, step, variance))


def deviation(statistics: Statistics, rate: Number | None = None) -> Array:
    """``sqrt(var + 1e-8)``; var is the unbiased variance (of an exponential average: as it is), 1 below two values."""
    seen = statistics.seen
    unbiased = seen / jnp.maximum(seen - 1, 1.0) if rate is None else 1.0
    variance = jnp.maximum(statistics.variance, 0.0)  # that of a constant may be rounded to less than 0
    return jnp.sqrt(jnp.where(seen < 2, 1.0, unbiased * variance) + EPSILON)


def discounted(
    scale: RewardScale, transition: Transition, gamma: Number, rate: Number | None = None, opens: Array | bool = False
) -> RewardScale:
    """``u <- gamma (1 - done) u + r`` and its statistics; pairs that are no transition change nothing.

    ``done`` holds at a termination, a lost life included, and at a truncation: as in the paper's code, the last reward
    of an episode is then in the first sum of the next one. Where a visit begins (``opens``, bool[]) the sum is 0 first:
    a task switch cuts the episode without an end.
    """
    valid, current = is_transition(transition), transition.current
    done = (current.step_type == LAST) | (current.discount == 0) | opens
    total = gamma * jnp.where(done, 0.0, scale.total) + current.reward
    total = jnp.where(valid, total, scale.total)
    return RewardScale(total, include(scale.statistics, total, valid, rate))


def perception(
    spec: StreamSpec, *, normalise: Normalise, rate: Number, scale_rewards: bool, discount: Number
) -> Perception:
    """Observations as ``(o - mean) / sqrt(var + 1e-8)``, rewards as ``r / sqrt(var(u) + 1e-8)`` (see `discounted`).

    Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works", whose statistics are those of
    the whole life (``normalise`` "running"): at step n they take up what is new at a rate 1/n, so that after a change
    of task an input that was constant is off by sqrt(n) at first. "exponential" weighs with ``rate`` (traced); "switch"
    is "running", begun anew at every task switch; "none" leaves observations alone. ``normalise`` and ``scale_rewards``
    are static. Reward statistics, taken with ``discount`` (traced), forget in the same way ("none": they run).

    Each observation is normalised by statistics that include it. A stack of frames is normalised by the statistics of
    single frames, of which each step brings one, the newest; the paper stacks frames normalised each in its own time.
    ``ValueError`` for an unknown ``normalise`` or an observation that is not one array.
    """
    if normalise not in NORMALISE:
        raise ValueError(f"agent.normalise: {normalise} is not allowed; must be one of {', '.join(NORMALISE)}")
    if not hasattr(spec.observation, "shape"):
        raise ValueError("agent.normalise needs a stream with plain observations")
    shape = spec.observation.shape[1:] if spec.stack else spec.observation.shape
    forget = rate if normalise == "exponential" else None
    seeing = normalise != "none"

    def init() -> Mapping[str, Any]:
        rest: dict[str, Any] = {"normaliser": blank(shape)} if seeing else {}
        if scale_rewards:
            rest["reward_scale"] = RewardScale(jnp.zeros(spec.envs, jnp.float32), blank(()))
        return rest

    def met(rest: Mapping[str, Any], observation: Any, valid: Array | bool = True) -> Mapping[str, Any]:
        if not seeing:
            return rest
        newest = observation[:, -1] if spec.stack else observation
        return {**rest, "normaliser": include(rest["normaliser"], newest, valid, forget)}

    def play(rest: Mapping[str, Any], observation: Any) -> Array:
        if not seeing:
            return jnp.asarray(observation)
        statistics = rest["normaliser"]
        centred = counting.minus(jnp.asarray(observation, jnp.float32), statistics.moments.mean)
        return centred / deviation(statistics, forget)

    def rewards(rest: Mapping[str, Any], reward: Array) -> Array:
        return reward / deviation(rest["reward_scale"].statistics, forget) if scale_rewards else reward

    def act(rest: Mapping[str, Any], observation: Any, clock: Clock) -> Array:
        return play(met(rest, observation, clock.step_in_visit == 0), observation)

    def learn(
        rest: Mapping[str, Any], transition: Transition, clock: Clock
    ) -> tuple[Mapping[str, Any], Array, Array, Array]:
        opens = clock.step_in_visit == 0
        before = met(rest, transition.previous.observation, opens)
        after = met(before, transition.current.observation)
        if scale_rewards:
            after = {**after, "reward_scale": discounted(after["reward_scale"], transition, discount, forget, opens)}
        previous, current = play(before, transition.previous.observation), play(after, transition.current.observation)
        return after, previous, current, rewards(after, transition.current.reward)

    def look(rest: Mapping[str, Any], transition: Transition) -> tuple[Array, Array, Array]:
        previous, _, current = transition
        return play(rest, previous.observation), play(rest, current.observation), rewards(rest, current.reward)

    def switch(rest: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**rest, **init()} if normalise == "switch" else rest

    given = jax.ShapeDtypeStruct(spec.observation.shape, jnp.float32) if seeing else spec.observation
    return Perception(given, init, act, learn, look, play, switch, "normalise" if normalise == "switch" else "")
