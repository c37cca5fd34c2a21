"""Configs that come with the package are found by name, wherever a command runs."""

import shutil
from pathlib import Path

import pytest

from plasticity.config import shipped
from plasticity.core.errors import UserError
from plasticity.runs import launch

ROOT = Path(__file__).resolve().parent.parent


def test_every_config_of_the_checkout_is_shipped():
    there = {
        path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in (ROOT / "configs").rglob("*.yaml")
    }
    assert set(shipped.configs()) == there
    assert {"quickstart", "atari/smoke", "paper/new_labels"} <= there


@pytest.mark.parametrize("given", ["quickstart", "quickstart.yaml", "configs/quickstart.yaml", "configs/quickstart"])
def test_a_shipped_config_by_name(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.resolve(given).read_bytes() == (ROOT / "configs/quickstart.yaml").read_bytes()
    assert launch.load_config(given).name == "quickstart"


def test_a_file_of_the_user_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("seeds: 1\n")
    assert shipped.resolve("quickstart") == Path("quickstart")


def test_what_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^quikstart: no such file, .* did you mean `quickstart`\?$"):
        launch.load_config("quikstart")
    with pytest.raises(UserError, match=r"^mine\.yaml: no such file"):
        launch.load_config("mine.yaml")


def test_a_folder_does_not_hide_a_shipped_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").mkdir()
    Path("mine").mkdir()
    assert shipped.resolve("quickstart") == shipped.configs()["quickstart"]
    assert shipped.resolve("mine") == Path("mine")
    with pytest.raises(UserError, match=r"^mine: is a folder, not a config"):
        launch.load_config("mine")


@pytest.mark.parametrize("name", ["new_labels", "adam_over_step"])
def test_a_finding_is_no_experiment(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^paper/{name}: is a finding, .*: plasticity findings {name}$"):
        launch.load_config(f"paper/{name}")
    with pytest.raises(UserError, match=rf"^{name}: no such file, .*; it is a finding.*: plasticity findings {name}$"):
        launch.load_config(name)
    shutil.copy(shipped.findings()[name], f"{name}.yaml")
    with pytest.raises(UserError, match=rf"^{name}\.yaml: is a finding, .*: plasticity findings {name}\.yaml$"):
        launch.load_config(f"{name}.yaml")


def test_findings_and_experiments_are_all_configs():
    findings = {f"paper/{name}" for name in shipped.findings()}
    assert findings | set(shipped.experiments()) == set(shipped.configs())
    assert findings & set(shipped.experiments()) == set()
