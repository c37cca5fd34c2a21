"""Plug-ins that fail when their member is built or used; the errors begin with the plug-in's name."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from plasticity.cli import main
from plasticity.core.errors import UserError
from plasticity.runs import launch

FAMILIES = {family: family.removesuffix("s") for family in launch.BUILT_IN}
# Where a config names the member `odd` of each family.
NAMED: dict[str, dict[str, Any]] = {
    "agents": {"agent": "odd"},
    "streams": {"stream": "odd"},
    "transforms": {"transforms": ["odd"]},
    "interventions": {"interventions": ["odd"]},
    "monitors": {"monitors": ["odd"]},
    "networks": {"agent": {"kind": "classifier", "network": "odd"}},
    "activations": {"agent": {"kind": "classifier", "network": {"kind": "mlp", "activation": "odd"}}},
    "optimizers": {"agent": {"kind": "classifier", "network": "mlp", "optimizer": "odd"}},
    "schedules": {"agent": {"kind": "classifier", "network": "mlp", "optimizer": {"kind": "adam", "schedule": "odd"}}},
    "replays": {"stream": "catch", "agent": {**tiny.DQN["agent"], "replay": "odd"}},
}


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        launch.plan(tiny.experiment(**changes))
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('lost')", "KeyError: 'lost'"),
        ("raise ValueError('one\\n\\n\\n\\nfive')", "ValueError: one five"),
        ("import sys; sys.exit(1)", "SystemExit: 1"),
        ("return 3", "must return an? [A-Z][A-Za-z]+( or a Functions)?; it returns an int"),
        ("return None", "must return an? [A-Z][A-Za-z]+( or a Functions)?; it returns nothing"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_factory_that_fails_or_returns_something_else(plugin: Any, family: str, body: str, said: str) -> None:
    plugin(family, f"def odd(*args):\n    {body}\n")
    assert launch.broken_plugins() == ()
    message = refusal(**NAMED[family])
    assert message.startswith(f"{FAMILIES[family]} `odd` (odd-one 1.0)"), message
    assert re.search(said, message), message
    assert launch.plan(tiny.experiment()).jobs  # what does not name it


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "must map a StreamFactory to another; it returns an int"),
        ("raise ValueError('no')", "fails when it is applied: ValueError: no"),
    ],
)
def test_a_transform_that_cannot_be_applied_is_named(plugin: Any, body: str, said: str) -> None:
    plugin("transforms", f"def odd():\n    def apply(source):\n        {body}\n    return apply\n")
    assert refusal(**NAMED["transforms"]) == f"transform `odd` (odd-one 1.0) {said}".replace(") fails", "): fails")


IN_A_TRACE = {
    "interventions": "from plasticity.interventions.base import Intervention\n"
    "def odd():\n    return Intervention(step=lambda key, state, learner, context: 1 / 0)\n",
    "monitors": "from plasticity.monitors import Monitor\n"
    "def odd():\n    return Monitor(lambda key, state, probe: 1 / 0)\n",
    "optimizers": "import optax\n"
    "def odd():\n    return optax.GradientTransformation(lambda params: (), lambda g, s, p=None: 1 / 0)\n",
    "agents": "from plasticity.agents import AGENTS\n"
    "def odd(spec, intervention):\n"
    "    from plasticity.networks.presets import mlp\n    from plasticity.optim.optimizers import sgd\n"
    "    made = AGENTS['classifier'](spec, intervention, network=mlp, optimizer=sgd)\n"
    "    return made._replace(learn=lambda *args: 1 / 0)\n",
    "streams": "from plasticity.envs import STREAMS\n"
    "def odd():\n    made = STREAMS['relabelled'](inputs='gaussian', samples=8, dimensions=3, tasks=2)\n"
    "    def make(lanes):\n        return made.make(lanes)._replace(step=lambda *args: 1 / 0)\n"
    "    return made._replace(make=make)\n",
}


@pytest.mark.parametrize("family", IN_A_TRACE)
def test_an_error_inside_a_trace_names_member_and_package(plugin: Any, family: str) -> None:
    plugin(family, IN_A_TRACE[family])
    message = refusal(**NAMED[family])
    assert message.startswith(f"{FAMILIES[family]} `odd` (odd-one 1.0): `"), message
    assert message.endswith("fails: ZeroDivisionError: division by zero"), message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("l._replace(params=3)", "a tree of another structure"),
        (
            "l._replace(params=jax.tree.map(lambda x: x.astype('float16'), l.params))",
            r"float16\[\d+\] for float32\[\d+\] at",
        ),
    ],
)
def test_a_step_that_returns_another_learner_is_named(plugin: Any, change: str, said: str) -> None:
    plugin(
        "interventions",
        "import jax\n"
        "from plasticity.interventions.base import Intervention\n"
        f"def odd():\n    return Intervention(step=lambda k, s, l, c: (s, {change}))\n",
    )
    start = r"intervention `odd` \(odd-one 1.0\): `step` fails: TypeError: returns "
    assert re.match(start + said, refusal(**NAMED["interventions"]))


def test_the_command_line_names_a_broken_plug_in_once(
    plugin: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("interventions", "import sys\nsys.exit(5)\n")
    monkeypatch.setattr(sys, "argv", ["plasticity", "list"])
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code in (0, None)
    told = capsys.readouterr()
    assert told.err.count("plug-in `odd`") == 1
    assert "weight_decay" in told.out


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("({}, state)", "a tree of another structure"),
        ("(jax.tree.map(lambda g: g[..., None], grads), state)", r"float32\[.*\] for float32\[.*\] at "),
        ("(grads, (state, 1.0))", "a tree of another structure"),
    ],
)
def test_an_update_that_returns_something_else_is_named(plugin: Any, made: str, said: str) -> None:
    plugin(
        "optimizers",
        "import jax\nfrom plasticity.core.types import Optimizer\n"
        "def odd():\n"
        "    def update(grads, state, params, **extra):\n"
        f"        return {made}\n"
        "    return Optimizer(lambda params: (), update, 0.1)\n",
    )
    start = r"arms\.baseline: |"
    assert re.match(
        rf"({start})optimizer `odd` \(odd-one 1.0\): `update` fails: TypeError: returns {said}",
        refusal(**NAMED["optimizers"]),
    )


def test_a_method_without_any_function_is_refused_unless_it_is_asked_to_do_nothing(plugin: Any) -> None:
    plugin(
        "interventions",
        "from plasticity.config.fields import metadata\nfrom plasticity.interventions.base import Intervention\n"
        "@metadata(paper='none', neutral={'rate': 0.0})\n"
        "def odd(*, rate: float = 1.0):\n    return Intervention()\n",
    )
    said = "interventions.odd changes nothing: it returns no function of its own"
    assert said in refusal(interventions=["odd"])
    assert launch.plan(tiny.experiment(interventions=[{"kind": "odd", "rate": 0}])).jobs


PLAIN = "import optax\ndef odd(*, rate: float = 0.1):\n    return optax.sgd(rate)\n"
SGD = {"kind": "sgd", "learning_rate": 0.1}


def learned(folder: Path, optimizer: Any, **changes: Any) -> Any:
    import numpy as np

    from plasticity import results

    agent = {"kind": "classifier", "network": {"kind": "mlp", "widths": [8]}, "optimizer": optimizer}
    launch.run(tiny.experiment(agent=agent, seeds=1, **changes), folder)
    return np.asarray(results.load(folder).loss)


def test_a_plain_optax_transformation_is_an_optimizer(plugin: Any, tmp_path: Path) -> None:
    """The same numbers as ours of the same step; and methods that wrap any optimizer wrap it."""
    import numpy as np

    plugin("optimizers", PLAIN)
    decay = [{"kind": "weight_decay", "rate": 0.01}]
    for name, changes in (("alone", {}), ("decayed", {"interventions": decay})):
        plain = learned(tmp_path / name, "odd", **changes)
        ours = learned(tmp_path / f"{name} sgd", SGD, **changes)
        np.testing.assert_allclose(plain, ours, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "who"),
    [
        ({"interventions": [{"kind": "weight_decay", "per": "learning_rate"}]}, "interventions.weight_decay"),
        ({"interventions": ["upgd"]}, "upgd"),
        ({"monitors": ["effective_learning_rate"]}, "monitors.effective_learning_rate"),
    ],
)
def test_what_needs_the_step_size_of_a_plain_transformation_says_so(plugin: Any, changes: Any, who: str) -> None:
    plugin("optimizers", PLAIN)
    message = refusal(**NAMED["optimizers"], **changes)
    assert who in message
    assert "step size, but `odd` is a plain optax transformation and does not report one" in message


def test_an_agent_that_leaves_a_method_out_refuses_it(plugin: Any) -> None:
    """It brings a network that is built already: the method's network would never be."""
    plugin(
        "agents",
        "from plasticity.agents import AGENTS\nfrom plasticity.interventions.base import Intervention\n"
        "from plasticity.networks.presets import mlp\nfrom plasticity.optim.optimizers import sgd\n"
        "def odd(spec, intervention):\n"
        "    own = intervention._replace(network=Intervention().network, switch=Intervention().switch)\n"
        "    return AGENTS['classifier'](spec, own, network=mlp, optimizer=sgd)\n",
    )
    assert launch.plan(tiny.experiment(agent="odd")).jobs
    assert launch.plan(tiny.experiment(agent="odd", interventions=["l2", "weight_decay"])).jobs
    said = refusal(agent="odd", interventions=["l2", "layer_norm"])
    assert said == (
        "arms.baseline: interventions.layer_norm is not allowed with agent `odd`: the agent builds its network without "
        "it (`network`), so it would have no effect or only part of it"
    )
    assert "interventions.nap is not allowed with agent `odd`" in refusal(agent="odd", interventions=["nap"])
    assert "does not call it at task switches" in refusal(agent="odd", interventions=["reset"], task_aware=True)


