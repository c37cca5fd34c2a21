"""Experiments: read, checked, resolved, overridden, and laid out as programs of lanes."""

import dataclasses
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_members import fake_registry
from hypothesis import given, settings
from hypothesis import strategies as st

from plasticity.config.documents import from_yaml, to_yaml
from plasticity.config.experiments import Experiment, Placement, controls, load_config, read_experiment
from plasticity.config.names import DEVICE, RESERVED
from plasticity.config.programs import programs
from plasticity.core.errors import UserError

LEAST = {"stream": "drift", "agent": {"kind": "learner", "optimizer": "adam"}}

FULL = """
name: full
stream: {kind: drift, fraction: 0.5, tasks: 3}
agent:
  kind: learner
  network: {kind: mlp, widths: [4, 4]}
  optimizer: {kind: adam, learning_rate: 1e-3}
interventions: [{kind: weight_decay, rate: 1e-4}]
monitors: [rank, norm]
monitor_every: 10
seeds: [3, 5]
arms:
  baseline: {}
  plain: {interventions: []}
  sgd:
    agent: {optimizer: {kind: sgd, learning_rate: 0.1}, discount: 0.5}
  both:
    interventions: [reset, {kind: weight_decay, rate: 1}]
    sweep: {interventions.weight_decay.rate: [1, 2]}
sweep:
  agent.optimizer.learning_rate: [0.1, 0.2]
"""
REGISTRY = fake_registry()


def read(raw: Any = None, *overrides: str) -> Experiment:
    raw = from_yaml(raw, "x") if isinstance(raw, str) else LEAST | (raw or {})
    return read_experiment(raw, REGISTRY, overrides, source="x.yaml", name="x")


