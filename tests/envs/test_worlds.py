"""Streams of other JAX libraries against the libraries' own functions under the same keys, and bad settings."""

import bz2
import pickle
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs import STREAMS
from plasticity.envs.base import PARAMS, RESET, STEP
from plasticity.envs.worlds import library, quiet, see_as, unwarned

STEPS = 40


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"the package {package} is not installed")


class Own:
    """A library's own environment: ``reset(key)`` and ``step(key, state, action)``, both compiled.

    ``reset`` -> state, observation; ``step`` -> state, observation, reward, terminated, truncated.
    """

    def __init__(self, reset: Callable[..., Any], step: Callable[..., Any]) -> None:
        self.reset, self.step = jax.jit(reset), jax.jit(step)


def raw(key: Any) -> Any:
    return jax.random.key_data(jax.random.split(key, 1)[0])


def by_hand(own: Own, actions: np.ndarray, visit: int) -> list[tuple[int, float, float, np.ndarray]]:
    """The time steps of a visit, of one lane with one env, from a plain loop that resets after an episode's end."""
    lane = lane_keys(3)[0]
    state, seen = own.reset(raw(jax.random.fold_in(jax.random.fold_in(lane, RESET), visit)))
    told, over = [(FIRST, 0.0, 1.0, np.asarray(seen))], False
    for t, action in enumerate(actions[:, 0, 0]):
        key = raw(jax.random.fold_in(jax.random.fold_in(lane, STEP), t))
        if over:
            (state, seen), over = own.reset(key), False
            told.append((FIRST, 0.0, 1.0, np.asarray(seen)))
            continue
        state, seen, reward, terminated, truncated = own.step(key, state, action)
        over = bool(terminated | truncated)
        told.append((LAST if over else MID, float(reward), 0.0 if terminated else 1.0, np.asarray(seen)))
    return told


