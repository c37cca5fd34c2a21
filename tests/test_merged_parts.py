"""Rows that wait in checkpoints and parts that are merged: fewer files, the same tables, whenever the process ends."""

import itertools
import shutil
import warnings

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tiny
from crashes import Laboratory

from plasticity import results
from plasticity.cli.watch import Watcher
from plasticity.core.errors import UserError
from plasticity.engine.program import NEVER
from plasticity.runs import checkpoint, session
from plasticity.runs.accounts import from_footer, unmerged
from plasticity.runs.checksums import digest
from plasticity.runs.parquet import ParquetRecorder

CHUNKS = 8
# The first parts, the most parts, the most rows of two lanes that wait, whether a part is always due.
WAYS = {
    "merged": (1, 2, 1000, True),  # a part for every checkpoint, merged again and again
    "waiting": (0, 2, 1000, False),  # no part before the end
    "mixed": (1, 2, 4, False),  # a part for every third checkpoint
}


def many_checkpoints():
    """One program of two lanes; a checkpoint and an evaluation at each of its eight chunks."""
    stream = {**tiny.document()["stream"], "tasks": 4, "steps_per_task": 10}
    more = {"checkpoint_every": 5, "evaluation": {"every": 5, "steps": 4}, "placement": {"width": 2, "devices": 1}}
    return tiny.experiment(stream=stream, seeds=2, **more)


@pytest.fixture(scope="module")
def laboratory():
    return Laboratory(many_checkpoints())


@pytest.fixture(scope="module")
def whole(laboratory, tmp_path_factory):
    """The uninterrupted run with a part for every checkpoint."""
    run = tmp_path_factory.mktemp("whole") / "run"
    laboratory.run(run)
    assert len(parts(run)) == CHUNKS
    return tables(run)


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    set_way(monkeypatch, request.param)
    return request.param


def set_way(patch, name):
    few, most, rows, due = WAYS[name]
    patch.setattr(session, "FEW_PARTS", few)
    patch.setattr(session, "MOST_PARTS", most)
    patch.setattr(session, "MOST_ROWS", rows)
    patch.setattr(session.Pace, "due", lambda self: due)


def parts(run, table="metrics"):
    return sorted(path.name for path in (run / "baseline" / table).glob("*.parquet"))


