"""Soft actor-critic and TD3 against an independent reference; squashed Gaussians; what is refused."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import clock_at, uniform_replay
from q_reference import FIRST, script
from replay_cases import KEY, SPEC
from sac_reference import ActorCritic, DiscreteSac, Rows, Sac, Td3

from plasticity.agents import AGENTS
from plasticity.agents.base import NOISE
from plasticity.agents.distributions import squashed
from plasticity.core.types import Agent, StreamSpec, TimeStep, Transition
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.presets import mlp
from plasticity.optim.optimizers import adam

LOW, HIGH = np.array([-1.0, -2.0]), np.array([1.0, 4.0])
MIDDLE, HALF = (LOW + HIGH) / 2, (HIGH - LOW) / 2
REAL = SPEC._replace(discrete=False, actions=2, action_bounds=((-1.0, -2.0), (1.0, 4.0)))
BATCH, DISCOUNT, RATE, TARGET_RATE = 8, 0.8, 0.01, 0.2


def small(kind: str, spec: StreamSpec, *interventions: Intervention, **settings: Any) -> Agent:
    network = functools.partial(mlp, widths=(8,))
    names = ["policy_optimizer", "value_optimizer", *(["temperature_optimizer"] if kind == "sac" else [])]
    optimizers = dict.fromkeys(names, functools.partial(adam, learning_rate=RATE))
    sizes = {"replay": uniform_replay(), "batch_size": BATCH, "update_period": 2, "discount": DISCOUNT}
    sizes |= {"network": network, "critic_network": network, "target_rate": TARGET_RATE, "random_steps": 5}
    return AGENTS[kind](spec, compose(*interventions), **(optimizers | sizes | settings))


def remember(updates: int, see: Any) -> Intervention:
    """Record the states of every update, in the row of its index."""
    return Intervention(
        init=lambda key, params, network: jnp.full((updates, BATCH, 3), jnp.nan),
        step=lambda key, state, learner, seen: (state.at[seen.clock.update].set(see(seen.observation)), learner),
    )


def actions_of(spec: StreamSpec) -> np.ndarray:
    """The script's actions, or real ones between the bounds, ``[30, 2]`` or ``[30, 2, 2]``."""
    if spec.discrete:
        return script().action
    return np.random.default_rng(3).uniform(LOW, HIGH, (30, 2, 2)).astype(np.float32)


def lived(agent: Agent, spec: StreamSpec) -> Any:
    """The start, the state after 30 steps of the script, and the metrics."""
    life = script()
    steps = TimeStep(*(jnp.asarray(x) for x in life[:4]))
    pairs = Transition(
        jax.tree.map(lambda x: x[:-1], steps), jnp.asarray(actions_of(spec)), jax.tree.map(lambda x: x[1:], steps)
    )

    def step(state: Any, inputs: Any) -> Any:
        i, pair = inputs
        return agent.learn(jax.random.fold_in(KEY, i), state, pair, clock_at(i))

    @jax.jit
    def run() -> Any:
        start = agent.init(KEY, None)
        return start.learner, *jax.lax.scan(step, start, (jnp.arange(30), pairs))

    return run()


