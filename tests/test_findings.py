"""Findings: their files, the exact ones, and a tiny one run, stopped, resumed and judged."""

import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from plasticity.cli import main
from plasticity.config.documents import to_yaml
from plasticity.core.errors import Interrupted, UserError
from plasticity.findings import (
    EXACT_NAMES,
    by_visit,
    judge,
    load_findings,
    parse_criterion,
    parse_finding,
    quantities,
    store,
)
from plasticity.findings import run as running
from plasticity.findings.exact import EXACT
from plasticity.findings.figure import figure, without_outliers
from plasticity.findings.judge import Verdict
from plasticity.findings.numbers import check_names
from plasticity.findings.show import outcome, rows, section
from plasticity.runs import launch, tuning

FACTS = {"id": "T1", "title": "a title", "source": "a source", "published": "a number", "minutes": 0.1}
CLAUSES = [
    {
        "what": "performance",
        "arms": ["one/baseline", "one/fresh"],
        "compare": "difference",
        "direction": "below",
        "bound": 9,
    },
    {
        "what": "weight_norm",
        "arms": ["two/baseline", "one/baseline"],
        "compare": "ratio",
        "direction": "above",
        "bound": 0.1,
    },
    {"what": "performance", "against": "weight_norm", "compare": "correlation", "direction": "above", "bound": -2},
]


def document():
    arms = {"baseline": {}, "fresh": {"task_aware": True, "interventions": ["reset"]}}
    experiment = tiny.document(seeds=8, arms=arms)
    del experiment["name"]
    return {
        "finding": {**FACTS, "criterion": {"needs": "all", "clauses": copy.deepcopy(CLAUSES)}},
        "experiment": experiment,
        "parts": {"one": {}, "two": {"stream": {"fraction": 0.5}}},
        "full": {"stream": {"steps_per_task": 40}},
    }


def parse(raw):
    return parse_finding(raw, "made", "made.yaml", EXACT_NAMES)


def test_the_names_of_the_exact_ones_are_known_without_the_numerics():
    assert set(EXACT_NAMES) == set(EXACT)


@pytest.mark.parametrize("name", ["adam_over_step", "clip_and_rank"])
def test_the_exact_findings_hold(name, tmp_path):
    (finding,) = load_findings([name], EXACT_NAMES)
    result = running.run_finding(finding, tmp_path, say=lambda line: None)
    assert result["passed"], [each["text"] for each in result["clauses"] if not each["holds"]]


IN_A_SET = """
import os, sys, warnings
os.sched_getaffinity = lambda process: {0, 1}
from plasticity.runs import launch
from plasticity.findings import EXACT_NAMES, load_findings, run
if sys.argv[1] == "exact":
    run.run_finding(load_findings(["clip_and_rank"], EXACT_NAMES)[0], run.store.Path(sys.argv[2]))
else:
    import jax
    jax.devices()
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    print(len(launch.devices()), *(each.message for each in told))
"""


