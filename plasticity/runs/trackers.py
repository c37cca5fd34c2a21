"""Optional recorders besides the tables: TensorBoard and Weights & Biases, one set of curves per lane.

The x-axis, ``global_step``, counts env steps over all envs of a lane; ``charts/frames`` counts frames.
"""

import contextlib
import importlib.util
import math
import os
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plasticity.core.errors import UserError
from plasticity.engine.measures import columns
from plasticity.engine.runner import Chunk, Evaluated, Position
from plasticity.runs.checksums import DamagedError, is_list, is_whole, read_json, to_json
from plasticity.runs.files import write_atomically
from plasticity.runs.parquet import Recorder
from plasticity.runs.session import Job

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
LANES_AT_MOST = {"tensorboard": 500, "wandb": 100}  # open at once: files, or runs of W&B
NAMES = {
    "episodic_return": "charts/episodic_return",
    "episode_length": "charts/episodic_length",
    "episodes": "charts/episodes",
    "update": "charts/update",
    "q_mean": "losses/q_values",
    "clip_fraction": "losses/clipfrac",
}
BOOKKEEPING = ("lane", "seed", "program")


def check(names: Sequence[str]) -> None:
    """``UserError`` if a recorder's package is not installed, or if the user is not logged in to W&B."""
    check_installed(names)
    if "wandb" in names:
        _log_in()


def check_installed(names: Sequence[str]) -> None:
    """``UserError`` if a recorder's package is not installed."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(
                f"recorders: `{name}` needs the package {PACKAGES[name]}, which is not installed; "
                f'install the extra `{name}` (pip install "plasticity-lab[{name}]") or leave it out'
            )


def _log_in() -> None:
    """Ask for the W&B key on a terminal if none is known; do nothing if ``WANDB_MODE`` is offline."""
    import wandb

    with _as_user_errors():
        if wandb.setup().settings.mode == "online":
            wandb.login()


@contextlib.contextmanager
def _as_user_errors() -> Iterator[None]:
    """Convert errors of W&B to ``UserError``."""
    import wandb

    try:
        yield
    except wandb.errors.Error as error:
        why = str(error).partition("\n")[0]
        raise UserError(f"recorders: wandb: {why}\nWANDB_MODE=offline records without an account") from None


def check_lanes(names: Sequence[str], jobs: Sequence[Job]) -> None:
    """``UserError`` if a program has more lanes than a recorder can keep open."""
    for name in names:
        for job in jobs:
            lanes = len(job.program.seeds)
            if lanes > LANES_AT_MOST[name]:
                raise UserError(
                    f"recorders: `{name}` supports at most {LANES_AT_MOST[name]} lanes per program; arm {job.arm} has "
                    f"{lanes}\nleave it out (the tables hold everything), or run fewer seeds at a time"
                )


def make(
    names: Sequence[str], run: Path, resolved: Mapping[str, Any], job: Job, position: Position
) -> Sequence[Recorder]:
    """The named recorders of a program that starts or resumes at ``position``.

    ``run``: the run's folder; ``resolved``: its config. ``UserError`` if W&B refuses to start.
    """
    made: dict[str, Any] = {
        "tensorboard": lambda: TensorBoard(run / "tensorboard", job, position),
        "wandb": lambda: WandB(run, resolved, job, position),
    }
    return [made[name]() for name in names]


class Label(NamedTuple):
    """Label of a lane: ``path`` below the recorder's folder, and the facts that identify it."""

    path: str
    facts: Mapping[str, Any]


def labels(job: Job) -> list[Label]:
    """``ARM/seed_3``, or ``ARM/learning_rate=0.001/seed_3`` for a swept arm."""
    swept = [column for column in job.lanes if column not in BOOKKEEPING]
    found = []
    for lane, seed in enumerate(job.lanes["seed"]):
        values = {column: job.lanes[column][lane] for column in swept}
        point = ",".join(f"{_short(column, swept)}={value}" for column, value in values.items())
        point = point.replace("/", "_") if len(point) < 200 else f"lane_{job.lanes['lane'][lane]}"
        path = "/".join(filter(None, (job.arm, point, f"seed_{seed}")))
        found.append(Label(path, {"arm": job.arm, "seed": int(seed), "lane": int(job.lanes["lane"][lane]), **values}))
    return found


def _short(column: str, columns: Sequence[str]) -> str:
    """The last part of a dotted path, or all of it if another path has the same last part."""
    last = column.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in columns) == 1 else column


