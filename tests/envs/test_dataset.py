"""The stream of recorded transitions: which rows it shows, what it refuses, where its learners are evaluated."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core.types import Clock, Visit
from plasticity.envs.dataset import dataset
from plasticity.envs.recorded import of_catch, read
from plasticity.envs.toys import catch
from plasticity.runs.sources import evaluation_source, stream_of

ZERO = jnp.int32(0)


def arrays(rows: int = 6, start: float = 0.0, real: bool = False, **changes: Any) -> dict[str, Any]:
    """Row ``i`` has the number ``start + i`` everywhere; every third one terminates."""
    number = start + np.arange(rows, dtype=np.float32)
    seen = np.repeat(number[:, None], 3, axis=1)
    action = np.stack([number, -number], axis=1) if real else np.arange(rows) % 2
    found = {"observation": seen, "action": action, "reward": number / 10, "next_observation": seen + 0.5}
    found |= {"terminated": np.arange(rows) % 3 == 2, "truncated": np.zeros(rows, bool)}
    return found | changes


def saved(path: Path, **changes: Any) -> str:
    np.savez(path, **{name: value for name, value in arrays(**changes).items() if value is not None})
    return str(path)


def told(**facts: Any) -> np.ndarray:
    return np.array(json.dumps(facts))


@pytest.mark.parametrize("real", [False, True])
def test_a_visit_shows_whole_rows_of_its_dataset(tmp_path: Path, real: bool) -> None:
    """All parts of what is drawn are of one row; of 60 draws, each row of the dataset and none of the other."""
    files = [saved(tmp_path / f"{name}.npz", start=start, real=real) for name, start in (("a", 0.0), ("b", 100.0))]
    source = dataset(paths=files, steps_per_task=5, cycles=2, envs=60)
    spec = source.spec
    assert (spec.tasks, [plan.task for plan in spec.visits]) == (("a", "b"), [0, 1, 0, 1])
    assert (spec.actions, spec.discrete, spec.episodic) == (2, not real, False)
    assert [path for path, _ in spec.data] == files
    stream = source.make(1)
    for task, start in ((0, 0.0), (1, 100.0)):
        _, first = stream.reset(jax.random.key(0)[None], Visit(ZERO, jnp.int32(task)), ZERO)
        drawn = jax.tree.map(lambda x: np.asarray(x)[0], first.observation)
        number = drawn.observation[:, 0]
        row = (number - start).astype(int)
        assert set(row) == set(range(6))
        np.testing.assert_allclose(drawn.next_observation, np.repeat(number[:, None] + 0.5, 3, axis=1))
        np.testing.assert_allclose(drawn.reward, number / 10, rtol=1e-6)
        np.testing.assert_array_equal(drawn.discount, np.where(row % 3 == 2, 0.0, 1.0))
        np.testing.assert_allclose(drawn.action, np.stack([number, -number], 1) if real else row % 2)


@pytest.mark.parametrize("real", [False, True])
def test_the_reward_is_that_of_the_action_for_the_row_before(tmp_path: Path, real: bool) -> None:
    source = dataset(paths=[saved(tmp_path / "a.npz", real=real)], envs=4)
    stream, key = source.make(1), jax.random.key(0)[None]
    state, first = stream.reset(key, Visit(ZERO, ZERO), ZERO)
    wanted = np.asarray(first.observation.action)
    offered = wanted + np.array([0, 1, 0, 2])[:, None] if real else np.zeros_like(wanted)
    _, following = stream.step(key, state, jnp.asarray(offered), Clock(ZERO, ZERO, ZERO, ZERO))
    expected = [[0, -1, 0, -4]] if real else wanted == 0
    np.testing.assert_allclose(following.reward, expected)
    assert not np.asarray(following.discount).any()


BAD = {
    "reward": ({"reward": None}, "reward: missing; the file has observation, action"),
    "rows": ({"reward": np.zeros(5)}, "reward: must have the 6 rows of observation, got 5"),
    "flags": ({"terminated": np.zeros(6)}, r"terminated: must be bool\[N\], got float64\[6\]"),
    "actions": ({"action": np.zeros(6)}, r"action: must be int\[N\] or float\[N, size\], got float64\[6\]"),
    "negative": ({"action": np.arange(6) - 1}, r"action: must be in 0 \.\.\. 1048575, got -1 \.\.\. 4"),
    "next": ({"next_observation": np.zeros((6, 2))}, r"next_observation: must be float32\[6, 3\] like observation"),
    "infinite": ({"reward": np.array([0, 0, np.inf, 0, 0, 0])}, "reward: must be finite numbers in float32; 1 of 6"),
    "axis": ({"observation": np.zeros(6)}, r"observation: must be numbers \[N, d\] or \[N, ...\], got float64\[6\]"),
    "empty": ({"rows": 0}, "observation: the file has no rows"),
    "text": ({"metadata": np.array("{")}, "metadata: must be a text, a JSON object"),
    "list": ({"metadata": np.array("[]")}, "metadata: must be a text, a JSON object"),
    "count": ({"metadata": told(actions=1)}, "action: must be below metadata's 1 actions, got 1"),
    "stack": ({"metadata": told(stack=2)}, "observation: must have metadata's stack of 2 as its second axis"),
    "words": ({"metadata": told(stack="two")}, 'metadata: stack must be a whole number, got "two"'),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path: Path, case: str) -> None:
    changes, message = BAD[case]
    path = saved(tmp_path / "odd.npz", **changes)
    with pytest.raises(ValueError, match=rf"^paths: .*odd\.npz: {message}") as caught:
        dataset(paths=[path])
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    other = tmp_path / "text.npz"
    other.write_text("no arrays")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for path in (tmp_path / "missing.npz", other, tmp_path / "one.npy"):
        with pytest.raises(ValueError, match=rf"^paths: .*{path.name}: ") as caught:
            dataset(paths=[str(path)])
        assert "\n" not in str(caught.value)
    with pytest.raises(
        ValueError, match=r"^paths: catch_randm: No such file or directory; did you mean `catch_random`\?$"
    ):
        dataset(paths=["catch_randm"])


def test_datasets_of_one_stream_are_alike_and_have_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    a, again = (saved(folder / "a.npz") for folder in (tmp_path, tmp_path / "below"))
    wide = saved(tmp_path / "wide.npz", observation=np.zeros((6, 4)), next_observation=np.zeros((6, 4)))
    with pytest.raises(ValueError, match=r"^paths: two datasets have the name a; rename a file$"):
        dataset(paths=[a, again])
    with pytest.raises(ValueError, match=r"^paths: wide has other observations or actions than a;") as caught:
        dataset(paths=[a, wide])
    assert len(str(caught.value).splitlines()) <= 3


def test_the_number_of_actions_is_that_of_the_environment(tmp_path: Path) -> None:
    """Which may have more than a dataset shows."""
    files = [saved(tmp_path / "a.npz"), saved(tmp_path / "b.npz", metadata=told(actions=5))]
    assert [read(path).actions for path in files] == [2, 5]
    assert dataset(paths=files).spec.actions == 5


def test_the_datasets_that_are_made_here() -> None:
    """450 episodes of nine steps, each with its prize at the end; skilled actions catch most balls, random ones few."""
    for noise, low, high in ((1.0, -1.0, -0.3), (0.1, 0.6, 1.0)):
        made = of_catch(noise)
        assert made.observation.shape == made.next_observation.shape == (4050, 10, 5)
        assert (made.terminated.sum(), made.truncated.sum()) == (450, 0)
        assert set(np.unique(made.reward[made.terminated])) == {-1.0, 1.0}
        assert not made.reward[~made.terminated].any()
        assert low < made.reward.sum() / 450 < high
        rows = made.observation[:-1][~made.terminated[:-1]]
        np.testing.assert_array_equal(rows.shape, made.observation[1:][~made.terminated[:-1]].shape)
        np.testing.assert_array_equal(
            made.next_observation[:-1][~made.terminated[:-1]], made.observation[1:][~made.terminated[:-1]]
        )


def in_catch(path: Path, task: int, seed: int, **stream: Any) -> str:
    """A dataset that says it was recorded in a visit to ``task`` of permuted catch by the lane with this data key."""
    settings = {"kind": "catch", "rows": 6, "change": "observation", "tasks": 3} | stream
    words = np.asarray(jax.random.key_data(jax.random.key(seed))).tolist()
    environment = {"stream": settings, "transforms": [], "visit": task, "task": task, "data_key": words}
    seen = np.zeros((6, 6, 5), np.float32)
    facts = told(actions=3, environment=environment)
    return saved(path, observation=seen, next_observation=seen, metadata=facts)


def test_learners_are_evaluated_in_the_problem_that_a_dataset_was_recorded_in(tmp_path: Path) -> None:
    """The permutations of pixels are those of the recording lane, whatever the lane; the balls of two lanes differ."""
    files = [in_catch(tmp_path / "a.npz", 2, 11), in_catch(tmp_path / "b.npz", 1, 12, tasks=2, envs=5)]
    source = evaluation_source(dataset(paths=files, evaluation_envs=16))
    assert (source.spec.tasks, source.spec.envs, source.spec.episodic) == (("a", "b"), 16, True)
    stream, original = source.make(2), catch(rows=6, tasks=3).make(1)
    keys = jax.random.split(jax.random.key(5), 2)
    for task, (recorded, seed) in enumerate(((2, 11), (1, 12))):
        there = Visit(jnp.int32(recorded), jnp.int32(recorded))
        expected = original.reset(jax.random.key(seed)[None], there, ZERO)[0].problem
        state, first = stream.reset(keys, Visit(ZERO, jnp.int32(task), jnp.int32(7)), ZERO)
        for lane in range(2):
            jax.tree.map(lambda x, y, i=lane: np.testing.assert_array_equal(x[i], y[0]), state.problem, expected)
        assert (np.asarray(first.observation[0]) != np.asarray(first.observation[1])).any()


def test_where_no_evaluation_is_possible(tmp_path: Path) -> None:
    silent, known = saved(tmp_path / "silent.npz"), in_catch(tmp_path / "known.npz", 0, 1)
    other = in_catch(tmp_path / "other.npz", 0, 1, change="action")
    small = in_catch(tmp_path / "small.npz", 0, 1, rows=5)
    for files, message in (
        ([silent], "silent does not name the environment that it was recorded in; leave out `evaluation`"),
        ([known, other], "other was recorded in another stream than known; leave out `evaluation`"),
        ([small], "small: its observations or actions are not those of the stream that it names"),
    ):
        made = dataset(paths=files)
        assert made.evaluation is not None
        with pytest.raises(ValueError, match=message):
            made.evaluation(stream_of)


def test_an_environment_of_other_kinds_is_refused_in_one_line_that_names_the_key(tmp_path: Path) -> None:
    right = {"stream": {"kind": "catch"}, "transforms": [], "visit": 0, "task": 0, "data_key": [0, 7]}
    for key, value, wanted in (
        ("stream", "catch", 'an object, as in a config, got "catch"'),
        ("stream", None, "an object, as in a config, got null"),
        ("transforms", {}, "a list, as in a config, got {}"),
        ("visit", "a", 'a whole number, got "a"'),
        ("task", None, "a whole number, got null"),
        ("task", -1, "a whole number, got -1"),
        ("data_key", [-1, 7], r"the numbers of a random key, got \[-1, 7\]"),
        ("data_key", [7], r"the numbers of a random key, got \[7\]"),
    ):
        made = dataset(paths=[saved(tmp_path / "odd.npz", metadata=told(environment=right | {key: value}))])
        assert made.evaluation is not None
        message = rf"^odd: metadata: environment\.{key} must be {wanted}; leave out"
        with pytest.raises(ValueError, match=message) as caught:
            made.evaluation(stream_of)
        assert "\n" not in str(caught.value)


def test_a_task_that_the_environment_does_not_have_is_refused(tmp_path: Path) -> None:
    made = dataset(paths=[in_catch(tmp_path / "far.npz", 3, 1)])
    assert made.evaluation is not None
    with pytest.raises(ValueError, match=r"^far: metadata: environment\.task must be below 3, the tasks of .* got 3"):
        made.evaluation(stream_of)
