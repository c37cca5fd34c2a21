"""From the arrays of another program to the parameters of a network, as a mapping file says.

```yaml
parameters:
  hidden_0/kernel: {from: network.0.weight, layout: oihw}
  hidden_0/bias: network.0.bias
  hidden_3/kernel: {from: network.7.weight, layout: oi, flattened: channels_first}
ignore: [optimizer.*]
```

Every parameter of the network needs one line, and every array of the file is used or ignored.
"""

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from plasticity.core.errors import UserError, listed, shown, suggestion, unknown

KEYS = ("parameters", "ignore")
ROOM = 400  # characters for the names of parameters that a mapping lacks
RULE = ("from", "layout", "flattened", "value")
ORDERS = ("channels_first", "channels_last")
OURS = {2: "io", 4: "hwio"}  # the axes of our kernels: height, width, inputs, outputs


class Rule(NamedTuple):
    """Where one parameter comes from."""

    entry: str | None = None  # name of the array; None: `value` everywhere
    layout: str | None = None  # its axes by letter, such as oihw; None: as ours
    flattened: str | tuple[int, int, int] | None = None
    # of a kernel that reads a flattened map: the order in which the other program flattens it, or channels_first with
    # the map's channels, height and width
    value: float = 0.0


class ParameterMapping(NamedTuple):
    """The content of a mapping file."""

    parameters: Mapping[str, Rule]  # by the path of ours
    ignore: tuple[str, ...] = ()  # names or patterns of arrays that are not used


class Wanted(NamedTuple):
    """What a network needs."""

    shapes: Mapping[str, tuple[int, ...]]  # of each parameter, by its path
    maps: Mapping[str, tuple[int, ...]]  # [height, width, channels] of the maps that parameters read flattened


def parse(raw: Any, source: str = "mapping") -> ParameterMapping:
    """The mapping from plain data. ``UserError`` for unknown keys and values of another form."""
    if not isinstance(raw, Mapping):
        raise UserError(f"{source}: must have the keys {', '.join(KEYS)}")
    for key in raw:
        if key not in KEYS:
            raise UserError(f"{source}: {unknown(f'key `{key}`', str(key), KEYS, 'allowed')}")
    given, ignore = raw.get("parameters"), raw.get("ignore") or ()
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"{source}: parameters: must say for each parameter of the network where it comes from")
    if not isinstance(ignore, list | tuple) or not all(isinstance(name, str) for name in ignore):
        raise UserError(f"{source}: ignore: {shown(ignore)} is not allowed; must be a list of names or patterns")
    rules = {str(name): _rule(each, f"{source}: parameters.{name}") for name, each in given.items()}
    return ParameterMapping(rules, tuple(ignore))


def _rule(raw: Any, place: str) -> Rule:
    if isinstance(raw, str):
        return Rule(raw)
    if not isinstance(raw, Mapping):
        raise UserError(f"{place}: {shown(raw)} is not allowed; must be the name of an entry or {{from: NAME, ...}}")
    for key in raw:
        if key not in RULE:
            raise UserError(f"{place}: {unknown(f'key `{key}`', str(key), RULE, 'allowed')}")
    if ("from" in raw) == ("value" in raw):
        raise UserError(f"{place}: needs either `from`, the name of an entry, or `value`, a number")
    if "value" in raw:
        value = raw["value"]
        real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not real or len(raw) > 1:
            raise UserError(f"{place}: {shown(dict(raw))} is not allowed; `value` is one number, without other keys")
        return Rule(None, value=float(value))
    entry, layout = raw["from"], raw.get("layout")
    if not isinstance(entry, str):
        raise UserError(f"{place}.from: {shown(entry)} is not allowed; must be the name of an entry")
    if layout is not None and sorted(str(layout)) not in [sorted(each) for each in OURS.values()]:
        letters = "the letters of io (a matrix) or hwio (a convolution) in the order of the entry's axes"
        raise UserError(f"{place}.layout: {shown(layout)} is not allowed; must be {letters}, such as oi or oihw")
    return Rule(entry, layout, _order(raw.get("flattened"), place))


def _order(raw: Any, place: str) -> str | tuple[int, int, int] | None:
    if raw is None or raw in ORDERS:
        return raw  # type: ignore[no-any-return]
    whole = isinstance(raw, list | tuple) and all(isinstance(x, int) and not isinstance(x, bool) and x > 0 for x in raw)
    if not whole or len(raw) != 3:
        allowed = f"must be {' or '.join(ORDERS)}, or channels, height and width, such as [64, 7, 7]"
        raise UserError(f"{place}.flattened: {shown(raw)} is not allowed; {allowed}")
    return tuple(raw)  # type: ignore[return-value]


