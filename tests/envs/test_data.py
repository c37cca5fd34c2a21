"""Readers on small files written here in the published formats."""

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plasticity.envs.data import digits, read
from plasticity.envs.permuted import permuted_inputs
from plasticity.envs.samples import classes_of, dataset_samples, gaussian_samples, labels_of, select


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], np.uint8)


def write_idx(folder: Path, stem: str, images: np.ndarray, labels: np.ndarray) -> str:
    """The images zipped, the labels not."""
    (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
    return str(folder)


@pytest.mark.parametrize(
    ("name", "stem", "published"),
    [("mnist", "train", 0), ("fashion_mnist", "train", 0), ("emnist_letters", "emnist-letters-train", 1)],
)
def test_idx_files(tmp_path: Path, name: str, stem: str, published: int) -> None:
    found = read(name, write_idx(tmp_path, stem, IMAGES, LABELS + np.uint8(published)))
    upright = IMAGES.transpose(0, 2, 1) if name.startswith("emnist") else IMAGES
    np.testing.assert_array_equal(found.inputs, upright[..., None])
    np.testing.assert_array_equal(found.labels, LABELS)


def test_emnist_is_turned_upright_and_has_47_classes(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[0] = 46
    found = read("emnist_balanced", write_idx(tmp_path, "emnist-balanced-train", IMAGES, labels))
    assert found.inputs[2, 5, 7, 0] == IMAGES[2, 7, 5]
    assert found.labels[0] == 46


def cifar_bytes(rows: np.ndarray, **labels: list[int]) -> bytes:
    return pickle.dumps({b"data": rows, **{key.encode(): value for key, value in labels.items()}}, protocol=2)


def test_cifar10(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (5, 2, 3072), dtype=np.uint8)
    for i, batch in enumerate(rows, start=1):
        (tmp_path / f"data_batch_{i}").write_bytes(cifar_bytes(batch, labels=[i, i + 1]))
    found = read("cifar10", str(tmp_path))
    assert found.inputs.shape == (10, 32, 32, 3)
    # a row holds 1024 red, then 1024 green, then 1024 blue bytes, line after line
    assert found.inputs[3, 5, 7, 1] == rows[1, 1, 1024 + 5 * 32 + 7]
    np.testing.assert_array_equal(found.labels, [1, 2, 2, 3, 3, 4, 4, 5, 5, 6])


def test_cifar100_has_its_fine_labels(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    written = cifar_bytes(rows, fine_labels=[99, 0, 41], coarse_labels=[1, 2, 3])
    # the published pickles are older than the modules of today's NumPy
    (tmp_path / "train").write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    found = read("cifar100", str(tmp_path))
    np.testing.assert_array_equal(found.labels, [99, 0, 41])
    assert found.inputs[2, 31, 30, 2] == rows[2, 2048 + 31 * 32 + 30]


@pytest.mark.parametrize(("name", "size"), [("mnist", 28), ("npz", 4)])
def test_npz(tmp_path: Path, name: str, size: int) -> None:
    images = IMAGES[:, :size, :size]
    np.savez(tmp_path / "some.npz", images=images, labels=LABELS)
    found = read(name, str(tmp_path / "some.npz"))
    np.testing.assert_array_equal(found.inputs[..., 0], images)
    assert found.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mnist", "train-images-idx3-ubyte and train-labels-idx1-ubyte"),
        ("emnist_balanced", "emnist-balanced-train-images-idx3-ubyte and .* transposed"),
        ("cifar10", "data_batch_1 ... data_batch_5"),
        ("cifar100", "train .*fine labels"),
        ("npz", "one .npz file"),
    ],
)
@pytest.mark.parametrize("path", [None, "nowhere", "nowhere.npz"])
def test_missing_files_are_named(name: str, files: str, path: str | None) -> None:
    with pytest.raises(ValueError, match=files) as error:
        read(name, path)
    assert len(str(error.value).splitlines()) == 3


def write_npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES / 255, "labels": LABELS}, r"images: must be uint8.*got float64\[10, 28, 28\]"),
        ({"images": IMAGES, "labels": LABELS / 1}, r"labels: must be integers"),
        (
            {"images": IMAGES, "labels": LABELS[1:]},
            "labels: there must be one row for each row of images, got 9",
        ),
        ({"images": IMAGES[:, 1:], "labels": LABELS}, r"images must be \[28, 28, 1\], got \[27, 28, 1\]"),
        ({"images": IMAGES, "labels": LABELS + 1}, r"labels must be in 0 ... 9, got 2 ... 10"),
        ({"images": IMAGES}, "labels or targets: missing; the file has images"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"does not contain mnist \(.*{message}.*\); expected"):
        read("mnist", write_npz(tmp_path / "some.npz", **arrays))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"<html>", "is not an IDX file"),
        (idx_bytes(IMAGES)[:-1], r"has 7855 bytes, but an array \[10, 28, 28\] needs 7856"),
        (idx_bytes(IMAGES) + b"x", "has 7857 bytes"),
        (idx_bytes(IMAGES)[:9], "is not an IDX file"),
        (idx_bytes(IMAGES[:9]), "one label per image"),
        (idx_bytes(IMAGES[0]), "must be"),
    ],
)
def test_other_idx_files_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    path = write_idx(tmp_path, "train", IMAGES, LABELS)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(raw)  # before the zipped one
    with pytest.raises(ValueError, match=message) as error:
        read("mnist", path)
    assert "expected\na folder with train-images-idx3-ubyte" in str(error.value)