def error(raw: Any = None, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        read(raw, *overrides)
    return str(caught.value)


# Reading.


def test_defaults() -> None:
    experiment = read()
    assert experiment.name == "x"
    assert experiment.interventions == experiment.monitors == ()
    assert (experiment.monitor_every, experiment.checkpoint_every, experiment.record_every) == ("visit", "visit", None)
    assert (experiment.probe_size, experiment.seeds, experiment.sweep) == (512, (0,), {})
    assert experiment.placement == Placement(width="auto", devices="auto")
    assert list(experiment.arms) == ["baseline"]
    assert experiment.arms["baseline"].agent == experiment.agent


def test_every_key() -> None:
    experiment = read(
        {
            "name": "a-b.c_1",
            "interventions": ["reset"],
            "monitors": ["rank"],
            "monitor_every": 5,
            "record_every": 2,
            "probe_size": 16,
            "seeds": 3,
            "arms": {"1.5": None, 64: {}},
            "placement": {"width": 4, "devices": 2},
            "checkpoint_every": 100,
        }
    )
    assert experiment.seeds == (0, 1, 2)
    assert experiment.placement == Placement(width=4, devices=2)
    assert list(experiment.arms) == ["1.5", "64"]
    assert experiment.arms["64"].interventions[0].kind == "reset"


def test_files(tmp_path: Any) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(to_yaml(LEAST))
    assert load_config(path, registry=REGISTRY).name == "small"
    assert load_config(str(path), ["seeds=2"], registry=REGISTRY).seeds == (0, 1)
    path.write_text("stream: drift\nagent: lerner\n")
    with pytest.raises(UserError) as caught:
        load_config(path, registry=REGISTRY)
    assert str(caught.value) == (
        f"{path}: agent: unknown agent `lerner`; known: committee, learner; did you mean `learner`?"
    )


def test_an_arm_is_laid_over_the_base() -> None:
    arms = read(FULL).arms
    assert arms["baseline"].interventions[0].values["rate"] == 1e-4
    assert arms["plain"].interventions == ()
    assert arms["plain"].agent == arms["baseline"].agent
    sgd = arms["sgd"].agent.values
    assert sgd["optimizer"].kind == "sgd"
    assert sgd["discount"] == 0.5
    assert sgd["network"].values["widths"] == (4, 4)  # what the arm does not name it keeps


def test_another_kind_in_an_arm_replaces_the_member() -> None:
    raw = {
        "arms": {"a": {"agent": {"network": "linear"}}, "b": {"agent": {"kind": "committee", "optimizers": ["adam"]}}}
    }
    arms = read(raw).arms
    assert arms["a"].agent.values["network"].dump() == {"kind": "linear", "bias": True}
    assert arms["b"].agent.kind == "committee"
    assert arms["b"].agent.values["offset"] == 0.0


# Resolving.


def test_round_trip() -> None:
    experiment = read(FULL)
    text = to_yaml(experiment.resolve(), comment="resolved")
    assert read(text) == experiment
    assert to_yaml(read(text).resolve(), comment="resolved") == text


def test_an_arm_names_its_control() -> None:
    arms: dict[str, Any] = {"dqn": {}, "fresh": {}, "ppo": {"control": "fresh_ppo"}, "fresh_ppo": None}
    experiment = read({"arms": arms})
    assert controls(experiment.arms) == {"dqn": "fresh", "fresh": None, "ppo": "fresh_ppo", "fresh_ppo": None}
    assert experiment.resolve()["arms"]["ppo"] == {"control": "fresh_ppo"}
    assert read(experiment.resolve()) == experiment
    del arms["fresh"]
    assert controls(read({"arms": arms}).arms) == {"dqn": None, "ppo": "fresh_ppo", "fresh_ppo": None}


def test_resolved_data_are_explicit() -> None:
    resolved = read(FULL).resolve()
    assert resolved["stream"] == {"kind": "drift", "fraction": 0.5, "tasks": 3, "scales": None, "label": "a"}
    assert resolved["monitors"] == [{"kind": "rank", "delta": 0.01}, {"kind": "norm"}]
    assert resolved["seeds"] == [3, 5]
    assert resolved["placement"] == {"width": "auto", "devices": "auto"}
    assert resolved["arms"]["sgd"] == {"agent": {"optimizer": {"kind": "sgd", "learning_rate": 0.1}, "discount": 0.5}}
    assert read({"seeds": [0, 1, 2]}).resolve()["seeds"] == 3


def test_overrides_of_the_base_reach_the_arms_of_a_resolved_config() -> None:
    text = to_yaml(read(FULL).resolve())
    arms = read(text, "agent.n_step=7", "interventions.weight_decay.rate=0.5").arms
    assert [arm.agent.values["n_step"] for arm in arms.values()] == [7] * 4
    assert arms["baseline"].interventions[0].values["rate"] == 0.5
    assert arms["both"].interventions[1].values["rate"] == 1.0


POSITIVE = st.floats(2.0**-20, 100.0, width=32) | st.integers(1, 50)
FRACTION = st.floats(0.0, 1.0, width=32)
MAYBE = st.none() | POSITIVE
ADAM = st.fixed_dictionaries({"kind": st.just("adam")}, optional={"learning_rate": POSITIVE, "clip": MAYBE})
OPTIMIZER = st.just("adam") | ADAM | st.fixed_dictionaries({"kind": st.just("sgd"), "learning_rate": POSITIVE})
WIDTHS = st.lists(st.integers(1, 9), max_size=3)
NETWORK = st.sampled_from(["mlp", "linear"]) | st.fixed_dictionaries(
    {"kind": st.just("mlp")}, optional={"widths": WIDTHS}
)
LEARNER = st.fixed_dictionaries(
    {"kind": st.just("learner"), "optimizer": OPTIMIZER},
    optional={"network": NETWORK, "target": st.none() | NETWORK, "discount": FRACTION, "double": st.booleans()},
)
COMMITTEE = st.fixed_dictionaries(
    {"kind": st.just("committee"), "optimizers": st.lists(OPTIMIZER, max_size=3)}, optional={"offset": FRACTION}
)
AGENT = LEARNER | COMMITTEE
DECAY = st.fixed_dictionaries(
    {"kind": st.just("weight_decay")}, optional={"rate": POSITIVE, "per": st.sampled_from(["update", "learning_rate"])}
)
RESET = st.fixed_dictionaries(
    {"kind": st.just("reset")},
    optional={"period": st.integers(0, 9), "layers": st.none() | st.lists(st.text(max_size=3))},
)
METHODS = st.lists(st.sampled_from(["layer_norm", "reset", "weight_decay"]) | DECAY | RESET, max_size=3)
# No two differ in case only.
NAMES = st.from_regex(r"\A[A-Z0-9_][a-z0-9._-]{0,5}[a-z0-9_-]\Z").filter(
    lambda name: name.lower() not in RESERVED and not DEVICE.fullmatch(name)
)
SWEEPS = st.fixed_dictionaries(
    {},
    optional={
        "agent.optimizer": st.just(["adam", {"kind": "sgd", "learning_rate": 1}]),
        "agent.discount": st.lists(FRACTION, min_size=1, max_size=3, unique=True),
        "agent.n_step": st.lists(st.integers(1, 4), min_size=1, max_size=2, unique=True),
        "agent.network": st.just(["mlp", {"kind": "mlp", "widths": [3]}, "linear"]),
    },
)
PERIOD = st.just("visit") | st.integers(1, 99)
COMMON = {
    "interventions": METHODS,
    "monitors": st.lists(st.sampled_from(["rank", "norm"]), unique=True),
    "monitor_every": PERIOD,
    "checkpoint_every": PERIOD,
    "record_every": st.none() | st.integers(1, 9),
    "seeds": st.integers(1, 3) | st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True),
    "placement": st.fixed_dictionaries({}, optional={"width": st.just("auto") | st.integers(1, 4)}),
    "name": NAMES,
}
SCALES = st.none() | st.dictionaries(st.text(max_size=3), st.floats(-5, 5), max_size=2)
STREAM = st.fixed_dictionaries({"kind": st.just("drift")}, optional={"scales": SCALES, "label": st.text(max_size=4)})
ARM = st.none() | st.fixed_dictionaries({}, optional={"agent": AGENT, "interventions": METHODS})
LEARNER_ARM = st.none() | st.fixed_dictionaries(
    {}, optional={"agent": LEARNER, "interventions": METHODS, "sweep": SWEEPS}
)
UNSWEPT = st.fixed_dictionaries(
    {"stream": STREAM, "agent": AGENT},
    optional=COMMON | {"arms": st.dictionaries(NAMES, ARM, max_size=3)},
)
SWEPT = st.fixed_dictionaries(
    {"stream": STREAM, "agent": LEARNER},
    optional=COMMON | {"arms": st.dictionaries(NAMES, LEARNER_ARM, max_size=3), "sweep": SWEEPS},
)


