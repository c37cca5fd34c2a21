"""The live view of a run: its files and the frame drawn from them."""

import contextlib
import io
import json
import math
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_run
from rich.console import Console

from plasticity.cli import frames, watch
from plasticity.cli.tables import duration

pytestmark = pytest.mark.usefixtures("usual_signals")

ROOT = Path(__file__).resolve().parent.parent
NOW = 1_000_000.0


def status(folder: Path, arm: str, **facts) -> None:
    known = {"finished": [], "program": 0, "lanes": 2, "state": "running", "visit": 0, "step": 0}
    (folder / arm).mkdir(parents=True, exist_ok=True)
    text = json.dumps({**known, "steps_per_second": 20.0, "updated": NOW - 5, **facts})
    (folder / arm / "status.json").write_text(text)


@pytest.fixture
def run(tmp_path):
    """Four arms of two visits of 40 steps, 2 lanes; ``sweep`` has two programs, the second of 4 lanes."""
    names = ["done", "sweep", "told", "later"]
    plan = synthetic_run.plan(names, tasks=["a", "b"], visits=[(0, 40), (1, 40)], lanes=2)
    plan["arms"][1]["lanes"] = 6
    programs = [("done", 2), ("sweep", 2), ("sweep", 4), ("told", 2), ("later", 2)]
    plan["programs"] = [{"arm": arm, "lanes": lanes} for arm, lanes in programs]
    folder = synthetic_run.write(tmp_path / "run", plan)
    status(folder, "done", state="finished", finished=[0], step=80, visit=1)
    status(folder, "sweep", finished=[0], program=1, step=20, lanes=4)
    return folder


def test_what_the_status_files_say(run):
    """The sweep: its first program's 80 steps and 20 of the second's; 4 lanes x 60 steps to do, 20 a second."""
    done, sweep, told, later = watch.Watcher(run).look(NOW).arms
    assert (done.state, done.done, done.total, done.work) == ("finished", 80, 80, 0)
    assert (sweep.state, sweep.done, sweep.total, sweep.work) == ("running", 100, 160, 240)
    assert (later.state, later.done, later.work, later.speed) == ("waiting", 0, 160, 0.0)
    assert told.state == "waiting"
    assert math.isnan(sweep.now)


def test_a_run_that_failed_says_why(run):
    status(run, "told", state="failed", reason="/data: No space left on device", step=20)
    seen = watch.Watcher(run).look(NOW)
    assert seen.arms[2].state == "failed"
    out = io.StringIO()
    Console(file=out, width=100).print(watch.frame(seen, run))
    assert "told: failed: /data: No space left on device" in out.getvalue()
    assert "--resume" in out.getvalue()


def test_time_left(run):
    """240 lane steps of the sweep and 2 x 160 of the arms that wait, whose speed is taken to be the same."""
    seen = watch.Watcher(run).look(NOW)
    assert seen.left == (240 + 320) / 20
    assert not seen.finished
    for arm in ("sweep", "told", "later"):
        status(run, arm, state="finished", finished=[0, 1], program=1, step=80)
    seen = watch.Watcher(run).look(NOW)
    assert seen.finished
    assert seen.left == 0


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"updated": NOW - 59}, "running"),
        ({"updated": NOW - 61}, "silent"),
        ({"state": "interrupted", "updated": NOW - 3600}, "stopped"),
        ({"state": "finished", "finished": [0]}, "running"),  # between its two programs
    ],
)
def test_states(run, facts, state):
    status(run, "sweep", program=1, **facts)
    assert watch.Watcher(run).look(NOW).arms[1].state == state


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"state": "running"}'])
def test_a_status_that_cannot_be_read(run, text):
    (run / "sweep" / "status.json").write_text(text)
    assert watch.Watcher(run).look(NOW).arms[1].state == "waiting"


def test_missing_files_of_a_started_arm_are_named(run):
    """Nothing is reported for an arm that has not started."""
    part(run, 0, [10], [0.5])
    (run / "sweep" / "status.json").unlink()
    damaged = watch.Watcher(run).look(NOW).damaged
    assert damaged == tuple(
        f"{run / 'sweep' / name} is unreadable (it is missing); skipped" for name in ("status.json", "lanes.parquet")
    )


def part(run: Path, number: int, steps: list[int], values: list[float], column: str = "reward") -> Path:
    path = run / "sweep" / "metrics" / f"part-000-{number:05d}.parquet"
    path.parent.mkdir(exist_ok=True)
    rows = [(step, lane, value - lane * 0.2) for step, value in zip(steps, values, strict=True) for lane in (0, 1)]
    pd.DataFrame(rows, columns=["step", "lane", column]).to_parquet(path, index=False)
    return path


