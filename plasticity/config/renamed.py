"""Old names of keys, settings and members; configs that use them are read as if they used the new names.

A member's metadata contains its former names: ``formerly`` for the member, ``renamed`` for its settings. A setting may
have moved into a nested member (:class:`plasticity.config.fields.Moved`).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from plasticity.config.documents import as_member, locate, merged, replaced
from plasticity.config.documents import found as found_at
from plasticity.config.fields import Moved
from plasticity.config.registry import FAMILIES, Registry
from plasticity.core.errors import NoSuchPlaceError, UserError

KEYS: Mapping[str, str] = {"told": "task_aware"}  # of a config and of its arms
PLACES = {"agent": "agents", "network": "networks", "optimizer": "optimizers", "stream": "streams"}  # of one member
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
        self._settings = {
            (family, name): renamed
            for family in FAMILIES
            for name in registry.names(family)
            if (renamed := registry.metadata(family, name).renamed)
        }

    def document(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The config with new names throughout."""
        found = self._parts(self._keys(raw, KEYS), {})
        if isinstance(found.get("arms"), Mapping):
            arms = found["arms"].items()
            found["arms"] = {name: self._arm(arm, found) if isinstance(arm, Mapping) else arm for name, arm in arms}
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

    def _swept(self, document: Mapping[str, Any], path: str) -> str:
        """As :meth:`path`. ``UserError`` if the values must change too."""
        found = self.path(document, path)
        *steps, last = found.split(".")
        move = self._renamed_at(document, steps).get(last) if steps else None
        if isinstance(move, Moved) and move.to != last:
            raise UserError(f"sweep: `{path}` is now called `{'.'.join([*steps, move.to])}`; write that")
        return found

    def _renamed_at(self, document: Any, steps: Sequence[str]) -> Mapping[str, str | Moved]:
        """Old names of the settings of the member at a path."""
        try:
            location = locate(document, ".".join(steps))
        except NoSuchPlaceError:
            return {}
        if location[:1] == ("arms",):  # an arm inherits missing keys from the base
            arm = as_member(found_at(document, location[:2])) or {}
            document, location = merged({**document, "arms": {}}, arm), location[2:]
        member = as_member(found_at(document, location))
        kind = member.get("kind") if isinstance(member, Mapping) else None
        return {old: new for (_, name), names in self._settings.items() if name == kind for old, new in names.items()}

    def _arm(self, arm: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        return self._parts(self._keys(arm, KEYS), base)

    def _parts(self, raw: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        """The members and the sweep of a config, of an arm, or of a member.

        ``base``: the defaults they are merged into; a member without a kind has the kind of its default.
        """
        found = dict(raw)
        for key, value in raw.items():
            if key in PLACES:
                found[key] = self._member(PLACES[key], value, base.get(key))
            elif key in LISTS and isinstance(value, list | tuple):
                found[key] = [self._member(key, each) for each in value]
        if isinstance(found.get("sweep"), Mapping):
            whole = merged({key: value for key, value in base.items() if key != "arms"}, found)
            found["sweep"] = {self._swept(whole, str(path)): values for path, values in found["sweep"].items()}
        return found

    def _member(self, family: str, raw: Any, base: Any = None) -> Any:
        if isinstance(raw, str):
            return self._kind(family, raw)
        if not isinstance(raw, Mapping):
            return raw
        found, below = dict(raw), as_member(base) if isinstance(base, str | Mapping) else {}
        if isinstance(found.get("kind"), str):
            found["kind"] = self._kind(family, found["kind"])
        kind = str(found.get("kind", below.get("kind")))
        names = self._settings.get((family, kind), {})
        found = self._keys(found, {old: new for old, new in names.items() if isinstance(new, str)})
        for old, new in names.items():
            if isinstance(new, Moved) and old in found:
                found = self._moved(family, kind, found, below, old, new)
        return self._parts(found, below)

    def _moved(
        self, family: str, kind: str, raw: dict[str, Any], below: Mapping[str, Any], old: str, move: Moved
    ) -> dict[str, Any]:
        """The member with one old setting moved. ``UserError`` if its new value is not known.

        Args:
          family: the member's.
          kind: the member's.
          raw: the member.
          below: what it is laid over.
          old: the setting.
          move: where it is now.
        """
        value, schema = raw[old], self._registry.schema(family, kind)
        if isinstance(value, str | bool):
            value = move.values.get(value, value)
        if move.to == old:
            return {**raw, old: value}
        found = {key: each for key, each in raw.items() if key != old}
        nested, *steps = move.to.split(".")
        family = str(schema[nested].family)
        given = [each[nested] for each in (below, raw) if nested in each]
        inner = _kind_of(functools.reduce(merged, given, as_member(schema[nested].default)))
        if value == move.drop and not (inner and steps[0] in self._registry.schema(family, inner)):
            return found
        self._note(old, move.to)
        if move.relative_to:
            whole = raw.get(move.relative_to, below.get(move.relative_to, schema[move.relative_to].default))
            value = _fraction(old, move, value, whole)
        if move.kind and inner is None:
            found[nested] = move.kind
        if steps == ["kind"]:  # of its settings, the nested member keeps those that the new kind has too
            known = self._registry.schema(family, value)
            kept = merged(as_member(below.get(nested)) or {}, as_member(found.get(nested)) or {})
            return {**found, nested: {"kind": value, **{key: each for key, each in kept.items() if key in known}}}
        return replaced(found, (nested, *steps), value)

    def _kind(self, family: str, kind: str) -> str:
        new = self._kinds[family].get(kind, kind)
        if new != kind:
            self._note(kind, new)
        return new

    def _keys(self, raw: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Rename keys. An old key takes precedence over the new one: it was given later, on the command line."""
        found = {key: value for key, value in raw.items() if names.get(key, key) == key}
        for old, new in names.items():
            if old in raw:
                self._note(old, new)
                found[new] = raw[old]
        return found

    def _note(self, old: str, new: str) -> None:
        self.notes[f"`{old}` is now called `{new}`"] = None


def _kind_of(raw: Any) -> str | None:
    """The kind of a member as a config gives it; None if it has none."""
    member = as_member(raw)
    return str(member["kind"]) if isinstance(member, Mapping) and "kind" in member else None


def _fraction(old: str, move: Moved, value: Any, whole: Any) -> Any:
    try:
        return value / whole
    except (TypeError, ZeroDivisionError):
        raise UserError(f"`{old}` is now called `{move.to}`, a fraction of `{move.relative_to}`; write that") from None
