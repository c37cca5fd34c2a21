"""Changes of performance: comparisons, scales, pairing and verdicts."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import synthetic_run as made
from rich.console import Console
from scipy import stats

from plasticity import report, results
from plasticity.results.intervals import seeds_to_tell
from plasticity.results.verdict import HOLDS, verdict

GAMES = ["pluck", "sling", "tower"]  # no game of the Atari table
CYCLES = [(0, 20), (1, 20), (2, 20)] * 2
SCALES = {"pluck": 2.0, "sling": 100.0, "tower": 5000.0}


def printed(folder, **options):
    text = io.StringIO()
    results.print_summary(folder, Console(width=80, file=text), **options)
    return text.getvalue()


def games(folder, levels, *, tasks=GAMES, visits=CYCLES, seeds=(0, 1, 2), order=None, controls=None, start=0.0):
    """A run in which a lane is at ``start`` over the first half of a visit and at ``levels`` over the rest.

    ``levels``: arm -> [lanes, visits], in units of :data:`SCALES` of the task (1 where it has none); two records a
    visit, so that the performance of a visit is the mean of both, its start and end are their own. ``order``:
    int[lanes, visits], each lane's own tasks.
    """
    plan = made.plan(list(levels), tasks=tasks, visits=visits, episodic=True, lanes=len(seeds))
    for entry in plan["arms"]:
        if controls is not None:
            entry["control"] = controls.get(entry["name"])
    metrics = {}
    for arm, values in levels.items():
        table = made.records(arm, plan, list(seeds), every=10, rewards=np.zeros((len(seeds), 2 * len(visits))))
        if order is not None:
            table["task"] = [
                tasks[order[lane][visit]] for lane, visit in zip(table["lane"], table["visit"], strict=True)
            ]
        unit = table["task"].map(lambda task: SCALES.get(task, 1.0))
        value = np.asarray(values)[table["lane"], table["visit"]]
        table["episodic_return"] = unit * np.where(table["step_in_visit"] == 20, value, start)
        table["episodes"] = 1.0
        metrics[arm] = table
    known = {arm: made.lane_table(list(seeds)) for arm in levels}
    return made.write(folder, plan, known, metrics)


BASE = np.array([[1.0, 0.8, 0.6, 0.5, 0.6, 0.2], [1.2, 0.7, 0.5, 0.6, 0.4, 0.1], [0.9, 0.9, 0.7, 0.4, 0.5, 0.3]])
FRESH = np.array([[1.0, 1.0, 1.0, 1.1, 0.9, 1.0], [1.1, 0.9, 1.0, 1.0, 1.0, 1.1], [0.9, 1.1, 1.0, 1.0, 1.0, 0.9]])


@pytest.fixture
def cycles(tmp_path):
    return games(tmp_path / "run", {"baseline": BASE, "fresh": FRESH})


# ------------------------------------------------------------------------------------------------ the rule


@pytest.mark.parametrize(
    ("order", "alike", "episodic", "kind", "scaled", "first", "last"),
    [
        ([0, 1, 2, 0, 1, 2], False, True, "revisits", True, [0, 1, 2], [3, 4, 5]),
        ([0, 1, 2, 0], False, True, "revisits", True, [0], [3]),  # tasks that do not come again count for nothing
        ([0, 1, 2, 0], True, True, "revisits", False, [0], [3]),
        ([0] * 20, False, True, "revisits", False, [0, 1], [18, 19]),  # one task: its visits' first and last tenth
        (list(range(20)), False, False, "sequence", False, [0, 1], [18, 19]),
        (list(range(20)), True, True, "sequence", False, [0, 1], [18, 19]),
        ([0], False, True, "single", False, [0], [0]),
        ([0, 1, 2], False, True, "none", True, [0, 1, 2], [0, 1, 2]),
    ],
)
def test_what_is_compared(order, alike, episodic, kind, scaled, first, last):
    visits = [{"task": task, "steps": 10} for task in order]
    found = results.rule({"episodic": episodic, "alike": alike, "visits": visits})
    assert (found.kind, found.scaled) == (kind, scaled)
    counted = found.stages[found.stages["group"] >= 0]
    assert list(counted.index[counted["first"]]) == first
    assert list(counted.index[counted["last"]]) == last


def test_games_that_come_again_by_hand(cycles):
    """A control that starts at 0: a task's scale is its end, 1 is the mean level, and what is halved by the start."""
    end = FRESH.reshape(3, 2, 3).mean(axis=(0, 1))  # the control's end of each task; its beginning is 0
    scores = BASE.reshape(3, 2, 3) / 2 / end, FRESH.reshape(3, 2, 3) / 2 / end  # lanes, stages, tasks
    base, fresh = (each.mean(-1) for each in scores)
    found = results.summary(cycles).set_index("arm").loc["baseline"]
    for name, values in (
        ("first", base[:, 0]),
        ("last", base[:, 1]),
        ("own", base[:, 1] - base[:, 0]),
        ("gap", base[:, 1] - fresh[:, 1]),
        ("change", (base[:, 1] - fresh[:, 1]) - (base[:, 0] - fresh[:, 0])),
    ):
        expected = list(results.mean_interval(values))
        assert found[[name, f"{name}_low", f"{name}_high"]].tolist() == pytest.approx(expected), name
    assert found["change_seeds"] == 3
    other = results.summary(cycles).set_index("arm").loc["fresh"]
    assert other[["gap", "change"]].isna().all()