@pytest.mark.parametrize(
    ("first", "expected"), [("exact", "2"), ("jax", "1 JAX is already initialised: runs have one device")]
)
def test_an_exact_finding_leaves_all_cores_to_those_after_it(first, expected, tmp_path):
    """A device for each core; where JAX made its devices before, a warning."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", IN_A_SET, first, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.splitlines()[-1].startswith(expected)


@pytest.mark.slow
def test_a_tuned_finding_is_judged_at_the_selected_points(tmp_path):
    """The sweep of each arm is tuned in each part; a stop after the tuning runs changes nothing."""
    raw = document()
    raw["experiment"] |= {
        "sweep": {"agent.optimizer.learning_rate": [1e-3, 1e-1]},
        "tune": {"first": "50%", "seeds": 2},
    }
    raw["parts"]["two"] |= {"tune": {"first": "100%"}}
    raw["finding"]["criterion"]["clauses"].pop()  # a correlation over the points
    finding, whole, stopped = parse(raw), tmp_path / "whole", tmp_path / "stopped"
    result = running.run_finding(finding, whole, say=lambda line: None)
    for part, steps in (("one", 30), ("two", 60)):
        chosen = json.loads((whole / "made" / part / "tuning" / "selection.json").read_text())
        assert chosen["steps"] == steps
    first, place = running.experiments(finding)["one"], store.place_of(finding, stopped) / "one"
    launch.run(tuning.first_phase(first), place / "tuning")
    again = running.run_finding(finding, stopped, say=lambda line: None)
    assert again["clauses"] == result["clauses"]


@pytest.mark.slow
def test_the_quick_finding_holds(tmp_path):
    """A network that loses plasticity and a remedy that keeps it: the whole way from the file to the verdict."""
    (finding,) = load_findings(["new_labels"], EXACT_NAMES)
    result = running.run_finding(finding, tmp_path, say=lambda line: None)
    assert result["passed"], [each["text"] for each in result["clauses"] if not each["holds"]]


LONGER = {"offset_control": 25, "five_million_steps": 200}  # minutes


def test_every_finding_of_the_repository_is_sound():
    findings = load_findings([], EXACT_NAMES)
    ids = [finding.id for finding in findings]
    assert len(set(ids)) == len(ids)
    assert ids[:2] == ["F1", "F2"]
    for finding in findings:
        assert 0 < finding.minutes <= LONGER.get(finding.name, 20), finding.name
        for full in (False, True):
            running.experiments(finding, full)


def test_parts_and_the_full_size():
    finding = parse(document())
    assert list(finding.parts) == ["one", "two"]
    assert finding.parts["two"]["stream"]["fraction"] == 0.5
    assert finding.parts["two"]["stream"]["steps_per_task"] == 20
    assert finding.full["two"]["stream"]["steps_per_task"] == 40
    assert running.experiments(finding)["one"].name == "made-one"


def test_the_digest_changes_with_the_criterion_and_not_with_the_words():
    raw = document()
    before, large = parse(raw).digest(), parse(raw).digest(full=True)
    raw["finding"]["title"] = "another title"
    assert parse(raw).digest() == before
    raw["full"]["seeds"] = 20
    assert parse(raw).digest() == before
    assert parse(raw).digest(full=True) != large
    raw["finding"]["criterion"]["clauses"][0]["bound"] = 8
    assert parse(raw).digest() != before


def changed(path, value):
    raw = document()
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return raw


MISTAKES = [
    (("finding", "idd"), 1, "unknown key `idd`.*did you mean `id`"),
    (("findings",), {}, "did you mean `finding`"),
    (("finding", "title"), 3, "must be text"),
    (("finding", "minutes"), "long", "at least 0"),
    (("finding", "correction"), "holmes", "finding.correction: .*did you mean `holm`"),
    (("exact",), "adam_over_step", "either `experiment` or `exact`"),
    (("experiment", "seeds"), 4, "must be 8 or more"),
    (("parts",), {"a/b": {}}, "not allowed"),
    (("finding", "criterion", "clauses", 0, "arms"), ["one/baseline", "one/frsh"], "did you mean `one/fresh`"),
    (("finding", "criterion", "clauses", 1, "what"), "weight_nrm", "did you mean `weight_norm`"),
    (("finding", "criterion", "clauses", 0, "arms"), [], "takes 2, got 0"),
    (("finding", "criterion", "clauses", 1, "what"), "evaluation", "needs `experiment.evaluation`"),
    (("finding", "criterion", "clauses", 1, "what"), "forgetting", "needs `experiment.evaluation: {every: visit"),
    (("experiment", "sweep"), {"agent.optimizer.learning_rate": [0.1, 0.2]}, "has a sweep"),
]


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES)
def test_mistakes_in_a_file(path, value, message):
    with pytest.raises(UserError, match=message) as error:
        parse(changed(path, value))
    assert str(error.value).startswith("made.yaml")


def test_a_metric_that_no_monitor_writes(tmp_path):
    finding = parse(changed(("finding", "criterion", "clauses", 1, "what"), "weight_norm/hidden_7"))
    with pytest.raises(UserError, match=r"arm baseline: unknown metric `weight_norm/hidden_7`.*did you mean"):
        running.run_finding(finding, tmp_path, say=lambda line: None)
    assert not (tmp_path / "made" / "one").exists()


def test_an_exact_finding_without_its_function():
    raw = {"finding": {**FACTS, "criterion": {"clauses": [CLAUSES[0]]}}, "exact": "adam_overstep"}
    with pytest.raises(UserError, match="did you mean `adam_over_step`"):
        parse(raw)


def test_an_exact_finding_has_numbers_only():
    raw = {"finding": {**FACTS, "criterion": {"clauses": [CLAUSES[0]]}, "correction": "holm"}, "exact": "clip_and_rank"}
    with pytest.raises(UserError, match=r"correction: \"holm\" is not allowed; an exact finding has no intervals"):
        parse(raw)
    clause = {"what": "sampled", "direction": "above", "bound": 0, "task": "pong"}
    with pytest.raises(UserError, match="x: criterion: `task` needs runs; an exact finding has numbers only"):
        check_names(parse_criterion({"clauses": [clause]}, "c"), {"sampled": 1.0}, "x")


def test_names_and_ids():
    assert [each.name for each in load_findings(["f1", "clip_and_rank"], EXACT_NAMES)] == [
        "adam_over_step",
        "clip_and_rank",
    ]
    with pytest.raises(UserError, match="did you mean `adam_over_step`"):
        load_findings(["adam_oversteps"], EXACT_NAMES)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    root = tmp_path_factory.mktemp("findings")
    finding = parse(document())
    return finding, root, running.run_finding(finding, root, say=lambda line: None)


@pytest.mark.slow
def test_a_finding_runs_and_is_judged(ran):
    finding, root, result = ran
    assert result["passed"]
    assert [each["seeds"] for each in result["clauses"]] == [8, 8, 8]
    assert (root / "made" / "one" / "plan.json").exists()
    assert (root / "made" / "two" / "plan.json").exists()
    assert 0 < result["minutes"] < 5
    assert [row[2] for row in rows(finding, result)] == ["holds"] * 3


def test_the_verdict_agrees_with_the_summary(ran):
    from plasticity import results

    _, root, result = ran
    table = results.summary(root / "made" / "one").set_index("arm")
    gap = table.loc["baseline", ["gap", "gap_low", "gap_high"]].to_numpy(float)
    assert [result["clauses"][0][key] for key in ("number", "low", "high")] == pytest.approx(gap, abs=1e-12)


def test_points_that_would_stretch_an_axis_are_drawn_at_its_edge():
    values = np.append(np.linspace(0.0, 1.0, 200), 5.0)
    framed = without_outliers(values)
    np.testing.assert_array_equal(framed[2:-3], values[2:-3])
    assert framed.max() == np.percentile(values, 99)
    near = np.append(np.linspace(0.0, 1.0, 200), 2.0)
    np.testing.assert_array_equal(without_outliers(near), near)
    for kept in (np.zeros(5), np.array([]), np.array([np.nan, 1.0])):
        np.testing.assert_array_equal(without_outliers(kept), kept)


def test_a_figure_of_one_visit_counts_from_one(ran):
    _, root, _ = ran
    clause = {"what": "performance", "arms": ["one/baseline"], "at": 0, "direction": "above", "bound": 0}
    facts = document()
    facts["finding"] = facts["finding"] | {"criterion": {"needs": "all", "clauses": [clause]}}
    finding = parse(facts)
    (axes,) = figure(finding, {part: root / "made" / part for part in finding.parts}).axes
    assert axes.get_title() == "performance, visit 1"


def test_the_figure_shows_the_quantities_of_the_criterion(ran):
    """Curves of what is judged over visits, dots of what is judged in one, lanes of what goes with something."""
    finding, root, _ = ran
    assert (root / "made" / "figure.png").stat().st_size > 5000
    runs = {part: root / "made" / part for part in finding.parts}
    curves, norms, lanes = figure(finding, runs).axes
    assert [each.get_title() for each in (curves, norms)] == ["performance", "weight_norm"]
    assert (lanes.get_xlabel(), lanes.get_ylabel()) == ("weight_norm", "performance")
    table = quantities.tables(runs)("performance", "end")
    expected = table[table["arm"] == "one/baseline"].groupby("visit")["value"].mean()
    (line,) = [each for each in curves.get_lines() if each.get_label() == "one/baseline"]
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
    assert sum(len(each.get_offsets()) for each in lanes.collections) == len(table) / table.attrs["visits"]  # type: ignore[misc]
    raw = document()
    raw["finding"]["criterion"] = {"clauses": [{**CLAUSES[0], "at": "end"}]}
    (dots,) = figure(parse(raw), runs).axes
    assert [label.get_text() for label in dots.get_yticklabels()] == list(dict.fromkeys(table["arm"]))
    last = table[table["visit"] == table.attrs["visits"] - 1].groupby("arm", sort=False)["value"].mean()
    np.testing.assert_allclose([each.lines[0].get_xdata()[0] for each in dots.containers], last, rtol=1e-6)  # type: ignore[attr-defined]


def test_a_finding_that_was_stopped_goes_on(tmp_path, monkeypatch):
    calls = []

    def stopped(experiment, out, *, resume, progress):
        calls.append((out.name, resume))
        (out / "experiment.yaml").parent.mkdir(parents=True, exist_ok=True)
        (out / "experiment.yaml").write_text("")
        if len(calls) == 2:
            raise Interrupted(15)

    finding = parse(document())
    monkeypatch.setattr(launch, "run", stopped)
    with pytest.raises(Interrupted):
        running.run_finding(finding, tmp_path, say=lambda line: None)
    assert store.read_result(tmp_path / "made") is None
    monkeypatch.setattr(running, "judge", lambda criterion, tables, least, correction: Verdict(True, ()))
    monkeypatch.setattr(running, "figure", lambda finding, runs: Figure())
    monkeypatch.setattr(by_visit, "table", lambda runs, asked: "")
    assert running.run_finding(finding, tmp_path, say=lambda line: None)["passed"]
    assert calls == [("one", False), ("two", False), ("one", True), ("two", True)]


def test_what_has_run_is_not_run_again(ran, monkeypatch):
    finding, root, result = ran
    monkeypatch.setattr(launch, "run", lambda *args, **kwargs: pytest.fail("ran again"))
    assert running.run_finding(finding, root) == json.loads(json.dumps(result))


def test_another_criterion_is_judged_on_the_runs_that_are_there(ran, capsys):
    _, root, result = ran
    raw = document()
    raw["finding"]["criterion"]["clauses"][0]["bound"] = -9
    finding = parse(raw)
    assert running.current_result(finding, root) is None
    again = running.run_finding(finding, root, say=lambda line: None)
    assert not again["passed"]
    assert again["clauses"][1:] == result["clauses"][1:]
    store.save_result(root / "made", result)


def values_of(root):
    return pd.read_csv(root / "made" / "values.csv", dtype={"clause": int, "seed": int})


def test_the_values_that_were_judged_are_kept_beside_the_result(ran):
    """Arms and their difference by seed; the clause's number and interval can be computed from them."""
    finding, root, result = ran
    rows = values_of(root)
    assert list(rows) == ["finding", "clause", "arm", "seed", "value"]
    assert set(rows["finding"]) == {"made"}
    first = rows[rows["clause"] == 1].pivot(index="seed", columns="arm", values="value")
    assert list(first.index) == list(range(8))
    gap = first["one/baseline - one/fresh"]
    np.testing.assert_allclose(first["one/baseline"] - first["one/fresh"], gap, atol=2e-6)
    ends = stats.ttest_1samp(gap, 0.0).confidence_interval(0.95)
    clause = result["clauses"][0]
    assert [clause["number"], clause["low"], clause["high"]] == pytest.approx([gap.mean(), *ends], abs=1e-5)
    assert set(rows.loc[rows["clause"] == 3, "arm"]) == {
        "Spearman",
        *quantities.tables(parts(finding, root))("performance", "end")["arm"],
    }
    assert "values" not in clause


