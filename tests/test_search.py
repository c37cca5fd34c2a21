"""Search beyond a grid: what the sampler is told, which points go on, one program for all batches, and resuming."""

import os
import shutil
import signal
import sys

import jax
import numpy as np
import pandas as pd
import pytest
import tiny
from jax.experimental.compilation_cache import compilation_cache

import plasticity
from plasticity import results
from plasticity.config.documents import merged, read_file
from plasticity.config.experiments import read_experiment
from plasticity.config.spaces import Range, parse_space
from plasticity.core.errors import Interrupted, UserError
from plasticity.runs import compilation, launch
from plasticity.runs.search import survivors
from plasticity.runs.selection import Score
from plasticity.runs.session import NoProgress

pytest.importorskip("optuna")
import optuna

NAN = float("nan")
RATE, B1 = "agent.optimizer.learning_rate", "agent.optimizer.b1"
SPACE = {RATE: {"low": 0.003, "high": 0.3, "log": True}}
SMALL = {"monitors": [], "seeds": 2, "checkpoint_every": 10}
# Two batches of two points on two seeds for 20 of 60 env steps, and the better one of each for 40.
SETTINGS = {"trials": 4, "batch": 2, "first": ["1 visit", "2 visits"], "factor": 2, "seeds": 2}


class Heard(NoProgress):
    """Counts chunks; ``stop``: at this one the process gets SIGTERM."""

    def __init__(self, stop=0):
        self.chunks, self.lines, self._stop = 0, [], stop

    def say(self, line):
        self.lines.append(line)

    def chunk(self, chunk):
        self.chunks += 1
        if self.chunks == self._stop:
            os.kill(os.getpid(), signal.SIGTERM)


def searched(out, space=SPACE, document=SMALL, **changes):
    return plasticity.search(tiny.document(**document), space, out=out, **{**SETTINGS, **changes})


# ------------------------------------------------------------------------------------------- which points go on


def test_the_best_third_goes_on():
    scores = [Score(mean, 2, 0) for mean in (0.1, 0.9, 0.4, 0.8, 0.8, 0.2, 0.7)]
    assert survivors(scores, 3) == [1, 3, 4]  # ceil(7 / 3), the first of equal ones before the second
    assert survivors(scores, 4) == [1, 3]
    assert survivors(scores, 3, "lowest") == [0, 5, 2]
    assert survivors(scores, 1) == [1, 3, 4, 6, 2, 5, 0]


def test_a_point_with_an_incomplete_lane_does_not_go_on():
    scores = [Score(0.9, 2, 1), Score(0.1, 2, 0), Score(NAN, 2, 2), Score(0.3, 2, 0)]
    assert survivors(scores, 2) == [3, 1]
    assert survivors(scores, 1) == [3, 1]  # fewer than four
    assert survivors([Score(NAN, 1, 1)] * 4, 2) == []


# --------------------------------------------------------------------------------------------------- what is refused


