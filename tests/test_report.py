"""The page of a run: its numbers are those of ``results``, its text is escaped, and it works in a browser."""

import html.parser
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_run as made
import tiny

from plasticity import report, results
from plasticity.cli import main
from plasticity.plots import style
from plasticity.report import lines, words
from plasticity.report.facts import facts
from plasticity.report.intervals import cut, cut_stages
from plasticity.report.page import embedded
from plasticity.results.change import rule
from plasticity.results.verdict import verdict
from plasticity.results.verdict import words as rule_words
from plasticity.runs import launch

ARMS = ["baseline", "<b>", "fresh"]
VISITS = 14
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def planned(arms=ARMS, visits=VISITS, steps=20, **more):
    plan = made.plan(arms, tasks=["a", "b"], visits=[(visit % 2, steps) for visit in range(visits)], lanes=3, **more)
    placement = {"devices": 2, "groups": 1, "width": 3}
    bytes_ = {"state": 1024, "workspace": 512}
    plan["programs"] = [{"arm": arm, "lanes": 3, "placement": placement, "bytes_per_device": bytes_} for arm in arms]
    plan["arms"] = [{**each, "task_aware": each["name"] == "fresh"} for each in plan["arms"]]
    return plan | {"versions": {"python": "3.11", "odd": "</script><script>x"}}


def test_probes_are_named_and_linked(tmp_path):
    """The first is half done (one of two arms) and has a page of its own; the second has not started."""
    place = made.invented(tmp_path / "a run", planned(), [3, 4, 5])
    (place / "experiment.yaml").write_text("name: made\nprobes: {next: {at: [1]}, first: {at: [2]}}\n")
    probe = made.invented(place / "probes/next", planned(["a.after1", "a.fresh"]), [3, 4, 5])
    status(probe, "a.after1")
    (probe / "report.html").write_text("")
    (found,) = report.collect([place])["groups"][0]["runs"]
    assert [(each["name"], each["started"], each["share"]) for each in found["probes"]] == [
        ("next", True, 0.5), ("first", False, 0.0),
    ]  # fmt: skip
    text = report.save([place]).read_text()
    assert '<li><a href="probes/next/report.html">next</a>: 50 % done' in text
    assert '<li><a href="probes/first">first</a>: not started' in text
    assert f"plasticity report &#x27;{place}/probes/next&#x27;" in text
    text = report.save([place], tmp_path / "page.html").read_text()
    assert '<a href="a%20run/probes/next/report.html">next</a>' in text
    assert "Probes" not in report.page(report.collect([probe]))


def test_invented_plans_have_the_keys_of_real_ones():
    real, invented = launch.plan(tiny.experiment()).describe(), planned()
    for key in ("arms", "programs"):
        assert set(invented[key][0]) <= set(real[key][0]), key
    assert set(invented["stream"]) <= set(real["stream"])
    assert set(invented) - {"versions"} <= set(real)  # added when the plan is written


def status(folder, arm, **facts):
    done = {"finished": [0], "program": 0, "lanes": 3, "steps": 280, "state": "finished", "visit": 13, "step": 280}
    (folder / arm / "status.json").write_text(
        json.dumps(done | {"steps_per_second": 100.0, "updated": 86400.0} | facts)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three arms, three seeds; one lane of the second arm is lost at step 100."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    made.invented(
        folder, planned(), [3, 4, 5], monitors=("effective_rank", "norm", "norm/a"), diverged={"<b>": {1: 100}}
    )
    for arm in ARMS:
        status(folder, arm)
    config = "# python 3.11\nname: made\nstream: {kind: relabelled}\nagent: {kind: dqn}\narms: {baseline: {}, x: <i>}\n"
    (folder / "experiment.yaml").write_text(config)
    return folder


@pytest.fixture(scope="module")
def data(run):
    return report.collect([run])


@pytest.fixture(scope="module")
def text(data):
    return report.page(data)


# ---------------------------------------------------------------------------------------------- numbers