def parts(finding, root):
    return {part: root / "made" / part for part in finding.parts}


def test_the_means_by_visit_are_kept_beside_the_result(ran):
    """As `performance` has them, and the last record of a metric in each visit."""
    finding, root, _ = ran
    found = pd.read_csv(root / "made" / "visits.csv")
    assert list(found)[:6] == ["arm", "visit", "task", "lanes", "performance", "performance_end"]
    assert not [name for name in found if "/" in name or name in by_visit.OTHERS]
    assert (found["lanes"] == 8).all()
    for what in ("performance", "performance_end", "weight_norm"):
        lanes = quantities.tables(parts(finding, root))(what, "end")
        means = lanes.groupby(["arm", "visit"])["value"].mean()
        assert len(found) == len(means)
        expected = [means[arm, visit - 1] for arm, visit in zip(found["arm"], found["visit"], strict=True)]
        np.testing.assert_allclose(found[what], expected, rtol=1e-4)


@pytest.mark.parametrize("table", store.TABLES)
def test_a_result_of_an_earlier_version_is_shown_and_gets_its_tables(ran, table):
    finding, root, result = ran
    path, place = root / "made" / f"{table}.csv", root / "made"
    before = path.read_text()
    older = copy.deepcopy(result)
    for each in older["clauses"]:
        del each["confidence"]
    store.save_result(place, older)
    path.unlink()
    assert [row[2] for row in rows(finding, running.current_result(finding, root))] == ["holds"] * 3
    assert running.run_finding(finding, root) == json.loads(json.dumps(older))
    assert path.read_text() == before
    path.unlink()
    older["clauses"][0]["number"] += 1.0  # not the runs that are there
    store.save_result(place, older)
    running.run_finding(finding, root)
    assert not path.exists()
    store.save_result(place, result, {table: before})


