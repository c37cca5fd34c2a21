"""REINFORCE against an independent reference in NumPy: returns, baselines, unfinished episodes, updates, acting."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import clock_at, program, run, source
from chain import chain
from ppo_reference import LAST, Linear, log_softmax
from ppo_reference import Settings as Coefficients
from q_reference import FIRST, Script, script
from rollout_cases import KEY, as_pairs, live

from plasticity.agents import reinforce
from plasticity.core.types import Agent, StreamSpec, Transition, VisitPlan
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.presets import mlp
from plasticity.networks.recurrent import gru
from plasticity.optim.optimizers import adam, sgd

SPEC = StreamSpec(jax.ShapeDtypeStruct((3,), jnp.float32), 4, ("a",), (VisitPlan(0, 30),), 2, True)
REAL = SPEC._replace(actions=2, discrete=False)
LENGTH, STEPS, RATE = 10, 30, 0.05


class Settings(NamedTuple):
    discount: float = 0.9
    baseline: str = "none"
    value_coefficient: float = 0.7
    entropy_coefficient: float = 0.02
    normalise_advantages: bool = False
    average: str = "episodes"
    unfinished: str = "discard"
    tail: int = 0
    truncation: str = "terminal"


def small(spec: StreamSpec = SPEC, *interventions: Intervention, **settings: Any) -> Agent:
    usual = {
        "network": functools.partial(mlp, widths=(), initialiser="orthogonal"),
        "optimizer": functools.partial(sgd, learning_rate=RATE),
        "rollout_length": LENGTH,
        "policy_gain": 1.0,
    }
    return reinforce(spec, compose(*interventions), **(usual | settings))


def life(spec: StreamSpec = SPEC) -> Script:
    found = script()
    if spec.discrete:
        return found
    return found._replace(action=np.random.default_rng(1).normal(size=(STEPS, 2, 2)).astype(np.float32))


class Step(NamedTuple):
    x: np.ndarray
    action: Any
    target: float
    value: float
    ends: bool


def steps_used(found: Script, start: int, settings: Settings, values: np.ndarray) -> list[Step]:
    """The steps of a rollout that are learned from; each return is summed forwards from its step."""
    used = []
    for t, env in np.ndindex(LENGTH - settings.tail, 2):
        now, total, weight = start + t, 0.0, 1.0
        if found.step_type[now + 1, env] == FIRST:
            continue
        last = now + 1
        while True:
            total += weight * float(found.reward[last, env])
            over = found.step_type[last, env] == LAST
            weight *= settings.discount * float(found.discount[last, env])
            if over or last == start + LENGTH:
                break
            last += 1
        bootstraps = settings.truncation == "bootstrap" if over else settings.unfinished == "bootstrap"
        if not over and settings.unfinished == "discard":
            continue
        total += weight * values[last, env] * bootstraps
        ends = bool(found.step_type[now + 1, env] == LAST)
        used.append(Step(found.observation[now, env], found.action[now, env], total, values[now, env], ends))
    return used


def update(reference: Linear, used: list[Step], settings: Settings) -> dict[str, float]:
    """One step of gradient descent; returns the metrics."""
    x, target = np.array([s.x for s in used], float), np.array([s.target for s in used])
    action, value = np.array([s.action for s in used]), np.array([s.value for s in used])
    base = {"none": 0.0, "mean": target.mean(), "value": value}[settings.baseline]
    advantage = target - base
    if settings.normalise_advantages:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    count = len(used) if settings.average == "steps" else max(sum(s.ends for s in used), 1)
    log_p = reference.log_probability(x, action)
    in_outputs, in_scale, entropy, h_outputs, h_scale = reference.slopes(x, action)
    slope, scale = (
        (-advantage[:, None] * a - settings.entropy_coefficient * h) / count
        for a, h in ((in_outputs, h_outputs), (in_scale, h_scale))
    )
    made = {"policy_loss": float(-(advantage * log_p).mean()), "entropy": float(entropy.mean())}
    rows = -advantage * log_p - settings.entropy_coefficient * entropy
    reference.policy = {
        "kernel": reference.policy["kernel"] - RATE * x.T @ slope,
        "bias": reference.policy["bias"] - RATE * slope.sum(0),
    }
    if reference.log_std is not None:
        reference.log_std = reference.log_std - RATE * scale.sum(0)
    if settings.baseline == "value":
        error = value - target
        rows, made["value_loss"] = rows + settings.value_coefficient * error**2 / 2, float((error**2 / 2).mean())
        push = settings.value_coefficient * error[:, None] / count
        reference.value = {
            "kernel": reference.value["kernel"] - RATE * x.T @ push,
            "bias": reference.value["bias"] - RATE * push.sum(0),
        }
    return made | {"loss": float(rows.sum() / count), "used_steps": len(used) / (2 * LENGTH), "updates": 1.0}


def reference_of(params: Any) -> Linear:
    blank = {"output": {"kernel": np.zeros((3, 1)), "bias": np.zeros(1)}}
    return Linear({"value": blank, **params}, Coefficients())


def values_of(reference: Linear, found: Script) -> np.ndarray:
    values: np.ndarray = reference.values(found.observation.astype(float))
    return values


CASES = {
    "plain": (SPEC, Settings()),
    "real": (REAL, Settings(average="steps", baseline="mean")),
    "mean": (SPEC, Settings(baseline="mean", unfinished="cut")),
    "value": (SPEC, Settings(baseline="value", unfinished="bootstrap", truncation="bootstrap")),
    "value cut": (SPEC, Settings(baseline="value", unfinished="cut", average="steps")),
    "tail": (SPEC, Settings(tail=4, discount=1.0, normalise_advantages=True)),
    "real value": (REAL, Settings(baseline="value", truncation="bootstrap", average="steps", tail=2)),
}


@pytest.mark.parametrize("case", CASES)
def test_three_rollouts_agree_with_an_independent_reference(case):
    spec, settings = CASES[case]
    agent, found = small(spec, log_std=-0.3, **settings._asdict()), life(spec)
    start = agent.init(KEY, None)
    state, metrics, _ = jax.device_get(jax.jit(lambda: live(agent, start, as_pairs(found)))())
    reference, expected = reference_of(jax.device_get(start.learner.params)), []
    for rollout in range(3):
        values = values_of(reference, found)
        used = steps_used(found, LENGTH * rollout, settings, values)
        assert len(used) > 3
        expected.append(update(reference, used, settings))
    learned = state.learner.params
    for leaf, values in reference.policy.items():
        np.testing.assert_allclose(learned["policy"]["output"][leaf], values, atol=3e-5)
    if settings.baseline == "value":
        for leaf, values in reference.value.items():
            np.testing.assert_allclose(learned["value"]["output"][leaf], values, atol=3e-5)
    assert ("value" in learned) == (settings.baseline == "value")
    if reference.log_std is not None:
        np.testing.assert_allclose(learned["scale"]["log_std"], reference.log_std, atol=3e-5)
    assert set(metrics) == set(expected[0])
    for name in metrics:
        numbers = [each[name] for each in expected]
        np.testing.assert_allclose(metrics[name][LENGTH - 1 :: LENGTH], numbers, rtol=1e-3, atol=1e-4, err_msg=name)
        np.testing.assert_array_equal(np.delete(metrics[name], [9, 19, 29]), 0.0)


def test_the_script_has_every_kind_of_end():
    """From the letters of the episodes: rows that are no transition, and rows whose episode ends in a later rollout."""
    kept = {}
    for name, settings in {"cut": Settings(unfinished="cut"), "discard": Settings(), "tail": Settings(tail=4)}.items():
        kept[name] = [len(steps_used(life(), LENGTH * i, settings, np.zeros((31, 2)))) for i in range(3)]
    assert kept == {"cut": [18, 15, 18], "discard": [11, 9, 10], "tail": [7, 8, 8]}


@pytest.mark.parametrize("spec", [SPEC, REAL], ids=["discrete", "real"])
def test_steps_that_are_not_used_never_enter(spec):
    """Neither those that join two episodes nor those of an unfinished one, even if their density is 0."""
    found = life(spec)
    rows = [(t, env) for t in range(STEPS) for env in range(2)]
    used = np.zeros((STEPS, 2), bool)
    for i in range(3):
        for step in steps_used(found, LENGTH * i, Settings(), np.zeros((31, 2))):
            (place,) = [(t, env) for t, env in rows if (found.observation[t, env] == step.x).all()]
            used[place] = True
    assert 10 < (~used).sum() < 40
    wanted = as_pairs(found)
    reward = jnp.where(used, wanted.current.reward, 1e6)
    action = jnp.where(used, wanted.action, 3 - wanted.action) if spec.discrete else (
        jnp.where(used[..., None], wanted.action, 1e30)
    )  # fmt: skip
    agent = small(spec, baseline="mean", normalise_advantages=True)
    lived = jax.jit(lambda wanted: live(agent, agent.init(KEY, None), wanted)[:2])
    first = lived(wanted)
    second = lived(Transition(wanted.previous, action, wanted.current._replace(reward=reward)))
    chex.assert_tree_all_finite(first[0].learner)
    chex.assert_trees_all_equal(first[0].learner, second[0].learner)
    chex.assert_trees_all_equal(first[1], second[1])


def test_two_logits_are_a_logistic_regression_with_twice_the_step_size():
    """``P(1) = sigmoid(w o + b)`` with gradients by hand, from the same ``w`` and ``b``; also with Adam."""
    spec = SPEC._replace(actions=2)
    found = life()._replace(action=life().action % 2)
    settings = Settings(entropy_coefficient=0.0)
    agent = small(spec, **settings._asdict())
    start = agent.init(KEY, None)
    state, *_ = jax.jit(lambda: live(agent, start, as_pairs(found)))()
    output = jax.device_get(start.learner.params["policy"]["output"])
    w, b = (np.asarray(output[name][..., 1] - output[name][..., 0], float) for name in ("kernel", "bias"))
    before = w.copy()
    for i in range(3):
        used = steps_used(found, LENGTH * i, settings, np.zeros((31, 2)))
        slope = [(s.action - 1 / (1 + np.exp(-(s.x @ w + b)))) * s.target for s in used]
        episodes = sum(s.ends for s in used)
        w = w + 2 * RATE * sum(g * s.x for g, s in zip(slope, used, strict=True)) / episodes
        b = b + 2 * RATE * sum(slope) / episodes
    learned = state.learner.params["policy"]["output"]
    np.testing.assert_allclose(learned["kernel"][:, 1] - learned["kernel"][:, 0], w, atol=1e-4)
    np.testing.assert_allclose(learned["bias"][1] - learned["bias"][0], b, atol=1e-4)
    assert np.abs(w - before).max() > 0.05


def test_a_tail_makes_the_estimate_unbiased():
    """One state, two actions, half each: 0 ends the episode with reward 1; 1 goes on for 3 more steps, with reward 1.

    The returns are equal, so the gradient is 0. ``discard`` drops more long episodes than short ones and prefers 0.
    """
    spec = StreamSpec(jax.ShapeDtypeStruct((3,), jnp.float32), 2, ("a",), (VisitPlan(0, 6),), 4096, True)
    rng = np.random.default_rng(0)
    shape = (7, spec.envs)
    step_type, action = np.zeros(shape, np.int8), np.zeros((6, spec.envs), np.int32)
    reward, choice = np.zeros(shape), np.zeros(shape, bool)
    for env in range(spec.envs):
        plan: list[tuple[int, int, float, bool]] = []
        while len(plan) < 20:
            long = rng.random() < 0.5
            plan.append((FIRST, int(long), 0.0, True))
            plan += [(1, 0, 0.0, False)] * 3 * long + [(LAST, 0, 1.0, False)]
        begin = rng.integers(0, 8)
        for t, (kind, chosen, value, first) in enumerate(plan[begin : begin + 7]):
            step_type[t, env], reward[t, env], choice[t, env] = kind, value, first
            if t < 6:
                action[t, env] = chosen
    observation = np.where(choice[..., None], [1.0, 0.0, 0.0], 0.0).astype(np.float32)
    found = Script(step_type, reward.astype(np.float32), (step_type != LAST).astype(np.float32), observation, action)
    pushes = {}
    for tail in (0, 4):
        agent = small(spec, rollout_length=6, tail=tail, discount=1.0, average="steps", baseline="none")
        start = agent.init(KEY, None)
        start.learner.params["policy"]["output"]["kernel"] = jnp.zeros((3, 2))
        state, *_ = jax.jit(lambda agent=agent, start=start: live(agent, start, as_pairs(found)))()
        kernel = state.learner.params["policy"]["output"]["kernel"]
        pushes[tail] = float(kernel[0, 1] - kernel[0, 0]) / RATE
    assert pushes[0] < -0.05
    assert abs(pushes[4]) < 0.02


def test_what_monitors_see():
    """The loss with one-step advantages: without a learned value, the reward alone."""
    found = life()
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), as_pairs(found))
    valid = found.step_type[1:] != FIRST
    for baseline in ("none", "value"):
        agent = small(baseline=baseline, discount=0.8, entropy_coefficient=0.1)
        state = agent.init(KEY, None)
        reference = reference_of(state.learner.params)
        values = values_of(reference, found)
        kept = np.where(found.step_type[1:] == LAST, 0.0, found.discount[1:])
        error = found.reward[1:] + 0.8 * kept * values[1:] - values[:-1]
        log_p = log_softmax(reference.outputs(found.observation[:-1]))
        taken = np.take_along_axis(log_p, found.action[..., None], -1)[..., 0]
        rows = -error * taken + 0.1 * (np.exp(log_p) * log_p).sum(-1)
        rows += 0.25 * error**2 * (baseline == "value")
        loss = agent.probe(state, batch, clock_at(0)).loss(state.learner.params)
        np.testing.assert_allclose(loss, rows[valid].mean(), rtol=1e-5)


@pytest.mark.parametrize("baseline", ["mean", pytest.param("value", marks=pytest.mark.slow)])
def test_a_network_with_memory_learns_through_a_rollout(baseline):
    network = functools.partial(gru, torso=functools.partial(mlp, widths=()), units=4)
    agent = small(network=network, baseline=baseline, trunk="shared" if baseline == "value" else "separate")
    start = agent.init(KEY, None)
    state, metrics, _ = jax.jit(lambda: live(agent, start, as_pairs(life())))()
    chex.assert_tree_all_finite(state.learner.params)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), start.learner.params, state.learner.params)
    assert min(jax.tree.leaves(moved)) > 0
    assert (np.asarray(metrics["updates"])[LENGTH - 1 :: LENGTH] == 1).all()


REFUSED = [
    ({"actions": "continuous"}, r"agent\.actions: continuous is not allowed; the stream's actions are discrete"),
    ({"rollout_length": 7}, r"agent\.rollout_length: 7 is not allowed; must divide the 30 steps"),
    ({"tail": 10}, r"agent\.tail: 10 is not allowed; must be below rollout_length, which is 10"),
    ({"baseline": "meen"}, r'agent\.baseline: "meen" is not allowed; must be one of none, mean, value'),
    (
        {"unfinished": "bootstrap"},
        r"agent\.unfinished: bootstrap is not allowed with baseline: none",
    ),
    ({"truncation": "bootstrap", "baseline": "mean"}, r"agent\.truncation: bootstrap is not allowed with baseline"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_a_supervised_stream_is_refused(name):
    with pytest.raises(ValueError, match=r"agent\.kind: reinforce is not allowed"):
        small(source(name).spec, rollout_length=1)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_it_solves_the_chain(baseline):
    """The best return is 1, that of random actions about 0.65."""
    learning = {"rollout_length": 32, "discount": 0.8, "baseline": baseline}
    network, rule = functools.partial(mlp, widths=(32,)), functools.partial(adam, learning_rate=0.02)
    stream = chain(1, 1280, 8)
    arm = program("reinforce", stream=stream, seeds=(0, 1, 2), chunk=128, network=network, optimizer=rule, **learning)
    returns = np.stack([chunk.metrics["episodic_return"] for chunk in run(arm, width=3).chunks()])
    assert returns[0].mean() < 0.9
    assert (returns[-1] > 0.97).all()
