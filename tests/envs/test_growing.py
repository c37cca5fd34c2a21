"""Growing sets of samples: which classes and which rows a visit shows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, visit_of
from sklearn.datasets import load_digits

from plasticity.envs.base import PARAMS
from plasticity.envs.data import generated
from plasticity.envs.growing import class_incremental, warm_start
from plasticity.envs.supervised import TARGETS

PIXELS, LABELS = load_digits(return_X_y=True)
KNOWN = (PIXELS[:100] - PIXELS[:100].mean()) / PIXELS[:100].std()
DRAWN = 600


def openings(source: Any, tasks: int, eval_replica: int = 0) -> list[Any]:
    """Rows of the first 100 digits that open the visits of one lane, and their targets."""
    reset = jax.jit(source.make(1).reset)
    found = []
    for task in range(tasks):
        visit = visit_of(task)._replace(eval_replica=jnp.int32(eval_replica))
        seen = reset(lane_keys(0), visit, jnp.int32(0))[1].observation
        row = np.abs(np.asarray(seen.input[0])[:, None] - KNOWN).max(-1).argmin(1)
        np.testing.assert_allclose(seen.input[0], KNOWN[row], atol=1e-5)
        np.testing.assert_array_equal(seen.target[0], LABELS[row])
        found.append(row)
    return found


@pytest.mark.parametrize("shown", ["seen", "new"])
@pytest.mark.parametrize("order", ["fixed", "random"])
def test_classes_arrive_in_groups(shown: Any, order: Any) -> None:
    source = class_incremental(samples=100, classes_per_task=4, shown=shown, order=order, envs=DRAWN)
    assert (source.spec.actions, source.spec.tasks) == (10, ("groups_0", "groups_1", "groups_2"))
    key = jax.random.fold_in(jax.random.fold_in(lane_keys(0)[0], PARAMS), TARGETS)
    classes = np.arange(10) if order == "fixed" else np.asarray(jax.random.permutation(key, 10))
    for task, rows in enumerate(openings(source, 3)):
        present = classes[4 * task * (shown == "new") : 4 * (task + 1)]
        assert set(LABELS[rows]) == set(present)
        of_them = np.isin(LABELS[:100], present)
        counts, even = np.bincount(rows, minlength=100)[of_them], DRAWN / of_them.sum()
        free = of_them.sum() - 1  # chi-squared: mean `free`, variance `2 free`
        assert abs(((counts - even) ** 2 / even).sum() - free) < 5 * np.sqrt(2 * free)


def held_out_rows(share: float, size: int = 100) -> np.ndarray:
    """The last ``share`` of each class, in the order of the file."""
    rows = [np.flatnonzero(LABELS[:size] == label) for label in range(10)]
    return np.concatenate([each[len(each) - round(share * len(each)) :] for each in rows])


@pytest.mark.parametrize("shown", ["seen", "new"])
def test_evaluation_shows_the_same_classes_of_the_samples_held_out(shown: Any) -> None:
    source = class_incremental(samples=100, classes_per_task=4, shown=shown, order="fixed", held_out=0.3, envs=DRAWN)
    kept_out = held_out_rows(0.3)
    for task, (trained, evaluated) in enumerate(zip(openings(source, 3), openings(source, 3, 2), strict=True)):
        present = np.isin(LABELS[:100], np.arange(10)[4 * task * (shown == "new") : 4 * (task + 1)])
        assert set(evaluated) == set(kept_out) & set(np.flatnonzero(present))
        assert set(trained) == set(np.flatnonzero(present)) - set(kept_out)


def shown_images(source: Any, task: int, eval_replica: int) -> Any:
    visit = visit_of(task)._replace(eval_replica=jnp.int32(eval_replica))
    return jax.jit(source.make(1).reset)(lane_keys(0), visit, jnp.int32(0))[1].observation


SMALL: dict[str, Any] = {
    "inputs": "shapes", "samples": 200, "flat": False, "standardise": "none", "order": "fixed", "envs": 64,
    "classes_per_task": 5, "held_out": "test",
}  # fmt: skip


def places(images: Any, known: np.ndarray) -> np.ndarray:
    """The row of each image, or -1."""
    same = (np.asarray(images)[:, None] == known).all((-3, -2, -1))
    return np.where(same.any(1), same.argmax(1), -1)


def test_test_images_are_evaluated_and_not_augmented() -> None:
    source = class_incremental(**SMALL, augment={"flip": 0.5, "crop": 4, "rotate": 15})
    assert source.spec.observation.input == jax.ShapeDtypeStruct((32, 32, 3), np.uint8)
    assert len(source.spec.visits) == 20
    train, test = generated("train", 200), generated("test", 200)
    seen = shown_images(source, 2, eval_replica=1)
    rows = places(seen.input[0], test.inputs)
    assert set(rows) == set(range(15))
    np.testing.assert_array_equal(seen.target[0], test.labels[rows])
    learned = shown_images(source, 2, eval_replica=0)
    assert set(np.asarray(learned.target[0])) == set(range(15))
    assert (places(learned.input[0], train.inputs) == -1).mean() > 0.9
    plain = shown_images(class_incremental(**SMALL), 2, eval_replica=0)
    rows = places(plain.input[0], train.inputs)
    assert set(rows) <= {*range(15), *range(100, 115)}
    np.testing.assert_array_equal(learned.target, plain.target)  # augmentation changes nothing else


def test_epochs_set_the_lengths_of_visits() -> None:
    def steps(**settings: Any) -> list[int]:
        source = class_incremental(**settings)
        assert [plan.task for plan in source.spec.visits] == list(range(len(source.spec.visits)))
        return [plan.steps for plan in source.spec.visits]

    # 10 images of each class, 9 for learning: 200 passes in minibatches of 18 are 100 per class
    published = {"inputs": "shapes", "samples": 1000, "classes_per_task": 5, "held_out": 0.1, "epochs": 200, "envs": 18}
    assert steps(**published) == [500 * groups for groups in range(1, 21)]
    assert steps(**published, shown="new") == [500] * 20
    assert steps(**(published | {"classes_per_task": 30})) == [3000, 6000, 9000, 10_000]
    assert steps(**(published | {"classes_per_task": 30, "shown": "new"})) == [3000, 3000, 3000, 1000]
    # 1797 digits: 2 * 179.7 / 64 = 5.6 minibatches of 64 for each class
    assert steps(epochs=2) == [12, 24, 36, 48, 60]
    assert steps(epochs=1, samples=100, envs=10_000) == [2, 4, 6, 8, 10]
    assert steps(steps_per_task=7) == [7] * 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": 1.0}, "held_out: 1.0 is not allowed; it leaves no sample of class 0 for learning"),
        ({"held_out": 0.01, "samples": 100}, "held_out: 0.01 is not allowed; it leaves no sample of class 0 for eval"),
        ({"held_out": "test"}, "held_out: test is not allowed; digits have no test split, use a fraction such as 0.2"),
        ({"samples": 8}, "samples: the 8 rows used include no sample of class 8 of 10"),
        ({"inputs": "shapes", "samples": 50}, "samples: the 50 rows used include no sample of class 50 of 100"),
        ({"classes_per_task": 11}, "classes_per_task: 11 is not allowed; there are only 10 classes"),
        ({"augment": {"crop": 8}}, r"augment.crop: 8 is not allowed; must be an integer in \[0, 7\]"),
        ({"inputs": "gaussian", "standardise": "none"}, "standardise: none is not allowed; must be all, because"),
    ],
)
def test_class_incremental_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_incremental(**settings)


def test_the_test_split_must_have_all_classes(tmp_path: Any) -> None:
    images = PIXELS[:100].astype(np.uint8).reshape(-1, 8, 8)
    more = np.append(LABELS[:99], 10)
    for test, message in (
        (LABELS[:100] % 9, "path: the 100 rows of the test split include no sample of class 9 of 10"),
        (LABELS[:3], "path: the 3 rows of the test split include no sample of class 3 of 10"),
        (more, "path: the test split must have the 10 classes of the samples, got 11"),
    ):
        np.savez(
            tmp_path / "x.npz", images=images, labels=LABELS[:100], test_images=images[: len(test)], test_labels=test
        )
        with pytest.raises(ValueError, match=message):
            class_incremental(inputs="npz", path=str(tmp_path / "x.npz"), held_out="test")


def test_classes_need_true_labels() -> None:
    with pytest.raises(ValueError, match="inputs: gaussian is not allowed; this stream needs inputs with true labels"):
        class_incremental(inputs="gaussian")


@pytest.fixture(scope="module")
def warm() -> tuple[Any, np.ndarray]:
    """A stream that trains on 40 and on 80 of 100 samples, and the lane's order of them."""
    source = warm_start(samples=100, envs=DRAWN)
    key = jax.random.fold_in(jax.random.fold_in(lane_keys(0)[0], PARAMS), TARGETS)
    return source, np.asarray(jax.random.permutation(key, 100))


