"""Settings of a member: ``adam`` or ``{kind: adam, learning_rate: 1e-3}`` in a config becomes a ``MemberConfig``."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from plasticity.config.documents import as_member, labels, merged, on_one_line
from plasticity.config.fields import Count, metadata_of
from plasticity.config.registry import Registry
from plasticity.config.schema import Setting, schema_of
from plasticity.core.errors import ConfigProblem, Location, UserError, listed, nearest, placed, shown, unknown

MEMBERS = 100  # of one list
PLACED = ("networks", "activations", "optimizers", "schedules")  # families whose errors begin with the member's path
EMPTY: Mapping[str, Any] = MappingProxyType({})
Period = Count | Literal["visit"]  # env steps, or once per visit


Names = Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]


@dataclass(frozen=True, kw_only=True)
class InterventionKeys:
    """Keys of an intervention in a config besides its settings."""

    modules: Names | None = None


@dataclass(frozen=True, kw_only=True)
class MonitorKeys:
    """Keys of a monitor in a config besides its settings."""

    every: Period | None = None
    modules: Names | None = None


KEYS: Mapping[str, type] = {"interventions": InterventionKeys, "monitors": MonitorKeys}


@dataclass(frozen=True)
class MemberConfig:
    """A member of a family with all its settings, defaults included.

    Two members with equal :meth:`static` share a compiled program; they differ at most in traced numbers.
    """

    family: str
    kind: str
    values: Mapping[str, Any]  # a nested member is a MemberConfig, a list of members a tuple of them
    factory: Callable[..., Any] = field(compare=False, repr=False)
    every: int | Literal["visit"] | None = None  # of a monitor: its own period, if any
    modules: tuple[str, ...] = ()  # the parts of joined networks that it is restricted to; empty: all

    def __hash__(self) -> int:
        return hash(self.static())

    def build(self, hyper: Mapping[str, Any] = EMPTY, prefix: str = "") -> functools.partial[Any]:
        """Bind the factory to its settings; the result still takes the member's positional arguments.

        Args:
            hyper: dotted path -> scalar Array (may be a tracer) or number; replaces the traced number at that path.
            prefix: the member's own dotted path, e.g. ``agent`` or ``interventions.weight_decay``.
        """
        built: dict[str, Any] = {}
        for name, value in self.values.items():
            path = f"{prefix}.{name}".removeprefix(".")
            if isinstance(value, MemberConfig):
                built[name] = value.build(hyper, path)
            elif self._setting(name).many:
                built[name] = tuple(m.build(hyper, p) for m, p in zip(value, paths(path, value), strict=True))
            else:
                built[name] = hyper.get(path, value) if self._setting(name).is_traced(value) else value
        if self.family in PLACED:
            return functools.partial(_placing, prefix, self.factory, **built)
        return functools.partial(self.factory, **built)

    def traced(self, prefix: str = "") -> dict[str, float]:
        """Every traced number by its dotted path, nested members included."""
        numbers: dict[str, float] = {}
        for name, value in self.values.items():
            path = f"{prefix}.{name}".removeprefix(".")
            if self._setting(name).is_traced(value):
                numbers[path] = value
            for member, place in self._nested(name, path):
                numbers |= member.traced(place)
        return numbers

    def static(self) -> tuple[Any, ...]:
        """Everything that is not a traced number, hashable."""
        parts = []
        for name, value in self.values.items():
            nested = [member.static() for member, _ in self._nested(name, "")]
            is_traced = self._setting(name).is_traced(value)
            parts.append((name, tuple(nested) if nested else "traced" if is_traced else ("static", _frozen(value))))
        return (self.family, self.kind, self.modules, *parts)

    def dump(self) -> dict[str, Any]:
        """The member as plain data with everything explicit; parsing it gives an equal member."""
        own: dict[str, Any] = {} if self.every is None else {"every": self.every}
        own |= {"modules": list(self.modules)} if self.modules else {}
        return {"kind": self.kind, **own} | {name: plain(value) for name, value in self.values.items()}

    def _setting(self, name: str) -> Setting:
        return schema_of(self.factory)[name]

    def _nested(self, name: str, path: str) -> Iterator[tuple["MemberConfig", str]]:
        value = self.values[name]
        if isinstance(value, MemberConfig):
            yield value, path
        elif self._setting(name).many:
            yield from zip(value, paths(path, value), strict=True)


def _placing(path: str, factory: Callable[..., Any], /, *args: Any, **settings: Any) -> Any:
    """Call the factory; its ``ValueError`` begins with the member's path, or that of a member inside it."""
    try:
        return factory(*args, **settings)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(path) else placed(path, text)) from error


def paths(prefix: str, members: Sequence[MemberConfig]) -> tuple[str, ...]:
    """The dotted path of each member of a list: ``interventions.weight_decay``; by index if a kind occurs twice."""
    return tuple(f"{prefix}.{label}" for label in labels([{"kind": member.kind} for member in members]))


def plain(value: Any) -> Any:
    """The value in a form that YAML can write: members dumped, tuples as lists, NumPy scalars as Python numbers."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, MemberConfig):
        return value.dump()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _frozen(value: Any) -> Any:
    """Hashable, and different for 1, 1.0 and True."""
    if isinstance(value, Mapping):
        return ("mapping", frozenset((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return (type(value).__name__, value)


def _meant(key: str, schema: Mapping[str, Setting], own: Mapping[str, Setting]) -> bool:
    """Whether a key means one of the member's ``own`` keys: not a setting, and closer to one than to any setting."""
    return key not in schema and nearest(key, [*schema, *own]) in own