def test_no_game_counts_more_than_another(tmp_path):
    """In units of its own, whatever the returns are; the mean of raw returns would be the last game's."""
    levels = {"baseline": BASE.copy(), "fresh": FRESH}
    one = results.summary(games(tmp_path / "one", levels)).set_index("arm")
    plan_tasks = ["a", "b", "c"]  # all of scale 1
    two = results.summary(games(tmp_path / "two", levels, tasks=plan_tasks)).set_index("arm")
    numbers = ["first", "last", "gap", "gap_low", "change", "change_high", "own", "closed"]
    np.testing.assert_allclose(one[numbers].astype(float), two[numbers].astype(float), rtol=1e-9)


def test_human_scores_where_they_are_known(tmp_path):
    """Pong from -20.7 (random) to 14.6 (human); the other game by its control."""
    tasks, visits = ["Pong", "other"], [(0, 20), (1, 20)] * 2
    arm = np.array([[0.0, 4.0, -5.0, 2.0], [1.0, 5.0, -3.0, 1.0]])
    control = np.array([[0.0, 4.0, 0.0, 4.0], [0.0, 4.0, 0.0, 4.0]])
    folder = games(tmp_path / "run", {"x": arm, "fresh": control}, tasks=tasks, visits=visits, seeds=(0, 1))
    found = results.summary(folder).set_index("arm").loc["x"]
    pong = (arm[:, 2] - arm[:, 0]) / 2 / (14.6 + 20.7)  # a visit's performance is half of its level
    other = (arm[:, 3] - arm[:, 1]) / 2 / 4.0
    assert found["own"] == pytest.approx(float((pong + other).mean() / 2))
    first = ((arm[:, 0] / 2 + 20.7) / 35.3 + arm[:, 1] / 2 / 4.0).mean() / 2
    assert found["first"] == pytest.approx(float(first))
    assert results.human_normalised_score("Pong", 14.6) == pytest.approx(1.0)
    assert results.compare_lanes(folder).scales.kinds == ("human", "control")


@pytest.mark.parametrize(
    ("start", "end", "whole", "offset", "size"),
    [
        ([1.0, 3.0], [11.0, 13.0], [6.0, 8.0], 2.0, 10.0),  # what is learned in a visit
        ([2.0, 2.0], [2.5, 2.5], [1.0, 5.0], 2.5 - np.sqrt(8), np.sqrt(8)),  # seeds differ by more
        ([np.nan, np.nan], [4.0, 6.0], [3.0, 5.0], 5.0 - np.sqrt(2), np.sqrt(2)),  # no episode ended at first
    ],
)
def test_a_scale_by_hand(start, end, whole, offset, size):
    from plasticity.results.scales import scale_of

    columns = {"performance": whole, "performance_start": start, "performance_end": end}
    found = scale_of("a game", pd.DataFrame({"lane": [0, 1], **columns}), "control")
    assert found[:2] == pytest.approx((offset, size))
    assert found.known


