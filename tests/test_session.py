"""A run that is killed at any moment and resumed writes the tables of an uninterrupted run."""

import errno
import itertools
import json
import os
import shutil
import signal
import threading
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from crashes import Killed, Laboratory, Watcher, assert_same, tables, two_arms

from plasticity.cli.watch import QUIET_SECONDS
from plasticity.config.experiments import read_experiment
from plasticity.config.registry import Registry
from plasticity.core.errors import Interrupted, StorageError, UserError
from plasticity.core.types import FIRST, LAST, MID, StreamSpec, VisitPlan
from plasticity.envs.base import StreamFactory
from plasticity.envs.host import host
from plasticity.runs import execution, launch, session
from plasticity.runs.session import Stop, stop_on_signals

pytestmark = pytest.mark.usefixtures("usual_signals")


@pytest.fixture(scope="module")
def laboratory():
    return Laboratory(two_arms())


@pytest.fixture(scope="module")
def whole(laboratory, tmp_path_factory):
    """The tables of the uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    laboratory.run(run)
    return tables(run)


def test_the_run_that_never_ended(whole):
    """The reference tables are complete."""
    metrics, lanes = whole["wide"]
    assert len(metrics) == 2 * 2 * 4  # widths, seeds, chunks
    assert lanes["lane"].tolist() == [0, 1, 2, 3]
    assert lanes["program"].tolist() == [0, 0, 1, 1]
    assert lanes["agent.network.widths"].tolist() == ["[4]", "[4]", "[8]", "[8]"]
    assert lanes["diverged_at"].isna().all()
    assert metrics.groupby("lane")["step"].apply(list).tolist() == [[5, 10, 15, 20]] * 4


def test_divergence_is_in_the_table_of_lanes_and_the_other_lanes_are_untouched(whole):
    metrics, lanes = whole["hot"]
    assert lanes["agent.optimizer.learning_rate"].tolist() == [0.01, 0.01, 1e30, 1e30]
    diverged = lanes["diverged_at"]
    assert diverged.isna().tolist() == [True, True, False, False]
    assert diverged[2:].between(1, 5).all()
    cool, hot = metrics[metrics["lane"] < 2], metrics[metrics["lane"] >= 2]
    assert cool["loss"].notna().all()
    assert hot["loss"].isna().all()
    assert (hot["update"] == 0).all()
    narrow = whole["wide"][0]
    same_lanes = narrow[narrow["lane"] >= 2].assign(lane=lambda table: table["lane"] - 2)  # width 8, the default rate
    assert len(cool) == len(same_lanes)
    assert set(cool["seed"]) == {0, 1}


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_then_resumed(laboratory, whole, tmp_path, stride):
    for moment in itertools.count(1, stride):
        run = tmp_path / str(moment)
        if not laboratory.killed(run, moment):
            break
        laboratory.resume(run)
        assert_same(run, whole, f"killed at moment {moment}")
        shutil.rmtree(run)
    assert moment > 60  # otherwise the moments are not those that were meant
    assert_same(run, whole)


@pytest.mark.parametrize("life", [17, 23, 41])
def test_killed_again_and_again(laboratory, whole, tmp_path, life):
    """Every resumed run is killed too; progress is never lost, so the run finishes."""
    run, lives = tmp_path / "run", 0
    resume = False
    while laboratory.killed(run, life, resume=resume):
        resume = (run / "experiment.yaml").exists()
        lives += 1
        assert lives < 60
    assert lives >= 2
    assert_same(run, whole)


@pytest.mark.slow
def test_killed_while_an_earlier_run_is_replaced(laboratory, whole, tmp_path):
    """A half-removed run is never resumed; ``--force`` finishes its removal."""
    earlier, run = tmp_path / "earlier", tmp_path / "run"
    laboratory.killed(earlier, 70)
    assert {"wide", "hot"} < {path.name for path in earlier.iterdir()}
    halves = 0
    for moment in itertools.count(1):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(earlier, run)
        assert laboratory.killed(run, moment, force=True)
        if (run / "experiment.yaml").exists() and moment > 1:
            break
        if moment > 1:  # at moment 1 nothing has happened yet
            halves += 1
            with pytest.raises(UserError, match="there is no run to resume"):
                laboratory.run(run, resume=True)
            with pytest.raises(UserError, match="replace it with --force"):
                laboratory.run(run)
    assert halves > 10
    laboratory.run(run, resume=True)
    assert_same(run, whole)
    laboratory.run(run, force=True)
    assert not (run / ".replaced").exists()
    assert_same(run, whole)


def test_a_finished_run_is_resumed_without_a_step(laboratory, whole, tmp_path):
    laboratory.run(tmp_path / "run")
    watcher = laboratory.run(tmp_path / "run", resume=True)
    assert watcher.jobs == []
    assert watcher.lines == [f"{tmp_path / 'run'}: already finished"]
    assert list((tmp_path / "run").glob(".*")) == []
    assert_same(tmp_path / "run", whole)


def test_resumed_between_the_two_programs_of_an_arm(laboratory, whole, tmp_path):
    run = tmp_path / "run"

    def at_chunk(count: int) -> None:
        if count == 5:  # the first chunk of the second program
            raise Killed

    with pytest.raises(Killed):
        laboratory.run(run, progress=Watcher(at_chunk))
    assert json.loads((run / "wide" / "status.json").read_text())["finished"] == [0]
    watcher = laboratory.run(run, resume=True)
    assert watcher.jobs == [("wide", 1, 0), ("hot", 0, 0)]
    assert_same(run, whole)


# Signals.


OTHERS = [getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
WHEN = [(number, chunk) for number in (signal.SIGTERM, signal.SIGINT) for chunk in (1, 2, 3, 4, 6, 12)]


@pytest.mark.parametrize(("number", "chunk"), [*WHEN, *((number, 2) for number in OTHERS)])
def test_a_signal_finishes_the_chunk_and_saves(laboratory, whole, tmp_path, number, chunk):
    """In the middle of a visit, at its end, at the end of a program, and at the end of everything."""
    run = tmp_path / "run"
    watcher = Watcher(lambda count: os.kill(os.getpid(), number) if count == chunk else None)
    handlers = signal.getsignal(number)
    if chunk < 12:
        with pytest.raises(Interrupted) as stopped:
            laboratory.run(run, progress=watcher)
        assert stopped.value.number == number
        assert len(watcher.positions) == chunk
    else:  # nothing is left to do
        laboratory.run(run, progress=watcher)
    assert signal.getsignal(number) is handlers
    resumed = laboratory.run(run, resume=True)
    assert len(watcher.positions) + len(resumed.positions) == 12  # no chunk is computed twice
    assert_same(run, whole)


def test_a_second_signal_acts_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        now[0] += 0.1
        os.kill(os.getpid(), signal.SIGINT)  # `timeout` and wrappers send one request twice
        now[0] += 0.2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", OTHERS)
def test_another_signal_is_no_second_one(number):
    """A scheduler's warning, then its SIGTERM; the exit code is that of the first signal."""
    with stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == number
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, *OTHERS])
def test_an_ignored_signal_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        assert stop.signal is None
        assert signal.getsignal(number) is signal.SIG_IGN
    assert signal.getsignal(number) is signal.SIG_IGN


