"""Labels, rewards and target functions against independent NumPy and closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, play, player, random_actions, visit_of
from sklearn.datasets import load_digits

from plasticity.envs.base import PARAMS
from plasticity.envs.functions import TargetNetwork, functions, respond, target_network
from plasticity.envs.supervised import TARGETS, negative_squared_error
from plasticity.envs.targets import permuted_labels, redrawn_labels, regression, relabelled

START = jnp.zeros(5000, jnp.int32)


def problems(source: Any, visits: int) -> list[Any]:
    """The parameters of a lane's first visits."""
    stream = source.make(1)
    reset = jax.jit(stream.reset)
    states = [reset(lane_keys(0), visit_of(v), jnp.int32(0))[0] for v in range(visits)]
    return [jax.tree.map(lambda leaf: np.asarray(leaf[0]), state.params) for state in states]


@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_labels_are_those_of_a_loop_over_the_visits(fraction: float) -> None:
    source = relabelled(inputs="gaussian", samples=40, dimensions=2, classes=7, fraction=fraction)
    key = jax.random.fold_in(jax.random.fold_in(lane_keys(0)[0], PARAMS), TARGETS)
    labels = np.array(jax.random.randint(jax.random.fold_in(key, 0), (40,), 0, 7))
    for visit, problem in enumerate(problems(source, 5)):
        if visit > 0:
            where, what = jax.random.split(jax.random.fold_in(key, visit))
            chosen = np.array(jax.random.uniform(where, (40,))) < fraction
            labels[chosen] = np.array(jax.random.randint(what, (40,), 0, 7))[chosen]
        np.testing.assert_array_equal(problem.targets, labels)


@pytest.mark.parametrize(("fraction", "changed"), [(0.0, 0.0), (0.25, 0.2), (1.0, 0.8)])
def test_share_of_labels_that_change(fraction: float, changed: float) -> None:
    """One redrawn label in five keeps its value; 4 switches x 5000 labels, 5 standard errors."""
    visits = jax.jit(lambda: [redrawn_labels(jax.random.key(0), START, v, fraction, 5) for v in range(5)])
    labels = np.stack(visits())
    share = (labels[1:] != labels[:-1]).mean()
    assert abs(share - changed) <= 5 * np.sqrt(changed * (1 - changed) / 20_000)
    if fraction == 1:
        counts = np.bincount(labels[1:].ravel(), minlength=5)
        assert (((counts - 4000) ** 2) / 4000).sum() < 18.5  # chi-squared with 4 degrees, 0.1 % tail


def test_gaussian_inputs_are_a_lanes_own_for_life() -> None:
    stream = relabelled(inputs="gaussian", samples=2000, dimensions=8).make(2)
    reset = jax.jit(stream.reset)
    first, second = (reset(lane_keys(0, 1), visit_of(v), jnp.int32(0))[0].params.inputs for v in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])
    assert abs(first.mean()) < 5 / np.sqrt(32_000)
    assert abs(first.std() - 1) < 5 / np.sqrt(64_000)


@pytest.fixture(scope="module")
def classified() -> tuple[Any, Any, Any]:
    """Actions, time steps and problem of one lane on five samples of three classes."""
    source = relabelled(inputs="gaussian", samples=5, dimensions=3, classes=3, envs=50)
    stream = source.make(1)
    actions = random_actions(stream, 40, 1)
    return actions, play(player(stream), lane_keys(0), visit_of(0), actions), problems(source, 1)[0]


def test_samples_are_drawn_evenly_and_paired_with_their_targets(classified: tuple[Any, Any, Any]) -> None:
    _, life, problem = classified
    inputs, targets = life.observation.input.reshape(-1, 3), life.observation.target.reshape(-1)
    row = (inputs[:, None] == problem.inputs).all(-1).argmax(1)
    np.testing.assert_array_equal(inputs, problem.inputs[row])
    np.testing.assert_array_equal(targets, problem.targets[row])
    counts = np.bincount(row, minlength=5)
    assert (((counts - 410) ** 2) / 410).sum() < 18.5  # chi-squared with 4 degrees, 0.1 % tail


def test_accuracy_is_that_of_the_sample_before(classified: tuple[Any, Any, Any]) -> None:
    actions, life, _ = classified
    np.testing.assert_array_equal(life.reward[1:], life.observation.target[:-1] == actions)
    assert 0 < life.reward[1:].mean() < 1


