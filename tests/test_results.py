import io

import numpy as np
import pandas as pd
import pytest
import synthetic_run as made
from rich.console import Console
from scipy import stats

from plasticity import results
from plasticity.results.intervals import seeds_to_tell

RATE = "agent.optimizer.learning_rate"


def two_visits(arms, **options):
    """Two visits of 20 env steps in records of 10."""
    return made.plan(arms, tasks=["a", "b"], visits=[(0, 20), (1, 20)], **options)


def write_arms(folder, plan, rewards, *, seeds=(0, 1), every=10, hyper=None, diverged=None, parts=1, **others):
    """``rewards``: arm -> [lanes, records]; ``others``: metric -> arm -> [lanes, records]."""
    metrics = {
        arm: made.records(
            arm, plan, seeds, every=every, rewards=values, **{name: each[arm] for name, each in others.items()}
        )
        for arm, values in rewards.items()
    }
    known = {arm: made.lane_table(seeds, hyper=hyper, diverged=(diverged or {}).get(arm)) for arm in rewards}
    return made.write(folder, plan, known, metrics, parts)


# ---------------------------------------------------------------------------------------------- loading


def test_load_keeps_the_order_of_the_config_and_joins_the_sweep(tmp_path):
    plan = two_visits(["zeta", "alpha"])
    rewards = {arm: np.arange(8).reshape(2, 4) for arm in ("alpha", "zeta")}
    table = results.load(write_arms(tmp_path / "run", plan, rewards, seeds=(5, 5), hyper={RATE: [1e-3, 1e-2]}))
    assert list(table["arm"].unique()) == ["zeta", "alpha"]
    assert list(table.columns[:9]) == made.IDENTITY
    zeta = table[table["arm"] == "zeta"]
    assert list(zeta["step"]) == [10, 20, 30, 40] * 2
    assert list(zeta["reward"]) == list(range(8))
    assert list(zeta[RATE]) == [1e-3] * 4 + [1e-2] * 4
    assert results.hyper_parameters(tmp_path / "run") == [RATE]


def test_runs_are_grouped_by_their_stream(tmp_path):
    longer = made.plan(["a"], tasks=["a", "b"], visits=[(0, 20), (1, 40)])
    one, other, third = (
        write_arms(tmp_path / name, plan, {"a": np.zeros((2, rows))})
        for name, plan, rows in (("one", two_visits(["a"]), 4), ("other", longer, 6), ("third", two_visits(["a"]), 4))
    )
    assert results.by_stream([one, other, third]) == [[one, third], [other]]
    with pytest.raises(ValueError, match="is not a run"):
        results.by_stream([tmp_path / "none"])


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_parts_are_joined_without_loss(tmp_path, parts):
    plan = two_visits(["one"])
    folder = write_arms(tmp_path / "run", plan, {"one": np.arange(8).reshape(2, 4)}, parts=parts)
    assert len(list((folder / "one" / "metrics").iterdir())) == parts
    assert list(results.load(folder)["reward"]) == list(range(8))


def test_a_monitor_may_be_null_throughout_a_part(tmp_path):
    plan = two_visits(["one"])
    folder = write_arms(
        tmp_path / "run", plan, {"one": np.ones((1, 4))}, seeds=[0], parts=2, rank={"one": [[np.nan, np.nan, 3, 4]]}
    )
    first = folder / "one" / "metrics" / "part-00000.parquet"
    pd.read_parquet(first).assign(rank=None).to_parquet(first, index=False)  # a column without a type
    np.testing.assert_array_equal(results.load(folder)["rank"], [np.nan, np.nan, 3, 4])


def test_several_runs_are_distinguished(tmp_path):
    plan, other = two_visits(["a", "b"]), two_visits(["c", "a"])
    write_arms(tmp_path / "one", plan, {"a": np.ones((2, 4)), "b": np.ones((2, 4))})
    write_arms(tmp_path / "two", other, {"a": np.zeros((2, 4))})
    table = results.visits(tmp_path / "one", tmp_path / "two")
    assert table.columns[0] == "run"
    means = table.groupby(["run", "arm"], observed=True)["performance"].mean()
    assert means.to_dict() == {("one", "a"): 1.0, ("one", "b"): 1.0, ("two", "a"): 0.0}
    assert "run" not in results.visits(tmp_path / "one")
    assert len(results.load(tmp_path / "one", tmp_path / "two")) == 24
    assert len(results.lanes(tmp_path / "one", tmp_path / "two")) == 6


