"""``plasticity measure``: monitors on the checkpoints of a run give what the run would have recorded."""

import shutil

import jax
import numpy as np
import pandas as pd
import pytest
import test_cli
import tiny
from crashes import tables

from plasticity.core.errors import UserError
from plasticity.engine.lanes import Placement
from plasticity.runs import checkpoint, launch, measure

PROBE = {"kind": "plasticity_probe", "steps": 3, "targets": 2, "batch": 4}
RECORDED = ["weight_norm", "distance_from_initialisation", PROBE, {"kind": "srank", "delta": 0.2}]
NAMES = ["weight_norm", "distance_from_initialisation", "plasticity_probe", "srank"]
KEYS = ["arm", "lane", "seed", "step"]


def config(path, **changes):
    """Two programs in one arm, two visits of ten steps, a checkpoint at the end of each."""
    stream = {**tiny.document()["stream"], "tasks": 2, "steps_per_task": 10}
    arms = {"wide": {"sweep": {"agent.network.widths": [[4], [8]]}}}
    settings = {"stream": stream, "arms": arms, "seeds": 2, "monitors": RECORDED, "placement": {"width": 1}}
    return test_cli.write(path, **(settings | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("measure")
    launch.run(launch.load_config(config(place / "tiny.yaml")), place / "run")
    return place / "run"


@pytest.fixture(scope="module")
def measured(run):
    """What the command line printed, and the table that it wrote."""
    done = test_cli.plasticity("measure", run, "--monitors", ",".join(NAMES))
    assert done.code == 0, done.err
    return done, pd.read_parquet(run / "measured.parquet")


def recorded(run):
    metrics = tables(run)["wide"][0]
    return metrics[metrics["step"].isin([10, 20])]


def test_the_numbers_are_those_of_the_run(run, measured):
    found, expected = (table.sort_values(KEYS).reset_index(drop=True) for table in (measured[1], recorded(run)))
    metrics = [name for name in found if name.partition("/")[0] in NAMES]
    assert {"plasticity_probe", "plasticity_probe/fresh_loss", "weight_norm/hidden_0"} < set(metrics)
    assert len(found) == 2 * 2 * 2  # widths, seeds, checkpoints
    shared = [*KEYS, "frames", "visit", "task", "step_in_visit"]
    pd.testing.assert_frame_equal(found[[*shared, *metrics]], expected[[*shared, *metrics]], rtol=1e-6)
    assert found[metrics].notna().all(axis=None)
    assert (found["distance_from_initialisation"] > 0).all()


def test_what_is_printed(measured):
    out = measured[0].out
    test_cli.readable(out)
    for name in ("arm", "lane", "seed", "step", "wide"):
        assert name in out
    assert test_cli.flat(out).endswith("measured.parquet")
    first = measured[1].iloc[0]
    assert f"{first['weight_norm']:.4g}" in out


@pytest.mark.slow
def test_monitors_that_the_run_did_not_have(run):
    """With their defaults, or with settings from the command line."""
    found = list(measure.measure(run, ["dead_units", "srank", "churn"], ["monitors.srank.delta=0.9"]))
    assert [(each.arm, each.position.step) for each in found] == [("wide", 10), ("wide", 20)] * 2
    assert all(set(each.metrics) >= {"dead_units", "dead_units/hidden_0", "churn"} for each in found)
    own = recorded(run)
    assert all((each.metrics["srank"] == 1).all() for each in found)
    assert (own["srank"] > 1).any()


def test_change_since_the_last_measurement_is_between_checkpoints(run):
    first, second = list(measure.measure(run, ["churn"]))[:2]
    assert (first.metrics["churn"] == 0).all()
    assert (second.metrics["churn"] > 0).all()


def test_a_machine_with_fewer_devices(run, monkeypatch):
    """The lanes of all devices are in one vmap; the numbers are the same up to rounding."""
    monkeypatch.setattr(launch, "devices", lambda: tuple(jax.devices()[:1]))
    assert measure._placement({"devices": 3, "groups": 2, "width": 4}) == Placement(1, 2, 12)
    found = [each.metrics["weight_norm"] for each in measure.measure(run, ["weight_norm"])]
    expected = recorded(run).sort_values(["lane", "step"])["weight_norm"].to_numpy().reshape(2, 2, 2)
    np.testing.assert_allclose(np.stack(found), expected.transpose(0, 2, 1).reshape(4, 2), rtol=1e-6)


def test_a_diverged_lane_has_no_numbers(tmp_path):
    sweep = {"agent.optimizer.learning_rate": [0.01, 1e30]}
    path = config(tmp_path / "hot.yaml", arms={"hot": {"sweep": sweep}}, seeds=1, monitors=[])
    launch.run(launch.load_config(path), tmp_path / "run")
    for each in measure.measure(tmp_path / "run", ["weight_norm"]):
        assert np.isfinite(each.metrics["weight_norm"]).tolist() == [True, False]


def test_a_checkpoint_that_a_run_has_replaced_meanwhile_is_no_damage(run, tmp_path, monkeypatch):
    """The newer checkpoint is measured instead."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    older, newer = sorted((copy / "wide/checkpoints/000").glob("*.npz"))
    kept, read = newer.rename(tmp_path / "kept"), checkpoint.read

    def replace_first(path, *args):
        if path == older and path.exists():
            older.unlink()
            kept.rename(newer)
        return read(path, *args)

    monkeypatch.setattr(checkpoint, "read", replace_first)
    lines: list[str] = []
    found = list(measure.measure(copy, ["weight_norm"], say=lines.append))
    assert [each.position.step for each in found] == [20, 10, 20]
    assert not [line for line in lines if "damaged" in line]


def test_a_damaged_checkpoint_is_passed_over(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "wide/checkpoints/000/000000000020.npz"
    path.write_bytes(path.read_bytes()[:-100])
    lines = []
    found = list(measure.measure(copy, ["weight_norm"], say=lines.append))
    assert [each.position.step for each in found] == [10, 10, 20]
    assert len(lines) == 1
    assert "000000000020.npz is damaged" in lines[0]
    assert path.exists()
    for each in copy.rglob("*.npz"):
        each.write_bytes(b"")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        list(measure.measure(copy, ["weight_norm"], say=lines.append))
    assert len(lines) == 1 + 4


@pytest.mark.parametrize("name", ["000000000010.npz", "000000000020.npz"])
def test_a_missing_checkpoint_is_named(run, tmp_path, name):
    copy, lines = tmp_path / "run", []
    shutil.copytree(run, copy)
    place = copy / "wide/checkpoints/000"
    assert list(measure.measure(copy, ["weight_norm"], say=lines.append))
    assert lines == []
    (place / name).unlink()
    list(measure.measure(copy, ["weight_norm"], say=lines.append))
    last = f"{place / name} is missing; skipped"
    assert lines == [last if "20" in name else f"{place}: one of the last 2 checkpoints is missing; skipped"]
    for each in place.glob("*.npz"):
        each.unlink()
    list(measure.measure(copy, ["weight_norm"], say=lines.append))
    assert lines[-1] == f"{place}: there is no checkpoint; skipped"


# Mistakes.


def complaint(*words):
    done = test_cli.plasticity("measure", *words)
    assert done.code == 2
    assert not done.out
    (line,) = done.err.splitlines()
    return line


def test_an_earlier_table_is_kept(run, measured, tmp_path):
    before = (run / "measured.parquet").read_bytes()
    assert "exists; replace it with --force" in complaint(run, "--monitors", "weight_norm")
    assert (run / "measured.parquet").read_bytes() == before
    out = tmp_path / "other.parquet"
    assert test_cli.plasticity("measure", run, "--monitors", "weight_norm", "--out", out).code == 0
    small = out.read_bytes()
    assert test_cli.plasticity("measure", run, "--monitors", "dead_units", "--out", out, "--force").code == 0
    assert out.read_bytes() != small
    nowhere = complaint(run, "--monitors", "weight_norm", "--out", tmp_path / "none" / "m.parquet")
    assert "does not exist" in nowhere


def test_what_cannot_be_measured(run, tmp_path):
    some = ["--monitors", "weight_norm", "--out", tmp_path / "table.parquet"]
    assert complaint(tmp_path / "none", *some) == f"{tmp_path / 'none'} is not a run: there is no such folder"
    assert complaint(tmp_path, *some) == f"{tmp_path} is not a run: it has no experiment.yaml"
    assert "unknown monitor `weight_nrom`" in complaint(run, "--monitors", "weight_nrom", *some[2:])
    assert "did you mean `weight_norm`?" in complaint(run, "--monitors", "weight_nrom", *some[2:])
    assert "name at least one" in complaint(run, *some[2:])
    assert "only settings of monitors" in complaint(run, "agent.kind=dqn", *some)
    assert "monitors" in complaint(run, "monitors.srank.delta=7", "--monitors", "srank", *some[2:])
    assert "is not allowed; must be last, all or one of" in complaint(
        run, "monitors.srank.layer=hidden_9", "--monitors", "srank", *some[2:]
    )
    assert not (tmp_path / "table.parquet").exists()


def test_a_run_without_checkpoints(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("*.npz"))
    with pytest.raises(UserError, match="there is no checkpoint yet"):
        list(measure.measure(copy, ["weight_norm"]))


def test_each_lane_has_the_task_that_it_met(tmp_path):
    """With an order of its own for each seed, as the run recorded it."""
    changes = {"schedule": {"order": "shuffled"}, "arms": {"one": {}}, "seeds": 3, "monitors": ["weight_norm"]}
    stream = {**tiny.document()["stream"], "tasks": 3, "steps_per_task": 10}
    path = config(tmp_path / "tiny.yaml", stream=stream, **changes)
    launch.run(launch.load_config(path), tmp_path / "run")
    found = pd.concat(each.table.to_pandas() for each in measure.measure(tmp_path / "run", ["weight_norm"]))
    keys = ["lane", "step", "task", "weight_norm"]
    expected = tables(tmp_path / "run")["one"][0]
    expected = expected[expected["step"].isin(found["step"])]
    assert (expected.groupby("step")["task"].nunique() > 1).any()  # else there is nothing to get wrong
    found, expected = (each[keys].sort_values(keys[:2]).reset_index(drop=True) for each in (found, expected))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6)
