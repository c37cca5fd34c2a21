"""Networks given as pure functions instead of a graph, with as much of their wiring as their authors describe."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.errors import shown, suggestion
from plasticity.core.types import (
    Activation,
    Array,
    HiddenLayer,
    Key,
    ModulePath,
    Network,
    Params,
    Sink,
    Source,
    Units,
    no_carry,
    same_params,
)
from plasticity.networks.modules import reset_where
from plasticity.networks.spec import NetworkSpec


def as_graph(given: "NetworkSpec | Functions", user: str = "", otherwise: str = "") -> NetworkSpec:
    """The network's spec.

    ``ValueError`` if it is given as functions; it begins with the ``user`` and ends with what to do ``otherwise``.
    """
    if isinstance(given, Functions):
        needs = "needs a network given as a graph (`NetworkSpec`); this one is given as `Functions`"
        raise ValueError(f"{user} {needs}".strip() + (f" ({otherwise})" if otherwise else ""))
    return given


class Functions(NamedTuple):
    """A network as two pure functions.

    ``init(key)`` returns the parameters: nested dictionaries of float arrays. ``apply(params, observations)`` returns
    the outputs, float32[B, outputs], and the activations by layer, which may be empty. The observations are those of
    the stream (or of the agent's normaliser), ``[B, *shape]``, neither scaled nor converted.

    A network with memory has ``initial(B)``, the carry at the start of an episode, and ``apply(params, observations,
    carry)`` also returns the carry after the step. The caller resets it when an episode starts.

    Everything else is optional and describes what methods and monitors may use. A method that needs what is missing is
    refused before anything is compiled, and so is a method that rewrites a graph (``layer_norm``, say). A module is a
    dictionary with a "kernel" whose last axis is its units and whose second to last axis is its inputs.
    """

    observation: Any  # shape and dtype of one observation, as the member of the family `networks` receives it
    outputs: int
    init: Callable[[Key], Params]
    apply: Callable[..., tuple[Any, ...]]
    layers: tuple[str | HiddenLayer, ...] = ()
    # the hidden layers, by the names of their activations, in order; names alone are a chain that ends at the outputs
    hidden: tuple[ModulePath, ...] = ()  # the modules of the hidden layers, in order
    output_layers: tuple[ModulePath, ...] = ()  # the modules of the output layers
    units: tuple[Units, ...] = ()
    norms: tuple[ModulePath, ...] = ()  # normalisations with a scale
    initial: Callable[[int], Any] = no_carry
    project: Callable[[Params], Params] = same_params  # onto the network's constraints, after every update
    part: str = ""  # its name among joined networks, which an agent gives it


def layer_units(
    name: str,
    size: int,
    source: ModulePath | Source | Sequence[ModulePath | Source],
    *sinks: ModulePath | Sink,
    positions: int = 1,
    activation: bool | Sequence[str] = True,
    copies: int = 1,
    carries: Sequence[ModulePath] = (),
    stream: bool = False,
) -> Units:
    """The wiring of one layer of units: the modules that write them and those that read them.

    Args:
        name: the layer's name.
        size: number of units.
        source: the path of the module that writes the units, or a list of such paths; the first has a kernel. A
            ``Source`` in place of a path names the unit of each entry of the module's last axis, for instance
            ``Source(path, np.tile(np.arange(size), 3))`` for a kernel with the columns of three gates.
        sinks: the paths of the modules whose kernels read the units, those of a recurrent cell included. A ``Sink`` in
            place of a path names the unit of each input row.
        positions: how many inputs of a sink belong to each unit: the positions of a convolution's map that a dense
            layer reads flattened, the channels innermost.
        activation: whether the network returns an activation called ``name``; or the names of all activations that show
            the units.
        copies: features of each unit in an activation, the units innermost.
        carries: the paths of the parts of the carry that have the units on the last axis of every array; ``()`` is the
            path of the whole carry.
        stream: whether the units are those of a residual stream.
    """
    owner = np.arange(size)
    alone = isinstance(source, Source | str) or all(isinstance(part, str) for part in source)
    sources: Any = (source,) if alone else source
    names = ((name,) if activation else ()) if isinstance(activation, bool) else tuple(activation)
    return Units(
        name,
        size,
        tuple(each if isinstance(each, Source) else Source(each, owner) for each in sources),
        tuple(each if isinstance(each, Sink) else Sink(each, np.tile(owner, positions)) for each in sinks),
        names,
        copies,
        stream,
        tuple(carries),
    )


def network_of(given: Functions) -> Network:
    """The network of these functions. ``ValueError`` that names what does not fit, before anything is compiled."""
    remembers = given.initial is not no_carry

    def apply(
        params: Params, observations: Any, carry: Any = (), first: Array | None = None
    ) -> tuple[Any, Mapping[str, Activation], Any]:
        if not remembers:
            return (*given.apply(params, observations), ())
        rows = len(jax.tree.leaves(observations)[0])
        outputs, activations, after = given.apply(params, observations, reset_where(first, given.initial(rows), carry))
        return outputs, activations, after

    _check(given, remembers)
    return Network(
        given.init,
        apply,
        units=tuple(given.units),
        hidden=tuple(given.hidden),
        outputs=tuple(given.output_layers),
        layers=_in_order(given.layers),
        norms=tuple(given.norms),
        initial=given.initial,
        project=given.project,
    )


def _in_order(layers: Iterable[str | HiddenLayer]) -> tuple[HiddenLayer, ...]:
    """The hidden layers; each of those given by name is read by the next."""
    given = tuple(layers)
    return tuple(HiddenLayer(each, len(given) - i) if isinstance(each, str) else each for i, each in enumerate(given))


def _check(given: Functions, remembers: bool) -> None:
    """Trace the functions once on two observations and compare everything described with what they return."""
    params = jax.eval_shape(given.init, jax.random.key(0))
    _check_params(params)
    carry = jax.eval_shape(lambda: given.initial(2))
    observations = jax.ShapeDtypeStruct((2, *given.observation.shape), given.observation.dtype)
    seen: list[Any] = []

    def call(params: Params, observations: Array, carry: Any) -> tuple[()]:
        made = _returned(given.apply(params, observations, *([carry] if remembers else [])), remembers)
        seen.append(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), made))
        return ()

    jax.eval_shape(call, params, observations, carry)
    outputs, activations, *after = seen[0]
    if outputs.shape != (2, given.outputs):
        raise _wrong(f"`apply` must return outputs of shape {(2, given.outputs)} for a batch of 2, got {outputs.shape}")
    if remembers and _form(after[0]) != _form(carry):
        raise _wrong(f"`apply` must return a carry like `initial`: {_text(carry)}; got {_text(after[0])}")
    for layer in _in_order(given.layers):
        _known("layers", layer.name, activations)
    for field in ("hidden", "output_layers"):
        for path in getattr(given, field):
            _kernel(field, params, path)
    for path in given.norms:
        _module("norms", params, path)
    for units in given.units:
        _check_form(units)
    names = [units.name for units in given.units]
    for units in given.units:
        if names.count(units.name) > 1:
            raise _wrong(f"units: {shown(units.name)} is not allowed; two layers have this name")
        _check_units(units, params, activations, carry)


def _wrong(text: str) -> ValueError:
    return ValueError(f"agent.network: {text}")


def _form(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


def _text(tree: Any) -> str:
    return ", ".join(f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(tree)) or "nothing"


def _check_params(params: Params) -> None:
    """Raise a ``ValueError`` unless the parameters are nested dictionaries of float arrays with names as keys."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    if not flat:
        raise _wrong("`init` returns no parameters")
    for path, leaf in flat:
        if not all(isinstance(entry, jax.tree_util.DictKey) and isinstance(entry.key, str) for entry in path):
            raise _wrong(f"`init` must return nested dictionaries of arrays, got {type(params).__name__}")
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise _wrong(f"`init` must return float arrays, got {leaf.dtype} at {jax.tree_util.keystr(path)}")


def _returned(made: Any, remembers: bool) -> tuple[Any, ...]:
    """What ``apply`` returned; ``ValueError`` if its form is wrong."""
    wanted = "outputs, activations and the carry" if remembers else "outputs and activations"
    if not isinstance(made, tuple) or len(made) != 2 + remembers:
        raise _wrong(f"`apply` must return {wanted}, got {type(made).__name__} of length {_length(made)}")
    outputs, activations = made[:2]
    if not isinstance(outputs, jax.Array | np.ndarray):
        raise _wrong(f"`apply` must return an array of outputs, got {type(outputs).__name__}")
    if not isinstance(activations, Mapping) or not all(isinstance(x, Activation) for x in activations.values()):
        raise _wrong("`apply` must return the activations as a dictionary of `Activation(pre, post)`, empty if unknown")
    return made


def _length(made: Any) -> str:
    return str(len(made)) if hasattr(made, "__len__") else "1"


def _known(field: str, name: str, activations: Mapping[str, Any]) -> None:
    if name not in activations:
        have = f"{', '.join(activations)}{suggestion(name, activations)}" if activations else "nothing"
        raise _wrong(f"{field}: {shown(name)} is not allowed; `apply` returns the activations of {have}")


def _module(field: str, tree: Params, path: ModulePath, of: str = "a module of the parameters") -> Any:
    """The part of nested dictionaries under the path; ``ValueError`` if there is none."""
    if isinstance(path, str):
        raise _wrong(f"{field}: {shown(path)} is not allowed; a path is a tuple of names, such as ({shown(path)},)")
    part = tree
    for name in path:
        if not isinstance(part, Mapping) or name not in part:
            known = sorted({"/".join(each[:i]) for each in _paths(tree) for i in range(1, len(each) + 1)})
            whole = "/".join(map(str, path))
            raise _wrong(f"{field}: {shown(whole)} is not {of}{suggestion(whole, known)}")
        part = part[name]
    return part


def _paths(tree: Any) -> list[ModulePath]:
    """The paths through nested dictionaries to everything that is not one."""
    if not isinstance(tree, Mapping):
        return [()]
    return [(str(name), *rest) for name, part in tree.items() for rest in _paths(part)]


def _kernel(field: str, params: Params, path: ModulePath) -> Any:
    """The kernel of the module under the path; ``ValueError`` if there is none."""
    module = _module(field, params, path)
    kernel = module.get("kernel") if isinstance(module, Mapping) else None
    if kernel is None or len(kernel.shape) < 2:
        raise _wrong(f"{field}: {shown('/'.join(path))} has no kernel with an axis of inputs and one of units")
    return kernel


def _check_form(units: Any) -> None:
    """Raise a ``ValueError`` unless this is ``Units`` of sources and sinks."""
    if not isinstance(units, Units):
        raise _wrong(f"units: {shown(units)} is not allowed; must be `Units` or made by `layer_units`")
    for field, kind in (("sources", Source), ("sinks", Sink)):
        for each in getattr(units, field):
            if not isinstance(each, kind):
                raise _wrong(f"units.{units.name}.{field}: {shown(each)} is not allowed; must be a `{kind.__name__}`")


def _check_units(units: Units, params: Params, activations: Mapping[str, Activation], carry: Any) -> None:
    """Raise a ``ValueError`` if the wiring does not fit the parameters, the activations or the carry."""
    field = f"units.{units.name}"
    if not units.sources or not units.sinks:
        raise _wrong(f"{field}: needs a source and a sink")
    _kernel(field, params, units.path)
    for source in units.sources:
        module = _module(field, params, source.path)
        own = {name: part for name, part in module.items() if name not in source.shared} if source.shared else module
        for leaf in jax.tree.leaves(own):
            _owned(field, source.path, source.owner, leaf.shape[-1] if leaf.shape else 0, units.size)
    for sink in units.sinks:
        _owned(field, sink.path, sink.owner, _kernel(field, params, sink.path).shape[-2], units.size)
    for name in units.activations:
        _known(field, name, activations)
        features = activations[name].post.shape[-1]
        if features != units.size * units.copies:
            raise _wrong(f"{field}: {units.size} units do not fit the {features} features of the activation {name}")
    for path in units.carries:
        leaves = jax.tree.leaves(_module(f"{field}.carries", carry, path, "a part of the carry"))
        if not leaves:
            raise _wrong(f"{field}.carries: {shown(list(path))} is not allowed; the carry has no arrays there")
        for leaf in leaves:
            if leaf.shape[-1] != units.size:
                raise _wrong(f"{field}.carries: {units.size} units do not fit the last axis of {list(leaf.shape)}")


def _owned(field: str, path: ModulePath, owner: np.ndarray, length: int, size: int) -> None:
    """Raise a ``ValueError`` unless there is an owner for each entry and all units own equally many."""
    if not isinstance(owner, np.ndarray) or owner.ndim != 1 or not np.issubdtype(owner.dtype, np.integer):
        raise _wrong(f"{field}: the owners for {shown('/'.join(path))} must be a NumPy array of integers with one axis")
    counts = np.bincount(owner[owner >= 0], minlength=size)
    if len(owner) != length or len(counts) != size or len(set(counts.tolist())) != 1 or not counts[0]:
        raise _wrong(
            f"{field}: {len(owner)} owners of {size} units do not fit {shown('/'.join(path))}, which has {length} "
            "entries; each unit must own equally many"
        )