def test_status_of_an_interrupted_run(laboratory, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        laboratory.run(run, progress=Watcher(lambda n: os.kill(os.getpid(), signal.SIGTERM) if n == 7 else None))
    status = json.loads((run / "wide" / "status.json").read_text())
    assert status.pop("steps_per_second") > 0
    assert status.pop("updated") > 1.7e9
    assert len(status.pop("crc32")) == 8
    expected = {"program": 1, "lanes": 2, "steps": 20, "state": "interrupted", "visit": 1, "step": 15}
    assert status == {"finished": [0], "parts": {"0": 2}, **expected}
    assert not (run / "hot").exists()
    laboratory.run(run, resume=True)
    status = json.loads((run / "wide" / "status.json").read_text())
    assert (status["state"], status["step"], status["finished"]) == ("finished", 20, [0, 1])


# Files that cannot be written.


class Full:
    """A disk on which the writing of the file number ``first``, counted from 0, and of ``more`` after it fails."""

    def __init__(self, first: int, code: int, more: int = 0) -> None:
        self.count, self.failing, self.code = 0, range(first, first + more + 1), code
        self.replace = os.replace

    def __call__(self, source: Any, target: Any) -> None:
        self.count += 1
        if self.count - 1 in self.failing:
            raise OSError(self.code, os.strerror(self.code), str(source))
        self.replace(source, target)


CODES = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EACCES, errno.ESTALE]


