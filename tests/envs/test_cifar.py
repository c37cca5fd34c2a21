"""CIFAR's batches in folders and archives, and pickles that are refused."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plasticity.envs.cifar import unpickled
from plasticity.envs.data import contents, read

RANDOM = np.random.default_rng(0)
TRAIN, TEST = (RANDOM.integers(0, 256, (n, 3072), dtype=np.uint8) for n in (5, 3))
FINE, OTHER = [99, 0, 41, 7, 7], [3, 99, 0]


def batch(rows: np.ndarray, labels: list[int], protocol: int = 2) -> bytes:
    return pickle.dumps({b"data": rows, b"fine_labels": labels, b"filenames": [b"a.png"]}, protocol)


def images(rows: np.ndarray) -> np.ndarray:
    """Value for value: image[i, j, c] = row[1024 c + 32 i + j]."""
    i, j, c = np.indices((32, 32, 3))
    return rows[:, 1024 * c + 32 * i + j]


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train").write_bytes(batch(TRAIN, FINE))
    (folder / "test").write_bytes(batch(TEST, OTHER))
    return folder


def packed(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname="cifar-100-python")
    return archive


@pytest.fixture(params=["folder", "parent", "archive"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = write(tmp_path / "cifar-100-python")
    if request.param == "archive":
        return str(packed(folder, tmp_path / "cifar-100-python.tar.gz"))
    return str(folder if request.param == "folder" else tmp_path)


def test_both_splits_value_for_value(place: str) -> None:
    for split, rows, labels in (("train", TRAIN, FINE), ("test", TEST, OTHER)):
        found = read("cifar100", place, split)
        np.testing.assert_array_equal(found.inputs, images(rows))
        assert (found.inputs.dtype, found.labels.tolist()) == (np.uint8, labels)


def test_files_are_recorded(place: str) -> None:
    one, both = (contents("cifar100", place, test) for test in (False, True))
    if Path(place).is_file():
        assert one == both == ((place, hashlib.sha256(Path(place).read_bytes()).hexdigest()),)
    else:
        assert [Path(path).name for path, _ in both] == ["train", "test"]
        assert one == both[:1]
        assert [digest for _, digest in both] == [
            hashlib.sha256(raw).hexdigest() for raw in (batch(TRAIN, FINE), batch(TEST, OTHER))
        ]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_and_order_of_bytes(protocol: int) -> None:
    stored = {b"a": TRAIN, b"b": np.asfortranarray(TRAIN), b"c": np.arange(3, dtype=">i2"), "d": np.arange(4), "e": [1]}
    found = unpickled(pickle.dumps(stored, protocol))
    np.testing.assert_array_equal(found["a"], TRAIN)
    np.testing.assert_array_equal(found["b"], TRAIN)
    assert [found[name] if name == "e" else found[name].tolist() for name in "cde"] == [[0, 1, 2], [0, 1, 2, 3], [1]]


class Call:
    """Pickled as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call(print, "run"), "print is not allowed in a file of images"),
        (Call(getattr, "text", "upper"), "getattr is not allowed"),
        (
            Call(np.ndarray, (1,), "O", b"pointers"),
            r"data must be integers \[N, 3072\], got uint8\[0\]",
        ),  # the buffer is not read
        (np.array([None]), "an array of type O8? is not allowed"),
        (np.array(["text"]), "an array of type U4 is not allowed"),
        (np.zeros(3), "an array of type f8 is not allowed"),
        (np.int64(3), "scalar is not allowed"),
        ({1, 2}, "builtins.set is not allowed|__builtin__.set is not allowed"),
        (Path("/"), "is not allowed in a file of images"),
        (TRAIN[:, :3000], r"data must be integers \[N, 3072\], got uint8\[5, 3000\]"),
        (TRAIN.astype(np.int32), r"data must be bytes \(uint8\), got int32"),
        ("text", r"data must be integers \[N, 3072\], got <U4\[\]"),
    ],
)
def test_other_contents_are_refused_and_not_run(tmp_path: Path, value: Any, message: str, capsys: Any) -> None:
    (tmp_path / "train").write_bytes(pickle.dumps({b"data": value, b"fine_labels": FINE}, 2))
    with pytest.raises(ValueError, match=message) as error:
        read("cifar100", str(tmp_path))
    assert str(error.value).startswith(f"path: {tmp_path} does not contain cifar100 (")
    assert len(str(error.value).splitlines()) == 3
    assert not capsys.readouterr().out


@pytest.mark.parametrize("labels", [[0.5] * 5, [b"a"] * 5, [[1]] * 5, [1] * 4, None, [-1] * 5])
def test_other_labels_are_refused(tmp_path: Path, labels: Any) -> None:
    (tmp_path / "train").write_bytes(pickle.dumps({b"data": TRAIN, b"fine_labels": labels}, 2))
    with pytest.raises(ValueError, match=r"does not contain cifar100 \(.*label"):
        read("cifar100", str(tmp_path))


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    archive = packed(write(tmp_path / "some"), tmp_path / "some.tar.gz")
    whole = archive.read_bytes()
    for raw in (whole[:-400], whole[:600], b"", b"<html>"):
        archive.write_bytes(raw)
        with pytest.raises(ValueError, match=r"does not contain the test split of cifar100 \(") as error:
            read("cifar100", str(archive), "test")
        assert len(str(error.value).splitlines()) == 3


def test_archives_without_a_file_and_links_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "some.tar"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("cifar-100-python/train")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        inside = batch(TEST, OTHER)
        file = tarfile.TarInfo("cifar-100-python/test")
        file.size = len(inside)
        tar.addfile(file, io.BytesIO(inside))
    assert read("cifar100", str(archive), "test").labels.tolist() == OTHER
    with pytest.raises(ValueError, match="the archive has no file train"):
        read("cifar100", str(archive))