@pytest.mark.parametrize(
    ("monitors", "said"),
    [
        (
            [{"kind": "srank", "delta": 0.1}, {"kind": "srank", "delta": 0.2}],
            "monitors.0 (srank) and monitors.1 (srank) both write the metric `srank`; keep one",
        ),
        (["weight_norm", "odd"], "monitors.weight_norm and monitors.odd both write the metric `weight_norm`; keep one"),
    ],
)
def test_two_monitors_that_write_one_metric_are_refused(plugin: Any, monitors: Any, said: str) -> None:
    plugin("monitors", WRITES.format("weight_norm"))
    assert said in refusal(monitors=monitors)


WRITES = (
    "import jax.numpy as jnp\nfrom plasticity.monitors import Monitor\n"
    "def odd():\n    return Monitor(lambda key, state, probe: (state, {{'{}': jnp.ones(())}}))\n"
)


@pytest.mark.parametrize("column", ["loss", "reward", "step", "lane", "task", "update", "seed", "evaluation_return"])
def test_a_metric_with_the_name_of_another_column_is_refused(plugin: Any, column: str) -> None:
    plugin("monitors", WRITES.format(column))
    assert f"the metric `{column}` has the name of another column; rename it" in refusal(monitors=["odd"])


@pytest.mark.parametrize("column", ["reward", "episodes", "update", "lane", "diverged_at"])
def test_so_is_an_agents_metric(plugin: Any, column: str) -> None:
    plugin(
        "agents",
        "from plasticity.agents import AGENTS\nfrom plasticity.networks.presets import mlp\n"
        "from plasticity.optim.optimizers import sgd\n"
        "def odd(spec, intervention):\n"
        "    made = AGENTS['classifier'](spec, intervention, network=mlp, optimizer=sgd)\n"
        "    def learn(*args):\n        state, metrics = made.learn(*args)\n"
        f"        return state, {{**metrics, '{column}': metrics['loss']}}\n"
        "    return made._replace(learn=learn)\n",
    )
    assert f"metric `{column}` has the name of a" in refusal(agent="odd")


