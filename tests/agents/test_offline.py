"""Agents that learn from recorded transitions: losses against NumPy, one update, what they play, what they refuse."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import OFFLINE, agent, clock_at, recordings, source

import plasticity
from plasticity.agents.offline import conservative_gap
from plasticity.core.types import FIRST, MID, Agent, Logged, Probe, StreamSpec, TimeStep, Transition
from plasticity.optim.optimizers import sgd
from plasticity.runs import launch

ROWS, KEY = 5, jax.random.key(2)


def logged(real: bool = False) -> Logged:
    """Five transitions; the last one terminates, and its reward is beyond the bound."""
    random = np.random.default_rng(1)
    seen, following = (random.normal(size=(ROWS, 5)).astype(np.float32) for _ in range(2))
    action = random.normal(size=(ROWS, 1)).astype(np.float32) if real else np.array([0, 1, 1, 0, 1], np.int32)
    reward = np.array([0.5, 0.0, -0.25, 1.0, 3.0], np.float32)
    return Logged(seen, action, reward, np.array([1, 1, 1, 1, 0], np.float32), following)  # type: ignore[arg-type]


def pair(batch: Logged) -> Transition:
    """Its reward and step types are those of the stream, which the agent does not learn from."""
    first, now = (jnp.full(ROWS, kind, jnp.int8) for kind in (FIRST, MID))
    other = jax.tree.map(lambda x: jnp.zeros_like(x) + 9, batch)
    ones = jnp.ones(ROWS)
    return Transition(TimeStep(first, 7 * ones, ones, batch), batch.action, TimeStep(now, 7 * ones, 0 * ones, other))


def made(name: str, real: bool = False, **settings: Any) -> Agent:
    return agent(name, recordings(envs=ROWS, real=real).spec, **settings)


def probed(name: str, real: bool = False, **settings: Any) -> tuple[Probe, np.ndarray]:
    """A probe whose target network is another one than the online network, and the losses of the five rows."""
    built = made(name, real, **settings)
    state = built.init(KEY, None)  # type: ignore[arg-type]
    other = built.init(jax.random.key(8), None)  # type: ignore[arg-type]
    target = other.learner.params if jax.tree.leaves(state.learner.target) else ()
    state = state._replace(learner=state.learner._replace(target=target))
    probe = built.probe(state, pair(logged(real)), clock_at(0))
    return probe, np.asarray(probe.losses(probe.learner.params))


def huber(errors: np.ndarray, bound: float) -> np.ndarray:
    size = np.abs(errors)
    return np.where(size <= bound, size**2 / 2, bound * (size - bound / 2))


def values(probe: Probe, params: Any, observation: Any) -> np.ndarray:
    return np.asarray(probe.scores(params, observation), np.float64)


def td_losses(probe: Probe, batch: Logged, discount: float, bound: float, *, double: bool = False) -> np.ndarray:
    rows = np.arange(ROWS)
    q = values(probe, probe.learner.params, batch.observation)[rows, batch.action]
    following = values(probe, probe.learner.target, batch.next_observation)
    selector = values(probe, probe.learner.params, batch.next_observation) if double else following
    chosen = following[rows, selector.argmax(1)]
    return huber(np.clip(batch.reward, -1, 1) + discount * np.asarray(batch.discount) * chosen - q, bound)


@pytest.mark.parametrize("double", [False, True])
def test_the_loss_of_dqn_is_that_of_the_equation(double: bool) -> None:
    probe, losses = probed("offline_dqn", discount=0.8, huber=0.3, double=double)
    np.testing.assert_allclose(losses, td_losses(probe, logged(), 0.8, 0.3, double=double), rtol=1e-5)


def test_the_conservative_term_by_hand() -> None:
    """``log(e + e^2 + e^3) - q_a``, and log 2 for equal values of two actions."""
    q = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, -100.0]])
    whole = np.log(np.exp(1) + np.exp(2) + np.exp(3))
    np.testing.assert_allclose(conservative_gap(q, jnp.array([0, 1])), [whole - 1, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(conservative_gap(q, jnp.array([2, 0])), [whole - 3, np.log(2)], rtol=1e-6)


def test_cql_adds_the_conservative_term_to_the_loss_of_dqn() -> None:
    probe, losses = probed("cql", alpha=0.7, discount=0.8)
    batch = logged()
    q = values(probe, probe.learner.params, batch.observation)
    gap = np.log(np.exp(q).sum(1)) - q[np.arange(ROWS), batch.action]
    np.testing.assert_allclose(losses, td_losses(probe, batch, 0.8, 1.0) + 0.7 * gap, rtol=1e-5)
    assert (gap > 0.1).all()


def test_the_loss_of_c51_is_the_cross_entropy_against_the_projection() -> None:
    """Three atoms -1, 0.5, 2: each shifted atom is shared between its two neighbours in proportion to distance."""
    low, high, atoms = -1.0, 2.0, 3
    probe, losses = probed("offline_c51", atoms=atoms, v_min=low, v_max=high, discount=0.8)
    batch, support = logged(), np.linspace(low, high, atoms)

    def distribution(params: Any, observation: Any) -> np.ndarray:
        out = np.asarray(probe.network.forward(params, observation)[0], np.float64).reshape(ROWS, 2, atoms)
        return np.exp(out) / np.exp(out).sum(-1, keepdims=True)

    now, then = (
        distribution(params, seen)
        for params, seen in (
            (probe.learner.params, batch.observation),
            (probe.learner.target, batch.next_observation),
        )
    )
    for row in range(ROWS):
        best = then[row] @ support
        projected = np.zeros(atoms)
        for weight, atom in zip(then[row, best.argmax()], support, strict=True):
            shifted = np.clip(batch.reward[row], -1, 1) + 0.8 * batch.discount[row] * atom
            place = (np.clip(shifted, low, high) - low) / 1.5
            projected += weight * np.maximum(0, 1 - np.abs(np.arange(atoms) - place))
        expected = -projected @ np.log(now[row, batch.action[row]])
        np.testing.assert_allclose(losses[row], expected, rtol=1e-4)


def test_the_losses_of_behavioural_cloning() -> None:
    """-log pi(a | s); the squared error; -log of a normal density, whose spread is clipped."""
    probe, losses = probed("bc")
    out = np.asarray(probe.scores(probe.learner.params, logged().observation), np.float64)
    log_p = out - np.log(np.exp(out).sum(1, keepdims=True))
    np.testing.assert_allclose(losses, -log_p[np.arange(ROWS), logged().action], rtol=1e-5)
    batch = logged(real=True)
    probe, losses = probed("bc", real=True)
    mean = np.asarray(probe.network.forward(probe.learner.params, batch.observation)[0])
    np.testing.assert_allclose(losses, np.square(mean - batch.action)[:, 0], rtol=1e-5)
    probe, losses = probed("bc", real=True, loss="gaussian")
    mean, spread = np.split(np.asarray(probe.network.forward(probe.learner.params, batch.observation)[0]), 2, axis=1)
    std = np.exp(np.clip(spread, -5, 2))
    density = np.exp(-np.square((batch.action - mean) / std) / 2) / (std * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(losses, -np.log(density)[:, 0], rtol=1e-4)


@pytest.mark.parametrize("name", OFFLINE)
def test_an_update_is_a_gradient_step_on_the_minibatch_of_the_step(name: str) -> None:
    """By plain descent on the losses of the recorded transitions; the reward of the stream has no part in it."""
    built = made(name, optimizer=functools.partial(sgd, learning_rate=0.1), target_period=2)
    state = built.init(KEY, None)  # type: ignore[arg-type]
    probe = built.probe(state, pair(logged()), clock_at(0))
    loss, slope = jax.value_and_grad(probe.loss)(state.learner.params)
    after, metrics = built.learn(KEY, state, pair(logged()), clock_at(0))
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.learner.params, slope)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), after.learner.params, expected)
    assert (float(metrics["loss"]), float(metrics["updates"])) == (pytest.approx(float(loss), rel=1e-5), 1.0)
    later, _ = built.learn(KEY, after, pair(logged()), clock_at(1))
    for target, params in ((after.learner.target, state.learner.params), (later.learner.target, later.learner.params)):
        if name != "bc":  # it has no target network
            jax.tree.map(np.testing.assert_array_equal, target, params)


def test_what_is_played() -> None:
    """The action of the largest score; with epsilon 1 every action is random."""
    for name in ("cql", "bc"):
        built = made(name)
        state = built.init(KEY, None)  # type: ignore[arg-type]
        seen = jnp.asarray(np.random.default_rng(3).normal(size=(200, 5)), jnp.float32)
        probe = built.probe(state, pair(logged()), clock_at(0))
        best = np.asarray(probe.scores(state.learner.params, seen)).argmax(1)
        played = built.play(KEY, state, seen, jnp.float32(0.0))
        np.testing.assert_array_equal(played, best)
        acted = built.act(KEY, state, logged(), clock_at(0))
        np.testing.assert_array_equal(acted, built.play(KEY, state, logged().observation, jnp.float32(0.0)))
        random = np.asarray(built.play(KEY, state, seen, jnp.float32(1.0)))
        assert random.dtype == np.int32
        assert 60 < random.sum() < 140


@pytest.mark.parametrize("name", OFFLINE)
def test_other_streams_are_refused(name: str) -> None:
    for other in ("dqn", "classifier"):
        with pytest.raises(ValueError, match=rf"agent.kind: {name} is not allowed; .*recorded transitions.* dataset"):
            agent(name, source(other).spec)


@pytest.mark.parametrize("name", ["offline_dqn", "offline_c51", "cql"])
def test_real_valued_actions_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"of discrete actions, such as dataset; this one has continuous actions$"):
        made(name, real=True)


def test_agents_that_act_refuse_recorded_transitions() -> None:
    spec: StreamSpec = recordings().spec
    with pytest.raises(ValueError, match=r"agent.kind: dqn is not allowed; .*this one has recorded transitions$"):
        agent("dqn", spec)


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"agent.loss: gaussian is not allowed; this stream has discrete actions"):
        made("bc", loss="gaussian")
    with pytest.raises(ValueError, match=r"agent.v_max: 0.5 is not allowed; must include the rewards"):
        made("offline_c51", v_max=0.5)


@pytest.mark.slow
def test_what_is_learned_from_random_and_from_skilled_actions(tmp_path: Any) -> None:
    """Q-learning finds the best actions in random data and cloning copies them; from skilled data both play well."""
    arms = "arms={dqn: {}, bc: {agent: {kind: bc, network: {kind: mlp, widths: [64, 64]}, optimizer: "
    arms += "{kind: adam, learning_rate: 1.0e-3}}}}"
    sizes = ["stream.steps_per_task=2000", "seeds=2", "monitors=[]", "evaluation={every: visit, episodes: 64}"]
    run = plasticity.run(launch.load_config("offline/catch", [*sizes, arms]), tmp_path / "run")
    found = run.evaluations.groupby(["arm", "step"])["episodic_return"].mean()
    assert found["dqn", 2000] > 0.8
    assert found["bc", 2000] < -0.3
    assert min(found["dqn", 4000], found["bc", 4000]) > 0.8
