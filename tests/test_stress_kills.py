"""How ``tests/stress/kills.py`` compares tables and locates processes; the script itself takes minutes."""

import importlib.util
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from plasticity.config import experiments
from plasticity.runs import launch

PATH = Path(__file__).parent / "stress" / "kills.py"
SPEC = importlib.util.spec_from_file_location("kills", PATH)
assert SPEC is not None
assert SPEC.loader is not None
kills = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(kills)


@pytest.mark.parametrize("case", sorted(kills.CASES))
def test_every_case_is_a_config(case: str) -> None:
    experiments.read_experiment({**kills.COMMON, "name": case, **kills.CASES[case]}, launch.registry())


def test_a_value_a_row_a_type_and_a_table_make_a_difference() -> None:
    whole = {"a/metrics": pa.table({"loss": pa.array([1.0, None, 3.0], pa.float32())})}
    assert kills.differences({"a/metrics": whole["a/metrics"].slice(0)}, whole) == []
    for odd in ([1.0, None, 3.0000002], [1.0, None], [1.0, 2.0, 3.0]):
        assert kills.differences({"a/metrics": pa.table({"loss": pa.array(odd, pa.float32())})}, whole) == ["a/metrics"]
    assert kills.differences({"a/metrics": pa.table({"loss": [1.0, None, 3.0]})}, whole) == ["a/metrics"]
    assert kills.differences({}, whole) == ["a/metrics"]


def test_moments(tmp_path: Path) -> None:
    assert kills.moment(tmp_path) == kills.BEFORE
    (tmp_path / "experiment.yaml").write_text("arms: {a: {}}")
    assert kills.moment(tmp_path) == kills.NO_CHECKPOINT
    checkpoint, part = tmp_path / "a/checkpoints/000/1.npz", tmp_path / "a/metrics/part-000-00000.parquet"
    for path in (part, checkpoint):
        path.parent.mkdir(parents=True)
        path.touch()
    os.utime(part, ns=(0, 0))
    assert kills.moment(tmp_path) == kills.CHUNK
    part.with_name("b.parquet.tmp").touch()
    assert kills.moment(tmp_path) == kills.SAVING
    (tmp_path / "a/status.json").write_text(json.dumps({"state": "finished"}))
    assert kills.moment(tmp_path) == kills.DRAWING
