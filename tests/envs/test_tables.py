"""A user's own features and real-valued targets, with numbers computed by hand."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, play, player, visit_of

from plasticity.envs import STREAMS
from plasticity.envs.data import read
from plasticity.envs.samples import dataset_samples
from plasticity.envs.tables import standardise

# Columns: mean 3, deviation sqrt(8/3); constant; mean 10, deviation 20 / sqrt(6) = sqrt(200/3).
FEATURES = np.array([[1.0, 0.1, 20.0], [3.0, 0.1, 10.0], [5.0, 0.1, 0.0]])
UNIT = np.sqrt(1.5)  # 2 / sqrt(8/3) = 10 / sqrt(200/3)
STANDARD = np.array([[-UNIT, 0.0, UNIT], [0.0, 0.0, 0.0], [UNIT, 0.0, -UNIT]], np.float32)
LABELS = np.array([2, 0, 1])
TARGETS = np.array([[0.5, -7.0], [1.5, 300.0], [-2.5, 1e-3]])


def write(folder: Path, name: str = "own.npz", **arrays: Any) -> str:
    np.savez(folder / name, **arrays)
    return str(folder / name)


@pytest.fixture
def labelled(tmp_path: Path) -> dict[str, Any]:
    return {"inputs": "npz", "path": write(tmp_path, "classes.npz", features=FEATURES, labels=LABELS)}


@pytest.fixture
def measured(tmp_path: Path) -> dict[str, Any]:
    return {"inputs": "npz", "path": write(tmp_path, features=FEATURES, targets=TARGETS)}


def opening(kind: str, task: int = 0, **settings: Any) -> tuple[Any, Any]:
    """A lane's problem in a task and its first minibatch."""
    state, first = jax.jit(STREAMS[kind](**settings).make(1).reset)(lane_keys(0), visit_of(task), jnp.int32(0))
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), (state.params, first.observation))


def row_of(inputs: np.ndarray, known: np.ndarray = STANDARD) -> np.ndarray:
    """Which of ``known`` each input is."""
    row = np.abs(inputs[:, None] - known).max(-1).argmin(1)
    np.testing.assert_allclose(inputs, known[row], atol=1e-6)
    assert set(row) == set(range(len(known)))
    return row


def test_columns_are_standardised_by_hand() -> None:
    np.testing.assert_allclose(standardise(FEATURES), STANDARD, rtol=1e-6)
    assert (standardise(FEATURES)[:, 1] == 0).all()  # although the computed mean of 0.1, 0.1, 0.1 is not 0.1
    np.testing.assert_allclose(standardise(FEATURES.astype(np.float32)), STANDARD, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e300, 1e-320, -1e-200, 1e308 / 20])
def test_extreme_magnitudes_are_standardised(scale: float) -> None:
    found = standardise(FEATURES * scale)
    np.testing.assert_allclose(found, np.sign(scale) * STANDARD, rtol=1e-2 if scale == 1e-320 else 1e-5, atol=1e-9)


def test_small_spread_around_a_large_mean() -> None:
    """Float32 could not tell these rows apart."""
    np.testing.assert_allclose(standardise(1e9 + FEATURES[:, [0]]), STANDARD[:, [0]], rtol=1e-5)


