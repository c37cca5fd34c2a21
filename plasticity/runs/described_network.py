"""A network whose parameters another program trained, described in a config's words or by a function.

```yaml
network: {kind: nature}            # as in a config, or module:function
outputs: {policy: 6, value: 1}     # or one number
meaning: logits                    # of the scores, which are the first outputs: values, logits or prediction
```

The optional key ``trunk`` is ``shared`` (as here, the default) or ``separate`` (a network for each output); ``gains``
are those of the output layers of a fresh network.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from plasticity.agents.actor_critic import separate, shared
from plasticity.agents.base import AgentCore, Meaning, assemble_built, built
from plasticity.config.settings import Parser
from plasticity.core.errors import UserError, cut, report, shown, suggestion, unknown
from plasticity.core.types import Array, Network, Optimizer, Params
from plasticity.interventions.base import Intervention
from plasticity.networks.functions import Functions
from plasticity.networks.graph import OBSERVATION
from plasticity.networks.nonlinearity import own_activation
from plasticity.networks.operations import Activate, Dense, Flatten, Normalise, Scale, Shift, Sphere
from plasticity.networks.spec import Head, NetworkSpec, nodes_of, shapes
from plasticity.runs.members import registry
from plasticity.runs.parameter_mapping import Wanted

KEYS = ("network", "outputs", "trunk", "gains", "meaning")
NEEDED = ("network", "outputs", "meaning")
TRUNKS, MEANINGS = ("shared", "separate"), ("values", "logits", "prediction")
Elementwise = Activate | Normalise | Scale | Shift | Sphere  # nodes that keep all features in their places
Make = Callable[[Any, int], NetworkSpec | Functions]


class Described(NamedTuple):
    """A network before the shape of its observations is known."""

    make: Make
    outputs: Mapping[str, int]  # by name; "" for the only one
    trunk: str = "shared"
    gains: Mapping[str, float | None] = {}
    meaning: Meaning = "prediction"
    source: str = "network"

    @property
    def named(self) -> bool:
        """Whether its outputs have names, and are therefore a mapping."""
        return "" not in self.outputs

    @property
    def scores(self) -> str:
        """The name of the outputs that decide."""
        return next(iter(self.outputs))


def parse(raw: Any, source: str = "network") -> Described:
    """A description from plain data, a ``NetworkSpec`` or ``Functions``. ``UserError`` for anything else."""
    if isinstance(raw, NetworkSpec | Functions):
        return Described(lambda observation, outputs: raw, {"": raw.outputs}, source=source)
    if not isinstance(raw, Mapping):
        raise UserError(f"{source}: must have the keys network and outputs")
    for key in raw:
        if key not in KEYS:
            raise UserError(f"{source}: {unknown(f'key `{key}`', str(key), KEYS, 'allowed')}")
    for key in NEEDED:
        if raw.get(key) is None:
            raise UserError(f"{source}: `{key}` is missing")
    outputs, trunk, meaning = _outputs(raw["outputs"], source), raw.get("trunk", "shared"), raw["meaning"]
    _check(f"{source}: trunk", trunk, TRUNKS)
    _check(f"{source}: meaning", meaning, MEANINGS)
    first = next(iter(outputs))
    if meaning == "logits" and first not in ("", "policy"):
        raise UserError(
            f"{source}: outputs: {shown(first)} is not allowed; logits, the first ones, are called `policy`"
        )
    if "" in outputs and ("trunk" in raw or "gains" in raw):
        raise UserError(f"{source}: trunk and gains are for several outputs, such as outputs: {{policy: 6, value: 1}}")
    gains = _gains(raw.get("gains") or {}, outputs, source)
    return Described(_maker(raw["network"], source), outputs, trunk, gains, meaning, source)


def _check(place: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        close = suggestion(str(value), known)
        raise UserError(f"{place}: {shown(value)} is not allowed; must be one of {', '.join(known)}{close}")


def _outputs(raw: Any, source: str) -> dict[str, int]:
    outputs = raw if isinstance(raw, Mapping) and raw else {"": raw}
    for name, number in outputs.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            at = f"{source}: outputs" + (f".{name}" if name else "")
            raise UserError(f"{at}: {shown(number)} is not allowed; must be an integer of at least 1")
    return {str(name): number for name, number in outputs.items()}


def _gains(raw: Any, outputs: Mapping[str, int], source: str) -> dict[str, float | None]:
    if not isinstance(raw, Mapping):
        raise UserError(f"{source}: gains: {shown(raw)} is not allowed; must be a number for each output")
    for name, value in raw.items():
        if name not in outputs:
            raise UserError(f"{source}: gains: {unknown(f'output `{name}`', str(name), outputs)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{source}: gains.{name}: {shown(value)} is not allowed; must be a number")
    return {name: raw.get(name) for name in outputs}


def _maker(raw: Any, source: str) -> Make:
    """The function that makes the network: a member of the family `networks`, or ``module:function``."""
    if isinstance(raw, str) and ":" in raw:
        return function(raw, source)
    if callable(raw):
        return raw  # type: ignore[no-any-return]
    parser = Parser(registry())
    member = parser.member("networks", raw, ("network",))
    if parser.problems or member is None:
        raise report(parser.problems, lambda at: source)
    return member.build({}, "network")


def function(name: str, source: str) -> Make:
    """The function ``module:function``; ``UserError`` if it cannot be imported."""
    module, _, attribute = name.partition(":")
    if not module or module.startswith("."):
        raise UserError(f"{source}: {shown(name)} is not allowed; must be module:function, with an absolute module")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # the module is the user's
        reason = cut(" ".join(f"{type(error).__name__}: {error}".split()), 160)
        raise UserError(f"{source}: {shown(name)}: {reason}") from None
    made = getattr(found, attribute, None)
    if not callable(made):
        names = [each for each in vars(found) if not each.startswith("_")]
        raise UserError(f"{source}: {shown(name)}: {module} has no function {attribute}{suggestion(attribute, names)}")
    return made  # type: ignore[no-any-return]


class Prepared(NamedTuple):
    """A network that is built, with everything that a probe needs."""

    core: AgentCore
    described: Described
    wanted: Wanted
    tree: Any  # the structure of the parameters, whose leaves have the order of `wanted.shapes`

    def scores(self, params: Params, observations: Any) -> Array:
        """The outputs that decide, float32[B, n]."""
        found = self.core.network.forward(params, observations)[0]
        made: Array = found[self.described.scores] if self.described.named else found
        return made


def prepare(described: Described, observation: Any, optimizer: Optimizer, rows: int) -> Prepared:
    """Build the network for observations of this shape and dtype. ``UserError`` if that is not possible."""
    try:
        network, maps = _built(described, observation)
        if network.remembers:
            raise ValueError("has memory; only networks without can be measured")
        core = assemble_built(network, optimizer, Intervention(), minibatch=rows)
        shapes = jax.eval_shape(network.init, jax.random.key(0))
    except ValueError as error:
        raise UserError(f"{described.source}: {str(error).removeprefix('agent.').removeprefix('network: ')}") from error
    flat, tree = jax.tree_util.tree_flatten_with_path(shapes)
    named = {"/".join(str(key.key) for key in path): tuple(leaf.shape) for path, leaf in flat}
    return Prepared(core, described, Wanted(named, _of_parameters(maps, named)), tree)


def _built(described: Described, observation: Any) -> tuple[Network, dict[str, tuple[int, ...]]]:
    """The network, and the maps that are read flattened, by the path of a kernel or a module."""
    outputs, gains = described.outputs, described.gains

    def make(observation: Any, number: int) -> NetworkSpec | Functions:
        made = described.make(observation, number)
        if not isinstance(made, NetworkSpec | Functions):
            raise ValueError(f"the function must return a NetworkSpec or Functions, got {type(made).__name__}")
        shape = getattr(made.observation, "shape", made.observation)
        if tuple(shape) != tuple(observation.shape):
            raise ValueError(f"reads observations of {list(shape)}; the batch has {list(observation.shape)}")
        if made.outputs != number:
            raise ValueError(f"the function must make a network with {number} outputs; this one has {made.outputs}")
        return made

    if not described.named:
        given = make(observation, outputs[""])
        return built(given, Intervention()), _maps(given)
    if described.trunk == "separate":
        parts = {name: make(observation, number) for name, number in outputs.items()}
        found = {f"{name}/{path}": shape for name, each in parts.items() for path, shape in _maps(each).items()}
        return separate(make, observation, outputs, gains, Intervention()), found
    given = make(observation, sum(outputs.values()))
    if isinstance(given, NetworkSpec):
        given = replace(given, heads=tuple(Head(name, number) for name, number in outputs.items()))
    return shared(make, observation, outputs, gains, Intervention()), _maps(given)


def _maps(given: NetworkSpec | Functions) -> dict[str, tuple[int, ...]]:
    """[height, width, channels] of the maps that are read flattened; unknown for functions.

    By the path of the kernel of a dense layer, also behind nodes that keep the features in their places, and by the
    module of such a node. Without the observation's own map, which every program flattens alike.
    """
    if isinstance(given, Functions):
        return {}
    known = shapes(given)
    nodes = {node.name: node for node in nodes_of(given)}

    def flat(name: str) -> tuple[int, ...] | None:
        """The map of a node, or that of which it has the features in a row."""
        if len(known[name]) == 3:
            return tuple(known[name]) if name != OBSERVATION or given.channels_first else None
        node = nodes.get(name)
        follows = node is not None and isinstance(node.operation, Flatten | Elementwise)
        return flat(node.inputs[0]) if node is not None and follows else None

    found: dict[str, tuple[int, ...]] = {}
    for name, node in nodes.items():
        shape = flat(node.inputs[0]) if node.inputs else None
        if shape is not None and isinstance(node.operation, Dense) and node.operation.flatten:
            found[f"{name}/kernel"] = shape
        elif shape is not None and isinstance(node.operation, Elementwise) and len(known[node.inputs[0]]) == 1:
            found |= {name: shape, own_activation(name): shape}  # modules with a number for each feature
    return found


def _of_parameters(maps: Mapping[str, tuple[int, ...]], named: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The map of each parameter, by its path: of kernels, and of the modules that have a number for each feature."""
    found = {path: maps.get(path) or maps.get(path.rpartition("/")[0]) for path in named}
    return {
        path: shape
        for path, shape in found.items()
        if shape is not None and (path in maps or tuple(named[path]) == (math.prod(shape),))
    }
