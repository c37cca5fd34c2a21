"""Replay of sequences: windows by hand, and whole updates of a recurrent agent against slow loops."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import EPSILON, clock_at, program, run
from chain import chain
from q_reference import Settings, script
from recurrent_reference import UNITS, Shape, jitted, learned, walk
from replay_cases import KEY, SPEC, STEPS, live, pairs

from plasticity.agents import AGENTS
from plasticity.agents.noisy import noisy, perturbed
from plasticity.agents.priorities import get
from plasticity.agents.replay import Item
from plasticity.agents.replay_source import Sampling
from plasticity.agents.replays import prioritised_sequences, sequences, uniform
from plasticity.agents.sequences import mixed
from plasticity.agents.value_based import error_loss, error_size, rescaled, unscaled
from plasticity.agents.windows import Layout, as_windows
from plasticity.core.types import FIRST, StreamSpec, TimeStep, Transition, VisitPlan
from plasticity.engine.evaluation import Evaluation
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.build import build
from plasticity.networks.presets import mlp
from plasticity.networks.recurrent import gru, lstm, rtu
from plasticity.optim.optimizers import sgd
from plasticity.optim.schedules import constant

TORSO = functools.partial(mlp, widths=(6,))
GRU = functools.partial(gru, torso=TORSO, units=UNITS)
BATCH, SIZES = 3, {"capacity": 200, "minimum": 24}
REPLAYS: dict[str, Any] = {
    "uniform": sequences,
    "prioritised": functools.partial(
        prioritised_sequences, exponent=0.7, eta=0.6, importance=functools.partial(constant, value=0.5)
    ),
}


# Windows by hand.


def items(**changes: Any) -> Item:
    """One window of 7 items: an episode ends by termination at item 3; item 4 starts the next."""
    whole = {
        "frame": jnp.arange(7.0)[:, None],
        "first": jnp.asarray([0, 0, 0, 0, 1, 0, 0], bool),
        "action": jnp.arange(7),
        "reward": jnp.asarray([9.0, 1, 2, 4, 8, 16, 32]),
        "discount": jnp.asarray([1.0, 1, 0, 1, 1, 1, 1]),
    }
    return jax.tree.map(lambda x: x[None], Item(**(whole | changes)))


def test_a_window_by_hand():
    windows = as_windows(items(), jnp.ones((1, 2)), Layout(burn_in=1, length=4, n=2, stack=0), 0.5, None)
    assert windows.past.observation[:, 0, 0].tolist() == [0]
    assert windows.observation[:, 0, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert windows.first[:, 0].tolist() == [False, False, False, True, False, False]
    assert windows.action.tolist() == [1, 2, 3, 4]
    # item 1: 1 + .5 * 2, then terminal; 2: terminal; 3 joins two episodes; 4: a whole 2-step return
    np.testing.assert_allclose(windows.reward, [2.0, 2.0, 0.0, 16.0])
    np.testing.assert_allclose(windows.discount, [0.0, 0.0, 1.0, 0.25])
    assert windows.ends.tolist() == [2, 2, 2, 5]
    assert windows.valid.tolist() == [True, True, False, True]


def test_two_windows_are_ordered_by_step_then_window():
    both = jax.tree.map(lambda x: jnp.concatenate([x, x]), items())
    windows = as_windows(both, jnp.ones((2, 2)), Layout(burn_in=0, length=4, n=2, stack=0), 0.5, None)
    assert windows.action.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert windows.ends.tolist() == [4, 5, 6, 7, 6, 7, 6, 7]  # rows of [6, 2]: item 3 both times, then item 3 itself


def test_frames_of_a_window_are_stacked_within_their_episode():
    windows = as_windows(items(), jnp.ones((1, 2)), Layout(burn_in=1, length=3, n=1, stack=3), 0.5, None)
    # The first two items only supply frames; item 4 is a FIRST.
    assert windows.past.observation[0, 0, :, 0].tolist() == [0, 1, 2]
    assert windows.observation[:, 0, :, 0].tolist() == [[1, 2, 3], [4, 4, 4], [4, 4, 5], [4, 5, 6]]
    assert windows.action.tolist() == [3, 4, 5]


def test_priorities_by_hand():
    errors = jnp.asarray([[1.0, 2.0], [-3.0, 7.0], [5.0, -4.0]]).ravel()  # of two sequences
    valid = jnp.asarray([[1, 1], [1, 0], [0, 1]], bool).ravel()
    np.testing.assert_allclose(mixed(errors, valid, 2, 0.9), [0.9 * 3 + 0.1 * 2, 0.9 * 4 + 0.1 * 3], rtol=1e-6)
    np.testing.assert_array_equal(mixed(errors, jnp.zeros(6, bool), 2, 0.9), [0, 0])


@pytest.mark.parametrize("huber", [0.0, 0.5, 2.0])
def test_the_size_of_an_error_from_its_loss(huber):
    errors = jnp.asarray([-9.0, -2.0, -0.5, 0.0, 1e-3, 0.4, 3.0])
    np.testing.assert_allclose(error_size(error_loss(errors, huber), huber), abs(errors), rtol=1e-6)


def test_rescaling_and_its_inverse():
    x = np.asarray([-300.0, -2.0, -1e-3, 0.0, 1e-3, 1.0, 40.0, 3e4])
    expected = np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + 1e-3 * x
    np.testing.assert_allclose(rescaled(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(unscaled(jnp.asarray(expected)), x, rtol=1e-5, atol=1e-6)


# Which windows can be sampled.


@pytest.mark.parametrize("stack", [0, 2])
@pytest.mark.parametrize("kind", list(REPLAYS))
def test_complete_windows_and_their_carries(kind, stack):
    """Against a list of what each row holds, while the buffer fills and after it has wrapped."""
    shape = (stack, 1) if stack else (1,)
    spec = StreamSpec(jax.ShapeDtypeStruct(shape, jnp.float32), 2, ("a",), (VisitPlan(0, 90),), 2, True, stack=stack)
    sampling = Sampling(64, 1, 0.9, None, lambda envs: jnp.zeros((envs, 1)))
    layout = {"length": 4, "burn_in": 2, "overlap": 1}  # windows of 7 steps (8 items with a stack), every 3
    memory = REPLAYS[kind](spec, sampling, capacity=2 * 22, minimum=20, **layout)
    add, draw = jax.jit(memory.add), jax.jit(memory.sample)
    state, rows, span = memory.init(), 21, 7 + (stack == 2)
    held = np.full(rows, -1)
    for t in range(60):
        steps = [TimeStep(*(jnp.full(2, x) for x in (1, 0.0, 1.0)), jnp.full((2, *shape), 1.0 * i)) for i in (t, t + 1)]
        state = add(state, Transition(steps[0], jnp.zeros(2, jnp.int32), steps[1]), jnp.full((2, 1), 100.0 + t))
        held[t % rows] = t
        starts = [
            int(held[row])
            for row in range(0, rows, 3)
            if held[row] >= 0 and all(held[(row + i) % rows] == held[row] + i for i in range(span))
        ]
        if t < 11:
            assert bool(memory.ready(state)) == (t >= 9)
        if t in (12, 30, 31, 32, 45, 59):
            windows = draw(state, jax.random.key(t), jnp.int32(t)).batch
            first = windows.past.observation[0].reshape(64, -1)[:, -1]  # its newest frame
            assert set(first.tolist()) == {x + (stack == 2) for x in starts}
            np.testing.assert_array_equal(windows.past.carry[:, 0], first + 100)
            np.testing.assert_array_equal(windows.observation[-1].reshape(64, -1)[:, -1], first + 6)


# Whole updates.


def agent(kind: str = "uniform", name: str = "dqn", watch: Intervention | None = None, **changes: Any) -> Any:
    replay = functools.partial(
        REPLAYS[kind], **SIZES, **changes.pop("shape", {"length": 4, "burn_in": 2, "overlap": 2})
    )
    plain: dict[str, Any] = {
        "network": GRU,
        "optimizer": functools.partial(sgd, learning_rate=0.5),
        "epsilon": EPSILON,
        "replay": replay,
        "batch_size": BATCH,
        "update_period": 3,
        "target_period": 2,
    }
    return AGENTS[name](SPEC, compose(*([watch] if watch else [])), **(plain | changes))


def keep(updates: int, steps: int) -> Intervention:
    """Record the gradients and observations of every update."""

    def init(key: Any, params: Any, network: Any) -> Any:
        rows = jax.tree.map(lambda x: jnp.zeros((updates, *x.shape)), params)
        return rows, jnp.full((updates, steps, BATCH, 3), jnp.nan)

    def step(key: Any, state: Any, learner: Any, seen: Any) -> Any:
        i = seen.clock.update
        gradients = jax.tree.map(lambda all, new: all.at[i].set(new), state[0], seen.gradients)
        return (gradients, state[1].at[i].set(seen.observation.observation)), learner

    return Intervention(init=init, step=step)


CASES = {
    "double, 2 steps": ("uniform", Shape(3, 4, 2), Settings(0.9, 1.0, 1.5, 2, True, 0.0, 2), False),
    "rescaled, no burn-in": ("uniform", Shape(0, 5, 1), Settings(0.9, 0.3, 1.5, 1, False, 0.0, 2), True),
    "prioritised": ("prioritised", Shape(2, 4, 2), Settings(0.9, 1.0, 1.5, 3, True, 0.0, 2), False),
}


SOON = [pytest.param(case, marks=[] if case == "prioritised" else pytest.mark.slow) for case in CASES]


@pytest.mark.slow
@pytest.mark.parametrize("case", SOON)
def test_updates_against_slow_loops(case):
    kind, shape, settings, rescale = CASES[case]
    lengths = {"length": shape.length, "burn_in": shape.burn_in, "overlap": shape.length - shape.stride}
    updates = (STEPS - 12) // 3 + 1
    learner = agent(
        kind,
        watch=keep(updates, shape.length),
        shape=lengths,
        discount=settings.discount,
        huber=settings.huber,
        reward_clip=settings.reward_clip,
        n_step=settings.n_step,
        double=settings.double,
        value_rescaling=rescale,
    )
    first = jax.tree.map(lambda x: x[0], pairs().previous)

    def everything() -> Any:
        start = learner.init(KEY, first)
        return start, live(learner, start, watch=lambda state: (state.learner, state.rest))

    start, (state, metrics, (learners, rests)) = jax.jit(everything)()
    before = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), start.learner, learners)
    life, gradients, seen = script(), state.plugins[0][0], state.plugins[0][1]
    carries = np.asarray(before.carry["memory"])
    check_acting(life, before.params, carries)
    done = np.flatnonzero(np.asarray(metrics["updates"]))
    assert done.tolist() == list(range(11, 30, 3))
    slots = 100 // shape.stride
    for i, t in enumerate(done):
        found = [np.argwhere((life.observation == seen[i, 0, b]).all(-1))[0] for b in range(BATCH)]
        places = [(int(s) - shape.burn_in, int(env)) for s, env in found]
        assert all(s % shape.stride == 0 for s, _ in places)
        numbers = np.ones(BATCH)
        if kind == "prioritised":  # those from before the update
            stored = jnp.asarray([env * slots + s // shape.stride for s, env in places])
            after = jax.tree.map(lambda x, t=t: x[t], rests["replay"].tree)
            earlier = [jax.tree.map(lambda x, j=j: x[j], rests["replay"].tree) for j in range(t)]
            largest = np.concatenate([[1.0], rests["replay"].largest])[t]
            numbers = np.asarray(get(earlier[-1], stored))
            numbers = np.where(numbers > 0, numbers, largest)  # completed by this very step
        weights = (numbers.min() / numbers) ** (0.5 if kind == "prioritised" else 0.0)
        here = jax.tree.map(lambda x, t=t: x[t], before)
        expected = learned(life, here.params, here.target, carries, places, weights, shape, settings, rescale)
        np.testing.assert_allclose(metrics["loss"][t], expected.loss, rtol=2e-5)
        made = jax.tree.map(lambda x, i=i: x[i], gradients)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6), made, expected.gradient)
        if kind == "prioritised":
            sizes = [np.abs(each) for each in expected.errors]
            wanted = [(0.6 * max(each) + 0.4 * np.mean(each)) ** 0.7 for each in sizes]
            np.testing.assert_allclose(get(after, stored), wanted, rtol=2e-4)


def check_acting(life: Any, params: Any, carries: np.ndarray) -> None:
    """The carry before every step is that of the episode so far, each step with the parameters of its time."""
    for env in range(2):
        hidden = jnp.zeros(UNITS)
        for t in range(STEPS):
            hidden = hidden * (life.step_type[t, env] != FIRST)
            np.testing.assert_allclose(carries[t, env], hidden, rtol=1e-4, atol=1e-6)
            now = jax.tree.map(lambda x, t=t: x[t], params)
            _, hidden = walk(life, now, hidden, env, range(t, t + 1), jitted)


def test_a_probe_recalls_the_rows_in_the_order_of_time():
    """The monitors' ring of 8 slots, 13 steps in: values of both networks as a walk from its oldest step makes them."""
    made, slots, now = agent(huber=0.0, n_step=1), 8, 13
    state = made.init(KEY, jax.tree.map(lambda x: x[0], pairs().previous))
    other = jax.tree.map(lambda x: x + 0.1, state.learner.params)
    state = state._replace(learner=state.learner._replace(target=other))
    oldest, life = now - slots, script()
    ring = jax.tree.map(lambda x: jnp.roll(x[oldest:now], oldest % slots, axis=0).reshape(-1, *x.shape[2:]), pairs())
    probe = made.probe(state, ring, clock_at(now))
    losses = np.asarray(probe.losses(state.learner.params)).reshape(slots, 2)
    valid, q = np.asarray(probe.valid).reshape(slots, 2), probe.scores(state.learner.params, probe.observation)
    for env in range(2):
        steps = range(oldest, now + 1)
        own, theirs = (
            walk(life, params, jnp.zeros(UNITS), env, steps, jitted)[0] for params in (state.learner.params, other)
        )
        np.testing.assert_allclose(q.reshape(slots, 2, -1)[:, env], own[:-1], rtol=1e-5, atol=1e-6)
        for i, t in enumerate(range(oldest, now)):
            assert valid[i, env] == (life.step_type[t + 1, env] != FIRST)
            if valid[i, env]:
                reward = np.clip(life.reward[t + 1, env], -1, 1)
                target = reward + 0.99 * life.discount[t + 1, env] * theirs[i + 1].max()
                error = target - own[i][life.action[t, env]]
                np.testing.assert_allclose(losses[i, env], error**2 / 2, rtol=1e-4, atol=1e-6)


