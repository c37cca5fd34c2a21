"""Old names of keys, settings and members; configs that use them are read as if they used the new names.

A member's metadata contains its former names: ``formerly`` for the member, ``renamed`` for its settings. A setting may
have moved into a nested member (:class:`plasticity.config.fields.Moved`).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from plasticity.config.documents import as_member, locate, merged, on_one_line, replaced
from plasticity.config.documents import found as found_at
from plasticity.config.fields import Moved
from plasticity.config.registry import FAMILIES, Registry
from plasticity.config.schema import Setting
from plasticity.config.sweeps import LISTED
from plasticity.core.errors import NoSuchPlaceError, UserError

KEYS: Mapping[str, str] = {"told": "task_aware"}  # of a config and of its arms
PLACES = {"agent": "agents", "stream": "streams"}  # keys of a config and of its arms that hold one member
LISTS = {"interventions", "monitors", "transforms"}  # of members; the key is the family


def with_new_keys(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the new names of :data:`KEYS`, which need no registry."""

    def renamed(part: Any) -> Any:
        return {KEYS.get(key, key): value for key, value in part.items()} if isinstance(part, Mapping) else part

    found: dict[str, Any] = renamed(raw)
    if isinstance(found.get("arms"), Mapping):
        found["arms"] = {name: renamed(arm) for name, arm in found["arms"].items()}
    return found