def line_of(group, chart, metric, series):
    found = next(each for each in group["charts"][chart] if each["name"] == metric)
    return next(line for line in found["lines"] if line["s"] == series)


@pytest.mark.parametrize("place", range(3))
def test_curves_are_those_of_results(run, data, place):
    group = data["groups"][0]
    assert [line["label"] for line in group["series"]] == ARMS
    visits, metrics = results.visits(run), results.load(run)
    for chart, table, name, x in (
        ("visits", visits, "performance", "visit"),
        ("stream", metrics, "reward", "step"),
        ("monitors", metrics, "effective_rank", "step"),
    ):
        expected = results.curve(table[table["arm"] == ARMS[place]], name, x).dropna(subset="mean")
        line = line_of(group, chart, name, place)
        assert group["grids"][line["g"]] == [each + (x == "visit") for each in expected.index]
        np.testing.assert_allclose(line["m"], expected["mean"], rtol=1e-4)
        half = np.array(line["h"], float)
        trusted = (expected["n"] >= 3).to_numpy()  # of three seeds all three
        np.testing.assert_allclose(half[trusted], (expected["high"] - expected["mean"])[trusted], rtol=1e-2)
        assert np.isnan(half[~trusted]).all()
        assert (~trusted).any() == (place == 1)  # a lane of this arm is lost


def test_the_summary_is_that_of_results(run, data):
    expected = results.summary(run)
    rows = data["groups"][0]["runs"][0]["summary"]
    assert [row["arm"] for row in rows] == ARMS
    for row, (_, wanted) in zip(rows, expected.iterrows(), strict=True):
        for name in ("first", "last", "gap", "gap_low", "gap_high", "closed"):
            assert row[name] is None if math.isnan(wanted[name]) else row[name] == wanted[name]
        assert (row["lanes"], row["diverged"], row["seeds"]) == (3, wanted["diverged"], wanted["seeds"])
    assert [row["task_aware"] for row in rows] == [False, False, True]
    assert [row["series"] for row in rows] == [0, 1, 2]


def test_arms_look_as_in_the_figures(run, data):
    drawn = style.series(results.load(run), None, ("fresh",))
    assert [line["colour"] for line in data["groups"][0]["series"]] == [line.look["color"] for line in drawn]
    assert [line["marker"] for line in data["groups"][0]["series"]] == [line.look["marker"] for line in drawn]


def test_long_curves_are_averaged_over_neighbours_within_visits():
    # two lanes, two visits of 3 and 4 records, at most 4 points: groups (1, 2) (3), (4, 5) (6, 7)
    rows = pd.DataFrame({"step": [*range(1, 8)] * 2, "lane": [0] * 7 + [1] * 7, "series": 0})
    rows["value"] = [1, 3, 5, 7, 9, 11, 13, 2, 4, 6, 8, 10, 12, np.nan]
    grids = lines.Grids()
    (line,) = lines.lines(rows, "value", "step", (3, 7), 4, grids)
    assert grids.lists == [[2, 3, 5, 7]]
    assert line["m"] == [2.5, 5.5, 8.5, 12]  # lane means 2 and 3; 5 and 6; 8 and 9; 12 and 12
    half = 12.7062 * np.sqrt(0.5) / np.sqrt(2)  # t(0.975) of one degree of freedom
    np.testing.assert_allclose(line["h"], [half, half, half, 0], rtol=1e-2)


def test_many_lines_get_fewer_points():
    assert lines.most_points(1) == 800
    assert lines.most_points(1000) == 130
    assert lines.most_points(10**6) == 12


# ---------------------------------------------------------------------------------------------- words


def row(**numbers):
    base = {"arm": "x", "lanes": 4, "diverged": 0, "seeds": 4, "first": 0.8, "last": 0.7}
    return base | {"own": -0.1, "own_low": -0.15, "own_high": -0.05, "own_seeds": 4} | numbers


def falling(low, mean, high, gap=(-0.3, -0.2, -0.1)):
    """A row whose difference to the control changes so from the first to the last tenth."""
    names = [f"{name}{bound}" for name in ("change", "gap") for bound in ("_low", "", "_high")]
    return row(change_seeds=4, **dict(zip(names, (low, mean, high, *gap), strict=True)))