def test_each_entry_of_a_larger_row_has_its_own_moments() -> None:
    values = np.random.default_rng(0).normal(3, 2, (50, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(standardise(values), (values - values.mean(0)) / values.std(0), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f8", np.longdouble, np.int8, np.uint16, np.int64])
def test_kinds_of_numbers(tmp_path: Path, dtype: Any) -> None:
    numbers = np.array([[1, 20], [3, 10], [5, 0]]).astype(dtype)
    samples = dataset_samples("npz", write(tmp_path, features=numbers, labels=LABELS), None, flat=True)
    np.testing.assert_allclose(samples.rows((), slice(None)), STANDARD[:, [0, 2]], rtol=1e-6)
    assert samples.rows((), 0).dtype == np.float32


def test_moments_are_those_of_the_rows_used(tmp_path: Path) -> None:
    path = write(tmp_path, features=np.vstack([FEATURES, FEATURES + 100]), labels=np.tile(LABELS, 2))
    np.testing.assert_allclose(dataset_samples("npz", path, 3, flat=True).rows((), slice(None)), STANDARD, rtol=1e-6)


def test_features_keep_their_shape_unless_flat(tmp_path: Path) -> None:
    path = write(tmp_path, features=np.arange(24.0).reshape(2, 3, 4), labels=LABELS[:2])
    for flat, shape in ((True, (12,)), (False, (3, 4))):
        assert STREAMS["permuted_inputs"](inputs="npz", path=path, flat=flat).spec.observation.input.shape == shape


def test_targets_of_one_column(tmp_path: Path) -> None:
    for targets in (TARGETS[:, 0], TARGETS[:, :1], TARGETS[:, 0].astype(np.float32)):
        found = read("npz", write(tmp_path, features=FEATURES, targets=targets))
        np.testing.assert_array_equal(found.targets, np.float32([[0.5], [1.5], [-2.5]]))
        assert (found.labels, found.targets.dtype) == (None, np.float32)


def test_permuted_columns_with_their_labels_and_targets(labelled: Any, measured: Any) -> None:
    """``x_u[i] = x[order_u[i]]``, and each row keeps what belongs to it."""
    for task in (0, 1, 4):
        for settings, known in ((labelled, LABELS), (measured, TARGETS.astype(np.float32))):
            problem, sample = opening("permuted_inputs", task, **settings, envs=40)
            row = row_of(sample.input, STANDARD[:, problem.order])
            np.testing.assert_array_equal(sample.target, known[row])
    assert task == 0 or sorted(problem.order) == [0, 1, 2]


def test_images_may_have_targets(tmp_path: Path) -> None:
    images = np.array([0, 2, 4], np.uint8).reshape(3, 1, 1)
    path = write(tmp_path, images=images, targets=TARGETS)
    _, sample = opening("permuted_inputs", inputs="npz", path=path, envs=40)
    np.testing.assert_array_equal(sample.target, TARGETS.astype(np.float32)[row_of(sample.input, STANDARD[:, :1])])


def test_reward_is_minus_the_squared_error_over_the_outputs(measured: Any) -> None:
    source = STREAMS["permuted_inputs"](**measured, envs=2)
    assert (source.spec.discrete, source.spec.actions, source.spec.reward_name) == (False, 2, "negative_squared_error")
    actions = np.random.default_rng(0).normal(size=(5, 1, 2, 2)).astype(np.float32)
    life = play(player(source.make(1)), lane_keys(0), visit_of(0), actions)
    expected = -np.mean((actions - life.observation.target[:-1]) ** 2, axis=-1)
    np.testing.assert_allclose(life.reward[1:], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["relabelled", "permuted_labels", "class_incremental", "warm_start"])
def test_features_in_other_streams(kind: str, labelled: Any) -> None:
    """All rows are shown with their labels in task 0 (with the two first classes in ``class_incremental``)."""
    settings: dict[str, Any] = {
        "relabelled": {"initial": "true", "classes": 3},
        "class_incremental": {"order": "fixed", "classes_per_task": 3},
        "warm_start": {"shares": (1.0,), "held_out": 0.0},
    }.get(kind, {})
    _, sample = opening(kind, **labelled, **settings, envs=40)
    np.testing.assert_array_equal(sample.target, LABELS[row_of(sample.input)])


def test_states_of_the_mdp_show_features_of_their_class(labelled: Any) -> None:
    state, first = jax.jit(STREAMS["classification_mdp"](**labelled, envs=40).make(1).reset)(
        lane_keys(0), visit_of(0), jnp.int32(0)
    )
    np.testing.assert_array_equal(state.envs[0], LABELS[row_of(np.asarray(first.observation[0]))])


def test_warm_start_holds_out_rows_with_their_targets(measured: Any) -> None:
    source = STREAMS["warm_start"](**measured, shares=(0.5, 1.0), held_out=0.34, envs=40)
    reset = jax.jit(source.make(1).reset)
    shown = []
    for replica in (0, 1):
        _, first = reset(lane_keys(0), visit_of(1)._replace(eval_replica=replica), jnp.int32(0))
        x, y = np.asarray(first.observation.input[0]), np.asarray(first.observation.target[0])
        row = np.abs(x[:, None] - STANDARD).max(-1).argmin(1)
        np.testing.assert_array_equal(y, TARGETS.astype(np.float32)[row])
        shown.append(set(row))
    assert (len(shown[0]), len(shown[1]), shown[0] & shown[1]) == (2, 1, set())


def test_regression_on_own_targets(measured: Any) -> None:
    """``y = offset_u + scale t``"""
    settings = {**measured, "targets": "true", "offset": (0.0, 10.0), "scale": 2.0, "envs": 40}
    for task, offset in ((0, 0.0), (1, 10.0), (3, 10.0)):
        _, sample = opening("regression", task, **settings)
        np.testing.assert_allclose(sample.target, offset + 2 * TARGETS[row_of(sample.input)], rtol=1e-6)
    assert STREAMS["regression"](**{**settings, "outputs": 2}).spec.actions == 2


def test_regression_on_random_functions_of_own_features(labelled: Any, measured: Any) -> None:
    """Standardised over the rows. Targets in the file are not used, and this is warned of."""
    _, sample = opening("regression", **labelled, envs=40)
    row_of(sample.input)
    values = np.unique(sample.target)
    np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-5)
    with pytest.warns(UserWarning, match=r"targets: network ignores the array targets of .*own\.npz"):
        STREAMS["regression"](**measured)


NAN, INF = FEATURES.copy(), TARGETS.copy()
NAN[1, 2], INF[2, 0] = np.nan, -np.inf
OBJECTS = np.array([[1, "a"], [None, 2.0], [1, 1]], object)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"features": NAN, "labels": LABELS},
            r"features: must be finite.*; 1 of 9 are not, the first at \[1, 2\]",
        ),
        (
            {"features": FEATURES, "targets": INF},
            r"targets: must be finite.*; 1 of 6 are not, the first at \[2, 0\]",
        ),
        (
            {"features": FEATURES, "targets": TARGETS * 1e39},
            "targets: must be finite numbers in float32; 5 of 6 are",
        ),
        ({"features": FEATURES[:2], "labels": LABELS}, "labels: there must be one row for each row of features, got 3"),
        (
            {"features": FEATURES, "targets": TARGETS[:2]},
            "targets: there must be one row for each row of features",
        ),
        ({"features": FEATURES}, "labels or targets: missing; the file has features"),
        ({"labels": LABELS}, "images or features: missing; the file has labels"),
        ({}, "images or features: missing; the file has no arrays"),
        ({"x": FEATURES, "y": LABELS}, "images or features: missing; the file has x, y"),
        ({"features": FEATURES, "images": np.zeros((3, 2, 2), "u1"), "labels": LABELS}, "images and features: .*both"),
        ({"features": FEATURES, "labels": LABELS, "targets": TARGETS}, "labels and targets: the file has both"),
        ({"features": OBJECTS, "labels": LABELS}, "features: the array holds Python objects"),
        ({"features": FEATURES, "targets": OBJECTS}, "targets: the array holds Python objects"),
        ({"features": FEATURES[:0], "labels": LABELS[:0]}, r"features: the array is empty, float64\[0, 3\]"),
        ({"features": FEATURES[:, :0], "labels": LABELS}, r"features: the array is empty, float64\[3, 0\]"),
        ({"features": FEATURES, "targets": TARGETS[:, :0]}, r"targets: the array is empty, float32\[3, 0\]"),
        ({"features": FEATURES[:, 0], "labels": LABELS}, r"features: must be float or integer .*, got float64\[3\]"),
        ({"features": FEATURES.astype(str), "labels": LABELS}, "features: must be float or .*, got <U"),
        ({"features": FEATURES + 1j, "labels": LABELS}, "features: must be float or .*, got complex128"),
        (
            {"features": FEATURES, "labels": LABELS / 1},
            "labels: must be integers.*got float64.*belong in the array targets",
        ),
        ({"features": FEATURES, "labels": LABELS[:, None]}, r"labels: must be integers \[N\], got int64\[3, 1\]"),
        ({"features": FEATURES, "labels": LABELS - 1}, "labels: must be in 0 ... 1048575, got -1 ... 1"),
        ({"features": FEATURES, "labels": LABELS + 2**40}, "labels: must be in 0 ... 1048575, got 1099511627776"),
        ({"features": FEATURES, "targets": LABELS}, "targets: must be float.*int64.*belong in the array labels"),
        ({"features": FEATURES, "targets": TARGETS[None]}, r"targets: must be float.*got float64\[1, 3, 2\]"),
        ({"features": FEATURES[:, 1:2], "labels": LABELS}, "features: cannot be standardised; every column has"),
    ],
)
def test_arrays_are_refused_in_one_line(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **arrays)
    with pytest.raises(ValueError, match=rf"^path: {path}: {message}") as error:
        dataset_samples("npz", path, None, flat=True)
    assert len(str(error.value).splitlines()) == 1


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", FEATURES)
    with pytest.raises(ValueError, match=r"does not contain npz \(it is not an \.npz archive\)"):
        read("npz", str(tmp_path / "own.npy"))


