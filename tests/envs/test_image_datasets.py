"""The stream of image data sets: the generated sets, one form for all, and which images and labels a visit shows."""

import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, visit_of

from plasticity.envs import pictures
from plasticity.envs.image_datasets import image_datasets
from plasticity.envs.pictures import PICTURES
from plasticity.envs.resizing import recoloured, resized, weights

CHECKSUMS = {
    "colours": 2997254420, "textures": 446036992, "silhouettes": 3253592665, "glyphs": 2723421948,
    "counts": 3031590971,
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_generated_images_are_the_same_bytes_on_every_platform(name: str) -> None:
    found = pictures.images(name, 120)
    assert (found.shape, found.dtype) == ((120, 32, 32, 3), np.uint8)
    assert zlib.crc32(found) == CHECKSUMS[name]
    np.testing.assert_array_equal(pictures.images(name, 30), found[:30])
    test = pictures.images(name, 24, test=True)
    assert not (test[:, None] == found[None, :24]).all((-3, -2, -1)).any()
    assert set(pictures.labels(name, 120)) == set(range(PICTURES[name].classes))


def test_the_classes_of_three_sets_by_their_pixels() -> None:
    """The hue, the cells of a digit and the number of discs can be read from the images."""
    colours, hues = pictures.images("colours", 80).astype(int), pictures.HUES
    unit = hues / np.linalg.norm(hues, axis=1, keepdims=True)
    median = np.median(colours.reshape(80, -1, 3), 1)
    assert ((median @ unit.T).argmax(1) == pictures.labels("colours", 80)).mean() > 0.95
    assert [glyph.sum() for glyph in pictures.GLYPHS[[1, 7]]] == [10, 11]
    assert len({glyph.tobytes() for glyph in pictures.GLYPHS}) == 10
    counts = pictures.images("counts", 40).astype(int)
    for image, label in zip(counts, pictures.labels("counts", 40), strict=True):
        quarters = [image[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16)]
        paper = np.median(np.stack([image[0], image[-1], image[:, 0], image[:, -1]]), (0, 1))
        assert sum(abs((each - paper).mean((0, 1))).mean() > 6 for each in quarters) == label + 1


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 32), (28, 28, 32), (40, 25, 16), (32, 20, 32)])
def test_images_are_resized_as_jax_does_it(height: int, width: int, side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    wanted = jax.image.resize(images.astype(np.float32), (3, side, side, 3), "linear")
    assert np.abs(resized(images, side) - np.clip(wanted, 0, 255)).max() <= 0.51


def test_interpolation_by_hand() -> None:
    np.testing.assert_allclose(weights(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_allclose(weights(4, 2), np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7)
    grey = np.array([[[[7], [200]]]], np.uint8)
    np.testing.assert_array_equal(recoloured(grey, 3)[0, 0], [[7] * 3, [200] * 3])
    colours = np.array([[[[255, 0, 0], [0, 255, 0], [10, 20, 30]]]], np.uint8)
    assert recoloured(colours, 1).ravel().tolist() == [76, 150, 18]  # 0.299 R + 0.587 G + 0.114 B
    with pytest.raises(ValueError, match="images must have 1 or 3 channels, got 4"):
        recoloured(np.zeros((1, 2, 2, 4), np.uint8), 3)


def opened(source: Any, task: int, eval_replica: int = 0) -> Any:
    visit = visit_of(task)._replace(eval_replica=jnp.int32(eval_replica))
    return jax.jit(source.make(1).reset)(lane_keys(0), visit, jnp.int32(0))[1].observation


def rows(images: Any, known: np.ndarray) -> np.ndarray:
    """The number of each image among the known ones, all of which must be there."""
    same = (np.asarray(images)[0][:, None] == known[None]).all((-3, -2, -1))
    assert same.any(1).all()
    return same.argmax(1)


RAW: dict[str, Any] = {"flat": False, "standardise": "none", "samples": 40, "envs": 500}


@pytest.mark.parametrize("outputs", ["shared", "separate"])
def test_a_visit_shows_its_data_set_with_its_labels(outputs: Any) -> None:
    names = ["glyphs", "counts", "textures"]
    source = image_datasets(datasets=names, outputs=outputs, held_out=0.25, **RAW)
    assert source.spec.tasks == tuple(names)
    assert source.spec.actions == (20 if outputs == "separate" else 10)
    offset = 0
    for task, name in enumerate(names):
        known, labels = pictures.images(name, 40), pictures.labels(name, 40)
        each = [np.flatnonzero(labels == label) for label in range(PICTURES[name].classes)]
        last = {int(row) for own in each for row in own[len(own) - round(0.25 * len(own)) :]}
        for replica in (0, 3):
            seen = opened(source, task, replica)
            found = rows(seen.input, known)
            assert set(found) == (last if replica else set(range(40)) - last)
            np.testing.assert_array_equal(seen.target[0], labels[found] + offset)
        offset += PICTURES[name].classes if outputs == "separate" else 0


def test_the_test_split_is_not_for_learning() -> None:
    source = image_datasets(datasets=["counts"], held_out="test", **RAW)
    assert set(rows(opened(source, 0).input, pictures.images("counts", 40))) == set(range(40))
    assert set(rows(opened(source, 0, 1).input, pictures.images("counts", 8, test=True))) == set(range(8))


def test_each_data_set_has_its_own_scale() -> None:
    source = image_datasets(datasets=["colours", "counts"], samples=40, held_out=0, standardise="channel", envs=2000)
    for task, name in enumerate(source.spec.tasks):
        images = pictures.images(name, 40).astype(float)
        scaled = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
        seen = np.asarray(opened(source, task).input)[0]
        assert seen.shape == (2000, 32 * 32 * 3)
        distance = np.abs(seen[:20, None] - scaled.reshape(1, 40, -1)).max(-1).min(1)
        assert distance.max() < 1e-4


def test_files_beside_each_other(tmp_path: Path) -> None:
    """An ``.npz`` of grey images of another size beside generated ones; its contents identify it."""
    images = np.random.default_rng(1).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    labels = np.arange(12) % 3
    np.savez(tmp_path / "mine.npz", images=images, labels=labels, test_images=images[:3], test_labels=labels[:3])
    settings: dict[str, Any] = {"path": str(tmp_path), "held_out": "test", "side": 16, "flat": False, "envs": 200}
    source = image_datasets(datasets=["counts", "mine"], samples=12, standardise="none", **settings)
    known = np.repeat(resized(images[..., None], 16), 3, -1)
    seen = opened(source, 1)
    found = rows(seen.input, known)
    assert set(found) == set(range(12))
    np.testing.assert_array_equal(seen.target[0], labels[found])
    assert set(rows(opened(source, 1, 1).input, known[:3])) == {0, 1, 2}
    ((path, digest),) = source.spec.data
    assert (Path(path).name, len(digest)) == ("mine.npz", 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": ["glyphs", "glyphs"]}, 'datasets: "glyphs" is given twice; the schedule can visit it again'),
        ({"datasets": ["glyfs"]}, 'path: missing; it must be the folder that holds the data set "glyfs"; did you mean'),
        ({"datasets": ["mnist"]}, 'that holds the data set "mnist"; without files there are colours'),
        ({"datasets": ["mine"]}, "without files there are colours, textures, silhouettes, glyphs, counts, shapes"),
        ({"path": "/tmp"}, "path: /tmp is not allowed; must be null, because no data set is read from a file"),
        ({"samples": 4}, "samples: the 4 images used of colours include no sample of class 4 of"),
        ({"samples": 8, "held_out": 0.2}, "held_out: 0.2 is not allowed; it leaves no image of a class of colours for"),
        ({"datasets": ["digits"], "held_out": "test"}, "held_out: test is not allowed; digits have no test split"),
        ({"datasets": ["glyphs", "none"], "path": "nowhere"}, "path: nowhere/none.npz does not contain npz"),
        ({"augment": {"crop": 40}}, "augment.crop: 40 is not allowed; must be an integer in"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_datasets(**settings)