def stream_of(order, alike=True):
    visits = [{"task": task, "steps": 10} for task in order]
    return {"episodic": True, "alike": alike, "tasks": list("abc"), "visits": visits}


SEQUENCE, SINGLE, GAMES = rule(stream_of([0, 1, 2])), rule(stream_of([0])), rule(stream_of([0, 1, 2], alike=False))
CONTROLLED, ALONE = {"x": "fresh", "fresh": None}, {"x": None}


@pytest.mark.parametrize(
    ("given", "controls", "word"),
    [  # the control is at 0.7 + 0.2, a tenth of it is 0.09; a twentieth of the first level is 0.04
        (falling(-0.3, -0.2, -0.1), CONTROLLED, "loses"),
        (falling(-0.08, -0.05, -0.01), CONTROLLED, "slips"),
        (falling(-0.1, -0.08, -0.01), CONTROLLED, "falls"),  # may be more than 0.09, may be less
        (falling(-0.1, -0.1, -0.01), CONTROLLED, "falls"),
        (falling(0.1, 0.2, 0.3), CONTROLLED, "keeps"),
        (falling(-0.08, 0.0, 0.1), CONTROLLED, "keeps"),
        (falling(-0.1, 0.0, 0.1), CONTROLLED, "open"),
        (falling(math.nan, -0.2, math.nan), CONTROLLED, "open"),
        (row(change=math.nan), CONTROLLED, ""),  # the control has not reached it yet
        (row(arm="fresh", change=math.nan), CONTROLLED, "control"),
        (row(last=math.nan, seeds=0), CONTROLLED, "unfinished"),
        (row(last=math.nan, seeds=0, diverged=4), CONTROLLED, "diverged"),
        (row(), ALONE, "falls"),
        (row(own=0.1, own_low=0.05, own_high=0.15), ALONE, "rises"),
        (row(own=0.0, own_low=-0.03, own_high=0.03), ALONE, "holds"),
        (row(own=0.0, own_low=-0.05, own_high=0.05), ALONE, "open"),
        (row(own=-0.02, own_low=-0.05, own_high=0.01), ALONE, "open"),
        (row(own_low=math.nan, own_high=math.nan), ALONE, "open"),
    ],
)
def test_verdicts(given, controls, word):
    assert verdict(given, SEQUENCE, controls).word == word


@pytest.mark.parametrize("low", [-0.2, -0.09, -0.05, 0.0, 0.05])
@pytest.mark.parametrize("high", [-0.1, -0.09, -0.05, 0.0, 0.1])
def test_verdicts_follow_the_table_of_the_documentation(low, high):
    """As docs/statistics.md and the report define the words; of an interval exactly one is true."""
    if low > high:
        return
    margin = 0.1 * abs(0.7 + 0.2)
    says = {
        "loses": high < -margin,
        "slips": -margin < low and high < 0,
        "falls": low <= -margin <= high < 0,
        "keeps": low > -margin and high >= 0,
        "open": low <= -margin and high >= 0,
    }
    assert [word for word, true in says.items() if true] == [
        verdict(falling(low, (low + high) / 2, high), SEQUENCE, CONTROLLED).word
    ]
    table = (Path(__file__).parent.parent / "docs/statistics.md").read_text(encoding="utf-8")
    assert "| keeps | lies above -margin, and reaches or exceeds 0 |" in table
    meanings = dict(rule_words(SEQUENCE, CONTROLLED))
    assert meanings.keys() == {*says}
    assert "lies above that loss and reaches or exceeds zero" in meanings["keeps"]


