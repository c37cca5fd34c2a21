"""Programs are compiled before they are needed: once, in several threads, and the next one while one runs."""

import logging
import shutil
import threading
from types import SimpleNamespace

import jax
import pandas as pd
import psutil
import pytest
import tiny

from plasticity.engine import options
from plasticity.engine.ahead import compile_ahead, due_together
from plasticity.engine.runner import Run
from plasticity.runs import launch, preparation
from plasticity.runs.preparation import Preparation

ARMS = {
    "one": {},
    "two": {"interventions": ["layer_norm"]},
    "three": {"interventions": [{"kind": "l2", "strength": 0.1}]},
}
EVALUATED = {"evaluation": {"every": "visit", "tasks": "seen", "steps": 5}, "monitors": ["weight_norm", "srank"]}
EVERY = [{"kind": "weight_norm", "every": 10}, {"kind": "srank", "every": 20}]


def compiled_while(work):
    """How many functions XLA compiles, or JAX loads from its cache, during ``work``."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False
    jax.config.update("jax_log_compiles", True)  # the context manager would not reach other threads
    try:
        work()
    finally:
        jax.config.update("jax_log_compiles", False)
        logger.removeHandler(handler)
        logger.propagate = propagates
    return sum("Finished XLA compilation" in record.getMessage() for record in records)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("width", [1, 2])
def test_nothing_is_traced_or_compiled_after_it_was_compiled_ahead(devices, width):
    placement = {"devices": devices, "width": width}
    changes = {**EVALUATED, "monitors": EVERY, "seeds": 4, "placement": placement}
    (job,) = launch.plan(tiny.experiment(**changes)).jobs
    run = Run(job.program, job.placement, launch.devices())
    assert due_together(job.program) == [(0,), (0, 1)]
    assert compiled_while(lambda: compile_ahead(run, 2)) == 6  # begin, chunk, switch, evaluate, two sets of monitors
    traces = dict(run.compiled.traces)
    assert set(traces.values()) == {1}
    assert compiled_while(lambda: list(run.chunks())) == 0
    assert run.compiled.traces == traces


def test_rare_functions_are_compiled_quickly_with_the_same_numbers(monkeypatch):
    assert options.quick("cpu") == dict(options.QUICK)
    assert options.quick("gpu") == {}
    (job,) = launch.plan(tiny.experiment()).jobs

    def carries(quick):
        monkeypatch.setattr(options, "quick", lambda platform: quick)
        run = Run(job.program, job.placement, launch.devices())
        list(run.chunks())
        return [float(x.sum()) for x in jax.tree.leaves(run.carries[0].agent.learner.params)]

    assert carries({}) == pytest.approx(carries(dict(options.QUICK)), rel=1e-4)


def test_unknown_options_are_left_out(monkeypatch):
    monkeypatch.setattr(options, "QUICK", {"xla_no_such_option": True, **options.QUICK})
    assert options.quick.__wrapped__("cpu") == {
        name: value for name, value in options.QUICK.items() if name != "xla_no_such_option"
    }


class Noted(Preparation):
    """Notes which runs were built, by which thread."""

    built: list[tuple[str, bool]]

    def _built(self, job):
        self.built.append((job.arm, threading.current_thread() is threading.main_thread()))
        return super()._built(job)


def run_noted(monkeypatch, place, **changes):
    built = []
    monkeypatch.setattr(Noted, "built", built, raising=False)
    monkeypatch.setattr("plasticity.runs.execution.Preparation", Noted)
    launch.run(tiny.experiment(arms=ARMS, **changes), place)
    return built


def rows(place):
    return pd.concat([pd.read_parquet(path) for path in sorted(place.rglob("metrics/*.parquet"))], ignore_index=True)


def test_the_next_program_is_compiled_while_one_runs(monkeypatch, tmp_path):
    assert run_noted(monkeypatch, tmp_path / "a") == [("one", True), ("two", False), ("three", False)]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 20, total=1 << 40))
    assert run_noted(monkeypatch, tmp_path / "b") == [("one", True), ("two", True), ("three", True)]
    pd.testing.assert_frame_equal(rows(tmp_path / "a"), rows(tmp_path / "b"))


@pytest.mark.slow
def test_what_is_finished_is_not_prepared(monkeypatch, tmp_path):
    run_noted(monkeypatch, tmp_path / "a")
    for arm in ("one", "three"):
        shutil.rmtree(tmp_path / "a" / arm)
    built = []
    monkeypatch.setattr(Noted, "built", built)
    launch.run(tiny.experiment(arms=ARMS), tmp_path / "a", resume=True)
    assert built == [("one", True), ("three", False)]


def test_an_error_of_the_next_program_appears_when_it_runs(monkeypatch, tmp_path):
    def broken(run, workers):
        if "l2" in str(run.program.build):
            raise RuntimeError("boom")
        compile_ahead(run, workers)

    monkeypatch.setattr(preparation, "compile_ahead", broken)
    with pytest.raises(RuntimeError, match="boom"):
        launch.run(tiny.experiment(arms=ARMS), tmp_path / "a")
    states = {path.parent.name: "finished" in path.read_text() for path in (tmp_path / "a").glob("*/status.json")}
    assert states == {"one": True, "two": True, "three": True}
    assert '"state": "failed"' in (tmp_path / "a" / "three" / "status.json").read_text()
    assert "boom" in (tmp_path / "a" / "three" / "status.json").read_text()
