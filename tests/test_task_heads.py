"""Methods that are told the task, by a one-hot in the observation: as an input, or by output layers for each task."""

import functools
import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from agent_cases import AGENTS, agent, clock_at, program, run, source
from chain import chain
from crashes import Laboratory, assert_same, tables
from method_cases import REFUSED

from plasticity import results
from plasticity.agents.actor_critic import shared
from plasticity.agents.actors_and_critics import StateAction, networks
from plasticity.agents.normalise import preprocessing
from plasticity.bench.streams import frames
from plasticity.core.errors import UserError
from plasticity.core.task_entries import appended, task_of
from plasticity.core.types import Transition, Visit
from plasticity.engine.lanes import lane_keys
from plasticity.engine.visits import own_task, scheduled
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.tasks import with_task
from plasticity.interventions import infer, plasticity_injection, reset
from plasticity.interventions.base import compose
from plasticity.interventions.task import task_heads, task_input
from plasticity.networks import task
from plasticity.networks.build import build
from plasticity.networks.layers import INITIALISERS
from plasticity.networks.presets import mlp, nature
from plasticity.networks.recurrent import gru
from plasticity.networks.spec import Head, NetworkSpec
from plasticity.runs import launch

KEY = jax.random.key(3)
BARE = NetworkSpec((3,), 2, widths=(5,))
TOLD = replace(BARE, task_entries=4)
HEADS, INPUT = task_heads().network, task_input().network
X, TASKS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), np.array([0, 1, 2, 3, 1, 0])


def seen(x: Any, tasks: Any, entries: int = 4) -> np.ndarray:
    """Vectors with the one-hot of each row's task behind them."""
    return np.concatenate([x, np.eye(entries, dtype=np.float32)[np.asarray(tasks)]], axis=-1)


def hidden(layer: Any, x: np.ndarray) -> np.ndarray:
    return np.maximum(x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)


def own_head(layer: Any, phi: np.ndarray, tasks: Any, outputs: int) -> np.ndarray:
    """Row by row the linear map of the row's task."""
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    columns = [slice(k * outputs, (k + 1) * outputs) for k in tasks]
    return np.stack([row @ kernel[:, own] + bias[own] for row, own in zip(phi, columns, strict=True)])


def unlike(params: Any) -> Any:
    """Other parameters of the same shapes, biases included."""
    return jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape), params)


# The entries of an observation.


@pytest.mark.parametrize(("kind", "one"), [(np.float32, 1), (np.uint8, 255), (np.bool_, True)])
def test_the_task_is_appended_to_the_last_axis(kind: Any, one: Any) -> None:
    pictures = np.random.default_rng(1).integers(0, 2, (2, 4, 5, 3)).astype(kind)
    made = np.asarray(appended(jnp.asarray(pictures), jnp.int32(1), 2))
    assert made.dtype == kind
    np.testing.assert_array_equal(made[..., :3], pictures)
    np.testing.assert_array_equal(made[..., 3:], np.broadcast_to(np.array([0, one], kind), (2, 4, 5, 2)))
    assert task_of(jnp.asarray(made), 2).tolist() == [1, 1]


def shown(stream: StreamFactory, seeds: list[int], visit: Visit, steps: int = 12) -> Any:
    """Time steps ``[steps, W, E, ...]`` of a visit, for actions 0, 1, 0, 1, ..."""
    made, keys = stream.make(len(seeds)), jax.vmap(lane_keys)(jnp.asarray(seeds)).data
    state, timestep = made.reset(keys, visit, jnp.int32(0))

    def step(carry: Any, i: Any) -> Any:
        state, timestep = made.step(keys, carry, jnp.full((len(seeds), stream.spec.envs), i % 2), clock_at(i))
        return state, (timestep, made.score(state, timestep))

    return timestep, jax.lax.scan(step, state, jnp.arange(steps))[1]