def test_a_space():
    arm = tiny.experiment(interventions=["weight_decay"]).arms["baseline"]
    given = {RATE: {"low": 1e-3, "high": 1}, B1: [0.5, 0.9], "interventions.weight_decay.rate": {"low": 0, "high": 1}}
    space = parse_space(launch.registry(), given, arm)
    assert space[RATE] == Range(low=1e-3, high=1.0)
    assert space[B1] == (0.5, 0.9)
    assert list(space) == list(given)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "space: {} is not allowed; must be a mapping such as {agent.optimizer.learning_rate: {low: 1e-4,"),
        ([RATE], "is not allowed; must be a mapping such as"),
        ({RATE: 3}, f"space.{RATE}: 3 is not allowed; must be a range {{low: 1e-4, high: 1e-2, log: true}} or a list"),
        ({RATE: []}, f"space.{RATE}: the list of values is empty"),
        ({RATE: [0.5, 0.5]}, f"space.{RATE}: 0.5 is given twice"),
        ({RATE: [0.5, 0.25]}, "space: has no range, so that its points would repeat; write the lists as a `sweep`"),
        ({RATE: {"low": 1}}, f"space.{RATE}.high: is required; must be a number"),
        ({RATE: {"low": 1, "hihg": 2}}, "hihg: unknown key; allowed: high, log, low; did you mean `high`?"),
        ({RATE: {"low": 2, "high": 1}}, f"space.{RATE}: the range from 2 to 1 is not allowed; low must be less than"),
        ({RATE: {"low": 1, "high": 1}}, f"space.{RATE}: the range from 1 to 1 is not allowed"),
        ({RATE: {"low": 0, "high": 1, "log": True}}, f"space.{RATE}.low: 0 is not allowed with `log`; must be more"),
        ({RATE: {"low": -1, "high": 1}}, f"space.{RATE}: -1.0 is not allowed; must be a number of at least 0"),
        ({B1: {"low": 0.5, "high": 2}}, f"space.{B1}: 2.0 is not allowed"),
        ({"agent.optimizer.learning_rat": {"low": 1, "high": 2}}, "unknown key; allowed: b1, b2,"),
        ({"stream.tasks": {"low": 1, "high": 2}}, "space.stream.tasks: a stream cannot be swept"),
        ({"agent.network.widths": [[4], [8]], **SPACE}, "space.agent.network.widths: is not a traced number"),
    ],
)
def test_spaces_that_are_refused(tmp_path, space, said):
    with pytest.raises(UserError) as refused:
        searched(tmp_path / "run", space)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 3}, "trials: 3 is not allowed; must be a multiple of batch, 2"),
        ({"trials": 0}, "trials: 0 is not allowed"),
        ({"batch": 1}, "batch: 1 is not allowed; must be an integer of at least 2"),
        ({"factor": 1}, "factor: 1 is not allowed"),
        ({"first": []}, "first: [] is not allowed"),
        ({"first": "4 visits"}, "the stream has 3 visits"),
        ({"first": "0%"}, 'first: "0%" is not allowed; must be a share of the env steps'),
        ({"first": ["2 visits", "1 visit"]}, "are [40, 20] env steps; each rung must be longer than the last"),
        ({"seeds": [1, 7]}, "seeds: shares 1 with `seeds`, those of the report; must be disjoint"),
        ({"metric": "los"}, "metric: arm baseline: unknown metric `los`"),
        ({"best": "most"}, 'best: "most" is not allowed'),
        ({"sampler": "tpa"}, 'sampler: unknown sampler "tpa"; known: random, tpe; did you mean `tpe`?'),
        ({"arm": "basline"}, 'arm: unknown arm "basline"; in this config: baseline; did you mean `baseline`?'),
        ({"document": {**SMALL, "sweep": {B1: [0.5]}}}, "sweep: is not allowed in a search"),
        ({"document": {**SMALL, "arms": {"a": {"sweep": {B1: [0.5]}}}}}, "arms.a.sweep: is not allowed in a search"),
        ({"document": {**SMALL, "arms": {"a": {}, "b": {}}}}, "arm: one of several must be named: a, b"),
    ],
)
def test_searches_that_are_refused(tmp_path, changes, said):
    with pytest.raises(UserError) as refused:
        searched(tmp_path / "run", **changes)
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_sampler_that_repeats_itself(tmp_path):
    class Constant(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            return 0.1

    with pytest.raises(UserError, match="sampler: proposed only points that were tried before, 100 times"):
        searched(tmp_path / "run", sampler=Constant())


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r'install the extra `search` \(pip install "plasticity-lab\[search\]"\)'):
        searched(tmp_path / "run")


# -------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search, and its folder."""
    out = tmp_path_factory.mktemp("searched") / "run"
    return searched(out), out


def rows(trials, **facts):
    for name, value in facts.items():
        trials = trials[trials[name] == value]
    return trials


@pytest.mark.slow
def test_the_trials_by_hand(whole):
    """The table against the metrics of the runs, and the halving against the table."""
    found, out = whole
    trials = found.trials
    written = pd.read_csv(out / "trials.csv")
    pd.testing.assert_frame_equal(written, trials)
    assert rows(trials, rung=0)["trial"].tolist() == [0, 1, 2, 3]
    for batch in (0, 1):
        first, last = rows(trials, batch=batch, rung=0), rows(trials, batch=batch, rung=1)
        better = first["score"].idxmax()
        assert first.loc[better, "state"] == "promoted"
        assert first.drop(index=better)["state"].tolist() == ["pruned"]
        assert last["trial"].tolist() == [first.loc[better, "trial"]]
        assert last["state"].tolist() == ["complete"]
        for rung, part in enumerate((first, last)):
            metrics = results.load(out / "batches" / f"{batch:03d}-{rung}")
            assert metrics["step"].max() == part["steps"].unique().item() == (20, 40)[rung]
            by_lane = metrics.groupby(["lane", "seed"])["reward"].mean()  # records of equal length
            found_by_lane = part[["seed_1000000", "seed_1000001"]].to_numpy().ravel()
            np.testing.assert_allclose(by_lane.to_numpy(), found_by_lane, rtol=1e-6)
            np.testing.assert_allclose(part["score"], found_by_lane.reshape(-1, 2).mean(axis=1), rtol=1e-12)
    complete = rows(trials, state="complete")
    best = complete.loc[complete["score"].idxmax()]
    assert found.values == {RATE: best[RATE]}
    assert found.score == best["score"]


@pytest.mark.slow
def test_the_sampler_is_told_these_numbers(whole):
    found, _ = whole
    assert len(found.study.trials) == 4
    for number, trial in enumerate(found.study.trials):
        own = rows(found.trials, trial=number)
        assert trial.params == {RATE: own[RATE].iloc[0]}
        assert trial.intermediate_values == dict(zip(own["steps"], own["score"], strict=True))
        complete = own["state"].iloc[-1] == "complete"
        assert trial.state == (optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED)
        assert trial.value == own["score"].iloc[-1]
    assert found.study.best_value == found.score


