"""FLOPs by XLA's analysis against counts by hand: products, convolutions, loops, branches, and whole updates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from plasticity import results
from plasticity.engine import flops
from plasticity.engine.flops import Flops, count, flops_of
from plasticity.runs import launch

F32 = jnp.float32


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, F32)


def test_products_and_convolutions() -> None:
    m, k, n = 5, 7, 3
    assert count(lambda x, w: x @ w, shape(m, k), shape(k, n)) == (2 * m * k * n, 2 * m * k * n)

    def convolved(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    # 8 x 8 pixels with 3 x 3 kernels at stride 2: 3 x 3 places
    assert count(convolved, shape(2, 8, 8, 4), shape(3, 3, 4, 6)).most == 2 * (2 * 3 * 3) * (3 * 3 * 4) * 6


def test_a_loop_counts_as_often_as_it_runs_and_a_branch_has_two_sides() -> None:
    product = 2 * 4 * 6 * 6

    def scanned(x: Any, w: Any) -> Any:
        def outer(x: Any, _: None) -> Any:
            return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=5)[0], None

        return jax.lax.scan(outer, x, None, length=3)[0]

    found = count(scanned, shape(4, 6), shape(6, 6))
    assert 15 * product <= found.most < 15 * (product + 4) + 9  # and the counters of the loops
    assert found.least == found.most

    def branched(x: Any, w: Any, yes: Any) -> Any:
        return jax.lax.cond(yes, lambda: scanned(x, w), lambda: x)

    taken = count(branched, shape(4, 6), shape(6, 6), jax.ShapeDtypeStruct((), bool))
    assert taken.most >= found.most
    assert taken.least <= 1


def test_what_is_not_needed_costs_nothing_and_calls_are_looked_into() -> None:
    @jax.checkpoint
    def twice(x: Any, w: Any) -> Any:
        unused = w @ w
        del unused
        return jax.jit(lambda x: x @ w)(x @ w)

    assert count(twice, shape(4, 6), shape(6, 6)).most == 2 * (2 * 4 * 6 * 6)
    keys = count(lambda key: jax.lax.scan(lambda k, _: (jax.random.fold_in(k, 1), 0), key, None, length=2)[0],
                 jax.eval_shape(lambda: jax.random.key(0)))  # fmt: skip
    assert keys.most > 0  # a loop over keys, which are no numbers


INPUTS, HIDDEN, CLASSES, ROWS = 64, 32, 3, 256


def counted(optimizer: str, **changes: Any) -> Flops:
    agent = {"kind": "classifier", "network": {"kind": "mlp", "widths": [HIDDEN, HIDDEN]}, "optimizer": optimizer}
    stream = {"kind": "relabelled", "inputs": "gaussian", "samples": 16, "dimensions": INPUTS, "classes": CLASSES}
    stream |= {"tasks": 2, "steps_per_task": 20, "envs": ROWS}
    planned = launch.plan(tiny.experiment(agent=agent, stream=stream, seeds=1, **changes))
    return flops_of(planned.jobs[0].program)


def test_an_update_of_an_mlp_by_hand() -> None:
    """Forward, backward and Adam. The first layer's inputs need no gradient: two of three products there."""
    forward = 2 * ROWS * (INPUTS * HIDDEN + HIDDEN * HIDDEN + HIDDEN * CLASSES)
    backward = 2 * ROWS * (INPUTS * HIDDEN + 2 * HIDDEN * HIDDEN + 2 * HIDDEN * CLASSES)
    units = ROWS * (2 * HIDDEN + CLASSES)
    elementwise = (5 * units, 16 * units)  # bias, ReLU, their gradients; softmax and the loss have more
    parameters = INPUTS * HIDDEN + HIDDEN + HIDDEN * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
    adam = counted("adam")
    assert forward + 2 * units <= adam.step <= forward + 6 * units
    spent = adam.update - forward - backward
    assert elementwise[0] < spent - 14 * parameters < elementwise[1]
    # m: 3, v: 4, both corrections: 2, + eps_root, + eps, /, x rate, + w; sgd: m: 2, x rate, + w. The root counts apart.
    per_parameter = (adam.update - counted("sgd").update) / parameters
    assert per_parameter == pytest.approx(14 - 4, abs=0.05)