def test_lanes_say_when_they_diverged(tmp_path):
    plan = two_visits(["a"])
    table = results.lanes(write_arms(tmp_path / "run", plan, {"a": np.ones((2, 4))}, diverged={"a": {1: 25}}))
    assert list(table["seed"]) == [0, 1]
    assert pd.isna(table["diverged_at"][0])
    assert table["diverged_at"][1] == 25


def test_a_run_under_way_is_read_as_far_as_it_goes(tmp_path):
    plan = two_visits(["done", "begun", "waiting"])
    folder = write_arms(tmp_path / "run", plan, {"done": np.ones((2, 4)), "begun": np.ones((2, 4))})
    part = folder / "begun" / "metrics" / "part-00000.parquet"
    pd.read_parquet(part).query("step <= 30").to_parquet(part, index=False)
    table = results.visits(folder)
    assert list(table["arm"]) == ["done"] * 4 + ["begun"] * 2  # the visit under way has no row
    found = results.summary(folder).set_index("arm")
    assert list(found.index) == ["done", "begun", "waiting"]
    assert found.loc["begun", "first"] == 1.0
    assert np.isnan(found.loc["begun", "last"])
    assert found.loc["waiting", "lanes"] == 0


def test_a_run_without_records_gives_empty_tables(tmp_path):
    folder = made.write(tmp_path / "run", two_visits(["a", "fresh"]))
    assert results.load(folder).empty
    assert results.visits(folder).empty
    assert list(results.visits(folder).columns)[:7] == [
        "arm", "lane", "seed", "visit", "task", "performance", "performance_end",
    ]  # fmt: skip
    assert results.lanes(folder).empty
    assert results.summary(folder)["last"].isna().all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("relabe", r"relabe is not a run: there is no such folder; did you mean `.*relabel`\?$"),
        ("empty", r"empty is not a run: plan.json is missing; there .*$"),
        ("broken", r"broken/plan.json is damaged \(JSONDecodeError: .*\); .* --resume` rewrites it$"),
        ("partial", r"partial/plan.json is damaged \(it does not contain the arms .*\); .*$"),
    ],
)
def test_no_run_is_refused_in_one_line(tmp_path, name, message):
    made.write(tmp_path / "relabel", two_visits(["a"]))
    made.write(tmp_path / "pixels", two_visits(["a"]))
    for folder, text in {"empty": None, "broken": "{", "partial": "{}"}.items():
        (tmp_path / folder).mkdir()
        if text:
            (tmp_path / folder / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        results.load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_folder_of_the_runs_names_one_of_them(tmp_path):
    made.write(tmp_path / "runs" / "relabel", two_visits(["a"]))
    with pytest.raises(ValueError, match=r"plan.json is missing; there is one run: .*runs/relabel$"):
        results.load(tmp_path / "runs")


# ---------------------------------------------------------------------------------------------- visits


def test_performance_is_the_mean_over_steps_and_its_end_over_the_last_tenth(tmp_path):
    # One visit of 30 steps in records of 12, 12 and 6 steps: the last tenth, 3 steps, is in the third.
    plan = made.plan(["a"], tasks=["t"], visits=[(0, 30)])
    table = results.visits(write_arms(tmp_path / "run", plan, {"a": [[1.0, 2.0, 4.0]]}, seeds=[7], every=12))
    assert table.iloc[0][["lane", "seed", "visit", "task"]].tolist() == [0, 7, 0, "t"]
    assert table["performance"].tolist() == pytest.approx([(12 * 1 + 12 * 2 + 6 * 4) / 30])
    assert table["performance_end"].tolist() == [4.0]


def test_the_end_weighs_records_by_their_part_in_the_last_tenth(tmp_path):
    # 100 steps in records of 96 and 4: the last tenth holds 6 steps of the first and all 4 of the second.
    plan = made.plan(["a"], tasks=["t"], visits=[(0, 100)])
    table = results.visits(write_arms(tmp_path / "run", plan, {"a": [[1.0, 2.0]]}, seeds=[0], every=96))
    assert table["performance_end"].tolist() == pytest.approx([(6 * 1 + 4 * 2) / 10])


def test_records_of_one_visit_do_not_leak_into_the_next(tmp_path):
    plan = two_visits(["a"])
    table = results.visits(write_arms(tmp_path / "run", plan, {"a": [[1, 3, 5, 9], [2, 2, 4, 4]]}))
    assert table["visit"].tolist() == [0, 1, 0, 1]
    assert table["task"].tolist() == ["a", "b", "a", "b"]
    assert table["performance"].tolist() == [2, 7, 2, 4]
    assert table["performance_end"].tolist() == [3, 9, 2, 4]


def test_episodic_returns_are_weighted_by_episodes(tmp_path):
    plan = two_visits(["a"], episodic=True, reward_name="reward")
    nan = np.nan
    table = results.visits(
        write_arms(
            tmp_path / "run",
            plan,
            {"a": np.full((1, 4), 0.5)},
            seeds=[0],
            returns={"a": [[10.0, 40.0, nan, nan]]},
            episodes={"a": [[2, 1, 0, 0]]},
        )
    )
    assert table["performance"].tolist()[0] == pytest.approx((2 * 10 + 40) / 3)
    assert table["performance_end"].tolist()[0] == 40.0
    assert table[["performance", "performance_end"]].iloc[1].isna().all()  # no episode ended in the second visit


def test_a_diverged_lane_has_no_performance_from_that_visit_on(tmp_path):
    plan = two_visits(["a"])
    folder = write_arms(tmp_path / "run", plan, {"a": [[1, 1, 1, np.nan], [2, 2, 2, 2]]}, diverged={"a": {0: 35}})
    table = results.visits(folder)
    np.testing.assert_array_equal(table["performance"], [1, np.nan, 2, 2])
    np.testing.assert_array_equal(table["performance_end"], [1, np.nan, 2, 2])
    found = results.summary(folder).iloc[0]
    assert (found["lanes"], found["diverged"], found["seeds"]) == (2, 1, 1)
    assert found["first"] == 1.5
    assert found["last"] == 2.0


# ---------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_interval_is_students(count, confidence):
    values = np.random.default_rng(count).normal(3.0, 2.0, (4, count))
    found = results.mean_interval(values, confidence)
    low, high = stats.t.interval(confidence, count - 1, values.mean(1), stats.sem(values, axis=1))
    np.testing.assert_allclose(found.mean, values.mean(1))
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)
    across = results.mean_interval(values.T, confidence, axis=0)
    np.testing.assert_allclose(across.low, low)