def test_each_lane_gets_its_own_task_and_the_same_episodes() -> None:
    plain = chain(2)
    plain = plain._replace(spec=scheduled(plain.spec, order="shuffled"))
    told, seeds = with_task(plain), list(range(6))
    keys = jax.vmap(lane_keys)(jnp.asarray(seeds)).data
    assert (told.spec.task_entries, told.spec.observation.shape, told.spec.visits) == (2, (7,), plain.spec.visits)
    for number in (0, 1):
        tasks = own_task(plain.spec, keys, jnp.int32(number))
        assert set(tasks.tolist()) == {0, 1}
        visit = Visit(jnp.int32(number), tasks)
        bare, ours = shown(plain, seeds, visit), shown(told, seeds, visit)
        for now, then in ((bare[0], ours[0]), (bare[1][0], ours[1][0])):
            for field in ("step_type", "reward", "discount"):
                np.testing.assert_array_equal(getattr(now, field), getattr(then, field))
            np.testing.assert_array_equal(then.observation[..., :5], now.observation)
            hot = np.broadcast_to(np.eye(2)[tasks][:, None], (*then.observation.shape[:-1], 2))
            np.testing.assert_array_equal(then.observation[..., 5:], hot)
        np.testing.assert_array_equal(bare[1][1], ours[1][1])


def test_a_supervised_stream_shows_it_with_the_input() -> None:
    plain = source("classifier")
    told = with_task(plain)
    visit = Visit(jnp.int32(1), jnp.int32(1))
    (bare, _), (ours, _) = shown(plain, [0], visit), shown(told, [0], visit)
    np.testing.assert_array_equal(ours.observation.target, bare.observation.target)
    np.testing.assert_array_equal(ours.observation.input[..., :-2], bare.observation.input)
    np.testing.assert_array_equal(ours.observation.input[..., -2:], np.broadcast_to([0.0, 1.0], (1, 2, 2)))


# Networks.


def test_a_row_s_output_is_the_linear_map_of_its_task() -> None:
    network = build(HEADS(TOLD))
    params = unlike(network.init(KEY))
    assert params["output"]["kernel"].shape == (5, 8)
    assert network.outputs == (("output",),)
    expected = own_head(params["output"], hidden(params["hidden_0"], X), TASKS, 2)
    outputs, activations = network.forward(params, seen(X, TASKS))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(activations["hidden_0"].post, hidden(params["hidden_0"], X), rtol=1e-5, atol=1e-6)


def test_the_heads_of_other_tasks_get_no_gradient() -> None:
    network = build(HEADS(TOLD))
    batch = seen(X, np.full(6, 2))
    gradient = jax.grad(lambda params: jnp.sum(network.forward(params, batch)[0] ** 2))(unlike(network.init(KEY)))
    for leaf in (gradient["output"]["kernel"], gradient["output"]["bias"]):
        own = np.zeros(8, bool)
        own[4:6] = True
        assert (np.asarray(leaf)[..., ~own] == 0).all()
        assert (np.asarray(leaf)[..., own] != 0).all()


def test_a_head_that_is_not_finite_stays_alone() -> None:
    network = build(HEADS(TOLD))
    params = network.init(KEY)
    params["output"]["kernel"] = params["output"]["kernel"].at[:, :2].set(jnp.inf)
    assert np.isfinite(network.forward(params, seen(X, np.full(6, 1)))[0]).all()


@pytest.mark.parametrize("name", sorted(INITIALISERS))
def test_each_head_is_drawn_like_the_layer_that_it_replaces(name: str) -> None:
    """With the fan-in and fan-out of one head; the first is the very layer."""
    bare = NetworkSpec((3,), 7, widths=(40,), initialiser=name, output_scale=0.5)
    plain, told = (build(spec).init(KEY) for spec in (bare, HEADS(replace(bare, task_entries=3))))
    np.testing.assert_array_equal(told["hidden_0"]["kernel"], plain["hidden_0"]["kernel"])
    heads = np.asarray(told["output"]["kernel"]).reshape(40, 3, 7).swapaxes(0, 1)
    np.testing.assert_array_equal(heads[0], plain["output"]["kernel"])
    for one, other in ((0, 1), (1, 2)):
        assert not np.isclose(heads[one], heads[other])[heads[one] != 0].any()
    for head in heads:
        assert abs(np.linalg.norm(head) / np.linalg.norm(heads[0]) - 1) < 0.3
        if name == "orthogonal":
            np.testing.assert_allclose(head.T @ head, 0.5 * np.eye(7), atol=1e-5)  # scale^2 times the gain's square
        if name == "sparse":
            assert ((head == 0).sum(axis=0) == 36).all()


