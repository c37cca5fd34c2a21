"""Each folder of examples/ is a package that offers one member: it is loaded as a plug-in, and its config runs.

The members are checked against numbers computed by hand from their documentation.
"""

import functools
import importlib
import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from plugins import EXAMPLES, KINDS, installed

import plasticity
from plasticity import results
from plasticity.core.types import Learner, Sequence, Visit
from plasticity.networks.build import build
from plasticity.networks.presets import mlp
from plasticity.runs import launch, members

FAMILIES = {kind: f"{kind}s" for kind in KINDS}
MEMBERS = {
    "intervention": "parameter_noise",
    "monitor": "score_margin",
    "network": "pyramid",
    "activation": "shifted_relu",
    "optimizer": "sign_momentum",
    "stream": "moving_bandit",
    "transform": "negate_observations",
    "agent": "one_step_q",
}
SMALL = ("stream.tasks=2", "stream.steps_per_task=20", "probe_size=16", "record_every=10")
TINY = {
    **dict.fromkeys(KINDS, SMALL),
    "monitor": (*SMALL, "monitor_every=10"),
    "stream": ("stream.tasks=2", "stream.steps_per_task=200", "agent.epsilon.duration=50"),
}


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with installed(tmp_path_factory.mktemp("installed")) as packages:
        yield packages


def member(kind: str) -> Any:
    return getattr(importlib.import_module(MEMBERS[kind]), MEMBERS[kind])


def test_every_folder_is_known():
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == {
        *KINDS,
        "plugin",
        "gymnasium",
        "cluster",
        "cleanrl",  # test_measure_parameters.py
        "mining",
    }


def test_an_environment_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The id names a module in its folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "gymnasium"))
    small = ["stream.steps_per_visit=120", "stream.cycles=1", "agent.epsilon.duration=40"]
    try:
        run = plasticity.run(EXAMPLES / "gymnasium" / "experiment.yaml", tmp_path / "run", overrides=small)
    finally:
        gymnasium.registry.pop("Corridor-v0", None)
        sys.modules.pop("corridor", None)
    assert len(run.plan["stream"]["tasks"]) == 2
    returns = run.visits["performance"]  # the exit pays 1, so the mean return is the share of episodes that find it
    assert returns.between(0, 1).all()
    assert returns.max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_can_name_it(kind: str, plugins: dict[str, str]):
    known = launch.registry()
    assert known.origin(FAMILIES[kind], MEMBERS[kind]) == plugins[kind]
    assert not launch.broken_plugins()
    launch.plan(launch.load_config(EXAMPLES / kind / "experiment.yaml"))


@pytest.mark.parametrize("kind", KINDS)
def test_its_config_runs(kind: str, plugins: dict[str, str], tmp_path: Path):
    run = plasticity.run(EXAMPLES / kind / "experiment.yaml", tmp_path / "run", overrides=TINY[kind])
    assert run.visits["performance"].notna().any()
    assert not run.lanes["diverged_at"].notna().any()
    if kind == "monitor":
        assert (run.metrics["score_margin"].dropna() >= 0).all()


