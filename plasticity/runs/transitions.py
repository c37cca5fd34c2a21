"""Save the transitions in the replay of a run's lane as a dataset, from its newest checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config.experiments import Experiment, read_experiment
from plasticity.core.errors import UserError, listed
from plasticity.core.types import Held, StreamSpec
from plasticity.engine.lanes import lane_keys
from plasticity.engine.runner import Position, Run
from plasticity.engine.visits import own_task
from plasticity.envs.recorded import METADATA, ROWS
from plasticity.runs import checkpoint, folder, sharded
from plasticity.runs.accounts import shard_folders
from plasticity.runs.checkpoint import DamagedError, WrongCheckpointError
from plasticity.runs.devices import devices
from plasticity.runs.files import write_atomically
from plasticity.runs.measure import jobs_in
from plasticity.runs.members import registry
from plasticity.runs.session import Job


class Saved(NamedTuple):
    """A dataset: its arrays, as :mod:`plasticity.envs.recorded` reads them, and what they are."""

    arrays: Mapping[str, np.ndarray]
    task: str
    visit: int
    step: int  # env steps of the run when its replay was like that

    @property
    def rows(self) -> int:
        return len(self.arrays["reward"])

    @property
    def episodes(self) -> int:
        """The number of episodes that end in these rows."""
        return int(np.sum(self.arrays["terminated"] | self.arrays["truncated"]))


def replay_of(run_folder: str | Path, arm: str | None = None, lane: int = 0, visit: int | None = None) -> Saved:
    """The transitions of one visit in the replay of one lane, at the newest intact checkpoint.

    Args:
        run_folder: folder of a run, finished or not.
        arm: its arm; may be left out if there is only one.
        lane: number of the lane in the arm, as in ``lanes.parquet``.
        visit: number of the visit; None: that of the checkpoint.

    Returns:
        The rows of the first env in the order of time, then those of the next; and metadata that name the environment,
        the agent and the versions.

    Raises:
        UserError: the folder is not a run; there is no such arm, lane or visit; the agent has no replay; or no
            transition of the visit is in it.
    """
    place = Path(run_folder)
    raw, _ = folder.read(place)
    experiment = read_experiment({**raw, "placement": {}}, registry(), source=str(place))
    chosen = _arm(experiment, arm)
    where, job = _job(place, experiment, chosen, lane)
    index = job.lanes["lane"].index(lane)
    held, position = _held(where, job, index)
    spec, seed = job.program.spec, int(job.program.seeds[index])
    if spec.task_entries:
        raise UserError(f"arms.{chosen}: its observations hold the task, so its replay cannot be saved; choose another")
    number = position.visit if visit is None else visit
    rows = _rows(held, spec, position, number)
    key = lane_keys(jnp.int32(seed)).data
    task = int(own_task(spec, key[None], jnp.int32(spec.visits[number].task))[0])
    environment = {
        "stream": experiment.stream.dump(),
        "transforms": [each.dump() for each in experiment.transforms],
        "visit": spec.skipped.visits + number,
        "task": task,
        "task_name": spec.tasks[task],
        "data_key": np.asarray(jax.random.key_data(key)).tolist(),
    }
    swept = {name: values[index] for name, values in job.lanes.items() if name not in ("lane", "seed", "program")}
    source = {
        "run": experiment.name, "arm": chosen, "lane": lane, "seed": seed, "swept": swept, "step": position.step,
        "agent": experiment.arms[chosen].agent.dump(), "versions": folder.versions(),
        "interventions": [each.dump() for each in experiment.arms[chosen].interventions],
    }  # fmt: skip
    facts = {"actions": spec.actions, "stack": spec.stack, "environment": environment, "source": source}
    arrays = {**rows, METADATA: np.array(json.dumps(facts))}
    return Saved(arrays, spec.tasks[task], number, position.step)


def write(path: Path, saved: Saved) -> None:
    """Write a dataset; ``OSError`` if that is not possible."""

    def into(temporary: Path) -> None:
        with open(temporary, "wb") as handle:
            np.savez_compressed(handle, **saved.arrays)  # type: ignore[arg-type]

    write_atomically(path, into)


def _arm(experiment: Experiment, arm: str | None) -> str:
    names = list(experiment.arms)
    if arm is None and len(names) == 1:
        return names[0]
    if arm not in names:
        what = "missing" if arm is None else f"{arm} is not an arm"
        raise UserError(f"--arm: {what}; the run has {listed(names)}")
    return arm


def _job(place: Path, experiment: Experiment, arm: str, lane: int) -> tuple[Path, Job]:
    """The folder and the job that have a lane of an arm."""
    count = 0
    for each in shard_folders(place).values() if sharded.is_cut(place) else (place,):
        _, plan = folder.read(each)
        for job in jobs_in(each, experiment, plan)[1]:
            if job.arm == arm and lane in job.lanes["lane"]:
                return each, job
            count += len(job.lanes["lane"]) * (job.arm == arm)
    raise UserError(f"--lane: {lane} is not a lane of {arm}, which has {count}: 0 ... {count - 1}")


def _held(place: Path, job: Job, index: int) -> tuple[Held, Position]:
    """What is in a lane's replay, and when."""
    run = Run(job.program, job.placement, devices())
    try:
        shape = run.carry_shape()
        found = _newest(place / job.arm / "checkpoints" / f"{job.number:03d}", [shape] * job.placement.groups)
    finally:
        run.close()
    group, slot = divmod(index, job.placement.block)
    state = jax.tree.map(lambda x: x[slot], found.arrays[group].agent)
    agent = job.program.build({path: values[index] for path, values in job.program.hyper.items()})
    if agent.held is None:
        raise UserError(f"arms.{job.arm}: its agent has no replay in the order of time; there is nothing to save")
    held: Held = jax.device_get(agent.held(state))
    return held, Position(*found.meta["position"])


def _newest(place: Path, like: Any) -> checkpoint.Snapshot:
    for path in reversed(checkpoint.files(place)):
        try:
            return checkpoint.read(path, like, None)
        except DamagedError:
            continue
        except WrongCheckpointError as error:
            raise UserError(str(error)) from None
    raise UserError(f"{place}: there is no intact checkpoint")


def _rows(held: Held, spec: StreamSpec, position: Position, visit: int) -> dict[str, np.ndarray]:
    """The rows of one visit, the envs one after another. ``UserError`` if there are none."""
    ends = np.cumsum([0, *(plan.steps for plan in spec.visits)])
    if not 0 <= visit < len(spec.visits):
        raise UserError(f"--visit: {visit} is not allowed; the run has the visits 0 ... {len(spec.visits) - 1}")
    step = position.step - int(held.filled) + np.arange(held.valid.shape[1])  # at which each row was stored
    inside = (ends[visit] <= step) & (step < ends[visit + 1])
    chosen = held.valid & inside
    if not chosen.any():
        oldest = max(int(position.step - held.filled), 0)
        raise UserError(
            f"--visit: the replay has no transition of visit {visit}; it holds the steps {oldest} ... {position.step} "
            f"of the run, and that visit is {ends[visit]} ... {ends[visit + 1]}"
        )
    logged = held.transitions
    terminated = np.asarray(logged.discount) == 0
    found = (logged.observation, logged.action, logged.reward, logged.next_observation, terminated, held.truncated)
    return {name: np.asarray(array)[chosen] for name, array in zip(ROWS, found, strict=True)}
