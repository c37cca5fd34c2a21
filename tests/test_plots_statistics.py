"""Figures of statistics: the drawn numbers are those of the tables."""

import json

import numpy as np
import pandas as pd
import pytest
import synthetic_run as made
from matplotlib.figure import Figure

from plasticity import plots, results
from plasticity.plots import options

ARMS = ["baseline", "redo", "fresh"]
RATE = "agent.optimizer.learning_rate"


def curves(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two tasks, three visits each."""
    plan = made.plan(ARMS, tasks=["a", "b"], visits=[(k % 2, 20) for k in range(6)])
    return made.invented(tmp_path_factory.mktemp("plots") / "made", plan, [0, 1, 2])


@pytest.fixture(scope="module")
def scores(run):
    return results.task_scores(results.visits(run))


def test_aggregates_have_a_panel_each_and_a_row_for_each_arm(scores):
    figure = plots.aggregates(scores, ("iqm", "optimality_gap"), label="accuracy", resamples=50)
    table = results.aggregates(scores, resamples=50)
    assert [panel.get_title() for panel in figure.axes] == ["interquartile mean", "optimality gap\nlower is better"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ARMS
    for panel, name in zip(figure.axes, ("iqm", "optimality_gap"), strict=True):
        values = [line.get_xdata()[0] for line in panel.get_lines()]
        np.testing.assert_allclose(values, table[name])
        spans = [bar.get_segments()[0][:, 0] for bar in panel.collections]  # type: ignore[attr-defined]
        np.testing.assert_allclose(spans, table[[f"{name}_low", f"{name}_high"]])
    assert "3 seeds x 2 tasks" in figure.get_supxlabel()


def test_profiles_are_the_shares_and_looks_are_those_of_other_figures(run, scores):
    figure = plots.profiles(scores, resamples=20)
    table = results.performance_profiles(scores, resamples=20)
    lines = curves(figure.axes[0])
    assert list(lines) == ARMS
    np.testing.assert_allclose(lines["redo"].get_ydata(), table.loc[table["arm"] == "redo", "share"])
    other = curves(plots.performance(results.visits(run)).axes[0])
    assert {name: line.get_color() for name, line in lines.items()} == {
        name: line.get_color() for name, line in other.items()
    }


def test_sensitivity_has_a_logarithmic_axis_with_a_tick_for_each_value(tmp_path):
    plan = made.plan(["baseline", "fresh"], tasks=["t"], visits=[(0, 10)] * 2)
    hyper = {RATE: np.repeat([1e-4, 1e-3, 1e-2], 2)}
    folder = made.invented(tmp_path / "run", plan, [0, 1] * 3, hyper=hyper)
    found = results.task_scores(results.visits(folder), hyper=[RATE])
    (axes,) = plots.sensitivity(found, RATE, label="accuracy", resamples=20).axes
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", RATE, "accuracy (mean)")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    table = results.sensitivity(found, RATE, resamples=20)
    lines = curves(axes)
    assert list(lines) == ["baseline", "fresh"]
    np.testing.assert_allclose(lines["fresh"].get_ydata(), table.loc[table["arm"] == "fresh", "mean"])
    np.testing.assert_allclose(np.log10(lines["baseline"].get_xdata()), [-4, -3, -2], atol=0.1)
    with pytest.raises(ValueError, match="is not swept"):
        plots.sensitivity(found, "agent.depth")


def row_ends(axes):
    """The dots of each row: (first, later) for each place."""
    dots = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    rows: dict[int, list] = {}
    for dot in sorted(dots, key=lambda dot: dot.get_ydata()[0]):
        rows.setdefault(round(dot.get_ydata()[0]), []).append(dot)
    return rows


def test_first_and_later_visits_are_rows_with_names_in_a_panel_for_each_task(run):
    again = results.revisits(run)
    figure = plots.first_against_later(again, label="accuracy")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ARMS
    assert figure.get_supxlabel() == "accuracy"
    assert legend_texts(figure) == ["first visit to the task", "mean of later visits"]
    for axes, task in zip(figure.axes, "ab", strict=True):
        means = again.means[again.means["task"] == task].set_index("arm")
        spans = sorted(bar.get_segments()[0][:, 0].tolist() for bar in axes.collections)
        bounds = [means[[f"{end}_low", f"{end}_high"]].to_numpy() for end in ("first", "later")]
        np.testing.assert_allclose(spans, sorted(np.concatenate(bounds).tolist()))
        for place, arm in enumerate(ARMS):
            first, later = row_ends(axes)[place]
            assert first.get_xdata()[0] == pytest.approx(means.loc[arm, "first"])
            assert later.get_xdata()[0] == pytest.approx(means.loc[arm, "later"])
            assert (first.get_markerfacecolor(), later.get_markerfacecolor()) == ("white", later.get_color())


def test_tasks_together_are_each_lanes_mean_and_games_are_kept_apart(run, tmp_path):
    again = results.revisits(run)
    (axes,) = plots.first_against_later(again, by_task=False).axes
    first, later = row_ends(axes)[1]
    overall = again.overall.set_index("arm").loc["redo"]
    assert (first.get_xdata()[0], later.get_xdata()[0]) == pytest.approx((overall["first"], overall["later"]))
    plan = made.plan(ARMS, tasks=["pong", "boxing"], visits=[(k % 2, 20) for k in range(4)], episodic=True)
    games = made.invented(tmp_path / "games", plan, [0, 1])
    with pytest.raises(ValueError, match="several kinds"):
        plots.first_against_later(results.revisits(games), by_task=False)
    assert [axes.get_title() for axes in plots.figures(games)["revisits"].axes] == ["pong", "boxing"]


def test_learning_speed_is_the_difference_in_each_visit_and_no_fitted_line(run):
    speeds = results.relative_learning_speed(run)
    (axes,) = plots.learning_speed(speeds.lanes).axes
    lines = curves(axes)
    assert list(lines) == ["baseline", "redo"]
    for arm, line in lines.items():
        means = speeds.means[speeds.means["arm"] == arm]
        np.testing.assert_allclose(line.get_ydata(), means["difference"])
    assert len(axes.get_lines()) == len(lines) + 1  # and the line at zero
    values = np.concatenate([line.get_ydata() for line in lines.values()])
    assert np.abs(values).max() <= speeds.lanes["difference"].abs().max()


def test_an_accuracy_that_falls_to_chance_is_drawn_where_it_is():
    """A straight line through this fall would end at -0.15."""
    visit, seeds = np.arange(40), np.arange(3)
    area = 0.1 + 0.8 / (1 + np.exp(visit - 12.0))
    tables = [pd.DataFrame({"arm": "one", "lane": k, "seed": k, "visit": visit, "task": "t"}) for k in seeds]
    table = pd.concat([each.assign(area=area + 0.001 * k) for k, each in enumerate(tables)])
    (axes,) = plots.learning_speed(table, value="area", bounds=(0.0, 1.0)).axes
    (line,) = axes.get_lines()
    np.testing.assert_allclose(line.get_ydata(), area + 0.001)
    assert axes.get_ylim()[0] > 0


def test_of_many_arms_the_ends_of_the_stream_are_rows():
    arm, visit = np.repeat(np.arange(20), 20), np.tile(np.arange(20), 20)
    table = pd.DataFrame({"arm": [f"arm_{k}" for k in arm], "lane": 0, "seed": 0, "visit": visit, "task": "t"})
    (axes,) = plots.learning_speed(table.assign(area=0.5 * arm * visit), value="area").axes
    for place, text in enumerate(axes.get_yticklabels()):
        number = int(text.get_text().removeprefix("arm_"))
        first, last = (dot.get_xdata()[0] for dot in row_ends(axes)[place])
        assert (first, last) == pytest.approx((0.5 * number * 0.5, 0.5 * number * 18.5))


def test_a_matrix_is_the_mean_over_seeds(run):
    known = pd.DataFrame({"arm": pd.Categorical(["one"] * 2 + ["two"]), "lane": [0, 1, 0], "seed": [0, 1, 0]})
    values = np.asarray([[[1, 2], [3, 4]], [[3, 4], [5, np.nan]], [[0, 10], [20, 30]]], float)
    figure = plots.performance_matrix(results.Matrix(known, ("a", "b"), values))
    first, second = figure.axes[:2]
    np.testing.assert_array_equal(first.get_images()[0].get_array(), [[2, 3], [4, 4]])
    assert (first.get_title(), second.get_title()) == ("one", "two")
    assert [text.get_text() for text in first.texts] == ["2", "3", "4", "4"]
    figure = plots.performance_matrix(results.Matrix(known, ("a", "b"), values), by_task=True)
    # columns over both arms: 0 ... 20 and 3 ... 30
    np.testing.assert_allclose(figure.axes[0].get_images()[0].get_array(), [[0.1, 0], [0.2, 1 / 27]])


# ---------------------------------------------------------------------------------------------- mechanisms


def monitored(**columns):
    """Two lanes, five visits, a record at the end of each."""
    visit, lane = np.tile(np.arange(5), 2), np.repeat([0, 1], 5)
    table = pd.DataFrame({"arm": "one", "lane": lane, "seed": lane, "step": visit + 1, "visit": visit})
    table["task"] = [f"task_{k}" for k in visit]
    return table.assign(**columns), table.drop(columns="step").assign(performance=[5, 4, 3, 2, 1, 50, 40, 30, 20, 10])


def test_rank_correlations_over_everything_and_within_lanes():
    falls, rises = [9, 7, 5, 3, 1.0], [0, 1, 2, 3, 40.0]
    metrics, visits = monitored(rank=falls * 2, dead=rises * 2, still=1.0, mixed=[*falls, *rises])
    found = plots.correlations(metrics, visits).set_index("monitor")
    assert found.loc["rank", "within_lanes"] == pytest.approx(1)
    assert found.loc["dead", "within_lanes"] == pytest.approx(-1)
    assert found.loc["mixed", "within_lanes"] == pytest.approx(0)
    # ranks 9.5 7.5 5.5 3.5 1.5 twice, against 5 ... 1, 10 ... 6: sum of products 40, squares 80 and 82.5
    assert found.loc["rank", "spearman"] == pytest.approx(40 / np.sqrt(80 * 82.5))
    assert np.isnan(found.loc["still", ["spearman", "within_lanes"]].to_numpy(float)).all()
    assert list(found.index[:2]) == ["rank", "dead"]
    assert list(found["points"]) == [10] * 4


def test_the_strongest_mechanism_comes_first_with_its_numbers():
    metrics, visits = monitored(mixed=[9, 7, 5, 3, 1, 0, 1, 2, 3, 40.0], dead=[0, 1, 2, 3, 40.0] * 2)
    figure = plots.mechanisms(metrics, visits)
    titles = [panel.get_title().splitlines() for panel in figure.axes]
    assert [title[0] for title in titles] == ["dead", "mixed"]
    assert titles[0][1].endswith("within lanes -1.00")


def test_layers_are_heat_maps_over_time():
    metrics, _ = monitored(**{"dead_units/hidden_0": range(10), "dead_units/hidden_1": 1.0, "dead_units": 0.5})
    assert plots.layer_names(metrics) == ["dead_units"]
    axes = plots.layers(metrics, "dead_units").axes[0]
    np.testing.assert_allclose(axes.collections[0].get_array(), [[2.5, 3.5, 4.5, 5.5, 6.5], [1] * 5])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["hidden_0", "hidden_1"]
    with pytest.raises(ValueError, match="dead_units"):
        plots.layers(metrics, "dead_unit")


def test_ridges_are_logarithms_of_shares_on_the_monitors_grid():
    shares = {f"hessian_density/bin_{k:02d}": share for k, share in enumerate([0.0, 0.01, 0.98, 0.01, 0.0])}
    metrics, _ = monitored(**shares)
    (axes,) = plots.hessian_density(metrics, smallest=0.1, largest=10).axes
    ridges = sorted((line.get_ydata() for line in axes.get_lines()), key=lambda ridge: ridge[0])
    heights = 1.6 * np.asarray([0, 2, 4 + np.log10(0.98), 2, 0]) / 4
    np.testing.assert_allclose(ridges, heights + np.arange(5)[:, None], atol=1e-12)
    # two bins for two decades: the edge at 10 is 2.5 bins from the middle
    assert list(axes.get_xticks()) == pytest.approx([-0.5, 2, 4.5])
    with pytest.raises(ValueError, match="hessian_density"):
        plots.hessian_density(metrics.drop(columns=list(shares)))


def test_the_grid_of_eigenvalues_is_that_of_the_config(tmp_path):
    bins = tuple(f"hessian_density/bin_{k:02d}" for k in range(3))
    folder = made.invented(tmp_path / "run", made.plan(["a"], tasks=["t"], visits=[(0, 10)]), [0], monitors=bins)
    config = {"monitors": [{"kind": "hessian_density", "smallest": 0.5, "largest": 4.0, "scale": "linear"}]}
    (folder / "experiment.yaml").write_text(json.dumps(config))
    (axes,) = plots.figures(folder)["hessian_density"].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["\u22122.7", "0", "2.7"]  # middles of bins 8/3 wide


# ---------------------------------------------------------------------------------------------- notebooks


def test_axes_that_are_given_are_drawn_on_and_returned(run, scores):
    metrics, visits, again = results.load(run), results.visits(run), results.revisits(run)
    speeds = results.relative_learning_speed(run).lanes
    for draw in (
        lambda axes: plots.performance(visits, axes=axes),
        lambda axes: plots.learning_curve(metrics, axes=axes),
        lambda axes: plots.profiles(scores, axes=axes, resamples=10),
        lambda axes: plots.first_against_later(again, axes=axes),
        lambda axes: plots.learning_speed(speeds, axes=axes),
    ):
        figure = Figure()
        axes = figure.add_subplot()
        assert draw(axes) is axes
        assert axes.has_data()
        assert axes.get_legend() is not None
        assert not figure.legends


def test_a_panel_stays_as_wide_as_a_page_or_below(run, scores):
    for figure in plots.figures(run).values():
        assert figure.get_size_inches()[0] == options.WIDTH
