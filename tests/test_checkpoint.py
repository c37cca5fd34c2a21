"""Checkpoints that are kept, damaged or of another program, and how a run handles them."""

import shutil
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crashes import Killed, Laboratory, Watcher, assert_same, tables, two_arms

from plasticity.core.errors import UserError
from plasticity.runs import checkpoint
from plasticity.runs.checkpoint import DamagedError, Snapshot, WrongCheckpointError
from plasticity.runs.checksums import read_json, to_json

ARRAYS = {
    "key": jax.random.key(3),
    "keys": jax.random.split(jax.random.key(4), 3),
    "half": jnp.arange(5, dtype=jnp.bfloat16),
    "count": jnp.int32(7),
    "nested": [jnp.arange(6.0).reshape(2, 3), (jnp.array([True, False]),), ()],
}
LIKE = jax.eval_shape(lambda: ARRAYS)
HOST = {"block0/actions": np.arange(4, dtype=np.uint8), "block0/checksum": np.uint32(9)}
META = {"fingerprint": "mine", "position": [1, 5, 15], "parts": 2}


@pytest.fixture
def saved(tmp_path):
    return checkpoint.save(tmp_path / "here", "000000000015", Snapshot(ARRAYS, HOST, META))


def assert_equal(found: Snapshot) -> None:
    assert jax.tree.structure(found.arrays) == jax.tree.structure(ARRAYS)
    for mine, theirs in zip(jax.tree.leaves(found.arrays), jax.tree.leaves(ARRAYS), strict=True):
        assert mine.dtype == theirs.dtype
        if jnp.issubdtype(theirs.dtype, jax.dtypes.prng_key):
            mine, theirs = jax.random.key_data(mine), jax.random.key_data(theirs)
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
    assert {name: x.tolist() for name, x in found.host.items()} == {name: x.tolist() for name, x in HOST.items()}
    assert found.meta == META


def test_what_is_saved_is_read(saved):
    assert_equal(checkpoint.read(saved, LIKE, "mine"))


def test_the_newest_two_are_kept_and_leftovers_go(tmp_path):
    (tmp_path / "000000000003.npz.tmp").write_bytes(b"half a file")
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, f"{step:012d}", Snapshot(ARRAYS, HOST, META))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000010.npz", "000000000015.npz"]