def row_of_digit(inputs: np.ndarray, count: int) -> np.ndarray:
    """Which of the first ``count`` digits, standardised over all their pixels, each input ``[B, 64]`` is."""
    pixels = load_digits(return_X_y=True)[0][:count]
    known = (pixels - pixels.mean()) / pixels.std()
    row = np.abs(inputs[:, None] - known).max(-1).argmin(1)
    np.testing.assert_allclose(inputs, known[row], atol=1e-5)
    return row


def test_digits_come_with_their_labels() -> None:
    stream = relabelled(initial="true", envs=100).make(1)
    _, opening = jax.jit(stream.reset)(lane_keys(0), visit_of(0), jnp.int32(0))
    row = row_of_digit(np.asarray(opening.observation.input[0]), 1797)
    np.testing.assert_array_equal(opening.observation.target[0], load_digits(return_X_y=True)[1][row])


def test_true_labels_give_way_at_the_first_switch() -> None:
    first, second = problems(relabelled(initial="true"), 2)
    np.testing.assert_array_equal(first.targets, load_digits(return_X_y=True)[1])
    assert 0.8 < (second.targets != first.targets).mean() < 0.97


def test_images_keep_their_shape_unless_flat() -> None:
    assert relabelled(flat=False).spec.observation.input.shape == (8, 8, 1)
    assert relabelled(samples=7).spec.observation.input.shape == (64,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"inputs": "gaussian", "initial": "true"},
            "initial: true is not allowed; must be random with gaussian inputs",
        ),
        ({"initial": "true", "classes": 9}, "classes: 9 is not allowed; must be at least 10 with initial: true"),
        ({"samples": 1798}, r"samples: 1798 is not allowed; must be in \[1, 1797\] for these inputs"),
        ({"inputs": "mnist"}, "path: missing; with inputs: mnist it must be the path of"),
    ],
)
def test_relabelled_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relabelled(**settings)


def test_spec_of_both_streams() -> None:
    labels, function = relabelled(tasks=3, steps_per_task=5).spec, regression(tasks=2, outputs=4).spec
    assert labels.tasks == ("labels_0", "labels_1", "labels_2")
    assert labels.visits == ((0, 5), (1, 5), (2, 5))
    assert (labels.discrete, labels.actions, labels.reward_name) == (True, 10, "accuracy")
    assert (function.discrete, function.actions, function.observation.target.shape) == (False, 4, (4,))


def test_target_network_by_hand() -> None:
    network = TargetNetwork(
        first=jnp.array([[1.0, -1.0], [2.0, 0.0]]),
        second=jnp.array([[1.0], [3.0]]),
        mean=jnp.array([0.5]),
        deviation=jnp.array([2.0]),
    )
    # hidden: relu(1 + 2, -1) = (3, 0); relu(-2 + 0, 2) = (0, 2)
    np.testing.assert_allclose(respond(network, jnp.array([[1.0, 1.0], [-2.0, 0.0]])), [[1.25], [2.75]])


