"""Readers on small files written here in the published formats."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from envs.data import digits, image_samples, read, select


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 4, 3), dtype=np.uint8)


LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], np.uint8)


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist(tmp_path: Path, images: np.ndarray, zipped: bool) -> None:
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS))
    name, raw = "train-images-idx3-ubyte", idx_bytes(images)
    (tmp_path / (name + ".gz" * zipped)).write_bytes(gzip.compress(raw) if zipped else raw)
    found = read("mnist", str(tmp_path))
    np.testing.assert_array_equal(found.inputs, images[..., None])
    np.testing.assert_array_equal(found.labels, LABELS)


def test_cifar10(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (5, 2, 3072), dtype=np.uint8)
    for i, batch in enumerate(rows, start=1):
        (tmp_path / f"data_batch_{i}").write_bytes(pickle.dumps({b"data": batch, b"labels": [i, i + 1]}))
    found = read("cifar10", str(tmp_path))
    assert found.inputs.shape == (10, 32, 32, 3)
    # a row holds 1024 red, then 1024 green, then 1024 blue bytes, line after line
    assert found.inputs[3, 5, 7, 1] == rows[1, 1, 1024 + 5 * 32 + 7]
    np.testing.assert_array_equal(found.labels, [1, 2, 2, 3, 3, 4, 4, 5, 5, 6])


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_npz(tmp_path: Path, images: np.ndarray, name: str) -> None:
    np.savez(tmp_path / "some.npz", images=images, labels=LABELS)
    found = read(name, str(tmp_path / "some.npz"))
    np.testing.assert_array_equal(found.inputs[..., 0], images)
    assert found.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("name", "files"),
    [("mnist", "train-images-idx3-ubyte and train-labels-idx1-ubyte"), ("cifar10", "data_batch_1 ... data_batch_5")],
)
@pytest.mark.parametrize("path", [None, "nowhere", "nowhere.npz"])
def test_missing_files_are_named(name: str, files: str, path: str | None) -> None:
    with pytest.raises(ValueError, match=files) as error:
        read(name, path)
    assert len(str(error.value).splitlines()) == 3


def test_other_contents_are_refused(tmp_path: Path, images: np.ndarray) -> None:
    np.savez(tmp_path / "float.npz", images=images / 255, labels=LABELS)
    with pytest.raises(ValueError, match=r"images must be uint8.*got float64\[10, 4, 3\]"):
        read("mnist", str(tmp_path / "float.npz"))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="is no IDX file"):
        read("mnist", str(tmp_path))


def test_select_takes_the_first() -> None:
    some = select(digits(), 5)
    np.testing.assert_array_equal(some.labels, [0, 1, 2, 3, 4])
    assert some.inputs.shape == (5, 8, 8, 1)


def test_rows_have_mean_0_and_variance_1(tmp_path: Path, images: np.ndarray) -> None:
    np.savez(tmp_path / "some.npz", images=images, labels=LABELS)
    samples = image_samples("mnist", str(tmp_path / "some.npz"), None, flat=True)
    rows = np.asarray(samples.rows((), slice(None)))
    assert rows.shape == (10, 12)
    np.testing.assert_allclose([rows.mean(), rows.std()], [0, 1], atol=1e-5)
    np.testing.assert_allclose(rows[3], (images[3].ravel() - images.mean()) / images.std(), rtol=1e-5, atol=1e-6)
