"""Value prediction in Markov reward processes whose true values are known."""

import math
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.errors import check
from plasticity.core.types import Array, Key, State, StreamSpec, Task, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import schedule, stream
from plasticity.envs.supervised import StaticNonNegative

Change = Literal["rewards", "transitions", "both", "none"]
States = Annotated[int, Field(ge=3, le=1024)]
Horizon = Annotated[float, Field(ge=0, lt=1)]
FEATURES, TRANSITIONS, REWARDS = range(3)  # tags for keys derived from the parameters' key


class Process(NamedTuple):
    """A Markov reward process with ``n`` states."""

    transitions: Array  # [n, n], rows sum to 1
    rewards: Array  # [n, n], of each transition, without noise


class Problem(NamedTuple):
    """What a lane predicts during one visit."""

    process: Process
    values: Array  # [n]
    stationary: Array  # [n]
    features: Array  # [n, size]


class Walker(NamedTuple):
    """The state of one env."""

    place: Array  # int32
    score: Array  # of the newest prediction


def stationary_distribution(transitions: Array) -> Array:
    """The ``mu`` with ``mu P = mu`` of an irreducible chain: the solution of ``(I - P^T + 1 1^T) mu = 1``."""
    n = len(transitions)
    return jnp.linalg.solve(jnp.eye(n) - transitions.T + jnp.ones((n, n)), jnp.ones(n))


def true_values(process: Process, discount: float) -> Array:
    """``v = (I - discount P)^-1 r`` with ``r_i = sum_j P_ij R_ij``."""
    expected = jnp.sum(process.transitions * process.rewards, axis=1)
    return jnp.linalg.solve(jnp.eye(len(expected)) - discount * process.transitions, expected)


def standardised(process: Process, discount: float) -> tuple[Process, Array, Array]:
    """The process with other rewards, its values and its stationary distribution, in which the values have mean 0 and
    variance 1.
    """
    mu, values = stationary_distribution(process.transitions), true_values(process, discount)
    mean = mu @ values
    deviation = jnp.sqrt(mu @ jnp.square(values - mean))
    rewards = (process.rewards - (1 - discount) * mean) / deviation
    return process._replace(rewards=rewards), (values - mean) / deviation, mu


def random_transitions(key: Key, states: int, branching: int) -> Array:
    """Each state has ``branching`` successors with uniformly distributed weights.

    One of them closes a cycle through all states, so that the chain is irreducible.
    """
    cycle, others, weights = jax.random.split(key, 3)
    order = jax.random.permutation(cycle, states)
    closing = jnp.zeros(states, jnp.int32).at[order].set(jnp.roll(order, -1))
    free = jax.random.randint(others, (states, branching - 1), 0, states)
    successors = jnp.concatenate([closing[:, None], free], axis=1)
    shares = jax.random.dirichlet(weights, jnp.ones(branching), (states,))
    return jnp.zeros((states, states)).at[jnp.arange(states)[:, None], successors].add(shares)


def walk_transitions(states: int, right: Array) -> Array:
    """One state to the right with probability ``right``, else to the left; beyond either end, back to the middle."""
    places, middle = jnp.arange(states), states // 2
    up = jnp.where(places == states - 1, middle, places + 1)
    down = jnp.where(places == 0, middle, places - 1)
    return jnp.zeros((states, states)).at[places, up].add(right).at[places, down].add(1 - right)


def walk_rewards(states: int, exits: Array) -> Array:
    """``exits[0]`` for leaving to the left, ``exits[1]`` to the right, otherwise 0."""
    middle = states // 2
    return jnp.zeros((states, states)).at[0, middle].set(exits[0]).at[states - 1, middle].set(exits[1])


def random_process(states: int, branching: int) -> Callable[[Key, Key, Array], Process]:
    def process(transitions: Key, rewards: Key, task: Array) -> Process:
        del task
        entered = jax.random.normal(rewards, (states,))
        return Process(random_transitions(transitions, states, branching), jnp.broadcast_to(entered, (states, states)))

    return process


def walk(states: int, change: Change) -> Callable[[Key, Key, Array], Process]:
    """Task 0 is the symmetric walk with rewards -1 and 1, and so is every part that does not change."""

    def process(transitions: Key, rewards: Key, task: Array) -> Process:
        drifts, pays = ((task > 0) & (change in (each, "both")) for each in ("transitions", "rewards"))
        right = jnp.where(drifts, jax.random.uniform(transitions, minval=0.2, maxval=0.8), 0.5)
        exits = jnp.where(pays, jax.random.normal(rewards, (2,)), jnp.array([-1.0, 1.0]))
        return Process(walk_transitions(states, right), walk_rewards(states, exits))

    return process


def drawn_features(features: str, states: int, dimensions: int) -> Callable[[Key], Array]:
    """Key -> the observation of every state, float32[states, size]."""
    return {
        "one_hot": lambda key: jnp.eye(states),
        "gaussian": lambda key: jax.random.normal(key, (states, dimensions)),
        "binary": lambda key: jax.random.bernoulli(key, 0.5, (states, dimensions)).astype(jnp.float32),
    }[features]


