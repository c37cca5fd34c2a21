"""The layout of figures: nothing overlaps, nothing is cut off, and intervals end at bounds."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import synthetic_run as made
from matplotlib.axes import Axes
from matplotlib.text import Text

from plasticity import plots, results
from plasticity.core.errors import UserError
from plasticity.plots.style import text_width
from plasticity.plots.text import fitted

EIGHT = ["baseline", "layer_norm", "layer_norm_decay", "nap", "reset_last", "redo", "continual_backprop", "fresh"]
GAMES = ["Breakout", "Pong", "Qbert"]


def run_of(folder, *, arms, visits, seeds, games=0):
    tasks = GAMES[:games] or [f"labels_{k}" for k in range(visits)]
    order = [(k % len(tasks), 40) for k in range(visits)]
    plan = made.plan(arms, tasks=tasks, visits=order, episodic=games > 0, frames_per_step=4 if games else 1)
    plan["stream"]["reward_range"] = [0, None if games else 1]
    monitors = ("loss", "effective_rank", "dormant_units", "weight_norm")
    return made.invented(folder, plan, list(range(seeds)), monitors=monitors)


def boxes(figure):
    """The texts that are seen, each with the box that its letters take."""
    figure.draw_without_rendering()
    hidden = {text for axes in figure.findobj(Axes) for text in _not_drawn(axes)}
    shown = [text for text in figure.findobj(Text) if text not in hidden and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in shown if text.get_visible()]


def _not_drawn(axes):
    """All texts of hidden axes; else the labels of ticks beyond the limits, which matplotlib keeps."""
    if not axes.get_visible():
        return axes.findobj(Text)
    beyond = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-6 * (high - low)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not (axis.get_visible() and low - slack <= tick.get_loc() <= high + slack):
                beyond += [tick.label1, tick.label2]
    return beyond


def overlaps(figure):
    shrunk = [(text, box.x0 + 0.5, box.x1 - 0.5, box.y0 + 0.5, box.y1 - 0.5) for text, box in boxes(figure)]
    return [
        (a[0], b[0])
        for a, b in itertools.combinations(shrunk, 2)
        if a[1] < b[2] and b[1] < a[2] and a[3] < b[4] and b[3] < a[4]
    ]


def cut_off(figure):
    width, height = figure.get_size_inches() * figure.dpi
    return [
        text
        for text, box in boxes(figure)
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > width + 0.5 or box.y1 > height + 0.5
    ]


@pytest.mark.parametrize("size", [None, (3.4, 2.8)], ids=["page", "column"])
@pytest.mark.parametrize(
    ("arms", "visits", "seeds", "games"),
    [(8, 40, 2, 0), (2, 6, 1, 0), (8, 6, 10, 3), (2, 40, 2, 3), (2, 2, 1, 1)],
)
def test_texts_neither_overlap_nor_leave_the_page(tmp_path, arms, visits, seeds, games, size):
    names = EIGHT if arms == 8 else ["baseline", "fresh"]
    folder = run_of(tmp_path / "run", arms=names, visits=visits, seeds=seeds, games=games)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = plots.figures(folder, options=plots.Options(size=size))
        for name, figure in found.items():
            assert not overlaps(figure), name
            assert not cut_off(figure), name
            assert size is None or figure.get_size_inches()[0] == size[0]


def curve_of(folder, name, visits):
    plan = made.plan(["one"], tasks=[name.format(k) for k in range(visits)], visits=[(k, 10) for k in range(visits)])
    return plots.learning_curve(results.load(made.invented(folder, plan, [0, 1])))


def test_task_names_take_a_second_row_where_they_would_touch(tmp_path):
    figure = curve_of(tmp_path / "run", "a_long_name_of_a_task_{}", 6)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [f"a_long_name_of_a_task_{k}" for k in range(6)]
    assert len({text.get_window_extent().y0 for text in axes.texts}) == 2
    assert all(text.get_rotation() == 0 for text in axes.texts)
    assert not overlaps(figure)


def test_names_without_room_give_way_to_numbers_and_a_single_name_says_nothing(tmp_path):
    figure = curve_of(tmp_path / "run", "a_really_very_long_name_of_a_single_task_{}", 12)
    (axes,) = figure.axes
    assert not axes.texts
    assert [text.get_text() for text in axes.child_axes[0].get_xticklabels()] == [str(k + 1) for k in range(12)]
    assert not overlaps(figure)
    (axes,) = curve_of(tmp_path / "one", "same", 3).axes
    assert not axes.texts
    assert not axes.child_axes


def test_one_label_for_all_panels_of_mechanisms(tmp_path):
    folder = run_of(tmp_path / "run", arms=["baseline", "fresh"], visits=6, seeds=3, games=3)
    figure = plots.figures(folder, names=["mechanisms"])["mechanisms"]
    assert len(figure.axes) == 4
    assert [axes.get_ylabel() for axes in figure.axes] == [""] * 4
    assert figure.get_supylabel() == "episodic return, rank within the task"


# ---------------------------------------------------------------------------------------------- bounds


def edges(axes):
    paths = [path for band in axes.collections for path in band.get_paths()]
    return np.concatenate([path.vertices[:, 1] for path in paths])


@pytest.fixture
def nearly_one(tmp_path):
    """Accuracies of 0.9 and 1.0 by turns of the seed: the t interval of two lanes reaches from 0.31 to 1.59."""
    plan = made.plan(["one", "fresh"], tasks=["t"], visits=[(0, 10)] * 4)
    plan["stream"]["reward_range"] = [0, 1]
    plan["ranges"] = {"dormant_units": [0, 1]}
    rewards = np.repeat([[0.9], [1.0]], made.number_of_records(plan), axis=1)
    given = {"rewards": rewards, "dormant_units": 1 - rewards}
    tables = {arm: made.records(arm, plan, [0, 1], **given) for arm in ("one", "fresh")}
    return made.write(tmp_path / "run", plan, dict.fromkeys(tables, made.lane_table([0, 1])), tables)


def test_intervals_end_at_the_bounds_of_the_number_and_means_stay(nearly_one):
    found = plots.figures(nearly_one)
    for name, low, high in (("performance", 0.3, 1.0), ("learning_curve", 0.3, 1.0), ("monitors", 0.0, 0.7)):
        (axes,) = found[name].axes
        values = edges(axes)
        values = values[np.isfinite(values)]
        assert low <= values.min(), name
        assert values.max() <= high, name
        assert (values.max() == 1.0) if name != "monitors" else (values.min() == 0.0), name
        mean = 0.05 if name == "monitors" else 0.95
        ends = [line.get_ydata() for line in axes.get_lines() if line.get_label() in ("one", "fresh")]
        np.testing.assert_allclose(np.concatenate(ends)[np.isfinite(np.concatenate(ends))], mean)


def test_what_older_plans_do_not_say_is_not_cut(nearly_one):
    free = plots.performance(results.visits(nearly_one))
    assert edges(free.axes[0]).max() == pytest.approx(0.95 + 12.7062 * 0.05, abs=1e-4)


def test_a_mean_beyond_a_bound_is_neither_moved_nor_hidden(nearly_one):
    (axes,) = plots.performance(results.visits(nearly_one), bounds=(0.0, 0.5)).axes
    np.testing.assert_allclose(edges(axes).max(), 0.95)


@pytest.mark.parametrize(
    ("episodic", "limits", "expected"),
    [
        (False, [0, 1], (0, 1)),
        (False, [None, 0], (-np.inf, 0)),
        (True, [0, 1], (0, np.inf)),
        (True, [-1, 0], (-np.inf, 0)),
        (True, [-1, 1], (-np.inf, np.inf)),
        (False, None, (-np.inf, np.inf)),
    ],
)
def test_ranges_of_means_and_of_returns(episodic, limits, expected):
    assert results.performance_range({"episodic": episodic, "reward_range": limits}) == expected
    low, high = results.difference_range(expected)
    assert (low, high) == (expected[0] - expected[1], expected[1] - expected[0])


# ---------------------------------------------------------------------------------------------- options


def test_arms_come_in_the_order_asked_for_under_their_new_names_with_their_old_looks(tmp_path):
    folder = run_of(tmp_path / "run", arms=EIGHT, visits=6, seeds=2)
    whole = plots.figures(folder)
    options = plots.Options(arms=["fresh", "layer_norm", "nap"], labels={"layer_norm": "LayerNorm"})
    found = plots.figures(folder, options=options)
    names = ["fresh", "LayerNorm", "nap"]
    assert [text.get_text() for text in found["performance"].legends[0].get_texts()] == names
    assert [text.get_text() for text in found["aggregates"].axes[0].get_yticklabels()] == names
    assert [text.get_text() for text in found["learning_speed"].legends[0].get_texts()] == names[1:]
    was = {line.get_label(): line.get_color() for line in whole["performance"].axes[0].get_lines()}
    now = {line.get_label(): line.get_color() for line in found["performance"].axes[0].get_lines()}
    assert now == {"fresh": was["fresh"], "LayerNorm": was["layer_norm"], "nap": was["nap"]}
    assert set(plots.figures(folder, names=["layers", "performance"])) == {"performance"}


def test_curves_are_running_means_of_each_lane_within_its_visits():
    reward = np.asarray([0.0, 3.0, 6.0, 30.0, 60.0])
    table = pd.DataFrame({"arm": "one", "step": range(1, 6), "visit": [0, 0, 0, 1, 1], "task": "t", "reward": reward})
    both = pd.concat([table.assign(lane=k, seed=k, reward=reward + k) for k in (0, 2)])
    figure = plots.learning_curve(both, options=plots.Options(smooth=3))
    y = figure.axes[0].get_lines()[-1].get_ydata()
    np.testing.assert_allclose(y, np.asarray([1.5, 3.0, 4.5, 45.0, 45.0]) + 1)
    assert figure.legends[0].get_title().get_text().endswith("smoothed over 3 records")
    plain = plots.learning_curve(both)
    np.testing.assert_allclose(plain.axes[0].get_lines()[-1].get_ydata(), reward + 1)


def test_records_without_a_value_do_not_count_in_a_running_mean():
    table = pd.DataFrame(
        {"arm": "one", "lane": 0, "step": range(1, 6), "visit": 0, "reward": [1, np.nan, 3, np.nan, 8]}
    )
    found = plots.thin.smoothed(table, ["reward"], 3)["reward"]
    np.testing.assert_allclose(found, [2, np.nan, 4, np.nan, 5.5])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arms": []}, r"arms: \[\] is not allowed; must be a list of at least one arm"),
        ({"arms": "nap"}, 'arms: "nap" is not allowed'),
        ({"arms": ["napp"]}, r"arms: unknown arm `napp`; .*did you mean `nap`\?"),
        ({"labels": {"nap": " "}}, r'labels.nap: " " is not allowed; must be text'),
        ({"labels": {"nap": "$\\nonsense$"}}, "labels.nap: .* the formula between \\$ is not valid"),
        ({"labels": {"nap": "redo"}}, 'labels: "redo" is not allowed for several arms'),
        ({"size": (3,)}, r"size: \[3\] is not allowed; must be width and height between 2 and 40 inches"),
        ({"size": (float("nan"), 3)}, "size: "),
        ({"smooth": 2.5}, "smooth: 2.5 is not allowed; must be an integer"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(tmp_path, options, said):
    folder = run_of(tmp_path / "run", arms=EIGHT, visits=2, seeds=1)
    for draw in (
        lambda: plots.figures(folder, options=plots.Options(**options)),
        lambda: plots.performance(results.visits(folder), options=plots.Options(**options)),
        lambda: plots.save_all([folder], tmp_path / "out", options=plots.Options(**options)),
    ):
        with pytest.raises(UserError, match=said) as caught:
            draw()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------- long names

LONG = ["the_baseline_without_any_change_at_all", "layer_norm_with_decoupled_weight_decay", "fresh"]


@pytest.fixture(scope="module", params=[8, 40])
def swept(tmp_path_factory, request):
    """Three arms at two step sizes, on four tasks twice or on forty: layers, eigenvalues and their own ranges."""
    visits = request.param
    tasks = [f"labels_{k}" for k in range(4 if visits == 8 else visits)]
    plan = made.plan(LONG, tasks=tasks, visits=[(k % len(tasks), 20) for k in range(visits)], lanes=4)
    plan["stream"]["reward_range"] = [0, 1]
    layered = [f"dormant_units/hidden_{k}" for k in range(3)]
    bins = [f"hessian_density/bin_{k:02d}" for k in range(5)]
    hyper = {"agent.optimizer.learning_rate": [0.001, 0.001, 0.03, 0.03]}
    monitors = ("loss", "effective_rank", *layered, *bins)
    return made.invented(tmp_path_factory.mktemp("swept") / "run", plan, [0, 1, 0, 1], monitors=monitors, hyper=hyper)


@pytest.mark.parametrize("width", [3.4, pytest.param(6.9, marks=pytest.mark.slow)])
def test_long_names_of_arms_and_settings_leave_room_for_the_data(swept, width):
    found = plots.figures(swept, options=plots.Options(size=(width, 2.8)))
    expected = {"aggregates", "profiles", "sensitivity_agent_optimizer_learning_rate", "layers_dormant_units"}
    assert expected | {"hessian_density", "mechanisms", "monitors"} <= set(found)
    for name, figure in found.items():
        assert not overlaps(figure), name
        assert not cut_off(figure), name
        seen = [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
        assert min(axes.get_window_extent().width / figure.dpi for axes in seen) > 0.5, name
        assert figure.get_size_inches()[0] == width
        assert figure.get_size_inches()[1] <= 11, name


@pytest.mark.parametrize("width", [3.4, 6.9])
@pytest.mark.parametrize(("visits", "by_task"), [(8, False), (8, True), (40, False)])
def test_matrices_of_long_names(visits, by_task, width):
    lanes = pd.DataFrame({"arm": pd.Categorical(LONG, LONG), "lane": 0, "seed": 0})
    values = np.random.default_rng(0).uniform(0.1, 0.9, (3, visits, visits))
    tasks = tuple(f"labels_{k % 4}" for k in range(visits))
    options = plots.Options(size=(width, 2.8))
    figure = plots.performance_matrix(results.Matrix(lanes, tasks, values), options=options, by_task=by_task)
    assert not overlaps(figure)
    assert not cut_off(figure)
    *panels, bar = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title().replace("\n", "") for axes in panels] == LONG
    assert [len(axes.texts) for axes in panels] == [64 * (visits == 8 and width > 4)] * 3
    step = 2 if visits == 8 else 10
    assert [text.get_text() for text in panels[0].get_yticklabels()] == [
        str(visit) for visit in range(step, visits + 1, step)
    ]
    assert bar.get_xlabel() if width < 4 else bar.get_ylabel()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("", [""]),
        ("the_baseline_without_any_change, learning_rate=0.001", 3),
        ("w" * 40, 3),
        (r"$\alpha_{a\_very\_long\_index\_of\_a\_formula}$", 1),
    ],
)
def test_names_are_broken_into_lines_that_fit_and_lose_no_letter(text, lines):
    found = fitted(text, 1.4)
    assert found.replace("\n", "").replace(" ", "") == text.replace(" ", "")
    assert found.split("\n") == lines if isinstance(lines, list) else found.count("\n") == lines - 1
    if text and "$" not in text:
        assert text_width(found) <= 1.4
