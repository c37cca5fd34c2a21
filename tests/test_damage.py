"""Runs of which a file is damaged: what a resume does, and a few random damages to every command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from crashes import Killed, Laboratory, Watcher, assert_same, tables, two_arms

from plasticity import results
from plasticity.core.errors import UserError
from plasticity.report import facts
from plasticity.runs import launch


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.fixture(scope="module")
def laboratory():
    return Laboratory(two_arms())


@pytest.fixture(scope="module")
def finished(laboratory, tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    laboratory.run(run)
    return run


@pytest.fixture(scope="module")
def stopped(laboratory, tmp_path_factory):
    """Killed in the second program of the first arm, after its checkpoint of step 10."""
    run = tmp_path_factory.mktemp("stopped") / "run"

    def end(count):
        if count == 7:
            raise Killed

    with pytest.raises(Killed):
        laboratory.run(run, progress=Watcher(end))
    return run


@pytest.mark.parametrize("harm", [flip, os.unlink, lambda path: os.truncate(path, 300)], ids=["flip", "gone", "cut"])
def test_a_finished_run_goes_back_to_the_checkpoint_whose_parts_are_whole(laboratory, finished, tmp_path, harm):
    """The last part is damaged; its rows are computed again and are the same."""
    run = shutil.copytree(finished, tmp_path / "run")
    part = run / "wide/metrics/part-001-00001.parquet"
    harm(part)
    watcher = laboratory.run(run, resume=True)
    assert watcher.jobs == [("wide", 1, 10)]
    assert watcher.lines[0].startswith(f"wide: was finished, but {part} is ")
    assert watcher.lines[1].endswith("; 000000000020.npz, which it belongs to, is set aside")
    assert watcher.lines[2:] == ["wide: continues from step 10"]
    assert_same(run, tables(finished))


@pytest.mark.parametrize("which", ["finished", "stopped"])
def test_damage_that_no_checkpoint_precedes_is_refused_and_nothing_touched(laboratory, tmp_path, request, which):
    run = shutil.copytree(request.getfixturevalue(which), tmp_path / "run")
    part = run / "wide/metrics/part-001-00000.parquet"
    whole = part.read_bytes()
    flip(part)
    with pytest.raises(UserError) as refused:
        laboratory.run(run, resume=True)
    assert str(refused.value) == (
        f"{part} is damaged: its checksum is wrong, so the run cannot be resumed\n"
        f"restore the file, remove the folder {run / 'wide'} to rerun that arm, or restart with --force"
    )
    part.write_bytes(whole)  # put back
    laboratory.run(run, resume=True)
    assert_same(run, tables(request.getfixturevalue("finished")))


def test_the_way_out_of_the_message(laboratory, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "wide")
    watcher = laboratory.run(run, resume=True)
    assert watcher.jobs == [("wide", 0, 0), ("wide", 1, 0)]
    assert_same(run, tables(finished))


@pytest.mark.parametrize("harm", [flip, os.unlink, lambda path: path.write_bytes(b"")], ids=["flip", "gone", "empty"])
def test_the_table_of_lanes_is_made_again(laboratory, finished, tmp_path, harm):
    """Swept values from the config, where lanes diverged from the checkpoints."""
    run = shutil.copytree(finished, tmp_path / "run")
    for arm in ("wide", "hot"):
        harm(run / arm / "lanes.parquet")
    watcher = laboratory.run(run, resume=True)
    assert watcher.jobs == []
    *mended, last = watcher.lines
    assert [line.partition(" ")[0] for line in mended] == [str(run / arm / "lanes.parquet") for arm in ("wide", "hot")]
    assert all(line.endswith("; rebuilt from the config and the checkpoints") for line in mended)
    assert last == f"{run}: already finished"  # nothing was left to compute
    assert_same(run, tables(finished))


def test_a_status_that_says_finished_too_early_is_not_believed(laboratory, stopped, finished, tmp_path):
    run = shutil.copytree(stopped, tmp_path / "run")
    status = json.loads((run / "wide/status.json").read_text())
    del status["crc32"]
    (run / "wide/status.json").write_text(json.dumps({**status, "finished": [0, 1]}))
    watcher = laboratory.run(run, resume=True)
    assert watcher.jobs[0] == ("wide", 1, 10)
    assert_same(run, tables(finished))


def test_a_finished_run_without_checkpoints_stays_finished(laboratory, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for arm in ("wide", "hot"):
        shutil.rmtree(run / arm / "checkpoints")
    assert laboratory.run(run, resume=True).jobs == []
    assert_same(run, tables(finished))
    (run / "wide/metrics/part-001-00001.parquet").unlink()
    with pytest.raises(UserError, match="holds 4 of 8 rows of program 1, and no checkpoint is left"):
        laboratory.run(run, resume=True)


def test_what_is_lost_for_good_is_said_once(laboratory, finished, tmp_path):
    """In the refusal, not before it too."""
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "wide/metrics/part-001-00000.parquet").unlink()
    watcher = Watcher()
    with pytest.raises(UserError, match=r"part-001-00000\.parquet is missing") as caught:
        laboratory.run(run, resume=True, progress=watcher)
    assert watcher.lines == []
    assert len(str(caught.value).splitlines()) == 2


def test_a_run_that_has_not_met_every_task_is_compared(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for path in run.glob("*/metrics/part-*-00001.parquet"):  # of the second visit
        path.unlink()
    with pytest.warns(UserWarning, match=r"unreadable \(it is missing\)") as told:
        found = results.compare_runs(finished, run)
    missing = {Path(str(each.message).partition(" ")[0]).relative_to(run).as_posix() for each in told}
    parts = (("wide", "000"), ("wide", "001"), ("hot", "000"))
    assert missing == {f"{arm}/metrics/part-{number}-00001.parquet" for arm, number in parts}
    assert [(each.arm, each.rows, each.differing, each.only_a) for each in found.replicas] == [
        ("wide", 8, 0, 8),
        ("hot", 8, 0, 8),
    ]


def test_an_arm_without_its_lanes_is_left_out_and_named(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "hot/lanes.parquet").unlink()
    with pytest.warns(UserWarning, match=r"hot/lanes\.parquet is unreadable \(it is missing\)"):
        found = results.load(run)
    assert set(found["arm"]) == {"wide"}


def test_the_last_part_of_a_run_that_has_stopped_is_missed(stopped, tmp_path):
    """There is no later part and no status with the number of parts."""
    run = shutil.copytree(stopped, tmp_path / "run")
    assert len(results.load(run)) == 8 + 4  # no warning
    (run / "wide/metrics/part-001-00000.parquet").unlink()
    with pytest.warns(UserWarning, match=r"metrics/part-001-00000\.parquet is unreadable \(it is missing\)"):
        assert len(results.load(run)) == 8


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A classifier that is evaluated at the end of its two visits, a part each."""
    stream = {**tiny.document()["stream"], "tasks": 2, "steps_per_task": 10}
    evaluation = {"every": "visit", "tasks": "seen", "steps": 3}
    experiment = tiny.experiment(stream=stream, evaluation=evaluation, seeds=1, checkpoint_every=5)
    return launch.run(experiment, tmp_path_factory.mktemp("evaluated") / "run"), experiment


