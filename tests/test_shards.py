"""A run that is cut into shards is the same run."""

import functools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny

from plasticity import results
from plasticity.cli.tables import shard_lines
from plasticity.cli.watch import Watcher
from plasticity.config.programs import programs
from plasticity.core.errors import UserError
from plasticity.report.facts import facts
from plasticity.runs import launch, shards
from plasticity.runs.accounts import shard_folder
from plasticity.runs.checksums import to_json
from plasticity.runs.files import write_text
from plasticity.runs.lock import held
from plasticity.runs.measure import measure
from plasticity.runs.merging import UNDER_WAY, merge
from plasticity.runs.session import NoProgress
from plasticity.runs.shards import Split, cut, parse, parse_number

ARMS = {"baseline": {}, "fresh": {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]}}
SWEEP = {"agent.optimizer.learning_rate": [0.01, 0.02], "agent.network.widths": [[4], [8]]}


def wide(**changes):
    """Two arms, four points (of two programs) in the first, three seeds."""
    arms = {"baseline": {"sweep": SWEEP}, "fresh": ARMS["fresh"]}
    return tiny.experiment(arms=arms, placement={"width": 2, "devices": 1}, **changes)


def lanes(shard, asked):
    return [(each.arm, lane) for each in shard.of(asked) for lane in each.lanes.tolist()]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("arms", [12, 3]),
        ("points", [3, 3, 3, 3, 3]),
        ("seeds=1", [5, 5, 5]),
        ("seeds=2", [10, 5]),
        ("arms,seeds=2", [8, 4, 2, 1]),
        ("jobs=4", [3, 4, 4, 4]),
        ("jobs=100", [1] * 15),
    ],
)
def test_every_lane_is_in_one_shard(text, counts):
    asked = programs(wide())
    found = cut(asked, parse(text))
    assert [shard.lanes for shard in found] == counts
    assert [shard.number for shard in found] == list(range(1, len(counts) + 1))
    together = [lane for shard in found for lane in lanes(shard, asked)]
    assert sorted(together) == sorted((each.arm, lane) for each in asked for lane in each.lanes.tolist())
    for shard in found:
        for each in shard.of(asked):
            assert len(each.points) == len(each.seeds) == len(each.lanes)
            for path, values in each.hyper.items():
                if path.endswith("learning_rate") and each.arm == "baseline":
                    np.testing.assert_allclose(values, [point[path] for point in each.points], rtol=1e-6)


def test_ways_to_cut():
    assert parse("seeds=4, arms") == Split(arms=True, seeds=4)
    assert str(parse("seeds=4,arms")) == "arms,seeds=4"
    assert str(parse("jobs=3")) == "jobs=3"
    assert parse_number("3/8") == (3, 8)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("points", "5 shards of 3 lanes; run each with --split points --shard I/5"),
        ("seeds=2", "2 shards of 5 to 10 lanes; run each with --split seeds=2 --shard I/2"),
    ],
)
def test_a_plan_says_how_it_would_be_cut(text, line):
    assert shard_lines(launch.plan(wide()), text) == [line]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("seed=4", r"--split: .seed=4. is not allowed; must be one of arms, points, seeds=N, jobs=N, hours=H"),
        ("seeds", r"--split: .seeds. is not allowed"),
        ("seeds=0", r"--split: .seeds=0. is not allowed"),
        ("arms=2", r"--split: .arms=2. is not allowed"),
        ("", r"--split: .* is not allowed"),
        ("arms,arms", r"--split: arms is given twice"),
        ("jobs=2,arms", r"--split: .*jobs=2,arms.* is not allowed; jobs goes with nothing else"),
    ],
)
def test_refuses_other_ways(text, why):
    with pytest.raises(UserError, match=why):
        parse(text)


@pytest.mark.parametrize("text", ["3", "0/3", "4/3", "a/b", "1/", "-1/3", "1/3/5"])
def test_refuses_other_numbers(text):
    with pytest.raises(UserError, match=r"--shard: .* is not allowed; must be I/N, such as 3/8"):
        parse_number(text)


def tables(run):
    """All tables of a run, without the columns that say which program wrote a row."""
    return [
        table.drop(columns="program", errors="ignore")
        for table in (results.lanes(run), results.load(run), results.visits(run), results.evaluations(run))
    ]


