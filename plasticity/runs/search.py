"""Search beyond a grid: a sampler of Optuna proposes the points of an arm, batch by batch.

A batch is an ordinary run in the folder of the search: its points on tuning seeds, for the first part of the life
(:mod:`plasticity.runs.tuning`). All batches have as many lanes, so they share a compiled program. With several rungs,
the best points of a batch run again for a longer part. To resume a search is to repeat it: the sampler has a seed, so
it proposes the same points, and runs that are finished are only read.
"""

import contextlib
import importlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from plasticity.config.documents import to_yaml
from plasticity.config.experiments import Experiment, read_experiment
from plasticity.config.settings import plain
from plasticity.config.spaces import Extent, Range, Space, parse_extent, parse_space
from plasticity.config.sweeps import LISTED, expand
from plasticity.core.errors import UserError, contrasted, shown, unknown
from plasticity.runs import folder, launch, sharded, tuning
from plasticity.runs.checksums import DamagedError, read_json, to_json
from plasticity.runs.execution import current
from plasticity.runs.files import write_text
from plasticity.runs.lock import FILES, held
from plasticity.runs.members import registry
from plasticity.runs.selection import LaneMean, Score, lane_means, score
from plasticity.runs.session import NoProgress, Progress

SETTINGS, TRIALS, BEST, BATCHES = "search.json", "trials.csv", "best.yaml", "batches"
PROMOTED, PRUNED, COMPLETE, INCOMPLETE = "promoted", "pruned", "complete", "incomplete"  # states of a trial at a rung
REPEATS = 100  # proposals of points that were tried before, until the search gives up


class Found(NamedTuple):
    """The result of a search."""

    values: dict[str, Any]  # of the best point: path -> value
    score: float  # its mean over the tuning seeds, over all of the last rung
    trials: pd.DataFrame  # one row per trial and rung
    experiment: Experiment  # the one given, with the best point as the arm's own settings
    study: Any  # of Optuna, for its figures and importances


@dataclass(frozen=True)
class Searched:
    """What is searched."""

    experiment: Experiment
    arm: str
    space: Space
    extent: Extent
    rungs: tuple[int | str, ...]
    rule: Mapping[str, Any]  # seeds, metric, best: as in the key ``tune``

    def of(self, points: Sequence[Mapping[str, Any]]) -> Experiment:
        """The experiment with these points of the arm, and the key ``tune``."""
        raw = self.experiment.resolve()
        arms = {**raw["arms"], self.arm: {**raw["arms"][self.arm], "sweep": {LISTED: [dict(each) for each in points]}}}
        return read_experiment({**raw, "arms": arms, "tune": {**self.rule, "first": self.rungs[-1]}}, registry())

    def at(self, whole: Experiment, rung: int, chosen: Sequence[int]) -> Experiment:
        """The run of the chosen points of a batch for a rung's part of the life."""
        assert whole.tune is not None
        arm = whole.arms[self.arm]
        points = tuple(arm.points[i] for i in chosen)
        listed = {LISTED: tuple(dict(point.values) for point in points)}
        part = replace(whole, tune=replace(whole.tune, first=self.rungs[rung]))
        return tuning.beginning(part, {self.arm: replace(arm, points=points, sweep=listed)})