@pytest.mark.parametrize("number", [1, 3])
def test_a_missing_part_of_the_evaluations_is_named_and_made_again(evaluated, tmp_path, number):
    """The table of lanes knows of it, also when that was made again and no checkpoint is left."""
    whole, experiment = evaluated
    run = shutil.copytree(whole, tmp_path / "run")
    part = run / f"baseline/evaluations/part-000-{number:05d}.parquet"
    assert sorted(path.stem[-1] for path in part.parent.iterdir()) == ["1", "3"]
    expected = results.evaluations(run)  # no warning
    (run / "baseline/lanes.parquet").unlink()
    launch.run(experiment, run, resume=True)
    part.unlink()
    with pytest.warns(UserWarning, match=rf"evaluations/{part.stem}\.parquet is unreadable \(it is missing\)"):
        assert len(results.evaluations(run)) < len(expected)
    checkpoints = shutil.move(run / "baseline/checkpoints", tmp_path / "checkpoints")
    with pytest.raises(UserError, match=rf"{part.stem}\.parquet is missing, and no checkpoint is left"):
        launch.run(experiment, run, resume=True)
    if number == 3:  # the checkpoint before it is kept
        shutil.move(checkpoints, run / "baseline/checkpoints")
        launch.run(experiment, run, resume=True)
        pd.testing.assert_frame_equal(results.evaluations(run), expected)


