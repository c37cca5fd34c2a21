"""Lifetime tuning: each arm's best point is selected on the first part of the life, on other seeds, and runs whole."""

import json
import os
import shutil
import signal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import synthetic_run as made
import tiny
from rich.console import Console
from typer.testing import CliRunner

from plasticity import results
from plasticity.cli import main
from plasticity.cli.watch import watch
from plasticity.config.documents import to_yaml
from plasticity.config.experiments import read_experiment
from plasticity.config.tuning import part_of, share_of, steps_of
from plasticity.core.errors import Interrupted, UserError
from plasticity.runs import launch, tuning
from plasticity.runs.selection import LaneMean, at_edge, best_of, lane_means, score
from plasticity.runs.session import NoProgress

NAN = float("nan")
RATE = "agent.optimizer.learning_rate"
SWEEP = {RATE: [0.003, 0.03, 0.3]}
SMALL = {"seeds": 2, "monitors": [], "placement": {"width": 1, "devices": 1}}


def experiment(**changes):
    """Three visits of 20 steps; the first half of them is for tuning, on two seeds."""
    return tiny.experiment(**{**SMALL, "sweep": SWEEP, "tune": {"first": "50%", "seeds": 2}, **changes})


class Heard(NoProgress):
    """Keeps what is said; ``stop``: at this chunk the process gets SIGTERM, ``crash``: it fails."""

    def __init__(self, stop=0, crash=0):
        self.lines, self.chunks, self._stop, self._crash = [], 0, stop, crash

    def say(self, line):
        self.lines.append(line)

    def chunk(self, chunk):
        self.chunks += 1
        if self.chunks == self._stop:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.chunks == self._crash:
            raise RuntimeError("crash")


# ------------------------------------------------------------------------------------------------- the config


@pytest.mark.parametrize(
    ("first", "visits", "record", "steps"),
    [
        ("1%", [500] * 40, None, 200),  # 200 of 20,000, a multiple of 500 / 100
        ("1.01%", [500] * 40, None, 205),  # 202
        ("5%", [500] * 40, None, 1000),
        ("5.1%", [500] * 40, None, 1050),  # 1,020, beyond a visit: whole tenths of one
        ("0.5%", [50_000], 1000, 1000),  # 250 in whole records
        ("10%", [20, 20, 20], None, 6),
        ("1%", [7, 7], None, 1),  # 0.14
        ("100%", [500] * 40, None, 20_000),
        ("3 visits", [5, 6, 7, 8], None, 18),
        ("1 visit", [5, 6], None, 5),
        (733, [500, 500], None, 733),
    ],
)
def test_how_much_of_the_life(first, visits, record, steps):
    assert steps_of(first, visits, record) == steps


def test_a_share_is_exact():
    assert share_of("0.1 %") == Fraction(1, 1000)


def test_the_last_visit_is_cut():
    assert part_of([(0, 20), (2, 20), (1, 20)], 30) == [(0, 20), (2, 10)]
    assert part_of([(0, 20), (1, 20)], 20) == [(0, 20)]


@pytest.mark.parametrize("first", ["0%", "100.1%", "-1%", "x%", "some", "3 weeks", "%"])
def test_a_share_outside_the_life(first):
    with pytest.raises(
        UserError, match=r"tune.first: .* is not allowed; must be a share of the env steps in \(0, 100\]"
    ):
        experiment(tune={"first": first})


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"first": 0}, "tune.first: 0 is not allowed"),
        ({"seeds": 0}, "tune.seeds: 0 is not allowed"),
        ({"seeds": [1, 7]}, "tune.seeds: shares 1 with `seeds`, those of the report; must be disjoint"),
        ({"seeds": [7, 8, 7]}, "tune.seeds: 7 is given twice"),
        ({"over": "grid"}, 'tune.over: "grid" is not allowed; must be `sweep`'),
        ({"fist": "1%"}, "tune.fist: unknown key"),
        ({"chosen": {"baseline": {RATE: 0.5}}}, "is not a point of the arm's sweep"),
        ({"chosen": {"other": {RATE: 0.3}}}, "tune.chosen.other: unknown arm"),
    ],
)
def test_what_is_refused(tune, said):
    with pytest.raises(UserError) as refused:
        experiment(tune=tune)
    assert said in str(refused.value)


def test_without_a_sweep_there_is_nothing_to_select():
    with pytest.raises(UserError, match="tune: no arm has a sweep"):
        experiment(sweep={})
    with pytest.raises(UserError, match="tune: no arm has a sweep"):
        experiment(sweep={RATE: [0.1]})