class Renamer:
    """Replaces old names by new ones; ``notes`` holds a line for each old name found.

    Args:
      registry: the known members, whose metadata contain their old names.
    """

    def __init__(self, registry: Registry) -> None:
        self.notes: dict[str, None] = {}
        self._registry = registry
        self._kinds = {family: registry.former_names(family) for family in FAMILIES}
        self._later = False

    def document(self, raw: Mapping[str, Any], *, later: bool = False) -> dict[str, Any]:
        """The config with new names throughout. ``UserError`` if an old and a new name of one setting are both given.

        Args:
          raw: the config.
          later: old names were added to a config with new ones, by an override; they replace the new ones.
        """
        self._later = later
        found = self._top(self._keys(raw, KEYS), {})
        if isinstance(found.get("arms"), Mapping):
            arms = found["arms"].items()
            found["arms"] = {
                name: self._top(self._keys(arm, KEYS), found) if isinstance(arm, Mapping) else arm for name, arm in arms
            }
        return found

    def path(self, document: Mapping[str, Any], path: str) -> str:
        """The dotted path of an override or a sweep with new names.

        Args:
          document: the config, with new names already; a setting is renamed only if its member declares a new name.
          path: the path as written. It is unchanged if the value must change too, which :meth:`document` does.
        """
        *steps, last = path.split(".")
        for i, family in enumerate(steps):
            if family in LISTS and i + 1 < len(steps):
                steps[i + 1] = self._kinds[family].get(steps[i + 1], steps[i + 1])
        arms = document.get("arms")
        of_arm = steps[:1] == ["arms"] and isinstance(arms, Mapping) and ".".join(steps[1:]) in arms
        names: Mapping[str, str | Moved] = KEYS if not steps or of_arm else self._renamed_at(document, steps)
        new = names.get(last, last)
        if isinstance(new, Moved):
            if new.values or new.relative_to or new.kind:
                return path
            new = new.to
        found = ".".join([*steps, new])
        if found != path:
            self._note(path, found)
        return found

    def _swept(self, document: Mapping[str, Any], sweep: Mapping[str, Any]) -> dict[str, Any]:
        """A sweep with new names. ``UserError`` if its values would have to change too, or a path is given twice."""
        swept: dict[str, Any] = {}
        for old, values in sweep.items():
            if old == LISTED and isinstance(values, list | tuple):
                swept[old] = [self._swept(document, each) if isinstance(each, Mapping) else each for each in values]
                continue
            path = self.path(document, str(old))
            *steps, last = path.split(".")
            move = self._renamed_at(document, steps).get(last) if steps else None
            if isinstance(move, Moved) and move.to != last:
                raise UserError(f"sweep: `{old}` is now called `{'.'.join([*steps, move.to])}`; write that")
            if path in swept:
                raise UserError(f"sweep: {_both(str(old), path)}")
            swept[path] = values
        return swept

    def _schema(self, family: str | None, kind: str | None) -> Mapping[str, Setting]:
        """The settings of a member; none if it is unknown, which the parser reports."""
        try:
            return self._registry.schema(str(family), str(kind))
        except UserError:
            return {}

    def _names(self, family: str | None, kind: str | None) -> Mapping[str, str | Moved]:
        try:
            return self._registry.metadata(str(family), str(kind)).renamed
        except UserError:
            return {}

    def _renamed_at(self, document: Any, steps: Sequence[str]) -> Mapping[str, str | Moved]:
        """Old names of the settings of the member at a path."""
        try:
            location = locate(document, ".".join(steps))
        except NoSuchPlaceError:
            return {}
        if location[:1] == ("arms",):  # an arm inherits missing keys from the base
            arm = as_member(found_at(document, location[:2])) or {}
            document, location = merged({**document, "arms": {}}, arm), location[2:]
        family, kind = PLACES.get(str(location[0]), str(location[0])) if location else None, None
        for depth, step in enumerate(location):
            default = None
            if kind is not None:
                setting = self._schema(family, kind).get(str(step))
                if setting is None or setting.family is None:
                    return {}
                family, default = setting.family, as_member(setting.default)
            given = as_member(found_at(document, location[: depth + 1]))
            kind = _kind_of(default if given is None else merged(default, given))
        return self._names(family, kind)

    def _top(self, raw: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        """A config or an arm; ``base``: what an arm is merged into."""
        found = dict(raw)
        for key, value in raw.items():
            if key in PLACES:
                found[key] = self._member(PLACES[key], value, base.get(key))
            elif key in LISTS and isinstance(value, list | tuple):
                found[key] = [self._member(key, each) for each in value]
        if isinstance(found.get("sweep"), Mapping):
            whole = merged({key: value for key, value in base.items() if key != "arms"}, found)
            found["sweep"] = self._swept(whole, found["sweep"])
        return found

    def _member(self, family: str, raw: Any, base: Any = None) -> Any:
        """A member; ``base``: what it is merged into, which also gives the kind if the member names none."""
        if isinstance(raw, str):
            return self._kind(family, raw)
        if not isinstance(raw, Mapping):
            return raw
        found, below = dict(raw), as_member(base) if isinstance(base, str | Mapping) else {}
        if isinstance(found.get("kind"), str):
            found["kind"] = self._kind(family, found["kind"])
        kind = found.get("kind", below.get("kind"))
        names, schema = self._names(family, kind), self._schema(family, kind)
        found = self._keys(found, {old: new for old, new in names.items() if isinstance(new, str)})
        for old, move in names.items():
            if isinstance(move, Moved) and old in found:
                found = self._moved(schema, found, below, old, move)
        for name, setting in schema.items():
            if setting.family is None or name not in found:
                continue
            if setting.many and isinstance(found[name], list | tuple):
                found[name] = [self._member(setting.family, each) for each in found[name]]
            else:
                default = None if setting.required else as_member(setting.default)
                inner = merged(default, below[name]) if name in below else default
                found[name] = self._member(setting.family, found[name], inner)
        return found

    def _moved(
        self, schema: Mapping[str, Setting], raw: dict[str, Any], below: Mapping[str, Any], old: str, move: Moved
    ) -> dict[str, Any]:
        """The member with one old setting moved. ``UserError`` if its new value is not known.

        Args:
          schema: the member's settings.
          raw: the member.
          below: what it is merged into.
          old: the setting.
          move: where it is now.
        """
        value = move.values.get(raw[old], raw[old]) if isinstance(raw[old], str | bool) else raw[old]
        nested, *steps = move.to.split(".")
        if move.to == old:
            return {**raw, old: value}
        found = {key: each for key, each in raw.items() if key != old}
        if not self._later and steps and found_at(found, (nested, *steps)) is not None:
            raise UserError(_both(old, move.to))
        given = [each[nested] for each in (below, raw) if nested in each]
        inner = _kind_of(functools.reduce(merged, given, as_member(schema[nested].default)))
        family = schema[nested].family
        if steps and value == move.drop and not (inner and steps[0] in self._schema(family, inner)):
            return found
        if move.relative_to and value:
            raise UserError(_fraction(old, move, value, {**below, **raw}.get(move.relative_to)))
        self._note(f"{old}: {on_one_line(raw[old])}", f"{move.to}: {value}") if move.values else self._note(
            old, move.to
        )
        if move.kind and inner is None:
            found[nested] = move.kind
        if steps == ["kind"]:  # of its settings, the nested member keeps those that the new kind has too
            kept = merged(as_member(below.get(nested)) or {}, as_member(found.get(nested)) or {})
            known = self._schema(family, value)
            return {**found, nested: {"kind": value, **{key: each for key, each in kept.items() if key in known}}}
        return replaced(found, (nested, *steps), value)

    def _kind(self, family: str, kind: str) -> str:
        new = self._kinds[family].get(kind, kind)
        if new != kind:
            self._note(kind, new)
        return new

    def _keys(self, raw: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        found = {key: value for key, value in raw.items() if names.get(key, key) == key}
        for old, new in names.items():
            if old in raw:
                if new in raw and not self._later:
                    raise UserError(_both(old, new))
                self._note(old, new)
                found[new] = raw[old]
        return found

    def _note(self, old: str, new: str) -> None:
        self.notes[f"`{old}` is now called `{new}`"] = None


def _kind_of(raw: Any) -> str | None:
    """The kind of a member as a config gives it; None if it has none."""
    member = as_member(raw)
    kind = member.get("kind") if isinstance(member, Mapping) else None
    return kind if isinstance(kind, str) else None


def _both(old: str, new: str) -> str:
    return f"`{old}` and `{new}` are both given; the first is the old name of the second: remove it"


def _fraction(old: str, move: Moved, value: Any, whole: Any) -> str:
    """The refusal of a number that is now relative to another, which may be swept."""
    known = isinstance(value, int | float) and isinstance(whole, int | float) and whole
    write = f"{move.to}: {value / whole:g}" if known else "that"
    return f"`{old}` is now `{move.to}`, a fraction of `{move.relative_to}`; write {write}"