def test_what_a_method_does_every_n_updates_counts_at_every_update() -> None:
    """ReDo recycles every 2 or every 1000 updates: the same numbers, above those without its fresh parameters."""
    often, seldom = (counted("sgd", arms={"a": {"interventions": [{"kind": "redo", "period": n}]}}) for n in (2, 1000))
    assert often == seldom
    weights = INPUTS * HIDDEN + HIDDEN * HIDDEN + HIDDEN * CLASSES
    assert seldom.update > counted("sgd").update + weights


def test_the_column_of_a_run(tmp_path: Any) -> None:
    """``step steps + update updates`` in every row, and both numbers in the plan."""
    arms = {"baseline": {}, "wide": {"agent": {"network": {"widths": [16]}}}}
    run = launch.run(tiny.experiment(arms=arms, evaluation={"every": "visit"}, seeds=2), tmp_path / "run")
    facts = {each["arm"]: each["flops"] for each in results.plan(run)["programs"]}
    table, evaluated = results.load(run), results.evaluations(run)
    for arm, fact in facts.items():
        rows = table[table["arm"] == arm]
        np.testing.assert_array_equal(rows["flops"], fact["step"] * rows["step"] + fact["update"] * rows["update"])
        last = evaluated[(evaluated["arm"] == arm) & (evaluated["step"] == 60)]["flops"]
        assert set(last) == {60 * (fact["step"] + fact["update"])}
    assert facts["wide"]["update"] > 1.5 * facts["baseline"]["update"]


def test_an_agent_that_learns_from_time_to_time() -> None:
    """Two updates every second step: the scan over them counts each, and a step without one costs little."""
    agent = {**tiny.DQN["agent"], "network": {"kind": "mlp", "widths": [32]}, "batch_size": 64}
    stream = {"kind": "catch", "rows": 5, "columns": 5, "tasks": 1, "steps_per_task": 20}

    def of(number: int) -> Flops:
        planned = launch.plan(tiny.experiment(agent={**agent, "gradient_steps": number}, stream=stream, seeds=1))
        return flops_of(planned.jobs[0].program)

    one, two = of(1), of(2)
    assert two.update == pytest.approx(one.update, rel=0.01)
    assert one.step < 0.05 * one.update
    forward, rows = 25 * 32 + 32 * 3, 64
    products = 2 * rows * (2 * forward + 25 * 32 + 2 * 32 * 3)  # online and target forward, and backward
    assert products < one.update < 1.5 * products


def test_without_an_analysis_there_is_no_column_and_the_plan_says_why(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(function: Any, shapes: Any) -> float:
        raise flops.NotCountedError("this version of JAX gives no cost analysis")

    monkeypatch.setattr(flops, "_analysed", refuse)
    run = launch.run(tiny.experiment(seeds=1), tmp_path / "run")
    assert "flops" not in results.load(run)
    assert results.plan(run)["programs"][0]["flops"] == {"why": "this version of JAX gives no cost analysis"}


@pytest.mark.parametrize(
    ("found", "number"),
    [({"flops": 3.0}, 3.0), ([{"flops": 3.0}], 3.0), ({"bytes accessed": 1.0}, 0.0), ({"flops": -1.0}, 0.0)],
)
def test_the_forms_of_an_analysis(found: Any, number: float) -> None:
    class Lowered:
        def lower(self, *shapes: Any) -> Any:
            return self

        def cost_analysis(self) -> Any:
            return found

    assert flops._analysed(Lowered(), ()) == number


@pytest.mark.parametrize("found", [None, [], "text"])
def test_no_analysis(found: Any) -> None:
    class Lowered:
        def lower(self, *shapes: Any) -> Any:
            return self

        def cost_analysis(self) -> Any:
            return found

    with pytest.raises(flops.NotCountedError, match="gives no cost analysis"):
        flops._analysed(Lowered(), ())