def test_no_verdict_where_nothing_can_be_compared():
    assert verdict(row(), SINGLE, ALONE).word == ""
    assert verdict(row(last=math.nan), GAMES, ALONE) == ("", "no task recurs: see each task separately")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (falling(-0.01, 0.0, 0.01), "behind fresh from the start"),
        (falling(-0.3, -0.2, -0.1), "behind fresh at the end"),
        (falling(-0.3, -0.2, -0.1, gap=(-0.1, 0.0, 0.1)), "not distinguishable from fresh at the end"),
        (falling(0.1, 0.2, 0.3, gap=(0.1, 0.2, 0.3)), "above fresh at the end"),
        # s = 0.1 * 2 / 3.182 = 0.0629; the margin is 0.07; 2.776 s / sqrt 5 = 0.078 and 2.571 s / sqrt 6 = 0.066
        (
            falling(-0.1, 0.0, 0.1, gap=(-0.1, 0.0, 0.1)),
            "about 6 seeds would decide; not distinguishable from fresh at the end",
        ),
    ],
)
def test_the_verdict_says_where_the_arm_ends(given, why):
    assert verdict(given, SEQUENCE, CONTROLLED).why == why


def test_numbers_in_words():
    assert [words.number(value) for value in (0.0, 0.12345, -12.3, 1234.5, 1e-7)] == [
        "0.00", "0.123", "\u221212.3", "1,234", "1.0e\u221207",
    ]  # fmt: skip
    assert [words.duration(value) for value in (41.2, 200, 18120, 183600)] == [
        "41 s",
        "3 min 20 s",
        "5 h 2 min",
        "2 d 3 h",
    ]
    assert [words.size(value) for value in (12, 1536, 3 * 2**30)] == ["12 B", "1.5 KiB", "3.0 GiB"]
    assert [words.plural(count, "arm") for count in (1, 1000)] == ["1 arm", "1,000 arms"]


# ---------------------------------------------------------------------------------------------- facts


def test_facts_of_a_finished_run(run):
    found = facts(run)
    assert (found["finished"], found["share"], found["seeds"]) == (True, 1.0, [3, 4, 5])
    assert found["diverged"] == [{"arm": "<b>", "lane": 1, "seed": 4, "step": 100}]
    assert found["command"] == f"plasticity run {run}/experiment.yaml --out {run}-again"
    assert found["config"].startswith("name: made\n")
    assert (found["stream"], found["agent"]) == ("relabelled", "dqn")
    arm = found["arms"][0]
    assert (arm["speed"], arm["seconds"], arm["bytes"]) == (100.0, 3 * 280 / 100, [1536])