def test_the_interval_of_three_values_by_hand():
    # s = 1, t(2, 0.975) = 4.302653
    mean, low, high = results.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)


@pytest.mark.filterwarnings("error")
def test_few_and_missing_values():
    nan = np.nan
    values = [[5.0, nan, nan], [nan, nan, nan], [1.0, nan, 3.0], [2.0, 2.0, 2.0], [1.0, np.inf, 3.0]]
    mean, low, high = results.mean_interval(values)
    np.testing.assert_array_equal(mean, [5, nan, 2, 2, 2])
    pair = results.mean_interval([1.0, 3.0])
    np.testing.assert_allclose(low, [nan, nan, pair.low, 2, pair.low])
    np.testing.assert_allclose(high, [nan, nan, pair.high, 2, pair.high])
    assert np.isnan(results.mean_interval([]).mean)


def test_a_confidence_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"confidence: 95 is not allowed; must be in \(0, 1\)"):
        results.mean_interval([1.0, 2.0], confidence=95)


def test_a_curve_is_the_interval_at_every_step():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"step": np.tile([10, 20, 30], 4), "value": rng.normal(size=12)})
    table.loc[[0, 2, 5, 8, 11], "value"] = np.nan
    found = results.curve(table, "value", "step")
    assert found.index.tolist() == [10, 20, 30]
    expected = results.mean_interval(table["value"].to_numpy().reshape(4, 3), axis=0)
    np.testing.assert_allclose(found[["mean", "low", "high"]].to_numpy().T, expected)
    assert found["n"].tolist() == [3, 4, 0]