def test_a_write_that_fails_leaves_the_older_ones(saved, monkeypatch):
    def fail(handle, **members):
        handle.write(b"some of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(saved.parent, "000000000020", Snapshot(ARRAYS, HOST, META))
    assert checkpoint.files(saved.parent) == [saved]
    assert_equal(checkpoint.read(saved, LIKE, "mine"))


def test_every_flipped_byte_is_noticed_or_harmless(saved):
    """In headers, contents and the directory at the end: never other values, never another exception."""
    raw, noticed = saved.read_bytes(), 0
    places = {*range(0, len(raw), 7), *range(len(raw) - 100, len(raw))}
    for place in places:
        changed = bytearray(raw)
        changed[place] ^= 0xFF if place % 2 else 0x01
        saved.write_bytes(changed)
        try:
            assert_equal(checkpoint.read(saved, LIKE, "mine"))
        except DamagedError:
            noticed += 1
    assert noticed > len(places) / 2


def test_every_truncation_is_noticed(saved):
    raw = saved.read_bytes()
    for length in (*range(0, len(raw), 97), len(raw) - 1):
        saved.write_bytes(raw[:length])
        with pytest.raises(DamagedError):
            checkpoint.read(saved, LIKE, "mine")


def test_newest_passes_over_what_is_damaged(saved):
    newer = checkpoint.save(saved.parent, "000000000020", Snapshot(ARRAYS, HOST, META))
    newer.write_bytes(b"")
    found, lines = checkpoint.newest(saved.parent, LIKE, "mine")
    assert found is not None
    assert_equal(found)
    assert lines == [f"{newer} is damaged (BadZipFile: File is not a zip file); set aside"]
    assert sorted(path.name for path in saved.parent.iterdir()) == [saved.name, newer.name + ".damaged"]
    assert checkpoint.newest(saved.parent / "nowhere", LIKE, "mine") == (None, [])


def test_a_foreign_checkpoint_is_refused_and_left_alone(saved):
    with pytest.raises(WrongCheckpointError, match="another config or placement"):
        checkpoint.newest(saved.parent, LIKE, "yours")
    assert saved.exists()
    for like in ({**LIKE, "more": LIKE["count"]}, {name: LIKE[name] for name in ("key", "keys")}):
        with pytest.raises(WrongCheckpointError, match="is only in one of them"):
            checkpoint.read(saved, like, "mine")
    for half in (jax.ShapeDtypeStruct((6,), jnp.bfloat16), jax.ShapeDtypeStruct((5,), jnp.float32)):
        with pytest.raises(WrongCheckpointError, match="does not fit this program"):
            checkpoint.read(saved, {**LIKE, "half": half}, "mine")


# Runs.


@pytest.fixture(scope="module")
def laboratory():
    return Laboratory(two_arms())


@pytest.fixture(scope="module")
def whole(laboratory, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    laboratory.run(run)
    return tables(run)


def killed_after(chunk: int) -> Watcher:
    def at_chunk(count: int) -> None:
        if count == chunk:
            raise Killed

    return Watcher(at_chunk)


def flip(path: Path) -> None:
    """Flip one bit of the largest array, because some bytes of the file have no effect, such as a member's time."""
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda each: each.file_size)
    raw = bytearray(path.read_bytes())
    name = raw.index(member.filename.encode(), member.header_offset)
    raw[name + len(member.filename) + member.file_size // 2] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 20),
}


@pytest.fixture(scope="module")
def finished_first_program(laboratory, tmp_path_factory):
    """A run that was killed when its first program had all but ended: two checkpoints, and no note that it ended."""
    run = tmp_path_factory.mktemp("damage") / "run"
    with pytest.raises(Killed):
        laboratory.run(run, progress=killed_after(5))
    (run / "wide" / "status.json").unlink()
    return run


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(laboratory, whole, finished_first_program, tmp_path, damage):
    run = shutil.copytree(finished_first_program, tmp_path / "run")
    older, newest = sorted((run / "wide/checkpoints/000").glob("*.npz"))
    DAMAGE[damage](newest)
    watcher = laboratory.run(run, resume=True)
    assert watcher.jobs[0] == ("wide", 0, 10)
    assert watcher.lines[0].startswith(f"{newest} is damaged (")
    assert watcher.lines[1:] == ["wide: continues from step 10"]
    assert_same(run, whole)
    assert older.exists()
    assert newest.exists()
    assert newest.with_name(newest.name + ".damaged").exists()


def test_both_checkpoints_damaged(laboratory, whole, finished_first_program, tmp_path):
    run = shutil.copytree(finished_first_program, tmp_path / "run")
    for path in (run / "wide/checkpoints/000").glob("*.npz"):
        flip(path)
    watcher = laboratory.run(run, resume=True)
    assert watcher.jobs[0] == ("wide", 0, 0)
    assert ["is damaged" in line for line in watcher.lines] == [True, True, False]
    assert watcher.lines[2] == "wide: no checkpoint is left; restarts"
    assert_same(run, whole)


def test_after_damage_new_checkpoints_are_the_ones_that_count(laboratory, whole, finished_first_program, tmp_path):
    """Both are damaged, so the run restarts; it is killed after its first new checkpoint, which is used then."""
    run = shutil.copytree(finished_first_program, tmp_path / "run")
    for path in (run / "wide/checkpoints/000").glob("*.npz"):
        flip(path)
    with pytest.raises(Killed):
        laboratory.run(run, resume=True, progress=killed_after(3))
    watcher = laboratory.run(run, resume=True)
    assert watcher.jobs[0] == ("wide", 0, 10)
    assert watcher.lines == []
    assert_same(run, whole)


def test_the_checkpoint_of_another_program_is_refused(laboratory, finished_first_program, tmp_path):
    run = shutil.copytree(finished_first_program, tmp_path / "run")
    folder = run / "wide/checkpoints"
    (folder / "001").mkdir(exist_ok=True)
    shutil.copy(folder / "000/000000000020.npz", folder / "001/000000000020.npz")
    with pytest.raises(UserError, match="was made with another config or placement") as refused:
        laboratory.run(run, resume=True)
    assert len(str(refused.value).splitlines()) <= 3
    assert "001/000000000020.npz" in str(refused.value)


def test_a_missing_part_is_not_passed_over_in_silence(laboratory, finished_first_program, tmp_path):
    run = shutil.copytree(finished_first_program, tmp_path / "run")
    part = run / "wide/metrics/part-000-00000.parquet"
    part.unlink()
    with pytest.raises(UserError, match=r"part-000-00000\.parquet is missing, so the run cannot be resumed"):
        laboratory.run(run, resume=True)


def test_a_checkpoint_of_an_older_revision_is_named(laboratory, finished_first_program, tmp_path, monkeypatch):
    """Its carries had other fields: what does not fit, which revision made it, and the way on; also the second time."""
    run = shutil.copytree(finished_first_program, tmp_path / "run")
    newest = run / "wide/checkpoints/000/000000000020.npz"
    with np.load(newest) as archive:
        members = dict(archive)
    members["[0].a_field_of_old"] = members.pop("[0].updates")
    np.savez(newest, **members)
    plan = read_json(run / "plan.json")
    (run / "plan.json").write_text(to_json({**plan, "versions": {"jax": "0.4.1", "git": "367096a48f4e"}}))
    monkeypatch.setattr(laboratory, "versions", lambda: {"jax": "0.4.1", "git": "0123456789ab"})
    for _ in range(2):
        with pytest.raises(UserError) as refused:
            laboratory.run(run, resume=True)
        assert str(refused.value) == (
            f"{newest} does not fit this program: [0].a_field_of_old is only in one of them\n"
            "the run was made with other versions (git 367096a48f4e -> 0123456789ab); "
            "resume it with the original config, placement and versions, or restart it with --force"
        )
    assert newest.exists()