def test_an_arm_may_not_have_the_folder_of_the_tuning_runs():
    with pytest.raises(UserError, match=r"arms\.Tuning: is a reserved name with `tune`"):
        experiment(arms={"Tuning": {}})
    assert "tuning" in tiny.experiment(arms={"tuning": {}}).arms


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"first": 61}, "tune.first: 61 env steps are not allowed; the whole life has 60"),
        ({"first": "4 visits"}, "the stream has 3 visits"),
        (
            {"first": 33},
            "tune.first: 33 of 60 env steps do not fit: record_every: 5 is not allowed; must divide the 13",
        ),
        ({"metric": "los"}, "tune.metric: arm baseline: unknown metric `los`"),
    ],
)
def test_what_does_not_fit_the_stream_is_refused_before_anything_is_written(tmp_path, tune, said):
    with pytest.raises(UserError) as refused:
        launch.run(experiment(tune=tune), tmp_path / "run")
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_tuning_seeds_are_disjoint_from_those_of_the_report():
    usual = experiment(seeds=5, tune={"seeds": 3})
    assert usual.tune.seeds == (1_000_000, 1_000_001, 1_000_002)
    assert not set(usual.tune.seeds) & set(usual.seeds)
    assert experiment(tune={"seeds": [9, 4]}).tune.seeds == (9, 4)
    assert usual.resolve()["tune"]["seeds"] == 3


def test_the_config_is_read_back():
    chosen = experiment(tune={"seeds": [9, 4], "chosen": {"baseline": {RATE: 0.3}}})
    assert read_experiment(chosen.resolve(), launch.registry()) == chosen
    assert [dict(point.values) for point in chosen.arms["baseline"].points] == [{}]
    assert chosen.arms["baseline"].points[0].agent.traced()["optimizer.learning_rate"] == 0.3


def test_a_config_without_it_is_as_before():
    assert "tune" not in tiny.experiment().resolve()
    assert [phase.experiment for phase in launch.phases(tiny.experiment())] == [tiny.experiment()]
    assert "tune" not in launch.plan(tiny.experiment()).describe()


def test_the_tuning_runs():
    whole = experiment(
        monitors=["weight_norm"], recorders=["tensorboard"], reference=True, evaluation={"episodes": 1},
        arms={"a": {}, "b": {"sweep": {RATE: None}, "control": "c"}, "c": {"task_aware": True}},
    )  # fmt: skip
    first = tuning.first_phase(whole)
    assert first.seeds == (1_000_000, 1_000_001)
    assert first.schedule.visits == (0, 1)
    assert first.schedule.steps == (20, 10)
    assert list(first.arms) == ["a", "c", "fresh"]  # b has no sweep
    assert (first.monitors, first.recorders, first.evaluation, first.tune) == ((), (), None, None)
    assert read_experiment(first.resolve(), launch.registry()) == first
    other = tuning.first_phase(experiment(monitors=["weight_norm"], tune={"metric": "weight_norm"}))
    assert [each.kind for each in other.monitors] == ["weight_norm"]


# ------------------------------------------------------------------------------------------------- the selection


def lane(value, *, diverged=False):
    return LaneMean(0, 0, value, diverged)


def test_a_point_is_judged_by_its_complete_lanes():
    assert score([lane(1.0), lane(3.0), lane(9.0, diverged=True), lane(NAN)]) == (2.0, 4, 2)
    assert np.isnan(score([lane(NAN)]).mean)


def test_the_best_point():
    scores = [score([lane(1.0), lane(2.0)]), score([lane(3.0), lane(4.0)]), score([lane(3.5), lane(3.5)])]
    assert best_of(scores) == 1  # the first of equal ones
    assert best_of(scores, "lowest") == 0
    assert best_of([score([lane(9.0), lane(9.0, diverged=True)]), *scores]) == 2  # a lane diverged: last resort
    assert best_of([score([lane(1.0), lane(NAN)]), score([lane(NAN), lane(NAN)])]) == 0
    assert best_of([score([lane(NAN)])]) is None


def test_the_end_of_a_range():
    points = [{"x": x, "y": y} for x in (1, 2, 3) for y in (1, 2)]
    assert at_edge(points, points[0]) == ["x"]  # of two values each is an end
    assert at_edge(points, points[2]) == []
    assert at_edge([{"x": "a"}, {"x": "b"}, {"x": "c"}], {"x": "a"}) == []


