"""TensorBoard and Weights & Biases, in addition to the tables; read back from their files."""

import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import crashes
import numpy as np
import pytest
import tiny

from plasticity import results
from plasticity.config.experiments import read_experiment
from plasticity.core.errors import UserError
from plasticity.engine.runner import Chunk, Evaluated, Position
from plasticity.runs import launch, session, sharded, trackers
from plasticity.runs.parquet import ListRecorder, RecorderGroup
from plasticity.runs.session import Job


class Spec(NamedTuple):
    envs: int = 4
    frames_per_step: int = 2
    episodic: bool = True
    reward_name: str = "return"
    measures: tuple[str, ...] = ()


class FakeProgram(NamedTuple):
    spec: Spec
    seeds: np.ndarray


def job(*, spec=Spec(), lanes=None, measured=("dormant_units",)) -> Job:  # noqa: B008 (a tuple)
    columns = lanes or {"lane": [0, 1], "seed": [3, 5], "program": [0, 0]}
    program = FakeProgram(spec, np.asarray(columns["seed"]))
    return Job("ln", 0, program, None, columns, None, "", frozenset(measured))


def chunk(step: int, *, diverged=(-1, -1), evaluations=(), **metrics) -> Chunk:
    values = {name: np.asarray(value, np.float32) for name, value in metrics.items()}
    return Chunk(Position(step // 10, step % 10, step), "pong", values, np.asarray(diverged), evaluations)


def test_names_that_users_know():
    curves = trackers.Curves(job(measured=("dormant_units", "weight_norm/output")))
    for metric, name in {
        "episodic_return": "charts/episodic_return",
        "episode_length": "charts/episodic_length",
        "reward": "charts/reward",
        "policy_loss": "losses/policy_loss",
        "clip_fraction": "losses/clipfrac",
        "q_mean": "losses/q_values",
        "dormant_units": "monitors/dormant_units",
        "weight_norm/output": "monitors/weight_norm/output",
        "evaluation_return": "evaluation/return",
    }.items():
        assert curves.name(metric) == name
    supervised = trackers.Curves(job(spec=Spec(episodic=False, reward_name="accuracy")))
    assert supervised.name("reward") == "charts/accuracy"


def test_numbers_of_a_lane():
    """3 steps of 4 envs, 2 frames each: global step 12, 24 frames. Numbers that are not finite are left out."""
    evaluated = Evaluated(0, ("pong", "qbert"), {"episodic_return": np.array([np.nan, 9.0])})
    given = chunk(13, loss=[0.5, np.nan], diverged=(-1, -1), evaluations=(evaluated,))
    curves = trackers.Curves(job())
    first, second = curves.lanes(given)
    common = {"charts/frames": 104, "charts/visit": 1, "charts/step_in_visit": 3}
    assert first == {"losses/loss": 0.5, **common}
    assert second == {"evaluation/qbert/episodic_return": 9.0, **common}
    lost, kept = curves.lanes(chunk(14, loss=[0.5, 0.25], diverged=(2, -1)))
    assert lost == {}
    assert kept["losses/loss"] == 0.25
    assert kept["charts/SPS"] > 0


def test_where_a_lane_goes():
    assert [label.path for label in trackers.labels(job())] == ["ln/seed_3", "ln/seed_5"]
    swept = {"lane": [4, 5], "seed": [0, 0], "program": [1, 1], "a.rate": [0.1, 0.2], "a.path": ["x/y", "z"]}
    found = trackers.labels(job(lanes=swept))
    assert [label.path for label in found] == ["ln/rate=0.1,path=x_y/seed_0", "ln/rate=0.2,path=z/seed_0"]
    assert found[1].facts == {"arm": "ln", "seed": 0, "lane": 5, "a.rate": 0.2, "a.path": "z"}
    alike = {"lane": [7], "seed": [0], "program": [0], "a.rate": [1], "b.rate": [2]}
    assert trackers.labels(job(lanes=alike))[0].path == "ln/a.rate=1,b.rate=2/seed_0"
    long = {"lane": [7], "seed": [0], "program": [0], "a.path": ["x" * 300]}
    assert trackers.labels(job(lanes=long))[0].path == "ln/lane_7/seed_0"


def test_the_tables_say_how_many_parts_there_are():
    tables, other = ListRecorder(), ListRecorder()
    both = RecorderGroup(tables, other)
    both.add(chunk(1))
    other.add(chunk(2))
    assert both.flush() == 1
    assert (len(tables.chunks), len(other.chunks)) == (1, 2)


# TensorBoard.


class Files(NamedTuple):
    points: dict[str, list[tuple[int, float]]]  # tag -> (step, value), in the order of the files
    starts: list[int]  # from which steps on earlier points are to be forgotten


def read(folder: Path) -> Files:
    """TFRecords: length (8 bytes), its CRC (4), the event, its CRC (4)."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = Files({}, [])
    for path in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            if event.session_log.status == SessionLog.START:
                found.starts.append(event.step)
            for value in event.summary.value:
                found.points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboardX")
    first = trackers.TensorBoard(tmp_path, job(), Position())
    for step in (5, 10, 15):
        first.add(chunk(step, loss=[step, -step], dormant_units=[0.25, np.nan]))
    first.flush()
    first.close()
    again = trackers.TensorBoard(tmp_path, job(), Position(1, 0, 10))
    again.add(chunk(15, loss=[15, -15]))
    again.add(chunk(20, loss=[20, -20], diverged=(17, 18)))
    again.close()
    one, other = read(tmp_path / "ln" / "seed_3"), read(tmp_path / "ln" / "seed_5")
    assert one.starts == [41]
    assert one.points["losses/loss"] == [(20, 5.0), (40, 10.0), (60, 15.0), (60, 15.0)]
    assert other.points["losses/loss"] == [(20, -5.0), (40, -10.0), (60, -15.0), (60, -15.0)]
    assert one.points["monitors/dormant_units"] == [(20, 0.25), (40, 0.25), (60, 0.25)]
    assert "monitors/dormant_units" not in other.points


def test_tensorboard_of_a_restarted_program_has_no_duplicate_points(tmp_path):
    """Killed before the first checkpoint; the files of another program stay."""
    pytest.importorskip("tensorboardX")
    other = trackers.TensorBoard(tmp_path, job()._replace(arm="other"), Position())
    first = trackers.TensorBoard(tmp_path, job(), Position())
    for each in (other, first):
        each.add(chunk(5, loss=[5, -5]))
        each.flush()  # and the process is gone
    again = trackers.TensorBoard(tmp_path, job(), Position())
    for step in (5, 10):
        again.add(chunk(step, loss=[step, -step]))
    for each in (again, other, first):
        each.close()
    assert read(tmp_path / "ln" / "seed_3").points["losses/loss"] == [(20, 5.0), (40, 10.0)]
    assert read(tmp_path / "other" / "seed_3").points["losses/loss"] == [(20, 5.0)]


@pytest.mark.parametrize("text", ["", "[]", '{"ids": ["a"], "step": 3}', '{"ids": [1, 2], "step": "x"}'])
def test_a_damaged_note_of_wandb_begins_new_runs_and_says_so(tmp_path, monkeypatch, text):
    opened = []
    monkeypatch.setattr(trackers, "_wandb_run", lambda *args, **kwargs: opened.append(args[3]) or SimpleNamespace())
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "ln-000.json").write_text(text)
    with pytest.warns(UserWarning, match=r"ln-000\.json is damaged .*; new W&B runs are started"):
        trackers.WandB(tmp_path, {"name": "tiny"}, job(), Position())
    assert len(set(opened)) == 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A real run, recorded by TensorBoard."""
    pytest.importorskip("tensorboardX")
    out = tmp_path_factory.mktemp("run") / "run"
    return launch.run(tiny.experiment(seeds=[2, 7], recorders=["tensorboard"]), out)


def test_a_run_has_the_same_numbers_in_both_places(run):
    table = results.load(run)
    for seed in (2, 7):
        points, mine = read(run / "tensorboard" / "baseline" / f"seed_{seed}").points, table[table["seed"] == seed]
        for metric, name in {"reward": "charts/accuracy", "weight_norm": "monitors/weight_norm"}.items():
            known = mine[mine[metric].notna()]
            steps = known["step"] * 4  # of 4 envs
            assert points[name] == list(zip(steps, known[metric], strict=True))
        assert {name.partition("/")[0] for name in points} == {"charts", "losses", "monitors"}


def test_a_run_may_be_resumed_with_other_recorders(run):
    resumed = launch.run(tiny.experiment(seeds=[2, 7]), run, resume=True)
    assert resumed == run


# Configs and mistakes.


def test_the_key_of_a_config():
    registry = launch.registry()
    experiment = read_experiment(tiny.document(recorders=["wandb", "tensorboard"]), registry)
    assert experiment.resolve()["recorders"] == ["wandb", "tensorboard"]
    assert read_experiment(tiny.document(), registry).recorders == ()
    with pytest.raises(UserError, match=r"recorders.*`tensorboard`.*`wandb`|tensorboard or wandb"):
        read_experiment(tiny.document(recorders=["neptune"]), registry)
    with pytest.raises(UserError, match="wandb is given twice"):
        read_experiment(tiny.document(recorders=["wandb", "wandb"]), registry)
    with pytest.raises(UserError, match=r"^arms\.wandb: is a reserved name in the run's folder; choose"):
        read_experiment(tiny.document(arms={"wandb": {}}), registry)


def test_recorders_are_no_part_of_what_makes_the_numbers():
    with_them, without = (launch.plan(tiny.experiment(recorders=names)) for names in (["tensorboard"], []))
    assert with_them.jobs[0].fingerprint == without.jobs[0].fingerprint
    assert {"weight_norm", "weight_norm/hidden_0", "weight_norm/output"} <= without.jobs[0].measured
    assert "loss" not in without.jobs[0].measured


@pytest.mark.parametrize(("name", "package"), trackers.PACKAGES.items())
def test_a_package_that_is_missing(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sharded, "plan", lambda *given: pytest.fail("it went on"))
    with pytest.raises(UserError, match=rf'`{name}` needs the package {package}.* "plasticity-lab\[{name}\]"'):
        launch.run(tiny.experiment(recorders=[name]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_many_lanes():
    many = {"lane": range(101), "seed": range(101), "program": [0] * 101}
    with pytest.raises(UserError, match="`wandb` supports at most 100 lanes per program; arm ln has 101"):
        trackers.check_lanes(["tensorboard", "wandb"], [job(lanes=many)])
    trackers.check_lanes(["tensorboard"], [job(lanes=many)])


# Weights & Biases.


def history(path: Path) -> list[dict[str, float]]:
    """The rows in a ``.wandb`` file: 7 bytes of header, blocks of 32 KiB, records of CRC (4), length (2), type (1)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, rows, part = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record, part = Record.FromString(part), b""
            items = record.history.item
            if items:
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


@pytest.fixture
def offline(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.mark.slow
def test_wandb_goes_on_where_it_was_cut_off(tmp_path, offline):
    resolved = {"name": "tiny"}
    first = trackers.WandB(tmp_path, resolved, job(), Position())
    for step in (5, 10, 15):
        first.add(chunk(step, loss=[step, -step]))
    first.flush()
    first.close()
    known = json.loads((tmp_path / "wandb" / "ln-000.json").read_text())
    again = trackers.WandB(tmp_path, resolved, job(), Position(1, 0, 10))
    for step in (15, 20):
        again.add(chunk(step, loss=[step, -step]))
    again.close()
    assert json.loads((tmp_path / "wandb" / "ln-000.json").read_text())["ids"] == known["ids"]
    for lane, name in enumerate(known["ids"]):
        files = sorted(tmp_path.glob(f"wandb/offline-run-*/run-{name}.wandb"))
        rows = [row for path in files for row in history(path)]
        sign = (1, -1)[lane]
        assert [row["losses/loss"] for row in rows] == [5 * sign, 10 * sign, 15 * sign, 20 * sign]
        assert [row["global_step"] for row in rows] == [row["_step"] for row in rows] == [20, 40, 60, 80]


def test_wandb_that_refuses(tmp_path, offline, monkeypatch):
    import wandb

    def refuse(**options):
        raise wandb.errors.UsageError("api_key not configured (no-tty)\nmore")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match=r"api_key not configured .no-tty.\nWANDB_MODE=offline records without"):
        trackers.WandB(tmp_path, {"name": "tiny"}, job(), Position())


def test_wandb_without_an_account(tmp_path, monkeypatch):
    """An account is checked before anything is planned or written; offline none is needed."""
    wandb = pytest.importorskip("wandb")
    mode = ["online"]

    def refuse():
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "setup", lambda: SimpleNamespace(settings=SimpleNamespace(mode=mode[0])))
    monkeypatch.setattr(wandb, "login", refuse)
    monkeypatch.setattr(sharded, "plan", lambda *given: pytest.fail("it went on"))
    with pytest.raises(UserError, match=r"No API key configured\.\nWANDB_MODE=offline records without an account"):
        launch.run(tiny.experiment(recorders=["wandb"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    mode[0] = "offline"
    trackers.check(["wandb"])


# Between two checkpoints.


def test_tables_are_written_often_at_first_and_then_seldom(monkeypatch):
    """20 s, and a fiftieth of the time so far once that is longer: a day leaves few parts."""
    clock, due = [0.0], []
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])
    pace = session.Pace()
    for second in range(86_400):
        clock[0] = float(second)
        if pace.due():
            due.append(second)
            pace.reset()
    assert due[:3] == [21, 42, 63]
    assert 1600 < due[-1] - due[-2] < 1750
    assert len(due) < 300


def test_parts_without_a_checkpoint_are_made_again(tmp_path, monkeypatch):
    """Killed in the middle of the only visit, after parts that no checkpoint knows: nothing is lost or duplicated."""
    stream = {**tiny.document()["stream"], "tasks": 1, "steps_per_task": 40}
    experiment = tiny.experiment(stream=stream, seeds=1, monitors=[])
    laboratory = crashes.Laboratory(experiment)
    laboratory.run(tmp_path / "whole")
    monkeypatch.setattr(session, "PART_SECONDS", -1.0)
    monkeypatch.setattr(session, "PART_SHARE", -1.0)

    def end(count: int) -> None:
        if count == 5:
            raise crashes.Killed

    with pytest.raises(crashes.Killed):
        laboratory.run(tmp_path / "run", progress=crashes.Watcher(end))
    assert len(results.load(tmp_path / "run")) == 4
    laboratory.run(tmp_path / "run", resume=True)
    crashes.assert_same(tmp_path / "run", crashes.tables(tmp_path / "whole"))
