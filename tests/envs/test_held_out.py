"""Held-out samples: which rows are drawn in training and in evaluations, on every supervised stream."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from openings import opened, opening
from sklearn.datasets import load_digits

from plasticity.envs import STREAMS
from plasticity.envs.held_out import drawn_row, split_of
from plasticity.envs.samples import dataset_samples, gaussian_samples

DRAWN, COUNT = 1500, 100
PIXELS, LABELS = (array[:COUNT] for array in load_digits(return_X_y=True))
SORTED = np.sort((PIXELS - PIXELS.mean()) / PIXELS.std(), 1)  # of all pixels, which a permutation leaves
DIGITS: dict[str, Any] = {"inputs": "digits", "samples": COUNT, "envs": DRAWN}
CASES: dict[str, dict[str, Any]] = {
    "relabelled": {**DIGITS, "initial": "true", "fraction": 0.5},
    "permuted_labels": {**DIGITS, "gradual": 0.5},
    "permuted_inputs": DIGITS,
    "class_incremental": {**DIGITS, "classes_per_task": 5, "order": "fixed"},
    "regression": {**DIGITS, "targets": "noise"},
}


def rows(inputs: np.ndarray) -> np.ndarray:
    """Which of the digits each input is."""
    distance = np.abs(np.sort(inputs, 1)[:, None] - SORTED).max(-1)
    assert distance.min(1).max() < 1e-5
    return distance.argmin(1)


def last_of_each_class(share: float) -> set[int]:
    groups = [np.flatnonzero(label == LABELS) for label in range(10)]
    return {int(row) for each in groups for row in each[len(each) - round(share * len(each)) :]}


def test_digits_can_be_told_apart() -> None:
    assert len({row.tobytes() for row in SORTED}) == COUNT


@pytest.mark.parametrize("name", sorted(CASES))
def test_training_never_draws_what_an_evaluation_draws(name: str) -> None:
    """1500 draws miss one of 72 rows with probability 6e-8."""
    held_out = last_of_each_class(0.3)
    drawn = [
        set(rows(opening(name, {**CASES[name], "held_out": 0.3}, 1, replica).input).tolist()) for replica in (0, 5)
    ]
    assert drawn[0] == set(range(COUNT)) - held_out
    assert drawn[1] == held_out
    assert 27 <= len(held_out) <= 33


@pytest.mark.parametrize("name", sorted(CASES))
def test_without_held_out_samples_both_draw_all(name: str) -> None:
    assert set(rows(opening(name, CASES[name], 1, 5).input).tolist()) == set(range(COUNT))


def test_labels_of_a_row_do_not_depend_on_what_is_held_out() -> None:
    labels = [opened("relabelled", {**DIGITS, "held_out": share}, 2)[0].targets for share in (0.0, 0.3)]
    np.testing.assert_array_equal(*labels)


def test_held_out_images_are_not_augmented() -> None:
    """All training images are flipped; those of an evaluation are the file's."""
    settings = {**DIGITS, "envs": 50, "augment": {"flip": 1.0}, "held_out": 0.3}
    known = ((PIXELS - PIXELS.mean()) / PIXELS.std()).astype(np.float32)
    flipped = known.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64)
    for replica, images in ((0, flipped), (5, known)):
        seen = opening("relabelled", settings, 0, replica).input
        np.testing.assert_allclose(seen, images[rows(seen)], atol=1e-5)


def test_drawn_rows_are_uniform() -> None:
    """2000 draws of each part; 3.3 standard deviations of chi-squared."""
    split = split_of(gaussian_samples(50, 2), 0.2)
    assert (split.learning, split.held_out) == (40, 10)
    keys = jax.random.split(jax.random.key(3), 2000)
    for learning, part in ((True, range(40)), (False, range(40, 50))):
        drawn = np.asarray(jax.vmap(lambda key, now=learning: drawn_row(key, split, jnp.asarray(now)))(keys))
        count = np.bincount(drawn, minlength=50)[list(part)]
        assert count.sum() == 2000
        even, free = 2000 / len(part), len(part) - 1
        assert (((count - even) ** 2) / even).sum() < free + 3.3 * np.sqrt(2 * free)