VISITS = [(0, 20), (1, 20)]  # records of ten steps
REWARDS = [[1, 2, 9, 9], [3, 4, 9, 9], [5, 0, 0, 0], [2, 4, 0, 0]]  # two points x two seeds


def folder(tmp_path, **options):
    """Rates 0.1 and 0.2, seeds 0 and 1."""
    plan = made.plan(["a"], tasks=["s", "t"], visits=VISITS, episodic="returns" in options)
    diverged = options.pop("diverged", {})
    table = made.lane_table([0, 1, 0, 1], hyper={"agent.rate": [0.1, 0.1, 0.2, 0.2]}, diverged=diverged)
    rows = made.records("a", plan, [0, 1, 0, 1], every=10, **{"rewards": REWARDS, **options})
    return made.write(tmp_path / "run", plan, {"a": table}, {"a": rows}, parts=2)


def test_selection_by_hand(tmp_path):
    found = results.best_points(folder(tmp_path))
    assert found.points["mean"].tolist() == [(21 / 4 + 25 / 4) / 2, (5 / 4 + 6 / 4) / 2]
    assert found.chosen["agent.rate"].tolist() == [0.1]
    first = results.best_points(tmp_path / "run", first="1 visit")
    assert first.points["mean"].tolist() == [(1.5 + 3.5) / 2, (2.5 + 3.0) / 2]
    assert first.points["chosen"].tolist() == [False, True]
    assert results.best_points(tmp_path / "run", first=10).points["mean"].tolist() == [2.0, 3.5]
    assert results.best_points(tmp_path / "run", first="50%").chosen["agent.rate"].tolist() == [0.2]
    assert results.best_points(tmp_path / "run", first="50%", seeds=[1]).points["mean"].tolist() == [3.5, 3.0]
    assert results.best_points(tmp_path / "run", best="lowest").chosen["agent.rate"].tolist() == [0.2]