# ---------------------------------------------------------------------------------------------- summary


def flat(value_by_lane, records):
    return np.repeat(np.asarray(value_by_lane, float)[:, None], records, axis=1)


def test_the_gap_is_paired_by_seed_whatever_the_order_of_arms_and_lanes(tmp_path):
    plan = two_visits(["nap", "fresh", "baseline"])
    seeds, other = [3, 1, 2], [1, 2, 3]
    rewards = {"nap": [0.60, 0.40, 0.53], "baseline": [0.40, 0.20, 0.30], "fresh": [0.50, 0.60, 0.80]}
    metrics = {
        arm: made.records(arm, plan, order, every=10, rewards=flat(rewards[arm], 4))
        for arm, order in (("nap", seeds), ("baseline", seeds), ("fresh", other))
    }
    known = {arm: made.lane_table(seeds if arm != "fresh" else other) for arm in metrics}
    found = results.summary(made.write(tmp_path / "run", plan, known, metrics)).set_index("arm")
    assert list(found.index) == ["nap", "fresh", "baseline"]
    paired = results.mean_interval([0.60 - 0.80, 0.40 - 0.50, 0.53 - 0.60])
    assert found.loc["nap", ["gap", "gap_low", "gap_high"]].tolist() == pytest.approx(list(paired))
    assert found.loc["nap", "last"] == pytest.approx(0.51)
    assert found.loc["baseline", "gap"] == pytest.approx(0.3 - 1.9 / 3)
    assert found.loc["nap", "closed"] == pytest.approx((0.51 - 0.30) / (1.9 / 3 - 0.30))
    assert found.loc["baseline", "closed"] == 0.0
    assert found.loc["fresh", "closed"] == pytest.approx(1.0)
    assert found.loc["fresh", ["gap", "change"]].isna().all()
    assert found.loc["nap", "change"] == pytest.approx(0.0)  # every visit of a lane has the same reward


def test_the_change_is_that_of_the_difference_to_the_control(tmp_path):
    # 20 visits: the tenths are 0, 1 and 18, 19; behind by 1 at first and by 3 or 6 at last.
    rewards = {"a": np.full((2, 20), 4.0), "fresh": np.full((2, 20), 5.0)}
    rewards["a"][0, 18:], rewards["a"][1, 18:] = 2.0, -1.0
    plan = made.plan(list(rewards), tasks=["t"], visits=[(0, 10)] * 20)
    found = results.summary(write_arms(tmp_path / "run", plan, rewards)).set_index("arm")
    expected = results.mean_interval([-2.0, -5.0])
    assert found.loc["a", ["change", "change_low", "change_high"]].tolist() == pytest.approx(list(expected))


def test_only_seeds_that_both_arms_have_are_paired(tmp_path):
    plan = two_visits(["a", "fresh"])
    metrics = {
        "a": made.records("a", plan, [0, 1, 2], every=10, rewards=flat([1.0, 2.0, 9.0], 4)),
        "fresh": made.records("fresh", plan, [1, 0, 5], every=10, rewards=flat([5.0, 3.0, 100.0], 4)),
    }
    known = {"a": made.lane_table([0, 1, 2]), "fresh": made.lane_table([1, 0, 5])}
    found = results.summary(made.write(tmp_path / "run", plan, known, metrics)).set_index("arm")
    assert found.loc["a", "gap"] == pytest.approx(((1 - 3) + (2 - 5)) / 2)
    assert found.loc["a", "last"] == pytest.approx(4.0)
    assert "closed" not in found


def test_first_and_last_tenth_average_each_seed_first(tmp_path):
    # 20 visits of one record: the tenths are visits 0, 1 and 18, 19.
    plan = made.plan(["a"], tasks=["t"], visits=[(0, 10)] * 20)
    rewards = np.zeros((2, 20))
    rewards[:, [0, 1]], rewards[:, [18, 19]] = [[1, 3], [5, 7]], [[10, 30], [50, 70]]
    found = results.summary(write_arms(tmp_path / "run", plan, {"a": rewards}))
    assert found.loc[0, "first"] == 4.0
    first, last = results.mean_interval([2.0, 6.0]), results.mean_interval([20.0, 60.0])
    assert found.loc[0, ["first", "first_low", "first_high"]].tolist() == pytest.approx(list(first))
    assert found.loc[0, ["last", "last_low", "last_high"]].tolist() == pytest.approx(list(last))