@settings(max_examples=100, deadline=None)
@given(UNSWEPT | SWEPT)
def test_any_config_comes_back_from_its_resolved_yaml(raw: Any) -> None:
    experiment = read_experiment(raw, REGISTRY)
    again = read_experiment(from_yaml(to_yaml(experiment.resolve()), "x"), REGISTRY)
    assert again == experiment
    for one, other in zip(programs(experiment), programs(again), strict=True):
        assert one.agent == other.agent
        assert one.points == other.points
        np.testing.assert_array_equal(one.lanes, other.lanes)


def test_an_experiment_can_be_sent_to_a_worker() -> None:
    experiment = read(FULL)
    assert pickle.loads(pickle.dumps(experiment)) == experiment


# Overrides.


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("agent.optimizer.learning_rate=1e-5", ("agent", "optimizer", "learning_rate"), 1e-5),
        ("agent.network.widths=[1, 2]", ("agent", "network", "widths"), [1, 2]),
        ("agent.network=linear", ("agent", "network"), {"kind": "linear", "bias": True}),
        ("agent.network.kind=linear", ("agent", "network"), {"kind": "linear", "bias": True}),
        ("agent.target.kind=linear", ("agent", "target"), {"kind": "linear", "bias": True}),
        ("stream.scales.a=2", ("stream", "scales"), {"a": 2.0}),
        ("stream.label=on", ("stream", "label"), "on"),
        ("stream.label=a=b", ("stream", "label"), "a=b"),
        ("placement.width=2", ("placement", "width"), 2),
        ("record_every=", ("record_every",), None),
        ("interventions.weight_decay.rate=3", ("interventions", 0, "rate"), 3.0),
        ("interventions.0.rate=3", ("interventions", 0, "rate"), 3.0),
        ("interventions=[layer_norm]", ("interventions",), [{"kind": "layer_norm"}]),
        ("monitors.rank.delta=0.5", ("monitors", 0, "delta"), 0.5),
        ("arms.plain.agent.discount=0", ("arms", "plain", "agent", "discount"), 0.0),
        ("arms.new={interventions: [layer_norm]}", ("arms", "new", "interventions"), [{"kind": "layer_norm"}]),
        ("sweep.agent.optimizer.learning_rate=[7]", ("sweep", "agent.optimizer.learning_rate"), [7]),
        ("sweep.agent.discount=[0.5]", ("sweep", "agent.discount"), [0.5]),
        ("arms.both.sweep.agent.discount=[0.5]", ("arms", "both", "sweep", "agent.discount"), [0.5]),
    ],
)
def test_overrides(override: Any, where: Any, value: Any) -> None:
    resolved = read(FULL, override).resolve()
    for step in where:
        resolved = resolved[step]
    assert resolved == value


def test_null_on_the_command_line_removes_an_arm() -> None:
    names = list(read(FULL).arms)
    assert list(read(FULL, f"arms.{names[-1]}=null").arms) == names[:-1]
    assert error(FULL, "arms.bth=null").startswith('command line: arms.bth=null: unknown arm "bth"')
    assert "did you mean `both`" in error(FULL, "arms.bth=null")
    left = [f"arms.{name}=null" for name in names]
    assert error(FULL, *left).endswith("it is the only arm; a run needs at least one")


