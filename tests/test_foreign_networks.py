"""Networks of other packages that are wrong or do not suit the agent or the method: one line and exit code 2."""

import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from plasticity.cli import main

GRAPH = """
from plasticity.networks.graph import Node
from plasticity.networks.operations import Convolution, Dense, Recurrent, Sum
from plasticity.networks.spec import NetworkSpec
def odd(observation, outputs):
    return NetworkSpec(observation.shape, outputs, body=({}))
"""
FUNCTIONS = """
import math
import jax
from plasticity.networks.functions import Functions
def odd(observation, outputs):
    def init(key):
        return {{"w": jax.random.normal(key, (math.prod(observation.shape), {outputs}))}}
    def apply(params, x):
        return x.reshape(len(x), -1) @ params["w"], {{}}
    return Functions(observation, outputs, init, apply)
"""
CLASSIFIER = {"kind": "classifier", "network": "odd"}
CATCH = {"kind": "catch", "change": "none", "tasks": 1, "steps_per_task": 20}


def said(monkeypatch: pytest.MonkeyPatch, capsys: Any, folder: Path, **changes: Any) -> str:
    """What ``plasticity run`` prints to stderr; it exits with code 2."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(tiny.document(**changes)))
    monkeypatch.setattr(sys, "argv", ["plasticity", "run", str(config), "--out", str(folder / "run")])
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == 2
    assert not (folder / "run").exists()
    (line,) = capsys.readouterr().err.splitlines()
    return str(line)


def nodes(*written: str) -> str:
    return GRAPH.format("".join(f"{each}, " for each in written))


ODD = "network `odd` (odd-one 1.0): ValueError: "


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nodes("Node('a', Dense(4), ('b',))", "Node('b', Dense(4), ('a',))"),
            ODD + "nodes: the inputs form a cycle: a <- b <- a",
        ),
        (
            nodes("Node('a', Dense(4))", "Node('b', Dense(5))", "Node('c', Sum(), ('a', 'b'))"),
            ODD + "node c: a sum needs inputs of one shape, got (4,) and (5,)",
        ),
        (
            nodes("Node('a', Convolution(4, 3))"),
            ODD + "node a: a convolution needs an input with 3 axes, got (4,)",
        ),
        (
            nodes("Node('encoder', Dense(4))", "Node('b', Dense(4), ('encodr',))"),
            ODD + 'nodes.b.inputs: "encodr" is not a node; did you mean `encoder`?',
        ),
        (
            nodes("Node('a', Dense(4))", "Node('a', Dense(4))"),
            ODD + 'nodes: "a" is not allowed; two nodes have this name',
        ),
        (
            nodes("Node('a', Recurrent('gru', 4))"),
            "arms.baseline: agent.network: has memory, which this agent does not use; choose a network without",
        ),
        (
            FUNCTIONS.format(outputs=5),
            "arms.baseline: agent.network: `apply` must return outputs of shape (2, 3) for a batch of 2, got (2, 5)",
        ),
        (
            FUNCTIONS.format(outputs="1 / 0"),
            "network `odd` (odd-one 1.0): `init` fails: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_wrong_network(
    plugin: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    tmp_path: Path,
    module: str,
    message: str,
) -> None:
    plugin("networks", module)
    assert said(monkeypatch, capsys, tmp_path, agent=CLASSIFIER) == message


def test_a_sweep_over_a_network_that_fails_names_the_value(
    plugin: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    module = GRAPH.replace("outputs):", "outputs, *, units: int = 4):").format("Node('a', Convolution(units, 3)), ")
    plugin("networks", module)
    found = said(monkeypatch, capsys, tmp_path, agent=CLASSIFIER, sweep={"agent.network.units": [4, 5]})
    assert found.startswith(f"arms.baseline (agent.network.units=4): {ODD}node a: a convolution needs")


FORM = "needs a network given as a graph (`NetworkSpec`); this one is given as `Functions`"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"interventions": ["redo"]},
            "arms.baseline: interventions.redo: redo needs a network with hidden units; this one has none",
        ),
        ({"interventions": ["layer_norm"]}, f"arms.baseline: interventions.layer_norm: {FORM}"),
        (
            {"interventions": [{"kind": "reset", "modules": "last"}], "task_aware": True},
            'arms.baseline: interventions.reset: modules: "last" needs a network with an output layer; this one has '
            "none",
        ),
        (
            {"monitors": ["dormant_units"]},
            "monitors.dormant_units writes nothing for this network and agent: what it measures, such as hidden "
            "layers, does not exist; remove it",
        ),
        (
            {"stream": CATCH, "agent": {"kind": "rainbow", "network": "odd"}},
            f"arms.baseline: agent.dueling: true {FORM} (set it to false)",
        ),
        (
            {"stream": CATCH, "agent": {"kind": "ppo", "network": "odd", "rollout_length": 20}},
            f"arms.baseline: agent.policy_gain: 0.01 {FORM} (set it to null)",
        ),
    ],
)
def test_what_does_not_work_with_functions_that_describe_nothing(
    plugin: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    plugin("networks", FUNCTIONS.format(outputs="outputs"))
    found = said(monkeypatch, capsys, tmp_path, **({"agent": CLASSIFIER, "monitors": []} | changes))
    assert found == message