def compare(
    settings: dict[str, Any], owns: dict[int, Own], steps: int = STEPS, tolerance: float = 1e-4
) -> set[tuple[int, float]]:
    """Every visit of ``owns`` equals the library's own; gives the pairs of step type and discount that occurred."""
    made = player(STREAMS[settings["kind"]](**{k: v for k, v in settings.items() if k != "kind"}).make(1))
    actions, seen = random_actions(made.stream, steps, 1), set()
    for visit, own in owns.items():
        life = play(made, lane_keys(3), visit_of(visit), actions)
        hand = by_hand(own, actions, visit)
        np.testing.assert_array_equal(life.step_type[:, 0, 0], [step[0] for step in hand])
        np.testing.assert_allclose(life.reward[:, 0, 0], [step[1] for step in hand], rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(life.discount[:, 0, 0], [step[2] for step in hand])
        np.testing.assert_allclose(
            life.observation[:, 0, 0], [step[3] for step in hand], rtol=tolerance, atol=tolerance
        )
        seen |= {(step[0], step[2]) for step in hand}
    assert sorted(made.traces) == ["reset", "steps"], "one program for all visits"
    assert made.steps._cache_size() == 1
    return seen


def own_gymnax(id: str, fixed: dict[str, Any] = {}, **values: Any) -> Own:  # noqa: B006 (read only)
    env, params = library("gymnax").make(id, **fixed)
    params = params.replace(**values)

    def step(key: Any, state: Any, action: Any) -> Any:
        seen, state, reward, terminated, _ = env.step_env(key, state, action, params)
        return state, seen, reward, terminated, env.is_truncated(state, params)

    return Own(lambda key: env.reset(key, params)[::-1], step)


@needs("gymnax")
def test_gymnax_with_parameters_is_the_library_own():
    values = [{"max_steps_in_episode": 9}, {"gravity": 40.0, "length": 0.1}]
    settings = {"kind": "gymnax", "id": "CartPole-v1", "variations": values, "steps_per_visit": 500}
    found = compare(settings, {i: own_gymnax("CartPole-v1", **value) for i, value in enumerate(values)})
    assert {(LAST, 0.0), (LAST, 1.0), (MID, 1.0)} <= found, "both ends of an episode occurred"


@needs("gymnax")
def test_gymnax_agrees_with_the_library_step_of_six_values():
    """Its ``step`` resets by itself; until then it returns what the stream returns."""
    env, params = library("gymnax").make("CartPole-v1")
    made = player(STREAMS["gymnax"](id="CartPole-v1", steps_per_visit=500).make(1))
    actions = random_actions(made.stream, 30, 1)
    life = play(made, lane_keys(3), visit_of(0), actions)
    _, state = env.reset(raw(jax.random.fold_in(jax.random.fold_in(lane_keys(3)[0], RESET), 0)), params)
    for t in range(30):  # CartPole draws nothing within a step, so the keys of its steps do not matter
        _, state, reward, terminated, truncated, info = env.step(jax.random.key(0), state, actions[t, 0, 0], params)
        np.testing.assert_allclose(life.observation[t + 1, 0, 0], info["final_observation"], rtol=1e-5, atol=1e-6)
        assert life.reward[t + 1, 0, 0] == reward
        assert (life.step_type[t + 1, 0, 0] == LAST) == (terminated | truncated)
        if terminated | truncated:
            assert life.discount[t + 1, 0, 0] == 1 - terminated
            return
    pytest.fail("no episode ended")


@needs("gymnax")
def test_gymnax_environments_of_several_sizes_share_a_program():
    """Another constructor's keyword is another environment; smaller observations are padded with zeros."""
    settings = {
        "kind": "gymnax", "id": "Catch-bsuite", "variations": [{"rows": 5}, {"rows": 7}], "pad": True,
        "steps_per_visit": 1000,
    }  # fmt: skip

    def grown(own: Own, rows: int) -> Own:
        def see(seen: Any) -> Any:
            return jnp.pad(seen, ((0, 7 - rows), (0, 0)))

        def reset(key: Any) -> Any:
            state, seen = own.reset(key)
            return state, see(seen)

        def step(*args: Any) -> Any:
            state, seen, *rest = own.step(*args)
            return state, see(seen), *rest

        return Own(reset, step)

    owns = {i: grown(own_gymnax("Catch-bsuite", {"rows": rows}), rows) for i, rows in enumerate((5, 7))}
    assert (LAST, 0.0) in compare(settings, owns, 30)


@needs("gymnax")
@pytest.mark.parametrize(
    ("id", "shape", "dtype", "actions", "discrete"),
    [
        ("Pendulum-v1", (3,), np.float32, 1, False),
        ("Breakout-MinAtar", (10, 10, 4), None, 3, True),
        ("FrozenLake-misc", (16,), np.float32, 4, True),
    ],
)
def test_spaces_are_the_library_own(id, shape, dtype, actions, discrete):
    spec = STREAMS["gymnax"](id=id, steps_per_visit=10_000).spec
    own, params = library("gymnax").make(id)
    kept = own.observation_space(params).dtype
    assert (spec.observation.shape, spec.actions, spec.discrete) == (shape, actions, discrete)
    assert spec.observation.dtype == (dtype or (kept if kept in (np.bool_, np.uint8) else np.float32))
    made = player(STREAMS["gymnax"](id=id, steps_per_visit=10_000).make(1))
    life = play(made, lane_keys(3), visit_of(0), random_actions(made.stream, 5, 1))
    assert own.action_space(params).contains(jnp.zeros(own.action_space(params).shape, int))
    if id == "FrozenLake-misc":
        np.testing.assert_array_equal(life.observation.sum(-1), 1)  # one-hot


@needs("gymnax")
@pytest.mark.slow
def test_every_environment_of_gymnax_can_be_made():
    names = set(library("gymnax.registration").registered_envs) - {"MNISTBandit-bsuite"}  # which downloads its images
    assert all(STREAMS["gymnax"](id=name, steps_per_visit=200_000).spec.actions for name in names)


@needs("gymnax")
def test_real_valued_actions_are_clipped_and_not_a_number_is_zero():
    made = player(STREAMS["gymnax"](id="Pendulum-v1", steps_per_visit=500).make(1))
    wild = np.array([5.0, np.nan, -9.0], np.float32).reshape(3, 1, 1, 1)
    tame = np.array([2.0, 0.0, -2.0], np.float32).reshape(3, 1, 1, 1)
    lives = [play(made, lane_keys(3), visit_of(0), actions) for actions in (wild, tame)]
    jax.tree.map(np.testing.assert_array_equal, *lives)


@needs("gymnax")
def test_a_lane_of_two_and_its_envs_equal_the_lane_alone():
    settings = {"id": "CartPole-v1", "variations": [{"max_steps_in_episode": 9}, {"gravity": 20.0}], "envs": 2}
    both = player(STREAMS["gymnax"](**settings, steps_per_visit=500).make(2))
    alone = player(STREAMS["gymnax"](**settings, steps_per_visit=500).make(1))
    actions = random_actions(both.stream, STEPS, 2)
    life = play(both, lane_keys(3, 8), visit_of(1), actions)
    own = play(alone, lane_keys(8), visit_of(1), actions[:, 1:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:, 1:], b, rtol=1e-5, atol=1e-6), life, own)