def test_overrides_come_in_order() -> None:
    assert read(FULL, "agent.network=linear", "agent.network.bias=false").agent.values["network"].values == {
        "bias": False
    }
    assert read(FULL, "seeds=1", "seeds=4").seeds == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds", 'command line: "seeds" is not of the form KEY=VALUE'),
        ("=3", 'command line: "=3" is not of the form KEY=VALUE'),
        ("seeds=[1", "command line: seeds, line 1, column 3: expected ',' or ']', but got '<stream end>'"),
        ("seeds.a=1", "command line: seeds.a: there is no `a` in this list; it has 0, 1"),
        (
            "probe_size.a=1",
            'x.yaml and command line: probe_size: {"a": 1} is not allowed; must be an integer in [1, 1048576]',
        ),
        ("monitor_every.a=1", "command line: monitor_every.a: there is no key `a`: the value above it is 10"),
        (
            "interventions.rest.period=1",
            "command line: interventions.rest.period: there is no `rest` in this list; it has weight_decay",
        ),
        ("agent.discuont=1", "command line: agent.discuont: unknown key; allowed: discount, double, n_step,"),
    ],
)
def test_bad_overrides(override: Any, message: Any) -> None:
    assert error(FULL, override).startswith(message)


def test_an_error_says_whether_file_or_command_line_is_wrong() -> None:
    lines = error({"seeds": 0, "probe_size": 0}, "probe_size=-1").splitlines()
    assert [line.split(":")[0] for line in lines] == ["command line", "x.yaml"]


# Programs.


def table(experiment: Experiment, *names: str) -> list[tuple[Any, ...]]:
    """(arm, program, lane, seed, numbers of the named paths) of every lane."""
    return [
        (p.arm, p.index, int(p.lanes[i]), int(p.seeds[i]), *(float(p.hyper[name][i]) for name in names))
        for p in programs(experiment)
        for i in range(len(p.seeds))
    ]


def test_lanes_are_points_by_seeds_in_the_order_given() -> None:
    raw = {"seeds": [7, 9], "sweep": {"agent.optimizer.learning_rate": [0.5, 0.25], "agent.discount": [0, 1]}}
    rows = table(read(raw), "agent.optimizer.learning_rate", "agent.discount")
    assert rows == [
        ("baseline", 0, 0, 7, 0.5, 0.0),
        ("baseline", 0, 1, 9, 0.5, 0.0),
        ("baseline", 0, 2, 7, 0.5, 1.0),
        ("baseline", 0, 3, 9, 0.5, 1.0),
        ("baseline", 0, 4, 7, 0.25, 0.0),
        ("baseline", 0, 5, 9, 0.25, 0.0),
        ("baseline", 0, 6, 7, 0.25, 1.0),
        ("baseline", 0, 7, 9, 0.25, 1.0),
    ]
    (program,) = programs(read(raw))
    assert program.points[5] == {"agent.optimizer.learning_rate": 0.25, "agent.discount": 0.0}
    assert len(program.points) == 8


def test_all_traced_numbers_are_arrays_of_lanes() -> None:
    (program,) = programs(read({"seeds": 3, "interventions": ["weight_decay"]}))
    assert set(program.hyper) == {
        "agent.optimizer.learning_rate",
        "agent.optimizer.b1",
        "agent.discount",
        "interventions.weight_decay.rate",
    }
    for values in program.hyper.values():
        assert values.shape == (3,)
        assert values.dtype == np.float32
    np.testing.assert_array_equal(program.hyper["agent.discount"], np.array([0.99] * 3, np.float32))
    assert program.points == ({}, {}, {})
    assert program.seeds.dtype == program.lanes.dtype == np.int32


def test_structure_makes_programs_and_numbers_make_lanes() -> None:
    raw = {"seeds": 1, "sweep": {"agent.discount": [0.1, 0.2], "agent.network.widths": [[4], [8]]}}
    first, second = programs(read(raw))
    assert [first.index, second.index] == [0, 1]
    assert first.agent.values["network"].values["widths"] == (4,)
    assert second.agent.values["network"].values["widths"] == (8,)
    np.testing.assert_array_equal(first.lanes, [0, 2])  # numbered over the arm, in the order of the sweep
    np.testing.assert_array_equal(second.lanes, [1, 3])
    np.testing.assert_array_equal(second.hyper["agent.discount"], np.array([0.1, 0.2], np.float32))
    assert second.points == (
        {"agent.discount": 0.1, "agent.network.widths": "[8]"},
        {"agent.discount": 0.2, "agent.network.widths": "[8]"},
    )


