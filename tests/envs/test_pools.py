"""The stream ``envpool`` and its suites against envpool itself, used directly."""

import subprocess
import sys
from typing import Any

import envpool as library
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import clock_at, lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs.base import StreamFactory
from plasticity.envs.host import emulator_seeds
from plasticity.envs.pools import envpool
from plasticity.envs.suites import CW10, TRIPLETS, continual_world, dmc, minigrid, procgen


def lived(source: StreamFactory, steps: int, task: int = 0) -> tuple[Any, np.ndarray, list[int]]:
    """A visit of one lane ``[1 + T, E, ...]``, its actions ``[T, E, ...]`` and its emulators' seeds."""
    stream, keys = source.make(1), lane_keys(5)
    actions = random_actions(stream, steps, 1)
    life = jax.tree.map(lambda leaf: leaf[:, 0], play(player(stream), keys, visit_of(0, task), actions))
    stream.close()
    return life, actions[:, 0], [int(seed) for seed in emulator_seeds(keys, visit_of(0), source.spec.envs)[0]]


def row(seen: Any, keys: tuple[str, ...]) -> np.ndarray:
    if not isinstance(seen, dict):
        return np.asarray(seen)
    parts = [seen[key] for key in keys]
    return parts[0] if len(parts) == 1 else np.concatenate([part.reshape(len(part), -1) for part in parts], 1)


def compare(source: StreamFactory, steps: int, id: str, keys: tuple[str, ...] = (), **options: Any) -> Any:
    """The stream is envpool, but that the reward at FIRST is 0."""
    life, actions, seeds = lived(source, steps)
    envs = library.make(id, env_type="gymnasium", num_envs=len(seeds), seed=seeds, **options)
    seen = envs.reset()[0]
    np.testing.assert_array_equal(life.observation[0], row(seen, keys).astype(life.observation.dtype))
    if not source.spec.discrete:
        actions = np.clip(actions, envs.action_space.low, envs.action_space.high).astype(envs.action_space.dtype)
    for t, action in enumerate(actions, start=1):
        seen, reward, terminated, truncated, info = envs.step(action)
        opens = info["elapsed_step"] == 0
        np.testing.assert_array_equal(life.observation[t], row(seen, keys).astype(life.observation.dtype))
        np.testing.assert_array_equal(life.reward[t], np.where(opens, 0, reward).astype(np.float32))
        np.testing.assert_array_equal(life.discount[t], ~terminated)
        kind = np.where(opens, FIRST, np.where(terminated | truncated, LAST, MID))
        np.testing.assert_array_equal(life.step_type[t], kind)
    envs.close()
    assert (life.step_type == LAST).sum() >= 2
    return life


CASES = {
    "cartpole": (envpool, {"tasks": ["CartPole-v1"]}, "CartPole-v1", (), {}),
    "minigrid": (minigrid, {"tasks": ["Dynamic-Obstacles-5x5"]}, "MiniGrid-Dynamic-Obstacles-5x5-v0", ("image",), {}),
    "dmc": (
        dmc, {"tasks": ["WalkerWalk"], "episode_steps": 60},
        "WalkerWalk-v1", ("height", "orientations", "velocity"), {"max_episode_steps": 60},
    ),
    "metaworld": (
        continual_world, {"episode_steps": 60},
        "MetaWorld/Hammer-v3", (), {"max_episode_steps": 60, "partially_observable": False},
    ),
}  # fmt: skip


def compared(case: str, steps: int) -> Any:
    factory, settings, id, keys, options = CASES[case]
    return compare(factory(**settings, envs=2), steps, id, keys, **options)


@pytest.mark.parametrize("case", CASES)
def test_equals_envpool(case: str) -> None:
    compared(case, 300)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_equals_envpool_for_long(case: str) -> None:
    compared(case, 2000)


def test_resumes_in_mid_visit_bit_for_bit() -> None:
    source, keys = continual_world(envs=2, episode_steps=20), lane_keys(4)
    whole, resumed = player(source.make(1)), player(source.make(1))
    actions = random_actions(whole.stream, 70, 1)
    state, _ = whole.reset(keys, visit_of(1, 3), jnp.int32(0))
    state, _ = jax.block_until_ready(whole.steps(keys, state, actions[:30], jnp.int32(0)))
    resumed.stream.load(whole.stream.save())
    rest = [each.steps(keys, state, actions[30:], jnp.int32(30))[1] for each in (whole, resumed)]
    jax.tree.map(np.testing.assert_array_equal, *rest)
    assert (np.asarray(rest[0].step_type) == LAST).any()
    whole.stream.close()
    resumed.stream.close()