def test_published_sets_have_images_and_labels(tmp_path: Path) -> None:
    for arrays in ({"features": FEATURES, "labels": LABELS}, {"images": FEATURES.astype("u1")[..., None], "targets": TARGETS}):  # noqa: E501 # fmt: skip
        with pytest.raises(ValueError, match="must have the arrays images and labels, not features or targets"):
            read("mnist", write(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("relabelled", {"initial": "true"}, "initial: true is not allowed; must be random, because .*own.npz has the"),
        ("permuted_labels", {}, "labels: true is not allowed; must be random, because .*own.npz has the array targets"),
        ("class_incremental", {}, "path: this stream needs class labels, but .*own.npz has the array targets"),
        ("classification_mdp", {}, "path: this stream needs class labels, but .*own.npz has the array targets"),
        ("permuted_inputs", {"classes": 4}, "classes: 4 is not allowed; must be null, because .*own.npz has the array"),
        ("warm_start", {"classes": 4}, "classes: 4 is not allowed; must be null, because .*own.npz has the array"),
        (
            "regression",
            {"targets": "true", "outputs": 3},
            "outputs: 3 is not allowed; must be 1 or 2, the targets per row of .*own.npz",
        ),
    ],
)
def test_streams_of_classes_refuse_targets(kind: str, settings: Any, message: str, measured: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        STREAMS[kind](**measured, **settings)
    assert len(str(error.value).splitlines()) == 1


def test_regression_refuses_targets_that_are_not_there(labelled: Any) -> None:
    with pytest.raises(ValueError, match=r"targets: true is not allowed; .*classes\.npz has the array labels"):
        STREAMS["regression"](**labelled, targets="true")
    for other in ({}, {"samples": 10}, {"inputs": "digits"}):
        with pytest.raises(ValueError, match=r"targets: true is not allowed with inputs: .*; it needs npz"):
            STREAMS["regression"](**other, targets="true")


@pytest.mark.parametrize("kind", ["relabelled", "permuted_labels"])
def test_random_labels_need_no_labels(kind: str, measured: Any) -> None:
    """The same holds for ``classification_mdp``; the targets are not used."""
    settings = {"labels": "random"} if kind == "permuted_labels" else {}
    _, sample = opening(kind, **measured, **settings, envs=40)
    row_of(sample.input)
    assert sample.target.dtype == np.int32
