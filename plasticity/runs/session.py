"""Run one program from its start or last checkpoint to its end: recording, checkpoints, status, signals."""

import contextlib
import functools
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple, Protocol

import jax

from plasticity.config.starts import Start
from plasticity.core.errors import Interrupted, StorageError, UserError, cut, why
from plasticity.engine.flops import Flops
from plasticity.engine.lanes import Placement, join
from plasticity.engine.program import Program
from plasticity.engine.runner import Chunk, Learners, Position, Run
from plasticity.runs import checkpoint, speeds, verify
from plasticity.runs.accounts import read_status
from plasticity.runs.checkpoint import Snapshot
from plasticity.runs.checksums import to_json
from plasticity.runs.files import write_text
from plasticity.runs.folder import made_otherwise
from plasticity.runs.parquet import ParquetRecorder, Recorder, RecorderGroup
from plasticity.runs.speeds import Stopwatch

STATUS_SECONDS = 2.0  # between two status files at first
STATUS_SLOWER, STATUS_FACTOR = 100.0, 10.0  # seconds after which that time grows, and by how much at most
AGAIN_SECONDS = 0.2  # a repeat within this time is ignored: `timeout`, shells and wrappers may send a signal twice
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # the run stops on those that the system has
# The first parts are written with every checkpoint; later, a checkpoint holds the rows until a part is due by time or
# has this many rows. More parts than the most, or than the first when a program is finished, are merged into one.
FEW_PARTS, MOST_PARTS, MOST_ROWS = 8, 64, 10_000
PART_SECONDS, PART_SHARE = 20.0, 0.02  # between two parts of the tables: the larger of the two, of the time so far


class Continued(Protocol):
    """Learners of another run: see :class:`plasticity.runs.starting.Continued`."""

    start: Start

    def check(self, run: Run) -> None: ...

    def check_alike(self, run: Run, other: Run) -> None: ...

    def __call__(self, run: Run) -> list[Learners]: ...


class Job(NamedTuple):
    """One program of an arm, ready to run."""

    arm: str
    number: int  # of the program within its arm
    program: Program
    placement: Placement
    lanes: Mapping[str, list[Any]]  # columns of lanes.parquet
    checkpoint_every: int | None  # env steps; None: at the end of every visit
    fingerprint: str  # equal for the same program under the same config
    measured: frozenset[str] = frozenset()  # the metrics that monitors write
    speed_key: str = ""  # equal for programs that take the same time per step
    flops: Flops | None = None  # of one lane; None: not counted
    keep: tuple[int, ...] | Literal["all"] = ()  # after how many visits a checkpoint is kept
    learners: Continued | None = None  # those of another run, which go on; None: new ones


class Stop:
    """Records the signal that asked the process to stop."""

    signal: int | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Let the current chunk finish on Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2; a repeated signal acts at once.

    A signal that the process ignores stays ignored, as set by `nohup`, cron and shells. A no-op outside the main
    thread.
    """
    stop = Stop()
    before: dict[int, Any] = {}
    came: dict[int, float] = {}

    def remember(received: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if received not in came:
            came[received] = now
            stop.signal = stop.signal or received
        elif now - came[received] >= AGAIN_SECONDS:
            _act(received, frame, before[received])

    try:
        for chosen in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            handler = signal.getsignal(chosen)
            if handler not in (signal.SIG_IGN, None):  # None: a handler that is not Python's
                signal.signal(chosen, remember)
                before[chosen] = handler
    except ValueError:  # not the main thread
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _act(number: int, frame: FrameType | None, handler: Any) -> None:
    """The signal's effect without :func:`stop_on_signals`."""
    signal.signal(number, handler)
    if callable(handler):
        handler(number, frame)
    else:
        signal.raise_signal(number)


class Progress(Protocol):
    """Observer of a run: ``job`` at a program's start, ``chunk`` after each chunk, ``say`` for a line of text."""

    def job(self, job: Job, position: Position) -> None: ...

    def chunk(self, chunk: Chunk) -> None: ...

    def say(self, line: str) -> None: ...


