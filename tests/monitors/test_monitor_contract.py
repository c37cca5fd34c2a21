"""The contract that every monitor satisfies."""

import inspect
import typing
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.config.fields import metadata_of
from plasticity.monitors import MONITORS, Monitor, compose
from plasticity.monitors.base import checked_monitor, merged_metrics
from plasticity.networks.build import build
from plasticity.networks.spec import Convolution, Head, NetworkSpec
from plasticity.optim.optimizers import adam

SPEC = NetworkSpec((5,), 3, widths=(6, 4), activation="tanh", normalisation="layer")
LANES = 3
COMPANIONS = {
    "hessian_top_eigenvalue": {"hessian_bottom_eigenvalue"},
    "hessian_density": {"hessian_epsilon_rank"},
    "gradient_norm": {"gradient_norm_l1"},
}

SMALL = {  # settings for batches of a few rows and little time
    "gradient_covariance": {"k": 4},
    "ntk": {"k": 4},
    # a sine of frequency 1e5 turns the rounding of a vmap into other targets
    "plasticity_probe": {"steps": 5, "targets": 2, "frequency": 10.0},
    "warm_start_gap": {"steps": 5},
}


def of_monitor(name, metrics):
    """What this monitor wrote."""
    mine = {name, *COMPANIONS.get(name, ())}
    return {metric: value for metric, value in metrics.items() if metric in mine or metric.startswith(f"{name}/")}


def seen_one(probe):
    """The probe with an optimizer that remembers one gradient."""
    learner = probe.learner
    gradient = jax.grad(probe.loss)(learner.params)
    remembered = probe.optimizer.update(gradient, learner.opt_state, learner.params)[1]
    return probe._replace(learner=learner._replace(opt_state=remembered))


class Program:
    """All monitors on a real network as one jitted program, which counts how often it was traced."""

    def __init__(self, probes, spec):
        self.traces = 0
        self.monitor = compose(*[factory(**SMALL.get(name, {})) for name, factory in MONITORS.items()])
        self.one = jax.jit(self.measure)
        self.many = jax.jit(jax.vmap(self.measure))
        # logits, so that every monitor has metrics; a large eps, for steps that are smooth in the gradient
        rule = adam(learning_rate=0.25, eps=1.0)
        blank = partial(probes.of_network, spec, optimizer=rule)
        self.probe = lambda params, inputs: seen_one(blank(params, inputs)._replace(meaning="logits"))

    def measure(self, key, initial, params, inputs):
        self.traces += 1
        return self.monitor.measure(key, self.monitor.init(initial), self.probe(params, inputs))


@pytest.fixture(scope="module")
def program(probes):
    return Program(probes, SPEC)


@pytest.fixture(scope="module")
def arguments():
    """key, initial parameters, parameters, inputs; lanes first."""
    keys = jax.random.split(jax.random.key(0), LANES)
    params = jax.jit(jax.vmap(build(SPEC).init))(keys)
    initial = jax.tree.map(lambda leaf: leaf + 0.1, params)
    return keys, initial, params, jax.random.normal(jax.random.key(1), (LANES, 7, 5))


@pytest.fixture(scope="module")
def alone(program, arguments):
    """The metrics of each lane, measured alone."""
    return [program.one(*lane(arguments, i))[1] for i in range(LANES)]


@pytest.fixture(scope="module")
def together(program, arguments):
    return program.many(*arguments)[1]


