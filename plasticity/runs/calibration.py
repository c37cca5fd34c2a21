"""Measure how fast the programs of a plan run on this machine, in seconds instead of hours."""

from collections.abc import Callable
from typing import NamedTuple

from plasticity.engine.program import Program
from plasticity.engine.runner import Position, Run
from plasticity.runs import compilation, speeds
from plasticity.runs.devices import devices
from plasticity.runs.planning import Plan
from plasticity.runs.session import Job
from plasticity.runs.speeds import Cost, Stopwatch

SHORT = 256  # env steps of a first chunk: a real one may take minutes
REPEATS = 100  # of a stream that ends before it can be timed
PATIENCE = 5  # times the wished seconds, to get over what comes before learning


class Calibrated(NamedTuple):
    """The speed of a program, and what the time did not suffice for."""

    cost: Cost | None
    missing: tuple[str, ...]


def calibrate(planned: Plan, seconds: float, say: Callable[[str], None]) -> None:
    """Time the first group of lanes of every program, and keep the speeds for ``runs/estimates.py``.

    Nothing is written but the speeds and, unless the config turns it off, the compiled programs.

    Args:
      planned: the plan.
      seconds: how long each program runs after compiling; up to :data:`PATIENCE` times as long before it learns.
      say: receives a line for each program.
    """
    done: dict[str, Calibrated] = {}
    with compilation.kept(planned.experiment.compilation_cache):
        for job in planned.jobs:
            if job.speed_key in done:
                continue
            say(f"{job.arm}: compiling")
            found = done[job.speed_key] = time_job(job, seconds)
            speeds.keep(job.speed_key, found.cost)
            say(f"{job.arm}: {_text(job, found)}")


def _text(job: Job, found: Calibrated) -> str:
    if found.cost is None:
        return "too short to be timed"
    rate = job.placement.block / found.cost.step
    text = f"{rate:,.0f} steps/s of {job.placement.block} lanes at once, {found.cost.start:.0f} s to compile"
    return text + "".join(f"; {each}" for each in found.missing)


def time_job(job: Job, seconds: float) -> Calibrated:
    """The speed of one group of lanes of a job.

    A long chunk is first replaced by a short one, and timed itself only if it takes less than ``seconds``.
    """
    program, chunk = _one_group(job), job.program.chunk
    short = max(size for size in range(1, min(chunk, SHORT) + 1) if chunk % size == 0)
    found = _time(program._replace(chunk=short), job, seconds)
    if short < chunk and found.cost is not None and found.cost.step * chunk < seconds:
        return _time(program, job, seconds)
    return found


def _one_group(job: Job) -> Program:
    rows = job.placement.lanes_of(0, len(job.program.seeds))
    hyper = {path: values[rows] for path, values in job.program.hyper.items()}
    return job.program._replace(hyper=hyper, seeds=job.program.seeds[rows])


def _time(program: Program, job: Job, seconds: float) -> Calibrated:
    run = Run(program, job.placement._replace(groups=1), devices())
    try:
        watch = Stopwatch(run)
        for _ in range(REPEATS):
            for chunk in run.chunks():
                watch.tick(chunk)
                passed = watch.learning.seconds + watch.idle.seconds  # without compiling
                if passed > PATIENCE * seconds or (watch.learning.seconds > seconds and not _missing(run, watch)):
                    break
            if watch.cost() is not None:
                break
            run.begin()
            run.position = Position()
            watch.again()
        return Calibrated(watch.cost(), _missing(run, watch))
    finally:
        run.close()


def _missing(run: Run, watch: Stopwatch) -> tuple[str, ...]:
    """What a measurement lacks. Twice a period: what is due is compiled at its first time."""
    periods = {each.path: each.every for each in run.program.monitors}
    if run.program.evaluation and run.program.evaluation.every:
        periods["evaluation"] = run.program.evaluation.every
    late = [what for what, every in periods.items() if run.position.step < 2 * every]
    untimed = (f"too short to time {', '.join(late)}",) if late else ()
    return untimed if watch.learning.steps else ("too short for a first update", *untimed)