def test_continual_world_is_the_papers_sequence() -> None:
    """Hammer, push-wall, ..., as v3's names have them; twice in ``cw20``."""
    paper = (
        "hammer, push-wall, faucet-close, push-back, stick-pull, handle-press-side, push, shelf-place, window-close, "
        "peg-unplug-side"
    )
    names = ["".join(word.capitalize() for word in name.split("-")) for name in paper.split(", ")]
    assert list(CW10) == names
    assert continual_world().spec.tasks == tuple(f"MetaWorld/{name}-v3" for name in names)
    assert [visit.task for visit in continual_world(preset="cw20").spec.visits] == [*range(10)] * 2


def test_triplets_have_a_task_in_common_with_cw10_and_any_task_can_be_named() -> None:
    for number, tasks in enumerate(TRIPLETS, start=1):
        source = continual_world(preset=f"triplet_{number}")  # type: ignore[arg-type]
        played = [source.spec.tasks[visit.task] for visit in source.spec.visits]
        assert played == [f"MetaWorld/{task}-v3" for task in tasks]
        assert set(tasks) <= set(CW10)
    named = continual_world(tasks=["door-open", "push-v1", "WindowClose"], cycles=2).spec
    assert named.tasks == ("MetaWorld/DoorOpen-v3", "MetaWorld/Push-v3", "MetaWorld/WindowClose-v3")
    assert [visit.task for visit in named.visits] == [0, 1, 2] * 2
    with pytest.raises(ValueError, match=r'unknown task "MetaWorld/WindoClose-v3"; .* did you mean `MetaWorld/WindowC'):
        continual_world(tasks=["windo-close"])


def measured(source: StreamFactory, actions: np.ndarray) -> tuple[Any, np.ndarray]:
    """One lane's time steps and measures, ``[T, E, ...]``; ``actions [T, E, ...]``."""
    stream, keys = source.make(1), lane_keys(5)

    def step(state: Any, now: Any) -> Any:
        state, timestep = stream.step(keys, state, now[1][None], clock_at(now[0]))
        return state, (timestep, stream.measures(state, timestep))

    @jax.jit
    def go() -> Any:
        state, _ = stream.reset(keys, visit_of(0), jnp.int32(0))
        return jax.lax.scan(step, state, (jnp.arange(len(actions)), jnp.asarray(actions)))[1]

    timesteps, values = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], go())
    stream.close()
    return timesteps, values


def closing(seen: np.ndarray) -> np.ndarray:
    """Actions that close the window: above the handle, down on its right side, then to the left."""
    hand, aim = seen[:, :3], seen[:, 4:7] + [0.03, -0.03, -0.08]
    beside = np.linalg.norm((hand - aim)[:, :2], axis=1) > 0.04
    above = np.abs(hand[:, 2] - aim[:, 2]) > 0.02
    to = aim + np.where(beside[:, None], [0, 0, 0.3], np.where(above[:, None], [0, 0, 0], [-0.1, 0, 0]))
    return np.concatenate([np.clip(10 * (to - hand), -1, 1), -np.ones((len(seen), 1))], 1).astype(np.float32)


def test_success_is_what_envpool_reports() -> None:
    """Each window is closed in the first episode, and open again in the second."""
    source = continual_world(tasks=["window-close"], episode_steps=110, envs=4)
    assert (source.spec.measures, source.spec.measure_ranges) == (("success",), ((0.0, 1.0),))
    seeds = [int(seed) for seed in emulator_seeds(lane_keys(5), visit_of(0), 4)[0]]
    options = {"max_episode_steps": 110, "partially_observable": False}
    envs = library.make("MetaWorld/WindowClose-v3", env_type="gymnasium", num_envs=4, seed=seeds, **options)
    seen, actions, flags = envs.reset()[0], [], []
    for _ in range(130):
        actions.append(closing(seen))
        seen, *_, info = envs.step(actions[-1])
        flags.append(info["success"])
    timesteps, values = measured(source, np.stack(actions))
    np.testing.assert_array_equal(values[..., 0], np.float32(flags))
    assert values[:110].max(0).tolist() == [[1.0]] * 4
    assert not values[111:].any()
    np.testing.assert_array_equal(np.flatnonzero((timesteps.step_type == LAST).all(1)), [109])


