"""Networks given as functions: what they need, what they may describe, and who refuses them for want of what."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import GRAPHS_ALONE, SMALL, SOME_SOON, agent, program, run, source
from method_cases import CASES, REFUSED
from test_takes_effect import differs, life

from plasticity.core.types import Activation, HiddenLayer, Network
from plasticity.engine.program import Monitoring
from plasticity.interventions import hooks
from plasticity.monitors import MONITORS
from plasticity.monitors.base import recording_writes
from plasticity.networks.build import build
from plasticity.networks.functions import Functions, layer_units
from plasticity.networks.presets import mlp

OBSERVATION = jax.ShapeDtypeStruct((3,), jnp.float32)
WIDTH = 6


def bare(observation: Any, outputs: int) -> Functions:
    """The functions of ``mlp`` with a hidden layer of 6 units, without a word about their layers."""
    whole = build(mlp(observation, outputs, widths=(WIDTH,)))

    def apply(params: Any, observations: Any) -> Any:
        return whole.apply(params, observations)[0], {}

    return Functions(observation, outputs, whole.init, apply)


def described(observation: Any, outputs: int) -> Functions:
    """The same functions with activations, modules and units."""
    whole = build(mlp(observation, outputs, widths=(WIDTH,)))
    return bare(observation, outputs)._replace(
        apply=lambda params, observations: whole.apply(params, observations)[:2],
        layers=("hidden_0",),
        hidden=(("hidden_0",),),
        output_layers=(("output",),),
        units=(layer_units("hidden_0", WIDTH, ("hidden_0",), ("output",)),),
    )


def with_memory(observation: Any, outputs: int) -> Functions:
    """``h <- h + sum(x)``, and every output is ``w h``."""

    def apply(params: Any, observations: Any, carry: Any) -> Any:
        after = carry + observations.reshape(len(observations), -1).sum(-1, keepdims=True)
        return jnp.tile(params["w"] * after, (1, outputs)), {}, after

    def init(key: Any) -> Any:
        return {"w": jax.random.normal(key, (1,))}

    return Functions(observation, outputs, init, apply, initial=lambda batch: jnp.zeros((batch, 1)))


# Settings of agents that the functions cannot satisfy at their defaults.
PLAIN: dict[str, dict[str, Any]] = {
    "ppo": {"policy_gain": None, "value_gain": None},
    "reinforce": {"policy_gain": None, "value_gain": None},
    "rainbow": {"dueling": False},
}


@pytest.mark.parametrize("name", SOME_SOON)
def test_every_agent_learns_the_same_with_the_functions_of_its_network(name: str) -> None:
    """Bit for bit those of the graph."""
    if name in GRAPHS_ALONE:
        with pytest.raises(ValueError, match=f"agent.kind: {name} needs a network given as a graph"):
            life(name, network=bare)
        return
    settings = PLAIN.get(name, {})
    ours, graph = (life(name, network=network, **settings) for network in (bare, SMALL["network"]))
    for a, b in zip(ours, graph, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_shared_trunk_splits_the_outputs() -> None:
    made = agent("ppo", source("ppo").spec, network=bare, trunk="shared", **PLAIN["ppo"])
    params = made.init(jax.random.key(0), None).learner.params
    assert params["output"]["kernel"].shape == (WIDTH, source("ppo").spec.actions + 1)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("ppo", {}, "agent.policy_gain: 0.01 needs a network given as a graph .*set it to null"),
        ("ppo", {"trunk": "shared", "policy_gain": None}, "agent.value_gain: 1 needs a network given as a graph"),
        ("rainbow", {}, "agent.dueling: true needs a network given as a graph .*set it to false"),
        ("rainbow", {"dueling": False, "noisy": True}, "agent.noisy: true needs a network given as a graph"),
    ],
)
def test_a_setting_that_changes_layers_is_refused(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        agent(name, source(name).spec, network=described, **settings)


GRAPH = "needs a network given as a graph \\(`NetworkSpec`\\); this one is given as `Functions`"
# What a method says of a network that describes nothing; the other methods work.
SAYS = {
    **dict.fromkeys(
        (
            "layer_norm",
            "rms_norm",
            "crelu",
            "deep_fourier",
            "leaky_relu",
            "smooth_leaky",
            "aid",
            "weight_norm",
            "spectral_norm",
            "plasticity_injection",
            "infer",
            "nap",
            "task_input",
            "task_heads",
            "modulation",
            "modulation-task",
        ),
        GRAPH,
    ),
    "upgd-units": "utility: units needs a network with hidden units",
    **dict.fromkeys(
        ("redo", "regrama", "cpr", "self_normalized_resets", "continual_backprop"), "needs a network with hidden units"
    ),
    "selective_weight_reinit": "needs a network with layers",
    "fire": "needs a network with layers",
    "fire-periodic": "needs a network with layers",
    "weight_clip": "needs a network with layers",
    "neuroplastic_expansion": "needs a network with layers",
    "neuroplastic_expansion-unreviewed": "needs a network with layers",
    "spectral_regularization": "needs a network with layers",
    "packnet": "changes nothing: these networks have no weights that tasks share",
    "parseval": "needs a network with a hidden layer",
    "pfo": "needs a network with a hidden layer",
    "effective_rank": "needs a network with a hidden layer",
}
REWRITERS = [case for case, said in SAYS.items() if said == GRAPH]


@functools.cache
def undisturbed() -> list[np.ndarray]:
    return life("classifier", network=bare)


@pytest.mark.parametrize("case", CASES)
def test_a_method_works_without_a_description_or_says_what_it_needs(case: str) -> None:
    label = f"interventions.{case}"
    method = hooks.labelled(label, CASES[case](), set())
    if case in SAYS or "classifier" in REFUSED.get(case, ()):
        with pytest.raises(ValueError, match=f"^{label}: .*{SAYS.get(case, '')}"):
            life("classifier", method, network=bare)
    else:
        assert differs(life("classifier", method, network=bare), undisturbed()), "accepted, and without effect"


@pytest.mark.parametrize("case", [case for case in CASES if case not in REWRITERS])
def test_a_described_network_gets_the_numbers_of_the_graph(case: str) -> None:
    if "classifier" in REFUSED.get(case, ()):
        pytest.skip("refused with any network")
    ours, graph = (life("classifier", CASES[case](), network=network) for network in (described, SMALL["network"]))
    for a, b in zip(ours, graph, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", REWRITERS)
def test_methods_that_rewrite_a_graph_refuse_a_described_network_too(case: str) -> None:
    with pytest.raises(ValueError, match=f"^interventions.{case}: {GRAPH}"):
        life("classifier", hooks.labelled(f"interventions.{case}", CASES[case]()), network=described)


def test_last_needs_an_output_layer_and_names_need_modules() -> None:
    for modules, said in (("last", "an output layer"), (["output"], "layers")):
        method = CASES["reset"].func(modules=modules)
        with pytest.raises(ValueError, match=f"modules: .*needs a network with {said}; this one has none"):
            life("classifier", method, network=bare)


def test_units_without_their_activation() -> None:
    """Enough for a method that looks at gradients, not for one that looks at activity."""

    def quiet(observation: Any, outputs: int) -> Functions:
        silent = layer_units("hidden_0", WIDTH, ("hidden_0",), ("output",), activation=False)
        return bare(observation, outputs)._replace(units=(silent,))

    assert differs(life("classifier", CASES["regrama"](), network=quiet), undisturbed())
    for case in ("redo", "continual_backprop"):
        with pytest.raises(ValueError, match="needs the activation of the layer hidden_0, which this network does not"):
            life("classifier", CASES[case](), network=quiet)


@pytest.mark.parametrize("case", ["weight_decay", "l2", "wasserstein_init"])
def test_kernels_of_a_network_without_matrices(case: str) -> None:
    def vectors(observation: Any, outputs: int) -> Functions:
        def apply(params: Any, observations: Any) -> Any:
            return jnp.broadcast_to(params["w"], (len(observations), outputs)), {}

        return Functions(observation, outputs, lambda key: {"w": jax.random.normal(key, (outputs,))}, apply)

    with pytest.raises(ValueError, match="which: kernels selects nothing; no parameter of this network has two axes"):
        life("classifier", CASES[case](), network=vectors)
    assert life("classifier", CASES[case].func(which="all"), network=vectors)


NEEDS_LAYERS = {
    "effective_rank", "srank", "approximate_rank", "feature_rank", "numerical_rank", "stable_rank",
    "participation_ratio", "feature_norm", "dormant_units", "dead_units", "constant_units", "saturated_units",
    "linearised_units", "activation_sparsity",
}  # fmt: skip
NEEDS_MODULES = {"weight_norm", "spectral_norm", "update_ratio", "effective_learning_rate"}
TINY = {"plasticity_probe": {"steps": 2, "targets": 1}, "capacity": {}, "warm_start_gap": {"steps": 2}}


@pytest.mark.parametrize("network", [bare, described])
def test_a_monitor_writes_nothing_without_what_it_measures(network: Any) -> None:
    """Traced only; the launcher refuses a monitor that writes nothing."""
    wrote: set[str] = set()
    for name, factory in MONITORS.items():
        sizes = {"k": 4} if name in ("gradient_covariance", "ntk") else TINY.get(name, {})
        monitor = recording_writes(name, factory(**sizes), wrote)
        planned = program("classifier", network=network)._replace(monitors=(Monitoring(monitor, 10, name),))
        started = run(planned)
        hyper, seeds, _ = started.inputs[0]
        jax.eval_shape(
            lambda carry, s=started, h=hyper, n=seeds: s.compiled.measure(h, n, carry, s.clock(), (0,)),
            started.carry_shape(),
        )
    missing = set(MONITORS) - wrote
    assert missing == (NEEDS_LAYERS | NEEDS_MODULES if network is bare else set())


# Memory.


def test_the_carry_is_reset_where_an_episode_starts() -> None:
    network = build(with_memory(OBSERVATION, 2))
    assert network.remembers
    ones = jnp.ones((2, 3))
    outputs, _, carry = network.apply(
        {"w": jnp.asarray([2.0])}, ones, jnp.asarray([[10.0], [10.0]]), jnp.array([False, True])
    )
    np.testing.assert_array_equal(carry, [[13.0], [3.0]])
    np.testing.assert_array_equal(outputs, [[26.0, 26.0], [6.0, 6.0]])


MEMORISING = [pytest.param(name, marks=pytest.mark.slow) for name in ("stream_ac", "stream_dqn", "pqn")]


@pytest.mark.parametrize("name", ["stream_q", "ppo", *MEMORISING])
def test_agents_with_memory_use_the_carry(name: str) -> None:
    memory, without = (life(name, network=network, **PLAIN.get(name, {})) for network in (with_memory, forgetful))
    assert differs(memory, without)


def forgetful(observation: Any, outputs: int) -> Functions:
    given = with_memory(observation, outputs)
    return given._replace(
        apply=lambda params, x: given.apply(params, x, jnp.zeros((len(x), 1)))[:2],
        initial=Functions._field_defaults["initial"],
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dqn", "agent.replay: single transitions are not allowed with a network that has memory"),
        ("classifier", "agent.network: has memory, which this agent does not use"),
    ],
)
def test_memory_is_refused_by_agents_without(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        agent(name, source(name).spec, network=with_memory)


# What does not fit.

ACTIVATION = Activation(jnp.ones((2, 4)), jnp.ones((2, 4)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outputs": 3}, r"outputs of shape \(2, 3\) for a batch of 2, got \(2, 4\)"),
        ({"init": lambda key: [jnp.ones(3)]}, "`init` must return nested dictionaries of arrays, got list"),
        ({"init": lambda key: {}}, "`init` returns no parameters"),
        ({"init": lambda key: {"n": jnp.arange(3)}}, r"`init` must return float arrays, got int32 at \['n'\]"),
        ({"apply": lambda params, x: jnp.ones((2, 4))}, "must return outputs and activations, got"),
        ({"apply": lambda params, x: (1.0, {})}, "must return an array of outputs, got float"),
        ({"apply": lambda params, x: (jnp.ones((2, 4)), {"a": x})}, r"dictionary of `Activation\(pre, post\)`"),
        ({"layers": ("hidden_1",)}, "layers: \"hidden_1\" is not allowed; .*hidden_0; did you mean `hidden_0`?"),
        ({"hidden": (("hiden_0",),)}, "hidden: \"hiden_0\" is not a module .*did you mean `hidden_0`?"),
        ({"hidden": (("hidden_0", "bias"),)}, "hidden: \"hidden_0/bias\" has no kernel"),
        ({"output_layers": (("out",),)}, "output_layers: \"out\" is not a module"),
        ({"norms": (("norm",),)}, "norms: \"norm\" is not a module"),
        (
            {"units": (layer_units("hidden_0", 5, ("hidden_0",), ("output",)),)},
            "units.hidden_0: 5 owners of 5 units do not fit \"hidden_0\", which has 6 entries",
        ),
        (
            {"units": (layer_units("hidden_0", 6, ("hidden_0",), ("output",), positions=2),)},
            "units.hidden_0: 12 owners of 6 units do not fit \"output\", which has 6 entries",
        ),
        (
            {"units": (layer_units("hidden_1", 6, ("hidden_0",), ("output",)),)},
            "units.hidden_1: \"hidden_1\" is not allowed; `apply` returns the activations of hidden_0",
        ),
        ({"units": (layer_units("hidden_0", 6, ("hidden_0",)),)}, "units.hidden_0: needs a source and a sink"),
        ({"units": 2 * (layer_units("hidden_0", 6, ("hidden_0",), ("output",)),)}, "two layers have this name"),
        (
            {"initial": lambda batch: jnp.zeros((batch, 1)), "apply": lambda p, x, carry: (jnp.ones((2, 4)), {})},
            "must return outputs, activations and the carry, got tuple of length 2",
        ),
        (
            {
                "initial": lambda batch: jnp.zeros((batch, 1)),
                "apply": lambda p, x, carry: (jnp.ones((2, 4)), {}, carry[:, 0]),
            },
            r"a carry like `initial`: float32\[2, 1\]; got float32\[2\]",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^agent.network: .*{said}"):
        build(described(OBSERVATION, 4)._replace(**changes))


def test_layers_by_name_are_a_chain() -> None:
    def names(*layers: Any) -> Network:
        def apply(params: Any, x: Any) -> Any:
            return x[:, :1] * params["w"], dict.fromkeys("abc", ACTIVATION)

        return build(Functions(OBSERVATION, 1, lambda key: {"w": jnp.ones(1)}, apply, layers=layers))

    assert [layer.distance for layer in names("a", "b", "c").layers] == [3, 2, 1]
    assert names(HiddenLayer("a", 1), HiddenLayer("b", 1)).layers == (HiddenLayer("a", 1), HiddenLayer("b", 1))


def test_units_of_a_flattened_map() -> None:
    wiring = layer_units("conv", 2, ("conv",), ("dense",), positions=3)
    np.testing.assert_array_equal(wiring.sinks[0].owner, [0, 1, 0, 1, 0, 1])


def test_every_method_that_rewrites_a_graph_is_listed() -> None:
    assert {case for case in CASES if "network" in hooks.own_fields(CASES[case]())} == set(REWRITERS)
