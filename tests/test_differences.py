"""Two runs side by side, and a run as an object."""

import contextlib
import io
import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_run
import tiny
import yaml
from rich.console import Console
from scipy import stats

import plasticity
from plasticity import results
from plasticity.cli import main
from plasticity.core.errors import UserError
from plasticity.results.two_runs import flat, welch
from plasticity.runs import launch
from plasticity.runs.accounts import fingerprint

CONFIG = {
    "name": "made",
    "stream": {"kind": "relabelled", "tasks": 2},
    "agent": {"kind": "dqn", "discount": 0.9, "optimizer": {"kind": "adam", "b1": 0.9, "learning_rate": 0.001}},
    "interventions": [],
    "seeds": 3,
    "arms": {"a": {}, "b": {"task_aware": True}},
    "placement": {"width": 1},
}
REWARDS = np.array([[0.0, 0.1], [0.2, 0.3], [0.4, 0.8]])  # lanes x visits
GAPS = np.array([[0.0, 0.1], [0.0, 0.1], [0.0, 0.4]])


def changed(**changes) -> dict:
    return {**CONFIG, **changes}


def write(folder: Path, config=CONFIG, rewards=REWARDS, seeds=(0, 1, 2), versions=None, **metrics) -> Path:
    """Two visits of four steps, one record each; arm ``a`` has ``rewards``, the other arms 0.5."""
    arms = list(config["arms"])
    plan = synthetic_run.plan(arms, tasks=["x", "y"], visits=[(0, 4), (1, 4)], lanes=len(seeds))
    plan["versions"] = versions or {"jax": "1", "git": "abc"}
    half = np.full((len(seeds), 2), 0.5)
    rows = {
        arm: synthetic_run.records(arm, plan, seeds, rewards=rewards if arm == "a" else half, every=4, **metrics)
        for arm in arms
    }
    synthetic_run.write(folder, plan, {arm: synthetic_run.lane_table(list(seeds)) for arm in arms}, rows)
    (folder / "experiment.yaml").write_text("# versions\n" + yaml.safe_dump(config))
    return folder


@pytest.fixture
def first(tmp_path):
    return write(tmp_path / "first")


def test_a_config_by_dotted_keys():
    members = [{"kind": "reset", "when": "switch"}, {"kind": "nap"}, {"kind": "nap", "rate": 1}]
    assert flat({"agent": {"kind": "dqn", "widths": [8, 8]}, "interventions": members, "sweep": {}}) == {
        "agent.kind": "dqn",
        "agent.widths": [8, 8],
        "interventions": ["reset", "nap", "nap"],
        "interventions.reset.when": "switch",
        "interventions.nap[2].rate": 1,
    }


def config_changes(tmp_path, first, **changes) -> list[tuple]:
    other = write(tmp_path / "other", changed(**changes))
    return [tuple(change) for change in results.compare_runs(first, other).config]


def test_settings_that_differ(tmp_path, first):
    agent = {"kind": "dqn", "discount": 0.99, "optimizer": {"kind": "adam", "b1": 0.9, "learning_rate": 0.001}}
    found = config_changes(tmp_path, first, agent=agent, seeds=[0, 1, 2], extra=7)
    assert found == [("agent.discount", 0.9, 0.99), ("seeds", 3, [0, 1, 2]), ("extra", "-", 7)]


def test_settings_of_another_kind_of_member_are_not_listed(tmp_path, first):
    """Adam's ``b1`` goes with Adam, but the learning rate is a setting of both."""
    optimizer = {"kind": "sgd", "momentum": 0.5, "learning_rate": 0.01}
    found = config_changes(
        tmp_path, first, agent={"kind": "dqn", "discount": 0.9, "optimizer": optimizer}, interventions=[{"kind": "nap"}]
    )
    assert found == [
        ("agent.optimizer.kind", "adam", "sgd"),
        ("agent.optimizer.learning_rate", 0.001, 0.01),
        ("interventions", [], ["nap"]),
    ]