def test_the_first_layer_reads_the_task_only_if_asked_to() -> None:
    both = compose(task_heads(), task_input()).network(TOLD)
    for spec, rows in ((HEADS(TOLD), 3), (INPUT(TOLD), 7), (both, 7), (TOLD, 3)):
        assert build(spec).init(KEY)["hidden_0"]["kernel"].shape == (rows, 5)
    network = build(INPUT(TOLD))
    params = unlike(network.init(KEY))
    expected = hidden(params["hidden_0"], seen(X, TASKS)) @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(network.forward(params, seen(X, TASKS))[0], expected, rtol=1e-5, atol=1e-6)
    ignoring, plain = build(TOLD), build(BARE)
    np.testing.assert_array_equal(
        ignoring.forward(plain.init(KEY), seen(X, TASKS))[0], plain.forward(plain.init(KEY), X)[0]
    )


def test_images_with_the_channels_first_get_planes() -> None:
    """As if the channels had been last and the planes had been there; bytes are divided by 255, the planes too."""
    pixels = np.random.default_rng(2).integers(0, 256, (2, 4, 36, 36), np.uint8)
    observation = jax.ShapeDtypeStruct((4, 36, 36 + 2), np.uint8)
    told = task.with_task(lambda *given: nature(*given, widths=(3,)), 2)(observation, 2)
    assert (told.observation, told.channels_first, told.reads) == ((4, 36, 36), True, (4, 36, 38))
    planes = np.zeros((2, 2, 36, 36), np.uint8)
    planes[0, 1], planes[1, 0] = 255, 255
    by_hand = nature(jax.ShapeDtypeStruct((6, 36, 36), np.uint8), 2, widths=(3,))
    network, expected = build(INPUT(told)), build(by_hand)
    params = unlike(expected.init(KEY))
    assert jax.tree.map(jnp.shape, network.init(KEY)) == jax.tree.map(jnp.shape, params)
    rows = [appended(jnp.asarray(pixels[i : i + 1]), jnp.int32(k), 2) for i, k in enumerate((1, 0))]
    np.testing.assert_allclose(
        network.forward(params, jnp.concatenate(rows))[0],
        expected.forward(params, np.concatenate([pixels, planes], axis=1))[0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_images_with_the_channels_last_keep_their_layout() -> None:
    """Also where the planes make the last axis the longest."""
    observation = jax.ShapeDtypeStruct((10, 10, 4 + 8), jnp.float32)
    told = task.with_task(lambda *given: nature(*given, padding="SAME"), 8)(observation, 2)
    assert not told.channels_first
    assert build(INPUT(told)).init(KEY)["hidden_0"]["kernel"].shape == (8, 8, 12, 32)
    assert build(HEADS(told)).init(KEY)["hidden_0"]["kernel"].shape == (8, 8, 4, 32)


def test_a_stack_of_frames_keeps_its_frames() -> None:
    """The trunk of a network that is not told the task sees the pixels alone."""
    plain = frames(side=36)
    spec = plain.spec._replace(tasks=("a", "b"))
    told = with_task(StreamFactory(spec, plain.make))
    visit = Visit(jnp.int32(0), jnp.int32(1))
    (bare, _), (ours, _) = shown(plain, [0], visit, 1), shown(told, [0], visit, 1)
    assert told.spec.observation.shape == (4, 36, 38)
    np.testing.assert_array_equal(ours.observation[..., :36], bare.observation)
    network: Any = task.with_task(lambda *given: nature(*given, widths=(4,)), 2)(told.spec.observation, 3)
    base, heads = build(replace(network, task_entries=0)), build(HEADS(network))
    params = heads.init(KEY)
    alone = {**params, "output": {name: leaf[..., 3:] for name, leaf in params["output"].items()}}
    expected = base.forward(alone, bare.observation[0])[0]
    np.testing.assert_allclose(heads.forward(params, ours.observation[0])[0], expected, rtol=1e-5, atol=1e-6)


def test_policy_and_value_have_heads() -> None:
    make = task.with_task(lambda *given: mlp(*given, widths=(5,)), 4)
    observation = jax.ShapeDtypeStruct((7,), jnp.float32)
    gains = {"policy": 0.01, "value": None}
    network = shared(make, observation, {"policy": 3, "value": 1}, gains, task_heads())
    params = unlike(network.init(KEY))
    made, _ = network.forward(params, seen(X, TASKS))
    phi = hidden(params["hidden_0"], X)
    for name, outputs in (("policy", 3), ("value", 1)):
        expected = own_head(params[f"{name}_output"], phi, TASKS, outputs)
        np.testing.assert_allclose(made[name], expected, rtol=1e-5, atol=1e-6)
    assert network.outputs == (("policy_output",), ("value_output",))


def test_critics_read_state_action_and_task() -> None:
    """The task is last, behind the action, and selects the critic's output."""
    spec = with_task(chain(real=True)).spec
    x, tasks, action = np.random.default_rng(1).normal(size=(6, 5)), np.array([0, 1, 1, 0, 1, 0]), np.linspace(-1, 1, 6)
    make = task.with_task(lambda *given: mlp(*given, widths=(5,)), 2)
    batch = StateAction(jnp.float32(seen(x, tasks, 2)), jnp.float32(action[:, None]))
    for method in (task_heads(), compose(task_heads(), task_input())):
        network = networks("sac", spec, make, make, 2, 2, method)
        params = unlike(network.init(KEY))
        made, _ = network.forward(params, batch)
        see = method.reads_task and method.network(TOLD).sees_task
        state = seen(x, tasks, 2) if see else x
        beside = np.concatenate([x, action[:, None], *([seen(x, tasks, 2)[:, 5:]] if see else [])], axis=-1)
        for name, inputs, outputs in (("actor", state, 2), ("critic_1", beside, 1), ("critic_2", beside, 1)):
            phi = hidden(params[name]["hidden_0"], inputs)
            expected = own_head(params[name]["output"], phi, tasks, outputs)
            np.testing.assert_allclose(made[name], expected, rtol=1e-4, atol=1e-5)


def test_dueling_streams_have_heads() -> None:
    spec = replace(TOLD, outputs=3, heads=(Head("value", 1, (4,)), Head("advantage", 2, (4,))))
    network = build(HEADS(spec))
    params = unlike(network.init(KEY))
    made, _ = network.forward(params, seen(X, TASKS))
    phi = hidden(params["hidden_0"], X)
    parts = [
        own_head(params[f"{name}_output"], hidden(params[f"{name}_hidden_0"], phi), TASKS, outputs)
        for name, outputs in (("value", 1), ("advantage", 2))
    ]
    np.testing.assert_allclose(made, np.concatenate(parts, axis=-1), rtol=1e-5, atol=1e-6)


def test_networks_with_memory_have_heads() -> None:
    torso = functools.partial(mlp, widths=(4,))
    make = task.with_task(lambda *given: gru(*given, torso=torso, units=4), 4)
    network = build(HEADS(make(jax.ShapeDtypeStruct((7,), jnp.float32), 2)))
    params = unlike(network.init(KEY))
    outputs = [network.forward(params, seen(X, np.full(6, k)))[0] for k in range(4)]
    (name,) = network.outputs[0]
    kernel, bias = (np.asarray(params[name][part]) for part in ("kernel", "bias"))
    phi = np.linalg.lstsq(kernel.T, (np.concatenate(outputs, axis=-1) - bias).T, rcond=None)[0].T
    np.testing.assert_allclose(phi @ kernel + bias, np.concatenate(outputs, axis=-1), rtol=1e-3, atol=1e-4)


def test_injection_and_an_auxiliary_layer_go_with_heads() -> None:
    network = build(compose(task_heads(), plasticity_injection(at=5, layers=0), infer()).network(TOLD))
    params = network.init(KEY)
    for name in ("output", "new_output", "anchor_output"):
        assert params[name]["kernel"].shape == (5, 8)
    plain = build(HEADS(TOLD))
    same = {name: params[name] for name in plain.init(KEY)}
    rows = seen(X, TASKS)
    np.testing.assert_allclose(network.forward(params, rows)[0], plain.forward(same, rows)[0], rtol=1e-5, atol=1e-6)
    assert network.forward(params, rows)[1]["auxiliary"].post.shape[0] == 6


# Agents.


def test_a_normaliser_leaves_the_task_alone() -> None:
    """And normalises the rest as it does without it."""
    plain = chain()
    told = with_task(plain)
    settings: Any = {"normalise": "running", "rate": 0.1, "scale_rewards": False, "discount": 0.9}
    bare, ours = (preprocessing(stream.spec, **settings) for stream in (plain, told))
    visit = Visit(jnp.int32(0), jnp.int32(1))
    states = [bare.init(), ours.init()]
    pairs = []
    for stream in (plain, told):
        first, (later, _) = shown(stream, [0], visit, 5)
        steps = [jax.tree.map(lambda x: x[0], first), *(jax.tree.map(lambda x, i=i: x[i, 0], later) for i in range(5))]
        pairs.append([Transition(a, jnp.zeros(2), b) for a, b in itertools.pairwise(steps)])
    for i, (one, other) in enumerate(zip(*pairs, strict=True)):
        states[0], *expected = bare.learn(states[0], one, clock_at(i))
        states[1], *found = ours.learn(states[1], other, clock_at(i))
        for now, then in zip(expected[:2], found[:2], strict=True):
            np.testing.assert_array_equal(then[:, :5], now)
            np.testing.assert_array_equal(then[:, 5:], np.broadcast_to([0.0, 1.0], (2, 2)))
    assert states[1]["normaliser"].mean.shape == (5,)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "stream_q" else pytest.mark.slow) for name in sorted(AGENTS)]
)
def test_until_the_first_switch_heads_change_nothing(name: str) -> None:
    """The first task's head begins as the plain agent's output layer, and both see the same stream."""
    if name in REFUSED["task_heads"]:
        pytest.skip("refuses heads for each task")
    plain, told = (list(run(program(name, *methods)).chunks()) for methods in ((), (task_heads,)))
    for one, other in zip(plain[0].metrics.items(), told[0].metrics.items(), strict=True):
        assert one[0] == other[0]
        np.testing.assert_allclose(one[1], other[1], rtol=2e-3, atol=1e-5, err_msg=one[0])
    assert any(not np.allclose(plain[1].metrics[key], told[1].metrics[key]) for key in ("loss", "reward"))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, method)
        for name in sorted(AGENTS)
        for method in (task_heads, task_input)
        if name not in REFUSED.get(method.__name__, ())
    ],
)
def test_what_an_agent_plays_depends_on_the_task_of_the_observation(name: str, method: Any) -> None:
    """Scores differ for the same observation in two tasks; the agent itself is not in either."""
    stream = with_task(source(name))
    made = agent(name, stream.spec, method())
    _, timestep = stream.make(1).reset(KEY[None], Visit(jnp.int32(0), jnp.int32(0)), jnp.int32(0))
    timestep = jax.tree.map(lambda x: x[0], timestep)
    state = made.init(KEY, timestep)
    action = made.act(KEY, state, timestep.observation, clock_at(0))
    state = state._replace(learner=state.learner._replace(params=unlike(state.learner.params)))
    probe = made.probe(state, Transition(timestep, action, timestep), clock_at(0))
    rows = probe.observation
    flipped = jax.tree.map(lambda x: x, rows)
    if isinstance(rows, StateAction):
        flipped = rows._replace(state=rows.state[:, [0, 1, 2, 3, 4, 6, 5]])
    else:
        order = [*range(rows.shape[-1] - 2), rows.shape[-1] - 1, rows.shape[-1] - 2]
        flipped = rows[..., jnp.array(order)]
    now, then = (probe.scores(state.learner.params, each) for each in (rows, flipped))
    assert now.shape == then.shape
    assert not np.allclose(now, then, atol=1e-4)


