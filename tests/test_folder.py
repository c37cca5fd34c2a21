"""A run's folder: where a run can start, resume or replace another, and what it writes."""

import json
from pathlib import Path

import pytest

from plasticity.config.documents import read_file
from plasticity.core.errors import UserError
from plasticity.runs import folder

RESOLVED = {"name": "tiny", "seeds": 3, "agent": {"kind": "classifier", "label_smoothing": 1e-3}}
STREAM = {"reward_name": "accuracy", "episodic": False, "frames_per_step": 1, "tasks": [], "visits": []}
PLAN = {"name": "tiny", "arms": [], "stream": STREAM}


def opened(place: Path) -> Path:
    folder.check(place, RESOLVED, resume=False, force=False)
    folder.open_folder(place, RESOLVED, PLAN, resume=False)
    return place


def snapshot(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def refused(place: Path, resolved: dict = RESOLVED, **options: bool) -> str:
    """The message; nothing in the place was touched."""
    before = snapshot(place)
    with pytest.raises(UserError) as error:
        folder.check(place, resolved, **{"resume": False, "force": False, **options})
    assert snapshot(place) == before
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


def test_what_is_written(tmp_path):
    place = opened(tmp_path / "deep" / "run")
    assert read_file(place / "experiment.yaml") == RESOLVED
    plan = json.loads((place / "plan.json").read_text())
    versions = plan.pop("versions")
    assert {key: plan[key] for key in PLAN} == PLAN
    assert set(plan) - set(PLAN) == {"config", "crc32"}
    assert {"python", "jax", "jaxlib", "numpy", "plasticity"} <= set(versions)
    first_line = (place / "experiment.yaml").read_text().splitlines()[0]
    assert f"jax {versions['jax']}" in first_line
    assert sorted(path.name for path in place.iterdir()) == ["experiment.yaml", "plan.json"]


def test_versions_without_git(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(folder.subprocess, "run", missing)
    assert "git" not in folder.versions()


def test_a_folder_that_exists(tmp_path):
    place = opened(tmp_path / "run")
    assert refused(place) == (
        f"{place} exists; continue it with --resume (resume=True), replace it with --force (force=True), "
        "or choose another --out"
    )
    assert folder.check(place, RESOLVED, resume=True, force=False)
    assert not folder.check(place, RESOLVED, resume=False, force=True)


def test_resume_and_force_together(tmp_path):
    assert "give one of them" in refused(opened(tmp_path / "run"), resume=True, force=True)


def test_force_replaces_all_of_a_run(tmp_path):
    place = opened(tmp_path / "run")
    (place / "arm" / "metrics").mkdir(parents=True)
    (place / "arm" / "metrics" / "part-000-00000.parquet").write_bytes(b"rows")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_bytes(b"mine")
    (place / "link").symlink_to(tmp_path / "elsewhere")
    folder.open_folder(place, {**RESOLVED, "seeds": 4}, PLAN, resume=False)
    assert sorted(path.name for path in place.iterdir()) == ["experiment.yaml", "plan.json"]
    assert read_file(place / "experiment.yaml")["seeds"] == 4
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_force_in_a_linked_folder(tmp_path):
    opened(tmp_path / "disk")
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    folder.check(tmp_path / "run", RESOLVED, resume=False, force=True)
    folder.open_folder(tmp_path / "run", RESOLVED, PLAN, resume=False)
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk" / "experiment.yaml").exists()


@pytest.mark.parametrize("name", ["notes.txt", "arm/metrics", "other.yaml"])
def test_force_spares_what_is_no_run(tmp_path, name):
    place = tmp_path / "work"
    (place / name).parent.mkdir(parents=True)
    (place / name).write_text("years of work")
    message = refused(place, force=True)
    assert message == f"{place} exists and is not a run (it has no experiment.yaml); --force will not remove it"
    assert refused(place) == f"{place} exists and is not a run (it has no experiment.yaml); choose another --out"


def test_a_file_in_the_way(tmp_path):
    place = tmp_path / "file"
    place.write_text("text")
    for options in ({}, {"force": True}, {"resume": True}):
        assert refused(place, **options) == f"{place} is a file; choose another --out"
    folder.check(place / "below", RESOLVED, resume=False, force=False)
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        folder.open_folder(place / "below", RESOLVED, PLAN, resume=False)


def test_an_empty_folder_and_a_run_that_never_was(tmp_path):
    opened(tmp_path)
    (tmp_path / "experiment.yaml").rename(tmp_path / "experiment.yaml.7-ab.tmp")  # killed just before its name
    assert not folder.check(tmp_path, RESOLVED, resume=True, force=False)
    opened(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiment.yaml", "plan.json"]


def test_a_run_half_removed_can_be_replaced_and_not_resumed(tmp_path):
    place = opened(tmp_path / "run")
    (place / "experiment.yaml").rename(place / ".replaced")
    (place / "arm").mkdir()
    assert "there is no run to resume" in refused(place, resume=True)
    assert "replace it with --force" in refused(place)
    folder.check(place, RESOLVED, resume=False, force=True)
    folder.open_folder(place, RESOLVED, PLAN, resume=False)
    assert sorted(path.name for path in place.iterdir()) == ["experiment.yaml", "plan.json"]


def test_resume_of_nothing_begins(tmp_path):
    for place in (tmp_path / "run", tmp_path):
        assert not folder.check(place, RESOLVED, resume=True, force=False)
    assert not (tmp_path / "run").exists()


def test_resume_of_what_is_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("Chapter 1")
    said = "is not a run (it has no experiment.yaml): there is no run to resume; choose another --out"
    assert refused(tmp_path, resume=True) == f"{tmp_path} {said}"


def test_resume_removes_what_killed_processes_left_under_way(tmp_path):
    place = opened(tmp_path / "run")
    left = ["lanes.parquet.1-a.tmp", "metrics/part-000-00003.parquet.1-a.tmp", "checkpoints/000/9.npz.1-a.tmp"]
    spared = ["report.html.2-b.tmp", "figures/performance.png.2-b.tmp"]  # of commands that may be at work now
    for name in [f"arm/{name}" for name in left] + spared:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    folder.open_folder(
        place, RESOLVED, {**PLAN, "arms": [{"name": "arm", "lanes": 3}, {"name": "later", "lanes": 3}]}, resume=True
    )
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*.tmp")) == sorted(spared)


def test_what_a_run_needs_of_the_disk(tmp_path, monkeypatch):
    folder.check_writable(tmp_path / "deep" / "run")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file"):
        folder.check_writable(tmp_path / "file" / "run")
    monkeypatch.setattr(folder.os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match=f"no permission in {tmp_path}$"):
        folder.check_writable(tmp_path / "deep" / "run")
    folder.check_space(tmp_path / "run", 1)
    with pytest.raises(UserError, match=r"the run needs 1048576.0 TiB; only .* are free"):
        folder.check_space(tmp_path / "run", 2**60)


@pytest.mark.parametrize("finished", [True, False])
def test_whether_a_run_is_finished(tmp_path, finished):
    place = opened(tmp_path / "run")
    assert not folder.is_finished(place)
    (place / "plan.json").write_text(json.dumps({**PLAN, "programs": [{"arm": arm, "lanes": 1} for arm in "abb"]}))
    for arm, numbers in {"a": [0], "b": [0, 1] if finished else [0]}.items():
        (place / arm).mkdir()
        assert not folder.is_finished(place)
        (place / arm / "status.json").write_text(json.dumps({"finished": numbers}))
    assert folder.is_finished(place) == finished
    (place / "b" / "status.json").write_text("[")
    assert not folder.is_finished(place)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seeds": 4}, "`seeds` was 3, now 4"),
        ({"agent": {"kind": "regressor"}}, '`agent` was {"kind": "classifier", "label_smoothing": 0.001}'),
        ({"sweep": {"a": [1]}}, '`sweep` was null, now {"a": [1]}'),
    ],
)
def test_resume_with_another_config(tmp_path, changed, said):
    place = opened(tmp_path / "run")
    message = refused(place, {**RESOLVED, **changed}, resume=True)
    assert said in message
    assert f"plasticity run {place / 'experiment.yaml'} --out {place} --resume" in message


def test_resume_with_a_damaged_config(tmp_path):
    place = opened(tmp_path / "run")
    whole = snapshot(place)
    for text in ("name: [", "", "[]", "name: tiny\nseeds: 4\n"):
        (place / "experiment.yaml").write_text(text)
        said = refused(place, {**RESOLVED, "seeds": 4}, resume=True)
        assert said.startswith(f"{place / 'experiment.yaml'} is damaged (")
        assert len(said.splitlines()) == 1
        folder.check(place, RESOLVED, resume=True, force=False)  # the plan knows that this one is the run's own
        assert folder.open_folder(place, RESOLVED, PLAN, resume=True) == [
            f"{place / 'experiment.yaml'} was damaged; rewritten"
        ]
        assert snapshot(place) == whole


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"arms": 3, "stream": []}', '{"name": "tiny", "arms": []}'])
def test_resume_with_a_damaged_plan(tmp_path, text):
    """It is rewritten before anything is computed, with the versions from the config's first line."""
    place = opened(tmp_path / "run")
    whole = snapshot(place)
    (place / "plan.json").unlink()
    if text is not None:
        (place / "plan.json").write_text(text)
    folder.check(place, RESOLVED, resume=True, force=False)
    (line,) = folder.open_folder(place, RESOLVED, PLAN, resume=True)
    assert line.startswith(f"{place / 'plan.json'} is {'missing' if text is None else 'damaged ('}")
    assert line.endswith("; rewritten")
    assert snapshot(place) == whole