def own_craftax(**values: Any) -> Own:
    env = library("craftax.craftax_env").make_craftax_env_from_name("Craftax-Classic-Symbolic-v1", auto_reset=False)
    params = env.default_params.replace(**values)

    def step(key: Any, state: Any, action: Any) -> Any:
        seen, state, reward, over, _ = env.step(key, state, action, params)
        late = state.timestep >= params.max_timesteps
        return state, seen, reward, (state.player_health <= 0) & over, late

    return Own(lambda key: env.reset(key, params)[::-1], step)


@needs("craftax")
@pytest.mark.slow
def test_craftax_is_the_library_own():
    """With many zombies that hit hard, episodes end by death before the time limit, or at it."""
    values = [{"max_timesteps": 9}, {"spawn_zombie_base_chance": 1.0, "max_timesteps": 400}]
    settings = {
        "kind": "craftax", "id": "Craftax-Classic-Symbolic-v1", "variations": values, "steps_per_visit": 500,
    }  # fmt: skip
    found = compare(settings, {i: own_craftax(**value) for i, value in enumerate(values)}, 300)
    assert {(LAST, 0.0), (LAST, 1.0)} <= found


@needs("craftax")
def test_craftax_time_limit_is_not_a_termination():
    from plasticity.envs.craftax import by_craftax, made

    env = made("Craftax-Classic-Symbolic-v1")
    params = env.default_params.replace(max_timesteps=5)
    _, state = jax.eval_shape(env.reset_env, jax.random.PRNGKey(0), params)
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    for health, time, ends in ((9, 4, (0, 0)), (9, 5, (0, 1)), (0, 4, (1, 0)), (0, 5, (1, 1))):
        now = blank.replace(player_health=jnp.int32(health), timestep=jnp.int32(time))
        assert tuple(map(int, by_craftax(env, now, params, jnp.bool_(True)))) == ends


def own_xminigrid(id: str, **values: Any) -> Own:
    env, params = library("xminigrid").make(id, **values)

    def reset(key: Any) -> Any:
        timestep = env.reset(params, key)
        return timestep, timestep.observation

    def step(key: Any, timestep: Any, action: Any) -> Any:
        timestep = env.step(params, timestep, action)
        over = timestep.state.step_num == params.max_steps
        return timestep, timestep.observation, timestep.reward, timestep.discount == 0, over

    return Own(reset, step)


@needs("xminigrid")
def test_xminigrid_is_the_library_own():
    settings = {
        "kind": "xminigrid", "id": "MiniGrid-EmptyRandom-5x5", "variations": [{"max_steps": 12}],
        "steps_per_visit": 500,
    }  # fmt: skip
    found = compare(settings, {0: own_xminigrid("MiniGrid-EmptyRandom-5x5", max_steps=12)}, 200)
    assert {(LAST, 0.0), (LAST, 1.0)} <= found