def test_a_correction_is_stated_and_changes_the_confidence(ran):
    _, root, result = ran
    raw = document()
    raw["finding"]["correction"] = "bonferroni"
    finding = parse(raw)
    assert finding.digest() != parse(document()).digest()
    assert running.current_result(finding, root) is None
    assert finding.content()["correction"] == "bonferroni"
    assert "correction" not in parse(document()).content()
    again = running.run_finding(finding, root, say=lambda line: None)
    assert [each["confidence"] for each in again["clauses"]] == pytest.approx([1 - 0.05 / 3] * 3)
    assert [each["confidence"] for each in result["clauses"]] == [0.95] * 3
    assert again["clauses"][0]["low"] < result["clauses"][0]["low"]
    text = io.StringIO()
    section(Console(file=text, width=120), finding, again)
    assert "Bonferroni correction over 3 clauses" in text.getvalue()
    assert not running.is_current(parse(document()), again)
    store.save_result(root / "made", result)


def test_another_experiment_needs_force(ran):
    _, root, _ = ran
    raw = document()
    raw["experiment"]["record_every"] = 10
    with pytest.raises(UserError, match=r"made with another config: `record_every`.*\n.*--force"):
        running.run_finding(parse(raw), root, say=lambda line: None)


def test_the_command(ran, tmp_path):
    _, root, _ = ran
    path = tmp_path / "made.yaml"
    path.write_text(to_yaml(document()))
    listed = CliRunner().invoke(main.app, ["findings", str(path), "--list", "--out", str(root)])
    assert listed.exit_code == 0
    assert "PASS  T1 a title" in listed.output
    assert "1 PASS" in listed.output
    elsewhere = CliRunner().invoke(main.app, ["findings", str(path), "--list", "--out", str(tmp_path / "none")])
    assert "not run" in elsewhere.output
    assert "PASS" not in elsewhere.output
    planned = CliRunner().invoke(main.app, ["findings", str(path), "--plan", "--full"])
    assert planned.exit_code == 0
    assert "made-two" in planned.output