def search(
    experiment: Experiment | str | Path | Mapping[str, Any],
    space: Mapping[str, Any],
    *,
    arm: str | None = None,
    trials: int = 64,
    batch: int = 16,
    first: int | str | Sequence[int | str] = "1%",
    factor: int = 3,
    seeds: int | Sequence[int] = 10,
    metric: str = "performance",
    best: str = "highest",
    sampler: Any = "tpe",
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Found:
    """Search the arm's space; see :func:`plasticity.search`."""
    optuna = _optuna()
    base = launch.experiment_of(experiment, overrides)
    name = _arm_of(base, arm)
    extent = parse_extent(trials=trials, batch=batch, factor=factor, seed=seed)
    rungs = tuple(first) if isinstance(first, list | tuple) else (first,)
    if not rungs:
        raise UserError("first: [] is not allowed; must be a part of the life, or the parts of several rungs")
    rule = {"seeds": plain(seeds), "metric": metric, "best": best}
    asked = Searched(base, name, parse_space(registry(), space, base.arms[name]), extent, rungs, rule)
    place = Path(out) if out is not None else Path("runs") / f"{base.name}-search"
    with _quiet(optuna):
        direction = "minimize" if best == "lowest" else "maximize"
        study = optuna.create_study(direction=direction, sampler=_sampler(optuna, sampler, extent.seed))
        facts = _facts(asked, sampler, optuna.__version__)
        rows = _batches(asked, study, optuna, place, facts, resume, progress or NoProgress())
    return _found(asked, rows, place, study)


# --------------------------------------------------------------------------------------------- what is asked for


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")
    except ImportError:
        text = 'a search needs Optuna; install the extra `search` (pip install "plasticity-lab[search]")'
        raise UserError(text) from None


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's notes about each study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _sampler(optuna: Any, sampler: Any, seed: int) -> Any:
    known = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    if isinstance(sampler, optuna.samplers.BaseSampler):
        return sampler
    if not isinstance(sampler, str) or sampler not in known:
        raise UserError(f"sampler: {unknown(f'sampler {shown(sampler)}', str(sampler), known)}")
    return known[sampler](seed=seed)


def _arm_of(experiment: Experiment, name: str | None) -> str:
    """The arm to search. ``UserError`` if it is not known, or the config has points or tuning of its own."""
    if name is None and len(experiment.arms) > 1:
        raise UserError(f"arm: one of several must be named: {', '.join(experiment.arms)}")
    name = next(iter(experiment.arms)) if name is None else name
    if name not in experiment.arms:
        raise UserError(f"arm: {unknown(f'arm {shown(name)}', name, experiment.arms, 'in this config')}")
    swept = {"sweep": experiment.sweep, f"arms.{name}.sweep": experiment.arms[name].sweep, "tune": experiment.tune}
    odd = next((key for key, value in swept.items() if value), None)
    if odd:
        raise UserError(f"{odd}: is not allowed in a search, which has its own points; remove it ({odd}=null)")
    return name


def _facts(asked: Searched, sampler: Any, version: str) -> dict[str, Any]:
    """What a resumed search must have in common with the one in the folder."""
    space = {path: asdict(each) if isinstance(each, Range) else list(each) for path, each in asked.space.items()}
    return {
        "experiment": asked.experiment.resolve(), "arm": asked.arm, "space": space,
        **{key: value for key, value in asdict(asked.extent).items() if key != "trials"},
        "first": list(asked.rungs), **asked.rule,
        "sampler": sampler if isinstance(sampler, str) else type(sampler).__name__, "optuna": version,
    }  # fmt: skip


@contextlib.contextmanager
def _placed() -> Iterator[None]:
    """Problems with ``tune.first`` are those of the argument ``first``."""
    try:
        yield
    except UserError as error:
        raise UserError("\n".join(line.removeprefix("tune.") for line in str(error).splitlines())) from None


# --------------------------------------------------------------------------------------------------- the batches


def _batches(
    asked: Searched, study: Any, optuna: Any, place: Path, facts: Mapping[str, Any], resume: bool, progress: Progress
) -> list[dict[str, Any]]:
    """Run all batches, or what is left of them; one row per trial and rung."""
    rows: list[dict[str, Any]] = []
    seen: list[Mapping[str, Any]] = []
    with contextlib.ExitStack() as stack:
        for number in range(asked.extent.trials // asked.extent.batch):
            trials = [_ask(study, optuna, asked.space, seen) for _ in range(asked.extent.batch)]
            points = [trial.params for trial in trials]
            with _placed():
                whole = asked.of(points)
                steps = _steps(asked, whole)
                if number == 0:
                    tuning.check(whole, asked.at(whole, -1, range(len(points))))
            if number == 0:
                stack.enter_context(held(place))
                _open(place, facts, resume)
            made = _batch(asked, whole, number, steps, place, progress)
            for i, trial in enumerate(trials):
                _tell(study, optuna, trial, [row for row in made if row["trial"] == number * len(trials) + i])
            rows += made
            if number >= _written(place):  # a search that is resumed does not shorten the table
                write_text(place / TRIALS, _table(rows).to_csv(index=False))
            progress.say(_told(asked, number, rows))
    return rows


def _ask(study: Any, optuna: Any, space: Space, seen: list[Mapping[str, Any]]) -> Any:
    """A trial at a point that no earlier one had: the same numbers again would tell the sampler nothing."""
    kinds = {path: _distribution(optuna, values) for path, values in space.items()}
    for _ in range(REPEATS):
        trial = study.ask(kinds)
        if trial.params not in seen:
            seen.append(trial.params)
            return trial
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    raise UserError(f"sampler: proposed only points that were tried before, {REPEATS} times; give fewer `trials`")


def _distribution(optuna: Any, values: Range | tuple[Any, ...]) -> Any:
    if isinstance(values, Range):
        return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
    return optuna.distributions.CategoricalDistribution(values)


def _steps(asked: Searched, whole: Experiment) -> list[int]:
    """Env steps of each rung. ``UserError`` if they do not fit the stream or do not grow."""
    assert whole.tune is not None
    found = [tuning.part(replace(whole, tune=replace(whole.tune, first=rung))).steps for rung in asked.rungs]
    if any(one >= other for one, other in itertools.pairwise(found)):
        raise UserError(
            f"first: {shown(list(asked.rungs))} are {found} env steps; each rung must be longer than the last"
        )
    return found


def _open(place: Path, facts: Mapping[str, Any], resume: bool) -> None:
    """Write the settings of a new search, or compare those of the one in the folder."""
    path = place / SETTINGS
    if not path.exists():
        others = [each.name for each in place.iterdir() if not each.name.startswith((SETTINGS, *FILES))]
        if others:
            raise UserError(f"{place}: is not empty and holds no search; choose another `out`")
        write_text(path, to_json(facts))
        return
    if not resume:
        raise UserError(f"{place}: holds a search; `resume=True` continues it, or choose another `out`")
    try:
        before = read_json(path)
    except (OSError, DamagedError) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another `out`") from None
    now = json.loads(json.dumps(facts))
    for key in now:
        if before.get(key) != now[key]:
            one, other = contrasted(before.get(key), now[key])
            raise UserError(f"{path}: `{key}` was {one}, now {other}; only `trials` may change")


def _written(place: Path) -> int:
    """How many batches the table of trials has."""
    try:
        return int(pd.read_csv(place / TRIALS)["batch"].max()) + 1
    except (OSError, ValueError, LookupError):  # there is none, or it is damaged
        return 0


def _batch(
    asked: Searched, whole: Experiment, number: int, steps: Sequence[int], place: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Run a batch, rung by rung; one row per trial and rung."""
    rows: list[dict[str, Any]] = []
    points = whole.arms[asked.arm].points
    alive = list(range(len(points)))
    for rung, length in enumerate(steps):
        groups = _groups(asked, asked.at(whole, rung, alive), place / BATCHES / f"{number:03d}-{rung}", progress)
        scores = [score(group) for group in groups]
        last = rung + 1 == len(steps)
        kept = [alive[i] for i in survivors(scores, 1 if last else asked.extent.factor, asked.rule["best"])]
        for i, each, group in zip(alive, scores, groups, strict=True):
            state = INCOMPLETE if each.incomplete else PRUNED if i not in kept else COMPLETE if last else PROMOTED
            values = {path: points[i].values[path] for path in asked.space}
            row = {"trial": number * len(points) + i, "batch": number, "rung": rung, "steps": length, **values}
            seeds = {f"seed_{lane.seed}": lane.value for lane in group}
            rows.append({**row, "score": each.mean, "incomplete": each.incomplete, "state": state, **seeds})
        alive = sorted(kept)
        if not alive:
            break
    return rows


def survivors(scores: Sequence[Score], factor: int, best: str = "highest") -> list[int]:
    """The places of the points that go on to the next rung, the best one first.

    Successive halving: of ``n`` points, the ``ceil(n / factor)`` best; fewer if fewer have all lanes complete. The
    first of equal points is the better one.

    Reference: Jamieson, Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization".

    Args:
      scores: of all points at a rung.
      factor: at least 1; 1 keeps all that are complete.
      best: whether ``highest`` or ``lowest`` means are good.
    """
    sign = -1.0 if best == "highest" else 1.0
    ranked = sorted((sign * each.mean, i) for i, each in enumerate(scores) if not each.incomplete)
    return [i for _, i in ranked[: math.ceil(len(scores) / factor)]]


def _groups(asked: Searched, experiment: Experiment, place: Path, progress: Progress) -> list[list[LaneMean]]:
    """The lanes of each point, from the run in the folder, which is first run or resumed if it is not finished."""
    if sharded.is_finished(place):
        folder.check(place, experiment.resolve(), resume=True, force=False, current=current)
    else:
        launch.run(experiment, place, resume=True, progress=progress)
    found: list[list[LaneMean]] = [[] for _ in experiment.arms[asked.arm].points]
    for lane in lane_means(place, asked.rule["metric"])[asked.arm]:
        found[lane.lane // len(experiment.seeds)].append(lane)
    return found


def _tell(study: Any, optuna: Any, trial: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Tell the sampler of a trial; one with an incomplete lane is pruned without a value, which is the worst."""
    last = rows[-1]
    if last["state"] != INCOMPLETE:
        for row in rows:
            trial.report(row["score"], step=row["steps"])
    if last["state"] == COMPLETE:
        study.tell(trial, last["score"])
    else:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)


# ---------------------------------------------------------------------------------------------------- the result


def _table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def _best(asked: Searched, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the best complete trial, the first of equal ones; None if there is none."""
    sign = -1.0 if asked.rule["best"] == "highest" else 1.0
    complete = [row for row in rows if row["state"] == COMPLETE]
    return min(complete, key=lambda row: (sign * row["score"], row["trial"]), default=None)


def _values(asked: Searched, row: Mapping[str, Any]) -> dict[str, Any]:
    return {path: row[path] for path in asked.space}


def _told(asked: Searched, number: int, rows: Sequence[Mapping[str, Any]]) -> str:
    row, count = _best(asked, rows), asked.extent.trials // asked.extent.batch
    values = ", ".join(f"{path}={value:.4g}" for path, value in _values(asked, row).items()) if row else ""
    so_far = f"{values} ({asked.rule['metric']} {row['score']:.4g})" if row else "none is complete"
    return f"batch {number + 1} of {count}: best so far: {so_far}"


def _found(asked: Searched, rows: Sequence[Mapping[str, Any]], place: Path, study: Any) -> Found:
    row = _best(asked, rows)
    if row is None:
        raise UserError(f"{place}: no trial is complete: in each, a lane diverged or has no {asked.rule['metric']}")
    values, base, arm = _values(asked, row), asked.experiment, asked.experiment.arms[asked.arm]
    (point,), _ = expand(registry(), arm.agent, arm.interventions, {path: (value,) for path, value in values.items()})
    made = replace(
        arm, agent=point.agent, interventions=point.interventions, sweep={}, points=(point._replace(values={}),)
    )
    fragment = {"arms": {asked.arm: made.dump(base.agent, base.interventions, base.task_aware)}}
    if rows[-1]["batch"] + 1 >= _written(place):
        write_text(place / BEST, to_yaml(fragment))
    experiment = replace(base, arms={**base.arms, asked.arm: made})
    return Found(values, row["score"], _table(rows), experiment, study)