# Whole runs.

NETWORKS = {
    "gru": GRU,
    "lstm": functools.partial(lstm, torso=TORSO, units=4, widths=(3,)),
    "rtu": functools.partial(rtu, torso=TORSO, units=4, gradient="bptt"),
}
SHORT = {"capacity": 60, "minimum": 16, "length": 4, "burn_in": 2, "overlap": 2}
ALWAYS = Evaluation(10, episodes=4, steps=40)


def planned(name: str = "dqn", network: str = "gru", **settings: Any) -> Any:
    kind = prioritised_sequences if name == "rainbow" else sequences
    importance = {"importance": functools.partial(constant, value=0.6)} if name == "rainbow" else {}
    replay = functools.partial(kind, **SHORT, **importance)
    plain = {"stream": chain(2, 30), "network": NETWORKS[network], "replay": replay, "chunk": 10}
    return program(name, **(plain | settings))


def chunks(plan: Any, width: int = 1) -> list[dict[str, np.ndarray]]:
    return [dict(chunk.metrics) for chunk in run(plan, width).chunks()]


@functools.cache
def whole() -> list[dict[str, np.ndarray]]:
    """An uninterrupted run without evaluation."""
    return chunks(planned())


@pytest.mark.parametrize(
    ("name", "network", "settings"),
    [
        ("dqn", "gru", {"double": True, "n_step": 2}),
        pytest.param("dqn", "rtu", {"gradient_steps": 2}, marks=pytest.mark.slow),
        pytest.param("c51", "lstm", {"double": True}, marks=pytest.mark.slow),
        pytest.param("rainbow", "gru", {}, marks=pytest.mark.slow),
        pytest.param("rainbow", "lstm", {"noisy": True}, marks=pytest.mark.slow),
    ],
)
def test_a_lane_alone_equals_the_lane_among_others(name, network, settings):
    plan = planned(name, network, **settings)
    alone, among = chunks(plan), chunks(plan._replace(seeds=np.asarray([0, 1], np.int32)), 2)
    assert sum(each["update"][0] for each in alone) > 0
    for one, two in zip(alone, among, strict=True):
        for key, value in one.items():
            np.testing.assert_allclose(value[0], two[key][0], rtol=2e-4, atol=1e-6, err_msg=key)
    assert np.isfinite(alone[-1]["loss"]).all()