def test_returns_are_weighted_by_episodes(tmp_path):
    returns = [[1, 7, 0, 0], [1, 1, 0, 0], [2, 2, 0, 0], [2, NAN, 0, 0]]
    episodes = [[3, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [5, 0, 1, 1]]
    run = folder(tmp_path, returns=returns, episodes=episodes)
    means = lane_means(run, steps=20)["a"]
    assert [each.value for each in means] == [10 / 4, 1.0, 2.0, 2.0]
    assert results.best_points(run, first="1 visit").chosen["agent.rate"].tolist() == [0.2]


def test_a_diverged_lane(tmp_path):
    run = folder(tmp_path, diverged={2: 35})
    assert results.best_points(run, first="1 visit").chosen["agent.rate"].tolist() == [0.2]  # it diverged later
    best = results.best_points(run, best="lowest")
    assert best.chosen["agent.rate"].tolist() == [0.1]
    assert best.points["incomplete"].tolist() == [0, 1]
    assert best.points["mean"].tolist()[1] == 6 / 4


def test_another_metric_and_what_is_refused(tmp_path):
    loss = [[3, NAN, 0, 0], [1, NAN, 0, 0], [1, NAN, 0, 0], [2, NAN, 0, 0]]  # measured every other record
    run = folder(tmp_path, loss=loss)
    found = results.best_points(run, metric="loss", first="1 visit", best="lowest")
    assert found.points["mean"].tolist() == [2.0, 1.5]
    for options, said in (
        ({"metric": "los"}, "unknown metric `los`"),
        ({"metric": "task"}, "unknown metric `task`"),
        ({"first": "0%"}, "is not allowed; must be a share"),
        ({"first": "3 visits"}, "the stream has 2 visits"),
        ({"first": 41}, "the whole life has 40"),
        ({"first": 9}, "no record up to step 9; the first is at 10"),
        ({"best": "most"}, "must be highest or lowest"),
        ({"seeds": [3]}, "has no seed 3"),
    ):
        with pytest.raises(ValueError, match=said):
            results.best_points(run, **options)


# ------------------------------------------------------------------------------------------------- runs


def tables(run):
    return [results.load(place).drop(columns=["flops"], errors="ignore") for place in (run / "tuning", run)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a tuned run, and what was said."""
    heard = Heard()
    return launch.run(experiment(), tmp_path_factory.mktemp("tuned") / "run", progress=heard), heard


def test_both_phases_are_recorded(whole):
    run, heard = whole
    first, last = tables(run)
    assert sorted(first["seed"].unique()) == [1_000_000, 1_000_001]
    assert sorted(last["seed"].unique()) == [0, 1]
    assert (first["step"].max(), last["step"].max()) == (30, 60)
    selection = json.loads((run / "tuning" / "selection.json").read_text())
    points = selection["arms"]["baseline"]["points"]
    assert [point["values"] for point in points] == [{RATE: rate} for rate in SWEEP[RATE]]
    by_hand = first.groupby(RATE)["reward"].mean()  # records of equal length, as many for each seed
    np.testing.assert_allclose([point["mean"] for point in points], by_hand.loc[SWEEP[RATE]], rtol=1e-6)
    chosen = {RATE: float(by_hand.idxmax())}
    assert selection["arms"]["baseline"]["chosen"] == chosen
    assert (selection["steps"], selection["life"]) == (30, 60)
    assert results.tuned_points(run) == {"baseline": chosen}
    assert results.tuned_points(run / "tuning") == {}
    assert results.summary(run)[RATE].tolist() == [chosen[RATE]]
    assert results.best_points(run / "tuning").chosen[RATE].tolist() == [chosen[RATE]]
    assert any(line.startswith("tuning: the first 30 of 60 env steps, 2 seeds from 1,000,000") for line in heard.lines)


def test_the_summary_and_the_report_name_the_chosen_points(whole):
    from plasticity.report.facts import facts

    run, _ = whole
    rate = results.tuned_points(run)["baseline"][RATE]
    said = f"first 50% of the life on 2 other seeds: baseline learning_rate={rate}."
    console = Console(width=400, record=True)
    results.print_summary(run, console)
    assert said in " ".join(console.export_text().split())
    assert said in facts(run)["tuned"]
    assert facts(run / "tuning")["tuned"] == ""


def test_the_phases_are_parts_of_ordinary_runs(whole, tmp_path):
    """The tuning runs are the first part of whole runs of their seeds; the run itself is that of the chosen point."""
    run, _ = whole
    first, last = tables(run)
    other = launch.run(tiny.experiment(**{**SMALL, "sweep": SWEEP, "seeds": [1_000_000, 1_000_001]}), tmp_path / "long")
    longer = results.load(other)
    longer = longer[longer["step"] <= 30].reset_index(drop=True)
    for name in ("lane", "seed", "step", "task", "reward", RATE):
        np.testing.assert_array_equal(first[name].to_numpy(), longer[name].to_numpy())
    agreed = results.best_points(other, first="50%").chosen
    pd.testing.assert_frame_equal(agreed, results.best_points(run / "tuning").chosen)
    changed = tiny.document(**SMALL)
    changed["agent"]["optimizer"] |= {"learning_rate": results.tuned_points(run)["baseline"][RATE]}
    alone = launch.run(read_experiment(changed, launch.registry()), tmp_path / "alone")
    np.testing.assert_array_equal(last["reward"].to_numpy(), results.load(alone)["reward"].to_numpy())


@pytest.mark.slow
@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("how", ["stop", "crash"])
def test_resumed_equals_uninterrupted(whole, tmp_path, how):
    """Interrupted once in the tuning runs and once in the run itself."""
    run, heard = whole
    place, error = tmp_path / "run", Interrupted if how == "stop" else RuntimeError
    assert heard.chunks == 6 + 12  # records of five steps
    with pytest.raises(error):
        launch.run(experiment(), place, progress=Heard(**{how: 5}))
    assert not (place / "experiment.yaml").exists()
    with pytest.raises(UserError, match=r"tuning exists; continue it with --resume"):
        launch.run(experiment(), place)
    with pytest.raises(error):
        launch.run(experiment(), place, resume=True, progress=Heard(**{how: 8}))
    assert (place / "experiment.yaml").exists()
    launch.run(experiment(), place, resume=True)
    for mine, theirs in zip(tables(place), tables(run), strict=True):
        pd.testing.assert_frame_equal(mine, theirs)
    for name in ("experiment.yaml", "tuning/experiment.yaml"):  # the first line names versions
        assert (place / name).read_text().partition("\n")[2] == (run / name).read_text().partition("\n")[2]
    assert (place / "tuning/selection.json").read_text() == (run / "tuning/selection.json").read_text()


def test_killed_between_the_phases(whole, tmp_path):
    run, _ = whole
    shutil.copytree(run / "tuning", tmp_path / "run" / "tuning")
    (tmp_path / "run" / "tuning" / "selection.json").unlink()
    shutil.copy(run / "plan.json", tmp_path / "run")  # the first file of the run itself
    launch.run(experiment(), tmp_path / "run", resume=True)
    for mine, theirs in zip(tables(tmp_path / "run"), tables(run), strict=True):
        pd.testing.assert_frame_equal(mine, theirs)
    assert (tmp_path / "run/tuning/selection.json").read_text() == (run / "tuning/selection.json").read_text()


def test_tuning_runs_that_are_damaged(whole, tmp_path):
    run, _ = whole
    shutil.copytree(run / "tuning", tmp_path / "tuning")
    lost = next((tmp_path / "tuning/baseline/metrics").glob("*.parquet"))
    lost.write_bytes(lost.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"is unreadable .*, so no point can be selected"):
        lane_means(tmp_path / "tuning")
    lost.unlink()
    with pytest.raises(UserError, match=r"is unreadable \(it is missing\)"):
        lane_means(tmp_path / "tuning")


def test_a_finished_run_is_left_alone(whole):
    run, _ = whole
    heard = Heard()
    launch.run(experiment(), run, resume=True, progress=heard)
    own = launch.load_config(run / "experiment.yaml")  # it names the chosen points, so that nothing is tuned again
    launch.run(own, run, resume=True, progress=heard)
    assert heard.chunks == 0
    assert [line for line in heard.lines if not line.startswith("warning")] == [f"{run}: already finished"] * 2


def test_another_config_is_refused(whole, tmp_path):
    run, _ = whole
    with pytest.raises(UserError, match="exists; continue it with --resume"):
        launch.run(experiment(), run)
    for other, key in (
        (experiment(tune={"first": "1 visit", "seeds": 2}), "tune"),
        (tiny.experiment(**SMALL, sweep=SWEEP), "tune"),
        (experiment(sweep={RATE: [0.003, 0.5]}), "sweep"),
    ):
        with pytest.raises(UserError, match=f"was made with another config: `{key}` was"):
            launch.run(other, run, resume=True)
    (tmp_path / "other" / "tuning").mkdir(parents=True)
    with pytest.raises(UserError, match="is not a run"):  # a folder with tuning runs alone
        launch.run(tiny.experiment(**SMALL), tmp_path / "other", force=True)


def test_force_replaces_both_phases(whole, tmp_path):
    run = shutil.copytree(whole[0], tmp_path / "run")
    (run / "tuning" / "trace").write_text("")
    with pytest.raises(UserError, match="give one of them"):
        launch.run(experiment(), run, force=True, shard="1/1")
    with pytest.raises(UserError, match="33 of 60 env steps do not fit"):
        launch.run(experiment(tune={"first": 33}), run, force=True)
    assert (run / "tuning" / "trace").exists()
    launch.run(experiment(), run, force=True)
    assert not (run / "tuning" / "trace").exists()
    for mine, theirs in zip(tables(run), tables(whole[0]), strict=True):
        pd.testing.assert_frame_equal(mine, theirs)


def command(*words):
    done = CliRunner().invoke(main.app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_the_commands(whole, tmp_path):
    """Plan, launch and watch, with one shard in each phase."""
    config, run = tmp_path / "tuned.yaml", tmp_path / "run"
    config.write_text(to_yaml(tiny.document(**SMALL, sweep=SWEEP, tune={"first": "50%", "seeds": 2})))
    planned = command("plan", config, "--out", run)
    assert "tiny-tuning" in planned
    assert "the first 30 of 60 env steps" in planned
    printed = command("launch", config, "--out", run, "--print")
    assert "once they are finished" in printed
    assert f"{run / 'tuning' / 'experiment.yaml'} --out {run / 'tuning'} --shard 1/1" in printed
    shown = Console(width=120, record=True)
    watch(run, shown, once=True)
    assert "tiny-tuning: waiting" in shown.export_text()
    again = command("run", config, "--out", run, "--shard", "1/1")
    assert "when all its shards are finished" in again
    assert not (run / "plan.json").exists()
    printed = command("launch", config, "--out", run, "--print")
    assert f"{run / 'experiment.yaml'} --out {run} --shard 1/1" in printed
    command("run", run / "experiment.yaml", "--out", run, "--shard", "1/1")
    for mine, theirs in zip(tables(run), tables(whole[0]), strict=True):
        pd.testing.assert_frame_equal(mine, theirs)
    shown = Console(width=120, record=True)
    watch(run, shown, once=True)
    assert "tiny: finished" in shown.export_text()
