"""A run's folder as tidy tables: lanes, metrics, visits."""

import functools
import itertools
import json
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from plasticity.config.documents import read_file
from plasticity.config.renamed import with_new_keys
from plasticity.core.errors import UserError, cut, listed, nearest, shown, suggestion
from plasticity.results.ranges import evaluated_stream
from plasticity.results.stored import BOOKKEEPING, Versions, lanes_of, rows_of, versions_of
from plasticity.runs.accounts import EXPERIMENT, PLAN, PROBES, is_own_config, parts_of_arms, probe_folders, read_plan
from plasticity.runs.checksums import DamagedError

IDENTITY = ("run", "arm", "lane", "seed", "step", "frames", "update", "flops", "visit", "task", "step_in_visit")
REWARDS = ("reward", "episodic_return", "episodes")
VISIT = ["arm", "lane", "seed", "visit", "task"]
NEEDED = (*VISIT, "step", "step_in_visit")  # for the performance in visits
FEW_ROWS = 1_000_000
NO_OTHER_STREAM = ("alike", "reward_range", "measures")  # keys that plans of older versions lack for the same stream
SUCCESS = "success"  # share of the episodes that reach the goal
FRESH = "fresh"  # the control of arms that do not name one
RunPath = str | Path


# --------------------------------------------------------------------------------------------------- the folder


def plan(run: RunPath) -> dict[str, Any]:
    """Read the plan of a run, ``plan.json``.

    Raises:
      ValueError: ``run`` is not the folder of a run (the message names what is missing and the run with the closest
        name), or its plan is damaged.
    """
    folder = Path(run)
    try:
        found = read_plan(folder)
        # Older plans lack `alike` and `reads_task` and use `told` for `task_aware`.
        arms = [{"task_aware": bool(arm.get("told")), "reads_task": False, **arm} for arm in found["arms"]]
        return {**found, "arms": arms, "stream": {"alike": False, **found["stream"]}}
    except (FileNotFoundError, NotADirectoryError):
        missing = "plan.json is missing" if folder.is_dir() else "there is no such folder"
    except DamagedError as error:
        advice = "`plasticity run ... --resume` rewrites it"
        raise ValueError(f"{folder / PLAN} is damaged ({error}); {advice}") from None
    raise ValueError(f"{folder} is not a run: {missing}{_nearest(folder)}")


def config(run: RunPath) -> dict[str, Any]:
    """Read the config that the run was started with, ``experiment.yaml``.

    Raises:
      ValueError: the file is missing, contains no config, or a different config than the run was started with.
    """
    found, why = _config(run)
    if why:
        raise ValueError(f"{Path(run) / EXPERIMENT} {why}")
    return found


def config_if_whole(run: RunPath) -> dict[str, Any]:
    """Read :func:`config`; if it is missing or damaged, warn with the name of the file and return an empty dict."""
    found, why = _config(run)
    if why:
        warnings.warn(f"{Path(run) / EXPERIMENT} {why}; its contents are left out", UserWarning, stacklevel=2)
    return found


def probes(run: RunPath) -> dict[str, Path]:
    """The folder of each probe of a run, by name: of those in its config, started or not, and of any others there."""
    named = _config(run)[0].get("probes")
    names = map(str, named) if isinstance(named, Mapping) else ()
    started = (place.name for place in probe_folders(Path(run)))
    return {name: Path(run) / PROBES / name for name in dict.fromkeys([*names, *started])}


def _config(run: RunPath) -> tuple[dict[str, Any], str]:
    """The config, and what is wrong with the file (empty if nothing)."""
    path = Path(run) / EXPERIMENT
    try:
        found = read_file(path)
    except UserError as error:
        reason = " ".join(str(error).split()).removeprefix(str(path)).lstrip(":, ")
        return {}, f"cannot be read ({cut(reason, 120)})"
    if not isinstance(found, Mapping) or not isinstance(found.get("arms") or {}, Mapping):
        return {}, "cannot be read (it contains no config)"
    if not is_own_config(found, plan(run)):
        return {}, "is damaged: it is not the config that the run was started with"
    return with_new_keys(found), ""


def by_stream(runs: Sequence[RunPath]) -> list[list[RunPath]]:
    """Group runs by their stream, keeping the given order; ``ValueError`` if a path is not a run."""
    groups: dict[str, list[RunPath]] = {}
    for run in runs:
        stream = {key: value for key, value in plan(run)["stream"].items() if key not in NO_OTHER_STREAM}
        groups.setdefault(json.dumps(stream, sort_keys=True), []).append(run)
    return list(groups.values())