@pytest.fixture
def rulesets(tmp_path):
    """A file as the library writes it: pick up a red ball; pick up a blue ball."""
    constants, goals = library("xminigrid.core.constants"), library("xminigrid.core.goals")
    rules = library("xminigrid.core.rules")
    colours = constants.Colors.RED, constants.Colors.BLUE
    balls = [constants.TILES_REGISTRY[constants.Tiles.BALL, colour] for colour in colours]
    contents = {
        "goals": jnp.stack([goals.AgentHoldGoal(tile=ball).encode() for ball in balls]),
        "rules": jnp.stack([rules.EmptyRule().encode()[None]] * 2),
        "init_tiles": jnp.stack([jnp.stack(balls)] * 2),
        "num_rules": jnp.zeros(2, jnp.int32),
    }
    with bz2.open(tmp_path / "balls", "wb") as file:
        pickle.dump(contents, file)
    return str(tmp_path / "balls")


@needs("xminigrid")
@pytest.mark.slow
def test_xland_rulesets_switch_inside_one_environment(rulesets):
    benchmark = library("xminigrid.benchmarks").load_benchmark_from_path(rulesets)
    settings = {
        "kind": "xminigrid", "id": "XLand-MiniGrid-R1-9x9", "benchmark": rulesets, "rulesets": [0, 1],
        "steps_per_visit": 500,
    }  # fmt: skip
    owns = {i: own_xminigrid("XLand-MiniGrid-R1-9x9", ruleset=benchmark.get_ruleset(i)) for i in range(2)}
    assert (LAST, 0.0) in compare(settings, owns, 400)


@needs("xminigrid")
def test_rulesets_are_tasks_of_a_file_with_its_digest(rulesets):
    source = STREAMS["xminigrid"](
        id="XLand-MiniGrid-R1-9x9", benchmark=rulesets, rulesets=[1, 0], steps_per_visit=500
    )  # fmt: skip
    assert source.spec.tasks == ("XLand-MiniGrid-R1-9x9:1", "XLand-MiniGrid-R1-9x9:0")
    assert [path for path, _ in source.spec.data] == [rulesets]
    with pytest.raises(ValueError, match=r"^rulesets: 2 is not allowed; .* has 2 rulesets$"):
        STREAMS["xminigrid"](id="XLand-MiniGrid-R1-9x9", benchmark=rulesets, rulesets=[2])


Shift = Callable[[Any], dict[str, Any]]


def own_brax(id: str, shift: Shift, steps: int, backend: str = "spring") -> Own:
    """With the library's own time limit, and a system changed by hand."""
    training = library("brax.envs.wrappers.training")
    with quiet():
        env = library("brax.envs").get_environment(id, backend=backend)
    env.sys = env.sys.tree_replace(shift(env.sys)) if shift(env.sys) else env.sys
    limited = training.EpisodeWrapper(env, steps, 1)

    def reset(key: Any) -> Any:
        with unwarned():
            state = limited.reset(key)
        return state, state.obs

    def step(key: Any, state: Any, action: Any) -> Any:
        with unwarned():
            state = limited.step(state, jnp.clip(action, -1, 1))
        late = state.info["truncation"] > 0
        return state, state.obs, state.reward, (state.done > 0) & ~late, late

    return Own(reset, step)


SHIFTS: dict[str, list[tuple[dict[str, Any], Shift]]] = {
    "spring": [
        ({}, lambda sys: {}),
        ({"friction": 0.1}, lambda sys: {"geom_friction": sys.geom_friction * 0.1}),
        ({"gravity": 2.0}, lambda sys: {"gravity": sys.gravity * 2}),
        ({"disabled": [0, 1]}, lambda sys: {"actuator.gear": sys.actuator.gear.at[:2].set(0)}),
    ],
    "generalized": [
        ({}, lambda sys: {}),
        ({"mass": 3.0}, lambda sys: {"link.inertia.mass": sys.link.inertia.mass * 3,
                                     "link.inertia.i": sys.link.inertia.i * 3}),
    ],
}  # fmt: skip


