import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
import synthetic_run as made
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from plasticity import plots, results
from plasticity.plots import style
from plasticity.plots.streams import ordinal, stays, visit_counts

ARMS = ["baseline", "layer_norm", "fresh"]
MONITORS = ("loss", "effective_rank", "dormant_units/hidden_0")
RATE = "agent.optimizer.learning_rate"


def labelled(axes):
    """The lines that represent arms, by label."""
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three arms on twenty visits of five tasks."""
    plan = made.plan(ARMS, tasks=list("abcde"), visits=[(k % 5, 50) for k in range(20)])
    return made.invented(tmp_path_factory.mktemp("plots") / "made", plan, [0, 1, 2], monitors=MONITORS)


def test_performance_draws_each_arms_mean(run):
    visits = results.visits(run)
    figure = plots.performance(visits, label="accuracy")
    (axes,) = figure.axes
    lines = labelled(axes)
    assert list(lines) == ARMS
    assert legend_texts(figure) == ARMS
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("visit", "accuracy")
    expected = visits[visits["arm"] == "layer_norm"].groupby("visit")["performance"].mean()
    np.testing.assert_allclose(lines["layer_norm"].get_ydata(), expected)
    np.testing.assert_array_equal(lines["layer_norm"].get_xdata(), np.arange(1, 21))
    assert len(axes.collections) == len(ARMS)  # the bands
    assert [text.get_text() for text in axes.texts] == ["task visited before"]


def test_the_band_is_the_t_interval(run):
    visits = results.visits(run)
    (axes,) = plots.performance(visits).axes
    band = axes.collections[0].get_paths()[0].vertices
    values = visits[visits["arm"] == "baseline"].pivot(index="visit", columns="lane", values="performance")
    _, low, high = results.mean_interval(values.to_numpy())
    at_third = band[np.isclose(band[:, 0], 3), 1]
    assert at_third.min() == pytest.approx(low[2])
    assert at_third.max() == pytest.approx(high[2])


def test_few_visits_are_named_and_their_returns_marked(tmp_path):
    plan = made.plan(["one", "two"], tasks=["pong", "boxing"], visits=[(0, 10), (1, 10), (0, 10)])
    visits = results.visits(made.invented(tmp_path / "run", plan, [0, 1]))
    (axes,) = plots.performance(visits).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1\npong", "2\nboxing", "3\npong\n(2nd visit)"]
    lines = labelled(axes)
    assert list(lines) == ["one", "two"]
    gaps = lines["two"].get_xdata() - lines["one"].get_xdata()
    assert (gaps > 0).all()  # side by side
    np.testing.assert_allclose((lines["one"].get_xdata() + lines["two"].get_xdata()) / 2, [0, 1, 2], atol=1e-12)


def test_learning_curve_marks_switches_and_names_tasks(tmp_path):
    plan = made.plan(["one"], tasks=["pong", "boxing"], visits=[(0, 30), (1, 20)], frames_per_step=4)
    metrics = results.load(made.invented(tmp_path / "run", plan, [0, 1]))
    figure = plots.learning_curve(metrics, label="accuracy", x="frames")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("frames", "accuracy")
    switches = [line for line in axes.get_lines() if line.get_label().startswith("_")]
    assert [line.get_xdata()[0] for line in switches] == [120]
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("pong", 60), ("boxing", 160)]  # type: ignore[attr-defined]
    x, y = labelled(axes)["one"].get_data()
    assert np.isnan(y[10])  # the line is interrupted at the switch
    np.testing.assert_array_equal(x[~np.isnan(y)], [*range(12, 121, 12), *range(128, 201, 8)])
    np.testing.assert_allclose(y[:10], metrics.groupby("step")["reward"].mean()[:10])


def test_many_visits_are_numbered_and_ticked_but_not_divided(tmp_path):
    plan = made.plan(["one"], tasks=[f"a_task_{k}" for k in range(40)], visits=[(k, 10) for k in range(40)])
    metrics = results.load(made.invented(tmp_path / "many", plan, [0]))
    (axes,) = plots.learning_curve(metrics).axes
    (top,) = axes.child_axes
    assert [text.get_text() for text in top.get_xticklabels()] == ["1", "5", "10", "15", "20", "25", "30", "35", "40"]
    assert list(top.get_xticks()[:2]) == [5, 45]
    np.testing.assert_array_equal(top.get_xticks(minor=True), np.arange(10, 400, 10))
    assert len(axes.get_lines()) == 1
    assert not axes.texts


def test_of_many_visits_each_arm_has_a_panel_with_the_control_behind_it(run):
    metrics = results.load(run)
    figure = plots.learning_curve(metrics, label="accuracy")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ARMS
    assert not figure.legends
    assert figure.get_supxlabel() == "mean over 3 seeds, 95 % interval; grey: fresh"
    for arm, axes in zip(ARMS, figure.axes, strict=True):
        drawn = [line.get_label() for line in axes.get_lines()]
        assert drawn == ([arm] if arm == "fresh" else ["_fresh", arm])
        assert len(axes.collections) == 1  # the band of the arm
        y = labelled(axes)[arm].get_ydata()
        expected = metrics[metrics["arm"] == arm].groupby("step")["reward"].mean()
        np.testing.assert_allclose(y[~np.isnan(y)], expected)
        assert axes.get_xlim() == figure.axes[0].get_xlim()
        assert axes.get_ylim() == figure.axes[0].get_ylim()


def test_many_visits_to_games_lie_side_by_side_in_their_panels(tmp_path):
    plan = made.plan(["one"], tasks=["pong", "boxing"], visits=[(k % 2, 10 + 10 * (k % 2)) for k in range(13)])
    plan["stream"]["episodic"] = True
    metrics = results.load(made.invented(tmp_path / "run", plan, [0, 1]))
    upper, lower = plots.learning_curve(metrics, value="episodic_return", by_task=True).axes
    x = labelled(lower)["one"].get_xdata()
    boxing = metrics[metrics["task"] == "boxing"]
    steps = np.sort(boxing.dropna(subset="episodic_return")["step"].unique())
    expected = steps - 10 * ((steps - 1) // 30 + 1)  # without the time in pong
    np.testing.assert_array_equal(np.unique(x[~np.isnan(x)]), expected)
    assert upper.get_xlim()[1] == lower.get_xlim()[1] == pytest.approx(1.012 * 120)


def test_long_streams_are_averaged_in_groups_lane_by_lane():
    places = np.arange(1, 3201)
    table = pd.DataFrame({"arm": "one", "lane": 0, "seed": 0, "step": places, "visit": 0, "task": "t"})
    table["reward"] = places.astype(float)
    both = pd.concat([table, table.assign(lane=1, seed=1, reward=table["reward"] + 2)])
    (axes,) = plots.learning_curve(both).axes
    x, y = labelled(axes)["one"].get_data()
    np.testing.assert_array_equal(x, places[3::4])
    np.testing.assert_allclose(y, places.reshape(-1, 4).mean(1) + 1)


def test_episodic_tasks_get_panels_of_their_own(tmp_path):
    plan = made.plan(
        ARMS, tasks=["pong", "boxing"], visits=[(0, 30), (1, 30), (0, 30)], episodic=True, frames_per_step=4
    )
    folder = made.invented(tmp_path / "run", plan, [0, 1, 2], diverged={"baseline": {1: 40}})
    found = plots.figures(folder)
    panels = found["performance"].axes
    assert [axes.get_title() for axes in panels] == ["pong", "boxing"]
    assert [[text.get_text() for text in axes.get_xticklabels()] for axes in panels] == [["1", "3"], ["2"]]
    assert found["performance"].get_supylabel() == "episodic return"
    upper, lower = found["learning_curve"].axes
    assert [axes.get_title(loc="left") for axes in (upper, lower)] == ["pong", "boxing"]
    assert found["learning_curve"].get_supylabel() == "episodic return"
    assert lower.get_xlabel() == "frames"
    shown = labelled(upper)["fresh"].get_xdata()
    shown = shown[~np.isnan(shown)]
    assert not ((shown > 120) & (shown <= 240)).any()  # boxing is not in the panel of pong


def test_monitors_are_the_metrics_of_the_whole_network(run):
    metrics = results.load(run)
    assert plots.monitor_names(metrics, []) == ["loss", "effective_rank"]
    figure = plots.monitors(metrics)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "effective rank"]
    assert all(axes.get_xlabel() == "env steps" for axes in figure.axes)
    assert all(list(labelled(axes)) == ARMS for axes in figure.axes)
    x, y = labelled(figure.axes[1])["fresh"].get_data()
    np.testing.assert_array_equal(x, np.arange(50, 1001, 50))  # where the monitor was due
    expected = metrics[metrics["arm"] == "fresh"].groupby("step")["effective_rank"].mean().dropna()
    np.testing.assert_allclose(y, expected)  # one line: a switch interrupts only what is measured within visits
    only = plots.monitors(metrics, names=["dormant_units/hidden_0"])
    assert [axes.get_title() for axes in only.axes] == ["dormant units/hidden 0"]


def test_a_monitor_measured_within_visits_is_interrupted_at_switches():
    steps = np.arange(1, 9)
    table = pd.DataFrame({"arm": "one", "lane": 0, "seed": 0, "step": steps, "visit": (steps - 1) // 4, "task": "t"})
    (axes,) = plots.monitors(table.assign(loss=steps)).axes
    np.testing.assert_array_equal(labelled(axes)["one"].get_ydata(), [1, 2, 3, 4, np.nan, 5, 6, 7, 8])


@pytest.mark.parametrize(
    ("values", "scale"), [([1, 101], "log"), ([1, 99], "linear"), ([0, 1000], "linear"), ([-1, 1000], "linear")]
)
def test_two_decades_make_a_logarithmic_scale(values, scale):
    table = pd.DataFrame({"arm": "one", "lane": 0, "seed": 0, "step": [1, 2], "visit": 0, "task": "t", "norm": values})
    (axes,) = plots.monitors(table).axes
    assert axes.get_yscale() == scale


def test_an_interval_below_zero_does_not_spoil_the_logarithmic_scale():
    table = pd.DataFrame({"arm": "one", "lane": [0, 0, 1, 1], "step": [1, 2] * 2, "norm": [1, 10, 1, 5000]})
    (axes,) = plots.monitors(table.assign(seed=table["lane"], visit=0, task="t")).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] > 0.1


# ---------------------------------------------------------------------------------------------- looks


def test_an_arm_looks_the_same_in_every_figure_and_in_a_part_of_the_table(run):
    metrics, visits = results.load(run), results.visits(run)
    axes = [
        plots.performance(visits).axes[0],
        plots.learning_curve(metrics, axes=Figure().add_subplot()),
        plots.monitors(metrics).axes[1],
        plots.performance(visits[visits["arm"] != "baseline"]).axes[0],
    ]
    looks = {(labelled(each)["layer_norm"].get_color(), labelled(each)["layer_norm"].get_marker()) for each in axes}
    assert looks == {(style.COLOURS[1], style.MARKERS[1])}
    controls = {labelled(each)["fresh"].get_color() for each in axes}
    assert controls == {style.CONTROL_COLOUR}
    assert all(labelled(each)["fresh"].is_dashed() for each in axes)


def test_thirty_arms_are_distinguishable_with_and_without_colour():
    looks = [style.look(number) for number in range(30)]
    assert len({(look["color"], str(look["linestyle"])) for look in looks}) == 30
    assert len({(look["marker"], str(look["linestyle"])) for look in looks}) == 30
    assert style.CONTROL_COLOUR not in {look["color"] for look in looks}


def test_points_of_a_sweep_are_shades_of_their_arm_with_a_suffix(tmp_path):
    plan = made.plan(["baseline", "fresh"], tasks=["t"], visits=[(0, 10)] * 3)
    folder = made.invented(tmp_path / "run", plan, [0, 1, 0, 1], hyper={RATE: [1e-3, 1e-3, 1e-2, 1e-2]})
    figure = plots.figures(folder)["performance"]
    names = [f"{arm}, learning_rate={rate}" for arm in ("baseline", "fresh") for rate in ("0.001", "0.01")]
    assert legend_texts(figure) == names
    lines = labelled(figure.axes[0])
    assert list(lines) == names
    first, second = (lines[name].get_color() for name in names[:2])
    assert first == style.COLOURS[0]
    assert sum(to_rgb(second)) > sum(to_rgb(first))
    assert lines[names[0]].get_marker() == lines[names[1]].get_marker()


def test_several_runs_share_a_figure_and_are_distinguishable(tmp_path):
    plan = made.plan(["baseline", "fresh"], tasks=["t"], visits=[(0, 10)] * 3)
    folders = [made.invented(tmp_path / name, plan, [0, 1]) for name in ("one", "two")]
    lines = labelled(plots.figures(*folders)["performance"].axes[0])
    assert list(lines) == ["one: baseline", "one: fresh", "two: baseline", "two: fresh"]
    assert lines["one: baseline"].get_color() != lines["two: baseline"].get_color()
    assert lines["one: fresh"].get_color() != lines["two: fresh"].get_color()


def test_the_legend_says_what_the_lines_are_over(run, tmp_path):
    assert plots.performance(results.visits(run)).legends[0].get_title().get_text() == (
        "mean over 3 seeds,\n95 % interval"
    )
    single = made.invented(tmp_path / "run", made.plan(["a"], tasks=["t"], visits=[(0, 10)]), [0])
    assert plots.performance(results.visits(single)).legends[0].get_title().get_text() == "one seed"


def test_matplotlibs_settings_are_left_alone(run):
    before = dict(matplotlib.rcParams)
    figure = plots.performance(results.visits(run))
    assert isinstance(figure, Figure)
    assert dict(matplotlib.rcParams) == before


# ---------------------------------------------------------------------------------------------- edge cases

THIRTY = [*[f"an_arm_with_number_{k}" for k in range(29)], "fresh"]
CASES = {
    "one arm, seed, visit": (made.plan(["a"], tasks=["t"], visits=[(0, 10)]), [0], {}),
    "one record": (made.plan(["a"], tasks=["t"], visits=[(0, 1)]), [0], {}),
    "no monitors": (made.plan(ARMS, tasks=["t"], visits=[(0, 10)] * 2), [0, 1], {"monitors": ()}),
    "thirty arms": (made.plan(THIRTY, tasks=["t", "u"], visits=[(0, 2), (1, 2)] * 7), [0], {}),
    "half finished": (
        made.plan(ARMS, tasks=["t"], visits=[(0, 20)] * 15),
        [0, 1],
        {"until": {"baseline": 130, "layer_norm": 27, "fresh": 0}},
    ),
    "diverged": (
        made.plan(ARMS, tasks=["t", "u"], visits=[(0, 20), (1, 20), (0, 20)], episodic=True),
        [0, 1],
        {"diverged": {"baseline": {0: 0, 1: 0}, "fresh": {0: 30}}},
    ),
}


def everything_inside(figure):
    """Whether no text of the figure is cut off at its border."""
    figure.draw_without_rendering()
    box, page = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= page[0] + 0.01 and box.y1 <= page[1] + 0.01


@pytest.mark.parametrize("case", CASES)
def test_edge_cases_are_drawn_without_a_warning_and_inside_the_page(tmp_path, case):
    plan, seeds, options = CASES[case]
    folder = made.invented(tmp_path / "run", plan, seeds, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = plots.figures(folder)
        assert {"performance", "learning_curve"} <= set(found)
        assert ("monitors" in found) == (case != "no monitors")
        for figure in found.values():
            assert everything_inside(figure)
        for name in {"performance", "monitors"} & set(found):
            assert len(legend_texts(found[name])) == results.load(folder)["arm"].nunique()


def test_nothing_to_draw_is_said(run):
    visits, metrics = results.visits(run), results.load(run)
    with pytest.raises(ValueError, match="no visit has been finished"):
        plots.performance(visits.iloc[:0])
    with pytest.raises(ValueError, match="reward has no value"):
        plots.learning_curve(metrics.iloc[:0])
    with pytest.raises(ValueError, match="no monitor"):
        plots.monitors(metrics.drop(columns=["loss", "effective_rank"]))


# ---------------------------------------------------------------------------------------------- parts


def test_stays_are_the_visits_on_the_axis():
    table = pd.DataFrame({"visit": [0, 0, 1, 1], "task": list("aabb"), "step": [5, 10, 15, 30]})
    assert stays(table, "step") == [(0, "a", 0, 10), (1, "b", 10, 30)]


def test_visits_are_counted_by_task():
    assert list(visit_counts(pd.Series(list("abaab")))) == [0, 0, 1, 2, 1]
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 102, 112)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "112th",
    ]  # fmt: skip