def test_target_network_has_mean_0_and_variance_1_over_normal_inputs() -> None:
    network = target_network(jax.random.key(1), dimensions=4, hidden=9, outputs=3)
    y = np.asarray(respond(network, jax.random.normal(jax.random.key(2), (200_000, 4))), np.float64)
    np.testing.assert_allclose(y.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(y.var(0), 1, atol=0.03)


@pytest.fixture(scope="module")
def regressed() -> tuple[Any, Any]:
    """Actions and time steps of one lane with fresh inputs, one of two outputs."""
    stream = regression(dimensions=4, offset=10.0, scale=3.0, noise=4.0, envs=500, hidden=9, outputs=2).make(1)
    actions = random_actions(stream, 60, 1)
    return actions, play(player(stream), lane_keys(0), visit_of(0), actions)


@pytest.mark.slow
def test_fresh_regression_has_the_moments_asked_for(regressed: tuple[Any, Any]) -> None:
    _, life = regressed
    targets = life.observation.target.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(targets.mean(0), 10, atol=0.2)
    np.testing.assert_allclose(targets.var(0), 3**2 + 4**2, rtol=0.05)


def test_every_input_is_fresh(regressed: tuple[Any, Any]) -> None:
    first_entries = regressed[1].observation.input[..., 0].ravel()
    assert len(np.unique(first_entries)) > 0.99 * first_entries.size


def test_squared_error_is_that_of_the_sample_before(regressed: tuple[Any, Any]) -> None:
    assert negative_squared_error(jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0])) == -5.0
    actions, life = regressed
    errors = np.square(life.observation.target[:-1].astype(np.float64) - actions).mean(-1)
    np.testing.assert_allclose(life.reward[1:], -errors, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets", ["network", "noise"])
def test_fixed_regression(targets: Any) -> None:
    source = regression(samples=400, dimensions=3, targets=targets, offset=(5.0, -1.0), scale=2.0, outputs=2)
    visits = problems(source, 3)
    for problem, offset in zip(visits, (5, -1, -1), strict=True):
        if targets == "network":
            np.testing.assert_allclose(problem.targets.mean(0), offset, atol=1e-4)
            np.testing.assert_allclose(problem.targets.std(0), 2, rtol=1e-4)
        else:
            np.testing.assert_allclose(problem.targets.mean(0), offset, atol=5 * 2 / np.sqrt(400))
    centred = [problem.targets - problem.targets.mean(0) for problem in visits]
    assert abs(np.corrcoef(centred[1].ravel(), centred[2].ravel())[0, 1]) < 0.9


def test_fixed_regression_without_noise_gives_the_targets_of_its_samples() -> None:
    stream = regression(inputs="digits", samples=30, outputs=2, envs=20).make(1)
    state, opening = jax.jit(stream.reset)(lane_keys(0), visit_of(0), jnp.int32(0))
    row = row_of_digit(np.asarray(opening.observation.input[0]), 30)
    np.testing.assert_array_equal(opening.observation.target[0], state.params.targets[0, row])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": "noise"}, "targets: noise is not allowed without a fixed set"),
        ({"samples": 1}, "samples: 1 is not allowed; must be at least 2"),
    ],
)
def test_regression_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regression(**settings)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (relabelled, {"inputs": "gaussian", "samples": 20, "dimensions": 2, "fraction": 0.5}),
        (regression, {"dimensions": 3, "hidden": 4, "offset": (1.0, 5.0, -2.0)}),
        (permuted_labels, {"samples": 20}),
    ],
)
def test_a_task_that_comes_again_is_the_same(make: Any, settings: dict[str, Any]) -> None:
    reset = jax.jit(make(envs=2, **settings).make(1).reset)
    second, again, other = (
        reset(lane_keys(0), visit_of(number, task), jnp.int32(0)) for number, task in ((2, 2), (7, 2), (2, 1))
    )
    jax.tree.map(np.testing.assert_array_equal, second[0].params, again[0].params)
    assert not np.array_equal(second[1].observation.input, again[1].observation.input)
    assert not all(map(np.array_equal, jax.tree.leaves(second[0].params), jax.tree.leaves(other[0].params)))


def at_moments(source: Any, task: int, moments: tuple[int, ...]) -> list[Any]:
    """The samples of one lane that open a visit at some moments."""
    reset = jax.jit(source.make(1).reset)
    keys, block = lane_keys(0), jnp.int32(0)
    openings = [reset(keys, visit_of(task)._replace(elapsed=jnp.int32(m)), block)[1].observation for m in moments]
    return [jax.tree.map(lambda leaf: np.asarray(leaf[0]), opening) for opening in openings]


def test_labels_give_way_gradually() -> None:
    settings = {"inputs": "gaussian", "samples": 50, "dimensions": 2, "classes": 10**6, "steps_per_task": 80}
    source = relabelled(gradual=0.5, envs=400, **settings)
    _, before, after = problems(relabelled(**settings), 3)
    for sample, progress in zip(at_moments(source, 2, (0, 10, 20, 40, 60)), (0, 0.25, 0.5, 1, 1), strict=True):
        row = (sample.input[:, None] == after.inputs).all(-1).argmax(1)
        new = sample.target == after.targets[row]
        np.testing.assert_array_equal(~new, sample.target == before.targets[row])
        assert abs(new.mean() - progress) <= 4 * np.sqrt(progress * (1 - progress) / 400)
    (opening,) = at_moments(source, 0, (0,))
    row = (opening.input[:, None] == after.inputs).all(-1).argmax(1)
    np.testing.assert_array_equal(opening.target, problems(relabelled(**settings), 1)[0].targets[row])


