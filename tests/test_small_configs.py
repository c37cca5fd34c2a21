"""The small configs of every family of streams run to their end, each in less than two minutes."""

from pathlib import Path

import numpy as np
import pytest

from plasticity import results
from plasticity.core.errors import UserError
from plasticity.runs import launch

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
LONG = {"slippery_ant", "cw10", "cw20", "continual_world_pair"}  # for a cluster, and a quarter of an hour
SMALL = sorted(
    path
    for folder in ("streams", "gridworld", "suites")
    for path in (CONFIGS / folder).glob("*.yaml")
    if path.stem not in LONG
)

IMAGES = sorted((CONFIGS / "images").glob("*.yaml"))
SHORT = ["seeds=1", "stream.samples=500", "stream.envs=5", "schedule.visits=[0, 1]"]
LENGTHS = {  # what makes a visit short, by stream, and the steps of two of them
    "class_incremental": (["stream.epochs=1"], [5, 10]),
    "image_datasets": (["stream.steps_per_task=10"], [10, 10]),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:steps_per_visit")  # they are too short for whole episodes on purpose
@pytest.mark.parametrize("path", SMALL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_small_config_runs_to_its_end(path, tmp_path):
    experiment = launch.load_config(path, ["seeds=1"])
    try:
        planned = launch.plan(experiment)
    except UserError as error:
        pytest.skip(str(error))  # a suite reports a missing system library
    check(launch.run(experiment, tmp_path / "run"), planned)


def check(run, planned):
    metrics = results.load(run)
    steps = sum(visit.steps for visit in planned.spec.visits)
    assert set(metrics.groupby("arm", observed=True)["step"].max()) == {steps}
    assert results.lanes(run)["diverged_at"].isna().all()
    assert np.isfinite(metrics["reward"].dropna()).all()


@pytest.mark.slow
@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_a_config_of_images_is_a_plan_and_runs_shortened(path, tmp_path):
    whole = launch.load_config(path)
    launch.plan(whole)
    short, steps = LENGTHS[whole.stream.kind]
    experiment = launch.load_config(path, [*SHORT, *short, "evaluation.steps=2"])
    planned = launch.plan(experiment)
    assert [visit.steps for visit in planned.spec.visits] == steps
    run = launch.run(experiment, tmp_path / "run")
    check(run, planned)
    assert set(results.evaluations(run)["arm"]) == set(experiment.arms)