def _nearest(folder: Path) -> str:
    """A hint naming the run with the closest name, next to ``folder`` or inside it."""
    places = [place for place in (folder.absolute().parent, folder) if place.is_dir()]
    runs = {path.parent.name: path.parent for place in places for path in place.glob("*/plan.json")}
    runs.pop(folder.absolute().name, None)
    if len(runs) == 1:
        return f"; there is one run: {next(iter(runs.values()))}"
    close = nearest(folder.absolute().name, runs)
    return f"; did you mean `{runs[close]}`?" if close else f"; there are {listed(sorted(runs))}" if runs else ""


def arm_names(run: RunPath) -> list[str]:
    return [arm["name"] for arm in plan(run)["arms"]]


def controls(run: RunPath, control: str | None = None) -> dict[str, str | None]:
    """Return the fresh control of each arm; None for arms without one and for the controls themselves.

    Args:
      run: the run's folder.
      control: one control for all arms (if the run has no such arm, every arm gets None). By default the control that
        the config gives for each arm or, if it gives none, the arm ``fresh``.
    """
    arms = plan(run)["arms"]
    names = [arm["name"] for arm in arms]
    usual = control or FRESH
    usual_control = usual if usual in names else None
    if control is not None or not any("control" in arm for arm in arms):  # plans of older versions lack it
        return {name: usual_control if name != usual_control else None for name in names}
    return {arm["name"]: arm.get("control") for arm in arms}