def test_a_task_without_a_scale_is_left_out_and_named(tmp_path):
    """The control does nothing on `sling`, with any seed."""
    control = FRESH.copy()
    control[:, [1, 4]] = 0.0
    folder = games(tmp_path / "run", {"baseline": BASE, "fresh": control})
    found = results.compare_lanes(folder)
    assert found.left_out == ("sling",)
    assert "left out: sling" in " ".join(printed(folder).split())
    assert np.isfinite(results.summary(folder)["change"][0])


def test_without_a_control_the_scale_is_the_arms_own_first_visits(tmp_path):
    folder = games(tmp_path / "run", {"x": BASE})
    end = BASE.reshape(3, 2, 3)[:, 0].mean(0)
    scores = (BASE.reshape(3, 2, 3) / 2 / end).mean(-1)
    found = results.summary(folder).iloc[0]
    assert found["own"] == pytest.approx(float((scores[:, 1] - scores[:, 0]).mean()))
    assert "gap" not in found
    assert results.compare_lanes(folder).scales.kinds == ("own",)


def test_a_seed_with_an_order_of_its_own_is_paired_with_itself_task_by_task(tmp_path):
    """The same levels by task, met in other orders: the same numbers."""
    orders = np.array([[0, 1, 2, 0, 1, 2], [2, 0, 1, 2, 0, 1], [1, 0, 2, 1, 0, 2]])
    place = np.array([[np.flatnonzero(row[:3] == task)[0] for task in range(3)] for row in orders])
    levels = {}
    for arm, values in (("baseline", BASE), ("fresh", FRESH)):
        mine = values.copy()
        for lane in range(3):
            for task in range(3):
                for cycle in range(2):
                    mine[lane, 3 * cycle + place[lane, task]] = values[lane, 3 * cycle + task]
        levels[arm] = mine
    own = games(tmp_path / "own", levels, order=orders)
    same = games(tmp_path / "same", {"baseline": BASE, "fresh": FRESH})
    numbers = ["first", "last", "gap", "gap_low", "change", "change_high", "own"]
    expected = results.summary(same)[numbers].astype(float)
    np.testing.assert_allclose(results.summary(own)[numbers].astype(float), expected, rtol=1e-9)
    columns = ["task", "first", "last", "gap", "change", "change_low"]
    one, two = (results.task_changes(folder)[columns] for folder in (own, same))
    pd.testing.assert_frame_equal(one, two, rtol=1e-9)


def test_tasks_one_by_one_by_hand(cycles):
    found = results.task_changes(cycles).set_index(["arm", "task"])
    for task, name in enumerate(GAMES):
        mine, control = (values.reshape(3, 2, 3)[:, :, task] / 2 * SCALES[name] for values in (BASE, FRESH))
        row = found.loc[("baseline", name)]
        assert row["own"] == pytest.approx((mine[:, 1] - mine[:, 0]).mean())
        expected = results.mean_interval((mine[:, 1] - control[:, 1]) - (mine[:, 0] - control[:, 0]))
        assert row[["change", "change_low", "change_high"]].tolist() == pytest.approx(list(expected))
        assert row["visits"] == 2


def test_the_printed_table_of_games_that_come_again(cycles):
    text = printed(cycles)
    assert max(map(len, text.splitlines())) <= 80
    found = results.summary(cycles).iloc[0]
    line = next(line for line in text.splitlines() if line.startswith("baseline"))
    assert f"{found['change']:+.3f} ± {(found['change_high'] - found['change_low']) / 2:.3f}" in line
    assert "same task" in " ".join(words for _, words in report.collect([cycles])["groups"][0]["runs"][0]["rule"])


