"""Recurrent networks given as functions: a unit's reset reaches its gates, its readers and its place in the carry."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import clock_at
from test_takes_effect import differs, life

from plasticity.core.types import Activation, Context, Learner, Sink, Source, Units
from plasticity.interventions import continual_backprop, cpr, redo, regrama
from plasticity.networks.build import build
from plasticity.networks.functions import Functions, layer_units
from plasticity.networks.graph import Node
from plasticity.networks.operations import Recurrent
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import sgd

KEY = jax.random.key(0)
UNITS, INPUTS = 3, 4
OBSERVATION = jax.ShapeDtypeStruct((INPUTS,), jnp.float32)
GATES = ("reset", "update", "new")


def graph(observation: Any, outputs: int) -> NetworkSpec:
    """The built-in GRU, right behind the observation."""
    return NetworkSpec(observation.shape, outputs, body=(Node("memory", Recurrent("gru", UNITS)),))


def linen(observation: Any, outputs: int) -> Functions:
    """``flax.linen.GRUCell``, which has the equations of the built-in cell, with its initial parameters."""
    whole, cell = build(graph(observation, outputs)), nn.GRUCell(UNITS)
    names = {"ir": "input_reset", "iz": "input_update", "in": "input_new"}
    names |= {"hr": "state_reset", "hz": "state_update", "hn": "state_new"}

    def init(key: Any) -> Any:
        params = whole.init(key)
        return {"cell": {name: params["memory"][ours] for name, ours in names.items()}, "output": params["output"]}

    def apply(params: Any, x: Any, carry: Any) -> Any:
        carry, h = cell.apply({"params": params["cell"]}, carry, x.reshape(len(x), -1))
        return h @ params["output"]["kernel"] + params["output"]["bias"], {"memory": Activation(h, h)}, carry

    writers, readers = [("cell", name) for name in names], [("cell", name) for name in ("hr", "hz", "hn")]
    return Functions(
        observation,
        outputs,
        init,
        apply,
        layers=("memory",),
        hidden=tuple(writers),
        output_layers=(("output",),),
        units=(layer_units("memory", UNITS, writers, *readers, ("output",), carries=[()]),),
        initial=lambda batch: jnp.zeros((batch, UNITS)),
    )


def fused(observation: Any, outputs: int) -> Functions:
    """The same cell written by hand: one kernel for the three gates, and a carry that also counts the steps."""
    whole = build(graph(observation, outputs))

    def joined(parts: Any, kind: str, name: str) -> Any:
        return jnp.concatenate([parts[f"{kind}_{gate}"][name] for gate in GATES], -1)

    def init(key: Any) -> Any:
        params = whole.init(key)
        parts = params["memory"]
        enter = {name: joined(parts, "input", name) for name in ("kernel", "bias")}
        state = {"kernel": joined(parts, "state", "kernel")}
        return {"enter": enter, "state": state, "inner": {"bias": parts["state_new"]["bias"]}, "out": params["output"]}

    def apply(params: Any, x: Any, carry: Any) -> Any:
        h = carry["h"]
        z = x.reshape(len(x), -1) @ params["enter"]["kernel"] + params["enter"]["bias"]
        reset, update, new = jnp.split(z, 3, -1)
        s_reset, s_update, s_new = jnp.split(h @ params["state"]["kernel"], 3, -1)
        reset, update = jax.nn.sigmoid(reset + s_reset), jax.nn.sigmoid(update + s_update)
        new = jnp.tanh(new + reset * (s_new + params["inner"]["bias"]))
        h = (1 - update) * new + update * h
        outputs = h @ params["out"]["kernel"] + params["out"]["bias"]
        return outputs, {"memory": Activation(h, h)}, {"h": h, "steps": carry["steps"] + 1}

    gates = np.tile(np.arange(UNITS), 3)
    sources = [Source(("enter",), gates), Source(("state",), gates), ("inner",)]
    return Functions(
        observation,
        outputs,
        init,
        apply,
        layers=("memory",),
        hidden=(("enter",), ("state",)),
        output_layers=(("out",),),
        units=(layer_units("memory", UNITS, sources, ("state",), ("out",), carries=[("h",)]),),
        initial=lambda batch: {"h": jnp.zeros((batch, UNITS)), "steps": jnp.zeros(batch, jnp.int32)},
    )


def outcome(method: Any, network: Any) -> tuple[Any, Any, Learner]:
    """One step of a method on 2 envs: parameters 1, fresh ones 7, a carry of 5; unit 1 is dormant."""
    built, rule = build(network(OBSERVATION, 2)), sgd(momentum=0.9)
    shapes = jax.eval_shape(built.init, KEY)
    ones, fresh = (jax.tree.map(lambda x, n=n: jnp.full(x.shape, n), shapes) for n in (1.0, 7.0))
    carry = jax.tree.map(lambda x: jnp.full_like(x, 5), built.initial(2))
    slots = jax.tree.map(lambda x: jnp.full_like(x, 2), rule.init(ones))
    learner = Learner(ones, (), slots, carry=carry)
    h = jnp.asarray([[1.0, 0, -2], [3, 0, 0]])
    context = Context(
        clock_at(0),
        (),
        {"memory": Activation(h, h)},
        ones,
        built,
        rule,
        lambda key: learner._replace(params=fresh),
        lambda params: jnp.zeros(()),
        tuple,
    )
    _, after = jax.jit(lambda: method.step(KEY, method.init(KEY, ones, built), learner, context))()
    return built, after.params, after


RESETS = {
    "redo": redo(threshold=0.1, period=1),
    "continual_backprop": continual_backprop(replacement_rate=0.334, maturity_period=0),
}
COLUMN, ROW = np.array([1, 7, 1]), np.array([1, 0, 1])
STATE = np.array([[1, 7, 1], [0, 0, 0], [1, 7, 1]])  # of a kernel from the units to the units: the row wins


@pytest.mark.parametrize("method", RESETS)
def test_a_reset_unit_of_a_linen_cell(method: str) -> None:
    _, params, after = outcome(RESETS[method], linen)
    for gate in ("ir", "iz", "in"):
        np.testing.assert_array_equal(params["cell"][gate]["kernel"], np.tile(COLUMN, (INPUTS, 1)))
        np.testing.assert_array_equal(params["cell"][gate]["bias"], COLUMN)
    for gate in ("hr", "hz", "hn"):
        np.testing.assert_array_equal(params["cell"][gate]["kernel"], STATE)
    np.testing.assert_array_equal(params["cell"]["hn"]["bias"], COLUMN)
    np.testing.assert_array_equal(params["output"]["kernel"], np.tile(ROW, (2, 1)).T)
    np.testing.assert_array_equal(params["output"]["bias"], [1, 1])
    np.testing.assert_array_equal(after.carry, [[5, 0, 5], [5, 0, 5]])


@pytest.mark.parametrize("method", RESETS)
def test_a_reset_unit_of_a_cell_with_one_kernel_for_all_gates(method: str) -> None:
    _, params, after = outcome(RESETS[method], fused)
    np.testing.assert_array_equal(params["enter"]["kernel"], np.tile(COLUMN, (INPUTS, 3)))
    np.testing.assert_array_equal(params["enter"]["bias"], np.tile(COLUMN, 3))
    np.testing.assert_array_equal(params["state"]["kernel"], np.tile(STATE, 3))
    np.testing.assert_array_equal(params["inner"]["bias"], COLUMN)
    np.testing.assert_array_equal(params["out"]["kernel"], np.tile(ROW, (2, 1)).T)
    np.testing.assert_array_equal(after.carry["h"], [[5, 0, 5], [5, 0, 5]])
    np.testing.assert_array_equal(after.carry["steps"], [5, 5])
    parts = jax.tree.leaves(after.opt_state, is_leaf=lambda x: isinstance(x, dict))
    (momentum,) = (part for part in parts if isinstance(part, dict))
    np.testing.assert_array_equal(momentum["enter"]["bias"], np.tile(2 * ROW, 3))


METHODS = {
    "redo": redo(threshold=0.9, period=3),
    "regrama": regrama(threshold=0.9, period=3),
    "cpr": cpr(period=3, strength=0.5),
    "continual_backprop": continual_backprop(
        replacement_rate=0.2, maturity_period=2, utility="adaptable_contribution", decay=0.5
    ),
}


@functools.cache
def lived(network: Any, method: str = "") -> np.ndarray:
    """All parameters and metrics of an agent, in any order: the functions pack the parameters differently."""
    methods = [METHODS[method]] if method else []
    return np.sort(np.concatenate([leaf.ravel() for leaf in life("stream_q", *methods, network=network)]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", [pytest.param(linen, marks=pytest.mark.slow), fused])
def test_a_method_gets_the_numbers_of_the_graph(network: Any, method: str) -> None:
    ours = lived(network, method)
    np.testing.assert_allclose(ours, lived(graph, method), rtol=1e-4, atol=1e-5)
    assert differs([ours], [lived(network)])


SINKS = (("state",), ("out",))


def wired(**changes: Any) -> Any:
    (units,) = fused(OBSERVATION, 2).units
    return fused(OBSERVATION, 2)._replace(units=(units._replace(**changes),))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"carries": (("g",),)}, 'units.memory.carries: "g" is not a part of the carry'),
        ({"carries": (("step",),)}, '"step" is not a part of the carry; did you mean `steps`?'),
        ({"carries": (("steps",),)}, r"units.memory.carries: 3 units do not fit the last axis of \[2\]"),
        ({"carries": ("h",)}, r'units.memory.carries: "h" is not allowed; a path is a tuple of names, such as'),
        ({"sources": (("enter",),)}, r'units.memory.sources: \["enter"\] is not allowed; must be a `Source`'),
        ({"sinks": (Source(("out",), np.arange(3)),)}, "units.memory.sinks: .* is not allowed; must be a `Sink`"),
        ({"sources": (Source(("enter",), np.arange(9)),)}, 'units.memory: 9 owners of 3 units do not fit "enter"'),
        ({"sources": (Source(("enter",), np.repeat([0, 1, 2], [2, 3, 4])),)}, "each unit must own equally many"),
        ({"sources": (Source(("enter",), np.zeros((3, 3), int)),)}, 'owners for "enter" must be a NumPy array'),
        ({"sources": (Source(("enter",), [0, 1, 2] * 3),)}, 'owners for "enter" must be a NumPy array'),
        ({"sinks": (Sink(("inner",), np.arange(3)),)}, 'units.memory: "inner" has no kernel'),
        ({"activations": ("memori",)}, 'units.memory: "memori" is not allowed; .*did you mean `memory`?'),
        ({"copies": 2}, "units.memory: 3 units do not fit the 3 features of the activation memory"),
    ],
)
def test_wiring_that_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^agent.network: .*{said}") as caught:
        build(wired(**changes))
    assert "\n" not in str(caught.value)


def test_units_must_be_units_and_carries_need_memory() -> None:
    given = fused(OBSERVATION, 2)
    with pytest.raises(ValueError, match=r'units: \["memory", 3\] is not allowed; must be `Units` or made by'):
        build(given._replace(units=(("memory", 3),)))
    forgetful = given._replace(
        apply=lambda params, x: given.apply(params, x, given.initial(len(x)))[:2],
        initial=Functions._field_defaults["initial"],
    )
    assert not build(forgetful._replace(units=())).remembers
    whole = layer_units("memory", UNITS, given.units[0].sources, *SINKS, carries=[()])
    with pytest.raises(ValueError, match=r"units.memory.carries: \[\] is not allowed; the carry has no arrays there"):
        build(forgetful._replace(units=(whole,)))


def test_the_short_form_and_the_whole_one() -> None:
    short = layer_units("a", 2, ("x",), ("y",), positions=2)
    assert (short.path, short.activations, short.carries, short.copies, short.stream) == (("x",), ("a",), (), 1, False)
    np.testing.assert_array_equal(short.sinks[0].owner, [0, 1, 0, 1])
    sink = Sink(("z",), np.array([1, 0, -1]), direct=False)
    several = layer_units("a", 2, [("x",), ("w", "v")], ("y",), sink, activation=["b", "c"], copies=2, stream=True)
    assert [source.path for source in several.sources] == [("x",), ("w", "v")]
    assert several.sinks[1] is sink
    assert (several.activations, several.copies, several.stream) == (("b", "c"), 2, True)
    assert isinstance(several, Units)