def _gather(run: RunPath, tables: Mapping[str, pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Join the arms' tables; ``arm`` is categorical and keeps the order of the config, including absent arms."""
    present = [table.assign(arm=arm) for arm, table in tables.items() if not table.empty]
    table = pd.concat(present, ignore_index=True) if present else pd.DataFrame(columns=list(columns))
    table["arm"] = pd.Categorical(table["arm"], categories=arm_names(run), ordered=True)
    first = [column for column in columns if column in table]
    return table[[*first, *(column for column in table if column not in first)]]


def several(runs: Sequence[RunPath], read: Any) -> pd.DataFrame:
    """Apply ``read`` to one run, or to several with the column ``run`` in front."""
    tables = [read(run) for run in runs]
    if len(tables) == 1:
        return tables[0]
    names = [Path(run).absolute().name for run in runs]
    names = names if len(set(names)) == len(names) else [str(run) for run in runs]
    arms = list(dict.fromkeys(arm for table in tables for arm in table["arm"].cat.categories))
    filled = [table.assign(arm=table["arm"].astype(str)) for table in tables if not table.empty]
    table = pd.concat(filled or tables, ignore_index=True)
    order = [name for name, each in zip(names, tables, strict=True) for _ in range(len(each))]
    table["arm"] = pd.Categorical(table["arm"], categories=arms, ordered=True)
    table.insert(0, "run", pd.Categorical(order, categories=list(dict.fromkeys(names)), ordered=True))
    return table


# --------------------------------------------------------------------------------------------------- the tables


def lanes(run: RunPath, *runs: RunPath) -> pd.DataFrame:
    """Read the lanes: ``arm, lane, seed, program``, swept hyper-parameters, ``diverged_at`` (env step or NA)."""

    def read(one: RunPath) -> pd.DataFrame:
        places = parts_of_arms(Path(one), plan(one))
        tables = {arm: lanes_of(places[arm]) for arm in arm_names(one)}
        return _gather(one, tables, ("arm", "lane", "seed", "program", "diverged_at"))

    return several((run, *runs), read)


def hyper_parameters(run: RunPath, *runs: RunPath) -> list[str]:
    """Return the names of the swept hyper-parameters, which are columns of every table."""
    return [column for column in lanes(run, *runs).columns if column not in (*BOOKKEEPING, "arm", "run")]


def load(run: RunPath, *runs: RunPath, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the metrics: one row per lane and record, arms in the order of the config.

    Damaged parts are left out with a warning.

    Args:
      run: the run's folder.
      *runs: further runs, distinguished by the column ``run``.
      metrics: read only these, which is faster if the run has many; None: all.

    Returns:
      The columns ``arm, lane, seed, step, frames, update, flops, visit, task, step_in_visit``, taken at the end of the
      record (``flops``, the FLOPs that the lane has spent, only if they were counted), the metrics (missing where they
      were not measured), and the swept hyper-parameters.

    Raises:
      ValueError: a path that is not the folder of a run; a metric that a run with records does not have.
    """
    return several((run, *runs), lambda one: _load(one, metrics))


def _joined(
    run: RunPath, folder: str, columns: Sequence[str], keys: Sequence[str], wanted: Collection[str] | None = None
) -> pd.DataFrame:
    """The rows of all arms from ``folder``, sorted by arm, lane and ``keys``, with the swept hyper-parameters."""
    known, places = lanes(run), parts_of_arms(Path(run), plan(run))
    arms, there = known["arm"].cat.categories.tolist(), set(known["arm"].astype(str))
    tables = [rows_of(places[arm], folder, wanted) if arm in there else None for arm in arms]
    counts = [0 if table is None else table.num_rows for table in tables]
    present = [table for table in tables if table is not None]
    if not present:
        return _gather(run, {}, columns)
    table, codes = pa.concat_tables(present, promote_options="permissive"), np.repeat(np.arange(len(arms)), counts)
    del tables, present  # free each column's memory as soon as it is sorted
    lane = table["lane"].to_numpy()
    order = _order([codes, lane, *(table[key].to_numpy() for key in keys)])
    codes, lane = codes[order], lane[order]
    found: dict[str, Any] = {"arm": pd.Categorical.from_codes(codes, categories=pd.Index(arms), ordered=True)}
    names = [name for name in table.column_names if name != "arm"]
    for name in [*(name for name in columns if name in names), *(name for name in names if name not in columns)]:
        found[name] = _values(table[name], order)
        table = table.drop_columns(name)
    swept = known.columns.difference([*BOOKKEEPING, "arm"], sort=False)
    if len(swept):
        rows = pd.MultiIndex.from_arrays([known["arm"].cat.codes, known["lane"]])
        where = rows.get_indexer(pd.MultiIndex.from_arrays([codes, lane]))
        found |= {name: known[name].take(np.maximum(where, 0)).where(where >= 0).to_numpy() for name in swept}
    return pd.DataFrame(found, copy=len(order) < FEW_ROWS)  # one block, or the columns without a second copy


def _order(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Indices that sort by the first key, then the second, ...; keys are integers, the first two small."""
    owner = keys[0] * (int(keys[1].max()) + 1) + keys[1]
    order = np.argsort(owner.astype(np.min_scalar_type(owner.max())), kind="stable")
    owner, step = owner[order], keys[2][order]
    written_in_order = len(keys) == 3 and ((np.diff(step) >= 0) | (np.diff(owner) > 0)).all()
    return order if written_in_order else np.lexsort(keys[::-1])


def _values(column: pa.ChunkedArray, order: np.ndarray) -> Any:
    """A column of the file in ``order``, missing values as NaN, names as categories (fast to compare)."""
    if pa.types.is_dictionary(column.type):
        return column.unify_dictionaries().combine_chunks().to_pandas().array.take(order)
    if pa.types.is_null(column.type):  # a column with only nulls has no type in the file
        return np.full(len(order), np.nan)
    return column.to_numpy()[order]


def _load(run: RunPath, metrics: Collection[str] | None = None, others: Collection[str] = IDENTITY) -> pd.DataFrame:
    """:func:`load` of one run, with those of the identifying columns that are among ``others``."""
    wanted = None if metrics is None else {*others, *metrics}
    table = _joined(run, "metrics", (*IDENTITY[1:], *REWARDS), ["step"], wanted)
    _check_known(run, table, metrics)
    for name in REWARDS:
        if name not in table and (metrics is None or name in metrics):
            table[name] = np.nan
    return table


def _check_known(run: RunPath, table: pd.DataFrame, metrics: Collection[str] | None) -> None:
    unknown = [name for name in metrics or () if name not in table and name not in REWARDS]
    if unknown and len(table):
        known = [name for name in _load(run).columns if name not in IDENTITY]
        raise ValueError(no_column(f"{run} has no metric", unknown[0], known))


def no_column(what: str, name: str, known: Iterable[str]) -> str:
    """``WHAT "name"; there are a, b, c; did you mean `b`?``"""
    names = sorted(map(str, known))
    return f"{what} {shown(name)}; there are {', '.join(names) or 'none'}{suggestion(name, names)}"


def evaluations(run: RunPath, *runs: RunPath) -> pd.DataFrame:
    """Read the evaluations: one row per lane, time of evaluation and evaluated task.

    Returns:
      ``arm, lane, seed, step, frames, flops, visit, task, step_in_visit`` at the time of evaluation;
      ``evaluated_visit`` and ``evaluated_task``, the visit and task evaluated; ``episodes, episodic_return,
      episode_length`` (means over the episodes), or ``reward`` (mean over the steps) if the stream has no episodes; for
      each measure of the stream, such as ``success``, the means over the episodes of its largest value, ``success``,
      and of its last one, ``success_at_end``; the swept hyper-parameters. No rows if the config requests no
      evaluation.
    """

    def read(one: RunPath) -> pd.DataFrame:
        first = [name for name in IDENTITY[1:] if name != "update"]
        table = _joined(one, "evaluations", first, ["step", "evaluated_visit"])
        names = [name for name in ("task", "evaluated_task") if name in table]
        return table.astype(dict.fromkeys(names, "str"))

    return several((run, *runs), read)


def is_measure(name: str | None) -> bool:
    """Whether a column is a measure of the stream, such as ``success``, of one kind in all tasks, and no reward."""
    return name not in (None, *REWARDS, "episode_length")


def evaluated_measure(run: RunPath, table: pd.DataFrame, measure: str | None = None) -> str:
    """Return the column of evaluations that measures performance.

    With None this is ``success``, if recorded, else the return or the reward.

    Raises:
      ValueError: there is no such column.
    """
    usual = "episodic_return" if evaluated_stream(plan(run))["episodic"] else "reward"
    if measure is None:
        return SUCCESS if SUCCESS in table and table[SUCCESS].notna().any() else usual
    known = [
        name for name in map(str, table) if name not in (*IDENTITY, *hyper_parameters(run)) and "evaluated" not in name
    ]
    if measure not in known:
        raise ValueError(no_column(f"the evaluations of {run} have no column", measure, known))
    return measure


def tenth(count: Any) -> Any:
    """A tenth of ``count``, rounded down, but at least 1."""
    return np.maximum(1, np.asarray(count) // 10)


def visits_and_losses(run: RunPath) -> pd.DataFrame:
    """The rows of :func:`plasticity.results.visits` of one run, with two additional columns and without evaluations.

    ``lost``: the lane diverged before the end of the visit. ``performance_start``: the performance over the first
    tenth of the visit's steps.
    """
    return _visits_and_losses(str(run), versions_of(Path(run), plan(run))).copy()


@functools.lru_cache(maxsize=8)  # several measures need it, and it reads the whole run
def _visits_and_losses(run: str, state: Versions) -> pd.DataFrame:
    """``state`` identifies the files' versions, so that a run in progress is read again."""
    del state
    stream, table, swept = plan(run)["stream"], _load(run, REWARDS, NEEDED), hyper_parameters(run)
    columns = [*VISIT, "performance", "performance_end", "performance_start", *swept, "lost"]
    if table.empty:
        return table.reindex(columns=columns)
    # Rows are sorted by arm, lane and step, so those of an arm are contiguous; all at once would need much memory.
    ends = np.flatnonzero(np.diff(table["arm"].cat.codes.to_numpy(), append=-1)) + 1
    arms = [_visits_of_arm(table.iloc[start:end], stream, swept) for start, end in itertools.pairwise([0, *ends])]
    return pd.concat(arms, ignore_index=True)[columns]


def _visits_of_arm(table: pd.DataFrame, stream: Mapping[str, Any], swept: Sequence[str]) -> pd.DataFrame:
    # The records of a visit are contiguous.
    who = [table["lane"].to_numpy(), table["visit"].to_numpy()]
    first = np.r_[True, np.any([each[1:] != each[:-1] for each in who], axis=0)]
    starts = np.flatnonzero(first)
    sums = {name: np.add.reduceat(value, starts) for name, value in _weighted(table, first, stream).items()}
    lost = sums["lost"] > 0
    rows = table.iloc[starts][[*VISIT, *swept]].astype({"task": "str"})
    for end in ("", "_end", "_start"):
        weight = np.where(sums[f"weight{end}"] > 0, sums[f"weight{end}"], np.nan)
        rows[f"performance{end}"] = np.where(lost, np.nan, sums[f"total{end}"] / weight)
    rows["lost"] = lost
    return rows.loc[sums["finished"] > 0]


def _weighted(table: pd.DataFrame, first: np.ndarray, stream: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """For each record, its contribution to the weighted means of its visit and whether it ends the visit.

    ``first`` marks the first record of each lane and visit.
    """
    steps = np.asarray([visit["steps"] for visit in stream["visits"]])[table["visit"].to_numpy()]
    done = table["step_in_visit"].to_numpy()
    window = done - np.where(first, 0, np.r_[0, done[:-1]])
    inside = np.clip(done - (steps - tenth(steps)), 0, window)
    value = table["episodic_return" if stream["episodic"] else "reward"].to_numpy(float)
    held = ~np.isnan(value)
    weight = np.where(held, table["episodes"].to_numpy(float) if stream["episodic"] else window, 0.0)
    total, share = np.where(held, weight * value, 0.0), inside / window
    opening = np.clip(np.minimum(done, tenth(steps)) - (done - window), 0, window) / window
    return {
        "weight": weight,
        "total": total,
        "weight_end": weight * share,
        "total_end": total * share,
        "weight_start": weight * opening,
        "total_start": total * opening,
        "lost": table["reward"].isna().to_numpy().astype(int),
        "finished": (done >= steps).astype(int),
    }