def test_of_many_parts_those_that_hold_are_shown_first():
    raw = document()
    both = [{**CLAUSES[0], "bound": bound} for bound in (1, 2)]
    parts = [{"clauses": copy.deepcopy(both)} for _ in range(5)]
    raw["finding"]["criterion"] = {"needs": "any", "clauses": parts}
    held = [False, True, False, False, True, False, True, True, False, False]
    clauses = [{"number": float(i), "low": None, "high": None, "holds": each} for i, each in enumerate(held)]
    shown = rows(parse(raw), {"clauses": clauses})
    assert [row[1].split()[0] for row in shown[:-1]] == ["6", "7", "0", "1", "4", "5", "2", "3"]
    assert shown[0][0].startswith("any of: performance, last tenth")
    assert shown[-1][0] == "... and 2 more"


def test_force_takes_only_findings_away(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="contains no finding"):
        running.run_finding(parse(document()), tmp_path, force=True)


def test_the_change_is_that_of_the_summary(ran):
    from plasticity import results

    _, root, _ = ran
    table = results.summary(root / "made" / "one").set_index("arm")
    clause = {"what": "change", "arms": ["one/baseline"], "direction": "below", "bound": 9}
    criterion = parse_criterion({"clauses": [clause]}, "c")
    (judged,) = judge(criterion, quantities.tables({"one": root / "made" / "one"})).judged
    expected = table.loc["baseline", ["change", "change_low", "change_high"]].to_numpy(float)
    assert [judged.number, judged.low, judged.high] == pytest.approx(expected, abs=1e-12)


