"""Cost of each intervention: time of an update with it relative to none, on a small and on a large network."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from plasticity.bench.agents import advance
from plasticity.bench.cases import CASES, Case, job
from plasticity.bench.timing import Effort, Work, interleaved, ratio
from plasticity.core.errors import UserError
from plasticity.engine.runner import Run
from plasticity.interventions.hooks import reads_task
from plasticity.runs import launch

THOROUGH, QUICK = Effort(5, 0.3), Effort(3, 0.01)
LIMIT = 1.3
LIMITED = ("layer_norm", "weight_decay", "l2_init", "nap", "redo", "continual_backprop")
LEARNERS = {"classifier": CASES["classifier"], "dqn_nature": CASES["dqn_nature"]}
CHANGED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {  # where the defaults need a replay
    "classifier": {"neuroplastic_expansion": {"review": False}},
}


class Slowdown(NamedTuple):
    """Time with the intervention at its defaults, divided by the time without; two lanes, one to a device."""

    intervention: str
    learner: str
    between: float  # at updates at which nothing periodic is due
    due: float | None  # if the periodic part were due at every update
    on_average: float  # at the default period


def running(case: Case, lanes: int, *members: Any) -> Run:
    """The case with these interventions, after its replay buffer is filled."""
    planned = job(case, lanes, interventions=list(members), placement={"width": 1})
    return Run(planned.program, planned.placement, launch.devices())


def variants(name: str, learner: str = "") -> Mapping[str, Any]:
    """The settings to time: the defaults, or with the period never due and due at every update."""
    known = inspect.signature(launch.BUILT_IN["interventions"][name]).parameters
    changed = CHANGED.get(learner, {}).get(name, {})
    if "period" not in known or known["period"].default == 1 or known.get("when", known["period"]).default == "switch":
        return {"between": {"kind": name, **changed}}
    return {"between": {"kind": name, **changed, "period": 1 << 30}, "due": {"kind": name, **changed, "period": 1}}


def measure(name: str, learner: str, bare: Work, lanes: int, effort: Effort) -> Slowdown:
    """One intervention on one learner; ``bare`` is the same without it."""
    works = {
        kind: advance(running(LEARNERS[learner], lanes, member)) for kind, member in variants(name, learner).items()
    }
    turns = interleaved({"none": bare, **works}, effort)
    between, due = (ratio(turns[kind], turns["none"]) if kind in turns else None for kind in ("between", "due"))
    assert between is not None
    if due is None:
        return Slowdown(name, learner, between, None, between)
    period = inspect.signature(launch.BUILT_IN["interventions"][name]).parameters["period"].default
    return Slowdown(name, learner, between, due, between + (due - between) / period)


def timed() -> tuple[str, ...]:
    """The methods to time: all but those that read the task, since the cases have a single one."""
    built_in = launch.BUILT_IN["interventions"]
    return tuple(name for name in built_in if not reads_task(built_in[name]))


def interventions(say: Callable[[str], None], quick: bool = False) -> list[Slowdown]:
    """All built-in interventions, each compared with none, measured in turns."""
    names = ("weight_decay", "redo") if quick else timed()
    found = []
    for learner in ("classifier",) if quick else LEARNERS:
        lanes = 1 if quick else len(launch.devices())
        bare = advance(running(LEARNERS[learner], lanes))
        for name in names:
            say(f"interventions: {name}, {learner}")
            try:
                found.append(measure(name, learner, bare, lanes, QUICK if quick else THOROUGH))
            except UserError as error:  # a method that this learner cannot have
                say(f"interventions: {name} left out: {str(error).partition(chr(10))[0]}")
    return found


def verdicts(rows: Sequence[Slowdown]) -> list[str]:
    """The interventions that should cost little."""
    return [
        f"{row.intervention}, {row.learner}: {row.on_average:.2f} times as long as without (at most {LIMIT})"
        for row in rows
        if row.intervention in LIMITED
    ]