def test_a_config_that_is_not_the_runs_own_is_named_by_the_report(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / "experiment.yaml"
    found = facts.facts(run)
    assert "widths" in found["config"]
    path.write_text(path.read_text().replace("seeds: 2", "seeds: 3"))
    with pytest.warns(UserWarning, match=r"experiment\.yaml is damaged: it is not the config"):
        assert facts.facts(run) == {**found, "config": "", "stream": "", "agent": ""}
    path.unlink()
    with pytest.warns(UserWarning, match=r"experiment\.yaml cannot be read \(no such file"):
        assert facts.facts(run)["config"] == ""


def test_a_missing_status_is_named_by_the_report(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "wide/status.json").unlink()
    with pytest.warns(UserWarning, match=r"wide/status\.json is unreadable \(it is missing\)"):
        assert facts.facts(run)["finished"] is False
    shutil.rmtree(run / "wide")  # as if it had not started
    assert facts.facts(run)["arms"][0]["state"] == "not started"


def test_a_damaged_status_is_named_by_the_report(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "wide/status.json").write_text("[]")
    with pytest.warns(UserWarning, match=r"wide/status\.json is unreadable \(it contains a list, not a mapping\)"):
        assert facts.facts(run)["finished"] is False


def test_a_run_of_other_data_is_refused_and_of_moved_data_is_not(tmp_path, monkeypatch):
    """Images of the same shape behind the same path; equal ones behind another."""

    def images(path, seed):
        pixels = np.random.default_rng(seed).integers(0, 255, (20, 4, 4), np.uint8)
        np.savez(path, images=pixels, labels=np.arange(20) % 3)
        return path

    def experiment(path):
        stream = {"kind": "relabelled", "inputs": "npz", "path": str(path), "tasks": 2, "steps_per_task": 10, "envs": 4}
        return tiny.experiment(stream=stream, seeds=1)

    monkeypatch.chdir(tmp_path)
    images(tmp_path / "a.npz", 0)
    run = launch.run(experiment("a.npz"), tmp_path / "run")
    assert f"path: {tmp_path / 'a.npz'}" in (run / "experiment.yaml").read_text()
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "a.npz", tmp_path / "elsewhere" / "b.npz")
    launch.run(experiment("elsewhere/b.npz"), run, resume=True)
    images(tmp_path / "a.npz", 1)
    with pytest.raises(UserError) as refused:
        launch.run(experiment("a.npz"), run, resume=True)
    assert str(refused.value).startswith(f"{tmp_path / 'a.npz'} is not the file that the run was started with")
    assert len(str(refused.value).splitlines()) == 1
    (run / "plan.json").unlink()  # then the checkpoints know
    shutil.rmtree(run / "baseline/metrics")
    with pytest.raises(UserError):
        launch.run(experiment("a.npz"), run, resume=True)


@pytest.mark.slow
def test_random_damages():
    """``python tests/stress/damage.py`` does hundreds."""
    script = Path(__file__).parent / "stress" / "damage.py"
    done = subprocess.run([sys.executable, script, "--damages", "6", "--small"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