class Parser:
    """Convert plain data to members; collects every problem with its location instead of stopping at the first."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.problems: list[ConfigProblem] = []

    def refuse(self, at: Location, text: str) -> None:
        self.problems.append(ConfigProblem(at, text))

    def member(self, family: str, raw: Any, at: Location, default: Any = None) -> MemberConfig | None:
        """Parse a member from its name or mapping; settings without a ``kind`` are merged into the default member."""
        raw = as_member(raw)
        if not isinstance(raw, Mapping):
            self.refuse(at, f"{shown(raw)} is not allowed; must be a name or {{kind: NAME, ...}}")
            return None
        if "kind" not in raw and default is not None:
            raw = merged(as_member(default), raw)
        kind = raw.get("kind")
        if not isinstance(kind, str):
            what = f"kind: {shown(kind)} is not allowed" if "kind" in raw else "`kind` is missing"
            self.refuse(at, f"{what}; known {family}: {listed(self.registry.names(family))}")
            return None
        try:
            factory = self.registry.factory(family, kind)
            schema = self.registry.schema(family, kind)
        except UserError as error:
            self.refuse(at, str(error))
            return None
        before = len(self.problems)
        values = self.settings(
            schema, {key: value for key, value in raw.items() if key != "kind"}, at, metadata_of(factory).hint
        )
        if len(self.problems) == before:
            self.refuse_idle(factory, values, at)
        return MemberConfig(family, kind, values, factory)

    def refuse_idle(self, factory: Callable[..., Any], values: Mapping[str, Any], at: Location) -> None:
        """Refuse settings that differ from the default but have no effect (``Metadata.only_with``)."""
        schema = schema_of(factory)
        for name, needs in metadata_of(factory).only_with.items():
            for other, allowed in needs.items():
                if values[name] != schema[name].default and values[other] not in allowed:
                    given, *known = (on_one_line(plain(value)) for value in (values[other], *allowed))
                    default = on_one_line(plain(schema[name].default))
                    why = f"has no effect with {other}={given}; it needs {other}={' or '.join(known)}"
                    why += f" (or leave it at {default})"
                    self.refuse((*at, name), f"{shown(values[name])} {why}")

    def members(self, family: str, raw: Any, at: Location) -> tuple[MemberConfig, ...]:
        """Parse a list of members."""
        if not isinstance(raw, list | tuple):
            self.refuse(at, f"{shown(raw)} is not allowed; must be a list of {family}")
            return ()
        if len(raw) > MEMBERS:
            self.refuse(at, f"has {len(raw):,} {family}; at most {MEMBERS} are allowed")
            return ()
        read = self.listed if family in KEYS else self.member
        members = [read(family, item, (*at, i)) for i, item in enumerate(raw)]
        return tuple(member for member in members if member is not None)

    def listed(self, family: str, raw: Any, at: Location) -> MemberConfig | None:
        """Parse an intervention or a monitor, which has keys besides its settings (:data:`KEYS`).

        A member that has a setting of the same name keeps it, but a monitor may not have a setting ``every``.
        """
        given = as_member(raw)
        if not isinstance(given, Mapping):
            return self.member(family, raw, at)
        try:
            schema = self.registry.schema(family, str(given.get("kind")))
        except UserError:
            return self.member(family, given, at)  # reports the problem
        if family == "monitors" and "every" in schema:
            text = f"`{given['kind']}` has a setting `every`, which is reserved for a monitor's period; rename it"
            self.refuse(at, text)
            return None
        own = {name: setting for name, setting in schema_of(KEYS[family]).items() if name not in schema}
        keys = {key: value for key, value in given.items() if _meant(str(key), schema, own)}
        rest = {key: value for key, value in given.items() if key not in keys}
        member, values = self.member(family, rest, at), self.settings(own, keys, at)
        if member is None:
            return None
        return replace(member, every=values.get("every"), modules=values.get("modules") or ())

    def settings(
        self,
        schema: Mapping[str, Setting],
        raw: Any,
        at: Location,
        hint: Callable[[Mapping[str, Any], str], str] | None = None,
    ) -> dict[str, Any]:
        """Parse all settings of a schema, in its order; problems are collected in ``problems``.

        ``hint`` gives a remark on an unknown key, if any (``Metadata.hint``).
        """
        for key in raw:
            if key not in schema:
                text = unknown("key", str(key), schema, "allowed") if schema else "unknown key; it has no settings"
                remark = hint(raw, str(key)) if hint else ""
                self.refuse((*at, str(key)), "; ".join(filter(None, (text, remark))))
        values = {}
        for name, setting in schema.items():
            if name in raw or not setting.required:
                values[name] = self.setting(setting, raw.get(name, setting.default), (*at, name))
            else:
                self.refuse((*at, name), f"is required; must be {setting.allowed}")
        return values

    def setting(self, setting: Setting, raw: Any, at: Location) -> Any:
        """Parse one setting's value; None if it is refused."""
        if setting.family is None:
            try:
                return setting.parse(raw)
            except ValueError as error:
                self.refuse(at, str(error))
                return None
        if raw is None and setting.optional:
            return None
        if setting.many:
            return self.members(setting.family, raw, at)
        return self.member(setting.family, raw, at, None if setting.required else setting.default)