def test_a_write_that_fails_at_any_place(laboratory, whole, tmp_path):
    """The error has two lines and is in the status; saved data are kept, and the resumed run writes the same tables."""
    states = []
    for first in itertools.count(2, 3):  # 0 and 1 are the plan and the config, before the run begins
        run, disk = tmp_path / str(first), Full(first, CODES[first % len(CODES)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", disk)
            try:
                laboratory.run(run)
                break
            except StorageError as error:
                said = str(error).splitlines()
        assert len(said) == 2
        assert said[0].startswith(f"{run}/")
        assert said[0].endswith(f": {os.strerror(disk.code)}")
        assert not said[0].partition(": ")[0].endswith(".tmp")
        arm = said[1].split()[1]
        status = json.loads((run / arm / "status.json").read_text())
        assert (status["state"], status["reason"]) == ("failed", said[0])
        states.append(status["step"])
        assert not list(run.rglob("*.tmp"))
        laboratory.run(run, resume=True)
        assert "reason" not in json.loads((run / arm / "status.json").read_text())
        assert_same(run, whole, f"write {first} failed")
    assert len(states) > 10
    assert {0, 10, 20} <= set(states)


def test_a_disk_that_stays_full(laboratory, whole, tmp_path):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", Full(20, errno.ENOSPC, more=1000))
        with pytest.raises(StorageError, match="No space left on device"):
            laboratory.run(run)
        with pytest.raises(StorageError, match="No space left on device"):  # full still
            laboratory.run(run, resume=True)
    laboratory.run(run, resume=True)
    assert_same(run, whole)


def test_a_folder_that_is_removed_under_a_run(laboratory, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(StorageError) as error:
        laboratory.run(run, progress=Watcher(lambda count: shutil.rmtree(run) if count == 6 else None))
    assert len(str(error.value).splitlines()) == 2
    assert "No such file or directory" in str(error.value)
    assert not run.exists()


def test_a_bug_is_in_the_status_and_keeps_its_traceback(laboratory, whole, tmp_path):
    run = tmp_path / "run"

    def break_down(count: int) -> None:
        if count == 6:
            raise ZeroDivisionError("division by\nzero")

    with pytest.raises(ZeroDivisionError):
        laboratory.run(run, progress=Watcher(break_down))
    status = json.loads((run / "wide" / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("failed", "ZeroDivisionError: division by zero")
    laboratory.run(run, resume=True)
    assert_same(run, whole)


# The lock.


def test_a_live_run_is_refused_to_others_and_can_be_read(laboratory, whole, tmp_path):
    run, said = tmp_path / "run", []

    def disturb(count: int) -> None:
        for options in ({}, {"resume": True}, {"force": True}) if count == 5 else ():
            with pytest.raises(UserError) as error:
                launch.run(laboratory.experiment, run, **options)
            said.append(str(error.value))
        if count == 5:
            assert len(tables(run)) == 1

    laboratory.run(run, progress=Watcher(disturb))
    assert len(said) == 3
    assert all(f"{run}: in use by process {os.getpid()} on " in line and "\n" not in line for line in said)
    assert_same(run, whole)


@pytest.mark.parametrize("options", [{}, {"resume": True}])
def test_a_run_that_begins_while_another_one_is_planned(laboratory, whole, tmp_path, monkeypatch, options):
    """The folder was free when it was checked, so it is checked again under the lock."""
    run, planned = tmp_path / "run", execution._checked

    def slowly(*args: Any) -> launch.Plan:
        monkeypatch.setattr(execution, "_checked", planned)
        laboratory.run(run)
        return planned(*args)

    monkeypatch.setattr(execution, "_checked", slowly)
    if options:
        assert laboratory.run(run, **options).jobs == []
    else:
        with pytest.raises(UserError, match="exists; continue it with --resume"):
            laboratory.run(run)
    assert_same(run, whole)


@pytest.mark.parametrize("text", ["", "{", '{"finished": [0]'])
def test_an_unreadable_status_costs_nothing(laboratory, whole, tmp_path, text):
    run = tmp_path / "run"
    laboratory.run(run)
    (run / "wide" / "status.json").write_text(text)
    laboratory.run(run, resume=True)
    assert_same(run, whole)


def test_speed_counts_lane_steps_since_the_first_chunk(monkeypatch):
    times = iter([100.0, 102.0, 110.0])
    monkeypatch.setattr(session.time, "monotonic", lambda: next(times))
    speed = session.Speed(lanes=3)
    assert speed.at(50) == 0.0  # compilation and the first chunk are over: the count begins
    assert speed.at(70) == 3 * 20 / 2
    assert speed.at(150) == 3 * 100 / 10


def test_stop_is_unset_outside_the_main_thread():
    seen = []

    def work() -> None:
        with stop_on_signals() as stop:
            seen.append(stop.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
    assert Stop().signal is None


# Emulators on the host.


class Walker:
    """A walk on a line, pushed by the actions and by each env's own chance; it ends now and then."""

    def __init__(self, task: int, seeds: np.ndarray) -> None:
        self.task, self.chances = task, [np.random.default_rng(seed) for seed in seeds]
        self.places, self.ended = np.zeros(len(seeds), np.float32), np.zeros(len(seeds), bool)

    def see(self) -> np.ndarray:
        return np.stack([self.places, np.full_like(self.places, self.task)], 1)

    def reset(self) -> np.ndarray:
        self.places[:] = 0
        return self.see()

    def step(self, actions: np.ndarray) -> Any:
        chance = np.array([one.random() for one in self.chances], np.float32)
        opens, self.ended = self.ended, ~self.ended & (chance < 0.2)
        self.places = np.where(opens, 0, self.places + actions + chance - 1.5).astype(np.float32)
        step_type = np.where(opens, FIRST, np.where(self.ended, LAST, MID)).astype(np.int8)
        reward = np.where(opens, 0, -np.abs(self.places)).astype(np.float32)
        return self.see(), reward, np.where(self.ended, 0, 1).astype(np.float32), step_type

    def close(self) -> None:
        self.chances = []


def walk() -> StreamFactory:
    """Walks on the host."""
    observation = jax.ShapeDtypeStruct((2,), np.float32)
    visits = (VisitPlan(0, 20), VisitPlan(1, 20))
    spec = StreamSpec(observation, actions=3, tasks=("left", "right"), visits=visits, envs=2, episodic=True)
    return StreamFactory(spec, lambda lanes: host(spec, Walker, lanes, 2))


@pytest.fixture(scope="module")
def walkers():
    """Deep Q-learning of two lanes in two blocks of emulators; saved within visits and at their ends."""
    known = Registry()
    for family, members in launch.BUILT_IN.items():
        known.register_all(family, members)
    known.register("streams", "walk", walk)
    changes = {"stream": "walk", "seeds": 2, "checkpoint_every": 10, "placement": {"width": 1, "devices": 1}}
    return Laboratory(read_experiment(tiny.document(**tiny.DQN, **changes), known))


@pytest.mark.slow
def test_emulators_are_killed_at_any_moment_then_resumed(walkers, tmp_path):
    walkers.run(tmp_path / "whole")
    whole = tables(tmp_path / "whole")
    metrics, _ = whole["baseline"]
    assert metrics["update"].max() == 17  # at every second step from step 8 on
    assert metrics["episodes"].sum() > 5
    for moment in itertools.count(1, 7):
        run = tmp_path / str(moment)
        if not walkers.killed(run, moment):
            break
        walkers.resume(run)
        assert_same(run, whole, f"killed at moment {moment}")
    assert moment > 60


@pytest.mark.parametrize("chunk", [1, 3, 4, 7])
def test_emulators_are_stopped_within_a_visit(walkers, tmp_path, chunk):
    walkers.run(tmp_path / "whole")
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        walkers.run(run, progress=Watcher(lambda n: os.kill(os.getpid(), signal.SIGTERM) if n == chunk else None))
    watcher = walkers.run(run, resume=True)
    assert watcher.jobs == [("baseline", 0, 5 * chunk)]
    assert_same(run, tables(tmp_path / "whole"))


@pytest.mark.slow
def test_a_real_game_is_resumed_within_a_visit(tmp_path):
    """Sticky actions included: the emulator is brought to the same frame, by the actions it was given."""
    stream = {"kind": "atari", "games": ["Pong", "Breakout"], "frames_per_visit": 1600}
    periods = {"monitor_every": 200, "record_every": 50, "checkpoint_every": 100}
    games = Laboratory(tiny.experiment(**tiny.DQN, stream=stream, seeds=2, **periods))
    games.run(tmp_path / "whole")
    whole = tables(tmp_path / "whole")
    assert whole["baseline"][0]["episodes"].sum() > 0

    def kill(count: int) -> None:
        if count == 5:
            raise Killed

    run = tmp_path / "run"
    with pytest.raises(Killed):
        games.run(run, progress=Watcher(kill))
    terminate = Watcher(lambda count: os.kill(os.getpid(), signal.SIGTERM) if count == 7 else None)
    with pytest.raises(Interrupted):
        games.run(run, resume=True, progress=terminate)
    assert terminate.jobs == [("baseline", 0, 200)]
    last = games.run(run, resume=True)
    assert last.jobs == [("baseline", 0, 550)]
    assert_same(run, whole)


def test_a_long_run_writes_its_status_less_often():
    found = [session.status_seconds(elapsed) for elapsed in (0, 50, 100, 250, 1000, 100_000)]
    assert found == [2, 2, 2, 5, 20, 20]
    assert max(found) < QUIET_SECONDS / 2