def test_goals_are_shown_unless_they_are_hidden() -> None:
    shown, hidden = (
        lived(continual_world(tasks=["push"], goal=goal, episode_steps=5, envs=2), 12)[0].observation  # type: ignore[arg-type]
        for goal in ("shown", "hidden")
    )
    assert (hidden[..., 36:] == 0).all()
    goals = shown[[0, 6, 12], :, 36:].reshape(-1, 3)  # of three episodes in each env
    assert len(np.unique(goals, axis=0)) == 6
    np.testing.assert_array_equal(shown[..., :36], hidden[..., :36])


def test_any_number_among_the_infos_is_a_measure() -> None:
    source = envpool(tasks=["MetaWorld/Push-v3"], measures=["success", "obj_to_target"], steps_per_visit=500)
    assert (source.spec.measures, source.spec.measure_ranges) == (("success", "obj_to_target"), ())
    _, values = measured(source, np.zeros((3, 1, 4), np.float32))
    assert (values[..., 0] == 0).all()
    assert (values[..., 1] > 0.01).all()


def test_every_task_of_continual_world_steps() -> None:
    stream = continual_world(episode_steps=6).make(1)
    played, actions = player(stream), random_actions(stream, 9, 1)
    lives = [play(played, lane_keys(1), visit_of(task), actions) for task in range(10)]
    stream.close()
    for life in lives:
        assert np.isfinite(life.observation).all()
        np.testing.assert_array_equal(np.flatnonzero(life.step_type.ravel() == LAST), [6])
        np.testing.assert_array_equal(np.flatnonzero(life.step_type.ravel() == FIRST), [0, 7])
    assert len({life.observation.tobytes() for life in lives}) == 10


FRAMES = """
import sys, numpy as np, envpool
from plasticity.envs.pools import load_renderer
load_renderer()
for task in sys.argv[1:]:
    envs = envpool.make(f"MetaWorld/{task}-v3", env_type="gymnasium", num_envs=1, seed=[3], render_mode="rgb_array",
                        render_width=48, render_height=48)
    envs.reset()
    frame = np.asarray(envs.render())
    print(task, *frame.shape, round(float(frame.std())), flush=True)
"""