def saying(said):
    """Progress that collects its lines."""
    progress = NoProgress()
    progress.say = said.append
    return progress


def assert_same(run, other):
    for a, b in zip(tables(run), tables(other), strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.fixture(scope="module")
def experiment():
    return wide(evaluation={"every": 20, "steps": 4})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, experiment):
    return launch.run(experiment, tmp_path_factory.mktemp("whole") / "run")


def test_the_tables_are_those_of_one_run(experiment, whole, tmp_path):
    """Shards run in any order, half a run can be read, and finished ones are not run again."""
    run, split = tmp_path / "run", "arms,seeds=2"
    for number in (3, 1):
        launch.run(experiment, run, split=split, shard=f"{number}/4")
    half = results.load(run)
    there = set(map(tuple, half[["arm", "seed"]].to_numpy()))
    assert there == {(arm, seed) for arm in ("baseline", "fresh") for seed in (0, 1)}
    baseline, fresh = Watcher(run).look().arms
    assert (baseline.state, fresh.state) == ("waiting", "waiting")  # a shard of each has not started
    assert baseline.states == fresh.states == "1 waiting, 1 finished"
    assert (baseline.done, baseline.total) == (2 * 60, 4 * 60)
    share = {arm["name"]: arm["share"] for arm in facts(run)["arms"]}
    assert share == {"baseline": 0.5, "fresh": 0.5}
    written = {path: path.stat().st_mtime_ns for path in shard_folder(run, 1).rglob("part-*")}
    launch.run(experiment, run, resume=True)
    assert Watcher(run).look().finished
    assert facts(run)["finished"]
    assert {path: path.stat().st_mtime_ns for path in shard_folder(run, 1).rglob("part-*")} == written
    assert_same(run, whole)


@pytest.mark.slow
def test_several_programs_in_a_shard(experiment, whole, tmp_path):
    assert_same(launch.run(experiment, tmp_path / "run", split="seeds=2"), whole)


@pytest.mark.slow
def test_one_shard_alone_is_a_run(experiment, tmp_path):
    run = launch.run(experiment, tmp_path / "run", split="seeds=1", shard="2/3")
    alone = results.load(shard_folder(run, 2))
    assert set(alone["seed"]) == {1}
    assert set(alone["arm"].unique()) == {"baseline", "fresh"}
    said = []
    launch.run(experiment, shard_folder(run, 2), resume=True, progress=saying(said))
    assert said == [f"{shard_folder(run, 2)}: already finished"]
    pd.testing.assert_frame_equal(results.load(shard_folder(run, 2)), alone)
    afterwards = list(measure(run, ["weight_norm"]))
    assert {seed for each in afterwards for seed in each.table["seed"].to_pylist()} == {1}


@pytest.mark.slow
def test_the_width_is_fixed_when_the_run_is_cut(tmp_path):
    """By the smallest shard, whatever machine runs it; the numbers are those of this width."""
    one = functools.partial(tiny.experiment, arms=ARMS, seeds=4)
    run = launch.run(one(), tmp_path / "run", split="jobs=3", shard="1/3")
    cuts = results.plan(run)["shards"]
    assert (cuts["split"], cuts["count"], len(cuts["widths"])) == ("jobs=3", 3, 2)
    launch.run(one(), run, resume=True)
    width = {"width": cuts["widths"][0]}
    assert cuts["widths"][0] == cuts["widths"][1]
    assert_same(run, launch.run(one(placement=width), tmp_path / "same"))


def test_refusals(experiment, whole, tmp_path):
    run = tmp_path / "run"
    launch.run(experiment, run, split="arms", shard="2/2")
    refused = [
        ({"split": "points"}, rf"{run} exists"),
        ({"split": "points", "resume": True}, rf"{run}: this run is cut by --split arms, not points"),
        ({"shard": "1/3"}, r"--shard: .1/3. is not allowed; this run has 2 shards"),
        ({"shard": "1/2", "force": True}, r"--force replaces a whole run, and --shard runs a part of one"),
    ]
    for options, why in refused:
        with pytest.raises(UserError, match=why):
            launch.run(experiment, run, **options)
    with pytest.raises(UserError, match=r"was made with another config: `seeds` was 3, now 2"):
        launch.run(wide(evaluation={"every": 20, "steps": 4}, seeds=2), run, shard="1/2")
    with pytest.raises(UserError, match=r"this run is not cut into shards; choose another --out"):
        launch.run(experiment, whole, shard="1/2")
    with held(shard_folder(run, 2)), pytest.raises(UserError, match=r"00002: in use by process"):
        launch.run(experiment, run, split="arms", force=True)