def test_performance_is_the_mean_over_lanes_along_the_run(run):
    """80 steps in 16 stretches of 5; lanes at v and v - 0.2 have the mean v - 0.1."""
    part(run, 0, [5, 10], [0.5, 0.7])
    part(run, 1, [12, 14], [0.4, 0.8])
    sweep = watch.Watcher(run).look(NOW).arms[1]
    assert sweep.now == pytest.approx(0.7)
    assert sweep.curve[:3] == pytest.approx([0.4, 0.6, 0.5])
    assert np.isnan(sweep.curve[3:]).all()


def test_missing_values_are_left_out(run):
    part(run, 0, [5, 10], [0.5, math.nan])
    assert watch.Watcher(run).look(NOW).arms[1].now == pytest.approx(0.4)
    part(run, 1, [15], [9.0], column="loss")  # a part in which nothing was rewarded
    assert watch.Watcher(run).look(NOW).arms[1].now == pytest.approx(0.4)


def test_parts_are_read_once_and_again_when_they_change(run, monkeypatch):
    paths = [part(run, 0, [5], [0.5]), part(run, 1, [10], [0.7])]
    watcher, reads = watch.Watcher(run), []
    read = watch._read_part
    monkeypatch.setattr(watch, "_read_part", lambda path, measure: reads.append(path) or read(path, measure))
    watcher.look(NOW)
    watcher.look(NOW)
    assert reads == paths
    part(run, 1, [10, 15], [0.7, 0.9])  # a resumed run made it again
    assert watcher.look(NOW).arms[1].now == pytest.approx(0.8)
    paths[1].unlink()
    assert watcher.look(NOW).arms[1].now == pytest.approx(0.4)
    assert reads == [*paths, paths[1]]


def test_diverged_lanes(run):
    synthetic_run.lane_table([0, 1, 2], diverged={1: 30}).to_parquet(run / "sweep" / "lanes.parquet")
    assert watch.Watcher(run).look(NOW).arms[1].diverged == 1


# The frame.


def shown(run: Path, now: float = NOW, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(watch.frame(watch.Watcher(run).look(now), run))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_frame(run):
    part(run, 0, [5, 10], [0.1, 0.3])
    synthetic_run.lane_table([0, 1, 2], diverged={1: 30}).to_parquet(run / "sweep" / "lanes.parquet")
    lines = shown(run)
    assert lines[0] == "made: running, 45 % (1 of 4 arms), 28 s left"  # 180 of 400 steps
    assert [line.split() for line in lines[3:7]] == [
        ["done", "80/80", "20", "-", "-", "finished"],
        ["sweep", "100/160", "20", "12", "s", "0.2", "▁█", "running"],
        ["told", "0/80", "-", "-", "-", "waiting"],
        ["later", "0/80", "-", "-", "-", "waiting"],
    ]
    assert lines[7:] == ["curves: from 0 to 0.2; the width is the whole run", "sweep: 1 of 6 lanes diverged"]
    assert max(map(len, lines)) <= 80


def test_a_frame_of_a_silent_run(run):
    lines = shown(run, NOW + 200)
    assert lines[0] == "made: silent, 45 % (1 of 4 arms)"
    assert "sweep: no status update for 3 min" in lines
    command = f"to resume it if it has stopped: plasticity run {run / 'experiment.yaml'} --out {run} --resume"
    assert "".join(command.split()) in "".join("".join(lines).split())  # however it is broken into lines
    status(run, "sweep", step=0, program=0, updated=NOW - 100, steps_per_second=0.0)
    assert "sweep: no status update for 2 min: compiling, or dead" in shown(run)


def test_a_frame_while_the_first_program_is_compiled(run):
    status(run, "done", steps_per_second=0.0)
    (run / "sweep" / "status.json").unlink()
    lines = shown(run)
    assert lines[0] == "made: running, 0 % (0 of 4 arms)"
    assert lines[-1] == "done: compiling"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0.0, 1.0], "▁█"),
        ([0.0, math.nan, 0.5, 1.0, math.nan], "▁ ▅█"),  # 0.5 x 7 = 3.5, rounded to the even 4
        ([2.0, -1.0], "█▁"),  # outside the scale
        ([], ""),
    ],
)
def test_sparkline(values, line):
    assert frames.sparkline(values, 0.0, 1.0) == line
    assert frames.sparkline([3.0], 3.0, 3.0) == "▁"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min"), (200_000, "2 d 7 h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
    assert duration(math.nan) == "-"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (950, "950"), (1000, "1k"), (12_345, "12.3k"), (999_900, "1000k"), (3.2e6, "3.2M")]
)
def test_short(number, text):
    assert frames.short(number) == text


