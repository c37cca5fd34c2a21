"""Compiled programs are kept between runs."""

import json
import os
import subprocess
import sys
import time

import jax
import pytest
import tiny

from plasticity.runs import compilation

COUNT = """
import collections, json, sys
import jax.monitoring
events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event.rpartition("/")[2]]))
import plasticity
from plasticity.runs import compilation
plasticity.run(sys.argv[1], out=sys.argv[2])
assert jax.config.jax_compilation_cache_dir is None
print(json.dumps([events["cache_misses"], events["cache_hits"], str(compilation.folder())]))
"""


def counted(place, config, name):
    """Programs compiled and programs loaded by a run in a process of its own, and the folder."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    env |= dict.fromkeys(("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"), str(place / "cache"))
    command = [sys.executable, "-c", COUNT, str(config), str(place / name)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_second_run_compiles_nothing(tmp_path):
    config = tmp_path / "config.yaml"
    settings = {"arms": {"baseline": {}, "layer_norm": {"interventions": ["layer_norm"]}}, "seeds": 2}
    config.write_text(json.dumps(tiny.document(**settings)))
    compiled, loaded, folder = counted(tmp_path, config, "first")
    assert compiled > 6  # at least begin, chunk and switch of two arms
    assert loaded < compiled  # two arms may have a program in common
    assert jax.__version__ in folder
    assert len(list((tmp_path / "cache").rglob(f"*{compilation.ENTRY}"))) == compiled
    assert counted(tmp_path, config, "second")[:2] == [0, compiled + loaded]
    for path in (tmp_path / "cache").rglob(f"*{compilation.ENTRY}"):
        path.write_bytes(path.read_bytes()[:-100])
    counted(tmp_path, config, "damaged")
    assert counted(tmp_path, config, "again")[0] == compiled  # those that cannot be read are removed
    assert counted(tmp_path, config, "mended")[:2] == [0, compiled + loaded]
    config.write_text(json.dumps(tiny.document(**settings, compilation_cache=False)))
    assert counted(tmp_path, config, "third")[:2] == [0, 0]  # not counted, as there is no cache
    tables = [sorted((tmp_path / name).rglob("metrics/*.parquet")) for name in ("first", "second", "damaged")]
    first, *others = ([path.read_bytes() for path in paths] for paths in tables)
    assert all(first == other for other in others)


def set_to(setting=compilation.DIR):
    return getattr(jax.config, setting)


def test_another_processor_or_version_has_its_own_folder(monkeypatch):
    folders = {compilation.folder()}
    monkeypatch.setattr(compilation, "_processor", lambda: "another")
    folders.add(compilation.folder())
    monkeypatch.setattr(jax, "__version__", "99.0")
    folders.add(compilation.folder())
    assert len(folders) == 3


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of programs of its own."""
    monkeypatch.setattr(compilation, "folder", lambda: tmp_path / "programs" / "mine")
    before = set_to()
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "programs" / "mine"
    jax.config.update("jax_compilation_cache_dir", before)


def test_settings_of_jax_hold_only_during_a_run(place):
    before = {name: getattr(jax.config, name) for name in compilation.SETTINGS}
    with compilation.kept(True):
        assert set_to() == str(place)
        assert set_to("jax_compilation_cache_max_size") == 4 * 1024**3
    assert set_to() is None
    assert {name: getattr(jax.config, name) for name in compilation.SETTINGS} == before
    with compilation.kept(False):
        assert set_to() is None


def test_a_folder_given_to_jax_is_used_as_it_is(place, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    with compilation.kept(True):
        assert set_to() == str(tmp_path)
    assert not place.exists()


def test_half_written_programs_and_unused_folders_are_removed(place):
    place.mkdir(parents=True)
    for name in ("whole-cache", "whole-atime", "half-cache", "lost-atime"):
        (place / name).touch()
    for name, days in (("old", 61), ("recent", 59)):
        (place.parent / name).mkdir()
        (place.parent / name / compilation.USED).touch()
        then = time.time() - days * 86400
        os.utime(place.parent / name / compilation.USED, (then, then))
    (place.parent / "foreign").mkdir()
    with compilation.kept(True):
        pass
    assert {path.name for path in place.iterdir()} >= {"whole-cache", "whole-atime"}
    assert not {path.name for path in place.iterdir()} & {"half-cache", "lost-atime"}
    assert {path.name for path in place.parent.iterdir()} == {"mine", "recent", "foreign"}


def test_without_a_writable_folder_nothing_is_kept(place):
    place.parent.write_text("a file")
    with compilation.kept(True):
        assert set_to() is None
