"""PQN against independent programs: lambda-returns, updates, acting, and pairs that are not transitions."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import clock_at
from q_reference import FIRST, LAST, as_float64, backward, forward, script
from rollout_cases import KEY, as_pairs, live, remember

from plasticity.agents import pqn
from plasticity.agents.rollout import Rollout, lambda_returns
from plasticity.core.types import Agent, StreamSpec, VisitPlan
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.presets import mlp
from plasticity.optim.optimizers import sgd
from plasticity.optim.schedules import constant, linear

SPEC = StreamSpec(jax.ShapeDtypeStruct((3,), jnp.float32), 4, ("a",), (VisitPlan(0, 30),), 2, True)
LENGTH, EPOCHS, PARTS = 10, 2, 2
UPDATES = EPOCHS * PARTS
GAMMA, TRACE, RATE = 0.9, 0.7, 0.05
LIFE = script()


def small(*interventions: Intervention, spec: StreamSpec = SPEC, **settings: Any) -> Agent:
    """One hidden layer, gradient descent, 3 rollouts of 20 steps."""
    usual = {
        "network": functools.partial(mlp, widths=(5,)),
        "optimizer": functools.partial(sgd, learning_rate=RATE),
        "epsilon": functools.partial(constant, value=0.3),
        "rollout_length": LENGTH,
        "epochs": EPOCHS,
        "minibatches": PARTS,
        "discount": GAMMA,
        "q_lambda": TRACE,
    }
    return pqn(spec, compose(*interventions), **(usual | settings))


def whole(*interventions: Intervention, **settings: Any) -> Any:
    """The parameters of a fresh agent, and its state and metrics after the whole script."""
    agent = small(*interventions, **settings)
    start = agent.init(KEY, None)
    return jax.device_get((start.learner.params, *jax.jit(lambda: live(agent, start, as_pairs(LIFE)))()[:2]))


def forward_view(
    reward: np.ndarray, discount: np.ndarray, kind: np.ndarray, following: np.ndarray, gamma: float, trace: float
) -> np.ndarray:
    """``(1 - l) sum_n l^(n-1) G^(n)``, the last n-step return with the rest of the weight; ``[T, E]`` each."""
    steps, envs = reward.shape
    found = np.zeros((steps, envs))
    for t, env in np.ndindex(steps, envs):
        if kind[t, env] == FIRST:
            continue
        total, weight, returns, k = 0.0, 1.0, [], t
        while True:
            total += weight * reward[k, env]
            weight *= gamma * discount[k, env]
            returns.append(total + weight * following[k, env])
            k += 1
            if k == steps or kind[k - 1, env] == LAST:
                break
        shares = (1 - trace) * trace ** np.arange(len(returns))
        shares[-1] = trace ** (len(returns) - 1)
        found[t, env] = shares @ returns
    return found


def as_rollout(reward: Any, discount: Any, kind: Any) -> Rollout:
    floats = (jnp.asarray(x, jnp.float32) for x in (reward, discount))
    return Rollout(jnp.zeros(()), jnp.zeros(()), *floats, jnp.asarray(kind, jnp.int8))


def returns_of_one_env(
    reward: Any, discount: Any, kind: Any, value: np.ndarray, after: float, truncation: Any = "bootstrap"
) -> Any:
    """With discount and trace 0.5."""
    steps = as_rollout(*(np.reshape(x, (-1, 1)) for x in (reward, discount, kind)))
    values = jnp.asarray(value, jnp.float32)[:, None], jnp.asarray([after], jnp.float32)
    found = lambda_returns(steps, *values, gamma=0.5, trace=0.5, truncation=truncation)
    return jax.tree.map(lambda x: x[:, 0], found)


@pytest.mark.parametrize(
    ("truncation", "cut"),
    [("bootstrap", [1 + 0.5 * (0.5 * 4 + 0.5 * 7), 2 + 0.5 * 10]), ("terminal", [1 + 0.5 * (0.5 * 4 + 0.5 * 2), 2])],
)
def test_returns_by_hand(truncation, cut):
    """A truncated episode, the pair that joins it to the next one, a terminated episode, and the rollout's end."""
    kind = [1, 2, 0, 1, 2, 0, 1, 1]
    discount = [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    value = np.array([99.0, 4.0, 10.0, 99.0, 6.0, 99.0, 99.0, 8.0])  # of the state before each step
    found = returns_of_one_env([1.0, 2.0, 99.0, 3.0, 4.0, 99.0, 5.0, 6.0], discount, kind, value, 20.0, truncation)
    ended = [3 + 0.5 * (0.5 * 6 + 0.5 * 4), 4]
    stopped = [5 + 0.5 * (0.5 * 8 + 0.5 * 16), 6 + 0.5 * 20]
    np.testing.assert_allclose(found.target, [*cut, 0, *ended, 0, *stopped], rtol=1e-6)
    np.testing.assert_array_equal(found.valid, np.array(kind) != FIRST)
    np.testing.assert_allclose(found.advantage, np.where(found.valid, found.target - value, 0.0), rtol=1e-6)


@pytest.mark.parametrize("trace", [0.0, 0.65, 1.0])
def test_returns_are_mixtures_of_n_step_returns(trace):
    value = np.random.default_rng(1).normal(size=(31, 2))
    reward, discount, kind = (x[1:] for x in (LIFE.reward, LIFE.discount, LIFE.step_type))
    values = (jnp.asarray(x, jnp.float32) for x in (value[:-1], value[-1]))
    found = lambda_returns(as_rollout(reward, discount, kind), *values, gamma=GAMMA, trace=trace)
    expected = forward_view(reward, discount, kind, value[1:], GAMMA, trace)
    np.testing.assert_allclose(found.target, expected, rtol=1e-4, atol=1e-5)


def test_returns_follow_the_published_recursion():
    """``G_t = r_t + gamma (l G_{t+1} + (1 - l) max q)``, or ``r_t`` where the episode ends; it has no FIRST pairs."""
    value = np.random.default_rng(2).normal(size=31)
    kept = LIFE.step_type[1:, 0] != FIRST
    reward, discount, kind = (x[1:, 0] for x in (LIFE.reward, LIFE.discount, LIFE.step_type))
    found = returns_of_one_env(reward, discount, kind, value[:-1], value[-1], "terminal")
    expected = []
    for t in reversed(np.flatnonzero(kept)):
        done = kind[t] == LAST or discount[t] == 0
        later = expected[-1] if expected else value[-1]
        expected.append(reward[t] + 0.5 * (1 - done) * (0.5 * later + 0.5 * value[t + 1]))
    np.testing.assert_allclose(found.target[kept], expected[::-1], rtol=1e-4, atol=1e-5)


class Learning:
    """A learner in NumPy and float64, with the backward pass by hand."""

    def __init__(self, params: Any, trace: float) -> None:
        self.params, self.trace = as_float64(params), trace

    def targets(self, start: int) -> np.ndarray:
        """Lambda-returns of a rollout of ``LENGTH`` steps, ``[LENGTH, 2]``."""
        after = slice(start + 1, start + LENGTH + 1)
        following = forward(self.params, LIFE.observation[after].astype(np.float64))[0].max(-1)
        facts = (LIFE.reward[after], LIFE.discount[after], LIFE.step_type[after])
        return forward_view(*facts, following, GAMMA, self.trace)

    def update(self, batch: np.ndarray, targets: np.ndarray, start: int) -> tuple[float, float]:
        """One update on the rows with these observations; returns the loss and the mean of max q."""
        found = [np.argwhere((LIFE.observation == observation).all(-1))[0] for observation in batch]
        valid = np.array([LIFE.step_type[t + 1, env] != FIRST for t, env in found])
        rows = np.arange(len(batch))
        action = np.array([LIFE.action[t, env] for t, env in found])
        q, hidden = forward(self.params, batch.astype(np.float64))
        error = np.array([targets[t - start, env] for t, env in found]) - q[rows, action]
        slope = np.zeros_like(q)
        slope[rows, action] = np.where(valid, -error, 0.0) / valid.sum()
        gradients = backward(self.params, batch.astype(np.float64), hidden, slope)
        self.params = jax.tree.map(lambda p, g: p - RATE * g, self.params, gradients)
        return float((error[valid] ** 2 / 2).mean()), float(q.max(-1)[valid].mean())


@pytest.mark.parametrize("trace", [0.0, TRACE])
def test_three_rollouts_agree_with_an_independent_program(trace):
    """Returns are computed once per rollout; the updates of both epochs move towards them."""
    start, state, metrics = whole(remember(3 * UPDATES, 10), q_lambda=trace)
    reference, batches = Learning(start, trace), state.plugins[0]
    for rollout in range(3):
        first = LENGTH * rollout
        targets = reference.targets(first)
        made = [reference.update(x, targets, first) for x in batches[UPDATES * rollout : UPDATES * (rollout + 1)]]
        row = {name: values[first + LENGTH - 1] for name, values in metrics.items()}
        expected = np.sum(made, axis=0)
        np.testing.assert_allclose([row["loss"], row["q_mean"]], expected, rtol=1e-4)
        assert row["updates"] == UPDATES
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), state.learner.params, reference.params)
    changes = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.learner.params, start)
    assert min(jax.tree.leaves(changes)) > 1e-2
    for values in metrics.values():
        np.testing.assert_array_equal(np.delete(values, [9, 19, 29]), 0.0)