def applied(
    mapping: ParameterMapping | None, entries: Mapping[str, Any], wanted: Wanted, source: str, by: str = "mapping"
) -> dict[str, np.ndarray]:
    """The parameters of a network by their paths, float32.

    Args:
        mapping: None: the entries have the paths and axes of the parameters themselves.
        entries: the arrays of the other program by name.
        wanted: what the network needs.
        source: the name of these arrays, for messages.
        by: the name of the mapping, for messages.

    Raises:
        UserError: a parameter has no line or an unknown name, an array is missing, not used, not of real numbers, or of
            another shape, or a kernel reads a flattened map and the mapping does not give its order.
    """
    rules = {name: Rule(name) for name in wanted.shapes} if mapping is None else mapping.parameters
    if mapping is not None:
        _check_names(rules, wanted, by)
    _check_used(rules, mapping.ignore if mapping else (), entries, source, mapping is None)
    made: dict[str, np.ndarray] = {}
    for name, shape in wanted.shapes.items():
        rule, place = rules[name], f"{source}: {by}: parameters.{name}" if mapping else source
        if rule.entry is None:
            made[name] = np.full(shape, rule.value, np.float32)
            continue
        flat = wanted.maps.get(name)
        if mapping and flat is not None and math.prod(flat[:-1]) > 1 and rule.flattened is None:
            raise UserError(
                f"{place}: reads a flattened map of {list(flat)} (height, width, channels); say `flattened: "
                f"{ORDERS[0]}` (PyTorch) or `flattened: {ORDERS[1]}`"
            )
        entry = np.asarray(entries[rule.entry])
        if mapping and rule.layout is None and _is_ambiguous(entry.shape):
            raise UserError(
                f"{place}: the entry {shown(rule.entry)} has the shape {list(entry.shape)}, which does not show its "
                "axes; say `layout: oi` or `layout: oihw` (PyTorch), `layout: io` or `layout: hwio` (ours)"
            )
        made[name] = _fitted(rule, entry, shape, flat, place)
    return made


def _is_ambiguous(shape: tuple[int, ...]) -> bool:
    """Whether a kernel has the same shape with its axes as PyTorch has them and as we have them."""
    if len(shape) == 2:
        return shape[0] == shape[1]
    return len(shape) == 4 and shape == (shape[2], shape[3], shape[1], shape[0])


def _check_names(rules: Mapping[str, Rule], wanted: Wanted, by: str) -> None:
    for name in rules:
        if name not in wanted.shapes:
            raise UserError(f"{by}: {unknown(f'parameter `{name}`', name, wanted.shapes, 'the network has')}")
    missing = [name for name in wanted.shapes if name not in rules]
    if missing:
        forms = [f"{name} {list(wanted.shapes[name])}" for name in missing]
        shown_all = ", ".join(forms) if len(", ".join(forms)) <= ROOM else listed(forms)
        raise UserError(f"{by}: parameters: the network also has {shown_all}; say where they come from")


def _check_used(
    rules: Mapping[str, Rule], ignore: Sequence[str], entries: Mapping[str, Any], source: str, direct: bool
) -> None:
    asked = [rule.entry for rule in rules.values() if rule.entry is not None]
    used = set(asked)
    twice = next((name for name in asked if asked.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{source}: the entry {shown(twice)} is mapped to two parameters")
    for name in sorted(used - set(entries)):
        close = suggestion(name, entries)
        advice = "; a mapping file says which entry is which parameter (`--mapping`)" if direct else ""
        raise UserError(f"{source}: has no entry {shown(name)}; it has {listed(list(entries))}{close}{advice}")
    unused = [name for name in entries if name not in used and not _is_ignored(name, ignore)]
    if unused:
        advice = "give a mapping file" if direct else "map them, or name them under `ignore`"
        raise UserError(f"{source}: these entries are not used: {listed(unused)}; {advice}")


def _is_ignored(name: str, ignore: Sequence[str]) -> bool:
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in ignore)


def _fitted(
    rule: Rule, entry: np.ndarray, shape: tuple[int, ...], flat: tuple[int, ...] | None, place: str
) -> np.ndarray:
    """One entry as a parameter of this shape."""
    if not jnp.issubdtype(entry.dtype, jnp.floating):
        raise UserError(f"{place}: the entry {shown(rule.entry)} has {entry.dtype}; must be real numbers")
    array, layout = entry.astype(np.float32), rule.layout
    if layout is not None:
        if len(layout) != entry.ndim or len(layout) != len(shape):
            axes = f"{list(entry.shape)}, the parameter {list(shape)}"
            raise UserError(f"{place}.layout: {layout} does not fit; the entry {shown(rule.entry)} has the axes {axes}")
        array = array.transpose([layout.index(axis) for axis in OURS[len(layout)]])
    if array.shape != shape:
        arranged = f" (as {OURS[len(layout)]}: {list(array.shape)})" if layout else ""
        raise UserError(
            f"{place}: the entry {shown(rule.entry)} has the shape {list(entry.shape)}{arranged}; the network needs "
            f"{list(shape)}"
        )
    return array if rule.flattened is None else _permuted(rule.flattened, array, flat, place)


def _permuted(order: Any, kernel: np.ndarray, flat: tuple[int, ...] | None, place: str) -> np.ndarray:
    """A kernel ``[inputs, outputs]``, or numbers ``[inputs]``, of a map's channels first, with the channels last."""
    if order == ORDERS[1]:
        return kernel
    if order == ORDERS[0]:
        if flat is None:
            raise UserError(
                f"{place}.flattened: {order} is not allowed here, because the network does not say that this layer "
                "reads a map; give its channels, height and width, such as [64, 7, 7]"
            )
        order = (flat[-1], *flat[:-1])
    if flat is not None and tuple(order) != (flat[-1], *flat[:-1]):
        raise UserError(
            f"{place}.flattened: {list(order)} does not fit a map of {list(flat)} (height, width, channels)"
        )
    if kernel.ndim > 2 or math.prod(order) != len(kernel):
        axes = list(kernel.shape)
        raise UserError(
            f"{place}.flattened: {list(order)} does not fit; the parameter has the axes {axes} (inputs, outputs)"
        )
    return kernel.reshape(*order, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