@pytest.mark.slow
def test_pip_installs_them_all(tmp_path: Path):
    """Into an environment of its own, whose `plasticity list` names each with its package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    target = tmp_path / "env" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (target / "house.pth").write_text(f"{sysconfig.get_path('purelib')}\n{EXAMPLES.parent}\n")
    copies = tmp_path / "examples"
    subprocess.run(["cp", "-r", EXAMPLES, copies], check=True)
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", *options]
    subprocess.run([*pip, *(copies / kind for kind in KINDS)], check=True, capture_output=True)
    shown = subprocess.run(
        [python, "-m", "plasticity", "list"],
        check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, cwd=tmp_path,
    ).stdout  # fmt: skip
    for kind in KINDS:
        (line,) = (line for line in shown.splitlines() if line.strip().startswith(f"{MEMBERS[kind]} "))
        assert f"[plasticity-example-{kind} 0.1.0]" in line


@pytest.mark.parametrize("kind", KINDS)
def test_it_asks_for_the_distribution_that_there_is(kind: str):
    own = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]["name"]
    for name in (kind, "plugin"):
        project = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text())["project"]
        assert project["dependencies"] == [own]


# Behaviour of each example.


def test_the_noise_has_its_scale(plugins: dict[str, str]):
    before = Learner({"w": jnp.zeros(20_000)}, (), ())
    _, after = member("intervention")(scale=0.5).step(jax.random.key(0), (), before, None)
    np.testing.assert_allclose(np.std(after.params["w"]), 0.5, rtol=0.02)


def test_the_margin_is_that_of_the_valid_rows(plugins: dict[str, str]):
    class Seen:
        learner = Learner({}, (), ())
        observation = jnp.zeros((3, 1))
        valid = jnp.asarray([True, True, False])

        def scores(self, params: Any, observation: Any) -> Any:
            return jnp.asarray([[1.0, 4.0, 2.0], [0.0, -1.0, -5.0], [9.0, 0.0, 0.0]])

    _, found = member("monitor")().measure(jax.random.key(0), (), Seen())
    assert found["score_margin"] == pytest.approx((2.0 + 1.0) / 2)


def test_the_layers_halve(plugins: dict[str, str]):
    observation = jax.ShapeDtypeStruct((8,), jnp.float32)
    assert member("network")(observation, 4, width=64, layers=3).widths == (64, 32, 16)
    with pytest.raises(ValueError, match="no unit"):
        member("network")(observation, 4, width=2, layers=3)


def test_the_thresholds_are_learned(plugins: dict[str, str]):
    observation = jax.ShapeDtypeStruct((3,), jnp.float32)
    activation = functools.partial(member("activation"), threshold=0.5)
    network = build(mlp(observation, 2, widths=(4,), activation=activation))
    params = network.init(jax.random.key(0))
    assert (params["hidden_0"]["activation"]["threshold"] == 0.5).all()
    seen = network.forward(params, 3 * np.eye(3, dtype=np.float32))[1]["hidden_0"]
    np.testing.assert_allclose(seen.post, np.maximum(np.asarray(seen.pre) - 0.5, 0), rtol=1e-6)
    slopes = jax.grad(lambda p: network.forward(p, jnp.eye(3))[0].sum())(params)
    assert (np.asarray(slopes["hidden_0"]["activation"]["threshold"]) != 0).any()


def relu_layer(params: Any, name: str, x: Any) -> Any:
    return np.maximum(linear(params, name, x), 0)


def linear(params: Any, name: str, x: Any) -> Any:
    return x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("residual_block", "residual_block"),
        ("linen_network", "linen_mlp"),
        ("nnx_network", "nnx_mlp"),
        ("equinox_network", "equinox_mlp"),
    ],
)
def test_a_network_computes_its_equations(module: str, name: str, plugins: dict[str, str]):
    if name == "equinox_mlp":
        pytest.importorskip("equinox")
    given = getattr(importlib.import_module(module), name)(jax.ShapeDtypeStruct((3,), jnp.float32), 4, width=8)
    network = build(given)
    x = np.asarray(jax.random.normal(jax.random.key(1), (5, 3)))
    params = network.init(jax.random.key(0))
    outputs, activations = network.forward(params, x)
    if name == "residual_block":
        first = linear(params, "embedding", x)
        inner = relu_layer(params, "inner", first)
        last = linear(params, "output", np.maximum(first + linear(params, "outer", inner), 0))
    elif name == "equinox_mlp":
        last = np.maximum(x @ params["0"].T + params["1"], 0) @ params["2"].T + params["3"]
    else:
        hidden = relu_layer(params, "hidden", x)
        np.testing.assert_allclose(activations["hidden"].post, hidden, rtol=1e-5, atol=1e-6)
        last = linear(params, "output", hidden)
    np.testing.assert_allclose(outputs, last, rtol=1e-5, atol=1e-6)
    assert [units.name for units in network.units] == {
        "residual_block": ["features", "inner"],
        "linen_mlp": ["hidden"],
    }.get(name, [])


@pytest.fixture
def mining(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(EXAMPLES / "mining"))
    yield importlib.import_module("mine_activations")
    sys.modules.pop("mine_activations", None)
    members.known.cache_clear()  # the mined members are in no other test's registry


def test_expressions_of_the_search(mining: Any):
    tree = ("add", ("sin", ("z",)), ("multiply", ("number", 0.5), ("relu", ("z",))))
    z = np.array([-2.0, 0.3, 1.5])
    np.testing.assert_allclose(mining.value(tree, jnp.asarray(z)), np.sin(z) + 0.5 * np.maximum(z, 0), rtol=1e-6)
    assert mining.text(tree) == "add(sin(z), multiply(0.5, relu(z)))"
    assert mining.depth(tree) == 4
    assert [mining.text(part) for part in mining.parts_of(tree)][2:5] == ["z", "multiply(0.5, relu(z))", "0.5"]
    for number, part in enumerate(mining.parts_of(tree)):
        assert mining.replaced(tree, number, part) == tree
    assert mining.text(mining.replaced(tree, 4, ("z",))) == "add(sin(z), multiply(z, relu(z)))"
    assert not mining.usable(("number", 1.0))
    random = np.random.default_rng(0)
    children = [mining.mutated(random, mining.STARTS) for _ in range(30)]
    assert all(mining.usable(child) and mining.depth(child) <= mining.DEPTH for child in children)
    assert len(set(children)) > 15
    again = np.random.default_rng(0)
    assert children == [mining.mutated(again, mining.STARTS) for _ in range(30)]


@pytest.mark.slow
def test_a_tiny_search_reports_what_it_found(mining: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sizes = ["--generations=2", "--population=2", "--seeds=3", "--tasks=2", "--steps=10"]
    mining.main([*sizes, "--out", str(tmp_path)])
    first, second, found, held_out = capsys.readouterr().out.splitlines()
    best, *_ = second.removeprefix("generation 1: ").split()
    assert float(best) >= float(first.split()[2])
    assert second.endswith(found.removeprefix("found: "))
    assert held_out.startswith("held out: ")
    runs = [results.visits(tmp_path / f"generation_{i}") for i in range(2)]
    assert [len(run.arm.unique()) for run in runs] == [2, 2]
    late = runs[0][runs[0].visit == 1].groupby("arm", observed=True)["performance"].mean()
    assert float(first.split()[2]) == pytest.approx(late.max(), abs=5e-4)


MODULES = {
    "residual_block": {"interventions": ["layer_norm", {"kind": "redo", "period": 5}], "monitors": ["dormant_units"]},
    "linen_mlp": {"interventions": [{"kind": "redo", "period": 5, "threshold": 1.0}], "monitors": ["dormant_units"]},
    "nnx_mlp": {"interventions": ["parseval", "pfo"], "monitors": ["srank", "weight_norm"]},
    "equinox_mlp": {"interventions": ["shrink_perturb"], "task_aware": True, "monitors": ["gradient_norm"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_methods_and_monitors_work_on_the_networks(name: str, plugins: dict[str, str], tmp_path: Path):
    """As far as they are described."""
    if name == "equinox_mlp":  # not among the package's entry points, because it needs one more package
        pytest.importorskip("equinox")
        launch.registry().register("networks", name, importlib.import_module("equinox_network").equinox_mlp)
    changes = {"agent": {"kind": "classifier", "network": {"kind": name, "width": 8}}, **MODULES[name]}
    run = plasticity.run(tiny.document(**changes, seeds=2), tmp_path / "run")
    assert run.visits["performance"].between(0, 1).all()
    assert run.metrics[MODULES[name]["monitors"][0]].notna().any()


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def test_the_linen_cell_computes_its_equations(plugins: dict[str, str]):
    """Two steps of two envs; in the second env, the second step starts an episode."""
    module = importlib.import_module("linen_memory")
    network = build(module.linen_gru(jax.ShapeDtypeStruct((3,), jnp.float32), 4, width=5))
    params, x = network.init(jax.random.key(0)), np.asarray(jax.random.normal(jax.random.key(1), (2, 2, 3)))
    first = np.array([[False, False], [False, True]])
    outputs, *_ = network.unroll(params, Sequence(x, first, network.initial(2)))
    h, cell = np.zeros((2, 5)), params["cell"]
    for step in range(2):
        h = np.where(first[step][:, None], 0, h)
        z = {gate: linear(cell, f"i{gate}", x[step]) for gate in "rzn"}
        s = {gate: h @ np.asarray(cell[f"h{gate}"]["kernel"]) for gate in "rzn"}
        reset, update = sigmoid(z["r"] + s["r"]), sigmoid(z["z"] + s["z"])
        new = np.tanh(z["n"] + reset * (s["n"] + np.asarray(cell["hn"]["bias"])))
        h = (1 - update) * new + update * h
        np.testing.assert_allclose(outputs[2 * step : 2 * step + 2], linear(params, "output", h), rtol=1e-4, atol=1e-5)
    (units,) = network.units
    assert (units.name, units.size, len(units.sources), len(units.sinks), units.carries) == ("memory", 5, 6, 4, ((),))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:arms.baseline. agent.network. gradients of this agent end at the current step")
@pytest.mark.parametrize(
    "network",
    [{"kind": "gated_memory", "width": 4, "units": 4}, {"kind": "linen_gru", "width": 4}],
    ids=lambda network: network["kind"],
)
def test_networks_with_memory_run_with_an_agent_that_has_memory(
    network: dict[str, Any], plugins: dict[str, str], tmp_path: Path
):
    document = {
        "stream": {"kind": "catch", "change": "none", "tasks": 1, "steps_per_task": 40},
        "agent": {"kind": "stream_q", "network": network},
        "interventions": [{"kind": "redo", "period": 10, "threshold": 0.5}],
        "monitors": ["dormant_units"],
        "monitor_every": 20,
        "probe_size": 16,
    }
    run = plasticity.run(document, tmp_path / "run")
    assert run.metrics["dormant_units/memory"].notna().any()


def test_the_step_is_the_sign_of_the_average(plugins: dict[str, str]):
    rule = member("optimizer")(learning_rate=0.1, momentum=0.5)
    params = {"w": jnp.zeros(2)}
    state = rule.init(params)
    for gradient, expected in (([1.0, -4.0], [-0.1, 0.1]), ([-3.0, 1.0], [0.1, 0.1])):  # m = -1.25 and -0.5
        updates, state = rule.update({"w": jnp.asarray(gradient)}, state, params)
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-6)
    assert rule.learning_rate(state) == pytest.approx(0.1)


def test_one_arm_of_the_bandit_pays_and_a_task_keeps_it(plugins: dict[str, str]):
    stream = member("stream")(bandit_arms=4, tasks=8, steps_per_task=5, envs=4).make(1)
    keys, paid = jax.random.split(jax.random.key(3), 1), []
    clock = type("Clock", (), {"step": jnp.int32(0), "step_in_visit": jnp.int32(0)})()
    for number, task in enumerate((0, 1, 2, 3, 4, 5, 0)):
        state, _ = stream.reset(keys, Visit(jnp.int32(number), jnp.int32(task)), jnp.int32(0))
        _, timestep = stream.step(keys, state, jnp.arange(4)[None], clock)
        assert timestep.reward.sum() == 1
        paid.append(int(timestep.reward.argmax()))
    assert paid[0] == paid[-1]
    assert len(set(paid)) > 1


def test_every_second_visit_shows_the_negative(plugins: dict[str, str]):
    plain = launch.registry().factory("streams", "catch")(change="none", tasks=2, steps_per_task=50)
    changed = member("transform")()(plain)
    assert len(changed.spec.tasks) == 2
    keys = jax.random.split(jax.random.key(0), 1)
    for number, sign in ((0, 1.0), (1, -1.0)):
        visit = Visit(jnp.int32(number), jnp.int32(number))
        _, shown = changed.make(1).reset(keys, visit, jnp.int32(0))
        _, original = plain.make(1).reset(keys, visit._replace(task=jnp.int32(0)), jnp.int32(0))
        np.testing.assert_array_equal(shown.observation, sign * original.observation)


def test_the_agent_learns_the_bandit(plugins: dict[str, str], tmp_path: Path):
    """With reward 1 for an arm and no next state, the greedy arm is found within a few hundred steps."""
    document = {
        "stream": {"kind": "moving_bandit", "bandit_arms": 3, "tasks": 1, "steps_per_task": 600},
        "agent": {"kind": "one_step_q", "network": {"kind": "mlp", "widths": [8]}, "discount": 0.0, "epsilon": 0.1},
    }
    run = plasticity.run(document, tmp_path / "run", overrides=["agent.optimizer.learning_rate=0.1", "seeds=2"])
    assert (results.visits(run)["performance_end"] > 0.8).all()  # the best epsilon-greedy policy gets 0.93