@pytest.fixture
def once(tmp_path):
    return games(tmp_path / "run", {"baseline": BASE[:, :3], "fresh": FRESH[:, :3]}, visits=CYCLES[:3])


def test_games_played_once_have_no_number_that_stands_for_all(once):
    found = results.summary(once)
    assert found[["first", "last", "gap", "closed"]].isna().all(axis=None)
    assert not {"change", "own"} & set(found)
    assert (found["seeds"] == 3).all()
    text = printed(once)
    assert max(map(len, text.splitlines())) <= 80
    assert "there is no verdict" in " ".join(text.split())
    gaps = results.mean_interval((BASE[:, 2] - FRESH[:, 2]) / 2 * 5000.0)
    line = next(line for line in text.splitlines() if line.startswith("tower"))
    assert f"{gaps.mean:+,.0f} ± {gaps.high - gaps.mean:,.0f}" in line
    page = report.page(report.collect([once]))
    (run,) = report.collect([once])["groups"][0]["runs"]
    assert [row["verdict"] for row in run["summary"]] == ["", "control"]
    assert "Task by task" in page
    assert "no task recurs" in page


# ------------------------------------------------------------------------------------------------ controls


def test_each_arm_may_have_a_control_of_its_own(tmp_path):
    levels = {"dqn": BASE, "fresh": FRESH, "ppo": BASE + 1.0, "fresh_ppo": FRESH + 2.0}
    controls = {"dqn": "fresh", "ppo": "fresh_ppo"}
    folder = games(tmp_path / "run", levels, controls=controls)
    found = results.summary(folder, baseline="dqn").set_index("arm")
    alone = {
        name: results.summary(games(tmp_path / name, {name: levels[name], "fresh": levels[control]})).set_index("arm")
        for name, control in controls.items()
    }
    for name, table in alone.items():
        assert found.loc[name, ["gap", "change", "change_low"]].tolist() == pytest.approx(
            table.loc[name, ["gap", "change", "change_low"]].tolist()
        )
    assert found.loc[["fresh", "fresh_ppo"], ["gap", "change"]].isna().all(axis=None)
    assert found.loc["dqn", "closed"] == 0.0
    assert found.loc[["ppo", "fresh_ppo"], "closed"].isna().all()  # theirs is another gap
    data = report.collect([folder])["groups"][0]["runs"][0]
    assert [row["control"] for row in data["summary"]] == ["fresh", None, "fresh_ppo", None]
    assert [row["verdict"] for row in data["summary"]][1::2] == ["control", "control"]
    assert "gap to control" in printed(folder)
    speeds = results.relative_learning_speed(folder).lanes
    assert list(dict.fromkeys(speeds["arm"].astype(str))) == ["dqn", "ppo"]
    from plasticity.plots import style

    lines = style.series(results.visits(folder), [], style.controls_of([folder]))
    looks = {line.label: (line.look["color"], str(line.look["linestyle"])) for line in lines}
    assert looks["fresh"] != looks["fresh_ppo"]
    assert len(set(looks.values())) == 4


def test_a_plan_that_does_not_say_has_the_arm_fresh(cycles):
    assert results.controls(cycles) == {"baseline": "fresh", "fresh": None}
    assert results.controls(cycles, "baseline") == {"baseline": None, "fresh": "baseline"}
    assert results.controls(cycles, "absent") == {"baseline": None, "fresh": None}


# ------------------------------------------------------------------------------------------------ what may be said


def alone(tmp_path, first, last):
    """One arm without a control; ``first`` and ``last``: of each seed, over the first and last tenth of 10 visits."""
    count = len(first)
    rewards = np.full((count, 10), 0.68)
    rewards[:, 0], rewards[:, 9] = first, last
    plan = made.plan(["only"], tasks=[f"t{k}" for k in range(10)], visits=[(k, 10) for k in range(10)])
    seeds = list(range(count))
    table = made.records("only", plan, seeds, every=10, rewards=rewards)
    return made.write(tmp_path / "run", plan, {"only": made.lane_table(seeds)}, {"only": table})