class NoProgress:
    """No progress display."""

    def job(self, job: Job, position: Position) -> None:
        del job, position

    def chunk(self, chunk: Chunk) -> None:
        del chunk

    def say(self, line: str) -> None:
        del line


class Runs(Protocol):
    """Provider of the runs of jobs: see :class:`plasticity.runs.preparation.Preparation`."""

    def run_of(self, job: Job) -> Run: ...

    def compile(self, run: Run) -> None: ...

    def follow(self, job: Job) -> None: ...


class Speed:
    """Lane steps per second since the first chunk, which excludes compilation."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._mark: tuple[float, int] | None = None

    def at(self, step: int) -> float:
        """The speed when ``step`` env steps are done; 0 at the first call."""
        now = time.monotonic()
        self._mark = self._mark or (now, step)
        since, first = self._mark
        return (step - first) * self._lanes / max(now - since, 1e-9)


def status_seconds(elapsed: float) -> float:
    """The time between two status files: 2 s at first, 2 % of the time so far from 100 s on, 20 s from 1,000 s on."""
    return STATUS_SECONDS * min(max(elapsed / STATUS_SLOWER, 1.0), STATUS_FACTOR)


class Status:
    """``status.json`` of an arm: its state, position and speed, and which of its programs are finished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = {"finished": []} | read_status(path.parent)
        self._begun, self._written, self._rate, self._speed = time.monotonic(), 0.0, 0.0, Speed(0)

    def finished(self, index: int) -> bool:
        return index in self.facts["finished"]

    def begin(self, job: Job, position: Position) -> None:
        self._not_finished(job)
        total = sum(visit.steps for visit in job.program.spec.visits)
        lanes = len(job.program.seeds)
        self.facts |= {"program": job.number, "lanes": lanes, "steps": total}
        self.facts.pop("reason", None)  # why it failed before
        self._rate, self._speed = 0.0, Speed(lanes)
        self.write("running", position)

    def _not_finished(self, job: Job) -> None:
        self.facts["finished"] = [number for number in self.facts["finished"] if number != job.number]
        self.facts.get("parts", {}).pop(str(job.number), None)

    def tick(self, position: Position) -> None:
        self._rate = self._speed.at(position.step)
        if time.monotonic() - self._written > status_seconds(time.monotonic() - self._begun):
            self.write("running", position)

    def write(self, state: str, position: Position) -> None:
        self.facts |= {"state": state, "visit": position.visit, "step": position.step}
        self.facts |= {"steps_per_second": round(self._rate, 1), "updated": time.time()}
        write_text(self.path, to_json(self.facts))
        self._written = time.monotonic()

    def fail(self, job: Job, position: Position, reason: str) -> None:
        """Record that the program failed and why, if the file can still be written."""
        self._not_finished(job)  # writing the status may be what failed
        self.facts |= {"program": job.number, "reason": reason}
        with contextlib.suppress(OSError):
            self.write("failed", position)

    def finish(self, job: Job, position: Position, parts: int) -> None:
        self.facts["parts"] = {**self.facts.get("parts", {}), str(job.number): parts}
        self.facts["finished"] = sorted({*self.facts["finished"], job.number})
        self.write("finished", position)