def test_a_reset_of_the_last_layer_resets_all_heads() -> None:
    stream = with_task(source("classifier"))
    method = compose(task_heads(), reset(modules="last", when="switch"))
    made = agent("classifier", stream.spec, method)
    _, timestep = stream.make(1).reset(KEY[None], Visit(jnp.int32(0), jnp.int32(0)), jnp.int32(0))
    state = made.init(KEY, jax.tree.map(lambda x: x[0], timestep))
    worn = state._replace(learner=state.learner._replace(params=jax.tree.map(jnp.ones_like, state.learner.params)))
    after = made.switch(KEY, worn, clock_at(0)).learner.params
    assert (after["hidden_0"]["kernel"] == 1).all()
    assert (after["output"]["kernel"] != 1).all()
    assert (after["output"]["bias"] == 0).all()


# Experiments.

ARMS: dict[str, Any] = {
    "plain": {},
    "heads": {"task_aware": True, "interventions": ["task_heads"]},
    "both": {"task_aware": True, "interventions": ["task_heads", "task_input"]},
}
INCREMENTAL = {
    "stream": {
        "kind": "class_incremental", "classes_per_task": 5, "shown": "new", "order": "fixed", "steps_per_task": 200,
        "envs": 32,
    },
    "agent": {"kind": "classifier", "network": {"kind": "mlp", "widths": [64]}, "optimizer": "adam"},
    "evaluation": {"every": "visit", "tasks": "seen", "steps": 20},
    "monitors": [],
    "record_every": 100,
    "seeds": 2,
}  # fmt: skip