def prediction_task(spec: StreamSpec, problem: Callable[[Key, Visit], Problem], noise: float) -> Task:
    def reset(key: Key, world: Problem) -> tuple[Walker, Array]:
        place = jax.random.categorical(key, jnp.log(world.stationary)).astype(jnp.int32)
        return Walker(place, jnp.zeros(())), world.features[place]

    def step(key: Key, state: Walker, action: Array, world: Problem) -> tuple[State, Array, Array, Array, Array]:
        where, error = jax.random.split(key)
        score = -jnp.square(action[0] - world.values[state.place])
        chances = world.process.transitions[state.place]
        place = jax.random.categorical(where, jnp.log(chances)).astype(jnp.int32)
        reward = world.process.rewards[state.place, place] + noise * jax.random.normal(error)
        return Walker(place, score), world.features[place], reward, jnp.ones(()), jnp.zeros((), bool)

    return Task(spec, problem, reset, step)


def scored(source: StreamFactory) -> StreamFactory:
    """The stream, whose performance is that of the predictions."""
    return source._replace(make=lambda lanes: source.make(lanes)._replace(score=lambda state, step: state.envs.score))


@metadata(
    paper="Sutton, Barto 2018, Reinforcement Learning: An Introduction (the random walk)",
    example={"change": "rewards", "tasks": 5, "steps_per_task": 5000},
    only_with={"branching": {"process": ("random",)}, "dimensions": {"features": ("gaussian", "binary")}},
)
def value_prediction(
    *,
    process: Literal["random", "walk"] = "random",
    states: States = 50,
    branching: Size = 5,
    features: Literal["one_hot", "gaussian", "binary"] = "gaussian",
    dimensions: Size = 20,
    discount: Horizon = 0.9,
    noise: StaticNonNegative = 0.0,
    change: Change = "rewards",
    tasks: Tasks = 10,
    steps_per_task: Count = 20_000,
    envs: Size = 1,
) -> StreamFactory:
    """Predict the values of a Markov reward process: performance is minus the squared error of the true value.

    At every step the agent sees the features of a state i, and its action, one real number, is its prediction of
    ``v_i = E[sum_k discount^k r_{t+k+1}]``. The process moves on by its transition matrix P, whatever is predicted. The
    learner receives the rewards; the recorded performance is ``-(prediction - v_i)^2`` with ``v = (I - discount P)^-1
    r``, so that the root of minus its mean is the root mean squared value error over the states met. In each task
    rewards are shifted and scaled so that the values have mean 0 and variance 1 in the stationary distribution: 0 is
    perfect, and -1 is what a constant 0 gets.

    There are no episodes. The discount is part of the stream (``StreamSpec.prediction``), as it defines the values;
    ``stream_td`` learns with it, and agents that act are refused, as are transforms of rewards and actions.

    Args:
      process: "random": each state has ``branching`` successors with weights drawn uniformly; the reward depends on
        the state that is entered and is standard normal. "walk": one state to the left or right with equal
        probability; leaving at an end gives -1 (left) or 1 (right) and leads back to the middle.
      states: their number.
      branching: successors of a state (some may coincide).
      features: of a state, the same in all tasks: "one_hot", "gaussian" (standard normal) or "binary" (0 and 1 with
        equal probability).
      dimensions: number of features that are drawn.
      discount: of the values.
      noise: standard deviation of normal noise added to rewards, in units of the values' standard deviation.
      change: what is drawn anew for each task: "rewards" (the walk: of the two ends, standard normal from task 1 on),
        "transitions" (the walk: the probability of a step to the right, between 0.2 and 0.8), "both" or "none".
      tasks: number of visits.
      steps_per_task: steps of each visit.
      envs: copies of the process with independent states.

    Returns:
      The stream. Observations are float32[size]. All settings are static.

    Raises:
      ValueError: an unknown word.
    """
    check("process", process, ("random", "walk"))
    check("features", features, ("one_hot", "gaussian", "binary"))
    check("change", change, ("rewards", "transitions", "both", "none"))
    size = states if features == "one_hot" else dimensions
    names = ("process",) if change == "none" else tuple(f"{change}_{i}" for i in range(tasks))
    spec = StreamSpec(
        observation=jax.ShapeDtypeStruct((size,), jnp.float32),
        actions=1,
        tasks=names,
        visits=schedule(len(names), tasks, steps_per_task),
        envs=envs,
        episodic=False,
        discrete=False,
        reward_name="negative_squared_error",
        score_range=(-math.inf, 0.0),
        prediction=discount,
    )
    made = random_process(states, branching) if process == "random" else walk(states, change)
    seen = drawn_features(features, states, dimensions)

    def problem(key: Key, visit: Visit) -> Problem:
        def own(tag: int, changes: bool) -> Key:
            return jax.random.fold_in(jax.random.fold_in(key, tag), visit.task if changes else 0)

        keys = own(TRANSITIONS, change in ("transitions", "both")), own(REWARDS, change in ("rewards", "both"))
        drawn, values, mu = standardised(made(*keys, visit.task), discount)
        return Problem(drawn, values, mu, seen(own(FEATURES, changes=False)))

    return scored(stream(prediction_task(spec, problem, noise), envs))
