"""Measures of a stream besides its reward: aggregates over episodes, against numbers worked out by hand."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scripted
import tiny
from agent_cases import clock_at, program, run
from chain import chain

from plasticity import plots, report, results
from plasticity.config.experiments import read_experiment
from plasticity.core.errors import UserError
from plasticity.core.types import FIRST, LAST, MID, Task, Visit
from plasticity.engine import evaluation, measures
from plasticity.engine.evaluation import Evaluation, Player
from plasticity.engine.runner import Run, current
from plasticity.envs.base import StreamFactory, vectorise
from plasticity.envs.transforms import TRANSFORMS
from plasticity.runs import launch

COLUMNS = ("success", "success_at_end", "height", "height_at_end")
# By chunk of five steps. First: env 0's first episode. Second: its episode from step 5 to 8, and env 1's from step 1
# to 7. Third: env 0's first episode after the switch, without the success before it. Fourth: no episode ends.
EXPECTED = {
    "success": [1, 1, 0, np.nan],
    "success_at_end": [0, 0.5, 0, np.nan],
    "height": [-1, (-2 - 8) / 2, -4, np.nan],
    "height_at_end": [-2, (-7 - 9) / 2, -4, np.nan],
}
SOURCES = {"pure": scripted.pure, "host": scripted.on_host}
EVALUATED = Evaluation(every=5, tasks="all", episodes=2, steps=10)


def lane_keys(lanes: int) -> jax.Array:
    return jax.random.split(jax.random.key(7), lanes)


def planned(source: StreamFactory, lanes: int = 1, **changes: Any) -> Any:
    return program("dqn", stream=source, seeds=tuple(range(lanes)), chunk=5)._replace(**changes)


def history(started: Run, names: tuple[str, ...] = COLUMNS) -> dict[str, np.ndarray]:
    chunks = list(started.chunks())
    return {name: np.stack([chunk.metrics[name] for chunk in chunks]) for name in names}


def assert_expected(found: dict[str, np.ndarray], lanes: int) -> None:
    for name, values in EXPECTED.items():
        np.testing.assert_array_equal(found[name], np.repeat(np.float32(values)[:, None], lanes, 1), err_msg=name)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("width", [1, 2])
def test_aggregates_by_hand(source: str, width: int) -> None:
    started = run(planned(SOURCES[source](), 2), width)
    assert_expected(history(started), 2)
    started.close()


def test_lanes_in_different_tasks_have_their_own_measures() -> None:
    """On the host they are a group of pools; a lane of task 1 first records what others record in the second visit."""
    spec = scripted.SPEC._replace(shuffled=True)
    source = scripted.on_host()
    mixed = StreamFactory(spec, lambda lanes: source.make(lanes)._replace(spec=spec))
    started = run(planned(mixed, 6), 6)
    started.begin()
    orders = np.stack([np.asarray(carry.stream.measures).shape for carry in started.carries])
    assert orders.tolist() == [[6, 2, 2]]
    firsts = [started.names(0)[lane] for lane in range(6)]
    assert set(firsts) == {"a", "b"}
    found = history(started)
    for lane, name in enumerate(firsts):
        order = [0, 1, 2, 3] if name == "a" else [2, 3, 0, 1]
        for column, values in EXPECTED.items():
            np.testing.assert_array_equal(found[column][:, lane], np.float32(values)[order])
    started.close()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("chunks", [2, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 3))])
def test_a_resumed_run_goes_on_as_if_nothing_had_happened(source: str, chunks: int) -> None:
    """After one chunk an episode is under way in both envs, whose largest values are in the saved carry."""
    before, after = run(planned(SOURCES[source]())), run(planned(SOURCES[source]()))
    going = before.chunks()
    made = [next(going).metrics for _ in range(chunks)]
    after.restore(jax.device_get(before.carries), before.position, before.compiled.stream.save())
    made += [chunk.metrics for chunk in after.chunks()]
    assert_expected({name: np.stack([each[name] for each in made]) for name in COLUMNS}, 1)
    for each in (before, after):
        each.close()


@pytest.mark.parametrize(
    ("episodes", "expected"),
    [
        (2, {"episodes": 2, "success": 1, "success_at_end": 0, "height": (-1 - 8) / 2, "height_at_end": (-2 - 9) / 2}),
        # Two episodes of each env are wanted, but the second of env 1 does not end.
        (4, {"episodes": 3, "success": 1, "success_at_end": 1 / 3, "height": -11 / 3, "height_at_end": -18 / 3}),
    ],
)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("width", [1, 3])
def test_evaluations_count_whole_episodes(source: str, width: int, episodes: int, expected: dict[str, float]) -> None:
    still = Player(
        lambda i, carry, seen: jnp.zeros(seen.shape[:-1], jnp.int32), tuple, lambda carry, seen, first: carry
    )
    stream, settings = SOURCES[source]().make(width), EVALUATED._replace(episodes=episodes)
    here = Visit(jnp.int32(0), jnp.int32(0), jnp.int32(1))
    go = jax.jit(functools.partial(evaluation.evaluate, stream, width, settings, still))
    found = go(lane_keys(width), here, jnp.int32(0))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], np.full(width, value), rtol=1e-6, err_msg=name)
    stream.close()


def test_an_evaluation_without_an_episode_has_no_measures() -> None:
    books = evaluation.blank(2, 1)
    found = evaluation.summary(books, jnp.int32(3), True, ("success",))
    assert np.isnan([found["success"], found["success_at_end"]]).all()


def test_a_run_has_evaluations_of_every_task() -> None:
    """Task b within ten steps: one episode of env 0 alone, without success."""
    chunks = list(run(planned(scripted.pure(), evaluation=EVALUATED)).chunks())
    for chunk in chunks:
        by_task = {each.task: each.metrics for each in chunk.evaluations}
        assert by_task["a"]["success"] == 1
        assert by_task["a"]["height_at_end"] == -5.5
        assert (by_task["b"]["success"], by_task["b"]["height"]) == (0, -4)
        assert chunk.metrics["evaluation_success"] == by_task[chunk.task]["success"]
        assert chunk.metrics["evaluation_height_at_end"] == by_task[chunk.task]["height_at_end"]
    assert current(chunks[0].evaluations).keys() == {"evaluation_return"}


def test_measures_that_are_not_finite_are_recorded_as_missing_and_do_not_freeze_a_lane() -> None:
    source = scripted.pure()

    def make(lanes: int) -> Any:
        stream = source.make(lanes)
        return stream._replace(measures=lambda state, timestep: stream.measures(state, timestep) * jnp.nan)

    chunks = list(run(planned(source._replace(make=make))).chunks())
    assert all(np.isnan(chunk.metrics["success"]).all() for chunk in chunks)
    assert all((chunk.diverged_at == -1).all() for chunk in chunks)
    assert all(np.isfinite(chunk.metrics["reward"]).all() for chunk in chunks)


def test_a_stream_without_measures_keeps_nothing_for_them() -> None:
    started = run(planned(chain(2, 10, 2), evaluation=EVALUATED))
    started.begin()
    assert started.carries[0].measures == ()
    named = ("agent", "stream", "timestep", "recent", "episode_return", "monitors", "updates", "diverged_at")
    paths = jax.tree_util.tree_flatten_with_path(started.carries[0])[0]
    assert {str(path[0]).lstrip(".") for path, _ in paths} <= set(named)  # what a checkpoint stores
    (chunk, *_) = started.chunks()
    assert not [name for name in chunk.metrics if name.endswith("_at_end")]
    assert {name for each in chunk.evaluations for name in each.metrics} == {
        "episodes", "episodic_return", "episode_length"
    }  # fmt: skip


def test_the_parts_by_hand() -> None:
    """Two envs, one measure; the first env starts an episode, the second ends one."""
    best, values = jnp.array([[4.0], [1.0]]), jnp.array([[9.0], [3.0]])
    kinds = jnp.array([FIRST, LAST])
    after = measures.largest(best, values, kinds)
    assert after.tolist() == [[-np.inf], [3.0]]
    assert measures.ended(after, values, kinds == LAST).tolist() == [[[0.0, 0.0]], [[3.0, 3.0]]]
    assert measures.largest(after, values - 1, jnp.array([MID, MID])).tolist() == [[8.0], [3.0]]
    assert measures.columns(("success",)) == ("success", "success_at_end")
    assert measures.ranges(scripted.SPEC)["evaluation_height_at_end"] == (-9.0, 0.0)


SETTINGS: dict[str, dict[str, Any]] = {
    "scale_reward": {"factor": (1.0, 10.0)},
    "clip_reward": {"low": -0.5, "high": 0.5},
    "delay_reward": {"steps": 2},
    "observation_noise": {"deviation": 0.5},
    "observation_dropout": {"probability": 0.5},
    "observation_offset": {"deviation": 2.0},
    "sticky_actions": {"probability": 0.5},
    "frame_stack": {"frames": 3},
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("source", SOURCES)
def test_transforms_pass_measures_on(name: str, source: str) -> None:
    """Once, and on top of another transform."""
    inner = TRANSFORMS["permute_observations"]()(SOURCES[source]())
    transformed = TRANSFORMS[name](**SETTINGS.get(name, {}))(inner)
    assert transformed.spec.measures == scripted.MEASURES
    stream = transformed.make(2)
    keys = lane_keys(2)
    state, _ = stream.reset(keys, Visit(jnp.int32(0), jnp.int32(0)), jnp.int32(0))
    for t in range(3):
        state, timestep = stream.step(keys, state, jnp.zeros((2, 2), jnp.int32), clock_at(t))
        found = stream.measures(state, timestep)
        np.testing.assert_array_equal(found, np.broadcast_to(scripted.VALUES[0, :, t], (2, 2, 2)))
    stream.close()


def test_a_task_gives_the_measures_of_its_state() -> None:
    """A walk that measures its place: the episode ends at 4."""
    spec = scripted.SPEC._replace(measures=("place",), measure_ranges=())
    task = Task(
        spec,
        params=lambda key, visit: jnp.int32(0),
        reset=lambda key, params: (jnp.int32(1), jnp.zeros(2)),
        step=lambda key, state, action, params: (state + action, jnp.zeros(2), 0.0, 1.0, state + action == 4),
        measures=lambda state: jnp.float32(state)[None],
    )
    stream = vectorise(task, 2, 2)
    state, timestep = stream.reset(lane_keys(2), Visit(jnp.int32(0), jnp.int32(0)), jnp.int32(0))
    actions = jnp.array([[0, 1], [1, 1]])
    for t, places in enumerate(([[1, 2], [2, 2]], [[1, 3], [3, 3]], [[1, 4], [4, 4]], [[1, 1], [1, 1]])):
        state, timestep = stream.step(lane_keys(2), state, actions, clock_at(t))
        assert stream.measures(state, timestep)[..., 0].tolist() == places


SCRIPTED = "import scripted\ndef odd():\n    return scripted.pure()\n"


@pytest.mark.slow
def test_a_runs_tables_figures_and_report_show_measures(plugin: Any, tmp_path: Path) -> None:
    plugin("streams", SCRIPTED)
    asked = {"every": 5, "tasks": "all", "episodes": 2, "steps": 10}
    changes = {"stream": "odd", "record_every": 5, "monitors": [], "seeds": 2, "evaluation": asked, **tiny.DQN}
    experiment = read_experiment(tiny.document(**changes), launch.registry())
    folder = launch.run(experiment, tmp_path / "run")
    table = results.load(folder)
    for name, values in EXPECTED.items():
        for _, rows in table.groupby("lane"):
            np.testing.assert_array_equal(rows[name], np.float32(values), err_msg=name)
    found = results.evaluations(folder)
    by_task = found.groupby("evaluated_task")[list(COLUMNS)].mean()
    np.testing.assert_allclose(by_task.loc["a"], [1, 0, -4.5, -5.5])
    np.testing.assert_allclose(by_task.loc["b"], [0, 0, -4, -4])

    plan = results.plan(folder)
    assert plan["stream"]["measures"] == list(COLUMNS)
    ranges = results.metric_ranges(plan)
    assert (ranges["success_at_end"], ranges["evaluation_height"]) == ((0.0, 1.0), (-9.0, 0.0))
    matrix = results.performance_matrix(folder, measure="success")
    assert matrix.alike
    np.testing.assert_array_equal(matrix.values, np.broadcast_to([1.0, 0.0], (2, 2, 2)))
    assert results.forgetting(matrix).overall["forgetting"].tolist() == [0.0]
    with pytest.raises(ValueError, match=r'have no column "succes"; .* did you mean `success`'):
        results.performance_matrix(folder, measure="succes")
    with pytest.raises(ValueError, match="scaled: true is not allowed with measure: 'success'"):
        results.performance_matrix(folder, measure="success", scaled=True)

    collected = report.collect([folder])
    charts = {chart["label"]: chart for chart in collected["groups"][0]["charts"]["stream"]}
    assert charts["success"]["range"] == [0.0, 1.0]
    assert charts["evaluation on a, success"]["lines"]
    assert "success" not in [chart["name"] for chart in collected["groups"][0]["charts"].get("monitors", [])]
    first = collected["groups"][0]["runs"][0]["measured"][0]
    assert (first["value"], first["rows"][0]["cells"]["a"]) == ("success", [1.0, 1.0, 1.0])
    assert "without learning: success at end." in report.page(collected)
    panels = [axis.get_title() for axis in plots.figures(folder)["monitors"].axes]
    assert {"success", "success at end", "height", "evaluation success"} <= set(panels)


@pytest.mark.parametrize("name", ["reward", "step", "episode_length", "evaluation_return", "seed"])
def test_a_measure_with_the_name_of_another_column_is_refused(name: str, plugin: Any) -> None:
    plugin("streams", STREAM.format(name))
    with pytest.raises(UserError, match=f"stream: the measure `{name}` has the name of another column; leave it out"):
        launch.plan(read_experiment(tiny.document(stream="odd"), launch.registry()))


STREAM = (
    "from plasticity.envs.targets import relabelled\n"
    "def odd():\n"
    "    source = relabelled(inputs='gaussian', samples=16, dimensions=4, classes=3, tasks=2, steps_per_task=20)\n"
    "    return source._replace(spec=source.spec._replace(measures=('{}',)))\n"
)


def test_a_measure_with_the_name_of_an_agents_metric_is_refused() -> None:
    spec = scripted.SPEC._replace(measures=("loss", "height"))
    source = scripted.pure()
    odd = StreamFactory(spec, lambda lanes: source.make(lanes)._replace(spec=spec))
    with pytest.raises(ValueError, match="stream: the measure `loss` has the name of a metric of the agent; leave it"):
        list(run(planned(odd)).chunks())
