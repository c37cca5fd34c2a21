"""Augmentation against a reference in NumPy, and the scales of pixels."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.envs.images import Augmentation, augmentation_of, augmented, rotated
from plasticity.envs.samples import dataset_samples, drawn_rows

IMAGE = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
LIKE_CIFAR = Augmentation(0.5, 4, 15.0)


def reference_rotation(image: np.ndarray, degrees: float, fill: np.ndarray) -> np.ndarray:
    """Pixel by pixel: the colour of each target is read at the place that the rotation moves there."""
    height, width, _ = image.shape
    center = np.array([(height - 1) / 2, (width - 1) / 2])
    angle = np.deg2rad(degrees)
    found = np.empty(image.shape)
    for i in range(height):
        for j in range(width):
            up, right = center[0] - i, j - center[1]
            # clockwise by the angle, from the target back to the source
            source_right = right * np.cos(angle) + up * np.sin(angle)
            source_up = up * np.cos(angle) - right * np.sin(angle)
            y, x = center[0] - source_up, center[1] + source_right
            found[i, j] = 0
            for k in (int(np.floor(y)), int(np.floor(y)) + 1):
                for m in (int(np.floor(x)), int(np.floor(x)) + 1):
                    pixel = image[k, m] if 0 <= k < height and 0 <= m < width else fill
                    found[i, j] += (1 - abs(y - k)) * (1 - abs(x - m)) * pixel
    return found


@pytest.mark.parametrize("degrees", [0.0, 7.5, 15.0, 90.0, 133.0, 180.0])
def test_rotation(degrees: float) -> None:
    fill = np.array([10.0, 20.0, 30.0])
    found = rotated(jnp.asarray(IMAGE), jnp.float32(degrees), fill)
    np.testing.assert_allclose(found, reference_rotation(IMAGE, degrees, fill), atol=0.02)


def test_rotation_is_counter_clockwise_and_exact_at_0() -> None:
    square = IMAGE[:, :9]
    np.testing.assert_array_equal(rotated(jnp.asarray(square), jnp.float32(0), 0.0), square)
    np.testing.assert_allclose(rotated(jnp.asarray(square), jnp.float32(90), 0.0), np.rot90(square), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_all_of_them_against_numpy(dtype: Any) -> None:
    image, fill = IMAGE.astype(dtype), np.array([1.0, 2.0, 3.0], np.float32)
    draw = jax.jit(lambda key: augmented(key, jnp.asarray(image), LIKE_CIFAR, fill))
    flips = corners = 0
    for seed in range(16):
        key = jax.random.key(seed)
        one, two, three = jax.random.split(key, 3)
        flip = bool(jax.random.bernoulli(one, 0.5))
        top, left = np.asarray(jax.random.randint(two, (2,), 0, 9))
        wanted = np.pad(image[:, ::-1] if flip else image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        wanted = wanted[top : top + 9, left : left + 12]
        wanted = reference_rotation(wanted, float(jax.random.uniform(three, maxval=15.0)), fill)
        found = draw(key)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, wanted, atol=0.52 if dtype == np.uint8 else 0.02)
        flips, corners = flips + flip, corners + top + left
    assert 2 < flips < 14
    assert 90 < corners < 166  # 32 numbers with mean 4


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_unwanted_changes_are_none(dtype: Any) -> None:
    image = IMAGE.astype(dtype)
    for seed in range(3):
        found = augmented(jax.random.key(seed), jnp.asarray(image), LIKE_CIFAR, 7.0, jnp.asarray(False))
        np.testing.assert_array_equal(found, image)


def test_certain_flips_alone() -> None:
    found = augmented(jax.random.key(0), jnp.asarray(IMAGE), Augmentation(flip=1.0), 0.0)
    np.testing.assert_array_equal(found, IMAGE[:, ::-1])


@pytest.mark.parametrize(
    ("settings", "image", "message"),
    [
        ({"flips": 0.5}, (32, 32, 3), r"augment.flips is not allowed; must be flip, crop, rotate.*flip"),
        ({"flip": 1.5}, (32, 32, 3), r"augment.flip: 1.5 is not allowed; must be a number in \[0, 1\]"),
        ({"crop": 2.5}, (32, 32, 3), r"augment.crop: 2.5 is not allowed; must be an integer in \[0, 31\]"),
        ({"crop": 8}, (8, 12, 1), r"augment.crop: 8 is not allowed; must be an integer in \[0, 7\]"),
        ({"rotate": -1}, (32, 32, 3), r"augment.rotate: -1 is not allowed; must be a number in \[0, 180\]"),
        ({"rotate": float("inf")}, (32, 32, 3), r"augment.rotate: inf is not allowed"),
        ({"crop": 1}, (), r"augment: .* is not allowed; must be {}, because the inputs are not images"),
    ],
)
def test_other_augmentations_are_refused(settings: Any, image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        augmentation_of(settings, image)
    assert len(str(error.value).splitlines()) == 1


PIXELS = np.random.default_rng(1).integers(0, [100, 200, 256], (10, 4, 5, 3)).astype(np.uint8)
OTHER = np.random.default_rng(2).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> str:
    np.savez(
        tmp_path / "some.npz", images=PIXELS, labels=np.arange(10) % 3, test_images=OTHER, test_labels=np.ones(6, int)
    )
    return str(tmp_path / "some.npz")


@pytest.mark.parametrize("flat", [True, False])
def test_scales_of_pixels(path: str, flat: bool) -> None:
    used, every = PIXELS[:8], np.concatenate([PIXELS[:8], OTHER])
    wanted = {
        "all": (every - used.mean()) / used.std(),
        "channel": (every - used.mean((0, 1, 2))) / used.std((0, 1, 2)),
        "none": every,
    }
    for standardise, values in wanted.items():
        samples = dataset_samples("npz", path, 8, flat, standardise, test=True)
        rows = samples.rows((), np.arange(14))
        assert (samples.size, samples.test, rows.dtype) == (8, 6, samples.dtype)
        assert rows.dtype == (np.uint8 if standardise == "none" else np.float32)
        np.testing.assert_allclose(rows, values.reshape(14, -1) if flat else values, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(samples.labels, [*np.arange(8) % 3, *[1] * 6])
        mean = used.mean((0, 1, 2)) if standardise == "none" else 0
        np.testing.assert_allclose(samples.fill, mean, rtol=1e-6)


def test_flat_images_are_augmented_as_images(path: str) -> None:
    flat, image = (
        drawn_rows(dataset_samples("npz", path, None, each), {"flip": 0.5, "crop": 2, "rotate": 30.0})
        for each in (True, False)
    )
    found = [np.asarray(draw(jax.random.key(5), (), 3)) for draw in (flat, image)]
    np.testing.assert_array_equal(found[0].reshape(4, 5, 3), found[1])


def test_a_constant_channel_is_refused(tmp_path: Path) -> None:
    images = PIXELS.copy()
    images[..., 1] = 7
    np.savez(tmp_path / "some.npz", images=images, labels=np.arange(10) % 3)
    with pytest.raises(ValueError, match="inputs: npz cannot be standardised; all pixels of channel 1 have the same"):
        dataset_samples("npz", str(tmp_path / "some.npz"), None, True, "channel")


@pytest.mark.parametrize("standardise", ["channel", "none"])
def test_features_have_one_scale(tmp_path: Path, standardise: Any) -> None:
    np.savez(tmp_path / "some.npz", features=np.eye(3), labels=np.arange(3))
    with pytest.raises(ValueError, match=f"standardise: {standardise} is not allowed; must be all, because"):
        dataset_samples("npz", str(tmp_path / "some.npz"), None, True, standardise)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "test_images or test_features: missing; the file has images, labels"),
        ({"test_images": OTHER}, "test_labels or targets: missing"),
        ({"test_images": OTHER / 255, "test_labels": np.ones(6, int)}, "test_images: must be uint8"),
        ({"test_images": OTHER, "test_labels": np.ones(5, int)}, "test_labels: there must be one row for each row"),
        ({"test_images": OTHER[:, 1:], "test_labels": np.ones(6, int)}, r"test split must be uint8\[N, 4, 5, 3\]"),
        ({"test_images": OTHER, "test_targets": np.ones(6)}, "one of the two splits has labels, the other has targets"),
    ],
)
def test_other_test_splits_are_refused(tmp_path: Path, arrays: Any, message: str) -> None:
    np.savez(tmp_path / "some.npz", images=PIXELS, labels=np.arange(10) % 3, **arrays)
    with pytest.raises(ValueError, match=f"path: .*{message}") as error:
        dataset_samples("npz", str(tmp_path / "some.npz"), None, True, test=True)
    assert len(str(error.value).splitlines()) == 1
