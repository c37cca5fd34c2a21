"""Chunks become rows, rows become parts; lanes keep their table."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plasticity.engine.runner import Chunk, Evaluated, Position
from plasticity.runs.accounts import from_footer
from plasticity.runs.checksums import digest
from plasticity.runs.files import write_atomically
from plasticity.runs.parquet import Lanes, ListRecorder, ParquetRecorder, rows

LANES = {"lane": [2, 3], "seed": [0, 1], "program": [1, 1], "agent.rate": [0.5, 0.5]}


def chunk(step: int, *, diverged=(-1, -1), **metrics) -> Chunk:
    basic = {"reward": np.array([0.25, 0.5], np.float32), "update": np.array([step, step], np.int32)}
    return Chunk(Position(1, step - 20, step), "b", {**basic, **metrics}, np.array(diverged, np.int32))


def recorder(tmp_path, **options) -> ParquetRecorder:
    return ParquetRecorder(tmp_path, "arm", 1, LANES, 8, **options)


def part(tmp_path, number: int) -> pa.Table:
    return pq.read_table(tmp_path / "metrics" / f"part-001-{number:05d}.parquet")


def test_rows():
    loss = np.array([np.nan, np.inf], np.float32)
    episodes = np.array([3.0, np.nan], np.float32)
    made = chunk(25, loss=loss, episodes=episodes)
    table = rows(made, Lanes("arm", np.array([2, 3]), np.array([0, 1]), 8))
    expected = {
        "arm": ["arm", "arm"],
        "lane": [2, 3],
        "seed": [0, 1],
        "step": [25, 25],
        "frames": [200, 200],
        "visit": [1, 1],
        "task": ["b", "b"],
        "step_in_visit": [5, 5],
        "reward": [0.25, 0.5],
        "update": [25, 25],
        "loss": [None, None],
        "episodes": [3, None],
    }
    assert table.to_pydict() == expected
    types = {"step": pa.int64(), "update": pa.int64(), "episodes": pa.int64(), "loss": pa.float32()}
    assert {name: table.schema.field(name).type for name in types} == types


def test_parts_hold_what_came_between_two_flushes(tmp_path):
    made = recorder(tmp_path)
    assert made.flush() == 0
    made.add(chunk(25))
    made.add(chunk(30, rank=np.array([1.0, 2.0], np.float32)))
    assert made.flush() == 1
    made.add(chunk(35))
    assert made.flush() == 2
    assert made.flush() == 2
    assert sorted(path.name for path in (tmp_path / "metrics").iterdir()) == [
        "part-001-00000.parquet",
        "part-001-00001.parquet",
    ]
    assert part(tmp_path, 0)["step"].to_pylist() == [25, 25, 30, 30]
    assert part(tmp_path, 0)["rank"].to_pylist() == [None, None, 1.0, 2.0]
    assert part(tmp_path, 1)["step"].to_pylist() == [35, 35]


def test_evaluations_are_a_table_of_their_own_and_are_cut_back_too(tmp_path):
    made = recorder(tmp_path)
    found = tuple(Evaluated(i, "ab"[i], {"episodic_return": np.array([i, np.nan], np.float32)}) for i in (1, 0))
    for step in (25, 30, 35):
        made.add(chunk(step)._replace(evaluations=found if step != 30 else ()))
        made.flush()
    folder = tmp_path / "evaluations"
    assert sorted(path.name.split("-")[-1] for path in folder.iterdir()) == ["00000.parquet", "00002.parquet"]
    table = pq.read_table(folder / "part-001-00002.parquet")
    assert table["evaluated_task"].to_pylist() == ["b", "b", "a", "a"]
    assert table["evaluated_visit"].to_pylist() == [1, 1, 0, 0]
    assert table["episodic_return"].to_pylist() == [1.0, None, 0.0, None]
    assert table["step"].to_pylist() == [35] * 4
    made.cut_back(2)
    assert list(made.files) == [
        "metrics/part-001-00000.parquet",
        "metrics/part-001-00001.parquet",
        "evaluations/part-001-00000.parquet",
    ]
    assert [path.name for path in folder.iterdir()] == ["part-001-00000.parquet"]


def test_cut_back_removes_later_parts_of_this_program_only(tmp_path):
    made = recorder(tmp_path)
    for step in (25, 30, 35):
        made.add(chunk(step))
        made.flush()
    for name in ("part-000-00009.parquet", "part-001-00003.parquet.tmp"):
        (tmp_path / "metrics" / name).write_bytes(b"rows")
    again = recorder(tmp_path)
    again.cut_back(1)
    assert sorted(path.name for path in (tmp_path / "metrics").iterdir()) == [
        "part-000-00009.parquet",
        "part-001-00000.parquet",
    ]
    again.add(chunk(40))
    assert again.flush() == 2
    assert part(tmp_path, 1)["step"].to_pylist() == [40, 40]
    assert {name: digest(tmp_path / name) for name in again.files} == again.files
    assert [name[-13:] for name in again.files] == ["00000.parquet", "00001.parquet"]


def test_lanes_and_their_divergence(tmp_path):
    made = recorder(tmp_path)
    lanes = tmp_path / "lanes.parquet"
    assert pq.read_table(lanes).to_pydict() == {**LANES, "diverged_at": [None, None]}
    made.add(chunk(25, diverged=(-1, 23)))
    assert pq.read_table(lanes)["diverged_at"].to_pylist() == [None, None]  # until it is durable
    made.flush()
    assert pq.read_table(lanes)["diverged_at"].to_pylist() == [None, 23]
    recorder(tmp_path, diverged_at=np.array([-1, 23]))
    assert pq.read_table(lanes)["diverged_at"].to_pylist() == [None, 23]


def test_lanes_of_an_arms_programs_share_a_table(tmp_path):
    others = {"lane": [0, 1, 4], "seed": [0, 1, 0], "program": [0, 0, 0], "agent.rate": [0.1, 0.1, 0.9]}
    first = ParquetRecorder(tmp_path, "arm", 0, others, 8, np.array([-1, 7, -1]))
    recorder(tmp_path, diverged_at=np.array([9, -1]))
    table = pq.read_table(tmp_path / "lanes.parquet").to_pydict()
    assert table["lane"] == [0, 1, 2, 3, 4]
    assert table["agent.rate"] == [0.1, 0.1, 0.5, 0.5, 0.9]
    assert table["diverged_at"] == [None, 7, 9, None, None]
    assert table["program"] == [0, 0, 1, 1, 0]
    first.flush()  # knows nothing of the other program and leaves it out: programs of an arm run one after another
    recorder(tmp_path)
    assert pq.read_table(tmp_path / "lanes.parquet")["lane"].to_pylist() == [0, 1, 2, 3, 4]


def noted(folder) -> dict[int, str]:
    return from_footer(pq.read_schema(folder / "lanes.parquet").metadata)


def test_the_parts_are_noted_and_those_of_other_programs_stay(tmp_path):
    others = {"lane": [0, 1], "seed": [0, 1], "program": [0, 0], "agent.rate": [0.1, 0.1]}
    first = ParquetRecorder(tmp_path, "arm", 0, others, 8)
    first.add(chunk(5))
    first.flush()
    made = recorder(tmp_path)
    assert noted(tmp_path) == {0: "0", 1: ""}
    found = (Evaluated(0, "a", {"episodic_return": np.zeros(2, np.float32)}),)
    for step in (25, 30, 35):
        made.add(chunk(step)._replace(evaluations=found if step != 30 else ()))
        made.flush()
    assert noted(tmp_path) == {0: "0", 1: "101"}
    assert noted_before(recorder(tmp_path, parts=2), 2) == {0: "0", 1: "10"}
    recorder(tmp_path).cut_back(1)  # of a run of an older version: from the files that are there
    assert noted(tmp_path) == {0: "0", 1: "1"}


def noted_before(made: ParquetRecorder, parts: int) -> dict[int, str]:
    """The noted parts when the first part is removed: never more than exist."""
    seen: list[dict[int, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(made.folder), "unlink", lambda path, **options: seen.append(noted(made.folder)))
        made.cut_back(parts)
    assert len(seen) == 2  # of the metrics and of the evaluations
    return seen[0]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda temporary: temporary.write_text("old"))

    def fail(temporary):
        temporary.write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_recorder_in_memory():
    kept = ListRecorder()
    kept.add(chunk(25))
    assert kept.flush() == 1
    assert kept.chunks[0].position.step == 25