def test_without_the_control_there_is_no_gap(tmp_path):
    plan = two_visits(["baseline", "other"])
    folder = write_arms(tmp_path / "run", plan, {"baseline": np.ones((2, 4)), "other": np.zeros((2, 4))})
    assert not {"gap", "gap_low", "closed"} & set(results.summary(folder))
    renamed = results.summary(folder, control="other").set_index("arm")
    assert renamed.loc["baseline", "gap"] == 1.0
    assert np.isnan(renamed.loc["baseline", "closed"])  # it is above its control


def test_a_stream_of_one_visit_is_summarised_as_a_whole_and_at_its_end(tmp_path):
    plan = made.plan(["a"], tasks=["t"], visits=[(0, 20)])
    rewards = {"a": np.stack([np.arange(10.0), np.arange(10.0) + 2])}  # ten records of two steps
    folder = write_arms(tmp_path / "run", plan, rewards, every=2)
    found = results.summary(folder).iloc[0]
    assert found[["first", "last"]].tolist() == [5.5, 10.0]
    console = Console(record=True, width=80)
    results.print_summary(folder, console)
    text = console.export_text()
    assert "whole" in text
    assert "10.0 [-2.71, 22.7]" in text  # mean 10, standard error 1, t = 12.706


def test_a_single_seed_has_means_but_no_bounds(tmp_path):
    plan = two_visits(["a", "fresh"])
    rewards = {"a": np.full((1, 4), 0.25), "fresh": np.full((1, 4), 0.75)}
    found = results.summary(write_arms(tmp_path / "run", plan, rewards, seeds=[0]))
    assert found.loc[0, ["last", "gap"]].tolist() == [0.25, -0.5]
    assert found[["last_low", "last_high", "gap_low", "gap_high"]].isna().all(axis=None)


def test_a_point_is_paired_with_the_controls_same_point(tmp_path):
    plan = two_visits(["a", "fresh"])
    seeds, hyper = [0, 1, 0, 1], {RATE: [0.1, 0.1, 0.2, 0.2]}
    rewards = {"a": flat([1, 2, 3, 4], 4), "fresh": flat([10, 20, 30, 40], 4)}
    found = results.summary(write_arms(tmp_path / "run", plan, rewards, seeds=seeds, hyper=hyper))
    assert found[RATE].tolist() == [0.1, 0.2, 0.1, 0.2]
    assert found["gap"].tolist()[:2] == [(1 - 10 + 2 - 20) / 2, (3 - 30 + 4 - 40) / 2]


def test_a_control_without_the_sweep_serves_every_point_and_an_ambiguous_one_none(tmp_path):
    plan = two_visits(["swept", "plain", "fresh"])
    swept = made.lane_table([0, 1, 0, 1], hyper={"arms.swept.rate": [0.1, 0.1, 0.2, 0.2]})
    metrics = {
        "swept": made.records("swept", plan, [0, 1, 0, 1], every=10, rewards=flat([1, 2, 3, 4], 4)),
        "fresh": made.records("fresh", plan, [0, 1], every=10, rewards=flat([10, 20], 4)),
    }
    folder = made.write(tmp_path / "run", plan, {"swept": swept, "fresh": made.lane_table([0, 1])}, metrics)
    assert results.summary(folder)["gap"].tolist()[:2] == [-13.5, -11.5]
    turned = results.summary(folder, control="swept").set_index("arm")
    assert np.isnan(turned.loc["fresh", "gap"])


def test_a_swept_list_names_its_points(tmp_path):
    plan = two_visits(["a"])
    folder = write_arms(
        tmp_path / "run", plan, {"a": flat([1, 2], 4)}, seeds=[0, 0], hyper={"agent.network.widths": [[8, 8], [16]]}
    )
    found = results.summary(folder)
    labels = [point.label for point in results.points(found, ["agent.network.widths"])]
    assert labels == ["a, widths=[8, 8]", "a, widths=[16]"]