@pytest.mark.slow
def test_a_trial_has_the_numbers_of_a_point_of_an_ordinary_grid(whole, tmp_path):
    found, _ = whole
    first = rows(found.trials, batch=1, rung=0)
    grid = {"sweep": {RATE: first[RATE].tolist()}, "seeds": [1_000_000, 1_000_001]}
    metrics = results.load(launch.run(tiny.experiment(**{**SMALL, **grid}), tmp_path / "grid"))
    by_hand = metrics[metrics["step"] <= 20].groupby([RATE, "seed"])["reward"].mean().unstack()
    np.testing.assert_allclose(
        by_hand.loc[first[RATE]].to_numpy(), first[["seed_1000000", "seed_1000001"]].to_numpy(), rtol=1e-6
    )


@pytest.mark.slow
def test_the_best_point_is_given_back(whole):
    """As an experiment, and as a fragment of a config; neither has a sweep."""
    found, out = whole
    document = tiny.document(**SMALL)
    again = read_experiment(merged(document, read_file(out / "best.yaml")), launch.registry())
    assert again == found.experiment
    assert read_experiment(found.experiment.resolve(), launch.registry()) == found.experiment
    (point,) = again.arms["baseline"].points
    assert (dict(point.values), point.traced()[RATE]) == ({}, found.values[RATE])


@pytest.mark.slow
def test_a_search_that_was_stopped_gives_the_same_trials(whole, tmp_path):
    """Stopped between two batches, and then within a run."""
    found, out = whole
    place = tmp_path / "run"
    shutil.copytree(out, place)
    for name in ("001-0", "001-1"):
        shutil.rmtree(place / "batches" / name)
    (place / "trials.csv").unlink()
    with pytest.raises(Interrupted):
        searched(place, resume=True, progress=Heard(stop=2))  # of four chunks
    heard = Heard()
    again = searched(place, resume=True, progress=heard)
    pd.testing.assert_frame_equal(again.trials, found.trials)
    assert (again.values, again.score) == (found.values, found.score)
    for name in ("trials.csv", "best.yaml", "search.json"):
        assert (place / name).read_bytes() == (out / name).read_bytes()
    assert heard.chunks == 2 + 8  # what was left of 20 steps by 5, and the 40 steps of the next rung
    idle = Heard()
    (place / "best.yaml").write_text("the best of four")
    shorter = searched(place, trials=2, resume=True, progress=idle)
    assert idle.chunks == 0
    pd.testing.assert_frame_equal(shorter.trials, found.trials.iloc[:3])
    assert (place / "trials.csv").read_bytes() == (out / "trials.csv").read_bytes()  # nothing is lost
    assert (place / "best.yaml").read_text() == "the best of four"


@pytest.mark.slow
def test_a_folder_is_not_used_for_something_else(whole, tmp_path):
    _, out = whole
    with pytest.raises(UserError, match="holds a search; `resume=True` continues it"):
        searched(out)
    with pytest.raises(UserError, match='json: `metric` was "performance", now "loss"; only `trials` may change'):
        searched(out, metric="loss", resume=True)
    with pytest.raises(UserError, match=r"`seed` was 0, now 1"):
        searched(out, seed=1, resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no search"):
        searched(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["notes.txt"]


@pytest.mark.slow
def test_diverged_trials_are_pruned_without_a_value(tmp_path):
    """A sampler of one's own, and steps that no network survives in one of two batches."""

    class Rates(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            return (0.05, 3e29, 2e29, 1e29)[trial.number]

    document = {**SMALL, "agent": {**tiny.document()["agent"], "optimizer": "sgd"}}
    found = searched(tmp_path / "run", {RATE: {"low": 0.01, "high": 1e30}}, document, sampler=Rates(), first="1 visit")
    assert found.trials["state"].tolist() == ["complete", "incomplete", "incomplete", "incomplete"]
    assert found.trials["incomplete"].tolist() == [0, 2, 2, 2]
    assert found.values == {RATE: 0.05}
    assert [trial.value for trial in found.study.trials[1:]] == [None] * 3
    assert [trial.state.name for trial in found.study.trials] == ["COMPLETE", *["PRUNED"] * 3]


@pytest.mark.slow
def test_all_batches_use_one_program(tmp_path):
    """A rung is compiled once; the batches after the first one compile nothing."""
    counts = []

    class Counting(NoProgress):
        def say(self, line):
            if line.startswith("batch "):
                counts.append(len(list((tmp_path / "cache").glob(f"*{compilation.ENTRY}"))))

    before = getattr(jax.config, compilation.DIR)
    jax.config.update(compilation.DIR, str(tmp_path / "cache"))
    compilation_cache.reset_cache()
    try:
        space = {**SPACE, B1: [0.5, 0.9]}
        found = searched(tmp_path / "run", space, trials=6, first="1 visit", progress=Counting())
    finally:
        jax.config.update(compilation.DIR, before)
        compilation_cache.reset_cache()
    assert counts[0] >= 2  # at least begin and chunk
    assert counts == [counts[0]] * 3
    assert set(found.trials[B1]) == {0.5, 0.9}