def test_half_of_the_samples_then_all(warm: Any) -> None:
    source, order = warm
    assert source.spec.tasks == ("share_0", "share_1")
    half, all_of_them = openings(source, 2)
    assert set(half) == set(order[:40])
    assert set(all_of_them) <= set(order[:80])
    assert len(set(all_of_them)) > 70


def test_evaluation_shows_the_samples_held_out(warm: Any) -> None:
    source, order = warm
    for rows in openings(source, 2, eval_replica=3):
        assert set(rows) == set(order[80:])


def test_nothing_held_out() -> None:
    source = warm_start(samples=100, envs=DRAWN, held_out=0.0, shares=(0.1, 0.3, 1.0))
    trained, evaluated = openings(source, 3), openings(source, 3, eval_replica=3)
    assert [len(set(rows)) for rows in trained[:2]] == [10, 30]
    assert [set(rows) for rows in trained[:2]] == [set(rows) for rows in evaluated[:2]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"shares": (0.5, 1.1)},
            r"shares: \[0.5, 1.1\] is not allowed; must be numbers in \(0, 1\], one for each task",
        ),
        ({"shares": (0.0, 1.0)}, r"shares: \[0.0, 1.0\] is not allowed"),
        ({"shares": ()}, r"shares: \[\] is not allowed"),
        ({"held_out": 1.0}, "held_out: 1.0 is not allowed; it leaves none of the 1797 samples for training"),
        ({"held_out": 0.0001}, "held_out: 0.0001 is not allowed; it leaves none of the 1797 samples for evaluation"),
    ],
)
def test_warm_start_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warm_start(**settings)
