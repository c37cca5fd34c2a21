"""Continual World's numbers, transfer from areas under evaluations, and the split shortfall, of made-up curves."""

import io

import numpy as np
import pandas as pd
import pytest
import synthetic_run as made
import tiny
from rich.console import Console

from plasticity import report, results
from plasticity.cli.tables import plan_lines
from plasticity.config.experiments import controls, read_experiment
from plasticity.core.errors import UserError
from plasticity.results import Matrix, mean_interval
from plasticity.runs import launch

TIMES = (10, 20, 30, 40)  # of evaluations within a visit
# Evaluations of the visit's own task: seed -> [visits, times]; the areas are the means of the rows.
BASE = {4: [[0.1, 0.2, 0.3, 0.4], [0.4, 0.5, 0.5, 0.6]], 9: [[0.2, 0.4, 0.4, 0.6], [0.2, 0.2, 0.2, 0.2]]}
CONTROL = {4: [[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.4, 0.4]], 9: [[0.2, 0.4, 0.4, 0.6], [0.6, 0.6, 0.6, 0.6]]}


def write(folder, arms, *, tasks=("a", "b"), column="reward", other=0.05, diverged=None, **about):
    """``arms``: arm -> {seed: [visits, times]}; every evaluation of another task gives ``other``."""
    visits = len(next(iter(next(iter(arms.values())).values())))
    order = [visit % len(tasks) for visit in range(visits)]
    plan = made.plan(list(arms), tasks=tasks, visits=[(task, 40) for task in order], lanes=2, **about)
    if about.get("episodic"):
        plan["stream"]["alike"] = False
    else:
        plan["stream"]["reward_range"] = [0.0, 1.0]
    lanes, metrics, tables = {}, {}, {}
    for arm, curves in arms.items():
        seeds, values = list(curves), np.array([np.ravel(rows) for rows in curves.values()], float)
        lost = (diverged or {}).get(arm, {})
        records = made.records(
            arm, plan, seeds, every=10, rewards=values, returns=values, episodes=np.ones_like(values)
        )
        gone = records["step"] > records["lane"].map(lost).fillna(np.inf)
        records.loc[gone, ["reward", "episodic_return", "episodes"]] = np.nan
        lanes[arm], metrics[arm] = made.lane_table(seeds, diverged=lost), records
        rows = records.drop(columns=["reward", "episodic_return", "episodes"]).assign(known=records["reward"])
        parts = []
        for place, task in enumerate(tasks):
            own = rows["task"] == task
            latest = rows["visit"].map(
                lambda visit, place=place: max(
                    [each for each in range(visit + 1) if order[each] == place], default=order.index(place)
                )
            )
            part = rows.assign(evaluated_task=task, evaluated_visit=np.where(own, rows["visit"], latest))
            part[column] = rows["known"].where(own | rows["known"].isna(), other)
            parts.append(part)
        tables[arm] = pd.concat(parts).drop(columns="known")
    made.write(folder, plan, lanes, metrics)
    for arm, table in tables.items():
        (folder / arm / "evaluations").mkdir()
        table.to_parquet(folder / arm / "evaluations" / "part-00000.parquet", index=False)
    return folder


@pytest.fixture
def run(tmp_path):
    swapped = dict(reversed(CONTROL.items()))  # the lanes of the control are in another order: seeds are paired
    return write(tmp_path / "run", {"base": BASE, "fresh": swapped})


# ---------------------------------------------------------------------------------------------- the three numbers