def test_arms_and_versions(tmp_path, first):
    other = write(
        tmp_path / "other", changed(arms={"c": {}, "a": {}}), versions={"jax": "2", "rlax": "3", "git": "abc"}
    )
    found = results.compare_runs(first, other)
    assert (found.only_a, found.only_b) == (("b",), ("c",))
    assert found.config == ()
    assert [tuple(change) for change in found.versions] == [("jax", "1", "2"), ("rlax", "-", "3")]


# Results. The last tenth is the second visit: 0.1, 0.3, 0.8.


def test_results_paired_by_seed(tmp_path, first):
    """Gaps 0.1, 0.1, 0.4: mean 0.2, deviation sqrt(0.03), t(2) sqrt(0.03 / 3) = 4.3027 x 0.1."""
    other = write(tmp_path / "other", rewards=REWARDS + GAPS)
    a, b = results.compare_runs(first, other).results
    assert (a.label, a.seeds, a.paired) == ("a", 3, True)
    assert (a.a, a.b) == pytest.approx((0.4, 0.6))
    assert tuple(a.difference) == pytest.approx((0.2, 0.2 - 0.43027, 0.2 + 0.43027), abs=1e-4)
    assert tuple(b.difference) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "changes", [{"seeds": [0, 1, 3]}, {"stream": {"kind": "relabelled", "tasks": 2, "fraction": 0.5}}]
)
def test_results_that_cannot_be_paired(tmp_path, first, changes):
    seeds = changes.get("seeds", [0, 1, 2])
    a, _ = results.compare_runs(first, write(tmp_path / "other", changed(**changes), REWARDS + 1, seeds)).results
    assert not a.paired
    expected = stats.ttest_ind(REWARDS[:, 1] + 1, REWARDS[:, 1], equal_var=False).confidence_interval(0.95)
    assert tuple(a.difference) == pytest.approx((1.0, expected.low, expected.high))


def test_welch():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 9), rng.normal(1, 3, 5)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.9)
    assert tuple(welch([*a, math.nan], b, 0.9)) == pytest.approx((b.mean() - a.mean(), expected.low, expected.high))
    assert np.isnan(welch([1.0], [2.0, 3.0])).tolist() == [False, True, True]
    assert tuple(welch([1.0, 1.0], [2.0, 2.0])) == (1.0, 1.0, 1.0)
    assert np.isnan(welch([], [2.0, 3.0])).all()


def test_runs_that_measure_different_things(tmp_path, first):
    other = write(tmp_path / "other")
    plan = (other / "plan.json").read_text()
    (other / "plan.json").write_text(plan.replace('"accuracy"', '"reward"'))
    found = results.compare_runs(first, other)
    assert (found.measured, found.results) == (("accuracy", "reward"), ())


# Records.


def test_equal_records(tmp_path, first):
    """Neither the name nor how the lanes lay on the devices has to be the same."""
    other = write(tmp_path / "other", changed(name="again", placement={"width": 4}))
    a, b = results.compare_runs(first, other).replicas
    assert a == ("a", 6, 0, 0, 0, None, ())
    assert a.equal  # type: ignore[attr-defined]
    assert b.equal


def test_the_first_row_that_differs(tmp_path, first):
    """Time comes before the lane: lane 2 at step 4 rather than lane 0 at step 8."""
    other = write(tmp_path / "other", rewards=REWARDS + np.array([[0, 1e-9], [0, 0], [1e-9, 0]]))
    a, b = results.compare_runs(first, other).replicas
    assert (a.rows, a.differing, a.equal) == (6, 2, False)
    assert a.first == {"lane": 2, "seed": 2, "step": 4, "metric": "reward", "a": 0.4, "b": 0.4 + 1e-9}
    assert b.equal


