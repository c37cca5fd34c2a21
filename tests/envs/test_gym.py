"""The stream ``gym`` against gymnasium itself, used directly."""

import sys
import warnings
from typing import Any

import ale_py
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from playing import clock_at, lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs.gym import gym
from plasticity.envs.host import emulator_seeds
from plasticity.envs.spaces import rows_of

gymnasium.register_envs(ale_py)


def direct(id: str, seeds: Any, actions: np.ndarray, **options: Any) -> list[np.ndarray]:
    """Each env alone, reset by hand: observation, reward, terminated, truncated, reset; ``actions [T, E, ...]``."""
    lives = []
    for env, seed in enumerate(seeds):
        made, life = gymnasium.make(id, **options), []
        seen, over = made.reset(seed=int(seed))[0], False
        life.append((seen, 0.0, False, False, True))
        for action in actions[:, env]:
            if over:
                life.append((made.reset()[0], 0.0, False, False, True))
                over = False
                continue
            seen, reward, terminated, truncated, _ = made.step(action)
            over = terminated or truncated
            life.append((seen, reward, terminated, truncated, False))
        lives.append([np.array(column) for column in zip(*life, strict=True)])
        made.close()
    return [np.stack(column, 1) for column in zip(*lives, strict=True)]


def compared(id: str, steps: int, **options: Any) -> Any:
    """Plays the stream and the library with the same actions; the life, ``[1 + T, E]``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = gym(id=id, variations=[options], envs=2)
    stream, keys = source.make(1), lane_keys(5)
    actions = random_actions(stream, steps, 1)
    life = jax.tree.map(lambda leaf: leaf[:, 0], play(player(stream), keys, visit_of(0), actions))
    stream.close()
    taken = actions[:, 0]
    if not source.spec.discrete:
        space: Any = gymnasium.make(id).action_space
        taken = np.clip(taken, space.low, space.high)
    seeds = emulator_seeds(keys, visit_of(0), 2)[0]
    seen, reward, terminated, truncated, opens = direct(id, seeds, taken, **options)
    np.testing.assert_array_equal(life.observation, seen.astype(life.observation.dtype))
    np.testing.assert_array_equal(life.reward, reward.astype(np.float32))
    np.testing.assert_array_equal(life.discount, 1 - np.float32(terminated))
    np.testing.assert_array_equal(life.step_type, np.where(opens, FIRST, np.where(terminated | truncated, LAST, MID)))
    return life


@pytest.mark.parametrize(
    ("id", "options"),
    [("CartPole-v1", {}), ("Pendulum-v1", {}), ("MountainCarContinuous-v0", {"max_episode_steps": 90})],
)
def test_equals_gymnasium(id: str, options: dict[str, Any]) -> None:
    life = compared(id, 300, **options)
    assert (life.step_type == LAST).sum() >= 2
    assert life.observation.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "ALE/Breakout-v5"])
def test_equals_gymnasium_for_long(id: str) -> None:
    assert (compared(id, 2000).step_type == LAST).sum() >= 2


def test_pixels_stay_bytes() -> None:
    life = compared("ALE/Pong-v5", 20, max_episode_steps=8)
    assert life.observation.dtype == np.uint8
    assert life.observation.shape == (21, 2, 210, 160, 3)


def test_truncation_has_discount_1_and_termination_0() -> None:
    life = compared("CartPole-v1", 100, max_episode_steps=15)
    ended = life.step_type == LAST
    assert set(life.discount[ended].tolist()) == {0.0, 1.0}


def test_resumes_in_mid_visit_bit_for_bit() -> None:
    source, keys = gym(id="CartPole-v1", envs=2), lane_keys(4)
    whole, resumed = player(source.make(1)), player(source.make(1))
    actions = random_actions(whole.stream, 90, 1)
    state, _ = whole.reset(keys, visit_of(0), jnp.int32(0))
    state, _ = jax.block_until_ready(whole.steps(keys, state, actions[:50], jnp.int32(0)))
    resumed.stream.load(whole.stream.save())
    rest = [each.steps(keys, state, actions[50:], jnp.int32(50))[1] for each in (whole, resumed)]
    jax.tree.map(np.testing.assert_array_equal, *rest)
    assert (np.asarray(rest[0].step_type) == LAST).any()
    whole.stream.close()
    resumed.stream.close()


@pytest.mark.slow
def test_workers_change_nothing() -> None:
    lives = []
    for workers in (False, True):
        stream = gym(id="CartPole-v1", envs=2, workers=workers).make(1)
        lives.append(play(player(stream), lane_keys(2), visit_of(0), random_actions(stream, 40, 1)))
        stream.close()
    jax.tree.map(np.testing.assert_array_equal, *lives)


def test_padding() -> None:
    """CartPole has 4 numbers and 2 actions, Acrobot 6 and 3; the surplus action is played as the idle one."""
    source = gym(ids=["CartPole-v1", "Acrobot-v1"], pad=True, idle=1)
    assert (source.spec.observation.shape, source.spec.actions) == ((6,), 3)
    actions = np.array([0, 2, 1, 2, 2, 0, 2, 2]).reshape(-1, 1, 1)
    stream = source.make(1)
    life = play(player(stream), lane_keys(1), visit_of(0), actions)
    stream.close()
    np.testing.assert_array_equal(life.observation[..., 4:], 0)
    seeds = emulator_seeds(lane_keys(1), visit_of(0), 1)[0]
    seen, *_ = direct("CartPole-v1", seeds, np.where(actions[:, 0] == 2, 1, actions[:, 0]))
    np.testing.assert_array_equal(life.observation[:, 0, :, :4], seen)


def test_flattened_observations() -> None:
    """Blackjack shows a Tuple of 32, 11 and 2 categories."""
    stream = gym(id="Blackjack-v1", flatten=True, envs=2).make(1)
    life = play(player(stream), lane_keys(1), visit_of(0), random_actions(stream, 10, 1))
    stream.close()
    assert life.observation.shape[3:] == (45,)
    for begin, end in ((0, 32), (32, 43), (43, 45)):
        np.testing.assert_array_equal(life.observation[..., begin:end].sum(-1), 1)


def test_tasks_and_visits() -> None:
    source = gym(
        ids=["CartPole-v1", "Acrobot-v1"], variations=[{}, {"max_episode_steps": 50}],
        steps_per_visit=600, cycles=2, pad=True,
    )  # fmt: skip
    names = ("CartPole-v1", "CartPole-v1[max_episode_steps=50]", "Acrobot-v1", "Acrobot-v1[max_episode_steps=50]")
    assert source.spec.tasks == names
    assert source.spec.visits == tuple((task, 600) for task in (0, 1, 2, 3) * 2)
    again = gym(ids=["CartPole-v1", "Acrobot-v1", "CartPole-v1"], steps_per_visit=600, pad=True)
    assert [visit.task for visit in again.spec.visits] == [0, 1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "cartpole"}, 'id: unknown environment "cartpole"; .* are known; did you mean `CartPole-v1`'),
        ({"ids": ["ALE/Pog-v5"]}, 'ids: unknown environment "ALE/Pog-v5"; .* are known; did you mean `ALE/Pong-v5`'),
        ({}, "id: null with ids: null is not allowed; exactly one of the two must be given"),
        ({"id": "CartPole-v1", "ids": ["CartPole-v1"]}, "exactly one of the two must be given"),
        ({"id": "CartPole-v1", "variations": [{"foo": 1}]}, "CartPole-v1: gymnasium cannot make it: .*foo"),
        ({"id": "Blackjack-v1"}, "must be a Box, or `flatten: true`"),
        ({"ids": ["CartPole-v1", "Acrobot-v1"]}, r"float32\(4,\) and float32\(6,\), 2 and 3 actions; .*`pad: true`"),
        ({"ids": ["CartPole-v1", "Pendulum-v1"], "pad": True}, "must be all discrete or all real-valued"),
        ({"id": "CartPole-v1", "idle": 2}, "idle: 2 is not allowed; must be one of the 2 actions"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym(**settings)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(id: str, **options: Any) -> Any:
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gymnasium, "make", lacking)
    said = r'CartPole-v1: a library is missing: .*pip install "plasticity-lab\[mujoco\]"'
    with pytest.raises(ValueError, match=said):
        gym(id="CartPole-v1")


def test_a_visit_shorter_than_an_episode_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"steps_per_visit: 499 is shorter than an episode may last in CartPole-v1"):
        gym(id="CartPole-v1", steps_per_visit=499)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gym(id="CartPole-v1", steps_per_visit=500)


def test_vector_environments_reset_at_the_next_step() -> None:
    """The stream relies on this default of gymnasium."""
    envs = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")])
    assert envs.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.NEXT_STEP


# Spaces and names.

SPACES = gymnasium.spaces
REAL = SPACES.Box(-1.0, 1.0, (2,))
GRAPH = SPACES.Graph(SPACES.Box(-1.0, 1.0, (2,)), SPACES.Discrete(2))
SHOWN: dict[str, Any] = {  # one of each class, and the variants of those that some are allowed of
    "Box": REAL,
    "Box of integers": SPACES.Box(0, 3, (2,), np.int32),
    "Discrete": SPACES.Discrete(3),
    "Discrete from -1": SPACES.Discrete(3, start=-1),
    "Text": SPACES.Text(4),
    "MultiDiscrete": SPACES.MultiDiscrete([2, 3]),
    "MultiBinary": SPACES.MultiBinary(3),
    "MultiBinary of a shape": SPACES.MultiBinary((2, 2)),
    "Graph": GRAPH,
    "Tuple": SPACES.Tuple((SPACES.Discrete(2), REAL)),
    "Sequence": SPACES.Sequence(SPACES.Discrete(2)),
    "Dict": SPACES.Dict(a=SPACES.Discrete(2), b=REAL),
    "OneOf": SPACES.OneOf((SPACES.Discrete(2), REAL)),
}
PLAYED = ("Box", "Discrete", "Discrete from -1")  # as actions
SEEN = ("Box", "Box of integers")  # as observations, as they are ...
FLAT = (  # ... and flattened
    "Box", "Box of integers", "Discrete", "Discrete from -1", "Text", "MultiDiscrete", "MultiBinary",
    "MultiBinary of a shape", "Tuple", "Dict", "OneOf",
)  # fmt: skip


class Blank(gymnasium.Env):
    """Shows samples of one space and takes another."""

    def __init__(self, shows: str, takes: str) -> None:
        self.observation_space, self.action_space = SHOWN[shows], SHOWN[takes]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        return self.observation_space.sample(), 0.0, False, False, {}


gymnasium.register("Blank-v0", Blank, max_episode_steps=5)


def blank(shows: str = "Box", takes: str = "Discrete", **settings: Any) -> Any:
    return gym(id="Blank-v0", variations=[{"shows": shows, "takes": takes}], steps_per_visit=10, **settings)


def test_an_observation_too_large_to_flatten_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHOWN, "Huge", SPACES.Discrete(10**8))
    with pytest.raises(ValueError, match="100000000 numbers when flattened; at most 16777216 are allowed"):
        blank(shows="Huge", flatten=True)


@pytest.mark.parametrize(("what", "settings"), [("observations", {"shows": "Empty"}), ("actions", {"takes": "Empty"})])
def test_an_empty_box_is_refused(monkeypatch: pytest.MonkeyPatch, what: str, settings: dict[str, str]) -> None:
    monkeypatch.setitem(SHOWN, "Empty", SPACES.Box(-1.0, 1.0, (0,)))
    with pytest.raises(ValueError, match=rf"^Blank-v0: its {what} are empty, of shape \(0,\); every axis must be"):
        blank(**settings)


def test_every_class_of_space_is_tried() -> None:
    classes = {c for c in vars(SPACES).values() if isinstance(c, type) and issubclass(c, SPACES.Space)}
    assert {type(space) for space in SHOWN.values()} == classes - {SPACES.Space}


@pytest.mark.parametrize("takes", SHOWN)
def test_actions_are_played_or_refused_by_name(takes: str) -> None:
    if takes not in PLAYED:
        with pytest.raises(ValueError, match="are not allowed; must be Discrete or a Box of real numbers") as caught:
            blank(takes=takes)
        assert str(caught.value).startswith(f"Blank-v0: its actions, {str(SHOWN[takes])[:20]}")
        assert "\n" not in str(caught.value)
        return
    stream = blank(takes=takes).make(1)
    play(player(stream), lane_keys(1), visit_of(0), random_actions(stream, 7, 1))
    stream.close()


@pytest.mark.parametrize("shows", SHOWN)
@pytest.mark.parametrize("flatten", [False, True])
def test_observations_are_shown_or_refused_by_name(shows: str, flatten: bool) -> None:
    if shows not in (FLAT if flatten else SEEN):
        with pytest.raises(ValueError, match=r"^Blank-v0: (observations|gymnasium cannot make it)") as caught:
            blank(shows=shows, flatten=flatten)
        assert "\n" not in str(caught.value)
        assert ("or `flatten: true`" in str(caught.value)) == (shows in FLAT and not flatten)
        return
    assert len(blank(shows=shows, flatten=flatten).spec.observation.shape) == 1


class Ladder(gymnasium.Env):
    """An episode of four steps; ``top`` is missing from the infos until the third, ``rung`` counts."""

    observation_space, action_space = REAL, SPACES.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.rung = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.rung += 1
        infos = {"rung": self.rung, "high": self.rung > 1, "name": "ladder", "place": np.zeros(2)}
        late = {"top": 1.0} if self.rung == 3 else {}
        return np.zeros(2, np.float32), 0.0, self.rung == 4, False, infos | late


gymnasium.register("Ladder-v0", Ladder)


def measured(envs: int, workers: bool) -> np.ndarray:
    """The measures of eight steps, ``[T, E, measures]``."""
    source = gym(id="Ladder-v0", measures=["rung", "high"], envs=envs, workers=workers)
    assert source.spec.measures == ("rung", "high")
    stream, keys, found = source.make(1), lane_keys(1), []
    state, _ = stream.reset(keys, visit_of(0), jnp.int32(0))
    for t in range(8):
        state, timestep = stream.step(keys, state, jnp.zeros((1, envs), jnp.int32), clock_at(t))
        found.append(np.asarray(stream.measures(state, timestep))[0])
    stream.close()
    return np.stack(found)


def test_numbers_in_the_infos_are_measures() -> None:
    """Step 5 starts an episode, whose infos are those of a reset."""
    found = measured(2, workers=False)
    rungs = np.array([1, 2, 3, 4, 0, 1, 2, 3])
    np.testing.assert_array_equal(found, np.stack([rungs, rungs > 1], -1)[:, None].repeat(2, 1))


def test_an_info_that_is_missing_counts_as_0() -> None:
    rows = rows_of({"rung": np.array([2, 3]), "top": np.array([0.0, 1.0])}, ("top", "rung", "other"), 2)
    assert rows.tolist() == [[0, 2, 0], [1, 3, 0]]
    assert rows.dtype == np.float32


@pytest.mark.parametrize("name", ["top", "name", "place", "rungs"])
def test_what_is_no_number_in_the_first_infos_is_no_measure(name: str) -> None:
    said = f'measures: "{name}" is not allowed; the numbers in the infos of Ladder-v0 are rung, high'
    with pytest.raises(ValueError, match=said):
        gym(id="Ladder-v0", measures=[name])


@pytest.fixture
def here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder with modules ``drifting_envs``, which registers Drift-v0, and ``broken_envs``."""
    (tmp_path / "drifting_envs.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Drift-v0', CartPoleEnv, max_episode_steps=9)\n"
    )
    (tmp_path / "broken_envs.py").write_text("import a_library_nobody_has\n")
    (tmp_path / "leaving_envs.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    yield
    gymnasium.registry.pop("Drift-v0", None)
    sys.modules.pop("drifting_envs", None)


def test_a_module_of_the_current_folder_registers_its_environments(here: Any) -> None:
    assert gym(id="drifting_envs:Drift-v0", steps_per_visit=10).spec.actions == 2


@pytest.mark.parametrize(
    ("id", "said"),
    [
        ("no_envs:CartPole-v1", 'id: there is no module "no_envs", .*; did you mean `CartPole-v1`.$'),
        (
            "drifting_envs:Drif-v0",
            'id: unknown environment "drifting_envs:Drif-v0"; .* did you mean `drifting_envs:Drift-v0`.$',
        ),
        ("broken_envs:A-v0", "id: module \"broken_envs\" cannot be imported: .*'a_library_nobody_has'$"),
        ("leaving_envs:A-v0", 'id: module "leaving_envs" cannot be imported: SystemExit: 3$'),
        (":CartPole-v1", 'id: "" is not a valid module name; an id is `Name-v0` or `module:Name-v0`; did you mean'),
        ("../envs:A-v0", 'id: "../envs" is not a valid module name'),
        (":", 'id: "" is not a valid module name'),
    ],
)
def test_an_id_with_a_module_that_leads_nowhere(here: Any, id: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        gym(id=id, steps_per_visit=10)
    assert "\n" not in str(caught.value)