@pytest.mark.slow
def test_with_heads_a_class_incremental_stream_is_task_incremental(tmp_path: Any) -> None:
    """Five digits, then the five others: a common head forgets the first ones, a head of their own does not."""
    launch.run(tiny.experiment(**INCREMENTAL, arms={name: ARMS[name] for name in ("plain", "heads")}), tmp_path / "run")
    found = results.evaluations(tmp_path / "run")
    last = found[(found["visit"] == 1) & (found["evaluated_task"] == found["evaluated_task"].min())]
    accuracy = last.groupby("arm")["reward"].mean()
    assert accuracy["plain"] < 0.2
    assert accuracy["heads"] > 0.6


def test_a_plan_says_which_arms_are_told_the_task(tmp_path: Any) -> None:
    planned = launch.plan(tiny.experiment(arms=ARMS))
    assert [arm["reads_task"] for arm in planned.describe()["arms"]] == [False, True, True]
    assert [job.program.spec.task_entries for job in planned.jobs] == [0, 3, 3]
    assert planned.spec.task_entries == 0


@pytest.mark.parametrize("method", ["task_input", "task_heads"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_aware": False}, "arms.x: interventions.{} must know the task; set `task_aware: true`"),
        (
            {"stream": {**tiny.document()["stream"], "tasks": 1}},
            "arms.x: interventions.{}: needs a stream with at least two tasks; this one has 1",
        ),
    ],
)
def test_what_is_refused(method: str, changes: dict[str, Any], message: str) -> None:
    settings = {"task_aware": True, "arms": {"x": {"interventions": [method]}}, **changes}
    with pytest.raises(UserError) as refused:
        launch.plan(tiny.experiment(**settings))
    assert str(refused.value) == message.format(method)