def test_a_plan_of_one_changed_digit_is_noticed(tmp_path):
    place = opened(tmp_path / "run")
    path = place / "plan.json"
    path.write_text(path.read_text().replace('"frames_per_step": 1', '"frames_per_step": 2'))
    with pytest.raises(UserError, match=r"plan\.json is damaged \(its checksum is wrong\)"):
        folder.read(place)


def test_other_versions_are_reported_once_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "versions", lambda: {"jax": "1.0", "numpy": "2.0"})
    place = opened(tmp_path / "run")
    monkeypatch.setattr(folder, "versions", lambda: {"jax": "1.1", "numpy": "2.0"})
    said = [folder.open_folder(place, RESOLVED, PLAN, resume=True) for _ in range(2)]
    assert said == [["warning: earlier parts were made with other versions; numbers may differ: jax 1.0 -> 1.1"], []]
    plan = json.loads((place / "plan.json").read_text())
    assert plan["versions"] == {"jax": "1.0", "numpy": "2.0"}
    assert plan["resumed_with"] == [{"jax": "1.1", "numpy": "2.0"}]


def test_other_data_are_refused_and_moved_data_are_not(tmp_path):
    resolved = {**RESOLVED, "stream": {"kind": "relabelled", "path": "a.npz"}}
    plan = {**PLAN, "data": [{"path": "/a.npz", "sha256": "12" * 32}]}
    place = tmp_path / "run"
    folder.open_folder(place, resolved, plan, resume=False)
    moved = {**resolved, "stream": {"kind": "relabelled", "path": "b.npz"}}
    folder.check(place, moved, resume=True, force=False)
    assert (
        folder.open_folder(place, moved, {**plan, "data": [{"path": "/b.npz", "sha256": "12" * 32}]}, resume=True) == []
    )
    with pytest.raises(UserError) as error:
        folder.open_folder(place, moved, {**plan, "data": [{"path": "/b.npz", "sha256": "34" * 32}]}, resume=True)
    assert str(error.value) == (
        "/b.npz is not the file that the run was started with (/a.npz): its SHA-256 was 121212121212..., "
        "now 343434343434..."
    )


def test_resume_leaves_the_folder_as_it_is(tmp_path):
    place = opened(tmp_path / "run")
    before = snapshot(place)
    assert folder.open_folder(place, RESOLVED, PLAN, resume=True) == []
    assert snapshot(place) == before


ARM = {"name": "one", "agent": "classifier", "lanes": 1, "group": {}, "interventions": [], "told": False}


@pytest.mark.parametrize("name", ["status.json", "lanes.parquet", "metrics", "checkpoints"])
def test_a_folder_in_place_of_a_file_or_a_file_of_a_folder_is_named(tmp_path, name):
    place = tmp_path / "run"
    folder.open_folder(place, RESOLVED, {**PLAN, "arms": [ARM]}, resume=False)
    path = place / "one" / name
    path.mkdir(parents=True) if "." in name else (path.parent.mkdir(), path.touch())
    kinds = ("folder", "file") if "." in name else ("file", "folder")
    said = "{} is a {} but must be a {}; move it away, then resume"
    assert refused(place, resume=True) == said.format(path, *kinds)