@pytest.mark.slow
def test_progress_follows_the_steps_of_the_visit() -> None:
    """Labels drawn over the steps of a visit: all old in the first, all new from step 8 on, and both between."""
    settings = {"inputs": "gaussian", "samples": 4, "dimensions": 2, "classes": 10_000, "steps_per_task": 16}
    stream = relabelled(gradual=0.5, envs=60, **settings).make(1)
    life = play(player(stream), lane_keys(0), visit_of(1), random_actions(stream, 12, 1))
    after = problems(relabelled(**settings), 2)[1]
    row = (life.observation.input[..., None, :] == after.inputs).all(-1).argmax(-1)
    share = (life.observation.target == after.targets[row]).mean((1, 2))  # of the opening, then after steps 0, 1, ...
    assert (share[:2] == 0).all()
    assert (share[9:] == 1).all()
    assert (np.abs(share[1:9] - np.arange(8) / 8) < 4 * np.sqrt(0.25 / 60)).all()


@pytest.mark.parametrize("fixed", [True, False])
def test_functions_give_way_gradually(fixed: bool) -> None:
    settings = {"dimensions": 3, "hidden": 4, "outputs": 2, "offset": (0.0, 3.0), "steps_per_task": 80}
    settings |= {"samples": 50} if fixed else {}
    source = regression(gradual=0.5, envs=40, **settings)
    abruptly = problems(regression(**settings), 2)
    for sample, progress in zip(at_moments(source, 1, (0, 10, 20, 40, 60)), (0, 0.25, 0.5, 1, 1), strict=True):
        if fixed:
            row = (sample.input[:, None] == abruptly[0].inputs).all(-1).argmax(1)
            old, new = (problem.targets[row] for problem in abruptly)
        else:
            old, new = (respond(f, jnp.asarray(sample.input)) + shift for f, shift in (p.targets for p in abruptly))
        np.testing.assert_allclose(sample.target, (1 - progress) * old + progress * new, rtol=1e-4, atol=1e-4)


def test_sinusoid_by_hand() -> None:
    family = functions("sinusoid", (3, 5, 2), frequency=2.0)
    network, phase = family.draw(jax.random.key(0))
    x = np.array([[0.5, -1.0, 2.0]], np.float32)
    y = np.asarray(respond(network, jnp.asarray(x)))
    np.testing.assert_allclose(family.at((network, phase), x), np.sqrt(2) * np.sin(2 * y + phase), rtol=1e-4, atol=1e-5)


def test_sinusoid_of_high_frequency_has_mean_0_and_variance_1() -> None:
    stream = regression(targets="sinusoid", dimensions=4, hidden=9, envs=5000).make(1)
    _, opening = jax.jit(stream.reset)(lane_keys(0), visit_of(0), jnp.int32(0))
    y = np.asarray(opening.observation.target)
    assert abs(y.mean()) < 5 / np.sqrt(5000)
    assert abs(y.var() - 1) < 5 * np.sqrt(0.5 / 5000)  # the fourth moment of sqrt(2) sin is 1.5


def test_classes_change_names() -> None:
    """All samples of a class go by one name, other than in the task before; task 0 has the true labels."""
    source = permuted_labels(samples=200, envs=100)
    labels, reset = load_digits(return_X_y=True)[1], jax.jit(source.make(1).reset)
    orders = []
    for task in range(3):
        _, opening = reset(lane_keys(0), visit_of(task), jnp.int32(0))
        true = labels[row_of_digit(np.asarray(opening.observation.input[0]), 200)]
        names = [np.unique(opening.observation.target[0][true == label]) for label in range(10)]
        assert [len(name) for name in names] == [1] * 10
        orders.append(np.concatenate(names))
        assert sorted(orders[-1]) == list(range(10))
    np.testing.assert_array_equal(orders[0], np.arange(10))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])


def test_random_labels_are_a_lanes_own_and_permuted() -> None:
    source = permuted_labels(inputs="gaussian", samples=30, dimensions=2, labels="random", classes=4, envs=200)
    reset = jax.jit(source.make(2).reset)
    (state, first), (_, second) = (reset(lane_keys(0, 1), visit_of(v), jnp.int32(0)) for v in range(2))
    inputs, labels = (np.asarray(x) for x in state.params.inputs)
    assert not np.array_equal(labels[0], labels[1])
    for lane, order in enumerate(np.asarray(reset(lane_keys(0, 1), visit_of(1), jnp.int32(0))[0].params.targets)):
        for opening, names in ((first, np.arange(4)), (second, order)):
            row = (opening.observation.input[lane][:, None] == inputs[lane]).all(-1).argmax(1)
            np.testing.assert_array_equal(opening.observation.target[lane], names[labels[lane][row]])
