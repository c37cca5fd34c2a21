"""Categorical Q-learning: the projection and updates against NumPy, the values it acts on, and errors."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
import scipy.stats
from agent_cases import EPSILON, clock_at, source, uniform_replay
from categorical_reference import SUPPORT, Categorical, projected, softmax
from chain import chain
from q_reference import Settings, script
from replay_cases import KEY, SPEC, live, pairs, remember

from plasticity.agents import c51, dqn
from plasticity.agents.categorical import cross_entropies, expected, hl_gauss, spread, two_hot
from plasticity.agents.replay import Batch
from plasticity.core.types import Agent, StreamSpec
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.presets import mlp
from plasticity.optim.optimizers import adam

SMALL = {
    "replay": uniform_replay(),
    "epsilon": EPSILON,
    "batch_size": 8,
    "update_period": 2,
    "target_period": 3,
}
ATOMS = {"atoms": 5, "v_min": -2.0, "v_max": 3.0}


def small(spec: StreamSpec = SPEC, *interventions: Intervention, **settings: Any) -> Agent:
    network, optimizer = functools.partial(mlp, widths=()), functools.partial(adam, learning_rate=0.01)
    settings = {**SMALL, **ATOMS, "network": network, "optimizer": optimizer, **settings}
    return c51(spec, compose(*interventions), **settings)


def batch_of(reward: np.ndarray, discount: np.ndarray, action: np.ndarray) -> Batch:
    blank = jnp.zeros((len(reward), 3))
    numbers = (jnp.asarray(x, jnp.float32) for x in (reward, discount))
    return Batch(blank, jnp.asarray(action, jnp.int32), *numbers, blank, jnp.ones(len(reward), bool))


@pytest.mark.filterwarnings("ignore:Rlax categorical_cross_entropy")  # of the reference; our code does not call it
def test_the_loss_against_a_loop_and_rlax():
    rng = np.random.default_rng(0)
    now, following = rng.normal(size=(2, 40, 3, 5))
    selector = rng.normal(size=(40, 3))
    reward, discount = rng.normal(scale=3, size=40), rng.choice([0.0, 0.729, 0.9], 40)
    batch = batch_of(reward, discount, rng.integers(0, 3, 40))
    support = jnp.asarray(SUPPORT, jnp.float32)
    logits = [jnp.asarray(x, jnp.float32) for x in (now, following, selector)]
    made = cross_entropies(batch, *logits, support)
    for i, action in enumerate(np.asarray(batch.action)):
        p = softmax(following[i, selector[i].argmax()])
        wanted = projected(reward[i] + discount[i] * SUPPORT, p, SUPPORT)
        np.testing.assert_allclose(wanted.sum(), 1.0)
        np.testing.assert_allclose(made[i], -(wanted * np.log(softmax(now[i, action]))).sum(), rtol=1e-5)
    theirs = jax.vmap(rlax.categorical_double_q_learning, in_axes=(None, 0, 0, 0, 0, None, 0, 0))(
        support, logits[0], batch.action, batch.reward, batch.discount, support, logits[1], logits[2]
    )
    np.testing.assert_allclose(made, theirs, rtol=1e-5)


def test_the_projection_keeps_the_mean_of_what_lies_within_and_moves_the_rest_to_the_ends():
    """With logits 0 in s the loss is ``log 5`` for any target; its gradient, ``1/5 - target``, reveals it."""
    point = jnp.zeros((1, 1, 5)).at[0, 0, 2].set(50.0)  # all weight on the middle value, 0.5

    def wanted(reward: float, discount: float) -> np.ndarray:
        batch = batch_of(np.array([reward]), np.array([discount]), np.array([0]))
        support = jnp.asarray(SUPPORT, jnp.float32)
        loss = lambda now: cross_entropies(batch, now, point, jnp.zeros((1, 1)), support)[0]  # noqa: E731
        return 0.2 - np.asarray(jax.grad(loss)(jnp.zeros((1, 1, 5))))[0, 0]

    np.testing.assert_allclose(wanted(0.0, 1.0), [0, 0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(wanted(0.5, 1.0), [0, 0, 0.6, 0.4, 0], atol=1e-6)  # 1.0 between 0.5 and 1.75
    np.testing.assert_allclose(wanted(-1.0, 0.0), [0.2, 0.8, 0, 0, 0], atol=1e-6)  # an end: the reward alone
    np.testing.assert_allclose(wanted(9.0, 1.0), [0, 0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(wanted(-9.0, 1.0), [1, 0, 0, 0, 0], atol=1e-6)


CASES = [
    pytest.param(1, False, 1, 3, marks=pytest.mark.slow),
    (3, True, 2, 3),
]  # n_step, double, gradient steps, target period


@pytest.mark.parametrize(("n_step", "double", "gradient_steps", "target_period"), CASES)
def test_updates_agree_with_an_independent_reference(n_step, double, gradient_steps, target_period):
    updates = 14 * gradient_steps  # after steps 4, 6, ..., 30
    structure = {"n_step": n_step, "double": double, "gradient_steps": gradient_steps, "target_period": target_period}
    agent = small(SPEC, remember(updates), discount=0.8, reward_clip=1.5, **structure)
    start = agent.init(KEY, None)
    state, metrics, _ = jax.device_get(jax.jit(functools.partial(live, agent))(start))
    reference = Categorical(script(), start.learner.params, Settings(0.8, 0, 1.5, n_step, double, 0.01, target_period))
    losses, q_means = [], []
    for batch in state.plugins[0]:
        losses.append(reference.update(np.asarray(batch)))
        q_means.append(reference.q_mean)
    for mine, theirs in ((state.learner.params, reference.params), (state.learner.target, reference.target)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mine, theirs)
    for name, values in (("loss", losses), ("q_mean", q_means)):
        wanted = np.reshape(values, (-1, gradient_steps)).sum(1)
        np.testing.assert_allclose(metrics[name][3::2], wanted, rtol=1e-4, atol=1e-5)
    needed = ["empty", "terminal", "clipped"] + ["cut"] * (n_step > 1) + ["other choice"] * double
    assert all(reference.seen[case] for case in needed)


def test_it_acts_on_expected_values():
    """Action 1 most likely has the largest return, but action 0 has the larger mean."""
    agent = small(chain().spec)
    state = agent.init(KEY, None)
    far = jnp.log(jnp.asarray([[0.01, 0.01, 0.01, 0.96, 0.01], [0.5, 0.01, 0.01, 0.01, 0.47]]))
    blank = jax.tree.map(jnp.zeros_like, state.learner.params)
    params = {"output": {**blank["output"], "bias": far.ravel()}}
    np.testing.assert_allclose(expected(far, jnp.asarray(SUPPORT)), [1.6875, 0.425], atol=1e-5)
    state = state._replace(learner=state.learner._replace(params=params))
    n = 20_000
    seen, play = jnp.ones((n, 5)), jax.jit(agent.play)
    for epsilon, share in ((0.0, 0.0), (0.4, 0.2)):
        assert np.mean(np.asarray(play(KEY, state, seen, jnp.asarray(epsilon)))) == pytest.approx(share, abs=0.012)
    act = jax.jit(agent.act)(KEY, state, seen, clock_at(10**7))  # epsilon ends at 0.01
    assert np.mean(np.asarray(act)) == pytest.approx(0.005, abs=0.003)


def test_the_loss_that_monitors_see():
    """One-step transitions of the script, without pairs that span two episodes."""
    life, agent = script(), small(reward_clip=1.5, discount=0.8)
    state = agent.init(KEY, None)
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs())
    loss = agent.probe(state, batch, clock_at(0)).loss(state.learner.params)
    reference = Categorical(life, state.learner.params, Settings(0.8, 0, 1.5, 1, False, 0.0, 9))
    np.testing.assert_allclose(loss, reference.update(life.observation[:-1].reshape(-1, 3)), rtol=1e-5)
    assert reference.seen["empty"]


@pytest.mark.parametrize("make", [dqn, c51])
def test_rewards_may_stay_as_they_are(make):
    """Without a clip, a reward of 2 stays 2, as the loss of a uniform network shows."""
    known = {"network": functools.partial(mlp, widths=()), "optimizer": adam, **SMALL} | (
        ATOMS if make is c51 else {"huber": 0.0}
    )
    spec = SPEC._replace(reward_range=(-2.0, 2.0))
    pair = jax.tree.map(lambda x: x[1, :1], pairs())
    pair = pair._replace(current=pair.current._replace(reward=jnp.full(1, 1.9), discount=jnp.zeros(1)))
    slopes = []
    for clip in (None, 1.0):
        agent = make(spec, compose(), reward_clip=clip, **known)
        state = agent.init(KEY, None)
        params = jax.tree.map(jnp.zeros_like, state.learner.params)
        state = state._replace(learner=state.learner._replace(target=params))
        gradient = jax.grad(agent.probe(state, pair, clock_at(0)).loss)(params)["output"]["bias"]
        slopes.append(-np.asarray(gradient).reshape(4, -1)[int(pair.action[0])])
    if make is dqn:
        np.testing.assert_allclose(slopes, [[1.9], [1.0]], rtol=1e-5)
    else:  # the target's projection less 1/5
        np.testing.assert_allclose(
            slopes, [projected(np.array([r]), np.ones(1), SUPPORT) - 0.2 for r in (1.9, 1.0)], atol=1e-6
        )


REFUSED = [
    (
        {"v_max": 0.5},
        r"agent\.v_max: 0\.5 is not allowed; must include the rewards, which reach 1\.0 \(clipped at 1\.0\)",
    ),
    (
        {"v_min": -0.5},
        r"agent\.v_min: -0\.5 is not allowed; must include the rewards, which reach -1\.0 \(clipped at 1\.0\)",
    ),
    ({"v_min": 4.0}, r"agent\.v_max: 3\.0 is not allowed; must be finite and above v_min, 4\.0"),
    ({"reward_clip": None}, r"agent\.reward_clip: null is not allowed; v_min requires bounded rewards"),
    ({"atoms": 1}, r"agent\.atoms: 1 is not allowed; must be at least 2"),
    ({"update_period": 7}, r"agent\.update_period: 7 is not allowed"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(SPEC, **settings)


def test_the_support_must_contain_what_a_step_can_give_and_no_more():
    spec = SPEC._replace(reward_range=(0.0, 0.4))
    for settings in ({"v_min": 0.0, "v_max": 0.4, "reward_clip": None}, {"v_min": 0.0, "v_max": 0.4}):
        small(spec, **settings)
    with pytest.raises(
        ValueError,
        match=r"agent\.v_max: 0\.3 is not allowed; must include the rewards, which reach 0\.4 \(clipped at 1\.0\)",
    ):
        small(spec, v_min=0.0, v_max=0.3)
    with pytest.raises(
        ValueError, match=r"agent\.v_max: 0\.3 is not allowed; must include the rewards, which reach 0\.4$"
    ):
        small(spec, v_min=0.0, v_max=0.3, reward_clip=None)
    small(spec, v_min=0.0, v_max=0.3, reward_clip=0.25)


def test_streams_that_do_not_suit_are_refused_by_the_agents_own_name():
    continuous, supervised = SPEC._replace(discrete=False), source("classifier").spec
    for (name, make), spec in itertools.product((("dqn", dqn), ("c51", c51)), (continuous, supervised)):
        with pytest.raises(ValueError, match=rf"agent\.kind: {name} is not allowed"):
            make(spec, compose(), **SMALL)


def test_two_hot_has_the_number_as_its_mean():
    support = jnp.linspace(-1.0, 3.0, 5)
    made = two_hot(jnp.asarray([0.25, 2.0, -7.0, 9.0]), support)
    expected_rows = [[0, 0.75, 0.25, 0, 0], [0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_allclose(made, expected_rows, atol=1e-6)
    np.testing.assert_allclose(made @ support, [0.25, 2, -1, 3], atol=1e-6)


def test_hl_gauss_is_a_binned_normal_distribution():
    support, sigma = np.linspace(0.0, 10.0, 21), 0.75
    made = hl_gauss(jnp.asarray([4.3, 0.0, 99.0]), jnp.asarray(support), sigma)
    normal = scipy.stats.norm(4.3, sigma * 0.5)
    np.testing.assert_allclose(made[0], normal.cdf(support + 0.25) - normal.cdf(support - 0.25), atol=1e-5)
    np.testing.assert_allclose(np.asarray(made).sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(made[0] @ support, 4.3, atol=1e-3)
    np.testing.assert_allclose(made[1], np.asarray(made[2])[::-1], atol=1e-5)  # both ends in the same way
    assert made[1] @ support > 0.1  # drawn inwards


@pytest.mark.parametrize(("targets", "wanted"), [("two_hot", [0, 0.5, 0.5]), ("hl_gauss", None)])
def test_a_scalar_target_is_the_mean_of_what_follows(targets, wanted):
    """R + D E[z] = 1 + 0.5 * 1 = 1.5 on the atoms 0, 1, 2; that z is half at 0 and half at 2 is forgotten."""
    support = jnp.asarray([0.0, 1.0, 2.0])
    batch = Batch(None, jnp.zeros(1, int), jnp.ones(1), jnp.full(1, 0.5), None, jnp.ones(1, bool))
    following = jnp.log(jnp.asarray([[[0.5, 1e-9, 0.5]]]))
    now = jnp.asarray([[[0.1, -0.3, 0.7]]])
    wanted = hl_gauss(jnp.asarray([1.5]), support, 0.75)[0] if wanted is None else np.asarray(wanted)
    made = cross_entropies(batch, now, following, jnp.zeros((1, 1)), support, spread(targets, 0.75))
    log_p = np.log(np.exp(now[0, 0]) / np.exp(now[0, 0]).sum())
    np.testing.assert_allclose(made, [-(wanted * log_p).sum()], rtol=1e-5)


def test_unknown_targets_are_refused():
    with pytest.raises(ValueError, match=r"agent\.targets: gauss is not allowed; must be one of distribution, two_hot"):
        spread("gauss", 0.75)
