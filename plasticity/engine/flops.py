"""Floating-point operations of one lane, by XLA's analysis of the traced functions; nothing is computed or compiled.

The analysis is that of the program before XLA optimises it, lowered for a CPU, so that the device does not matter. (The
traced functions are those of this machine: a convolution may have another form on a GPU.) XLA counts ``2 m n k`` for
the product of ``[m, k]`` and ``[k, n]`` and 1 for each entry of an elementwise function or a sum, also of integers. It
leaves out what it calls transcendental (exp, log, tanh, sqrt, ...) and the libraries it calls (singular values,
Cholesky). It counts the body of a loop once; here a loop of known length counts as often as it runs, and only one of
unknown length (``while``) once.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from plasticity.core.errors import cut
from plasticity.core.types import Agent, Clock, StreamSpec, TimeStep, Transition
from plasticity.engine.program import Program

BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # where a call keeps what it calls
LOOPS = ("scan", "while", "cond")


class NotCountedError(Exception):
    """The analysis gives no number; the message is the reason."""


class Flops(NamedTuple):
    """FLOPs of one lane. NaN, and the reason as ``why``, if XLA gives no analysis."""

    step: float = math.nan  # of an env step without an update, in all envs: acting, normalisers, storing
    update: float = math.nan  # of one update
    why: str = ""

    def spent(self, steps: int, updates: np.ndarray) -> np.ndarray:
        """``step steps + update updates``: float64[lanes], of lanes with ``updates`` in ``steps`` env steps."""
        return self.step * steps + self.update * np.asarray(updates, np.float64)

    def describe(self) -> dict[str, Any]:
        """As plain data, for a plan."""
        return {"why": self.why} if self.why else {"step": self.step, "update": self.update}


class Range(NamedTuple):
    """FLOPs of a function if every branch takes its cheapest side, and if every branch takes its dearest."""

    least: float
    most: float

    def plus(self, other: "Range", times: int = 1) -> "Range":
        return Range(self.least + times * other.least, self.most + times * other.most)


def count(function: Callable[..., Any], *shapes: Any) -> Range:
    """FLOPs of a function of arrays with these shapes.

    Raises:
      NotCountedError: this version of XLA gives no analysis.
    """
    return _count(jax.make_jaxpr(function)(*shapes))


def _count(traced: ClosedJaxpr) -> Range:
    """The straight code of a traced function by XLA, then its loops and branches, each on its own."""
    found: list[Any] = []

    def straight(*args: Any) -> Any:
        found.clear()
        return _evaluate(traced.jaxpr, traced.consts, args, found)

    shapes = [jax.ShapeDtypeStruct(each.aval.shape, each.aval.dtype) for each in traced.jaxpr.invars]
    own = _analysed(jax.jit(straight), shapes)
    return functools.reduce(Range.plus, map(_of_loop, found), Range(own, own))


def _of_loop(equation: Any) -> Range:
    """FLOPs of a loop or a branch."""
    name, of = equation.primitive.name, equation.params
    if name == "scan":
        return Range(0.0, 0.0).plus(_count(of["jaxpr"]), of["length"])
    if name == "while":
        return _count(of["cond_jaxpr"]).plus(_count(of["body_jaxpr"]))
    sides = [_count(side) for side in of["branches"]]
    return Range(min(side.least for side in sides), max(side.most for side in sides))


def _evaluate(jaxpr: Jaxpr, consts: Any, args: Any, found: list[Any]) -> list[Any]:
    """Trace a function again without its loops and branches, which are added to ``found``; their results become 0.

    What they read is returned too, so that XLA counts it.
    """
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    read: list[Any] = []

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in _live(jaxpr):
        given = [value(atom) for atom in equation.invars]
        body = next((equation.params[key] for key in BODIES if key in equation.params), None)
        if equation.primitive.name in LOOPS:
            found.append(equation)
            read += given
            made: Any = [_zeros(each.aval) for each in equation.outvars]
        elif isinstance(body, Jaxpr | ClosedJaxpr):
            closed = body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())
            made = _evaluate(closed.jaxpr, closed.consts, given, found)
            read += made[len(equation.outvars) :]
        else:
            made = equation.primitive.bind(*given, **equation.params)
            made = made if equation.primitive.multiple_results else [made]
        values.update(zip(equation.outvars, made[: len(equation.outvars)], strict=True))
    return [*map(value, jaxpr.outvars), *read]


def _live(jaxpr: Jaxpr) -> list[Any]:
    """The equations that the results need, in order."""
    needed = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or needed.intersection(equation.outvars):
            kept.append(equation)
            needed.update(atom for atom in equation.invars if not isinstance(atom, Literal))
    return kept[::-1]


def _zeros(aval: Any) -> Any:
    """An array of this shape and type, which may be random keys; it costs nothing."""
    if not jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return jnp.zeros(aval.shape, aval.dtype)
    impl: list[Any] = []

    def words(keys: Any) -> Any:
        impl.append(jax.random.key_impl(keys))
        return jax.random.key_data(keys)

    shape = jax.eval_shape(words, jax.ShapeDtypeStruct(aval.shape, aval.dtype))
    return jax.random.wrap_key_data(jnp.zeros(shape.shape, shape.dtype), impl=impl[0])


def _analysed(function: Any, shapes: Any) -> float:
    """The FLOPs that XLA finds in a function without loops, for a CPU: other backends may give no analysis."""
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            found = function.lower(*shapes).cost_analysis()
    except RuntimeError as error:  # no CPU among the platforms that JAX may use
        raise NotCountedError(" ".join(str(error).split())) from error
    if isinstance(found, list | tuple):  # one for each device, in some versions of JAX
        found = found[0] if found else None
    if not isinstance(found, Mapping):
        raise NotCountedError("this version of JAX gives no cost analysis")
    return max(float(found.get("flops", 0.0)), 0.0)  # absent if there are none, -1 if unknown


def flops_of(program: Program) -> Flops:
    """FLOPs of one lane of a program: of its agent with its interventions, not of its stream.

    An agent that learns at every step makes one update in it. Of any other, the cheapest way through ``learn`` belongs
    to every step and the rest to the updates of a step that has any (:attr:`~plasticity.core.types.Agent.updates`).
    """
    try:
        act, learn, updates = _counted(program)
    except NotCountedError as error:
        return Flops(why=str(error))
    except Exception as error:  # a primitive of another package that cannot be traced again must not stop a run
        return Flops(why=cut(f"{type(error).__name__}: {' '.join(str(error).split())}", 200))
    if not updates:
        return Flops(act.most, learn.most)
    return Flops(act.most + learn.least, (learn.most - learn.least) / updates)


def _counted(program: Program) -> tuple[Range, Range, int]:
    """FLOPs of ``act`` and ``learn``, and the number of updates of a step at which the agent learns."""
    hyper = {path: jax.ShapeDtypeStruct((), np.float32) for path in program.hyper}
    key = jax.eval_shape(lambda: jax.random.key(0))
    numbers: Any = [jax.ShapeDtypeStruct((), np.int32)] * 4
    clock, now = Clock(*numbers), _timestep(program.spec)
    updates = [0]

    def agent(hyper: Any) -> Agent:
        made = program.build(hyper)
        updates[0] = made.updates
        return made

    def init(hyper: Any, key: Any, timestep: Any) -> Any:
        return agent(hyper).init(key, timestep)

    def act(hyper: Any, key: Any, state: Any, observation: Any, clock: Any) -> Any:
        return agent(hyper).act(key, state, observation, clock)

    def learn(hyper: Any, key: Any, state: Any, pair: Any, clock: Any) -> Any:
        return agent(hyper).learn(key, state, pair, clock)

    state = jax.eval_shape(init, hyper, key, now)
    asked = hyper, key, state, now.observation, clock
    pair = Transition(now, jax.eval_shape(act, *asked), now)
    return count(act, *asked), count(learn, hyper, key, state, pair, clock), updates[0]


def _timestep(spec: StreamSpec) -> TimeStep:
    """The shapes of a time step of all envs of a lane."""

    def of_all(one: Any, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((spec.envs, *one.shape), dtype)

    number = jax.ShapeDtypeStruct((), np.float32)
    observation = jax.tree.map(lambda one: of_all(one, one.dtype), spec.observation)
    return TimeStep(of_all(number, np.int8), of_all(number, np.float32), of_all(number, np.float32), observation)
