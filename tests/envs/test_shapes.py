"""The generated images: the same bytes everywhere, 100 different classes."""

import zlib

import numpy as np

from plasticity.envs import shapes
from plasticity.envs.data import generated


def test_images_are_the_same_bytes_on_every_platform() -> None:
    assert zlib.crc32(shapes.images(600)) == 2888635453
    assert zlib.crc32(shapes.images(100, test=True)) == 2759633078


def test_the_first_images_do_not_depend_on_the_number_of_images() -> None:
    np.testing.assert_array_equal(shapes.images(130), shapes.images(600)[:130])


def test_sizes_of_the_splits_and_labels() -> None:
    train, test = generated("train", 600), generated("test", 600)
    assert (train.inputs.shape, train.inputs.dtype) == ((600, 32, 32, 3), np.uint8)
    assert (train.labels.dtype, np.bincount(train.labels).tolist()) == (np.int32, [6] * 100)
    assert np.bincount(test.labels).tolist() == [2] * 20 + [1] * 80  # a fifth of the images
    assert [len(generated("test", count).inputs) for count in (1, 50, 100, 499, 505)] == [1, 50, 100, 100, 101]
    assert not (test.inputs[:100, None] == train.inputs[None, :100]).all((-3, -2, -1)).any()


def test_the_table_of_sines() -> None:
    np.testing.assert_array_equal(shapes.SINE, np.round(4096 * np.sin(np.arange(128) * np.pi / 64)))


def test_100_classes_differ_under_the_same_nuisances() -> None:
    for number in (3, 14, 15):
        each = np.concatenate([shapes.drawn(number, np.array([label])) for label in range(100)]).astype(int)
        different = (abs(each[:, None] - each[None]).max(-1) > 20).sum((-2, -1))  # pixels that differ visibly
        assert (different[~np.eye(100, dtype=bool)] >= 15).all()
        background = (each == each[0]).all((0, 3)).mean()  # all classes have the same background
        assert background > 0.25