def test_without_a_trace_one_epoch_is_one_step_of_semi_gradient_q_learning():
    start, state, _ = whole(q_lambda=0.0, epochs=1, minibatches=1, rollout_length=30)
    x, following = jnp.asarray(LIFE.observation[:-1]), jnp.asarray(LIFE.observation[1:])
    joins = LIFE.step_type[1:] == FIRST

    def q(params: Any, x: Any) -> Any:
        hidden = jax.nn.relu(x @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"])
        return hidden @ params["output"]["kernel"] + params["output"]["bias"]

    target = LIFE.reward[1:] + GAMMA * LIFE.discount[1:] * q(start, following).max(-1)

    def loss(params: Any) -> Any:
        taken = jnp.take_along_axis(q(params, x), jnp.asarray(LIFE.action)[..., None], -1)[..., 0]
        return jnp.mean(0.5 * (target - taken)[~joins] ** 2)

    expected = jax.tree.map(lambda p, g: p - RATE * g, start, jax.grad(loss)(start))
    chex.assert_trees_all_close(state.learner.params, expected, rtol=1e-5, atol=1e-6)


def test_pairs_that_join_two_episodes_never_enter():
    wanted = as_pairs(LIFE)
    joins = jnp.asarray(LIFE.step_type[1:] == FIRST)
    current = wanted.current._replace(
        reward=jnp.where(joins, 1e6, wanted.current.reward), discount=jnp.where(joins, 3.0, wanted.current.discount)
    )
    other = wanted._replace(action=jnp.where(joins, 3 - wanted.action, wanted.action), current=current)
    agent = small()
    lived = jax.jit(lambda wanted: live(agent, agent.init(KEY, None), wanted)[:2])
    (first, made), (second, others) = lived(wanted), lived(other)
    assert int(joins.sum()) > 3
    chex.assert_trees_all_equal(first.learner, second.learner)
    chex.assert_trees_all_equal(made, others)


def test_a_truncated_episode_may_count_as_terminated():
    wanted = as_pairs(LIFE)
    ended = jnp.where(wanted.current.step_type == LAST, 0.0, wanted.current.discount)
    agents = small(), small(truncation="terminal")

    @jax.jit
    def lives() -> Any:
        given = wanted._replace(current=wanted.current._replace(discount=ended))
        cases = ((agents[0], given), (agents[1], wanted), (agents[0], wanted))
        return [live(agent, agent.init(KEY, None), pairs)[0].learner.params for agent, pairs in cases]

    by_hand, terminal, bootstrap = lives()
    chex.assert_trees_all_close(by_hand, terminal, rtol=1e-6)
    assert np.abs(terminal["output"]["kernel"] - bootstrap["output"]["kernel"]).max() > 1e-3


def test_rewards_are_clipped_then_scaled():
    first = jax.tree.map(lambda x: x[:LENGTH], as_pairs(LIFE))

    @functools.partial(jax.jit, static_argnums=0)
    def kept(clips: bool, bound: Any, scale: Any) -> Any:
        agent = small(reward_clip=bound if clips else None, reward_scale=scale)
        return live(agent, agent.init(KEY, None), first)[0].rest["rollout"].reward

    for bound, scale in ((None, 1.0), (0.5, 1.0), (1.5, 0.1)):
        reward = LIFE.reward[1 : LENGTH + 1]
        expected = scale * (reward if bound is None else np.clip(reward, -bound, bound))
        np.testing.assert_allclose(kept(bound is not None, bound or 0.0, scale), expected, rtol=1e-6)


def test_exploration_follows_the_schedule_and_starts_again_with_the_agent():
    """At step 30 the agent is 10 steps old: epsilon is 0.5. Evaluation has its own."""
    n = 20_000
    agent = small(spec=SPEC._replace(envs=n), epsilon=functools.partial(linear, end=0.0, duration=20), minibatches=1)
    state, observation = agent.init(KEY, None), jnp.ones((n, 3))
    state = state._replace(rest={**state.rest, "schedule": jnp.int32(20)})
    best = np.eye(4)[forward(as_float64(state.learner.params), np.ones(3))[0].argmax()]
    shares = [np.bincount(agent.act(KEY, state, observation, clock_at(t)), minlength=4) / n for t in (20, 30, 40)]
    shares.append(np.bincount(agent.play(KEY, state, observation, jnp.float32(0.5)), minlength=4) / n)
    for share, epsilon in zip(shares, (1.0, 0.5, 0.0, 0.5), strict=True):
        np.testing.assert_allclose(share, (1 - epsilon) * best + epsilon / 4, atol=0.015)


def test_what_monitors_see():
    """The squared one-step error, by hand."""
    agent = small()
    state = agent.init(KEY, None)
    params = as_float64(state.learner.params)
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), as_pairs(LIFE))
    q, following = (forward(params, LIFE.observation[part].astype(np.float64))[0] for part in (slice(30), slice(1, 31)))
    target = LIFE.reward[1:] + GAMMA * LIFE.discount[1:] * following.max(-1)
    rows = 0.5 * (target - np.take_along_axis(q, LIFE.action[..., None], -1)[..., 0]) ** 2
    probe = agent.probe(state, batch, clock_at(0))
    np.testing.assert_allclose(probe.loss(state.learner.params), rows[LIFE.step_type[1:] != FIRST].mean(), rtol=1e-5)
    np.testing.assert_allclose(probe.scores(state.learner.params, batch.previous.observation), q.reshape(-1, 4), 1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollout_length": 7}, "agent.rollout_length: 7 is not allowed; must divide the 30 steps of a visit"),
        ({"minibatches": 3}, "agent.minibatches: 3 is not allowed; must divide the 20 steps of a rollout"),
        ({"truncation": "cut"}, "agent.truncation: cut is not allowed; must be one of bootstrap, terminal"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_actions_must_be_discrete():
    with pytest.raises(ValueError, match=r"agent.kind: pqn is not allowed; it needs a stream with discrete actions"):
        small(spec=SPEC._replace(discrete=False))
