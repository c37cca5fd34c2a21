"""Label noise: how many labels it changes, that they stay, and that evaluations have none."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from openings import opened, opening
from playing import lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import Visit
from plasticity.envs import STREAMS
from plasticity.envs.label_noise import NOISE, noise_of, noisy_label, replaced_labels
from plasticity.envs.targets import redrawn_labels, relabelled

NOISY = 0.4
CASES: dict[str, tuple[dict[str, Any], int]] = {  # settings, and the number of classes
    "relabelled": ({"inputs": "gaussian", "samples": 1500, "dimensions": 3, "classes": 4}, 4),
    "permuted_labels": ({}, 10),
    "permuted_inputs": ({}, 10),
    "class_incremental": ({"classes_per_task": 5}, 10),
    "warm_start": ({"shares": (0.5, 1.0)}, 10),
    "image_datasets": ({"datasets": ["counts", "digits"], "side": 8, "colour": False, "outputs": "separate"}, 10),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_share_of_wrong_labels_in_training_and_none_in_evaluations(name: str) -> None:
    """The same samples without and with noise. The true class may be drawn again; 5 standard errors."""
    settings, classes = {"envs": 6000, **CASES[name][0]}, CASES[name][1]
    clean, noisy = (opening(name, {**settings, "label_noise": p}) for p in (0.0, NOISY))
    np.testing.assert_array_equal(clean.input, noisy.input)
    labels: dict[bytes, tuple[int, int]] = {}
    for x, old, new in zip(clean.input, clean.target, noisy.target, strict=True):
        assert labels.setdefault(x.tobytes(), (old, new)) == (old, new)  # the same at every draw of the sample
    pairs = np.array(list(labels.values()))
    expected = NOISY * (1 - 1 / classes)
    assert len(pairs) > 1000
    assert abs((pairs[:, 0] != pairs[:, 1]).mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / len(pairs))
    wrong = pairs[pairs[:, 0] != pairs[:, 1]]
    kinds = np.unique(clean.target)
    assert set(wrong[:, 1].tolist()) == set(kinds.tolist())  # all classes of the data, and no others
    again = [opening(name, {**settings, "label_noise": p}, eval_replica=5) for p in (0.0, NOISY)]
    jax.tree.map(np.testing.assert_array_equal, *again)


def test_replaced_labels_are_those_of_the_definition() -> None:
    key, noise = jax.random.key(5), noise_of((0.25, 0.75), 3000)
    for task, probability in ((0, 0.25), (1, 0.75), (2, 0.25)):
        found = np.asarray(replaced_labels(noise, key, Visit(jnp.int32(9), jnp.int32(task)), 6))
        where, what = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, NOISE), task))
        chosen = np.asarray(jax.random.uniform(where, (3000,))) < np.float32(probability)
        np.testing.assert_array_equal(found, np.where(chosen, jax.random.randint(what, (3000,), 0, 6), -1))
        assert abs(chosen.mean() - probability) < 5 * np.sqrt(0.1875 / 3000)
        counts = np.bincount(found[chosen], minlength=6)
        even = chosen.sum() / 6
        assert (((counts - even) ** 2) / even).sum() < 20.5  # chi-squared with 5 degrees, 0.1 % tail
        evaluation = replaced_labels(noise, key, Visit(jnp.int32(9), jnp.int32(task), jnp.int32(1)), 6)
        assert (np.asarray(evaluation) == -1).all()
    np.testing.assert_array_equal(noisy_label(jnp.array([-1, 2, -1]), jnp.array([1, 2]), jnp.array([7, 8])), [2, 8])


def labels_of(task: int, number: int = -1, **settings: Any) -> np.ndarray:
    base = {"inputs": "gaussian", "samples": 800, "dimensions": 2, "classes": 5, "envs": 1}
    labels: np.ndarray = opened("relabelled", {**base, **settings}, task, number=number)[0].targets
    return labels


def test_noise_belongs_to_the_task_and_not_to_the_visit() -> None:
    np.testing.assert_array_equal(labels_of(1, label_noise=0.5), labels_of(1, 7, label_noise=0.5))
    changed = [labels_of(u, label_noise=0.5) != labels_of(u) for u in (1, 2)]
    assert 0.3 < (changed[0] != changed[1]).mean() < 0.7


def test_noise_in_some_tasks_only() -> None:
    changed = [(labels_of(u, label_noise=(0.5, 0.0)) != labels_of(u)).mean() for u in range(3)]
    assert changed[1] == 0
    for share in (changed[0], changed[2]):
        assert abs(share - 0.4) < 5 * np.sqrt(0.24 / 800)


def test_switches_in_turn_redraw_their_own_share() -> None:
    """All at the switches to task 1 and 3, nothing at the one to task 2; a loop over switches gives the same."""
    labels = [labels_of(u, fraction=(1.0, 0.0)) for u in range(4)]
    np.testing.assert_array_equal(labels[1], labels[2])
    for one, other in ((labels[0], labels[1]), (labels[2], labels[3])):
        assert abs((one != other).mean() - 0.8) < 5 * np.sqrt(0.16 / 800)
    key, start = jax.random.key(1), jnp.zeros(300, jnp.int32)
    expected = start
    for u, share in ((1, 0.3), (2, 0.9), (3, 0.5), (4, 0.3)):
        where, what = jax.random.split(jax.random.fold_in(key, u))
        chosen = jax.random.uniform(where, (300,)) < share
        expected = jnp.where(chosen, jax.random.randint(what, (300,), 0, 5), expected)
    np.testing.assert_array_equal(redrawn_labels(key, start, jnp.int32(4), (0.3, 0.9, 0.5), 5), expected)


@pytest.mark.slow
def test_real_valued_targets_have_noise_of_their_own() -> None:
    """A normal number at each draw in training; none in evaluations."""
    for name, settings in (
        ("regression", {"dimensions": 3}),
        ("regression", {"dimensions": 3, "samples": 50, "gradual": 0.5}),
        ("slowly_changing_regression", {"bits": 6, "slow": 4}),
    ):
        tiny, noisy = (  # with noise of any size the sample is drawn by another key
            [opening(name, {**settings, "noise": noise, "envs": 4000}, 1, replica).target for replica in (0, 5)]
            for noise in (1e-30, 0.5)
        )
        added = noisy[0] - tiny[0]
        assert abs(added.mean()) < 5 * 0.5 / np.sqrt(4000)
        assert abs(added.std() - 0.5) < 5 * 0.5 / np.sqrt(8000)
        np.testing.assert_array_equal(noisy[1], tiny[1])


def test_a_gradual_change_mixes_noisy_labels() -> None:
    """Half-way, each target is the noisy label of this task or of the one before."""
    settings: dict[str, Any] = {"inputs": "gaussian", "samples": 40, "dimensions": 2, "label_noise": 0.5, "envs": 300}
    stream = relabelled(**settings, gradual=1.0, steps_per_task=8).make(1)
    life = play(player(stream), lane_keys(0), visit_of(2), random_actions(stream, 4, 1)).observation
    (before, after), inputs = (
        [opened("relabelled", settings, u)[0].targets for u in (1, 2)],
        opened("relabelled", settings, 2)[0].inputs,
    )
    row = (life.input[-1, 0][:, None] == inputs).all(-1).argmax(1)
    target = life.target[-1, 0]
    assert ((target == before[row]) | (target == after[row])).all()
    assert 0 < (target != after[row]).mean() < 1


def test_refused_with_real_valued_targets(tmp_path: Any) -> None:
    np.savez(tmp_path / "x.npz", features=np.eye(5), targets=np.arange(5.0))
    for name in ("permuted_inputs", "warm_start"):
        with pytest.raises(ValueError, match=r"label_noise: 0\.5 is not allowed with real-valued targets; must be 0"):
            STREAMS[name](inputs="npz", path=str(tmp_path / "x.npz"), label_noise=0.5)
