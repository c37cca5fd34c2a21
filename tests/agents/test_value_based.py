"""Deep Q-learning against an independent reference; exploration; when updates are made."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import EPSILON, clock_at, source, uniform_replay
from chain import chain
from q_reference import Learning, Settings, as_float64, forward, script
from replay_cases import KEY, SPEC, STEPS, live, pairs, remember

from plasticity.agents import dqn
from plasticity.agents.value_based import epsilon_greedy
from plasticity.core.types import Agent, StreamSpec
from plasticity.interventions import reset
from plasticity.interventions.base import Intervention, compose, every
from plasticity.networks.presets import mlp
from plasticity.optim.optimizers import adam
from plasticity.optim.schedules import linear


def small(spec: StreamSpec = SPEC, *interventions: Intervention, **settings: Any) -> Agent:
    sizes = {"replay": uniform_replay(), "epsilon": EPSILON, "batch_size": 8}
    sizes |= {"update_period": 2, "target_period": 3}
    network = functools.partial(mlp, widths=(8,))
    optimizer = functools.partial(adam, learning_rate=0.01)
    return dqn(spec, compose(*interventions), network=network, optimizer=optimizer, **(sizes | settings))


CASES = [
    (1, False, 1, 3),
    (3, True, 2, 3),
    pytest.param(2, True, 1, 4, marks=pytest.mark.slow),
]  # n_step, double, gradient steps, target period


@pytest.mark.parametrize(("n_step", "double", "gradient_steps", "target_period"), CASES)
def test_updates_agree_with_an_independent_reference(n_step, double, gradient_steps, target_period):
    updates = 14 * gradient_steps  # after steps 4, 6, ..., 30

    @jax.jit
    def lives(huber: Any, reward_clip: Any) -> Any:
        structure = {"n_step": n_step, "double": double, "gradient_steps": gradient_steps}
        numbers = {"huber": huber, "reward_clip": reward_clip, "discount": 0.8}
        agent = small(SPEC, remember(updates), target_period=target_period, **structure, **numbers)
        start = agent.init(KEY, None)
        return start.learner.params, live(agent, start)[:2]

    for huber, reward_clip in ((1.0, 1.5), (0.0, 2.5)):
        start, (state, metrics) = lives(huber, reward_clip)
        settings = Settings(0.8, huber, reward_clip, n_step, double, 0.01, target_period)
        reference = Learning(script(), start, settings)
        losses = [reference.update(np.asarray(batch)) for batch in state.plugins[0]]
        for mine, theirs in ((state.learner.params, reference.params), (state.learner.target, reference.target)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mine, theirs)
        made = np.asarray(metrics["loss"])[3::2]
        np.testing.assert_allclose(made, np.reshape(losses, (-1, gradient_steps)).sum(1), rtol=1e-4)
        missed = {case for case, count in reference.seen.items() if not count}
        assert missed <= ({"cut"} if n_step == 1 else set()) | (set() if double else {"other choice"})


def test_the_loss_that_monitors_see_leaves_out_pairs_that_join_two_episodes():
    life, batch = script(), jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs())
    agent = small(SPEC, huber=0.0, reward_clip=1.5, discount=0.8)
    state, other = (agent.init(jax.random.key(seed), None) for seed in (0, 1))
    state = state._replace(learner=state.learner._replace(target=other.learner.params))
    q, following = (
        forward(as_float64(mind.learner.params), observation.reshape(60, 3))[0]
        for mind, observation in ((state, life.observation[:-1]), (other, life.observation[1:]))
    )
    reward, discount = np.clip(life.reward[1:], -1.5, 1.5).ravel(), 0.8 * life.discount[1:].ravel()
    error = reward + discount * following.max(1) - q[np.arange(60), life.action.ravel()]
    loss = agent.probe(state, batch, clock_at(0)).loss(state.learner.params)
    valid = life.step_type[1:].ravel() != 0
    assert 0 < valid.sum() < 60
    np.testing.assert_allclose(loss, np.mean(error[valid] ** 2) / 2, rtol=1e-4)


def test_exploration_is_uniform_and_the_rest_greedy():
    n = 40_000
    q = jnp.broadcast_to(jnp.asarray([0.0, 2.0, 2.0, 1.0]), (n, 4))
    draw = jax.jit(epsilon_greedy)
    for epsilon in (0.0, 0.3, 1.0):
        actions = draw(KEY, q, jnp.asarray(epsilon))
        assert actions.dtype == jnp.int32
        expected = epsilon / 4 + np.array([0, 1 - epsilon, 0, 0])  # of two largest values the first is taken
        deviation = np.sqrt(expected * (1 - expected) / n)
        np.testing.assert_array_less(np.abs(np.bincount(actions, minlength=4) / n - expected), 4 * deviation + 1e-9)


def off_greedy(agent: Agent, state: Any, steps: list[int], n: int = 20_000) -> list[float]:
    """Share of exploring actions at these steps; half of the random actions of two are the greedy one."""
    observation = jnp.ones((n, 5))
    act = jax.jit(lambda state, step: agent.act(KEY, state, observation, clock_at(step)))
    q = state.learner.params["output"]["kernel"], state.learner.params["hidden_0"]
    hidden = np.maximum(np.asarray(q[1]["kernel"]).sum(0), 0)
    greedy = int(np.argmax(hidden @ np.asarray(q[0])))
    return [2 * float(np.mean(np.asarray(act(state, step)) != greedy)) for step in steps]


def test_epsilon_falls_linearly_from_birth_and_only_a_full_reset_is_a_birth():
    settings = {"epsilon": functools.partial(linear, start=0.9, end=0.1, duration=100)}
    for intervention, expected in ((reset(), (0.9, 0.7, 0.1)), (reset(modules="last"), (0.58, 0.38, 0.1))):
        agent = small(chain().spec, intervention, **settings)
        state = agent.init(KEY, None)
        np.testing.assert_allclose(off_greedy(agent, state, [0, 25, 100, 5000]), (0.9, 0.7, 0.1, 0.1), atol=0.03)
        state = agent.switch(KEY, state, clock_at(40))
        np.testing.assert_allclose(off_greedy(agent, state, [40, 65, 140]), expected, atol=0.03)
    settings = {"epsilon": functools.partial(linear, start=0.9, end=0.0, duration=100)}
    agent = small(chain().spec, reset(modules="last"), **settings)
    assert off_greedy(agent, state, [10**6]) == [0.0]


def count() -> Intervention:
    """State: how many updates were seen, the number of the last one, how often ``every(3)`` was due, a broken run."""

    def step(key: Any, state: Any, learner: Any, seen: Any) -> Any:
        made, last, due, gaps = state
        gaps += (seen.clock.update != last + 1).astype(jnp.int32)
        return (made + 1, seen.clock.update, due + every(3)(seen.clock).astype(jnp.int32), gaps), learner

    zero = jnp.zeros((), jnp.int32)
    return Intervention(init=lambda key, params, network: (zero, zero - 1, zero, zero), step=step)


@pytest.mark.parametrize(
    ("envs", "minimum", "update_period", "gradient_steps"), [(2, 9, 4, 1), (1, 8, 3, 2), (2, 13, 1, 3)]
)
def test_updates_are_made_exactly_when_they_are_due(envs, minimum, update_period, gradient_steps):
    replay = uniform_replay(100, minimum)
    sizes = {"replay": replay, "update_period": update_period, "gradient_steps": gradient_steps}
    agent = small(SPEC._replace(envs=envs), count(), **sizes)

    def watch(state: Any) -> Any:
        params, target = (x["output"]["bias"][0] for x in (state.learner.params, state.learner.target))
        return state.plugins[0], params, target

    narrow = jax.jit(lambda: live_narrow(agent, envs, watch))
    metrics, ((made, last, due, gaps), params, target) = jax.device_get(narrow())
    expected = [gradient_steps * ((t + 1) * envs >= minimum and (t + 1) % update_period == 0) for t in range(STEPS)]
    np.testing.assert_array_equal(metrics["updates"], expected)
    np.testing.assert_array_equal(made, np.cumsum(expected))
    np.testing.assert_array_equal(last, made - 1)  # the first update is number 0
    assert gaps[-1] == 0
    np.testing.assert_array_equal(due, made // 3)
    learning = np.flatnonzero(expected)
    changes = np.flatnonzero(np.diff(params)) + 1
    np.testing.assert_array_equal(changes, learning[learning > 0])  # nothing is learned between updates
    assert (metrics["loss"][learning] > 0).all()
    assert (np.delete(metrics["loss"], learning) == 0).all()
    for t in learning:  # the target network is the online network after every third update
        if made[t] % 3 == 0:
            assert target[t] == params[t]
    copies = np.flatnonzero(np.diff(target)) + 1
    assert len(copies) == len({made[t] // 3 for t in learning if made[t] >= 3})
    assert set(copies) <= set(learning)


def test_the_replay_ratio_is_updates_per_transition():
    """2 envs and a period of 2: 4 transitions per period, so a ratio of 0.75 is 3 updates."""

    def updates(**settings: Any) -> Any:
        agent = small(update_period=2, **settings)
        return jax.device_get(jax.jit(lambda: live(agent, agent.init(KEY, None))[1])())

    by_ratio, by_steps = updates(replay_ratio=0.75), updates(gradient_steps=3)
    assert by_ratio["updates"].sum() == 3 * 14
    jax.tree.map(np.testing.assert_array_equal, by_ratio, by_steps)


@pytest.mark.parametrize("ratio", [0.3, 0.1])
def test_a_replay_ratio_without_whole_updates_is_refused(ratio: float):
    message = (
        rf"agent\.replay_ratio: {ratio} is not allowed; with update_period 2 and 2 envs it must be a multiple of 0.25"
    )
    with pytest.raises(ValueError, match=message):
        small(update_period=2, replay_ratio=ratio)


def live_narrow(agent: Agent, envs: int, watch: Any) -> Any:
    """The script's first ``envs`` environments."""

    def step(state: Any, inputs: Any) -> Any:
        i, pair = inputs
        state, metrics = agent.learn(jax.random.fold_in(KEY, i), state, pair, clock_at(i))
        return state, (metrics, watch(state))

    wanted = jax.tree.map(lambda x: x[:, :envs], pairs())
    return jax.lax.scan(step, agent.init(KEY, None), (jnp.arange(STEPS), wanted))[1]