def noise_of(kind: str, spec: StreamSpec, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The standard normal numbers of the update at an env step, ``[B, 2]`` each."""
    key = jax.random.fold_in(jax.random.fold_in(KEY, step), 0)
    online = jax.random.split(jax.random.fold_in(key, NOISE))[0]
    shape = (BATCH, spec.actions)
    if kind == "td3":
        return np.zeros(shape), np.asarray(jax.random.normal(online, shape), np.float64)
    now, then, _ = jax.random.split(online, 3)
    return tuple(np.asarray(jax.random.normal(each, shape), np.float64) for each in (now, then))


def rows_of(kind: str, spec: StreamSpec, states: np.ndarray, step: int) -> Rows:
    """One-step transitions from these states."""
    life, actions = script(), actions_of(spec)
    places = [tuple(np.argwhere((life.observation == state).all(-1))[0]) for state in states]
    after = [(t + 1, env) for t, env in places]
    pick = lambda values, where: np.array([values[place] for place in where])  # noqa: E731
    action = pick(actions, places)
    return Rows(
        states.astype(np.float64),
        action if spec.discrete else action.astype(np.float64),
        pick(life.reward, after).astype(np.float64),
        DISCOUNT * pick(life.discount, after),
        pick(life.observation, after).astype(np.float64),
        pick(life.step_type, after) != FIRST,
        *(noise_of(kind, spec, step) if not spec.discrete else (np.zeros(0), np.zeros(0))),
    )


CASES = {
    "sac": (REAL, {}, lambda *given: Sac(MIDDLE, HALF, -2.0, *given)),
    "sac, delayed": (REAL, {"policy_period": 2, "target_period": 3, "target_entropy": 0.5},
                     lambda *given: Sac(MIDDLE, HALF, 0.5, *given)),
    "sac, discrete": (SPEC, {}, lambda *given: DiscreteSac(0.98 * math.log(4), *given)),
    "td3": (REAL, {"target_noise": 0.7}, lambda *given: Td3(MIDDLE, HALF, 0.7, 0.5, *given)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_updates_agree_with_an_independent_reference(name: str) -> None:
    spec, settings, make = CASES[name]
    kind = name.split(",")[0]
    watching = remember(14, lambda seen: seen if spec.discrete else seen.state)
    start, state, metrics = lived(small(kind, spec, watching, **settings), spec)
    policy_period = settings.get("policy_period", 2 if kind == "td3" else 1)
    target_period = settings.get("target_period", 2 if kind == "td3" else 1)
    reference: ActorCritic = make(start.params, RATE, TARGET_RATE, policy_period, target_period)
    updated = np.flatnonzero(np.asarray(metrics["updates"]))
    assert list(updated) == list(range(3, 30, 2))  # after 8 transitions of two envs, every second step
    for number, step in enumerate(updated):
        made = reference.update(rows_of(kind, spec, np.asarray(state.plugins[0][number]), int(step)))
        for each, value in made.items():
            np.testing.assert_allclose(metrics[each][step], value, rtol=2e-4, atol=2e-5, err_msg=f"{each} {number}")
    for mine, theirs in ((state.learner.params, reference.params), (state.learner.target, reference.target)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), mine, theirs)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.8, -1.0), (-2.0, 0.7)])
def test_the_density_and_entropy_of_a_squashed_gaussian_by_numerical_integration(mean: float, log_std: float) -> None:
    """The density integrates to 1 over (-1, 1); minus the mean log density of samples is the integral's entropy."""
    std, n = math.exp(log_std), 200_000
    u = np.linspace(mean - 10 * std, mean + 10 * std, n + 1)
    normal = np.exp(-(((u - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
    log_cosh = np.abs(u) + np.log1p(np.exp(-2 * np.abs(u))) - math.log(2)
    log_density = np.log(normal) + 2 * log_cosh  # 1 - tanh^2 = 1 / cosh^2
    entropy = -np.trapezoid(normal * log_density, u)
    sampled, log_p = squashed(jnp.full((n, 1), mean), jnp.full((n, 1), log_std)).sample(KEY)
    np.testing.assert_allclose(-jnp.mean(log_p), entropy, atol=0.01)
    a = np.asarray(sampled[:100, 0], np.float64)
    inner = np.abs(a) < 0.999
    at = np.arctanh(a[inner])
    expected = -(((at - mean) / std) ** 2) / 2 - log_std - math.log(2 * math.pi) / 2 - np.log(1 - a[inner] ** 2)
    np.testing.assert_allclose(np.asarray(log_p)[:100][inner], expected, atol=2e-3)


def test_a_saturated_action_has_a_finite_density_and_gradient() -> None:
    def log_p(mean: Any) -> Any:
        return squashed(mean[None, None], jnp.zeros((1, 1))).sample(KEY)[1][0]

    value, slope = jax.value_and_grad(log_p)(jnp.float32(40.0))
    assert 70 < value < 90  # about 2 (u - log 2) more than that of the normal
    np.testing.assert_allclose(slope, 2.0, rtol=1e-5)


@pytest.mark.parametrize("kind", ["sac", "td3"])
def test_actions_are_within_the_bounds_and_random_at_first(kind: str) -> None:
    agent = small(kind, REAL)
    state = agent.init(KEY, None)
    seen = jnp.asarray(np.random.default_rng(0).normal(size=(5000, 3)), jnp.float32)
    early = np.asarray(agent.act(KEY, state, seen, clock_at(4)))
    np.testing.assert_allclose(early.mean(0), MIDDLE, atol=0.1)
    np.testing.assert_allclose(early.std(0), (HIGH - LOW) / math.sqrt(12), rtol=0.05)
    late = np.asarray(agent.act(KEY, state, seen, clock_at(5)))
    assert (late >= LOW).all()
    assert (late <= HIGH).all()
    assert (np.abs(late.std(0) / early.std(0) - 1) > 0.1).all()
    played = agent.play(KEY, state, seen, jnp.float32(0.5))
    np.testing.assert_array_equal(played, agent.play(jax.random.key(9), state, seen, jnp.float32(0.5)))


def test_the_target_of_a_subset_of_critics_is_never_below_that_of_all() -> None:
    from plasticity.agents.soft import drawn_critics

    q = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)))
    found = np.array([drawn_critics(jax.random.fold_in(KEY, i), q, 2) for i in range(300)])
    assert (found >= q.min(0)).all()
    pairs = [np.minimum(q[i], q[j]) for i in range(5) for j in range(i)]
    np.testing.assert_allclose(found.mean(0), np.mean(pairs, axis=0), atol=0.15)
    np.testing.assert_array_equal(drawn_critics(KEY, q, 5), q.min(0))


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        (
            "sac",
            REAL._replace(action_bounds=None),
            "agent.kind: sac is not allowed; it needs bounded real-valued actions",
        ),
        ("td3", SPEC, "agent.kind: td3 is not allowed; it needs bounded real-valued actions; these are discrete"),
        ("sac", REAL._replace(observation=jax.ShapeDtypeStruct((4, 4, 1), jnp.uint8)), "observations that are vectors"),
    ],
)
def test_what_does_not_suit_is_named(kind: str, spec: StreamSpec, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(kind, spec)


def test_no_more_critics_are_drawn_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"agent.target_critics: 3 is not allowed; must be at most critics, 2"):
        small("sac", REAL, target_critics=3)