@pytest.mark.slow
def test_a_resumed_run_equals_one_without_interruption():
    """Everything between two chunks is in the carries of the lanes."""
    plan = planned()
    first = run(plan)
    part = first.chunks()
    before = [dict(next(part).metrics) for _ in range(2)]
    again = run(plan)
    again.restore(jax.device_get(first.carries), first.position, first.compiled.stream.save())
    after = [dict(chunk.metrics) for chunk in again.chunks()]
    for one, two in zip(whole(), [*before, *after], strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])


def test_evaluation_has_its_own_carry():
    """It starts fresh, so evaluating twice gives the same, and learning does not notice."""
    evaluated = run(planned()._replace(evaluation=ALWAYS))
    seen = []
    for chunk in evaluated.chunks():
        seen.append({k: v for k, v in chunk.metrics.items() if not k.startswith("evaluation")})
        again = [each.metrics for each in evaluated._evaluations()]
        for one, two in zip(chunk.evaluations, again, strict=True):
            jax.tree.map(np.testing.assert_array_equal, dict(one.metrics), dict(two))
    assert all((each.metrics["episodes"] > 0).all() for each in chunk.evaluations)
    for one, two in zip(whole(), seen, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])


def test_advancing_for_evaluation_is_a_walk():
    made, life = agent(), script()
    state = made.init(KEY, jax.tree.map(lambda x: x[0], pairs().previous))
    carry = made.initial()
    for t in range(12):
        first = jnp.asarray(life.step_type[t + 1] == FIRST)
        state = state._replace(learner=state.learner._replace(carry=carry))
        carry = made.advance(state, jnp.asarray(life.observation[t]), first)
    for env in range(2):
        _, hidden = walk(life, state.learner.params, jnp.zeros(UNITS), env, range(12), jitted)
        hidden = hidden * (life.step_type[12, env] != FIRST)
        np.testing.assert_allclose(carry["memory"][env], hidden, rtol=1e-5, atol=1e-6)


def test_a_cell_gets_no_noise():
    network = build(GRU(SPEC.observation, 4))
    plain, extended = network.init(KEY), noisy(network, 0.5).init(KEY)
    moved = perturbed(jax.random.key(9), extended)
    jax.tree.map(np.testing.assert_array_equal, extended["memory"], plain["memory"])
    jax.tree.map(np.testing.assert_array_equal, moved["memory"], plain["memory"])
    for module in ("torso_hidden_0", "output"):
        assert (moved[module]["kernel"] != plain[module]["kernel"]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replay": functools.partial(uniform, **SIZES)}, "single transitions are not allowed with a network that has"),
        ({"network": TORSO}, "sequences need a network with memory"),
        ({"shape": {"length": 4, "overlap": 4}}, "overlap: 4 is not allowed; must be below the length, 4"),
        ({"shape": {"length": 30, "burn_in": 8, "overlap": 10}}, r"minimum: 24 is not allowed; must be between 78 and"),
        (
            {"shape": {"length": 80, "burn_in": 40, "overlap": 40}},
            r"capacity: 200 is not allowed; must be at least 320",
        ),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        agent(**settings)