class Pace:
    """When to write the tables between two checkpoints: often enough for live viewing, rarely enough for few parts."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        return now - self._last > max(PART_SECONDS, PART_SHARE * (now - self._begun))

    def reset(self) -> None:
        self._last = time.monotonic()


def _last_step(job: Job, position: Position) -> bool:
    visits = job.program.spec.visits
    return position.visit + 1 == len(visits) and position.step_in_visit == visits[-1].steps


def _kept(job: Job, position: Position) -> bool:
    """Whether a checkpoint at this position is kept."""
    ends = position.step_in_visit == job.program.spec.visits[position.visit].steps
    return ends and (job.keep == "all" or position.visit + 1 in job.keep)


def _checkpoint_due(job: Job, position: Position) -> bool:
    if _kept(job, position):
        return True
    if job.checkpoint_every is None:
        return position.step_in_visit == job.program.spec.visits[position.visit].steps
    return position.step % job.checkpoint_every == 0 or _last_step(job, position)


def _save(run: Run, job: Job, folder: Path, tables: ParquetRecorder) -> None:
    """Write a checkpoint. It records the tables' parts with length and CRC-32, and holds the rows that are in none."""
    last = _last_step(job, run.position)
    if tables.pieces > (FEW_PARTS if last else MOST_PARTS):
        tables.merge()
    name = f"{run.position.step:012d}"
    meta: dict[str, Any] = {"fingerprint": job.fingerprint, "position": list(run.position)}
    meta |= {"parts": tables.parts, "files": tables.files}
    meta[checkpoint.FIRST] = all(path.stem >= name for path in checkpoint.files(folder))
    snapshot = Snapshot(jax.device_get(run.carries), run.compiled.stream.save(), meta, tables.waiting())
    path = checkpoint.save(folder, name, snapshot)
    if _kept(job, run.position):
        checkpoint.keep(path)
    tables.saved(last)


def _restore(run: Run, job: Job, arm: Path, say: Callable[[str], None]) -> Snapshot | None:
    """Restore the run from its newest intact checkpoint, and return it; None if there is none.

    ``UserError`` if rows that every intact checkpoint needs are missing.
    """
    like = [run.carry_shape()] * job.placement.groups
    try:
        found, passed = checkpoint.newest(
            _checkpoints(job, arm), like, job.fingerprint, functools.partial(verify.fault, arm, job.number)
        )
    except checkpoint.WrongCheckpointError as error:
        advice = "resume it with the original config, placement and versions, or restart it with --force"
        raise UserError(f"{error}\n{made_otherwise(arm.parent)}{advice}") from None
    except checkpoint.LostRowsError as error:
        raise UserError(f"{error}, so the run cannot be resumed\n{_remedies(arm)}") from None
    position = Position() if found is None else Position(*found.meta["position"])
    for line in passed:
        say(line)
    if found is None:
        if passed or verify.table_parts(arm, job.number):
            say(f"{job.arm}: no checkpoint is left; restarts")
        return None
    if passed:
        say(f"{job.arm}: continues from step {position.step}")
    run.restore(found.arrays, position, found.host)
    return found


def _checkpoints(job: Job, arm: Path) -> Path:
    return arm / "checkpoints" / f"{job.number:03d}"


def _remedies(arm: Path) -> str:
    return f"restore the file, remove the folder {arm} to rerun that arm, or restart with --force"