def test_a_sweep_of_members() -> None:
    raw = {
        "sweep": {
            "agent.optimizer": ["adam", {"kind": "sgd", "learning_rate": 1}],
            "agent.optimizer.learning_rate": [2, 3],
        }
    }
    adam, sgd = programs(read(raw))
    assert (adam.agent.values["optimizer"].kind, sgd.agent.values["optimizer"].kind) == ("adam", "sgd")
    np.testing.assert_array_equal(sgd.hyper["agent.optimizer.learning_rate"], [2.0, 3.0])
    assert sgd.points[0]["agent.optimizer"] == "{kind: sgd, learning_rate: 2.0}"
    raw = {"sweep": {"agent.network.kind": ["mlp", "linear"]}}
    assert [p.points for p in programs(read(raw))] == [({"agent.network.kind": kind},) for kind in ("mlp", "linear")]
    raw = {"sweep": {"interventions": [[], ["reset"], ["reset", "weight_decay"]]}}
    assert [[each.kind for each in p.interventions] for p in programs(read(raw))] == [
        [],
        ["reset"],
        ["reset", "weight_decay"],
    ]


def test_an_arms_sweep_multiplies_overrides_or_drops_the_experiments() -> None:
    raw = {
        "interventions": ["weight_decay"],
        "sweep": {"agent.discount": [0.5, 0.75], "interventions.weight_decay.rate": [1, 2]},
        "arms": {
            "all": {},
            "other": {"sweep": {"agent.discount": [0.25]}},
            "fewer": {"interventions": [], "sweep": {"interventions.weight_decay.rate": None}},
            "more": {"sweep": {"agent.n_step": [1, 2], "agent.discount": None}},
        },
    }
    experiment = read(raw)
    assert [len(arm.points) for arm in experiment.arms.values()] == [4, 2, 2, 4]
    assert read(to_yaml(experiment.resolve())) == experiment
    assert [dict(p.values) for p in experiment.arms["other"].points] == [
        {"agent.discount": 0.25, "interventions.weight_decay.rate": 1.0},
        {"agent.discount": 0.25, "interventions.weight_decay.rate": 2.0},
    ]


def test_a_list_of_points() -> None:
    """They are lanes in the order given, one factor of the grid; an arm may replace or remove them."""
    pairs = [{"agent.discount": 0.5, "agent.optimizer.learning_rate": 1}, {"agent.optimizer.learning_rate": 2, "agent.discount": 0.25}]  # noqa: E501 # fmt: skip
    own = {"points": [{"agent.discount": 0.75}]}
    raw = {
        "seeds": 2,
        "sweep": {"points": pairs, "agent.optimizer.b1": [0.5, 0.75]},
        "arms": {"all": {}, "none": {"sweep": {"points": None}}, "own": {"sweep": {**own, "agent.optimizer.b1": None}}},
    }
    experiment = read(raw)
    assert read(to_yaml(experiment.resolve())) == experiment
    names = ("agent.discount", "agent.optimizer.learning_rate", "agent.optimizer.b1")
    (every, *_) = programs(experiment)
    assert [tuple(float(every.hyper[name][lane]) for name in names) for lane in range(0, 8, 2)] == [
        (0.5, 1, 0.5),
        (0.5, 1, 0.75),
        (0.25, 2, 0.5),
        (0.25, 2, 0.75),
    ]
    assert every.points[7] == dict(zip(names, (0.25, 2, 0.75), strict=True))
    assert [dict(point.values) for point in experiment.arms["none"].points] == [{names[2]: 0.5}, {names[2]: 0.75}]
    assert [dict(point.values) for point in experiment.arms["own"].points] == [{"agent.discount": 0.75}]


def test_sweeps_written_in_python() -> None:
    values = {"agent.discount": list(np.linspace(0, 1, 3)), "agent.network.widths": [(4,), (8,)]}
    experiment = read({"sweep": values})
    assert experiment.sweep == {"agent.discount": (0.0, 0.5, 1.0), "agent.network.widths": ([4], [8])}
    assert read(to_yaml(experiment.resolve())) == experiment


def test_programs_come_arm_by_arm() -> None:
    assert [(p.arm, p.index, len(p.seeds)) for p in programs(read(FULL))] == [
        ("baseline", 0, 4),
        ("plain", 0, 4),
        ("sgd", 0, 4),
        ("both", 0, 8),
    ]