def test_the_three_numbers(run):
    found = results.continual_world(run)
    assert (found.measure, found.curves) == ("reward", "evaluations")
    base = found.performance.overall.iloc[0]
    # At the end: 0.05 on the first task, and 0.6 (seed 4) or 0.2 (seed 9) on the second.
    expected = mean_interval([(0.05 + 0.6) / 2, (0.05 + 0.2) / 2])
    np.testing.assert_allclose([base[f"performance{end}"] for end in ("", "_low", "_high")], expected)
    np.testing.assert_allclose(found.performance.lanes["performance"][:4], [0.05, 0.6, 0.05, 0.2])
    np.testing.assert_allclose(found.forgetting.lanes["forgetting"][:4], [0.35, 0.0, 0.55, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.forgetting.overall["forgetting"][0], (0.35 + 0.55) / 4)
    # Areas 0.25, 0.5 and 0.4, 0.2, of the control 0.25, 0.2 and 0.4, 0.6.
    np.testing.assert_allclose(found.transfer.lanes["difference"], [0.0, 0.3, 0.0, -0.4], atol=1e-12)
    ratios = [0.0, 0.3 / 0.8, 0.0, -0.4 / 0.4]
    np.testing.assert_allclose(found.transfer.lanes["forward_transfer"], ratios, atol=1e-12)
    per_seed = mean_interval(np.reshape(ratios, (2, 2)).mean(1))
    overall = found.transfer.overall.iloc[0]
    np.testing.assert_allclose([overall[f"forward_transfer{end}"] for end in ("", "_low", "_high")], per_seed)


def test_the_ratio_of_means_is_not_the_mean_of_ratios(run):
    found = results.forward_transfer_of_areas(run, curves="evaluations")
    # Second visit: means over seeds 0.35 and 0.4 of the control.
    of_means = (0.35 - 0.4) / (1 - 0.4)
    np.testing.assert_allclose(found.means["forward_transfer_of_means"], [0.0, of_means], atol=1e-12)
    np.testing.assert_allclose(found.overall["forward_transfer_of_means"], [of_means / 2])
    np.testing.assert_allclose(found.means["forward_transfer"], [0.0, (0.375 - 1.0) / 2], atol=1e-12)
    assert "largest" not in found.means


def test_the_largest_value_replaces_the_one(run):
    found = results.forward_transfer_of_areas(run, curves="evaluations", auc_max=2.0)
    np.testing.assert_allclose(found.lanes["forward_transfer"], [0, 0.3 / 1.8, 0, -0.4 / 1.4], atol=1e-12)
    known = results.forward_transfer_of_areas(run, curves="evaluations", auc_max=None)  # the accuracy is at most 1
    np.testing.assert_allclose(known.lanes["forward_transfer"], [0, 0.375, 0, -1], atol=1e-12)
    with pytest.raises(ValueError, match="auc_max: inf is not allowed"):
        results.forward_transfer_of_areas(run, auc_max=np.inf)


def test_the_mean_of_the_last_evaluations(run):
    ends = results.performance_matrix(run, arm="base").values[0]
    np.testing.assert_allclose(ends, [[0.4, 0.05], [0.05, 0.6]])
    of_two = results.performance_matrix(run, arm="base", last=2).values[0]
    np.testing.assert_allclose(of_two, [[0.35, 0.05], [0.05, 0.55]])
    with pytest.raises(ValueError, match="last: 0 is not allowed; must be at least 1"):
        results.performance_matrix(run, last=0)


# ---------------------------------------------------------------------------------------------- areas


def test_areas_of_known_curves(tmp_path):
    line, square = [0.1, 0.2, 0.3, 0.4], [0.01, 0.04, 0.09, 0.16]
    folder = write(tmp_path / "run", {"base": {0: [line, square], 1: [square, line]}})
    means = results.evaluation_areas(folder)["area"]
    np.testing.assert_allclose(means, [0.25, 0.075, 0.075, 0.25])
    trapezoids = results.evaluation_areas(folder, area="trapezoid")["area"]
    curved = (0.01 / 2 + 0.04 + 0.09 + 0.16 / 2) / 3
    np.testing.assert_allclose(trapezoids, [0.25, curved, curved, 0.25])
    with pytest.raises(ValueError, match="area: 'simpson' is not allowed; must be 'mean' or 'trapezoid'"):
        results.evaluation_areas(folder, area="simpson")


def test_a_diverged_lane_is_left_out(tmp_path):
    folder = write(tmp_path / "run", {"base": BASE, "fresh": CONTROL}, diverged={"base": {1: 60}})
    assert results.evaluation_areas(folder)["area"][:4].isna().tolist() == [False, False, False, True]
    found = results.continual_world(folder)
    for scores, name in (
        (found.performance, "performance"),
        (found.forgetting, "forgetting"),
        (found.transfer, "difference"),
    ):
        base = scores.overall[scores.overall["arm"] == "base"].iloc[0]
        assert base["seeds"] == 1
        assert np.isfinite(base[name])
        assert np.isnan(base[f"{name}_low"])
    np.testing.assert_allclose(found.transfer.means["control_area"], [0.325, 0.2])  # of seed 4 alone in visit 2
    parts = results.shortfall(results.performance_matrix(folder)).overall
    assert list(parts["seeds"]) == [1]


def test_missing_evaluations_are_one_line(run, tmp_path):
    bare = made.write(tmp_path / "bare", made.plan(["base"], tasks=["a"], visits=[(0, 20)]))
    with pytest.raises(ValueError, match=r"bare has no evaluations; set evaluation: \{every: PERIOD, tasks: all\}"):
        results.evaluation_areas(bare)
    with pytest.raises(ValueError, match=r'have no column "sucess"; there are reward'):
        results.evaluation_areas(run, measure="sucess")
    with pytest.raises(ValueError, match=r'have no column "sucess"; there are reward'):
        results.continual_world(run, measure="sucess")
    with pytest.raises(ValueError, match="curves: 'test' is not allowed"):
        results.forward_transfer_of_areas(run, curves="test")
    for path in run.glob("*/evaluations/*"):
        pd.read_parquet(path).query("step_in_visit == 40").to_parquet(path, index=False)
    with pytest.raises(
        ValueError, match=r"one evaluation per visit, which is no curve; set evaluation.every to"
    ) as error:
        results.forward_transfer_of_areas(run, curves="evaluations")
    assert "\n" not in str(error.value)
    found = results.continual_world(run)  # the training curves have the same values here
    assert found.curves == "training"
    np.testing.assert_allclose(found.transfer.lanes["difference"], [0.0, 0.3, 0.0, -0.4], atol=1e-12)


def test_without_a_control_there_is_no_transfer(tmp_path):
    folder = write(tmp_path / "run", {"base": BASE})
    assert results.continual_world(folder).transfer is None
    assert results.continual_world(folder).performance.overall["seeds"].tolist() == [2]


# ---------------------------------------------------------------------------------------------- success, returns


def test_success_rates_come_first(tmp_path):
    arms = {"base": BASE, "fresh": CONTROL}
    folder = write(tmp_path / "run", arms, column="success", episodic=True)
    for path in folder.glob("*/evaluations/*"):
        pd.read_parquet(path).assign(episodic_return=100.0).to_parquet(path, index=False)
    found = results.continual_world(folder)
    assert found.measure == "success"
    np.testing.assert_allclose(found.transfer.lanes["forward_transfer"], [0, 0.375, 0, -1], atol=1e-12)
    assert np.isfinite(found.transfer.overall["difference"]).all()  # success rates of all tasks are of one kind
    returns = results.performance_matrix(folder, measure="episodic_return")
    assert (returns.values == 100.0).all()
    assert not returns.alike
    with pytest.raises(ValueError, match="the runs measure success and reward; name a measure that all have"):
        results.performance_matrix(folder, write(tmp_path / "other", arms))


def test_returns_without_a_largest_value_have_differences_only(tmp_path):
    folder = write(tmp_path / "run", {"base": BASE, "fresh": CONTROL}, column="episodic_return", episodic=True)
    found = results.continual_world(folder)
    assert found.transfer.lanes["forward_transfer"].isna().all()
    np.testing.assert_allclose(found.transfer.lanes["difference"], [0.0, 0.3, 0.0, -0.4], atol=1e-12)
    assert found.transfer.overall["difference"].isna().all()  # tasks of several kinds
    # Each task on the control's own scale: a, from the start 0.15 to the end 0.5; b, from 0.3 to 0.5.
    scaled = results.continual_world(folder, scaled=True)
    units = results.Scales(
        results.read.visits_and_losses(folder),
        results.lanes(folder),
        [],
        results.controls(folder),
        results.rule(results.plan(folder)["stream"]).stages,
    )
    sizes = [units.of("base", 0, task).scale for task in ("a", "b")]
    np.testing.assert_allclose(
        scaled.transfer.lanes["difference"], [0.0, 0.3 / sizes[1], 0.0, -0.4 / sizes[1]], atol=1e-12
    )
    np.testing.assert_allclose(scaled.forgetting.lanes["forgetting"][:2], [0.35 / sizes[0], 0.0], atol=1e-12)


# ---------------------------------------------------------------------------------------------- the shortfall


def matrix(*values, arms, seeds, tasks=("a", "b", "c")):
    lanes = pd.DataFrame({"arm": arms, "lane": range(len(arms)), "seed": seeds})
    return Matrix(lanes, tasks, np.array(values, float))


ONE = [[0.8, 0.2, 0.1], [0.6, 0.7, 0.3], [0.5, 0.4, 0.7]]
TWO = [[0.6, 0.0, 0.1], [0.7, 0.5, 0.0], [0.6, 0.5, 0.9]]
FRESH = [[0.8, 0, 0], [0, 1.0, 0], [0, 0, 0.9]]
OTHER = [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]


def test_the_shortfall_is_split():
    table = matrix(ONE, TWO, OTHER, FRESH, arms=["base", "base", "fresh", "fresh"], seeds=[0, 1, 1, 0])
    found = results.shortfall(table)
    lanes = found.lanes
    np.testing.assert_allclose(lanes["shortfall"], [0.3, 0.6, 0.2, -0.1, 0.0, -0.4], atol=1e-12)
    np.testing.assert_allclose(lanes["not_learned"], [0.0, 0.3, 0.2, -0.1, 0.0, -0.4], atol=1e-12)
    np.testing.assert_allclose(lanes["forgotten"], [0.3, 0.3, 0.0, 0.0, 0.0, 0.0], atol=1e-12)
    for each in (found.means, found.overall):
        np.testing.assert_allclose(each["shortfall"], each["not_learned"] + each["forgotten"], atol=1e-12)
    expected = mean_interval([1.1 / 3, -0.5 / 3])
    np.testing.assert_allclose(found.overall[["shortfall", "shortfall_low", "shortfall_high"]].iloc[0], expected)


def test_the_shortfall_of_a_task_that_recurs_is_that_of_its_last_visit():
    table = matrix(ONE, FRESH, arms=["base", "fresh"], seeds=[0, 0], tasks=("a", "b", "a"))
    found = results.shortfall(table).lanes
    assert list(found["evaluated_visit"]) == [1, 2]
    np.testing.assert_allclose(found["not_learned"], [0.3, 0.2], atol=1e-12)
    np.testing.assert_allclose(found["forgotten"], [0.3, 0.0], atol=1e-12)


def test_the_parts_add_up_where_a_lane_is_missing():
    short = np.array(TWO)
    short[2] = np.nan  # has learned two tasks, and not reached the end
    table = matrix(ONE, short, OTHER, FRESH, arms=["base", "base", "fresh", "fresh"], seeds=[0, 1, 1, 0])
    found = results.shortfall(table)
    np.testing.assert_allclose(found.means["not_learned"], [0.0, 0.3, 0.2], atol=1e-12)
    assert list(found.means["seeds"]) == [1, 1, 1]
    with pytest.raises(ValueError, match="control: 'new' is not an arm of the matrix"):
        results.shortfall(table, control="new")
    unseen = np.where(np.eye(3) > 0, 1.0, np.nan)
    with pytest.raises(ValueError, match=r"earlier tasks were not evaluated; set evaluation.tasks: seen or all"):
        results.shortfall(matrix(unseen, unseen, arms=["base", "fresh"], seeds=[0, 0]))


# ---------------------------------------------------------------------------------------------- modules


def test_what_is_carried_over(tmp_path):
    torso = {seed: [rows[0], [0.3] * 4] for seed, rows in BASE.items()}
    folder = write(tmp_path / "run", {"base": BASE, "torso": torso, "fresh": CONTROL})
    found = results.carried_over(folder, arms={"torso": "all but the head"}, curves="evaluations")
    assert list(found.lanes["visit"]) == [1, 1]  # nothing can be carried into the first visit
    np.testing.assert_allclose(found.lanes["difference"], [0.1, -0.3], atol=1e-12)
    assert list(found.overall["carries"]) == ["all but the head"]
    expected = mean_interval([0.1, -0.3])
    np.testing.assert_allclose(found.overall[["difference", "difference_low", "difference_high"]].iloc[0], expected)
    plain = results.carried_over(folder, arms=["torso", "base"], curves="evaluations").overall
    assert list(plain["arm"]) == ["base", "torso"]
    with pytest.raises(ValueError, match=r"arms: 'trso' is not an arm of .*; its arms: base, torso, fresh"):
        results.carried_over(folder, arms=["trso"])
    with pytest.raises(ValueError, match="arms: 'fresh' has no control in"):
        results.carried_over(folder, arms=["fresh"])


# ---------------------------------------------------------------------------------------------- the report


def test_the_section_of_the_report(run):
    data = report.collect([run])
    found = data["groups"][0]["runs"][0]["retention"]
    assert [matrix["label"] for matrix in found["matrices"]] == ["base", "fresh"]
    np.testing.assert_allclose(found["matrices"][0]["values"], [[0.5, 0.05], [0.05, 0.4]])
    np.testing.assert_allclose(found["matrices"][0]["shares"][0], [1.0, 0.0])  # 0.05 is the lowest, 0.5 the highest
    base = found["measures"][0]
    np.testing.assert_allclose(base["performance"][0], 0.225)
    assert base["performance"][1] == 0  # t knows of no bound: the interval is cut
    np.testing.assert_allclose(base["transfer"][0], -0.3125 / 2)
    np.testing.assert_allclose([row[name][0] for row in found["parts"] for name in ("shortfall", "forgotten")], [
        0.275, 0.225,
    ])  # fmt: skip
    text = report.page(data)
    assert "<h3>Retention and transfer</h3>" in text
    assert "Plasticity and stability apart" in text


def test_no_section_without_evaluations_of_other_tasks(tmp_path):
    plain = made.invented(tmp_path / "plain", made.plan(["base"], tasks=["a"], visits=[(0, 20)] * 2), [0, 1])
    one = write(tmp_path / "one", {"base": {0: [[0.1, 0.2, 0.3, 0.4]]}}, tasks=("a",))
    for folder in (plain, one):
        data = report.collect([folder])
        assert data["groups"][0]["runs"][0]["retention"] is None
        assert "Retention and transfer" not in report.page(data)


def test_the_summary_in_the_terminal(run):
    out = io.StringIO()
    results.print_summary(run, Console(file=out, width=100))
    rows = [line.split() for line in out.getvalue().splitlines()]
    last = [row for row in rows if row[:1] == ["base"]][-1]
    assert last[1] == "0.225"
    assert "-0.156" in last
    assert "retention and transfer: accuracy" in out.getvalue()


# ---------------------------------------------------------------------------------------------- the reference


def test_the_reference_is_added():
    arms = {"baseline": {}, "layer_norm": {"interventions": ["layer_norm"]}}
    experiment = tiny.experiment(reference=True, arms=arms, interventions=["weight_decay"])
    fresh = experiment.arms["fresh"]
    assert list(experiment.arms) == ["baseline", "layer_norm", "fresh"]
    assert controls(experiment.arms) == {"baseline": "fresh", "layer_norm": "fresh", "fresh": None}
    assert fresh.task_aware
    assert fresh.agent == experiment.agent
    assert [each.kind for each in fresh.interventions] == ["weight_decay", "reset"]
    assert fresh.interventions[1].dump()["when"] == "switch"
    assert read_experiment(experiment.resolve(), launch.registry()) == experiment
    written = {"baseline": {}, "fresh": {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]}}
    assert tiny.experiment(reference=True).arms == tiny.experiment(arms=written).arms
    assert list(tiny.experiment().arms) == ["baseline"]


@pytest.mark.parametrize(
    "arms",
    [
        {"baseline": {}, "fresh": {"interventions": ["layer_norm"]}},
        {"a": {"control": "b"}, "b": {"interventions": [{"kind": "reset", "when": "switch"}], "task_aware": True}},
    ],
)
def test_a_reference_that_exists_is_kept(arms):
    experiment = tiny.experiment(reference=True, arms=arms)
    assert experiment.arms == tiny.experiment(arms=arms).arms


def test_the_plan_shows_the_reference():
    planned = launch.plan(tiny.experiment(reference=True, arms={"x": {}, "y": {"interventions": ["layer_norm"]}}))
    assert "reference: arm fresh, trained once from scratch in every visit, for x, y" in plan_lines(planned)
    assert planned.describe()["arms"][0]["control"] == "fresh"
    stream = {**tiny.document()["stream"], "tasks": 1}
    with pytest.raises(UserError, match="reference: true is not allowed with one visit"):
        launch.plan(tiny.experiment(reference=True, stream=stream))