def test_labels_use_the_shortest_ending_that_is_unique():
    table = pd.DataFrame({"arm": "a", "agent.rate": [1e-4, 1e-4, 2e-4], "agent.decay.rate": [0.5, 1.0, 1.0], "x.y": 3})
    labels = [point.label for point in results.points(table, ["agent.rate", "agent.decay.rate", "x.y"])]
    assert labels == [
        "a, agent.rate=0.0001, decay.rate=0.5",
        "a, agent.rate=0.0001, decay.rate=1",
        "a, agent.rate=0.0002, decay.rate=1",
    ]


def printed(folder, **options):
    console = Console(width=80, file=io.StringIO())
    results.print_summary(folder, console, **options)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_printed_table_fits_80_columns_and_shows_what_there_is(tmp_path):
    plan = two_visits(["baseline", "a_long_name_for_an_arm_of_a_run", "fresh"])
    rewards = {"baseline": flat([0.2, 0.3, 0.25], 4), "fresh": flat([0.9, 0.8, 0.85], 4)}
    rewards["a_long_name_for_an_arm_of_a_run"] = flat([0.5, 0.6, 0.5], 4)
    folder = write_arms(tmp_path / "run", plan, rewards, seeds=[0, 1, 2], diverged={"baseline": {1: 3}})
    text = printed(folder)
    assert max(map(len, text.splitlines())) <= 80
    line = next(line for line in text.splitlines() if line.startswith("baseline"))
    bounds = results.mean_interval([0.2 - 0.9, 0.3 - 0.8, 0.25 - 0.85])
    assert line.split() == ["baseline", "0.250", "0.250", "-0.600", f"[{bounds.low:.3f},", f"{bounds.high:.3f}]",
                            "0", "1/3"]  # fmt: skip
    assert "[interval]" in text
    assert "gap" not in printed(folder, control="absent")
    assert "closed" not in printed(folder, baseline="absent")


def test_the_printed_table_names_what_is_open(tmp_path):
    plan = two_visits(["baseline", "fresh"])
    late = np.array([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.6, 0.6], [0.5, 0.5, 0.45, 0.45]])
    folder = write_arms(tmp_path / "run", plan, {"baseline": late, "fresh": flat([0.5] * 3, 4)}, seeds=range(3))
    row = results.summary(folder).iloc[0]
    needed = seeds_to_tell((row["change_high"] - row["change_low"]) / 2, 3, 0.05 - 0.1 / 6)
    assert f"Open: baseline (about {needed:,} seeds would decide)." in " ".join(printed(folder).split())
    same = {arm: flat([0.5] * 3, 4) for arm in ("baseline", "fresh")}
    assert "Open" not in printed(write_arms(tmp_path / "told", plan, same, seeds=range(3)))


@pytest.mark.parametrize(
    ("baseline", "closed"),
    [
        ([0.2, 0.9], [np.nan] * 3),  # above the control with one seed, below with the other
        ([0.2], [np.nan] * 3),  # of one seed there is no interval
        ([0.25, 0.26], [0.0, (0.25 - 0.255) / (0.6 - 0.255), 1.0]),
    ],
)
def test_a_gap_that_may_be_zero_cannot_be_closed(tmp_path, baseline, closed):
    plan = two_visits(["baseline", "other", "fresh"])
    rewards = {"baseline": flat(baseline, 4), "other": flat([0.1, 0.4], 4), "fresh": flat([0.6, 0.6], 4)}
    seeds = range(len(baseline))
    rewards = {arm: values[: len(baseline)] for arm, values in rewards.items()}
    found = results.summary(write_arms(tmp_path / "run", plan, rewards, seeds=seeds))
    np.testing.assert_allclose(found["closed"], closed, atol=1e-6)


def test_nothing_is_closed_where_the_baseline_does_not_fall_short(tmp_path):
    plan = two_visits(["baseline", "nap", "fresh"])
    rewards = {arm: np.full((2, 4), value) for arm, value in (("baseline", 0.9), ("nap", 0.8), ("fresh", 0.5))}
    found = results.summary(write_arms(tmp_path / "run", plan, rewards))
    assert found["closed"].isna().all()
    assert found.set_index("arm").loc["nap", "gap"] == pytest.approx(0.3)