def test_a_program_is_built_inside_the_trace() -> None:
    (program,) = programs(
        read({"seeds": 2, "interventions": ["weight_decay"], "monitors": ["rank"]}, "agent.discount=0.5")
    )

    @jax.jit
    @jax.vmap
    def numbers(hyper: Any) -> Any:
        built = program.build(hyper)
        (decay,), (monitor,) = built.interventions, built.monitors
        assert monitor() == ("rank", 0.01)
        agent = built.agent("spec")
        return jnp.stack([agent[5], agent[4]()[1], decay()[1]])

    np.testing.assert_allclose(numbers(program.hyper), [[0.5, 1e-3, 1e-4]] * 2)


# Errors.

WRONG = [
    (
        {"nmae": "a"},
        "nmae: unknown key; allowed: agent, arms, checkpoint_every, compilation_cache, evaluation, ... (23",
    ),
    ({"sede": 1}, "sede: unknown key; allowed: agent,"),
    ({"seed": 1}, "did you mean `seeds`?"),
    (
        {"stream": {"kind": "drift", "fractoin": 1}},
        "stream.fractoin: unknown key; allowed: fraction, label, scales, tasks; did you mean `fraction`?",
    ),
    ({"stream": {"kind": "drift", "fraction": 2}}, "stream.fraction: 2 is not allowed; must be a number in [0, 1]"),
    ({"stream": None}, "stream: null is not allowed; must be a name or {kind: NAME, ...}"),
    (
        {"agent": {"kind": "learner", "optimizer": {"kind": "adam", "learning_rate": -0.1}}},
        "agent.optimizer.learning_rate: -0.1 is not allowed; must be a number greater than 0",
    ),
    ({"agent": {"kind": "learner", "optimizer": {"kind": "adam", "lerning_rate": 1}}}, "did you mean `learning_rate`?"),
    ({"agent": "learner"}, "agent.optimizer: is required; must be one of the optimizers"),
    ({"interventions": "reset"}, 'interventions: "reset" is not allowed; must be a list of interventions'),
    (
        {"interventions": [{"weight_decay": {"rate": 1}}]},
        "interventions[0]: `kind` is missing; known interventions: layer_norm, reset, weight_decay",
    ),
    ({"monitors": ["rank", "rank"]}, "monitors[1]: `rank` with the same settings is given twice"),
    ({"monitors": ["rnak"]}, "monitors[0]: unknown monitor `rnak`; known: norm, rank; did you mean `rank`?"),
    ({"monitor_every": 0}, "monitor_every: 0 is not allowed; must be an integer in [1, 2147483647] or `visit`"),
    ({"monitor_every": "vist"}, "did you mean `visit`?"),
    ({"record_every": True}, "record_every: true is not allowed; must be an integer in [1, 2147483647] or null"),
    ({"probe_size": 1.5}, "probe_size: 1.5 is not allowed; must be an integer in [1, 1048576]"),
    ({"probe_size": "8"}, 'probe_size: "8" is not allowed; must be an integer in [1, 1048576]'),
    ({"seeds": 0}, "seeds: 0 is not allowed; must be an integer in [1, 100000] or a list with 1 to 100000"),
    ({"seeds": []}, "seeds: [] is not allowed"),
    ({"seeds": True}, "seeds: true is not allowed"),
    ({"seeds": [1, 2, 1]}, "seeds[2]: 1 is given twice"),
    ({"seeds": [-1]}, "seeds: [-1] is not allowed"),
    ({"seeds": [2**31]}, "seeds: [2147483648] is not allowed"),
    ({"name": "a b"}, 'name: "a b" is not a valid name; use'),
    ({"name": ".."}, 'name: ".." is not a valid name; use'),
    ({"name": 3}, "name: 3 is not allowed; must be text or null"),
    ({"arms": ["a"]}, 'arms: ["a"] is not allowed; must be a mapping or null'),
    ({"arms": {"a/b": {}}}, 'arms.a/b: "a/b" is not a valid name; use'),
    ({"arms": {"figures": {}}}, "arms.figures: is a reserved name in the run's folder"),
    ({"arms": {"Figures": {}}}, "arms.Figures: is a reserved name in the run's folder"),
    (
        {"arms": {"a": {}, "A": {}}},
        'arms.A: differs from "a" only in case: the same folder on macOS and Windows; rename it',
    ),
    ({"arms": {"con": {}}}, 'arms.con: "con" is not a valid folder name on Windows; choose another name'),
    ({"arms": {"Nul.1": {}}}, 'arms.Nul.1: "Nul.1" is not a valid folder name on Windows; choose another name'),
    ({"arms": {"a.": {}}}, 'arms.a.: "a." is not a valid folder name on Windows; choose another name'),
    ({"arms": {"ln": ["layer_norm"]}}, 'arms.ln: ["layer_norm"] is not allowed; must be a mapping'),
    (
        {"arms": {"ln": {"intervention": []}}},
        "arms.ln.intervention: unknown key; allowed: agent, control, interventions, start, sweep, task_aware; "
        "did you mean `interventions`?",
    ),
    (
        {"arms": {"ppo": {"control": "fresh_pp"}, "fresh_ppo": {}}},
        'arms.ppo.control: unknown arm "fresh_pp"; in this config: fresh_ppo, ppo; did you mean `fresh_ppo`?',
    ),
    ({"arms": {"ppo": {"control": 3}, "3": {}}}, "arms.ppo.control: unknown arm 3; in this config: 3, ppo"),
    (
        {"arms": {"ppo": {"control": "ppo"}}},
        'arms.ppo.control: "ppo" is the arm itself; name the arm that is reset',
    ),
    (
        {"arms": {"a": {"control": "b"}, "b": {"control": "c"}, "c": {}}},
        'arms.a.control: "b" has its own control, so it cannot be a control',
    ),
    (
        {"arms": {"ln": {"seeds": 3}}},
        "arms.ln.seeds: unknown key; allowed: agent, control, interventions, start, sweep, task_aware",
    ),
    (
        {"arms": {"ln": {"interventions": ["layer_nrm"]}}},
        "arms.ln.interventions[0]: unknown intervention `layer_nrm`; known: layer_norm, reset, weight_decay; did you",
    ),
    (
        {"arms": {"ln": {"agent": {"optimizer": {"b1": 1}}}}},
        "arms.ln.agent.optimizer.b1: 1 is not allowed; must be a number in [0, 1)",
    ),
    ({"arms": {"ln": {"agent": {"optimizr": 1}}}}, "arms.ln.agent.optimizr: unknown key"),
    ({"placement": {"widht": 1}}, "placement.widht: unknown key; allowed: devices, width; did you mean `width`?"),
    (
        {"placement": {"devices": 0}},
        "placement.devices: 0 is not allowed; must be an integer in [1, 1048576] or `auto`",
    ),
    ({"placement": 3}, "placement: 3 is not allowed; must be a mapping or null"),
    ({"sweep": []}, "sweep: [] is not allowed; must be a mapping or null"),
    ({"sweep": {"stream.tasks": [1, 2]}}, "sweep.stream.tasks: a stream cannot be swept"),
    ({"sweep": {"seeds": [1, 2]}}, "sweep.seeds: cannot be swept; a path starts with `agent.` or `interventions.`"),
    ({"sweep": {"agent.discount": 0.5}}, "sweep.agent.discount: 0.5 is not allowed; must be a list of values"),
    ({"sweep": {"agent.discount": []}}, "sweep.agent.discount: the list of values is empty"),
    ({"sweep": {"agent.discount": None}}, "sweep.agent.discount: null is not allowed; must be a list of values"),
    ({"sweep": {"agent.discount": [0.5, 0.5]}}, "sweep.agent.discount: 0.5 is given twice"),
    ({"sweep": {"agent.discount": [0.5, 2]}}, "sweep.agent.discount: 2 is not allowed; must be a number in [0, 1]"),
    ({"sweep": {"points": 3}}, "sweep.points: 3 is not allowed; must be a list of values"),
    ({"sweep": {"points": []}}, "sweep.points: the list of values is empty"),
    ({"sweep": {"points": [0.5]}}, "sweep.points: 0.5 is not allowed; a point is a mapping of dotted paths to values"),
    ({"sweep": {"points": [{}]}}, "sweep.points: {} is not allowed; a point is a mapping of dotted paths to values"),
    (
        {"sweep": {"points": [{"agent.discount": 0.5}, {"agent.n_step": 2}]}},
        "sweep.points: `agent.discount` is missing in a point; all points need the same paths",
    ),
    (
        {"sweep": {"points": [{"agent.discount": 0.5}, {"agent.discount": 0.5}]}},
        'sweep.points: {"agent.discount": 0.5} is given twice',
    ),
    ({"sweep": {"points": [{"stream.tasks": 2}]}}, "sweep.points: stream.tasks: a stream cannot be swept"),
    ({"sweep": {"points": [{"points": 2}]}}, "sweep.points: points: cannot be swept; a path starts"),
    ({"sweep": {"points": [{"agent.discount": 2}]}}, "sweep.points.agent.discount: 2 is not allowed; must be a number"),
    ({"sweep": {"points": [{"agent.discuont": 2}]}}, "sweep.points.agent.discuont: unknown key; allowed: discount,"),
    (
        {"sweep": {"points": [{"agent.discount": 0.5}], "agent.discount": [0.25]}},
        "sweep.points: `agent.discount` is also swept outside the points; remove one of them",
    ),
    ({"sweep": {"agent.discuont": [0.5]}}, "sweep.agent.discuont: unknown key; allowed: discount,"),
    (
        {"sweep": {"agent.discount.x": [0.5]}},
        "sweep.agent.discount.x: there is no key `x`: the value above it is 0.99",
    ),
    ({"sweep": {"agent.optimizer": ["adm"]}}, "sweep.agent.optimizer: unknown optimizer `adm`"),
    ({"sweep": {"agent.optimizer": [{"kind": "adam", "b1": 1}]}}, "sweep.agent.optimizer.b1: 1 is not allowed"),
    (
        {"sweep": {"interventions.reset.period": [1]}},
        "sweep.interventions.reset.period: there is no `reset` in this list; it is empty",
    ),
    (
        {"sweep": {"agent.optimizer.b1": [0.1], "agent.optimizer": ["adam"]}},
        "sweep.agent.optimizer: sets the same setting as `agent.optimizer.b1`; remove one of them",
    ),
    (
        {"interventions": ["reset"], "sweep": {"interventions.0.period": [1], "interventions.reset.period": [2]}},
        "sweep.interventions.reset.period: sets the same setting as `interventions.0.period`",
    ),
    (
        {"sweep": {"agent.n_step": [1], "agent.optimizer.kind": ["sgd"]}},
        "sweep.agent.optimizer.kind: agent.optimizer.learning_rate: is required; must be a number greater than 0",
    ),
    (
        {"sweep": {"agent.n_step": list(range(1, 402)), "agent.discount": [1 / k for k in range(1, 401)]}},
        "arms.baseline: its sweep has 160,400 points; at most 10,000 are allowed",
    ),
    ({"arms": {"a": {"sweep": 3}}}, "arms.a.sweep: 3 is not allowed; must be a mapping of dotted paths to lists"),
    ({"arms": {"a": {"sweep": {"agent.discount": [3]}}}}, "arms.a.sweep.agent.discount: 3 is not allowed"),
]


