"""Methods that keep old tasks, each against a small case worked out by hand or in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import clock_at

from plasticity.core.outputs import OUTPUT, Logits, Normal, Outputs, Values
from plasticity.core.types import Context, Drawn, Learner, Past
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention, Remember, compose
from plasticity.interventions.rehearsal import projected
from plasticity.networks.build import build
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import sgd

KEY = jax.random.key(0)
SPEC = NetworkSpec((2,), 3)
NETWORK, RULE = build(SPEC), sgd(learning_rate=0.1)
INPUTS = jnp.array([[1.0, 0.0], [0.5, -2.0], [3.0, 1.0]])
VALID = jnp.array([True, True, False])
PARAMS = {"output": {"kernel": jnp.array([[0.1, 0.4, -0.3], [0.2, -0.5, 0.6]]), "bias": jnp.array([0.0, 0.1, -0.2])}}


def outputs_of(kind: Any) -> Any:
    def read(params: Any, inputs: Any) -> Outputs:
        return {OUTPUT: kind(NETWORK.forward(params, inputs)[0])}

    return read


def context(kind: Any = Logits, old: Any = None, update: int = 0, **changes: Any) -> Context:
    """A network without hidden layers whose past has three rows, the last of them invalid."""
    read = outputs_of(kind)
    rows: Any = INPUTS
    drawn = Drawn(rows, read(PARAMS if old is None else old, INPUTS), VALID)

    def loss(tag: Any, params: Any, drawn: Drawn) -> Any:
        del tag
        return jnp.sum(drawn.valid * jnp.sum(NETWORK.forward(params, drawn.rows)[0] ** 2, axis=-1)) / jnp.sum(
            drawn.valid
        )

    def draw(tag: Any, number: int) -> Drawn:
        del tag
        return jax.tree.map(lambda x: x[:number], drawn)

    past = Past(draw, lambda: drawn, lambda rows: rows, loss)
    learner = Learner(PARAMS, (), RULE.init(PARAMS))
    made = Context(
        clock_at(update), INPUTS, {}, (), NETWORK, RULE, lambda key: learner, lambda params: jnp.zeros(()), lambda: (),
        read, past,
    )  # fmt: skip
    return made._replace(**changes)


def switched(method: Intervention, params: Any, seen: Context, state: Any = None) -> tuple[Any, Learner]:
    state = method.init(KEY, PARAMS, NETWORK) if state is None else state
    return method.switch(KEY, state, Learner(params, (), RULE.init(params)), seen)


def plus(params: Any, amount: float) -> Any:
    return jax.tree.map(lambda x: x + amount, params)


def softmax(inputs: np.ndarray) -> np.ndarray:
    logits = inputs @ np.asarray(PARAMS["output"]["kernel"], np.float64) + np.asarray(PARAMS["output"]["bias"])
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True)


def test_fisher_of_a_linear_softmax_in_closed_form() -> None:
    """``F[i, k] = mean_b x_bi^2 p_bk (1 - p_bk)`` for the kernel; the bias has ``x = 1``."""
    method = INTERVENTIONS["ewc"](strength=2.0)
    state, _ = switched(method, PARAMS, context())
    x = np.asarray(INPUTS[:2], np.float64)
    p = softmax(x)
    kernel = np.mean(x[:, :, None] ** 2 * (p * (1 - p))[:, None, :], axis=0)
    np.testing.assert_allclose(state["importance"]["output"]["kernel"], kernel, rtol=1e-5)
    np.testing.assert_allclose(state["importance"]["output"]["bias"], np.mean(p * (1 - p), axis=0), rtol=1e-5)
    penalty = method.penalty(state, plus(PARAMS, 0.5), context())
    np.testing.assert_allclose(penalty, 2.0 * 0.25 * (kernel.sum() + np.mean(p * (1 - p), axis=0).sum()), rtol=1e-5)


def test_fisher_of_values_and_of_normals() -> None:
    method, x = INTERVENTIONS["ewc"](strength=1.0), np.asarray(INPUTS[:2], np.float64)
    state, _ = switched(method, PARAMS, context(Values))
    wanted = np.repeat(np.mean(x**2, axis=0)[:, None], 3, axis=1)
    np.testing.assert_allclose(state["importance"]["output"]["kernel"], wanted, rtol=1e-5)

    def normal(outputs: Any) -> Normal:  # means and logarithms of standard deviations share the outputs
        return Normal(outputs[:, :1], outputs[:, 1:2])

    state, _ = switched(method, PARAMS, context(normal))
    logits = x @ np.asarray(PARAMS["output"]["kernel"], np.float64) + np.asarray(PARAMS["output"]["bias"])
    of_mean = np.mean(x**2 * np.exp(-2 * logits[:, 1:2]), axis=0)
    wanted = np.stack([of_mean, 2 * np.mean(x**2, axis=0), np.zeros(2)], axis=1)
    np.testing.assert_allclose(state["importance"]["output"]["kernel"], wanted, rtol=1e-5, atol=1e-7)


def test_fisher_has_a_floor_on_every_row() -> None:
    state, _ = switched(INTERVENTIONS["ewc"](floor=10.0), PARAMS, context())
    np.testing.assert_allclose(state["importance"]["output"]["kernel"], 10.0)


def test_each_anchor_is_a_penalty_for_each_task() -> None:
    """With importances f, g around a, b the penalty differs from ``f (x - a)^2 + g (x - b)^2`` by a constant."""
    method = INTERVENTIONS["ewc"](strength=1.0)
    first, second = context(), context(Values)
    state, _ = switched(method, PARAMS, first)
    f = state["importance"]
    later = plus(PARAMS, 0.3)
    state, _ = switched(method, later, second, state)
    g = jax.tree.map(jnp.subtract, state["importance"], f)

    def separate(x: Any) -> Any:
        terms = jax.tree.map(lambda x, a, b, f, g: jnp.sum(f * (x - a) ** 2 + g * (x - b) ** 2), x, PARAMS, later, f, g)
        return sum(jax.tree.leaves(terms))

    at = plus(PARAMS, -0.7)
    found, wanted = jax.grad(lambda x: method.penalty(state, x, first))(at), jax.grad(separate)(at)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, wanted)


def test_online_ewc_forgets_and_moves_its_anchor() -> None:
    method = INTERVENTIONS["ewc"](anchor="latest", decay=0.5)
    state, _ = switched(method, PARAMS, context(Values))
    once, later = state["importance"], plus(PARAMS, 0.3)
    state, _ = switched(method, later, context(Values), state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 1.5 * b, rtol=1e-5), state["importance"], once)
    jax.tree.map(np.testing.assert_array_equal, state["anchor"], later)


def test_l2_previous_by_hand() -> None:
    method = INTERVENTIONS["l2_previous"](strength=2.0)
    state = method.init(KEY, PARAMS, NETWORK)
    assert method.penalty(state, plus(PARAMS, 1.0), context()) == 0
    for start in (plus(PARAMS, 0.5), plus(PARAMS, 0.25)):
        state, _ = switched(method, start, context(), state)
        np.testing.assert_allclose(method.penalty(state, plus(start, 1.0), context()), 2.0 * 9, rtol=1e-5)


def test_l2_accumulates_like_the_released_code() -> None:
    """Every switch adds the strength once more."""
    method = INTERVENTIONS["l2_previous"](strength=2.0, accumulate=True)
    state = method.init(KEY, PARAMS, NETWORK)
    for switches, start in enumerate((plus(PARAMS, 0.5), plus(PARAMS, 0.25)), 1):
        state, _ = switched(method, start, context(), state)
        np.testing.assert_allclose(method.penalty(state, plus(start, 1.0), context()), 2.0 * 9 * switches, rtol=1e-5)


@pytest.mark.parametrize("name", ["l2_previous", "ewc", "mas"])
def test_heads_of_single_tasks_are_free(name: str) -> None:
    """A head that waits for its task is not tied to its initial numbers, nor is that of the task that has ended."""
    settings = {"floor": 0.1} if name == "ewc" else {}
    headed = NETWORK._replace(task_heads=(("output",),))
    state, _ = switched(INTERVENTIONS[name](**settings), PARAMS, context(network=headed))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(state["importance"]))
    shared, _ = switched(INTERVENTIONS[name](**settings), PARAMS, context())
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(shared["importance"]))


def test_mas_by_hand() -> None:
    """``d |f|^2 / d kernel[i, k] = 2 f_k x_i``, its absolute value, the mean over rows."""
    state, _ = switched(INTERVENTIONS["mas"](), PARAMS, context(Values))
    x = np.asarray(INPUTS[:2], np.float64)
    f = x @ np.asarray(PARAMS["output"]["kernel"], np.float64) + np.asarray(PARAMS["output"]["bias"])
    wanted = np.mean(np.abs(2 * f[:, None, :] * x[:, :, None]), axis=0)
    np.testing.assert_allclose(state["importance"]["output"]["kernel"], wanted, rtol=1e-5)


def test_path_integral_on_a_quadratic() -> None:
    """Gradient descent on ``sum c x^2 / 2``: the path integral is the sum of ``c x_t (x_t - x_{t+1})``."""
    method = INTERVENTIONS["synaptic_intelligence"](strength=3.0, damping=0.5)
    x, c, rate = {"x": jnp.array([1.0, -2.0])}, np.array([0.5, 2.0]), 0.1
    state, learner = method.init(KEY, x, NETWORK), Learner(x, (), ())
    path, position = np.zeros(2), np.array([1.0, -2.0])
    for _ in range(20):
        state, learner = method.prepare(KEY, state, learner, context())
        gradient = {"x": jnp.asarray(c) * learner.params["x"]}
        learner = learner._replace(params={"x": learner.params["x"] - rate * gradient["x"]})
        state, learner = method.step(KEY, state, learner, context(gradients=gradient))
        moved = position - rate * c * position
        path, position = path + c * position * (position - moved), moved
    np.testing.assert_allclose(state["path"]["x"], path, rtol=1e-4)
    drop = 0.5 * c * (np.array([1.0, -2.0]) ** 2 - position**2)
    assert (path > drop).all()  # a sum to the left of the integral, which is the drop of the loss
    state, _ = method.switch(KEY, state, learner, context())
    wanted = path / ((position - [1.0, -2.0]) ** 2 + 0.5)
    np.testing.assert_allclose(state["importance"]["x"], wanted, rtol=1e-4)
    there = {"x": learner.params["x"] + 2.0}
    np.testing.assert_allclose(method.penalty(state, there, context()), 3.0 * 4.0 * wanted.sum(), rtol=1e-4)
    # The penalty's own gradient is not part of the path.
    state, learner = method.prepare(KEY, state, learner._replace(params=there), context())
    own = jax.grad(lambda p: method.penalty(state, p, context()))(there)
    state, _ = method.step(KEY, state, learner._replace(params={"x": there["x"] - 1.0}), context(gradients=own))
    np.testing.assert_allclose(state["path"]["x"], 0.0, atol=1e-5)


def test_projected_gradients_never_oppose_the_reference() -> None:
    found = projected({"a": jnp.array([1.0, 0.0])}, {"a": jnp.array([-1.0, 1.0])})
    np.testing.assert_allclose(found["a"], [0.5, 0.5])  # g.r = -1, r.r = 2
    agreed = projected({"a": jnp.array([1.0, 0.0])}, {"a": jnp.array([1.0, 1.0])})
    np.testing.assert_array_equal(agreed["a"], [1.0, 0.0])
    none = projected({"a": jnp.array([1.0, 0.0])}, {"a": jnp.zeros(2)})
    np.testing.assert_array_equal(none["a"], [1.0, 0.0])
    for i in range(50):
        g, r = ({"a": x} for x in jax.random.normal(jax.random.key(i), (2, 7)))
        assert jnp.sum(projected(g, r)["a"] * r["a"]) > -1e-5


def test_a_gem_projects_on_the_loss_of_old_rows() -> None:
    method = INTERVENTIONS["a_gem"](batch=3)
    seen = context()
    assert seen.past is not None
    reference = jax.grad(lambda params: seen.past.loss(0, params, seen.past.ended()))(PARAMS)
    opposed = jax.tree.map(lambda x: -x, reference)
    found = method.gradient(KEY, (), opposed, Learner(PARAMS, (), ()), seen)
    jax.tree.map(lambda x: np.testing.assert_allclose(x, 0.0, atol=1e-5), found)
    same = method.gradient(KEY, (), reference, Learner(PARAMS, (), ()), seen)
    jax.tree.map(np.testing.assert_array_equal, same, reference)


def test_cloning_is_the_divergence_from_the_old_outputs() -> None:
    method = INTERVENTIONS["behavioural_cloning"](strength=2.0, batch=3)
    assert method.penalty((), PARAMS, context()) == pytest.approx(0.0, abs=1e-6)
    now = {"output": {"kernel": PARAMS["output"]["kernel"] * 2, "bias": PARAMS["output"]["bias"]}}
    x = np.asarray(INPUTS[:2], np.float64)
    p = softmax(x)
    logits = x @ np.asarray(now["output"]["kernel"], np.float64) + np.asarray(now["output"]["bias"])
    q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=-1))
    np.testing.assert_allclose(method.penalty((), now, context()), 2.0 * wanted, rtol=1e-4)


def test_divergences_by_integration() -> None:
    grid = np.linspace(-30, 30, 200_001)

    def density(mean: float, std: float) -> np.ndarray:
        return np.exp(-0.5 * ((grid - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))

    old, new = density(0.3, 0.7), density(-0.5, 1.6)
    wanted = np.trapezoid(old * (np.log(old + 1e-300) - np.log(new + 1e-300)), grid)
    one = Normal(jnp.array([[0.3]]), jnp.log(jnp.array([[0.7]])))
    other = Normal(jnp.array([[-0.5]]), jnp.log(jnp.array([[1.6]])))
    np.testing.assert_allclose(one.divergence(other)[0], wanted, rtol=1e-4)
    a, b = Values(jnp.array([[1.0, 2.0]])), Values(jnp.array([[0.0, 4.0]]))
    np.testing.assert_allclose(a.divergence(b), [2.5])
    several = Logits(jnp.zeros((2, 3, 4)))
    np.testing.assert_allclose(several.divergence(Logits(jnp.ones((2, 3, 4)))), [0.0, 0.0], atol=1e-6)


def test_clear_adds_up_its_three_terms() -> None:
    old = {"output": {"kernel": PARAMS["output"]["kernel"] * 2, "bias": PARAMS["output"]["bias"]}}
    seen = context(Values, old)
    assert seen.past is not None
    loss = seen.past.loss(0, PARAMS, seen.past.ended())
    before, now = (np.asarray(NETWORK.forward(params, INPUTS[:2])[0]) for params in (old, PARAMS))
    square = np.mean(np.sum((before - now) ** 2, axis=-1))
    method = INTERVENTIONS["clear"](replay=0.5, value_cloning=0.25, batch=3)
    np.testing.assert_allclose(method.penalty((), PARAMS, seen), 0.5 * loss + 0.25 * square, rtol=1e-5)
    method = INTERVENTIONS["clear"](replay=0.0, policy_cloning=0.5, batch=3)
    clone = INTERVENTIONS["behavioural_cloning"](strength=0.5, batch=3)
    seen = context(Logits, old)
    np.testing.assert_allclose(method.penalty((), PARAMS, seen), clone.penalty((), PARAMS, seen), rtol=1e-5)


def test_kickstarting_decays_from_the_switch_on() -> None:
    method = INTERVENTIONS["kickstarting"](strength=2.0, decay=0.5)
    state, now = method.init(KEY, PARAMS, NETWORK), plus(PARAMS, 0.5)
    assert method.penalty(state, now, context(Values)) == 0
    state, _ = switched(method, PARAMS, context(update=10), state)
    x = np.asarray(INPUTS, np.float64)
    each = 0.5 * 3 * (0.5 * (x.sum(axis=-1) + 1)) ** 2  # every output moves by half the sum of the inputs and 1
    for update, factor in ((10, 1.0), (12, 0.25)):
        np.testing.assert_allclose(
            method.penalty(state, now, context(Values, update=update)), 2.0 * factor * each.mean(), rtol=1e-5
        )


def test_reset_and_distill_renews_the_learner_and_teaches_the_student() -> None:
    method = INTERVENTIONS["reset_and_distill"](updates=300, batch=3, learning_rate=0.05)
    expert = plus(PARAMS, 0.7)
    state, learner = switched(method, expert, context(Values, expert), {"student": PARAMS})
    jax.tree.map(np.testing.assert_array_equal, learner.params, PARAMS)  # the fresh agent's
    said, wanted = (np.asarray(NETWORK.forward(params, INPUTS[:2])[0]) for params in (state["student"], expert))
    np.testing.assert_allclose(said, wanted, atol=0.05)
    old = method.view(state, learner.params, jnp.int32(0), jnp.int32(1))
    jax.tree.map(np.testing.assert_array_equal, old, state["student"])
    now = method.view(state, learner.params, jnp.int32(1), jnp.int32(1))
    jax.tree.map(np.testing.assert_array_equal, now, learner.params)


def test_the_student_of_reset_and_distill_by_hand() -> None:
    """Three steps of Adam on half the squared distances to the expert, and to the experts of earlier tasks."""
    expert, older, rate = plus(PARAMS, 0.7), plus(PARAMS, -0.4), 0.05
    seen, before = context(Values, expert), context(Values, older)
    assert seen.past is not None
    assert before.past is not None
    seen = seen._replace(past=seen.past._replace(draw=before.past.draw))
    method = INTERVENTIONS["reset_and_distill"](updates=3, batch=2, learning_rate=rate)
    state, _ = switched(method, expert, seen, {"student": PARAMS})

    ones = np.concatenate([np.asarray(INPUTS[:2], np.float64), np.ones((2, 1))], axis=1)  # the bias is the last row
    student, now, then = (
        np.concatenate(
            [np.asarray(each["output"]["kernel"]), np.asarray(each["output"]["bias"])[None]], dtype=np.float64
        )
        for each in (PARAMS, expert, older)
    )
    m, v = np.zeros((3, 3)), np.zeros((3, 3))
    for i in range(3):
        newest = ones[np.asarray(jax.random.randint(jax.random.fold_in(KEY, i), (2,), 0, 2))]
        slope = (newest.T @ newest @ (student - now) + ones.T @ ones @ (student - then)) / 2
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        student = student - rate * m / (1 - 0.9 ** (i + 1)) / (np.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8)
    np.testing.assert_allclose(state["student"]["output"]["kernel"], student[:2], rtol=1e-4)
    np.testing.assert_allclose(state["student"]["output"]["bias"], student[2], rtol=1e-4)


def test_one_memory_has_room_for_all_methods() -> None:
    made = compose(
        INTERVENTIONS["ewc"](samples=100), INTERVENTIONS["behavioural_cloning"](memory=20), INTERVENTIONS["l2"]()
    )
    assert made.remember == Remember(100, None)
    assert compose(INTERVENTIONS["ewc"](samples=100), INTERVENTIONS["mas"](samples=7)).remember == Remember(100, 0)
    assert compose(INTERVENTIONS["l2"]()).remember is None
    assert compose(INTERVENTIONS["packnet"](tasks=4), INTERVENTIONS["packnet"](tasks=3)).visits == 3