class Curves:
    """A program's chunks as named numbers, lane by lane."""

    def __init__(self, job: Job) -> None:
        self._spec, self._measured = job.program.spec, job.measured
        self._mark: tuple[float, int] | None = None

    def step(self, position: Position) -> int:
        """Env steps over all envs of a lane."""
        return position.step * self._spec.envs

    def name(self, metric: str) -> str:
        """The metric's name in CleanRL's convention."""
        if metric in self._measured:
            return f"monitors/{metric}"
        if metric.startswith("evaluation_"):
            return metric.replace("_", "/", 1)
        if metric == "reward":
            return "charts/reward" if self._spec.episodic else f"charts/{self._spec.reward_name}"
        if metric in columns(self._spec.measures):
            return f"charts/{metric}"
        return NAMES.get(metric, f"losses/{metric}")

    def lanes(self, chunk: Chunk) -> Iterator[dict[str, float]]:
        """Each lane's finite numbers of a chunk; empty for a diverged lane."""
        common = self._common(chunk.position)
        named = {self.name(metric): values for metric, values in chunk.metrics.items()}
        for lane, diverged in enumerate(chunk.diverged_at.tolist()):
            known = {name: float(values[lane]) for name, values in named.items()}
            for each in chunk.evaluations:
                known |= _evaluated(each, lane)
            numbers = {name: value for name, value in known.items() if math.isfinite(value)}
            yield {} if diverged >= 0 else numbers | common

    def _common(self, position: Position) -> dict[str, float]:
        now, step = time.monotonic(), self.step(position)
        found: dict[str, float] = {
            "charts/frames": step * self._spec.frames_per_step,
            "charts/visit": position.visit,
            "charts/step_in_visit": position.step_in_visit,
        }
        if self._mark is None:  # the first chunk includes compilation
            self._mark = (now, step)
            return found
        return found | {"charts/SPS": (step - self._mark[1]) / max(now - self._mark[0], 1e-9)}


def _evaluated(each: Evaluated, lane: int) -> dict[str, float]:
    task = each.task if isinstance(each.task, str) else each.task[lane]
    return {f"evaluation/{task}/{metric}": float(values[lane]) for metric, values in each.metrics.items()}


class TensorBoard:
    """Event files, one per lane: ``FOLDER/ARM/seed_N``.

    A resumed run writes new files that start with the step from which TensorBoard discards the earlier ones. A program
    that restarts removes its earlier files, as their contents are recorded again.
    """

    def __init__(self, folder: Path, job: Job, position: Position) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.proto.summary_pb2 import Summary

        self._summary = Summary
        self._curves = Curves(job)
        done = self._curves.step(position)
        places = [folder / label.path for label in labels(job)]
        for path in (path for place in places if not done for path in place.glob("events.out.tfevents.*")):
            path.unlink()
        self._writers = [
            SummaryWriter(
                str(place),
                purge_step=done + 1 if done else None,
                filename_suffix=f".{time.time_ns()}",  # two files created in the same second would have the same name
            )
            for place in places
        ]

    def add(self, chunk: Chunk) -> None:
        step = self._curves.step(chunk.position)
        for writer, numbers in zip(self._writers, self._curves.lanes(chunk), strict=True):
            values = [self._summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
            if values:
                writer.file_writer.add_summary(self._summary(value=values), step)  # one record a lane, not one a number

    def flush(self) -> int:
        for writer in self._writers:
            writer.flush()
        return 0

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


class WandB:
    """Weights & Biases runs, one per lane: grouped by arm, in ``RUN/wandb``.

    A resumed program continues the same W&B runs and sends each step only once. ``WANDB_MODE=offline`` keeps each part
    in a separate folder, for ``wandb sync``.
    """

    def __init__(self, run: Path, resolved: Mapping[str, Any], job: Job, position: Position) -> None:
        self._curves = Curves(job)
        self._file = run / "wandb" / f"{job.arm}-{job.number:03d}.json"
        self._sent = self._read(len(job.program.seeds))
        self._runs: list[Any] = []
        try:
            for label, name in zip(labels(job), self._sent["ids"], strict=True):
                self._runs.append(_wandb_run(run, resolved, label, name, resumed=self._sent["step"] > 0))
        except BaseException:
            self.close()
            raise

    def _read(self, lanes: int) -> dict[str, Any]:
        """The W&B runs of the program and the last step sent to them; new runs if none are recorded."""
        try:
            found = read_json(self._file)
            if is_list(found.get("ids"), _is_id) and len(found["ids"]) == lanes and is_whole(found.get("step")):
                return found
            raise DamagedError("it does not name the runs")
        except FileNotFoundError:
            pass
        except (OSError, DamagedError) as error:
            warnings.warn(f"{self._file} is damaged ({error}); new W&B runs are started", stacklevel=2)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return {"ids": [uuid.uuid4().hex[:12] for _ in range(lanes)], "step": 0}

    def add(self, chunk: Chunk) -> None:
        step = self._curves.step(chunk.position)
        if step <= self._sent["step"]:
            return
        self._sent["step"] = step
        self._remember()  # first: if killed between the two, the run misses a point but duplicates none
        for run, numbers in zip(self._runs, self._curves.lanes(chunk), strict=True):
            if numbers:
                run.log({**numbers, "global_step": step}, step=step)

    def _remember(self) -> None:
        text = to_json(self._sent, None)
        # Not synced to disk, as that would take longer than many chunks.
        write_atomically(self._file, lambda temporary: temporary.write_text(text, encoding="utf-8"), durable=False)

    def flush(self) -> int:
        return 0

    def close(self) -> None:
        for run in self._runs:
            run.finish()


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _wandb_run(run: Path, resolved: Mapping[str, Any], label: Label, name: str, resumed: bool) -> Any:
    import wandb

    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")  # it mistakes our `agents` for a library of that name
    with _as_user_errors():
        return wandb.init(
            project=resolved["name"],
            group=label.facts["arm"],
            name=label.path,
            id=name,
            dir=str(run),  # it adds wandb/
            config={**label.facts, "experiment": dict(resolved)},
            resume="allow" if resumed else None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