def tables(run):
    """All tables, read without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [results.lanes(run), results.load(run), results.visits(run), results.evaluations(run)]


def assert_same(run, expected, note=""):
    for mine, theirs in zip(tables(run), expected, strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True, obj=note)


def check_beginning(run, expected, note):
    """What a reader sees of a run that has ended somewhere: the first rows of every lane, once each."""
    if not (run / "experiment.yaml").exists():
        return
    found, whole = tables(run)[1], expected[1]
    for lane in (0, 1):
        mine, theirs = (table.loc[table["lane"] == lane, ["step", "reward"]].to_numpy() for table in (found, whole))
        np.testing.assert_array_equal(mine, theirs[: len(mine)], err_msg=note)


def test_the_tables_are_the_same(laboratory, whole, way, tmp_path):
    run = tmp_path / "run"
    laboratory.run(run)
    assert_same(run, whole)
    name = {"merged": "part-000-00000-00007.parquet", "waiting": "part-000-00000-00000.parquet"}
    expected = [name.get(way, "part-000-00000-00003.parquet")]
    assert parts(run) == parts(run, "evaluations") == expected
    assert len(list((run / "baseline/checkpoints/000").glob("*.npz"))) == 2
    assert laboratory.run(run, resume=True).lines == [f"{run}: already finished"]


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_then_resumed(laboratory, whole, way, tmp_path, stride):
    for moment in itertools.count(1, stride):
        run = tmp_path / str(moment)
        if not laboratory.killed(run, moment):
            break
        check_beginning(run, whole, f"killed at moment {moment}")
        laboratory.resume(run)
        assert_same(run, whole, f"resumed from moment {moment}")
        shutil.rmtree(run)
    assert moment > 50  # otherwise the moments are not those that were meant


@pytest.mark.parametrize("life", [29, 37])
def test_killed_again_and_again(laboratory, whole, way, tmp_path, life):
    run, lives, resume = tmp_path / "run", 0, False
    while laboratory.killed(run, life, resume=resume):
        check_beginning(run, whole, f"life {lives}")
        resume, lives = (run / "experiment.yaml").exists(), lives + 1
        assert lives < 60
    assert lives >= 2
    assert_same(run, whole)


def interrupted(laboratory, run, moments):
    """A run that is killed at the first moment with three checkpoints behind it and a merged part."""
    for moment in moments:
        shutil.rmtree(run, ignore_errors=True)
        assert laboratory.killed(run, moment)
        steps = [path.stem for path in (run / "baseline/checkpoints/000").glob("*.npz")]
        if len(steps) == 2 and any(name.count("-") == 3 for name in parts(run)):
            return sorted((run / "baseline/checkpoints/000").glob("*.npz"))
    raise AssertionError


@pytest.mark.parametrize("end", [0, 1, 2, 5, 9])
def test_the_older_checkpoint_still_has_its_parts(laboratory, whole, tmp_path, monkeypatch, end):
    """While parts are merged, each of the two checkpoints can be resumed."""
    set_way(monkeypatch, "merged")
    run = tmp_path / "run"
    _, newest = interrupted(laboratory, run, itertools.count(40 + end))
    raw = newest.read_bytes()
    newest.write_bytes(raw[: len(raw) // 2])
    lines = laboratory.resume(run).lines
    assert any("set aside" in line for line in lines)
    assert any("continues from step" in line for line in lines)
    assert_same(run, whole)


def test_a_damaged_merged_part_is_named(laboratory, tmp_path, monkeypatch):
    set_way(monkeypatch, "merged")
    run = tmp_path / "run"
    laboratory.run(run)
    part = run / "baseline/metrics/part-000-00000-00007.parquet"
    part.write_bytes(part.read_bytes()[:-9] + b"123456789")
    with pytest.warns(UserWarning, match=r"part-000-00000-00007\.parquet is unreadable"):
        results.load(run)
    with pytest.raises(UserError, match=r"part-000-00000-00007\.parquet is damaged.*so the run cannot be resumed"):
        laboratory.run(run, resume=True)
    part.unlink()
    with pytest.warns(UserWarning, match=r"part-000-00000-00007\.parquet is unreadable \(it is missing\)") as warned:
        results.load(run)
    assert len(warned) == 1
    (run / "baseline/evaluations/part-000-00000-00007.parquet").unlink()
    with pytest.warns(UserWarning, match=r"evaluations/part-000-00000-00007\.parquet is unreadable \(it is missing\)"):
        results.evaluations(run)


def test_lanes_are_rebuilt_from_merged_parts(laboratory, whole, tmp_path, monkeypatch):
    set_way(monkeypatch, "merged")
    run = tmp_path / "run"
    laboratory.run(run)
    lanes = run / "baseline/lanes.parquet"
    before = from_footer(pq.read_schema(lanes).metadata)
    assert before == {0: "-------M"}
    for removed in ((), (run / "baseline/checkpoints/000").glob("*.npz")):
        lanes.unlink()
        for path in removed:
            path.unlink()
        assert laboratory.run(run, resume=True).lines[0].startswith(f"{lanes} is missing; rebuilt from")
        assert from_footer(pq.read_schema(lanes).metadata) == before
        assert_same(run, whole)


def test_readers_list_again_where_parts_were_merged_meanwhile(laboratory, whole, tmp_path, monkeypatch):
    """The parts vanish between the list of a folder and the first read."""
    run = tmp_path / "run"
    laboratory.run(run)
    for copy in ("merged", "parts"):
        shutil.copytree(run, tmp_path / copy)
    merge(tmp_path / "merged")

    def vanish(*args):
        found = unmerged(*args)
        shutil.rmtree(run / "baseline")
        shutil.copytree(tmp_path / "merged" / "baseline", run / "baseline")
        monkeypatch.setattr("plasticity.runs.accounts.unmerged", unmerged)
        return found

    for read in (lambda: results.load(run), lambda: Watcher(run).look().arms[0].now):
        shutil.rmtree(run)
        shutil.copytree(tmp_path / "parts", run)
        before = read()
        monkeypatch.setattr("plasticity.runs.accounts.unmerged", vanish)
        after = read()
        assert len(parts(run)) == 1
        assert before.equals(after) if isinstance(before, pd.DataFrame) else before == after


def merge(run):
    """Merge the parts of a finished run."""
    lanes = {"lane": [0, 1], "seed": [0, 1], "program": [0, 0]}
    recorder = ParquetRecorder(run / "baseline", "baseline", 0, lanes, 4, np.full(2, NEVER), CHUNKS)
    recorder.cut_back(CHUNKS)
    recorder.merge()
    recorder.saved(last=True)
    assert {name: digest(run / "baseline" / name) for name in recorder.files} == recorder.files


def test_large_tables_keep_their_parts(laboratory, tmp_path, monkeypatch):
    run = tmp_path / "run"
    laboratory.run(run)
    monkeypatch.setattr("plasticity.runs.parquet.MERGED_BYTES", 1000)
    merge(run)
    assert len(parts(run)) == CHUNKS


def test_a_checkpoint_holds_the_rows_of_no_part(laboratory, tmp_path, monkeypatch):
    set_way(monkeypatch, "waiting")
    run = tmp_path / "run"
    laboratory.killed(run, 45)
    assert parts(run) == []
    newest = checkpoint.files(run / "baseline/checkpoints/000")[-1]
    rows = {name: value for name, value in np.load(newest).items() if name.startswith("rows:")}
    assert set(rows) == {"rows:metrics", "rows:evaluations"}
    assert checkpoint.about(newest)["parts"] == 0