@pytest.mark.parametrize(("raw", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_every_mistake_names_file_key_value_and_what_is_allowed(raw: Any, message: Any) -> None:
    text = error(raw)
    assert text.startswith("x.yaml: ")
    assert message in text
    assert "\n" not in text
    assert len(text) <= 200
    assert not any(word in text for word in ("Traceback", "Error", "pydantic", "validation", "For further"))


def test_a_problem_of_the_experiments_sweep_names_the_arms_it_came_up_in() -> None:
    raw = {
        "interventions": ["reset"],
        "arms": {"a": {}, "b": {"interventions": ["layer_norm"]}, "c": {"interventions": ["layer_norm"]}},
        "sweep": {"interventions.reset.period": [1, 2]},
    }
    assert error(raw) == (
        "x.yaml: sweep.interventions.reset.period: there is no `reset` in this list; it has layer_norm (in arm b, c)"
    )
    raw["sweep"] = {"agent.discount": [2]}
    assert "arm" not in error(raw)


def test_three_problems_are_shown_and_the_others_counted() -> None:
    lines = error({"a": 1, "b": 1, "c": 1, "probe_size": 0, "seeds": 0}).splitlines()
    assert len(lines) == 3
    assert lines[2].endswith(" (and 2 more)")
    assert "more)" not in error({"probe_size": 0, "seeds": 0, "a": 1})


@pytest.mark.parametrize(("raw", "message"), [(None, "f: is empty"), ([1], "f: must be a mapping of keys, got [1]")])
def test_a_document_that_is_no_mapping(raw: Any, message: Any) -> None:
    with pytest.raises(UserError) as caught:
        read_experiment(raw, REGISTRY, source="f")
    assert str(caught.value) == message


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(["adam", "reset", "rnak", "a b", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["kind", "rate", "agent", "sweep", "x", "optimizer", 3, "agent.discount"]), inner
        )
    ),
    max_leaves=5,
)
KEYS = [*(field.name for field in dataclasses.fields(Experiment)), "x"]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=4), st.booleans())
def test_junk_is_an_experiment_or_an_error_of_three_lines(junk: Any, complete: Any) -> None:
    try:
        read_experiment((LEAST if complete else {}) | junk, REGISTRY, source="x.yaml")
    except UserError as caught:
        lines = str(caught).splitlines()
        assert 1 <= len(lines) <= 3
        assert all(line.startswith("x.yaml: ") and len(line) <= 220 for line in lines)
