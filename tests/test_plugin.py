"""The example of a third party's package, installed into an environment of its own and used in a config."""

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity import results
from plasticity.optim.optimizers import sgd

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLE = CHECKOUT / "examples" / "plugin"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the plug-in and the packages of the test environment."""
    folder = tmp_path_factory.mktemp("plugin") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    installed = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (installed / "house.pth").write_text(f"{sysconfig.get_path('purelib')}\n{CHECKOUT}\n")
    source = folder.parent / "plugin"
    subprocess.run(["cp", "-r", EXAMPLE, source], check=True)
    offline = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    subprocess.run([*pip, *offline, source], check=True, capture_output=True)
    return folder / "bin" / "python"


def plasticity(python: Path, *words: str | Path) -> str:
    environment = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(
        [python, "-m", "plasticity", *words], capture_output=True, text=True, env=environment, cwd=python.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_members_are_listed_with_their_package(python):
    shown = plasticity(python, "list")
    for name in ("gradient_noise", "gradient_snr"):
        (line,) = (line for line in shown.splitlines() if line.strip().startswith(name))
        assert "[plasticity-noise 0.1.0]" in line
    (own,) = (line for line in shown.splitlines() if line.strip().startswith("weight_decay"))
    assert "[" not in own
    assert "Neelakantan" in plasticity(python, "list", "interventions", "gradient_noise")


@pytest.mark.slow
def test_its_config_runs(python, tmp_path):
    short = ["stream.tasks=2", "stream.steps_per_task=20", "monitor_every=10"]
    plasticity(python, "run", EXAMPLE / "noise.yaml", "--out", tmp_path / "run", *short)
    table = results.load(tmp_path / "run")
    seen = table.dropna(subset="gradient_snr")
    assert set(seen.arm) == {"baseline", "noise"}
    assert (seen[seen.step == 10].gradient_snr == 1).all()
    losses = table[table.step == 20].groupby("arm").loss.mean()
    assert losses["noise"] != losses["baseline"]


def test_the_noise_has_the_size_that_its_equation_says(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    from plasticity_noise import gradient_noise

    rule = gradient_noise(eta=0.3, gamma=0.55).optimizer(sgd(learning_rate=1.0))
    params = {"w": jnp.zeros(20_000)}
    state = rule.init(params)
    for t in range(3):
        updates, state = rule.update(params, state, params, key=jax.random.key(t))
        np.testing.assert_allclose(np.std(updates["w"]), np.sqrt(0.3 / (1 + t) ** 0.55), rtol=0.02)


def test_the_entry_points_lead_to_what_the_config_names():
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    assert {"gradient_noise", "gradient_snr"} == {n for group in project["entry-points"].values() for n in group}
