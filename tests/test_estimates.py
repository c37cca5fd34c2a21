"""How long a run takes and how much disk it needs, before it runs."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from plasticity.cli.tables import plan_lines, shard_lines
from plasticity.config.programs import programs
from plasticity.core.errors import UserError
from plasticity.runs import calibration, estimates, launch, shards, speeds
from plasticity.runs.accounts import shard_folder
from plasticity.runs.checksums import to_json
from plasticity.runs.shards import Split, cut, parse
from plasticity.runs.speeds import Cost, Stopwatch

WIDE = {"agent": {"network": {"kind": "mlp", "widths": [16]}}}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """A folder of speeds of its own."""
    monkeypatch.setattr(speeds, "folder", lambda: tmp_path / "speeds")
    return tmp_path / "speeds"


def planned(**changes):
    return launch.plan(tiny.experiment(placement={"width": 1, "devices": 1}, **changes))


def timed(experiment_plan, start, step):
    for job in experiment_plan.jobs:
        speeds.keep(job.speed_key, Cost(start, step))


def watch(monkeypatch, chunks):
    """A stopwatch of chunks given as (seconds, traces, updates so far), of 10 steps and two groups of lanes."""
    now, traces = [100.0], {}
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run = SimpleNamespace(
        compiled=SimpleNamespace(traces=traces),
        program=SimpleNamespace(chunk=10),
        placement=SimpleNamespace(groups=2),
    )
    found = Stopwatch(run)
    for seconds, traced, updates in chunks:
        now[0] += seconds
        traces["chunk"] = traced
        found.tick(SimpleNamespace(metrics={"update": np.asarray([updates, 0.0])}))
    return found


def test_a_stopwatch_tells_compiling_from_running(monkeypatch):
    found = watch(monkeypatch, [(5.0, 1, 10), (1.0, 1, 20), (3.0, 2, 30), (2.0, 2, 40)])
    assert found.cost() == Cost(start=8.0, step=3.0 / 20 / 2)


def test_a_stopwatch_ignores_what_comes_before_learning(monkeypatch):
    found = watch(monkeypatch, [(5.0, 1, 0), (1.0, 1, 0), (4.0, 1, 10)])
    assert found.cost() == Cost(start=5.0, step=4.0 / 10 / 2)
    assert watch(monkeypatch, [(5.0, 1, 0), (1.0, 1, 0)]).cost() == Cost(5.0, 1.0 / 10 / 2)  # it never learns


def test_too_short_a_time_is_no_measurement(monkeypatch):
    assert watch(monkeypatch, [(5.0, 1, 10), (0.1, 1, 20)]).cost() is None


def test_the_time_of_a_job_is_that_of_its_groups_and_steps():
    plan = planned(seeds=3)
    assert estimates.seconds_of(plan.jobs[0]) is None
    timed(plan, start=7.0, step=0.5)
    assert estimates.seconds_of(plan.jobs[0]) == 7.0 + 0.5 * 60 * 3
    assert estimates.total([1.0, 2.0]) == 3.0
    assert estimates.total([1.0, None]) is None


def test_a_speed_holds_for_more_seeds_and_for_longer_runs():
    key = planned(seeds=1).jobs[0].speed_key
    stream = tiny.document()["stream"]
    assert planned(seeds=[4, 7, 9]).jobs[0].speed_key == key
    assert planned(stream={**stream, "tasks": 9}).jobs[0].speed_key == key
    assert planned(schedule={"cycles": 2}).jobs[0].speed_key == key
    assert planned(stream={**stream, "envs": 8}).jobs[0].speed_key != key
    assert planned(monitors=[]).jobs[0].speed_key != key
    assert planned(probe_size=8).jobs[0].speed_key != key


def test_a_run_keeps_its_speed(tmp_path, monkeypatch):
    monkeypatch.setattr(speeds, "LEAST_SECONDS", 0.0)
    plan = planned(seeds=1)
    began = time.monotonic()
    launch.run(plan.experiment, tmp_path / "run")
    passed = time.monotonic() - began
    found = speeds.read(plan.jobs[0].speed_key)
    assert 0 < found.start < passed
    assert 0 < found.step * 60 < passed


@pytest.mark.parametrize("text", ["", "{", '{"start": 1}', to_json({"start": 1.0, "step": -1.0})])
def test_a_damaged_speed_is_no_speed(kept, text):
    speeds.keep("a", Cost(1.0, 2.0))
    assert speeds.read("a") == Cost(1.0, 2.0)
    (kept / "a.json").write_text(text)
    assert speeds.read("a") is None


def test_the_oldest_speeds_are_forgotten(kept, monkeypatch):
    monkeypatch.setattr(speeds, "MOST", 2)
    for number in range(4):
        speeds.keep(str(number), Cost(1.0, 2.0))
        time.sleep(0.02)  # the clock of some file systems is coarse
    assert sorted(path.stem for path in kept.glob("*.json")) == ["2", "3"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(speeds, "folder", lambda: tmp_path / "file" / "speeds")
    speeds.keep("a", Cost(1.0, 2.0))
    assert speeds.read("a") is None


def test_calibration_measures_each_program_once(monkeypatch):
    monkeypatch.setattr(speeds, "LEAST_SECONDS", 0.0)
    stream = {**tiny.document()["stream"], "steps_per_task": 1000}
    plan = planned(
        seeds=4,
        arms={"one": {}, "same": {}, "wide": {"agent": {"network": {"kind": "mlp", "widths": [16]}}}},
        stream=stream,
    )
    lines = []
    calibration.calibrate(plan, 0.01, lines.append)
    assert [line.partition(":")[0] for line in lines] == ["one", "one", "wide", "wide"]
    assert "steps/s of 1 lanes at once" in lines[1]
    assert all(estimates.seconds_of(job) > 0 for job in plan.jobs)


def test_calibration_says_what_it_could_not_time(monkeypatch):
    monkeypatch.setattr(speeds, "LEAST_SECONDS", 0.0)
    never = {"replay": {"capacity": 200, "minimum": 150}}
    stream = {"kind": "catch", "tasks": 1, "steps_per_task": 40, "envs": 2}
    plan = planned(agent={**tiny.DQN["agent"], **never}, stream=stream, seeds=1, monitor_every=40)
    found = calibration.time_job(plan.jobs[0], 10.0)
    assert found.missing == ("too short for a first update", "too short to time monitors.weight_norm")


def test_calibration_repeats_a_stream_that_ends_too_soon(monkeypatch):
    monkeypatch.setattr(speeds, "LEAST_SECONDS", 0.0)
    stream = {**tiny.document()["stream"], "tasks": 1, "steps_per_task": 20}
    (job,) = planned(seeds=1, stream=stream, record_every=20, monitors=[]).jobs
    found = calibration.time_job(job, 0.01)
    assert found.cost.step > 0  # the only chunk of the first time includes compiling
    assert found.missing == ()


def test_calibration_of_a_long_chunk_begins_with_a_short_one(monkeypatch):
    chunks = []

    def noted(program, job, seconds):
        chunks.append(program.chunk)
        return calibration.Calibrated(Cost(0.0, 0.01), ())

    monkeypatch.setattr(calibration, "_time", noted)
    stream = {**tiny.document()["stream"], "steps_per_task": 6000}
    job = planned(stream=stream, record_every=3000, monitor_every=3000, seeds=1).jobs[0]
    calibration.time_job(job, 10.0)
    assert chunks == [250]  # the largest divisor of 3000 up to 256; 3000 steps take 30 s
    calibration.time_job(job, 60.0)
    assert chunks == [250, 250, 3000]


def test_hours_become_jobs():
    plan = planned(seeds=8, arms={"one": {}, "two": {}})
    with pytest.raises(UserError, match=r"--split: hours=1 needs the speed of arm one on this machine; measure it"):
        estimates.within_hours(plan, parse("hours=1"))
    timed(plan, start=0.0, step=30.0)  # half an hour for each of 16 lanes
    assert estimates.within_hours(plan, parse("hours=1")) == Split(jobs=8)
    assert estimates.within_hours(plan, parse("hours=8")) == Split(jobs=1)
    assert estimates.within_hours(plan, parse("hours=0.1")) == Split(jobs=16)  # a lane cannot be divided
    line = "8 shards of 2 lanes, of at most about 1 h 00 min; run each with --split jobs=8 --shard I/8"
    assert shard_lines(plan, "hours=1") == [line]
    assert estimates.longest(plan, cut(programs(plan.experiment), Split(jobs=3))) == 6 * 1800


@pytest.mark.parametrize("text", ["hours=0", "hours=", "hours", "hours=x", "hours=-1", "hours=1e3"])
def test_refuses_other_hours(text):
    with pytest.raises(UserError, match="is not allowed; must be one of"):
        shards.parse(text)


def test_a_run_that_is_cut_by_hours_goes_on_whatever_is_measured_later(tmp_path):
    plan = planned(seeds=2)
    timed(plan, start=0.0, step=30.0)
    launch.run(plan.experiment, tmp_path / "run", split="hours=0.5", shard="1/2")
    timed(plan, start=0.0, step=1.0)
    launch.run(plan.experiment, tmp_path / "run", split="hours=0.5", shard="2/2")
    assert all(shard_folder(tmp_path / "run", number).is_dir() for number in (1, 2))
    with pytest.raises(UserError, match=r"is cut by --split jobs=2, not hours=3"):
        launch.run(plan.experiment, tmp_path / "run", split="hours=3", shard="2/2")


def test_the_disk_that_a_plan_names_is_about_what_the_run_takes(tmp_path):
    agent = {**tiny.document()["agent"], "network": {"kind": "mlp", "widths": [200, 200]}}
    plan = planned(agent=agent, seeds=3, arms={"one": {}, "two": {"interventions": ["layer_norm"]}})
    launch.run(plan.experiment, tmp_path / "run")
    disk = estimates.disk(plan)
    checkpoints = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.npz"))
    tables = sum(path.stat().st_size for path in (tmp_path / "run").rglob("metrics/*.parquet"))
    assert 0.5 < disk.tables / tables < 2
    assert disk.checkpoints < checkpoints < 1.05 * disk.checkpoints  # the files have headers
    assert estimates.space(plan) == sum(disk) + max(need.state for need in plan.memory)


def test_a_plan_says_time_and_disk():
    plan = planned(seeds=2, arms={"one": {}, "two": WIDE})
    speeds.keep(plan.jobs[0].speed_key, Cost(1.0, 2.0))
    assert "time: 1 of 2 programs not timed on this machine yet; see --calibrate" in plan_lines(plan)
    timed(plan, start=3.0, step=10.0)
    text = "time: about 40 min, 6 s of it for compiling, as timed on this machine before"
    assert text in plan_lines(plan)
    assert any(line.startswith("disk: ") for line in plan_lines(plan))