GAMES = {"episodic": True, "alike": False, "tasks": ["pong", "breakout"]}
GAMES["visits"] = [{"task": task, "steps": 10} for task in (0, 1, 0, 1)]


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        (
            {"what": "performance", "at": "last", "less": "first"},
            "`performance` over visits to 2 tasks whose rewards",
        ),
        ({"what": "area", "at": "all"}, "`area` over visits to 2 tasks"),
        ({"what": "performance", "at": 3, "less": 1}, None),  # one task, named visit by visit
        ({"what": "performance", "at": "end"}, None),
        ({"what": "change"}, None),
        ({"what": "relative_speed", "at": "all"}, None),
        ({"what": "weight_norm", "at": "all"}, None),
    ],
)
def test_rewards_of_several_kinds_are_not_averaged(clause, message):
    whole = {"arms": ["baseline"], "direction": "above", "bound": 0, **clause}
    criterion = parse_criterion({"clauses": [whole]}, "c")
    quantities.check_comparable("x", criterion, {"": {**GAMES, "alike": True}})
    if message is None:
        quantities.check_comparable("x", criterion, {"": GAMES})
        return
    with pytest.raises(UserError, match=message):
        quantities.check_comparable("x", criterion, {"": GAMES})


@pytest.mark.parametrize(
    ("direction", "bound", "low", "high", "word"),
    [
        ("above", 0.0, 0.1, 0.3, "holds"),
        ("above", 0.0, -0.3, -0.1, "does not hold"),
        ("above", 0.0, -0.3, 0.1, "inconclusive"),
        ("below", 0.0, 0.1, 0.3, "does not hold"),
        ("below", 0.0, -0.1, 0.3, "inconclusive"),
        ("within", [-1.0, 1.0], 1.1, 1.2, "does not hold"),
        ("within", [-1.0, 1.0], 0.9, 1.2, "inconclusive"),
        ("above", 0.0, None, None, "inconclusive"),
    ],
)
def test_an_interval_that_holds_its_bound_shows_nothing_to_the_contrary(direction, bound, low, high, word):
    raw = {"what": "performance", "arms": ["a"], "direction": direction, "bound": bound}
    (clause,) = parse_criterion({"clauses": [raw]}, "c").clauses
    assert outcome(clause, {"holds": word == "holds", "low": low, "high": high}) == word


def test_a_change_needs_something_to_compare_with():
    clause = {"what": "change", "arms": ["baseline"], "direction": "above", "bound": 0}
    once = {**GAMES, "visits": GAMES["visits"][:2]}
    with pytest.raises(UserError, match="`change` needs a task that is repeated, or rewards of one kind"):
        quantities.check_comparable("x", parse_criterion({"clauses": [clause]}, "c"), {"": once})


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        ({"what": "evaluation/pnog"}, "x: criterion: unknown task `pnog`; known: breakout, pong; did you mean `pong`?"),
        ({"what": "evaluation_reward/3"}, "x: criterion: unknown task `3`; known: breakout, pong"),
        ({"task": "seaquest", "what": "change"}, "x: criterion: unknown task `seaquest`; known: breakout, pong"),
        (
            {"what": "evaluation/pong", "against": "evaluation/brekout", "compare": "correlation"},
            "x: criterion: unknown task `brekout`; known: breakout, pong; did you mean `breakout`?",
        ),
        ({"what": "evaluation/pong"}, None),
        ({"what": "evaluation"}, None),
    ],
)
def test_a_task_that_is_never_visited_is_refused_before_the_run(clause, message):
    """The stream knows a third game, `seaquest`, which no visit plays and no evaluation measures."""
    whole = {"arms": ["baseline"], "direction": "above", "bound": 0, "at": 1, **clause}
    criterion = parse_criterion({"clauses": [whole]}, "c")
    games = {**GAMES, "alike": True, "tasks": ["pong", "breakout", "seaquest"]}
    if message is None:
        quantities.check_comparable("x", criterion, {"": games})
        return
    with pytest.raises(UserError) as caught:
        quantities.check_comparable("x", criterion, {"": games})
    assert str(caught.value) == message


def test_every_published_finding_compares_what_can_be_compared():
    for finding in load_findings((), EXACT_NAMES):
        for full in (False, True) if finding.exact is None else ():
            streams = {
                part: launch.Plan(each, launch.source_of(each).spec, (), ()).describe()["stream"]
                for part, each in running.experiments(finding, full).items()
            }
            quantities.check_comparable(finding.name, finding.criterion, streams)