def said(folder):
    (row,) = report.collect([folder])["groups"][0]["runs"][0]["summary"]
    return row["verdict"], row["why"]


def test_a_fall_that_four_seeds_do_not_tell_is_open_and_not_held(tmp_path):
    """0.704 -> 0.650: unpaired intervals meet, which shows nothing."""
    first, last = np.array([0.60, 0.67, 0.74, 0.806]), np.array([0.62, 0.58, 0.70, 0.70])
    assert (first.mean(), last.mean()) == pytest.approx((0.704, 0.650))
    folder, changes = alone(tmp_path, first, last), last - first
    spread = changes.std(ddof=1)
    needed = next(n for n in range(2, 100) if stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) <= 0.054)
    assert said(folder) == ("open", f"about {needed} seeds would decide")
    assert needed > 4
    assert "open" in report.page(report.collect([folder]))


def test_a_fall_that_pairing_tells(tmp_path):
    """Seeds differ by much more than what each loses: the intervals of both means meet, those of the change do not."""
    first = np.array([0.60, 0.67, 0.74, 0.806])
    assert said(alone(tmp_path, first, first - [0.05, 0.06, 0.05, 0.056])) == ("falls", "below its own start")


def test_holds_only_inside_the_margin(tmp_path):
    first = np.array([0.60, 0.67, 0.74, 0.806])
    inside = first + np.array([0.004, -0.004, 0.003, -0.003])
    assert said(alone(tmp_path, first, inside))[0] == "holds"
    assert results.summary(alone(tmp_path / "x", first, inside))["own_high"][0] < HOLDS * 0.704


def test_how_many_seeds_would_tell_by_hand():
    """s = 1 of 4 seeds has a half width of 3.182 / 2; 2.228 / sqrt 11 = 0.672, 2.201 / sqrt 12 = 0.635."""
    half = stats.t.ppf(0.975, 3) / 2
    assert seeds_to_tell(half, 4, 0.65) == 12
    assert seeds_to_tell(half, 4, 0.68) == 11
    assert seeds_to_tell(half, 4, half) == 4
    assert seeds_to_tell(half, 4, 0.65, confidence=0.9) < 12 * 10
    assert seeds_to_tell(half, 4, 0.0) is None
    assert seeds_to_tell(half, 4, 1e-6) is None  # more than anybody runs
    assert seeds_to_tell(np.nan, 1, 0.5) is None


def test_the_control_has_no_verdict_but_its_name(cycles):
    row = results.summary(cycles).iloc[1].to_dict()
    found = results.compare_lanes(cycles)
    assert verdict(row, found.rule, found.controls).word == "control"


# ------------------------------------------------------------------------------------------------ the rest of its kind


def test_two_runs_of_games_are_compared_task_by_task(tmp_path, cycles):
    other = games(tmp_path / "other", {"baseline": BASE - 0.1, "fresh": FRESH})
    found = results.compare_runs(cycles, other).results
    rows = {(each.label, each.task): each for each in found}
    assert set(rows) == {(arm, task) for arm in ("baseline", "fresh") for task in ("", *GAMES)}
    assert rows[("baseline", "sling")].difference.mean == pytest.approx(-0.1 / 2 * 100.0)
    end = FRESH.reshape(3, 2, 3).mean(axis=(0, 1))
    assert rows[("baseline", "")].difference.mean == pytest.approx(float((-0.05 / end).mean()))
    assert rows[("baseline", "")].paired


def test_two_runs_of_games_played_once_have_no_mean_over_tasks(tmp_path, once):
    other = games(tmp_path / "other", {"baseline": BASE[:, :3]}, visits=CYCLES[:3])
    assert {each.task for each in results.compare_runs(once, other).results} == set(GAMES)
    text = io.StringIO()
    results.print_comparison(once, other, Console(width=100, file=text))
    assert "no mean over tasks" in text.getvalue()