def test_a_lane_whose_replay_was_cleared_waits_while_the_clock_goes_on():
    agent = small(SPEC, reset(), count(), replay=uniform_replay(100, 12))

    @jax.jit
    def both_visits() -> Any:
        state, first, _ = live(agent, agent.init(KEY, None), 0, 16)
        renewed = agent.switch(KEY, state, clock_at(16))
        state, second, seen = live(agent, renewed, 16, 14, lambda state: (state.plugins[1], state.learner))
        return renewed.learner, first["updates"], second["updates"], seen

    renewed, first, second, ((made, last, *_), learner) = jax.device_get(both_visits())
    np.testing.assert_array_equal(np.flatnonzero(first), [5, 7, 9, 11, 13, 15])
    np.testing.assert_array_equal(16 + np.flatnonzero(second), [21, 23, 25, 27, 29])  # 6 rows of 2 envs make 12
    np.testing.assert_array_equal(made[:6], [0, 0, 0, 0, 0, 1])  # its state was reset with the learner
    np.testing.assert_array_equal(last[:6], [-1, -1, -1, -1, -1, 8])  # updates 6 and 7 were due and not made
    for before, after in zip(jax.tree.leaves(renewed), jax.tree.leaves(learner), strict=True):
        for t in range(5):
            np.testing.assert_array_equal(after[t], before)  # parameters, optimizer and target wait
    assert (learner.params["output"]["bias"][5] != renewed.params["output"]["bias"]).any()


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_a_supervised_stream_is_refused(name):
    with pytest.raises(ValueError, match=r"agent\.kind: dqn"):
        small(source(name).spec)


def test_a_visit_is_whole_periods_of_learning():
    with pytest.raises(ValueError, match=r"agent\.update_period: 7 is not allowed; must divide the 60 steps"):
        small(update_period=7)


def test_a_minimum_that_the_replay_can_never_hold_is_refused():
    """Three envs share 10 places: 3 rows, 9 steps."""
    spec = SPEC._replace(envs=3)
    small(spec, replay=uniform_replay(10, 9))
    with pytest.raises(ValueError, match=r"agent\.replay\.minimum: 10 is not allowed; must be between 6 and 9"):
        small(spec, replay=uniform_replay(10, 10))