def test_the_last_samples_of_each_class_are_held_out() -> None:
    split = split_of(dataset_samples("digits", None, COUNT, True), 0.3)
    assert set(np.asarray(split.rows)[split.learning :].tolist()) == last_of_each_class(0.3)
    assert sorted(np.asarray(split.rows).tolist()) == list(range(COUNT))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One feature and its label: 0 ... 29 to learn from, 100 ... 109 in the test split; the label is the parity."""
    path = tmp_path_factory.mktemp("data") / "two.npz"
    train, test = np.arange(30.0)[:, None], np.arange(100.0, 110.0)[:, None]
    labels = {"labels": np.arange(30) % 2, "test_labels": np.arange(10) % 2}
    np.savez(path, features=train, test_features=test, **labels)
    return str(path)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("relabelled", {"initial": "true", "fraction": 0.0, "classes": 2}),
        ("permuted_labels", {}),
        ("permuted_inputs", {"labels": "random"}),
        ("warm_start", {"shares": (0.5, 1.0)}),
        ("class_incremental", {"classes_per_task": 1}),
    ],
)
def test_the_test_split(file: str, name: str, more: dict[str, Any]) -> None:
    """Columns are standardised over all 40 rows; their order stays."""
    values = np.r_[np.arange(30.0), np.arange(100.0, 110.0)]
    known = (values - values.mean()) / values.std()
    settings = {"inputs": "npz", "path": file, "held_out": "test", "envs": 1000, **more}
    for replica, part in ((0, range(30)), (5, range(30, 40))):
        seen = opening(name, settings, 1, replica)
        row = np.abs(seen.input - known).argmin(1)
        assert set(row.tolist()) == set(part)
        if name in ("relabelled", "warm_start", "class_incremental"):
            np.testing.assert_array_equal(seen.target, row % 2)


def test_regression_on_the_test_split(tmp_path: Path) -> None:
    """The file's own targets, and functions that have mean 0 and variance 1 over the rows to learn from."""
    rng = np.random.default_rng(0)
    arrays = {"features": rng.normal(size=(60, 3)), "targets": rng.normal(size=60)}
    np.savez(tmp_path / "x.npz", **arrays, **{f"test_{name}": array[:20] + 5 for name, array in arrays.items()})
    settings = {"inputs": "npz", "path": str(tmp_path / "x.npz"), "held_out": "test", "envs": 400}
    seen = [opening("regression", {**settings, "targets": "true"}, 1, replica).target for replica in (0, 5)]
    np.testing.assert_array_equal(np.unique(seen[0]), np.sort(arrays["targets"].astype(np.float32)))
    np.testing.assert_allclose(np.unique(seen[1]), np.sort(arrays["targets"][:20] + 5), rtol=1e-5)
    with pytest.warns(UserWarning, match="targets: network ignores the array targets"):
        values = opened("regression", {**settings, "targets": "network"})[0].targets
    assert values.shape == (80, 1)
    np.testing.assert_allclose([values[:60].mean(), values[:60].std()], [0, 1], atol=1e-5)
    assert abs(values[60:].mean()) > 0.1


# Six targets and the sum of six inputs at the start of visit 1, in training and in an evaluation, as they were before
# all streams could hold samples out. Only the noise of `regression` is gone from its evaluations.
BEFORE: list[tuple[str, dict[str, Any], list[float], float, list[float] | None, float]] = [
    (
        "relabelled",
        {"samples": 60, "fraction": 0.3, "initial": "true"},
        [2, 8, 9, 5, 3, 5],
        -1.688,
        [5, 5, 8, 4, 2, 4],
        13.856,
    ),
    ("permuted_labels", {"samples": 60, "labels": "random"}, [4, 4, 4, 3, 9, 0], -1.688, [7, 0, 9, 0, 3, 3], 13.856),
    ("permuted_inputs", {"samples": 60}, [8, 8, 8, 5, 1, 5], -1.688, [3, 6, 6, 4, 1, 1], 13.856),
    ("class_incremental", {"samples": 200, "held_out": 0.3}, [3, 7, 7, 5, 3, 5], 8.066, [3, 7, 3, 6, 7, 7], -9.019),
    ("warm_start", {"samples": 60}, [0, 0, 8, 6, 4, 3], -19.572, [8, 1, 8, 5, 1, 7], 10.68),
    (
        "image_datasets",
        {"datasets": ["counts", "digits"], "samples": 100, "side": 8},
        [8, 0, 0, 8, 3, 5],
        -32.327,
        [1, 7, 0, 9, 9, 5],
        48.365,
    ),
    (
        "regression",
        {"samples": 60, "dimensions": 4, "noise": 0.5},
        [-0.5766, -1.2799, 0.5508, 0.38, -0.1893, 1.1341],
        2.486,
        None,
        6.233,
    ),
    (
        "slowly_changing_regression",
        {"bits": 8, "slow": 4},
        [-1.0, 3.0, 0.0, 2.0, 2.0, 2.0],
        25.0,
        [-1.0, 2.0, 6.0, 2.0, 2.0, 1.0],
        24.0,
    ),
]


@pytest.mark.parametrize(("name", "settings", "targets", "inputs", "evaluated", "inputs_evaluated"), BEFORE)
def test_without_held_out_samples_and_noise_the_numbers_are_the_old_ones(
    name: str,
    settings: dict[str, Any],
    targets: list[float],
    inputs: float,
    evaluated: list[float] | None,
    inputs_evaluated: float,
) -> None:
    for replica, labels, total in ((0, targets, inputs), (1, evaluated, inputs_evaluated)):
        seen = opening(name, {**settings, "envs": 6}, 1, replica)
        if labels is not None:
            np.testing.assert_allclose(seen.target.ravel(), labels, atol=1e-4)
        np.testing.assert_allclose(seen.input.astype(np.float64).sum(), total, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("relabelled", {"samples": 10, "held_out": 1.0}, "1.0 is not allowed; it leaves none of the 10 samples for tr"),
        ("permuted_inputs", {"held_out": 1e-4}, "0.0001 is not allowed; it leaves none of the 1797 samples for eval"),
        ("permuted_labels", {"held_out": "test"}, "test is not allowed; digits have no test split"),
        ("warm_start", {"held_out": "test"}, "test is not allowed; digits have no test split"),
        ("relabelled", {"inputs": "gaussian", "held_out": "test"}, "test is not allowed; gaussian inputs have no test"),
        (
            "regression",
            {"held_out": 0.2},
            "0.2 is not allowed without a fixed set of inputs; evaluations draw new ones",
        ),
    ],
)
def test_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"held_out: {message}"):
        STREAMS[name](**settings)
