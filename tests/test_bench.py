"""Benchmarks: the rows make sense and the report is readable; no time is asserted."""

import inspect
import json
import math
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from plasticity import bench
from plasticity.bench import (
    agents,
    convolution,
    interventions,
    monitors,
    placements,
    report,
    stream_rates,
    timing,
)
from plasticity.bench.cases import CASES, job
from plasticity.bench.streams import FILM, frames, vectors
from plasticity.cli.main import app
from plasticity.core.errors import UserError
from plasticity.core.types import Clock, Visit
from plasticity.engine.lanes import Placement
from plasticity.interventions import INTERVENTIONS
from plasticity.runs import launch

FAST = timing.Effort(2, 0.0)


def test_contenders_take_turns_and_every_other_round_runs_backwards():
    log: list[str] = []
    turns = timing.interleaved({name: lambda name=name: log.append(name) for name in "abc"}, timing.Effort(3, 0.0))  # type: ignore[misc]
    assert "".join(log) == "aabbcc" + "abc" + "cba" + "abc"
    assert {name: len(seconds) for name, seconds in turns.items()} == {"a": 3, "b": 3, "c": 3}


def test_seconds_are_those_of_one_call_and_a_turn_is_long_enough(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def work() -> None:
        calls.append(1)
        now[0] += 2.0

    (seconds,) = timing.interleaved({"work": work}, timing.Effort(3, 9.0)).values()
    assert seconds == [2.0, 2.0, 2.0]
    assert len(calls) == 2 + 3 * 5  # two that are not counted; five of 2 s fill a turn of 9 s


def test_ratio_is_the_median_over_turns_and_not_of_medians():
    assert timing.ratio([1.0, 10.0, 3.0], [2.0, 20.0, 3.0]) == 0.5


def test_candidates_are_distinct_placements_with_the_automatic_one_among_them():
    found = placements.candidates(8, 2, (1, 2, 4, 8), Placement(2, 4, 1))
    one = [Placement(1, 8, 1), Placement(1, 4, 2), Placement(1, 2, 4), Placement(1, 1, 8)]
    assert found == sorted([*one, Placement(2, 4, 1), Placement(2, 2, 2), Placement(2, 1, 4)])
    assert placements.candidates(1, 2, (1, 2), Placement(1, 1, 1)) == [Placement(1, 1, 1)]
    assert Placement(2, 1, 3) in placements.candidates(6, 2, (1, 2), Placement(2, 3, 1))  # all lanes of a device


@pytest.fixture(scope="module")
def speeds() -> list[placements.Speed]:
    compiled: dict[placements.Shape, object] = {}
    rows = placements.measure("regressor_5", CASES["regressor_5"], 2, (1, 2), FAST, compiled)
    assert set(compiled) == {(1, 1), (1, 2), (2, 1)}
    return rows


@pytest.mark.slow
def test_lanes_rows_are_sane(speeds):
    assert sorted((row.devices, row.groups, row.width) for row in speeds) == [(1, 1, 2), (1, 2, 1), (2, 1, 1)]
    assert sum(row.automatic for row in speeds) == 1
    assert max(row.of_best for row in speeds) >= 1
    assert [row.of_best for row in speeds].count(1.0) >= 1
    assert all(row.updates_per_second > 0 and row.of_best > 0 for row in speeds)
    assert all((row.case, row.lanes) == ("regressor_5", 2) for row in speeds)


def test_the_verdict_names_the_automatic_placement_the_best_one_and_a_missed_target():
    slow = placements.Speed("tiny", 4, 2, 2, 1, True, 50.0, 0.5)
    fast = placements.Speed("tiny", 4, 1, 1, 4, False, 100.0, 1.0)
    assert placements.verdicts([slow, fast]) == [
        "tiny, 4 lanes: automatic 2 x 2 x 1 runs at 0.50 of the best, 1 x 1 x 4 (target 0.9)"
    ]
    (line,) = placements.verdicts([slow._replace(automatic=False), fast._replace(automatic=True)])
    assert line.endswith("runs at 1.00 of the best, 1 x 1 x 4")


@pytest.mark.parametrize("name", CASES)
def test_cases_are_placed_as_run_places_them_and_one_more_chunk_is_always_there(name):
    planned = job(CASES[name], 3)
    assert len(planned.program.seeds) == 3
    assert planned.program.chunk == CASES[name].chunk
    assert planned.program.spec.visits[0].steps >= 10**8
    assert planned.placement.devices == min(3, len(launch.devices()))


@pytest.mark.parametrize("make", [vectors, frames])
def test_streams_give_what_their_spec_says(make):
    stream = make().make(2)
    keys, zero = jax.random.split(jax.random.key(0), 2), jnp.int32(0)
    state, timestep = stream.reset(keys, Visit(zero, zero), zero)
    seen = []
    for i in range(FILM + 2):
        state, timestep = stream.step(keys, state, jnp.full((2, 1), i % 6), Clock(jnp.int32(i), zero, zero, zero))
        assert timestep.observation.shape == (2, 1, *stream.spec.observation.shape)
        assert timestep.observation.dtype == stream.spec.observation.dtype
        seen.append((timestep.observation, timestep.reward))
    assert not np.array_equal(seen[0][0], seen[1][0])
    if make is frames:  # the newest frames of one step are the older ones of the next; the film begins again
        np.testing.assert_array_equal(seen[0][0][:, :, 1:], seen[1][0][:, :, :-1])
        np.testing.assert_array_equal(seen[0][0], seen[FILM][0])
    else:
        np.testing.assert_array_equal(seen[3][1][:, 0], seen[2][0][:, 0, 3])  # action 3 on the observation before


@pytest.mark.slow
def test_scan_and_single_calls_descend_alike():
    """The contenders of the convolution benchmark compute the same parameters."""
    init, step = convolution.descent("patches", 36)
    _, other = convolution.descent("lax", 36)
    params = init(jax.random.key(0))
    pictures = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 36, 36), np.uint8))
    for a, b in zip(*(jax.tree.leaves(jax.jit(each)(params, pictures)) for each in (step, other)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_convolution_rows():
    contenders = (convolution.Contender("auto", "scan", 2), convolution.Contender("lax", "alone", 1))
    rows = convolution.measure(1, 2, FAST, contenders, side=36)
    assert [(row.batch, row.lanes, row.method, row.where) for row in rows] == [
        (1, 2, "auto", "scan"),
        (1, 2, "lax", "alone"),
    ]
    assert all(row.milliseconds > 0 for row in rows)
    assert rows[1].of_lax_alone == 1
    assert len(convolution.verdicts(rows)) == 1


@pytest.mark.slow
def test_monitor_rows():
    (row,) = monitors.measure("MLP", ["weight_norm"], 2, FAST)
    assert (row.monitor, row.learner, row.lanes) == ("weight_norm", "MLP", 2)
    assert row.milliseconds > 0
    assert row.steps > 0
    np.testing.assert_allclose(row.share, row.steps / 2_000)  # the quickstart's period
    (line,) = monitors.verdicts([row, row._replace(monitor="effective_rank", share=0.25), row._replace(monitor="ntk")])
    assert f"every 2,000 steps or their default multiple of it add {row.share + 0.25:.1%} (at most 10%)" in line


@pytest.mark.slow
def test_intervention_costs_are_split_into_what_is_due_and_what_is_always_there():
    period = inspect.signature(INTERVENTIONS["redo"]).parameters["period"].default
    assert interventions.variants("layer_norm") == {"between": {"kind": "layer_norm"}}
    assert interventions.variants("reset") == {"between": {"kind": "reset"}}  # acts at switches alone
    assert interventions.variants("redo")["due"] == {"kind": "redo", "period": 1}
    bare = agents.advance(interventions.running(CASES["classifier"], 1))
    row = interventions.measure("redo", "classifier", bare, 1, FAST)
    assert row.due is not None
    np.testing.assert_allclose(row.on_average, row.between + (row.due - row.between) / period)
    (line,) = interventions.verdicts([row, row._replace(intervention="upgd")])
    assert line.startswith(f"redo, classifier: {row.on_average:.2f} times")


@pytest.mark.slow
@pytest.mark.parametrize("learner", interventions.LEARNERS)
def test_every_intervention_can_be_timed(learner):
    """By shapes only: a plan refuses what the learner cannot have."""
    for name in interventions.timed():
        for member in interventions.variants(name, learner).values():
            assert job(interventions.LEARNERS[learner], 1, interventions=[member]).program


def test_a_method_that_does_not_fit_is_left_out_of_the_costs(monkeypatch):
    said = []
    monkeypatch.setattr(interventions, "timed", lambda: ("neuroplastic_expansion",))
    monkeypatch.setattr(interventions, "CHANGED", {})
    monkeypatch.setattr(interventions, "LEARNERS", {"classifier": CASES["classifier"]})
    monkeypatch.setattr(interventions, "THOROUGH", FAST)
    assert interventions.interventions(said.append) == []
    assert said[-1].startswith("interventions: neuroplastic_expansion left out: arms.baseline: interventions.neuro")


@pytest.mark.slow
def test_agent_rows_count_the_steps_of_all_lanes_and_envs(monkeypatch):
    stream = {"kind": "catch", "steps_per_task": 10_000, "envs": 3}
    network = {"kind": "mlp", "widths": [4]}
    settings = {"kind": "dqn", "network": network, "replay": {"minimum": 30, "capacity": 300}}
    case = agents.agent(stream, 20, (1, 2), {2: 10**9}, **settings)
    seconds = {1: [0.5, 0.25, 9.0], 2: [0.5, 0.25, 1.0]}
    monkeypatch.setattr(
        agents, "interleaved", lambda works, effort: {n: seconds[n] for n in works if works[n]() is None}
    )
    one, two = agents.measure("tiny", case, (1, 2), FAST)
    assert (one.steps_per_second, two.steps_per_second) == (20 * 3 / 0.5, 2 * 20 * 3 / 0.5)
    assert (one.of_one_lane, two.of_one_lane) == (1.0, 2.0)
    assert agents.verdicts([one, two]) == ["tiny, 2 lanes: 240 env steps/s (target 1,000,000,000)"]


@pytest.mark.slow
@pytest.mark.parametrize("name", agents.CASES)
def test_agents_of_the_benchmark_can_be_run(name):
    planned = job(agents.CASES[name].case, 2)
    assert planned.program.spec.visits[0].steps > 10**7


class Row(NamedTuple):
    name: str
    value: float


@pytest.fixture
def fake(monkeypatch):
    measured = report.Benchmark("a title", lambda say, quick: say("measuring") or [Row("a", 0.25 if quick else 2.5)])
    monkeypatch.setattr(report, "BENCHMARKS", {"fake": measured, "other": measured._replace(title="another")})


def test_report_is_json_with_the_machine_and_the_rows(fake, speeds):
    found = bench.run(["fake"], quick=True)
    document = json.loads(bench.as_json(found))
    assert document["benchmarks"] == {"fake": [{"name": "a", "value": 0.25}]}
    assert document["quick"] is True
    assert document["machine"]["cpus"] == len(os.sched_getaffinity(0))
    assert document["machine"]["jax"] == jax.__version__
    assert document["machine"]["device_kind"] == jax.devices()[0].device_kind
    rows = json.loads(bench.as_json(found._replace(results=(bench.Result("lanes", speeds, ()),))))["benchmarks"][
        "lanes"
    ]
    assert [row["automatic"] for row in rows].count(True) == 1
    assert all(math.isfinite(row["updates_per_second"]) for row in rows)


def test_names_select_and_an_unknown_one_lists_the_known(fake):
    assert [result.name for result in bench.run([]).results] == ["fake", "other"]
    assert [result.name for result in bench.run(["other", "other"]).results] == ["other"]
    with pytest.raises(UserError, match="unknown benchmark `lane`; known: fake, other"):
        bench.run(["fake", "lane"])


def test_command_prints_tables_and_writes_the_file(fake, tmp_path):
    path = tmp_path / "speed.json"
    done = CliRunner().invoke(app, ["bench", "fake", "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert "a title" in done.output
    assert "2.5" in done.output
    assert json.loads(path.read_text())["benchmarks"]["fake"][0]["value"] == 2.5
    failed = CliRunner().invoke(app, ["bench", "fake", "--json", str(tmp_path / "no" / "such.json")])
    assert isinstance(failed.exception, UserError)


def test_what_was_measured_before_a_stop_is_in_the_file(fake, monkeypatch, tmp_path):
    def stopped(say, quick):
        raise KeyboardInterrupt

    monkeypatch.setitem(report.BENCHMARKS, "other", report.Benchmark("stops", stopped))
    path = tmp_path / "speed.json"
    CliRunner().invoke(app, ["bench", "--json", str(path)])
    assert json.loads(path.read_text())["benchmarks"] == {"fake": [{"name": "a", "value": 2.5}]}


def test_tables_mark_what_is_automatic():
    console = Console(record=True, width=120)
    row = placements.Speed("tiny", 4, 2, 2, 1, True, 123456.0, 0.5)
    result = bench.Result("lanes", [row, row._replace(automatic=False)], ("so it is",))
    bench.show(bench.Report({"cpus": 2}, False, (result,)), console)
    text = console.export_text()
    assert text.count("*") == 1
    assert text.count("123,456") == 2
    assert "so it is" in text


@pytest.mark.slow
def test_a_stream_that_makes_arrays_does_not_cost_the_other_devices():
    """In a process of its own: the regression's factory touches JAX before anything is placed."""
    code = """
import os
from plasticity.runs import launch
from plasticity.bench.cases import CASES, job
planned = job(CASES["regressor_5"], 8)
assert len(launch.devices()) == len(os.sched_getaffinity(0)), launch.devices()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_quick_version_of_everything():
    found = bench.run(quick=True)
    assert [result.name for result in found.results] == list(bench.BENCHMARKS)
    assert all(result.rows for result in found.results)
    json.loads(bench.as_json(found))


@pytest.mark.slow
def test_rates_of_streams():
    rows = stream_rates.streams(lambda line: None, quick=True)
    assert [(row.stream, row.envs) for row in rows] == [(n, e) for n in ("catch", "relabelled") for e in (1, 8)]
    assert all(row.steps_per_second > 0 and not row.on_host and row.overhead is None for row in rows)
    assert stream_rates.verdicts(rows) == []
    slow = stream_rates.Rate("atari", 8, 10.0, True, 0.2)
    assert stream_rates.verdicts([slow]) == ["atari, 8 envs: the host path adds 20.0% (at most 15%)"]


def test_rows_of_a_stream_with_other_settings():
    source = stream_rates.source_of("class_incremental, shapes", 3)
    assert source.spec.observation.input.shape == (32, 32, 3)
    assert (source.spec.envs, source.spec.visits[0].steps) == (3, 1000)  # those of the example
    assert stream_rates.source_of("class_incremental", 3).spec.observation.input.shape == (64,)


def test_a_stream_is_compiled_once_before_it_is_timed():
    source = launch.registry().factory("streams", "catch")(rows=3, envs=1)
    seen = []
    stream = source.make(1)
    spied = stream._replace(step=lambda *given: seen.append(given[3].step) or stream.step(*given))
    work = stream_rates.playing(source, spied)
    work()
    work()
    assert len(seen) == 1  # traced once
