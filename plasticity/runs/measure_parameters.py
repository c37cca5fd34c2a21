"""Apply monitors to parameters that another program trained, on a batch of observations.

A monitor sees a ``Probe`` as in a run: the network with these parameters, the batch, and a fresh network to compare
with. What another program does not hand over is not made up:

* the task loss comes from targets; without any, a monitor that differentiates a loss is refused;
* the optimizer has no state: numbers that depend on it are left out, and a monitor that has no others is refused;
* states start from the first set of parameters, so a monitor of change needs at least two.

Every set of parameters is measured with the same random numbers, so that a history shows the parameters alone.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity.config.documents import locate, replaced, value_of
from plasticity.config.fields import LARGEST
from plasticity.config.settings import MemberConfig, Parser, paths
from plasticity.core.errors import NoSuchPlaceError, UserError, report, shown
from plasticity.core.types import Array, Clock, Key, Learner, Metrics, Optimizer, Params, Probe
from plasticity.engine.lanes import lane_keys
from plasticity.monitors.base import Monitor, checked_monitor, merged_metrics
from plasticity.runs import described_network, parameter_files, parameter_mapping
from plasticity.runs.building import checked, monitor_of
from plasticity.runs.depends import depend_on
from plasticity.runs.described_network import Described, Prepared
from plasticity.runs.members import registry
from plasticity.runs.parameter_files import Batch
from plasticity.runs.parameter_mapping import ParameterMapping

LOSSES = ("cross_entropy", "squared")
Loss = Literal["cross_entropy", "squared"]
Row = Callable[[Array, Any, Any], Array]  # scores [B, n], targets, actions -> losses [B]
DEFAULT = "adam"  # with which copies are trained


class MeasuredParameters(NamedTuple):
    """Measurements of one set of parameters."""

    name: str
    metrics: Mapping[str, float]  # all NaN if a parameter is not finite


class _Chosen(NamedTuple):
    """The monitors and the optimizer that they train with."""

    paths: tuple[str, ...]
    monitors: tuple[Monitor, ...]
    optimizer: Optimizer
    given: bool  # whether the user named the optimizer


def measure(
    parameters: Mapping[str, Any],
    monitors: Sequence[Any],
    *,
    network: Any,
    observations: Any,
    targets: Any = None,
    actions: Any = None,
    mapping: Any = None,
    loss: Loss | None = None,
    optimizer: Any = None,
    settings: Sequence[str] = (),
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> list[MeasuredParameters]:
    """Measure sets of parameters, in the order in which they are given.

    Args:
        parameters: by name, each a file (see :mod:`plasticity.runs.parameter_files`), or arrays by name, nested or not.
        monitors: names, or mappings as in a config.
        network: a mapping (see :mod:`plasticity.runs.described_network`), a ``NetworkSpec`` or ``Functions``.
        observations: ``[B, ...]``, as the network reads them, or a :class:`Batch`.
        targets: int[B], classes, or float ``[B]`` or ``[B, n]``; None: there is no loss.
        actions: int[B]: the outputs that targets ``[B]`` belong to.
        mapping: a mapping (see :mod:`plasticity.runs.parameter_mapping`); None: the arrays have our names and axes.
        loss: "cross_entropy" or "squared"; None: by the type of the targets.
        optimizer: a name or a mapping as in a config; None: ``adam`` trains copies, and its step size is not reported.
        settings: ``monitors.NAME.KEY=VALUE``.
        seed: of the numbers that monitors draw, 0 ... 2^31 - 1.
        say: receives a line for each number that is left out and for each set of parameters that is not finite.

    Returns:
        The metrics of each set, in the same order.

    Raises:
        UserError: something does not fit, or a monitor needs what is missing; the message names it.
    """
    if not parameters:
        raise UserError("parameters: give at least one set (a file, or arrays by name)")
    if not 0 <= seed <= LARGEST:
        raise UserError(f"seed: {seed} is not allowed; must be an integer in [0, {LARGEST}]")
    batch = observations if isinstance(observations, Batch) else Batch(observations, targets, actions)
    batch = parameter_files.checked_batch(batch)
    described = network if isinstance(network, Described) else described_network.parse(network)
    how = mapping if isinstance(mapping, ParameterMapping) or mapping is None else parameter_mapping.parse(mapping)
    chosen = _chosen(monitors, settings, optimizer)
    first = batch.observations
    observation = jax.ShapeDtypeStruct(first.shape[1:], jnp.asarray(first[:1]).dtype)
    prepared = described_network.prepare(described, observation, _hiding(chosen), len(first))
    row = _row_loss(batch, loss, described.outputs[described.scores], described.meaning)
    return _measured(parameters, how, prepared, chosen, batch, row, seed, say)


def _chosen(monitors: Sequence[Any], settings: Sequence[str], optimizer: Any) -> _Chosen:
    """Parse and build the monitors and the optimizer."""
    document: Any = {"monitors": list(monitors)}
    if not document["monitors"]:
        raise UserError(f"--monitors: name at least one; known: {', '.join(registry().names('monitors'))}")
    for text in settings:
        document = _overridden(document, text)
    parser = Parser(registry())
    members = parser.members("monitors", document["monitors"], ("monitors",))
    rule = parser.member("optimizers", DEFAULT if optimizer is None else optimizer, ("optimizer",))
    if parser.problems or rule is None:
        raise report(parser.problems, lambda at: "")
    labels = paths("monitors", members)
    built = tuple(map(_monitor, labels, members))
    return _Chosen(labels, built, checked("optimizer", rule.build()), optimizer is not None)


def _overridden(document: Any, text: str) -> Any:
    key, equals, value = text.partition("=")
    if not equals or not key.startswith("monitors."):
        raise UserError(f"command line: {text}: only settings of monitors are allowed: monitors.NAME.KEY=VALUE")
    try:
        place = locate(document, key)
    except NoSuchPlaceError as error:
        raise UserError(f"command line: {key}: {error}") from None
    return replaced(document, place, value_of(key.rpartition(".")[2], value, f"command line: {key}"))


def _monitor(label: str, member: MemberConfig) -> Monitor:
    made: Monitor = checked(label, monitor_of, member, member.build())
    return checked_monitor(label, member.kind, made)


def _hiding(chosen: _Chosen) -> Optimizer:
    """The optimizer; one that the user did not name reports a step size that counts as part of its state."""
    if chosen.given:
        return chosen.optimizer
    rule = chosen.optimizer

    def learning_rate(state: Any) -> Array:
        return rule.learning_rate(state) + 0 * jnp.sum(jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(state)]))

    return rule._replace(learning_rate=learning_rate)


def _row_loss(batch: Batch, loss: str | None, outputs: int, meaning: str) -> Row | None:
    """The loss of each row; None without targets. ``UserError`` if the targets or the outputs do not fit it."""
    if loss is not None and loss not in LOSSES:
        raise UserError(f"loss: {shown(loss)} is not allowed; must be one of {', '.join(LOSSES)}")
    if batch.targets is None:
        if loss is not None:
            raise UserError(f"loss: {loss} is not allowed without targets")
        return None
    targets, shape = batch.targets, list(batch.targets.shape)
    whole = bool(np.issubdtype(targets.dtype, np.integer))
    kind = loss or ("cross_entropy" if whole else "squared")
    if (kind == "cross_entropy") != (meaning == "logits"):  # the Gauss-Newton matrix takes the loss from the meaning
        fits = "logits" if kind == "cross_entropy" else "values or prediction"
        raise UserError(f"loss: {kind} is not allowed with meaning: {meaning}; the outputs must be {fits}")
    if kind == "cross_entropy":
        if not whole or targets.ndim != 1 or batch.actions is not None:
            raise UserError(
                f"targets: {targets.dtype}{shape} do not fit loss cross_entropy; must be classes [B], without actions"
            )
        if targets.min() < 0 or targets.max() >= outputs:
            raise UserError(
                f"targets: {targets.min()} ... {targets.max()} are not allowed; must be classes 0 ... {outputs - 1}"
            )
        return lambda scores, wanted, _: optax.softmax_cross_entropy_with_integer_labels(scores, wanted)
    if batch.actions is not None:
        if targets.ndim != 1 or batch.actions.min() < 0 or batch.actions.max() >= outputs:
            raise UserError(f"targets: {shape} with actions need the shape [B], and actions 0 ... {outputs - 1}")
        return lambda scores, wanted, taken: (jnp.take_along_axis(scores, taken[:, None], 1)[:, 0] - wanted) ** 2
    if targets.shape[1:] != (outputs,) and not (targets.ndim == 1 and outputs == 1):
        raise UserError(f"targets: {shape} do not fit {outputs} outputs; give [B, {outputs}], or [B] with actions")
    return lambda scores, wanted, _: jnp.mean((scores - wanted.reshape(scores.shape)) ** 2, axis=-1)


def _probe(prepared: Prepared, params: Params, opt_state: Any, batch: Batch, row: Row | None) -> Probe:
    """What monitors read: the parameters as a learner, the batch, and the loss, if there is one."""
    observations, targets, actions = batch

    def losses(params: Params) -> Array:
        if row is None:
            raise ValueError("needs a loss; give `targets` beside the observations (classes or numbers)")
        return row(prepared.scores(params, observations), targets, actions)

    clock, valid = Clock(*[jnp.zeros((), jnp.int32)] * 4), jnp.ones(len(observations), bool)
    learner = Learner(params, (), opt_state)
    meaning = prepared.described.meaning
    return prepared.core.probe(learner, observations, losses, valid, prepared.scores, meaning, clock)


def _measured(
    parameters: Mapping[str, Any],
    how: ParameterMapping | None,
    prepared: Prepared,
    chosen: _Chosen,
    batch: Batch,
    row: Row | None,
    seed: int,
    say: Callable[[str], None],
) -> list[MeasuredParameters]:
    def compute(
        opt_state: Any, params: Params, states: tuple[Any, ...], key: Key, batch: Batch
    ) -> tuple[tuple[Any, ...], tuple[Metrics, ...]]:
        probe = _probe(prepared, params, opt_state, batch, row)
        pairs = zip(chosen.monitors, states, strict=True)
        made = [each.measure(jax.random.fold_in(key, i), state, probe) for i, (each, state) in enumerate(pairs)]
        return tuple(state for state, _ in made), tuple(metrics for _, metrics in made)

    fixed = lane_keys(jnp.int32(seed)).learner, jax.tree.map(jnp.asarray, batch)  # the same for all
    found: list[MeasuredParameters] = []
    states: tuple[Any, ...] | None = None
    step: Callable[..., Any] | None = None
    read = {name: _read(name, source, how, prepared) for name, source in parameters.items()}  # all, before any result
    for name, params in read.items():
        if states is None:
            states = _first_states(chosen, params, len(parameters))
            kept = _kept(compute, chosen, prepared, params, states, fixed, say)
            step = _compiled(compute, prepared, kept)
        assert step is not None
        states, metrics = step(params, states, *fixed)
        numbers = {each: float(value) for each, value in jax.device_get(metrics).items()}
        if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(params)):
            say(f"{name}: has parameters that are not finite; it has no measurements")
            numbers = dict.fromkeys(numbers, float("nan"))
        found.append(MeasuredParameters(name, numbers))
    return found


def _read(name: str, source: Any, how: ParameterMapping | None, prepared: Prepared) -> Params:
    """The parameters from a file or from arrays."""
    if isinstance(source, str | Path):
        entries = parameter_files.read(source)
    elif isinstance(source, Mapping):
        entries = dict(parameter_files.flattened(source))
    else:
        raise UserError(f"{name}: {type(source).__name__} is not allowed; must be a file, or arrays by name")
    made = parameter_mapping.applied(how, entries, prepared.wanted, name)
    params: Params = jax.tree.unflatten(prepared.tree, [jnp.asarray(made[path]) for path in prepared.wanted.shapes])
    return params


def _first_states(chosen: _Chosen, params: Params, count: int) -> tuple[Any, ...]:
    """The monitors' states; ``UserError`` for a monitor of change if there is nothing to compare with."""
    try:
        states = tuple(each.init(params) for each in chosen.monitors)
    except ValueError as error:
        raise UserError(str(error)) from error
    for path, state in zip(chosen.paths, states, strict=True):
        if count == 1 and jax.tree.leaves(state):
            raise UserError(
                f"{path}: measures a change, from the first set of parameters on; give at least two sets, the initial "
                "one first"
            )
    return states