def _is_finished(job: Job, arm: Path, status: Status, resume: bool, say: Callable[[str], None]) -> bool:
    """Whether nothing is left to do: the status says so, and the tables are intact."""
    if not status.finished(job.number) or not resume:
        return status.finished(job.number)
    steps = sum(visit.steps for visit in job.program.spec.visits)
    why = verify.unfinished(arm, job.number, steps, steps // job.program.chunk * len(job.program.seeds))
    if why is None:
        return True
    if not checkpoint.files(_checkpoints(job, arm)) and verify.table_parts(arm, job.number):
        raise UserError(f"{why}, and no checkpoint is left\n{_remedies(arm)}")
    say(f"{job.arm}: was finished, but {why}")
    return False


def _recorder(run: Run, job: Job, folder: Path, found: Snapshot | None) -> ParquetRecorder:
    """The tables as they were when the checkpoint was written; ``found``: None: at the start."""
    lanes = len(job.program.seeds)
    meta: Mapping[str, Any] = found.meta if found else {"parts": 0}
    diverged = join(jax.device_get([carry.diverged_at for carry in run.carries]), lanes) if run.carries else None
    frames = job.program.spec.frames_per_step * job.program.spec.envs
    recorder = ParquetRecorder(folder, job.arm, job.number, job.lanes, frames, diverged, meta["parts"], flops=job.flops)
    recorder.cut_back(meta["parts"], meta.get("files"), checkpoint.files_of(_checkpoints(job, folder)) if found else ())
    recorder.restore(found.rows if found else {})
    return recorder


def run_job(
    job: Job,
    folder: Path,
    runs: Runs,
    progress: Progress,
    stop: Stop,
    resume: bool,
    others: Callable[[Job, Position], Sequence[Recorder]] = lambda job, position: (),
) -> bool:
    """Run one program to its end inside the arm's ``folder``.

    ``others``: further recorders for a program that starts or resumes at a position.

    Returns whether anything was left to do.

    Raises ``Interrupted`` after a signal and ``StorageError`` if a file cannot be written or read. After any failure,
    ``status.json`` says ``failed`` and why.
    """
    status = Status(folder / "status.json")
    found: list[str] = []  # reported once it is known that the run can continue; a refusal has its own message
    if _is_finished(job, folder, status, resume, found.append):
        return False
    if stop.signal is not None:  # received during the last chunk of the previous program
        raise Interrupted(stop.signal)
    run = runs.run_of(job)
    try:
        with _recording_failures(status, job, run):
            restored = _restore(run, job, folder, found.append) if resume else None
            if restored is not None and _kept(job, run.position):  # it ended between the two
                checkpoint.keep(_checkpoints(job, folder) / f"{run.position.step:012d}.npz")
            loaded = job.learners(run) if restored is None and job.learners else ()
            for line in found:
                progress.say(line)
            tables = _recorder(run, job, folder, restored)
            progress.job(job, run.position)
            status.begin(job, run.position)
            with contextlib.closing(RecorderGroup(tables, *others(job, run.position))) as recorder:
                _loop(run, job, runs, _checkpoints(job, folder), tables, recorder, status, progress, stop, loaded)
            status.finish(job, run.position, tables.parts)
        return True
    finally:
        run.close()


@contextlib.contextmanager
def _recording_failures(status: Status, job: Job, run: Run) -> Iterator[None]:
    """Record failures in the status; file errors become ``StorageError``."""
    try:
        yield
    except (UserError, Interrupted):
        raise
    except OSError as error:
        message = f"a worker process has ended: {why(error)}" if isinstance(error, ConnectionError) else why(error)
        status.fail(job, run.position, message)
        raise StorageError(f"{message}\narm {job.arm} has stopped at step {run.position.step}") from error
    except Exception as error:
        status.fail(job, run.position, cut(f"{type(error).__name__}: {' '.join(str(error).split())}", 200))
        raise


def _chunks(run: Run, job: Job, runs: Runs, learners: Sequence[Learners]) -> Iterator[Chunk]:
    """The chunks of a run, once it is compiled; after the first one, what runs next is prepared."""
    runs.compile(run)
    if not run.carries:
        run.begin(learners)
    for number, chunk in enumerate(run.chunks()):
        yield chunk
        if number == 0:
            runs.follow(job)


def _loop(
    run: Run, job: Job, runs: Runs, checkpoints: Path, tables: ParquetRecorder, recorder: RecorderGroup, status: Status,
    progress: Progress, stop: Stop, learners: Sequence[Learners],
) -> None:  # fmt: skip
    pace, watch = Pace(), Stopwatch(run)
    for chunk in _chunks(run, job, runs, learners):
        recorder.add(chunk)
        progress.chunk(chunk)
        status.tick(chunk.position)
        saves = _checkpoint_due(job, chunk.position) or stop.signal is not None
        ends = stop.signal is not None or _last_step(job, chunk.position)
        # Parts between checkpoints belong to none; a resumed run produces their rows again.
        if ends or pace.due() or (saves and (tables.pieces < FEW_PARTS or tables.rows > MOST_ROWS)):
            recorder.flush()
            pace.reset()
        elif saves:
            recorder.flush_others()
        if saves:
            _save(run, job, checkpoints, tables)
        watch.tick(chunk)
        if stop.signal is not None and not _last_step(job, chunk.position):
            status.write("interrupted", chunk.position)
            raise Interrupted(stop.signal)
    speeds.keep(job.speed_key, watch.cost())