@needs("brax")
@pytest.mark.slow
@pytest.mark.parametrize("backend", SHIFTS)
def test_brax_shifts_are_the_library_own_and_matter(backend):
    shifts = SHIFTS[backend]
    settings = {
        "id": "ant", "variations": [keys for keys, _ in shifts], "backend": backend, "episode_steps": 5,
        "steps_per_visit": 500,
    }  # fmt: skip
    owns = {i: own_brax("ant", shift, 5, backend) for i, (_, shift) in enumerate(shifts)}
    # Contacts amplify rounding, which differs between a compiled step and a compiled loop of steps.
    assert (LAST, 1.0) in compare({"kind": "brax", **settings}, owns, 12, tolerance=5e-3)
    made = player(STREAMS["brax"](**settings).make(1))
    actions = random_actions(made.stream, 12, 1)
    standard, *others = (play(made, lane_keys(3), visit_of(0, i), actions).observation for i in range(len(shifts)))
    np.testing.assert_array_equal(standard[0], others[0][0])  # episodes start alike
    assert all(np.abs(other - standard).max() > 0.1 for other in others)


@needs("brax")
@pytest.mark.slow
def test_a_fallen_pendulum_terminates_and_the_clock_truncates():
    settings = {
        "kind": "brax", "id": "inverted_pendulum", "backend": "spring", "episode_steps": 15, "steps_per_visit": 500,
        "variations": [{}, {"gravity": 30.0}],
    }  # fmt: skip
    owns = {
        0: own_brax("inverted_pendulum", lambda sys: {}, 15),
        1: own_brax("inverted_pendulum", lambda sys: {"gravity": sys.gravity * 30}, 15),
    }
    assert {(LAST, 0.0), (LAST, 1.0)} <= compare(settings, owns)


@needs("brax")
def test_drawn_factors_are_in_range_and_belong_to_a_lane_and_a_task():
    from plasticity.envs.brax import draw

    lanes = jax.vmap(lambda key: jax.random.fold_in(key, PARAMS))(lane_keys(*range(200)))
    drawn = {"friction": (0.02, 2.0)}
    first, second = (
        np.asarray(jax.vmap(lambda key, t=task: draw(drawn, key, jnp.int32(t), {"friction": 1.0})["friction"])(lanes))
        for task in (0, 1)
    )
    for factors in (first, second):
        assert (factors.min() >= 0.02) & (factors.max() <= 2.0)
        assert abs(np.log(factors).mean() - np.log(0.2)) < 4 * np.log(100) / np.sqrt(12 * 200)  # four standard errors
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.3
    spec = STREAMS["brax"](
        id="inverted_pendulum", backend="spring", drawn={"friction": [0.02, 2.0]}, cycles=3, steps_per_visit=1000
    ).spec  # fmt: skip
    assert spec.tasks == ("inverted_pendulum_0", "inverted_pendulum_1", "inverted_pendulum_2")
    assert [plan.task for plan in spec.visits] == [0, 1, 2]