def _kept(
    compute: Callable[..., Any],
    chosen: _Chosen,
    prepared: Prepared,
    params: Params,
    states: tuple[Any, ...],
    fixed: tuple[Key, Batch],
    say: Callable[[str], None],
) -> set[str]:
    """The metrics that do not depend on the optimizer's state. ``UserError`` for a monitor without any."""

    def written(opt_state: Any, *others: Any) -> tuple[Metrics, ...]:
        made: tuple[Metrics, ...] = compute(opt_state, *others)[1]
        merged_metrics(zip(chosen.paths, made, strict=True))
        return made

    try:
        reads = depend_on(written, prepared.core.optimizer.init(params), params, states, *fixed)
    except ValueError as error:
        raise UserError(str(error)) from error
    advice = "" if chosen.given else " (if its step size is enough, name it: `--optimizer`)"
    kept: set[str] = set()
    for path, metrics in zip(chosen.paths, reads, strict=True):
        if not metrics:
            raise UserError(f"{path}: measures nothing in this network")
        left = [name for name, depends in metrics.items() if depends]
        if len(left) == len(metrics):
            raise UserError(f"{path}: needs the optimizer and its state, which parameters do not have{advice}")
        for name in left:
            say(f"{name}: left out; needs the optimizer and its state{advice}")
        kept |= set(metrics) - set(left)
    return kept


def _compiled(compute: Callable[..., Any], prepared: Prepared, kept: set[str]) -> Callable[..., Any]:
    """``compute`` for parameters alone, compiled, with these metrics."""

    @jax.jit
    def step(params: Params, *others: Any) -> tuple[tuple[Any, ...], Metrics]:
        after, made = compute(prepared.core.optimizer.init(params), params, *others)
        return after, {name: value for metrics in made for name, value in metrics.items() if name in kept}

    return step