def test_observations_of_several_arrays_are_refused() -> None:
    plain = chain()
    several = plain.spec._replace(observation=(plain.spec.observation, plain.spec.observation))
    with pytest.raises(ValueError, match="needs observations that are one array"):
        with_task(plain._replace(spec=several))
    single = plain.spec._replace(observation=jax.ShapeDtypeStruct((), jnp.float32))
    with pytest.raises(ValueError, match="needs observations with an axis, got a single number"):
        with_task(plain._replace(spec=single))


def test_a_network_that_is_not_told_the_task_has_no_heads() -> None:
    for method in (task_heads(), task_input()):
        with pytest.raises(ValueError, match="needs observations that end in the task"):
            method.network(BARE)


def test_a_run_resumes_exactly(tmp_path: Any) -> None:
    """Killed in the middle of visits and at switches; each lane has its own order of tasks."""
    laboratory = Laboratory(
        tiny.experiment(
            arms={"heads": ARMS["both"]}, schedule={"order": "shuffled"}, evaluation={"every": "visit", "tasks": "all"},
            checkpoint_every=10, seeds=2,
        )
    )  # fmt: skip
    laboratory.run(tmp_path / "whole")
    whole = tables(tmp_path / "whole")
    for moment in (20, 35):
        run = tmp_path / str(moment)
        assert laboratory.killed(run, moment)
        laboratory.resume(run)
        assert_same(run, whole, f"killed at moment {moment}")
