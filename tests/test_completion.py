"""Tab completion, as a shell asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plasticity.cli import completion, main
from plasticity.config import shipped
from plasticity.config.registry import FAMILIES
from plasticity.plots import run_figures
from plasticity.runs import launch

ROOT = Path(__file__).resolve().parent.parent


def asked(line: str) -> dict[str, str]:
    """The environment in which bash asks what may follow the line, whose last word is incomplete."""
    words = line.split(" ")
    return {"_PLASTICITY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}


def offered(line: str) -> list[str]:
    done = CliRunner().invoke(main.app, [], env=asked(line), prog_name="plasticity")
    assert done.exit_code == 0, done.output
    return done.output.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("plasticity run q", ["quickstart"]),
        ("plasticity plan atari/s", ["atari/sequence10", "atari/single", "atari/smoke", "atari/streaming"]),
        ("plasticity plan paper/", []),
        ("plasticity list inter", ["interventions"]),
        ("plasticity list conf", ["configs"]),
        ("plasticity list interventions lay", ["layer_norm"]),
        ("plasticity list configs q", []),
        ("plasticity list agent d", []),
        ("plasticity findings new", ["new_labels"]),
        ("plasticity findings new_labels adap", ["adaptive_q"]),
        ("plasticity measure RUN --monitors eff", ["effective_learning_rate", "effective_rank"]),
        ("plasticity measure RUN --monitors effective_rank,eff", ["effective_rank,effective_learning_rate"]),
        ("plasticity plot RUN --figures m", ["matrix", "monitors", "mechanisms"]),
        ("plasticity plot RUN --figures performance,mat", ["performance,matrix"]),
    ],
)
def test_names(line: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert offered(line) == names


def test_files_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("quick.yaml", "quick.txt", "mine/a.yml", "mine/b.md", "other.yaml"):
        (tmp_path / name).touch()
    assert offered("plasticity run qui") == ["quickstart", "quick.yaml"]
    minatar = [name for name in shipped.experiments() if name.startswith("minatar")]
    assert offered("plasticity run mi") == [*minatar, "mine/a.yml"]
    assert offered("plasticity run mine/") == ["mine/a.yml"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_member_is_known(family: str):
    assert completion.members(family) == launch.registry().names(family)


def test_names_held_elsewhere():
    assert completion.FIGURES == run_figures.ORDER
    assert set(shipped.findings()) == {path.stem for path in (ROOT / "configs/paper").glob("*.yaml")}


def test_jax_is_not_imported():
    """It takes seconds; a plug-in of a test is found by its metadata alone."""
    code = "import sys\nsys.modules['jax'] = None\nfrom plasticity.cli.main import app\napp(prog_name='plasticity')"
    for line in ("plasticity list monitors dea", "plasticity measure RUN --monitors dea"):
        run = [sys.executable, "-c", code]
        done = subprocess.run(
            run, cwd=ROOT, env={**os.environ, **asked(line)}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["dead_units"], "")