def lane(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def test_every_metric_belongs_to_one_monitor_and_is_written_once(alone):
    """``compose`` refuses doubles."""
    owners = {metric: [name for name in MONITORS if metric in of_monitor(name, alone[0])] for metric in alone[0]}
    assert all(len(names) == 1 for names in owners.values()), owners
    assert set(MONITORS) <= set(alone[0])


def test_metrics_lie_in_the_ranges_that_their_monitors_declare(program, alone):
    ranges = program.monitor.ranges
    assert {"dormant_units", "effective_rank", "weight_norm", "gradient_norm_l1", "policy_change"} <= set(ranges)
    for metrics in alone:
        for name, (low, high) in ranges.items():
            assert np.isnan(metrics[name]) or low <= metrics[name] <= high, name


def test_a_path_in_front_of_its_errors_leaves_a_monitor_its_ranges():
    monitor = MONITORS["dead_units"]()
    assert (
        checked_monitor("monitors.dead_units", "dead_units", monitor).ranges
        == monitor.ranges
        == {"dead_units": (0.0, 1.0)}
    )


def test_one_trace_for_all_calls(program, alone, arguments):
    key, initial, params, inputs = lane(arguments, 1)
    before = program.traces
    program.one(jax.random.fold_in(key, 1), params, initial, 2 * inputs)
    assert program.traces == before


def test_the_same_key_gives_the_same_bits(program, alone, arguments):
    again = program.one(*lane(arguments, 0))[1]
    assert {name: float(value) for name, value in again.items()} == {k: float(v) for k, v in alone[0].items()}


@pytest.mark.parametrize("name", MONITORS)
def test_finite_float32_scalars(name, alone):
    for value in of_monitor(name, alone[0]).values():
        assert (value.shape, value.dtype) == ((), jnp.float32)
        assert np.isfinite(value)


@pytest.mark.slow
@pytest.mark.parametrize("name", MONITORS)
def test_a_lane_of_many_equals_the_lane_alone(name, alone, together):
    for metric, value in of_monitor(name, together).items():
        np.testing.assert_allclose(value, [found[metric] for found in alone], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", MONITORS)
def test_finite_on_a_silent_network(name, program, arguments):
    """All activations, the gradient of the hidden layers and most of the Hessian are zero."""
    key, initial, params, inputs = lane(arguments, 0)
    found = of_monitor(name, program.one(key, initial, params, jnp.zeros_like(inputs))[1])
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize("name", MONITORS)
def test_a_diverged_learner_is_seen(name, program, arguments):
    """A comparison with NaN is False, so a diverged lane could report 0 dormant units."""
    key, initial, params, inputs = lane(arguments, 0)
    found = program.one(key, initial, jax.tree.map(lambda leaf: leaf * jnp.nan, params), inputs)[1]
    assert not np.isfinite(list(of_monitor(name, found).values())).any()


def test_the_state_can_be_carried(program, arguments):
    key, initial, params, inputs = lane(arguments, 0)
    state = jax.eval_shape(program.monitor.init, initial)
    after = jax.eval_shape(program.measure, key, initial, params, inputs)[0]
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.leaves(after) == jax.tree.leaves(state)


def test_a_linear_network(probes):
    """What is defined on hidden layers is absent; the rest is there."""
    spec = NetworkSpec((5,), 3)
    params = probes.initial(spec)
    found = Program(probes, spec).one(jax.random.key(0), params, params, jnp.ones((4, 5)))[1]
    absent = {name for name in MONITORS if not of_monitor(name, found)}
    ranks = {"effective_rank", "srank", "approximate_rank", "feature_rank", "numerical_rank", "stable_rank"}
    units = {"dormant_units", "dead_units", "constant_units", "saturated_units", "linearised_units"}
    others = {"participation_ratio", "feature_norm", "activation_sparsity", "effective_learning_rate"}
    assert absent == ranks | units | others
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize("name", MONITORS)
def test_the_factory_is_a_documented_schema(name):
    factory = MONITORS[name]
    parameters = inspect.signature(factory).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)
    hints = typing.get_type_hints(factory, include_extras=True)
    assert hints.pop("return") is Monitor
    assert set(hints) == {p.name for p in parameters}
    assert metadata_of(factory).paper or metadata_of(factory).note
    assert factory.__name__ == name


def test_thresholds_can_be_swept_in_one_program(probes):
    """Traced settings arrive as tracers."""
    probe = probes.written({"hidden_0": jnp.diag(jnp.asarray([4.0, 2.0, 1.0, 1.0]))})
    values = jnp.asarray([0.0, 0.6, 1.1, 3.0])
    sweeps = {
        ("dormant_units", "tau"): [0, 0.5, 0.75, 1],  # scores 2, 1, 0.5, 0.5
        ("constant_units", "threshold"): [0, 0.5, 0.75, 1],  # deviations sqrt(3)/4 of 4, 2, 1, 1
        ("feature_rank", "epsilon"): [4, 2, 1, 0],  # singular values 4, 2, 1, 1 over sqrt(4)
    }
    for (name, setting), expected in sweeps.items():

        def measure(value, name=name, setting=setting):
            return MONITORS[name](**{setting: value}).measure(jax.random.key(0), (), probe)[1][name]

        np.testing.assert_allclose(jax.jit(jax.vmap(measure))(values), expected)
    for name in ("srank", "approximate_rank"):

        def measured(value, name=name):
            return MONITORS[name](delta=value).measure(jax.random.key(0), (), probe)[1][name]

        expected = {"srank": [4, 2, 1], "approximate_rank": [4, 1, 1]}[name]  # sums 4 6 7 8; 16 20 21 22
        np.testing.assert_allclose(jax.jit(jax.vmap(measured))(jnp.asarray([0.0, 0.3, 0.6])), expected)


KINDS = {
    "no hidden layer": NetworkSpec((5,), 3),
    "convolution": NetworkSpec((6, 6, 2), 3, (Convolution(4, 3),), (6,)),
    "convolution alone": NetworkSpec((6, 6, 2), 3, (Convolution(4, 3), Convolution(4, 3))),
    "heads": NetworkSpec((5,), 3, (), (6,), heads=(Head("a", 1, (4,)), Head("b", 2))),
    "heads without a trunk": NetworkSpec((5,), 3, heads=(Head("a", 1, (4,)), Head("b", 2, (4,)))),
    "crelu": NetworkSpec((5,), 3, (), (6, 4), "crelu"),
    "injected": NetworkSpec((5,), 3, (), (6, 4), injected=1, auxiliary=2),
}
NEEDS_HIDDEN = [
    "effective_rank",
    "srank",
    "approximate_rank",
    "feature_rank",
    "numerical_rank",
    "stable_rank",
    "participation_ratio",
    "feature_norm",
    "dormant_units",
    "dead_units",
    "constant_units",
    "saturated_units",
    "linearised_units",
    "activation_sparsity",
    "effective_learning_rate",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_monitor_works_on_every_kind_of_network_or_says_why_not(probes, kind):
    """Traced only. A monitor of hidden layers writes nothing if there are none; the launcher reports this."""
    spec = KINDS[kind]
    params = probes.initial(spec)
    probe = probes.of_network(spec, params, jnp.ones((7, *spec.observation)), optimizer=adam())._replace(
        meaning="logits"
    )
    for name, factory in MONITORS.items():
        monitor = checked_monitor(f"monitors.{name}", name, factory(**SMALL.get(name, {})))
        measure = partial(monitor.measure, jax.random.key(0), monitor.init(params), probe)
        try:
            found = jax.eval_shape(measure)[1]
        except ValueError as error:
            pytest.fail(f"{name}: {error}")
        assert bool(found) != (kind == "no hidden layer" and name in NEEDS_HIDDEN), name


def test_two_monitors_that_write_one_metric_are_both_named():
    found = {"a": jnp.ones(()), "b": jnp.ones(())}
    assert set(merged_metrics([("monitors.x", {"a": found["a"]}), ("monitors.y", {"b": found["b"]})])) == {"a", "b"}
    with pytest.raises(ValueError, match=r"^monitors.x and monitors.y both write the metric `a`; keep one"):
        merged_metrics([("monitors.x", {"a": found["a"]}), ("monitors.y", found)])


def returning(made: Any) -> Any:
    return lambda key, state, probe: made


def test_what_is_no_mapping_of_numbers_is_refused():
    wrong: tuple[Any, ...] = ((), {"a": 1.0}, ((), {"a": jnp.ones(2)}), ((), {"a": "much"}), ((), {1: 1.0}))
    for made in wrong:
        monitor = checked_monitor("monitors.odd", "odd", Monitor(returning(made)))
        with pytest.raises(ValueError, match=r"^monitors.odd: "):
            monitor.measure(jax.random.key(0), (), None)