# The loop.


def test_a_pipe_gets_one_frame(run):
    out = io.StringIO()
    watch.watch(run, Console(file=out, width=80))
    assert out.getvalue().count("made: ") == 1


def test_it_ends_when_the_run_is_finished(run, monkeypatch):
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        for arm in ("sweep", "told", "later"):
            status(run, arm, state="finished", finished=[0, 1], program=1, step=80)

    monkeypatch.setattr(watch.time, "sleep", nap)
    out = io.StringIO()
    watch.watch(run, Console(file=out, width=80, force_terminal=True), every=0.5)
    assert naps == [0.5]
    assert "made: " in out.getvalue()
    assert "100 % (4 of 4 arms)" in out.getvalue()


# Probes.


def probe(run: Path, name: str) -> Path:
    """A probe of two arms and one visit of 40 steps."""
    arms = ["a.after1", "a.fresh"]
    plan = synthetic_run.plan(arms, tasks=["b"], visits=[(0, 40)], lanes=2, name=name)
    plan["programs"] = [{"arm": arm, "lanes": 2} for arm in arms]
    return synthetic_run.write(run / "probes" / name, plan)


@pytest.fixture
def probed(run):
    """The run is finished, its probe ``next`` is under way, and ``first`` has not started."""
    for arm in ("done", "sweep", "told", "later"):
        status(run, arm, state="finished", finished=[0, 1], program=1, step=80)
    (run / "experiment.yaml").write_text("name: made\nprobes: {next: {at: [1]}, first: {at: [1]}}\n")
    status(probe(run, "next"), "a.after1", step=30)
    return run


def drawn(seen, run) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=1000).print(watch.frame(seen, run))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_probes_are_shown_below_the_run(probed):
    """30 of twice 40 steps are done, and 2 lanes x (10 + 40) steps are left, at 20 a second."""
    seen = watch.Watcher(probed).look(NOW)
    (_, under_way), first = seen.probes
    assert (seen.finished, seen.complete, first) == (True, False, ("first", None))
    assert [(arm.state, arm.done, arm.work) for arm in under_way.arms] == [("running", 30, 20), ("waiting", 0, 80)]
    lines = drawn(seen, probed)
    assert lines[0].startswith("made: finished, 100 % (4 of 4 arms)")
    assert "probe next: running, 38 % (0 of 2 arms), 5 s left" in lines
    assert "probe first: waiting" in lines
    assert f"a probe in full: plasticity watch {probed}/probes/next" in lines
    assert lines[-1].startswith("to resume it if it has stopped: plasticity run ")


def test_a_probe_that_failed_says_why(probed):
    status(probed / "probes/next", "a.after1", state="failed", reason="/data: No space left on device", step=20)
    lines = drawn(watch.Watcher(probed).look(NOW), probed)
    assert "probe next: failed, 25 % (0 of 2 arms)" in lines
    assert "a.after1: failed: /data: No space left on device" in lines


def test_a_probe_with_a_damaged_plan_is_named(probed):
    (probed / "probes/next/plan.json").write_text("{")
    seen = watch.Watcher(probed).look(NOW)
    assert dict(seen.probes)["next"] is None
    assert len(seen.damaged) == 1
    assert seen.damaged[0].startswith(f"{probed}/probes/next/plan.json is unreadable")


def test_the_view_ends_when_the_probes_are_finished(probed, monkeypatch):
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        for name in ("next", "first"):
            for arm in ("a.after1", "a.fresh"):
                place = probe(probed, name) if len(naps) == 2 else probed / "probes/next"
                status(place, arm, state="finished", finished=[0], step=40)

    monkeypatch.setattr(watch.time, "sleep", nap)
    out = io.StringIO()
    watch.watch(probed, Console(file=out, width=120, force_terminal=True), every=0.5)
    assert naps == [0.5, 0.5]
    assert "probe first: " in out.getvalue()


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run: plan\.json is missing"):
        watch.watch(tmp_path, Console(file=io.StringIO()))


@pytest.mark.slow
def test_ctrl_c_in_a_terminal(run):
    """In a pseudo-terminal, where frames follow each other until the signal comes."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "plasticity", "watch", str(run)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    data, deadline = b"", time.monotonic() + 60
    while data.count(b"made: ") < 2 and time.monotonic() < deadline:
        data += os.read(master, 4096)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 0
    with contextlib.suppress(OSError):  # at its end: the terminal is closed
        while more := os.read(master, 4096):
            data += more
    assert b"Traceback" not in data