def test_a_half_finished_run_says_so(tmp_path):
    folder = tmp_path / "half"
    until = {"baseline": 280, "<b>": 110, "fresh": 0}
    made.invented(folder, planned(), [0, 1], until=until)
    status(folder, "baseline")
    status(folder, "<b>", finished=[], state="interrupted", step=140, visit=6)
    found = facts(folder)
    assert [arm["state"] for arm in found["arms"]] == ["finished", "interrupted", "not started"]
    assert found["share"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["command"].endswith(f"--out {folder} --resume")
    text = report.page(report.collect([folder]))
    assert "Not finished: 50 % done." in text
    assert "&lt;b&gt;, fresh." in text
    assert [row["verdict"] for row in report.collect([folder])["groups"][0]["runs"][0]["summary"]][1:] == [
        "unfinished"
    ] * 2


def test_nothing_recorded_yet(tmp_path):
    folder = made.write(tmp_path / "new", planned())
    assert "Nothing has been recorded yet" in report.page(report.collect([folder]))


@pytest.mark.parametrize(("arms", "visits", "seeds"), [(["only"], 1, [0]), (["only"], 3, [0]), (ARMS, 1, [0, 1])])
def test_small_runs(tmp_path, arms, visits, seeds):
    folder = made.invented(tmp_path / "run", planned(arms, visits), seeds, monitors=())
    group = report.collect([folder])["groups"][0]
    assert set(group["charts"]) == ({"stream"} if visits == 1 else {"visits", "stream"})
    line = group["charts"]["stream"][0]["lines"][0]
    assert ("h" in line) == (len(seeds) > 1)
    assert "<main" in report.page(report.collect([folder]))


def test_several_runs(tmp_path, run):
    other = made.invented(tmp_path / "other", planned(["baseline"], visits=3), [0, 1])
    twin = made.invented(tmp_path / "twin", planned(), [0, 1])
    data = report.collect([run, other, twin])
    groups, text = data["groups"], report.page(data)
    assert data["title"] == "run, twin, other"
    assert all(f'<a href="#{each["anchor"]}">{each["label"]}</a>' in text for each in groups[0]["runs"])
    assert [len(group["runs"]) for group in groups] == [2, 1]  # runs on the same stream share charts
    assert [line["label"] for line in groups[0]["series"]] == [
        f"{name}: {arm}" for name in ("run", "twin") for arm in ARMS
    ]
    assert [row["series"] for row in groups[0]["runs"][1]["summary"]] == [3, 4, 5]
    assert len({line["colour"] for line in groups[0]["series"] if "fresh" not in line["label"]}) == 4


def test_evaluations_are_a_table(tmp_path):
    folder = made.invented(tmp_path / "run", planned(["a<"], visits=2, episodic=True), [0, 1])
    (folder / "a<" / "evaluations").mkdir()
    keys = {"arm": "a<", "frames": 0, "visit": 1, "task": "b", "step_in_visit": 20, "evaluated_visit": 0}
    rows = [
        {**keys, "lane": lane, "seed": lane, "step": step, "evaluated_task": "a", "episodic_return": value}
        for lane, step, value in ((0, 20, 9.0), (1, 20, 9.0), (0, 40, 1.0), (1, 40, 2.0))
    ]
    pd.DataFrame(rows).to_parquet(folder / "a<" / "evaluations" / "part-00000.parquet", index=False)
    group = report.collect([folder])["groups"][0]
    half = 12.7062 * np.sqrt(0.5) / np.sqrt(2)
    (found,) = group["runs"][0]["evaluations"]["rows"]
    np.testing.assert_allclose(found["cells"]["a"], [1.5, 1.5 - half, 1.5 + half], rtol=1e-4)
    assert "evaluation on a" in [metric["label"] for metric in group["charts"]["stream"]]
    assert "<h3>Evaluations</h3>" in report.page(report.collect([folder]))


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no runs to report"):
        report.collect([])
    with pytest.raises(ValueError, match="there is no such folder"):
        report.save([tmp_path / "absent"])


# ---------------------------------------------------------------------------------------------- the file


class Parsed(html.parser.HTMLParser):
    """Which elements are open where, and the text outside scripts."""

    VOID = ("meta", "link", "br", "circle", "line", "path", "rect")
    LOOSE = ("th", "td")  # end where the next one or the row begins

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.words = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in (*self.VOID, *self.LOOSE):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in (*self.VOID, *self.LOOSE):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words += data


def test_the_page_is_whole_and_its_text_escaped(text):
    parsed = Parsed()
    parsed.feed(text)
    assert parsed.open == []
    assert "b" not in [tag for tag, _ in parsed.seen]
    assert "<b>" in parsed.words
    assert "odd </script><script>x" in parsed.words
    assert "x: <i>" in parsed.words
    assert sum(tag == "script" for tag, _ in parsed.seen) == 2
    assert text.count("</script>") == 2


def test_the_page_needs_nothing_else(text):
    assert not re.search(r"https?:|//[a-z]|\bsrc=|@import|url\((?!#)|<link", text.replace("//# ", ""))
    named = Parsed()
    named.feed(text)
    assert not [each for _, each in named.seen if {"src", "href", "srcset", "action"} & set(each)]


def test_embedded_data_is_the_dict_and_cannot_end_its_element(data, text):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    (group,) = json.loads(found[1])
    assert group["series"] == data["groups"][0]["series"]
    assert group["charts"] == data["groups"][0]["charts"]
    assert embedded("</script>&\u2028") == '"\\u003c/script\\u003e\\u0026\\u2028"'


def test_a_long_run_makes_a_small_page(tmp_path):
    count, seeds = 2000, [0, 1]
    plan = planned([f"arm_{place}" for place in range(12)], visits=1, steps=count)
    table = made.records("x", plan, seeds, rewards=np.random.default_rng(0).random((2, count)), every=1)
    for name in range(25):
        table[f"metric_{name}"] = np.random.default_rng(name).normal(size=len(table))
    arms = [arm["name"] for arm in plan["arms"]]
    tables = {arm: table.assign(arm=arm) for arm in arms}
    folder = made.write(tmp_path / "long", plan, {arm: made.lane_table(seeds) for arm in arms}, tables)
    path = report.save([folder])
    assert path == folder / "report.html"
    assert 1e6 < path.stat().st_size < 3e6


def test_the_command(run, tmp_path, monkeypatch, capsys):
    def said(*words):
        monkeypatch.setattr(sys, "argv", ["plasticity", "report", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, " ".join(out.split()), err

    path = tmp_path / "new" / "page.html"
    code, out, _ = said(run, "--out", path)
    assert code == 0
    assert out.startswith("report: ")
    assert path.read_text() == report.page(report.collect([run]))
    code, _, err = said(tmp_path / "absent")
    assert code == 2
    assert "there is no such folder" in err
    code, _, err = said(run, "--out", path / "x.html")  # a file where a folder should be
    assert code == 2
    assert "cannot be written" in err


def test_metrics_of_layers_are_left_out_where_there_is_no_room(tmp_path, monkeypatch):
    folder = made.invented(tmp_path / "run", planned(["only"], visits=1), [0], monitors=("norm", "norm/a"))
    monkeypatch.setattr("plasticity.report.data.BUDGET", 79)  # of two lines of 40 points each
    data = report.collect([folder])
    assert [metric["name"] for metric in data["groups"][0]["charts"]["monitors"]] == ["norm"]
    assert "Left out to keep this page small: 1 metric of single layers" in report.page(data)


# ---------------------------------------------------------------------------------------------- in a browser

CHECKS = """
<script>
const failed = []; let count = 0;
const check = (what, fine) => { count++; if (!fine) failed.push(what); };
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const [visits, stream, monitors] = all(".chart"), [chart, , inside] = explorers[0].charts;
const shown = (section) => all(".figure .one", section).map((one) => Number(one.dataset.series));
const pointer = (type, x, y, target = chart.svg) => {
  const box = target.getBoundingClientRect();
  const where = { clientX: box.left + x, clientY: box.top + y };
  target.dispatchEvent(new PointerEvent(type, { ...where, button: 0, bubbles: true }));
};
const press = (key) => chart.svg.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const near = (found, wanted) => found.every((each, place) => Math.abs(each - wanted[place]) < 0.05);
const path = () => visits.querySelector(".one .line").getAttribute("d");

check("hash hides an arm in all charts", [visits, stream, monitors].every((each) => String(shown(each)) === "0,2"));
const keys = all(".key");
check("legend says so", keys[1].getAttribute("aria-pressed") === "false");
check("names are text", keys[1].textContent.trim() === "<b>" && !document.querySelector("b"));
keys[1].click();
check("click shows it", [visits, stream, monitors].every((each) => String(shown(each)) === "0,1,2"));
keys[2].dispatchEvent(new MouseEvent("click", { shiftKey: true, bubbles: true }));
check("shift-click shows one", String(shown(stream)) === "2");
document.querySelector('[data-do="none"]').click();
check("hide all", shown(visits).length === 0);
document.querySelector('[data-do="all"]').click();
check("show all", shown(visits).length === 3);

check("bands", all(".band", visits).length >= 3);
const line = data[0].charts.visits[0].lines[0], grid = data[0].grids[line.g];
pointer("pointermove", chart.toX(grid[4]), chart.toY(line.m[4]));
const tip = visits.querySelector(".tip");
check("hover names the visit", !tip.hidden && tip.textContent.includes("visit 5") && tip.textContent.includes("a"));
check("hover shows the value", tip.querySelector(".nearest").textContent.includes("baseline" + number(line.m[4])));
const bounds = `[${number(line.m[4] - line.h[4])}, ${number(line.m[4] + line.h[4])}]`;
check("hover shows the interval", tip.querySelector(".nearest .bounds").textContent === bounds);
pointer("pointerleave", 0, 0);
check("leaving hides it", tip.hidden);

const before = path(), x = [chart.toX(3), chart.toX(8)];
pointer("pointerdown", x[0], 100); pointer("pointermove", x[1], 102); pointer("pointerup", x[1], 102);
check("dragging zooms", near(chart.range, [3, 8]) && path() !== before);
check("the others keep their axis", explorers[0].charts[1].range[0] === 0);
check("a way back is offered", !chart.back.hidden);
chart.svg.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
check("double click shows all again", path() === before && chart.back.hidden);
const heights = [chart.fromY(200), chart.fromY(60)];
pointer("pointerdown", x[0], 60); pointer("pointermove", x[1], 200); pointer("pointerup", x[1], 200);
check("a rectangle zooms both axes", near(chart.range, [3, 8]) && near(chart.tallNow, heights));
press("Escape");
check("escape shows all again", path() === before);
press("+");
check("plus zooms", chart.range[1] - chart.range[0] < 8);
press("Escape"); press("ArrowRight"); press("ArrowRight");
check("arrow keys read values", visits.querySelector(".said").textContent.includes("visit 2"));
press("Escape");

const linear = path();
chart.logButton.click();
check("log", chart.logButton.getAttribute("aria-pressed") === "true" && path() !== linear);
check("log is a logarithm", Math.abs(chart.toY(0.4) - chart.toY(0.2) - (chart.toY(0.8) - chart.toY(0.4))) < 1e-6);
chart.logButton.click();
check("and back", path() === linear);
chart.select.value = "1"; chart.select.dispatchEvent(new Event("change"));
check("metric", chart.metric.name === "performance_end");
check("parts of a metric stand under it", all("optgroup option").map((each) => each.textContent).join() === "norm/a");
all(".thumb", monitors)[1].click();
check("a thumbnail chooses", inside.metric.name === "norm" && inside.select.value === "1");
check("focus and names", all(".figure").every((each) => each.tabIndex === 0 && each.getAttribute("aria-label")));
check("swatches have markers", all(".key .mark").length === 2);
check("nothing is wider than the page", document.documentElement.scrollWidth <= innerWidth);
const outcome = failed.length ? `failed: ${failed.join("; ")}` : `passed ${count}`;
document.body.append(element("pre", { id: "selftest" }, outcome));
</script>
"""


def in_browser(text, checks, folder, width=1200, fragment=""):
    """What the checks write into the page."""
    path = folder / "page.html"
    path.write_text(text.replace("</body>", f"{checks}</body>"))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},1600", "--dump-dom"]
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [BROWSER, *options, profile, "--virtual-time-budget=4000", f"file://{path}{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="selftest">(.*?)</pre>', done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    return found[1]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("width", [1200, 400])
def test_the_page_works_in_a_browser(text, tmp_path, width):
    assert re.fullmatch(r"passed \d\d", in_browser(text, CHECKS, tmp_path, width, "#hide=%3Cb%3E"))


TASK_CHECKS = """
<script>
const [chart, stream] = explorers[0].charts;
const pieces_ = () => document.querySelectorAll(".chart[data-chart=visits] .one .line").length;
const fine = [pieces_() === 2, chart.thumbs.length === 2];
chart.thumbs[1].button.click();
fine.push(pieces_() === 1, chart.tasks.value === "1", stream.task === 1);
fine.push(stream.shown[0].points.every((point) => point.visit % 2 === 1) && stream.shown[0].points.length === WANTED);
stream.thumbs[1].button.click();
fine.push(chart.task === null && chart.tasks.value === "");
document.body.append(element("pre", { id: "selftest" }, fine.join()));
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_tasks_with_scales_of_their_own_can_be_chosen(tmp_path):
    folder = made.invented(tmp_path / "run", planned(["only"], visits=4, episodic=True), [0, 1], monitors=())
    collected = report.collect([folder])
    group = collected["groups"][0]
    places = group["grids"][group["charts"]["stream"][0]["lines"][0]["g"]]
    second = sum((place - 1) // 20 % 2 for place in places)  # records of the second task
    assert 0 < second < len(places)
    checks = TASK_CHECKS.replace("WANTED", str(second))
    assert in_browser(report.page(collected), checks, tmp_path) == ",".join(["true"] * 7)


LAYOUT_CHECKS = """
<script>
const table = document.querySelector(".summary .scroll");
const box = (name) => document.querySelector(name).getBoundingClientRect();
const space = box(".summary h3").top - box(".rule").bottom;
const results_ = [table.scrollWidth <= table.clientWidth, space >= 30];
document.body.append(element("pre", { id: "selftest" }, results_.join()));
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_the_verdicts_fit_the_page_and_the_next_heading_keeps_its_distance(tmp_path):
    plan = planned(["baseline", "fresh", "stream_q", "fresh_stream_q"], visits=4, episodic=True)
    for entry in plan["arms"]:
        entry["control"] = {"stream_q": "fresh_stream_q", "baseline": "fresh"}.get(entry["name"])
    page = report.page(report.collect([made.invented(tmp_path / "run", plan, [0, 1, 2], monitors=())]))
    assert "change of the gap to control" in page
    assert "Task by task" in page
    assert in_browser(page, LAYOUT_CHECKS, tmp_path) == "true,true"


# --------------------------------------------------------------------------------------------- bounds of intervals


def test_intervals_end_at_the_bounds_of_their_number_and_means_stay():
    """Accuracies in [0, 1]: a difference is in [-1, 1], a difference of differences in [-2, 2]."""
    row = {}
    for name, mean in (("first", 0.95), ("last", 0.1), ("gap", -0.9), ("own", -0.85), ("change", -1.5)):
        row |= {name: mean, f"{name}_low": mean - 3, f"{name}_high": mean + 3}
    found = cut_stages({**row, "closed": 0.4}, (0.0, 1.0))
    ends = {
        name: (found[f"{name}_low"], found[name], found[f"{name}_high"]) for name in ("first", "last", "gap", "own")
    }
    assert ends == {"first": (0, 0.95, 1), "last": (0, 0.1, 1), "gap": (-1, -0.9, 1), "own": (-1, -0.85, 1)}
    assert (found["change_low"], found["change_high"], found["closed"]) == (-2, 1.5, 0.4)
    assert cut_stages(row, (-np.inf, np.inf)) == row
    assert cut_stages({"last": None, "last_low": None, "last_high": None}, (0.0, 1.0))["last_low"] is None
    assert cut(1.2, 0.7, 1.7, (0.0, 1.0)) == (0.7, 1.2)  # a mean beyond the range is neither moved nor left outside


def test_charts_and_tables_of_a_page_are_cut(tmp_path):
    """Accuracies 0.9 and 1.0 of two seeds: t reaches from 0.315 to 1.585."""
    plan = made.plan(["one"], tasks=["t"], visits=[(0, 10)] * 4)
    plan["stream"]["reward_range"], plan["ranges"] = [0, 1], {"dormant_units": [0, 1]}
    rewards = np.repeat([[0.9], [1.0]], made.number_of_records(plan), axis=1)
    given = {"rewards": rewards, "dormant_units": 1 - rewards, "dormant_units/hidden_0": rewards}
    tables = {"one": made.records("one", plan, [0, 1], **given)}
    group = report.collect([made.write(tmp_path / "run", plan, {"one": made.lane_table([0, 1])}, tables)])["groups"][0]
    (row,) = group["runs"][0]["summary"]
    for name in ("first", "last"):
        assert (row[name], row[f"{name}_high"]) == (pytest.approx(0.95), 1.0)
        assert row[f"{name}_low"] == pytest.approx(0.95 - 12.7062 * 0.05, abs=1e-4)
    ranges = {each["name"]: each["range"] for found in group["charts"].values() for each in found}
    names = ("performance", "performance_end", "reward", "dormant_units", "dormant_units/hidden_0")
    assert ranges == {name: [0.0, 1.0] for name in names}