@pytest.mark.slow
def test_every_task_of_continual_world_renders_its_first_frame() -> None:
    """In a process of its own, which MuJoCo ends where there is no OpenGL."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FRAMES, *CW10], capture_output=True, text=True)
    if done.returncode and "gl" in (done.stdout + done.stderr).lower():
        pytest.skip(f"no OpenGL: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, *_ in rows] == list(CW10)
    for _, *shape, spread in rows:
        assert shape == ["1", "48", "48", "3"]
        assert int(spread) > 20


def test_padding() -> None:
    """The walker has 24 numbers, the cheetah 17; both take 6."""
    source = dmc(tasks=["CheetahRun", "WalkerWalk", "CartpoleBalance"], pad=True, episode_steps=20)
    assert (source.spec.observation.shape, source.spec.actions) == ((24,), 6)
    padded, actions, seeds = lived(source, 30, 2)
    np.testing.assert_array_equal(padded.observation[..., 5:], 0)
    envs = library.make("CartpoleBalance-v1", env_type="gymnasium", num_envs=1, seed=seeds, max_episode_steps=20)
    envs.reset()
    seen = np.stack(
        [row(envs.step(np.clip(a[:, :1], -1, 1).astype(float))[0], ("position", "velocity")) for a in actions]
    )
    np.testing.assert_array_equal(padded.observation[1:, :, :5], seen.astype(np.float32))


def test_one_part_of_the_observations_keeps_its_shape_and_type() -> None:
    source = envpool(tasks=["MiniGrid-Empty-5x5-v0"], keys=["image"])
    assert (source.spec.observation.shape, source.spec.observation.dtype) == ((7, 7, 3), np.uint8)
    both = envpool(tasks=["MiniGrid-Empty-5x5-v0"], keys=["direction", "image"])
    assert (both.spec.observation.shape, both.spec.observation.dtype) == ((148,), np.float32)
    life, *_ = lived(both, 3)
    assert set(life.observation[..., 0].ravel().tolist()) <= {0.0, 1.0, 2.0, 3.0}


def test_categories_are_seen_one_hot() -> None:
    life, *_ = lived(envpool(tasks=["FrozenLake-v1"]), 10)
    assert life.observation.shape == (11, 1, 16)
    np.testing.assert_array_equal(life.observation[0, 0], np.eye(16)[0])
    np.testing.assert_array_equal(life.observation.sum(-1), 1)


def test_what_is_not_a_number_is_played_as_0() -> None:
    stream = continual_world(episode_steps=9).make(1)
    played, lost = player(stream), np.full((3, 1, 1, 4), np.nan, np.float32)
    lives = [play(played, lane_keys(1), visit_of(0), actions) for actions in (lost, np.zeros_like(lost))]
    stream.close()
    jax.tree.map(np.testing.assert_array_equal, *lives)


def has_qt() -> bool:
    try:
        library.make_spec("CoinrunEasy-v0")
    except ImportError:
        return False
    return True


@pytest.mark.skipif(has_qt(), reason="there is a Qt 5")
def test_procgen_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"CoinrunEasy-v0: envpool has it, but a system requirement is missing.*Qt 5"):
        procgen(games=["coinrun"])


@pytest.mark.skipif(not has_qt(), reason="envpool's Procgen needs Qt 5")
def test_procgen() -> None:
    source = procgen(games=["coinrun", "starpilot"], start_levels=[0, 200], levels=200, envs=2)
    assert (source.spec.observation.shape, source.spec.observation.dtype) == ((64, 64, 3), np.uint8)
    assert source.spec.actions == 15
    assert source.spec.tasks[:2] == ("CoinrunEasy-v0[start_level=0]", "CoinrunEasy-v0[start_level=200]")
    life, *_ = lived(source, 20)
    assert life.observation.std() > 10


@pytest.mark.parametrize(
    ("factory", "settings", "message"),
    [
        (
            envpool,
            {"tasks": ["cheetahrun"]},
            'tasks: unknown task "cheetahrun"; .* are known; did you mean `CheetahRun-v1`',
        ),
        (
            minigrid,
            {"tasks": ["Empty-5x6"]},
            'unknown task "MiniGrid-Empty-5x6-v0"; .*; did you mean `MiniGrid-Empty-5x5-v0`',
        ),
        (procgen, {"games": ["coinru"]}, 'unknown task "CoinruEasy-v0"; .*; did you mean `CoinrunEasy-v0`'),
        (envpool, {"tasks": ["Pong-v5"]}, "Pong-v5 is not allowed; Atari is the stream `atari`"),
        (envpool, {"tasks": ["D1Basic-v1"]}, "D1Basic-v1 is not allowed; .*ViZDoom"),
        (envpool, {"tasks": ["TicTacToe-v1"]}, "two-player"),
        (envpool, {"tasks": ["CartPole-v1"], "variations": [{"foo": 1}]}, "CartPole-v1: envpool refuses .*foo"),
        (envpool, {"tasks": ["CheetahRun-v1"], "keys": ["speed"]}, "'speed' is not allowed; .*position, velocity"),
        (envpool, {"tasks": ["CartPole-v1"], "keys": ["image"]}, "CartPole-v1 has observations of one part"),
        (
            envpool,
            {"tasks": ["MetaWorld/Push-v3"], "measures": ["succes"]},
            'measures: "succes" is not allowed; the numbers in the infos of MetaWorld/Push-v3 are success, .*did you',
        ),
        (envpool, {"tasks": ["CartPole-v1"], "measures": ["success"]}, "infos of CartPole-v1 are none"),
        (envpool, {"tasks": ["MetaWorld/Push-v3"], "measures": ["success"] * 2}, "each may be named once"),
        (dmc, {"tasks": ["CheetahRun", "WalkerWalk"]}, "`pad: true` is required"),
        (envpool, {"tasks": ["CarRacing-v3", "LunarLanderContinuous-v3"], "pad": True}, "same number of axes"),
    ],
)
def test_mistakes(factory: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factory(**settings)


def test_a_visit_shorter_than_an_episode_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="steps_per_visit: 100 is shorter than an episode may last in MetaWorld"):
        continual_world(steps_per_visit=100)