def test_missing_values_are_equal_and_a_metric_of_one_run_is_not(tmp_path):
    loss = np.array([[1.0, math.nan]] * 3)
    a, b, c = (
        write(tmp_path / name, **more) for name, more in {"a": {"loss": loss}, "b": {"loss": loss}, "c": {}}.items()
    )
    assert all(each.equal for each in results.compare_runs(a, b).replicas)
    assert results.compare_runs(a, c).replicas[0].metrics == ("loss",)
    assert not results.compare_runs(a, c).replicas[0].equal
    d = write(tmp_path / "d", loss=np.array([[1.0, 2.0]] * 3))
    found = results.compare_runs(a, d).replicas[0]
    assert found.differing == 3
    assert (found.first["lane"], found.first["step"], found.first["metric"], found.first["b"]) == (0, 8, "loss", 2.0)


def test_a_run_that_is_not_finished(tmp_path, first):
    other = write(tmp_path / "other")
    for path in (other / "a" / "metrics").iterdir():
        table = pd.read_parquet(path)
        table[table["step"] <= 4].to_parquet(path, index=False)
    found = results.compare_runs(first, other)
    assert found.replicas[0] == ("a", 3, 3, 0, 0, None, ())
    assert math.isnan(found.results[0].b)


@pytest.mark.parametrize("arms", [["a"], ["a", "b"]])
def test_arms_without_rows_have_none_in_common(tmp_path, first, arms):
    """Arms with a damaged table of lanes, and arms that have not started."""
    other = write(tmp_path / "other")
    for arm in arms:
        (other / arm / "lanes.parquet").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"lanes\.parquet is unreadable \(it is empty\)"):
        found = results.compare_runs(first, other)
    assert [each.arm for each in found.replicas if tuple(each)[1:] == (0, 6, 0, 0, None, ())] == arms
    for arm in arms:
        shutil.rmtree(other / arm)
    again = results.compare_runs(other, first)
    assert [each.arm for each in again.replicas if tuple(each)[1:] == (0, 0, 6, 0, None, ())] == arms


def test_another_config_than_the_run_was_started_with(tmp_path, first):
    """A changed value is a config too; the plan knows that it is not this one."""
    other = write(tmp_path / "other")
    about = json.loads((other / "plan.json").read_text())
    (other / "plan.json").write_text(json.dumps({**about, "config": fingerprint(CONFIG, about)}))
    assert results.compare_runs(first, other).config == ()
    text = (other / "experiment.yaml").read_text()
    (other / "experiment.yaml").write_text(text.replace("discount: 0.9", "discount: 0.8"))
    with pytest.raises(ValueError, match=r"experiment\.yaml is damaged: it is not the config") as told:
        results.compare_runs(first, other)
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "arms"),
    [
        ({"arms": {"a": {"task_aware": True}, "b": {"task_aware": True}}}, ["b"]),
        ({"agent": {"kind": "c51"}}, []),
        ({"recorders": ["wandb"], "checkpoint_every": 7}, ["a", "b"]),
    ],
)
def test_records_are_compared_where_nothing_differs_that_could_change_them(tmp_path, first, changes, arms):
    found = results.compare_runs(first, write(tmp_path / "other", changed(**changes)))
    assert [each.arm for each in found.replicas] == arms


# On the terminal.