def test_cut_archives_are_refused(tmp_path: Path) -> None:
    path = write_idx(tmp_path, "train", IMAGES, LABELS)
    zipped = tmp_path / "train-images-idx3-ubyte.gz"
    zipped.write_bytes(zipped.read_bytes()[:-100])
    with pytest.raises(ValueError, match="does not contain mnist"):
        read("mnist", path)
    npz = Path(write_npz(tmp_path / "cut.npz", images=IMAGES, labels=LABELS))
    npz.write_bytes(npz.read_bytes()[:-100])
    with pytest.raises(ValueError, match="does not contain npz"):
        read("npz", str(npz))


class Harmful:
    def __reduce__(self) -> Any:
        return print, ("run",)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (pickle.dumps({b"data": Harmful()}), "builtins.print is not allowed in a file of images"),
        (cifar_bytes(np.zeros((3, 3072), np.uint8), fine_labels=[1, 2, 3])[:-40], "does not contain cifar100"),
        (
            cifar_bytes(np.zeros((3, 3071), np.uint8), fine_labels=[1, 2, 3]),
            r"must be integers \[N, 3072\], got uint8\[3, 3071\]",
        ),
        (cifar_bytes(np.zeros((3, 3072), np.uint8), labels=[1, 2, 3]), "fine_labels"),
        (cifar_bytes(np.zeros((3, 3072), np.uint8), fine_labels=[1, 2, 100]), "0 ... 99, got 1 ... 100"),
        (pickle.dumps([1]), "does not contain cifar100"),
    ],
)
def test_other_pickles_are_refused_and_not_run(tmp_path: Path, raw: bytes, message: str, capsys: Any) -> None:
    (tmp_path / "train").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        read("cifar100", str(tmp_path))
    assert not capsys.readouterr().out


def test_select_takes_the_first() -> None:
    some = select(digits(), 5)
    np.testing.assert_array_equal(some.labels, [0, 1, 2, 3, 4])
    assert some.inputs.shape == (5, 8, 8, 1)


def test_rows_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    images = IMAGES[:, :4, :3]
    samples = dataset_samples("npz", write_npz(tmp_path / "some.npz", images=images, labels=LABELS), None, flat=True)
    rows = np.asarray(samples.rows((), slice(None)))
    assert rows.shape == (10, 12)
    np.testing.assert_allclose([rows.mean(), rows.std()], [0, 1], atol=1e-5)
    np.testing.assert_allclose(rows[3], (images[3].ravel() - images.mean()) / images.std(), rtol=1e-5, atol=1e-6)


def test_images_without_contrast_are_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "flat.npz", images=np.full((2, 3, 3), 7, np.uint8), labels=LABELS[:2])
    with pytest.raises(ValueError, match="inputs: npz cannot be standardised; all pixels have the same value"):
        dataset_samples("npz", path, None, flat=True)


def test_rows_class_after_class(tmp_path: Path) -> None:
    labels = np.array([2, 0, 1, 0, 2], np.uint8)
    path = write_npz(tmp_path / "some.npz", images=IMAGES[:5], labels=labels)
    found = classes_of(dataset_samples("npz", path, None, flat=True))
    np.testing.assert_array_equal(found.rows, [1, 3, 2, 0, 4])
    np.testing.assert_array_equal(found.start, [0, 2, 3])
    np.testing.assert_array_equal(found.sizes, [2, 1, 2])
    with pytest.raises(ValueError, match="samples: the 2 rows used include no sample of class 1"):
        classes_of(dataset_samples("npz", path, 2, flat=True))
    with pytest.raises(ValueError, match="inputs: gaussian is not allowed; this stream needs inputs with true labels"):
        classes_of(gaussian_samples(5, 2))


def test_classes_are_those_of_the_whole_set(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", images=IMAGES[:6], labels=np.arange(6))
    for found, classes in (
        (dataset_samples("npz", path, 2, flat=True), 6),
        (dataset_samples("digits", None, 3, flat=True), 10),
        (dataset_samples("shapes", None, 20, flat=True), 100),
    ):
        assert found.classes == labels_of("true", found, None).classes == classes
        with pytest.raises(ValueError, match=rf"no sample of class {found.size} of {classes}"):
            classes_of(found)
    assert labels_of("true", found, 50).classes == 50  # if the user says so
    assert permuted_inputs(inputs="npz", path=path, samples=2).spec.actions == 6
    assert gaussian_samples(5, 2).classes == 0


def test_true_labels_need_classes_enough() -> None:
    samples = dataset_samples("digits", None, None, flat=True)
    assert labels_of("true", samples, None).classes == 10
    assert labels_of("true", samples, 12).classes == 12
    with pytest.raises(ValueError, match="classes: 9 is not allowed; must be at least 10 with labels: true"):
        labels_of("true", samples, 9)
    with pytest.raises(ValueError, match="labels: true is not allowed; must be random with gaussian inputs"):
        labels_of("true", gaussian_samples(5, 2), None)