def test_a_monitor_without_anything_to_say_is_refused_unless_another_arm_has_it() -> None:
    linear = {"kind": "classifier", "network": {"kind": "mlp", "widths": []}}
    deep = {"network": {"kind": "mlp", "widths": [4]}}
    assert refusal(agent=linear, monitors=["srank"]).startswith("monitors.srank writes nothing for this network")
    assert launch.plan(tiny.experiment(agent=linear, monitors=["srank"], arms={"a": {}, "b": {"agent": deep}})).jobs


def test_a_method_that_leaves_the_network_as_it_is_is_refused() -> None:
    def classifier(**network: Any) -> dict[str, Any]:
        return {"kind": "classifier", "network": {"kind": "mlp", "widths": [8], **network}}

    for method, network, why in (
        ("layer_norm", {"widths": []}, "has no hidden layer"),
        ("layer_norm", {"normalisation": "layer"}, "already has this or has no place for it"),
        ("leaky_relu", {"activation": "leaky_relu"}, "already has this or has no place for it"),
    ):
        said = refusal(agent=classifier(**network), interventions=[method])
        assert said == f"arms.baseline: interventions.{method} changes nothing: the network {why}"
    assert launch.plan(tiny.experiment(agent=classifier(), interventions=["layer_norm"])).jobs