def printed(a: Path, b: Path) -> str:
    out = io.StringIO()
    results.print_comparison(a, b, Console(file=out, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= max(80, len(str(b)) + 3)
    return out.getvalue()


def test_what_is_printed(tmp_path, first):
    other = write(tmp_path / "other", changed(name="x", arms={"a": {}, "c": {}}), REWARDS + GAPS)
    text = printed(first, other)
    assert "versions: equal" in text
    assert [line.split() for line in text.splitlines() if line.startswith("name ")] == [["name", "made", "x"]]
    assert "arms in A only: b" in text
    assert "arms in B only: c" in text
    assert ["a", "0.4", "0.6", "+0.2", "[-0.23,", "+0.63]", "3"] in [line.split() for line in text.splitlines()]
    assert "Intervals: 95 %, paired by seed (same stream, same seeds)." in text
    assert text.endswith("  a: 3 of 6 rows differ; the first: lane 0 (seed 0), step 8, reward: 0.1 | 0.2\n")


def test_what_is_printed_of_equal_and_of_unlike_runs(tmp_path, first):
    assert "config: equal" in printed(first, first)
    assert "  a: all 6 rows are equal, value for value" in printed(first, first)
    text = printed(first, write(tmp_path / "other", changed(seeds=[0, 1, 3]), seeds=[0, 1, 3]))
    assert "not paired, since stream or seeds differ (Welch)" in text
    assert "no arm has the same config in both runs" in text


def test_a_folder_that_is_no_run(tmp_path, first):
    with pytest.raises(ValueError, match="is not a run: there is no such folder"):
        results.compare_runs(first, tmp_path / "nothing")
    (first / "experiment.yaml").write_text("- a\n- b")
    with pytest.raises(ValueError, match=r"experiment\.yaml cannot be read"):
        results.compare_runs(first, first)


def command(monkeypatch, *words: object) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", ["plasticity", *map(str, words)])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main.main()
    return int(stopped.value.code or 0), out.getvalue(), err.getvalue()


@pytest.mark.parametrize("words", [["compare", "RUN", "RUN"], ["watch", "RUN", "--once"]])
def test_commands(monkeypatch, tmp_path, first, words):
    code, out, err = command(monkeypatch, *(first if word == "RUN" else word for word in words))
    assert (code, err) == (0, "")
    assert "value for value" in out or "made: waiting" in out
    nowhere = tmp_path / "nowhere"
    code, out, err = command(monkeypatch, *(nowhere if word == "RUN" else word for word in words))
    assert (code, out) == (2, "")
    assert err.startswith(f"{nowhere} is not a run: there is no such folder; there")
    assert len(err.splitlines()) == 1


# A run as an object.


def test_a_run_is_its_folder(first):
    run = results.RunFolder(first)
    assert run == first
    assert isinstance(run, Path)
    assert (run / "plan.json").exists()
    assert os.fspath(run) == str(first)
    assert type(run.path) is type(first)
    assert sorted(path.name for path in run.glob("*/lanes.parquet")) == ["lanes.parquet"] * 2
    pd.testing.assert_frame_equal(run.metrics, results.load(first))
    pd.testing.assert_frame_equal(run.visits, results.visits(first))
    pd.testing.assert_frame_equal(run.lanes, results.lanes(run))
    pd.testing.assert_frame_equal(run.summary, results.summary(run))
    assert run.evaluations.empty
    assert run.plan["name"] == "made"


def test_a_run_in_a_notebook(first):
    shown = results.RunFolder(first)._repr_html_()
    assert shown.startswith("<p><b>made: accuracy</b>")
    assert "<table" in shown
    assert "0.4</td>" in shown  # the last tenth of arm a
    assert results.RunFolder(first / "a")._repr_html_() is None


def test_what_can_be_run(tmp_path, monkeypatch):
    """A file, its keys, or what was read from it; the run that comes back is its folder."""
    asked = []
    monkeypatch.setattr(launch, "run", lambda experiment, out, **options: asked.append((experiment, options)) or out)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.document()))
    for given in (tmp_path / "tiny.yaml", str(tmp_path / "tiny.yaml"), tiny.document()):
        run = plasticity.run(given, tmp_path, overrides=["seeds=2"], force=True)
        assert isinstance(run, results.RunFolder)
        assert run == tmp_path
    experiment = plasticity.load_config(tmp_path / "tiny.yaml", ["seeds=2"])
    plasticity.run(experiment, tmp_path)
    assert [each for each, _ in asked] == [experiment] * 4
    assert [options["force"] for _, options in asked] == [True, True, True, False]
    assert not any(options["resume"] or options["progress"] for _, options in asked)
    with pytest.raises(UserError, match="overrides change a config before it is read"):
        plasticity.run(experiment, tmp_path, overrides=["seeds=2"])