REFUSED = [
    ("gymnax", {"id": "CartPole"}, "unknown gymnax environment .*did you mean `CartPole-v1`"),
    ("gymnax", {}, "exactly one of the two must be given"),
    ("gymnax", {"id": "CartPole-v1", "variations": [{"gravitty": 1}]}, "did you mean `gravity`"),
    ("gymnax", {"id": "CartPole-v1", "variations": [{"gravity": "high"}]}, "must be a number"),
    ("gymnax", {"id": "CartPole-v1", "variations": [{"max_steps_in_episode": 2.5}]}, "must be an integer"),
    ("gymnax", {"id": "CartPole-v1", "variations": [{"max_steps_in_episode": 2**40}]}, "must be an integer"),
    ("gymnax", {"id": "CartPole-v1", "variations": [{"max_steps_in_episode": 0}]}, "at least 1"),
    ("gymnax", {"id": "CartPole-v1", "variations": [{"gravity": float("nan")}]}, "must be a number"),
    ("gymnax", {"id": "CartPole-v1", "variations": [{"gravity": [1, [2]]}]}, "must be a number"),
    ("gymnax", {"ids": ["CartPole-v1", "Acrobot-v1"]}, "`pad: true` is required"),
    ("gymnax", {"ids": ["CartPole-v1", "Pendulum-v1"], "pad": True}, "all discrete or all real-valued"),
    ("gymnax", {"id": "CartPole-v1", "idle": 2}, "one of the 2 actions"),
    ("gymnax", {"id": "Catch-bsuite", "variations": [{"rows": "many"}]}, "gymnax cannot make it"),
    ("craftax", {"id": "Craftax-v1"}, "unknown Craftax environment"),
    ("craftax", {"id": "Craftax-Classic-Symbolic-v1", "variations": [{"day": 3}]}, "not a keyword of"),
    ("xminigrid", {"id": "MiniGrid-Empty"}, "unknown xminigrid environment"),
    ("xminigrid", {"id": "MiniGrid-Empty-5x5", "variations": [{"size": 3}]}, "xminigrid cannot make it"),
    ("xminigrid", {"id": "XLand-MiniGrid-R1-9x9"}, "XLand needs `benchmark` and `rulesets`"),
    ("xminigrid", {"id": "MiniGrid-Empty-5x5", "benchmark": "no", "rulesets": [0]}, "this id has no rulesets"),
    ("xminigrid", {"id": "XLand-MiniGrid-R1-9x9", "benchmark": "no", "rulesets": [0]}, "must be a file of rulesets"),
    ("brax", {"id": "aunt"}, "unknown brax environment .*did you mean `ant`"),
    ("brax", {"id": "ant", "variations": [{"gravity": 0}]}, "must be a factor greater than 0"),
    ("brax", {"id": "ant", "variations": [{"disabled": [8]}]}, "from 0 to 7"),
    ("brax", {"id": "ant", "variations": [{"gravty": 2}]}, "brax cannot make it"),
    ("brax", {"id": "ant", "drawn": {"friction": [2, 1]}}, "two factors greater than 0"),
    ("brax", {"id": "ant", "drawn": {"wind": [1, 2]}}, "must be one of gravity, friction, mass"),
    ("brax", {"id": "ant", "backend": "spring", "variations": [{"mass": 2}]}, "spring is not allowed with mass"),
    ("brax", {"ids": ["ant", "hopper"], "backend": "spring"}, "`pad: true` is required"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings", "words"), [pytest.param(*case, marks=needs(case[0])) for case in REFUSED]
)  # fmt: skip
def test_bad_settings_are_refused_in_one_line(kind, settings, words):
    with pytest.raises(ValueError, match=words) as told:
        STREAMS[kind](**settings)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("kind", ["gymnax", "craftax", "xminigrid", "brax"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)  # as if it were not installed
    with pytest.raises(
        ValueError, match=rf'^the package {kind} is not installed: pip install "plasticity-lab\[{kind}\]"$'
    ):
        STREAMS[kind](id="any")


def test_several_arrays_become_one_vector_and_pixels_stay():
    parts = {"b": jax.ShapeDtypeStruct((2, 2), jnp.int32), "a": jax.ShapeDtypeStruct((), jnp.float32)}
    shape, see = see_as(parts)
    assert shape == jax.ShapeDtypeStruct((5,), jnp.float32)
    np.testing.assert_array_equal(see({"b": jnp.arange(4).reshape(2, 2), "a": jnp.float32(7)}), [7, 0, 1, 2, 3])
    for kept, given in ((jnp.uint8, jnp.uint8), (jnp.bool_, jnp.bool_), (jnp.float32, jnp.int32)):
        assert see_as(jax.ShapeDtypeStruct((4, 4, 3), given))[0].dtype == kept