def test_a_shard_that_another_process_runs_is_skipped(experiment, tmp_path):
    run, said = tmp_path / "run", []
    launch.run(experiment, run, split="arms", shard="1/2")
    shard_folder(run, 2).mkdir()
    with held(shard_folder(run, 2)):
        launch.run(experiment, run, resume=True, progress=saying(said))
    assert any("00002: in use by process" in line and line.endswith("skipped") for line in said)
    assert set(results.load(run)["arm"].unique()) == {"baseline"}


def test_too_many_shards(monkeypatch):
    monkeypatch.setattr(shards, "MOST", 4)
    with pytest.raises(UserError, match=r"--split: points makes 5 shards; at most 4 are allowed"):
        cut(programs(wide()), parse("points"))


def apart(experiment, place, name, *numbers):
    """A folder in which only these shards have run."""
    for number in numbers:
        launch.run(experiment, place / name, split="arms,seeds=2", shard=f"{number}/4")
    return place / name


@pytest.mark.slow
def test_folders_that_lie_apart_are_merged(experiment, whole, tmp_path):
    first, second = apart(experiment, tmp_path, "first", 1, 2), apart(experiment, tmp_path, "second", 2, 4)
    said = []
    assert merge(tmp_path / "run", [first, second], said.append) == 3
    run = tmp_path / "run"
    assert [line.split(": from ")[1] for line in said] == [
        str(shard_folder(first, 1)), str(shard_folder(first, 2)), str(shard_folder(second, 4))
    ]  # fmt: skip
    assert merge(run, [first, second], said.append) == 0
    launch.run(experiment, run, resume=True)
    assert_same(run, whole)
    assert {path.name for path in first.iterdir()} == {"experiment.yaml", "plan.json", "shards"}


@pytest.mark.slow
def test_the_shard_that_is_further_is_kept(experiment, whole, tmp_path):
    """A copy that was interrupted leaves nothing behind."""
    behind, ahead = apart(experiment, tmp_path, "behind", 3), apart(experiment, tmp_path, "ahead", 3)
    status = shard_folder(behind, 3) / "fresh" / "status.json"
    write_text(status, to_json({**json.loads(status.read_text()), "finished": [], "step": 20}))
    rows = len(results.load(behind))
    shutil.copytree(shard_folder(behind, 3), behind / "shards" / f"00003{UNDER_WAY}")
    assert len(results.load(behind)) == rows  # a copy that is under way is not read
    assert merge(ahead, [behind], list) == 0
    assert merge(behind, [ahead], [].append) == 1
    assert json.loads(status.read_text())["finished"] == [0]
    assert [path.name for path in (behind / "shards").iterdir()] == ["00003"]


@pytest.mark.slow
def test_runs_that_do_not_belong_together_are_not_merged(experiment, whole, tmp_path):
    run = apart(experiment, tmp_path, "run", 3)
    other = launch.run(experiment, tmp_path / "other", split="arms", shard="2/2")
    with pytest.raises(UserError, match=rf"{other}: was cut by --split .arms., {run} with .arms,seeds=2."):
        merge(run, [other], print)
    seeds = launch.run(wide(seeds=2), tmp_path / "seeds", split="arms,seeds=2", shard="2/2")
    with pytest.raises(UserError, match=rf"{seeds}: was made with another config than {run}"):
        merge(run, [seeds], print)
    with pytest.raises(UserError, match="this run is not cut into shards"):
        merge(run, [whole], print)
    with pytest.raises(UserError, match="is not a run: there is no such folder"):
        merge(run, [tmp_path / "none"], print)
    with held(shard_folder(run, 3)), pytest.raises(UserError, match="in use by process"):
        merge(tmp_path / "new", [run], print)
