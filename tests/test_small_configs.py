"""The small configs of every family of streams run to their end, each in less than two minutes."""

from pathlib import Path

import numpy as np
import pytest

from plasticity import results
from plasticity.core.errors import UserError
from plasticity.runs import launch

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SMALL = sorted(path for folder in ("streams", "gridworld", "suites") for path in (CONFIGS / folder).glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:steps_per_visit")  # they are too short for whole episodes on purpose
@pytest.mark.parametrize("path", SMALL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_small_config_runs_to_its_end(path, tmp_path):
    experiment = launch.load_config(path, ["seeds=1"])
    try:
        planned = launch.plan(experiment)
    except UserError as error:
        pytest.skip(str(error))  # a suite reports a missing system library
    run = launch.run(experiment, tmp_path / "run")
    metrics = results.load(run)
    steps = sum(visit.steps for visit in planned.spec.visits)
    assert set(metrics.groupby("arm", observed=True)["step"].max()) == {steps}
    assert results.lanes(run)["diverged_at"].isna().all()
    assert np.isfinite(metrics["reward"].dropna()).all()
