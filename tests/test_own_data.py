"""Runs on a user's own features and targets, from the command line: learning, resuming and errors."""

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import crashes
import numpy as np
import pytest
import tiny
import yaml
from test_cli import ARMS, flat, plasticity

from plasticity.cli import progress

pytestmark = pytest.mark.usefixtures("usual_signals")

STREAMS: dict[str, dict[str, Any]] = {
    "targets": {"kind": "permuted_inputs"},
    "offset": {"kind": "regression", "targets": True, "offset": [0.0, 5.0]},
    "labels": {"kind": "permuted_inputs"},
}


def save(path: Path, seed: int, answers: str) -> None:
    """Three columns of very different sizes; targets are a linear function of the standardised columns."""
    random = np.random.default_rng(seed)
    columns = random.normal(size=(64, 3))
    weights = np.array([[1.0, -1.0], [0.5, 0.0], [0.0, 2.0]])
    known = {"labels": (columns[:, 0] > 0).astype(int)} if answers == "labels" else {"targets": columns @ weights}
    np.savez(path, features=columns * [1.0, 1e-4, 1e6] + [0.0, 7.0, 1e6], **known)


def experiment(folder: Path, answers: str) -> Path:
    save(folder / "own.npz", 0, answers)
    stream = {**STREAMS[answers], "inputs": "npz", "path": str(folder / "own.npz"), "envs": 16}
    agent = {
        "kind": "classifier" if answers == "labels" else "regressor",
        "network": {"kind": "mlp", "widths": []},
        "optimizer": {"kind": "adam", "learning_rate": 0.1},
    }
    stream |= {"tasks": 2, "steps_per_task": 100}
    document = tiny.document(stream=stream, agent=agent, arms=ARMS, seeds=2, record_every=20, monitor_every=100)
    (folder / "own.yaml").write_text(yaml.safe_dump(document))
    return folder / "own.yaml"


@pytest.fixture(scope="module", params=STREAMS)
def answers(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def finished(answers: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    config = experiment(tmp_path_factory.mktemp(answers), answers)
    done = plasticity("run", config, "--out", config.parent / "run", "--no-figures")
    assert done.code == 0, done.err
    return config, config.parent / "run"


@pytest.mark.slow
def test_both_arms_learn_in_every_task(finished: tuple[Path, Path], answers: str) -> None:
    """A linear learner reaches linear targets (their variance is above 1) and separable classes."""
    found = crashes.tables(finished[1])
    name = "accuracy" if answers == "labels" else "negative_squared_error"
    plan = json.loads((finished[1] / "plan.json").read_text())
    assert plan["stream"]["reward_name"] == name
    for arm in ("baseline", "fresh"):
        metrics = found[arm][0]
        ends = metrics[metrics["step_in_visit"] == 100]["reward"]
        assert len(ends) == 4
        assert (ends > (0.9 if answers == "labels" else -0.5)).all(), ends
    first = [found[arm][0].query("visit == 0")["reward"].to_numpy() for arm in ("baseline", "fresh")]
    np.testing.assert_array_equal(*first)


@pytest.mark.slow
def test_resumed_is_the_same(finished: tuple[Path, Path], tmp_path: Path) -> None:
    config, whole = finished

    class Stopping(progress.TerminalProgress):
        def chunk(self, chunk: Any) -> None:
            super().chunk(chunk)
            if chunk.position.step == 120:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "TerminalProgress", Stopping)
        assert plasticity("run", config, "--out", tmp_path / "run", "--no-figures").code == 143
    assert plasticity("run", config, "--out", tmp_path / "run", "--no-figures", "--resume").code == 0
    crashes.assert_same(tmp_path / "run", crashes.tables(whole))


def test_other_contents_are_refused(finished: tuple[Path, Path], answers: str) -> None:
    """The SHA-256 in the plan is that of the file."""
    config, run = finished
    path = config.parent / "own.npz"
    before = path.read_bytes()
    (noted,) = json.loads((run / "plan.json").read_text())["data"]
    assert noted == {"path": str(path), "sha256": hashlib.sha256(before).hexdigest()}
    save(path, 1, answers)
    done = plasticity("run", config, "--out", run, "--resume")
    assert done.code == 2
    assert f"{path} is not the file that the run was started with" in flat(done.err)
    path.write_bytes(before)
    assert plasticity("run", config, "--out", run, "--resume", "--no-figures").code == 0


def test_an_array_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    config = experiment(tmp_path, "targets")
    np.savez(tmp_path / "own.npz", features=np.full((2, 3), np.nan), targets=np.zeros(2))
    done = plasticity("plan", config)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"stream: path: {tmp_path}/own.npz: features: must be finite numbers; 6 of 6 are not, the first at [0, 0]\n"
    )
    np.savez(tmp_path / "own.npz", features=np.eye(2), targets=np.zeros(2))
    wrong = plasticity("plan", config, "agent.kind=classifier")
    assert wrong.code == 2
    assert wrong.err.endswith("agent.kind: classifier is not allowed; it needs a stream with class labels\n")