def test_means_over_games_are_missing_where_they_would_be_of_raw_returns(cycles):
    again = results.revisits(cycles)
    assert again.overall["difference"].isna().all()
    assert again.means["difference"].notna().all()
    speeds = results.relative_learning_speed(cycles)
    assert speeds.overall["difference"].isna().all()
    assert speeds.overall["relative_speed"].notna().all()
    # The bound is the largest area of the same game, so that no game's room is another's.
    rows = speeds.lanes[speeds.lanes["task"] == "pluck"].iloc[0]
    best = max(BASE[:, [0, 3]].max(), FRESH[:, [0, 3]].max()) / 2 * SCALES["pluck"]
    assert rows["relative_speed"] == pytest.approx(rows["difference"] / (best - rows["control_area"]))


@pytest.fixture
def shuffled(tmp_path):
    """Two seeds that meet three games in orders of their own, twice; with evaluations of all at the end of visits."""
    orders = np.array([[0, 1, 2, 0, 1, 2], [2, 0, 1, 2, 0, 1]])
    folder = games(tmp_path / "run", {"x": BASE[:2], "fresh": FRESH[:2]}, seeds=(0, 1), order=orders)
    plan = results.plan(folder)
    (folder / "plan.json").write_text(json.dumps({**plan, "stream": {**plan["stream"], "shuffled": True}}))
    for arm in ("x", "fresh"):
        rows = results.load(folder)
        rows = rows[(rows["arm"] == arm) & (rows["step_in_visit"] == 20)].drop(columns=["episodic_return", "reward"])
        parts = []
        for place in range(3):  # of the sequence; a lane's own game there
            task = np.asarray(GAMES)[orders[rows["lane"].to_numpy(), place]]
            value = 100.0 * rows["lane"] + 10.0 * place + rows["visit"]
            parts.append(rows.assign(evaluated_visit=place, evaluated_task=task, episodic_return=value, arm=arm))
        (folder / arm / "evaluations").mkdir()
        pd.concat(parts).to_parquet(folder / arm / "evaluations" / "part-00000.parquet", index=False)
    return folder


def test_the_matrix_goes_by_each_seeds_own_order(shuffled):
    """A column is a place in the sequence, which is one game for each seed."""
    found = results.performance_matrix(shuffled, arm="x")
    i, j = np.indices((6, 6))
    np.testing.assert_array_equal(found.values, [10.0 * (j % 3) + i, 100 + 10.0 * (j % 3) + i])
    assert found.tasks[:2] == ("task 1 of each seed", "task 2 of each seed")
    assert results.forgetting(found).overall["forgetting"].isna().all()  # games of several kinds
    with pytest.raises(ValueError, match="make the matrix with scaled=True"):
        results.average_performance(found)
    scaled = results.performance_matrix(shuffled, arm="x", scaled=True)
    ends = results.load(shuffled).query("arm == 'fresh' and task == 'tower' and step_in_visit == 20")
    mean = ends.groupby("lane")["episodic_return"].mean().mean()  # it begins at 0
    assert scaled.values[1, 0, 0] == pytest.approx(100.0 / mean)  # seed 1 meets the tower first
    assert results.average_performance(scaled).overall["average_performance"].notna().all()


def test_figures_keep_the_games_of_each_seeds_own_order_apart(shuffled):
    from plasticity import plots

    found = plots.figures(shuffled)
    panels = found["performance"].axes
    assert [panel.get_title() for panel in panels] == GAMES
    (line,) = [each for each in panels[2].get_lines() if each.get_label() == "fresh"]
    first = results.visits(shuffled).query("arm == 'fresh' and task == 'tower'").groupby("lane")["performance"].first()
    assert line.get_ydata()[0] == pytest.approx(first.mean())
    labels = [each["label"] for each in report.collect([shuffled])["groups"][0]["charts"]["visits"]]
    assert labels[0] == "episodic return on pluck, whole visit"
    assert len(labels) == 6
