"""Configs as plain data: YAML in and out, dotted paths, and how one mapping is laid over another.

The YAML is the 1.2 core schema: ``1e-3`` is a number, ``on`` and ``no`` are text, dates are text; a key given twice is
an error. Data are never changed in place.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from plasticity.errors import Location, NoSuchPlaceError, UserError, listed, nearest, shown

INTEGER = r"[-+]?(?:0|[1-9][0-9_]*)$"
POWER = r"[eE][-+]?[0-9]+"
POINT = r"(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)"
REAL = rf"[-+]?(?:{POINT}(?:{POWER})?|[0-9][0-9_]*{POWER}|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (PyYAML's own attribute)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                text = f"the key `{key.value}` is given twice (first on line {first})"
                raise yaml.composer.ComposerError(None, None, text, key.start_mark)
            lines[key.tag, key.value] = key.start_mark.line + 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would not read back as text; writes ASCII, as PyYAML breaks lines at U+0085."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _resolve(tag: str, pattern: str, first: str) -> None:
    for side in (_Loader, _Dumper):
        side.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), [*first, ""])


_resolve("null", r"(?:~|null|Null|NULL|)$", "~nN")
_resolve("bool", r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", INTEGER, "-+0123456789")
_resolve("float", REAL, "-+.0123456789")
_resolve("merge", r"<<$", "<")


def from_yaml(text: str, source: str) -> Any:
    """The data in the text. ``UserError`` with source, line and column where it is no YAML."""
    try:
        data = yaml.load(text, _Loader)  # a SafeLoader
        json.dumps(data, default=str, skipkeys=True)
        return data
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
        raise UserError(f"{place}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: {' '.join(str(error).split())}") from None
    except (ValueError, RecursionError):  # json's word for a circle
        raise UserError(f"{source}: a value contains itself, or lists and mappings are nested too deeply") from None


def to_yaml(data: Any, comment: str = "") -> str:
    """The data as YAML that :func:`from_yaml` reads back unchanged, after ``comment`` as ``#`` lines."""
    heading = "".join(f"# {line}\n" for line in comment.splitlines())
    return heading + yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, default_flow_style=None)


def on_one_line(data: Any) -> str:
    """The data as one line of YAML."""
    for style in (None, '"'):  # only double quotes keep line breaks within text on one line
        text = yaml.dump(
            data, Dumper=_Dumper, sort_keys=False, width=10**9, default_flow_style=True, default_style=style
        )
        text = text.removesuffix("\n").removesuffix("\n...")
        if "\n" not in text:
            break
    return text


def read_file(path: str | Path) -> Any:
    """The data in a YAML file. ``UserError`` if there is no such file (with the nearest name) or it is no YAML."""
    path = Path(path)
    if path.is_dir():  # what the system says of it differs: "Is a directory", "Permission denied"
        raise UserError(_folder(path))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(_missing(path)) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return from_yaml(text, str(path))


def _missing(path: Path) -> str:
    there = sorted(file.name for file in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    if not path.parent.is_dir():
        return f"{path}: no such file; there is no folder {path.parent}"
    close = nearest(path.name, there) or nearest(f"{path.name}.yaml", there)
    known = f"; in {path.parent}: {listed(there)}" if there else f"; there is no config in {path.parent}"
    return f"{path}: no such file{known}" + (f"; did you mean `{path.parent / close}`?" if close else "")


def _folder(path: Path) -> str:
    """What a folder is, given for a file, and which of its files may be meant."""
    there = sorted(file.name for file in path.glob("*.y*ml"))
    if "experiment.yaml" in there:
        return f"{path}: is the folder of a run, not a config; its config is {path / 'experiment.yaml'}"
    known = f"give one of its files: {listed(there)}" if there else "there is no config in it"
    return f"{path}: is a folder, not a config; {known}"


def labels(members: Sequence[Any]) -> tuple[str, ...]:
    """What a dotted path calls each member of a list: its kind, or its index where another one has the same kind."""
    kinds = [_kind(member) for member in members]
    return tuple(
        str(i) if kind is None or kinds.count(kind) > 1 or kind.isdigit() else kind for i, kind in enumerate(kinds)
    )


def _kind(member: Any) -> str | None:
    kind = member.get("kind") if isinstance(member, Mapping) else member
    return kind if isinstance(kind, str) else None


def locate(document: Any, path: str) -> Location:
    """Where a dotted path leads: keys of mappings; kinds or indices in lists of members. The last keys may be new.

    ``NoSuchPlaceError`` where it leads through something that has no keys, or to no member of a list.
    """
    location: Location = ()
    parts = path.split(".")
    while parts:
        step, taken = _step(document, location, parts)
        location, parts = (*location, step), parts[taken:]
        document = _child(document, step)
    return location


def _step(document: Any, location: Location, parts: list[str]) -> tuple[str | int, int]:
    if isinstance(document, list | tuple):
        return _member(document, parts[0]), 1
    if isinstance(document, Mapping):
        # Keys may hold dots themselves (names of arms; the paths of a sweep): the longest key there wins.
        for taken in range(len(parts), 0, -1):
            if ".".join(parts[:taken]) in document:
                return ".".join(parts[:taken]), taken
    elif document is not None and not isinstance(document, str):
        raise NoSuchPlaceError(f"`{parts[0]}` leads nowhere: the value there is {shown(document)}, which has no keys")
    return (".".join(parts), len(parts)) if location[-1:] == ("sweep",) else (parts[0], 1)


def _member(members: Sequence[Any], name: str) -> int:
    if name.isdigit() and int(name) < len(members):
        return int(name)
    names = labels(members)
    if name in names:
        return names.index(name)
    if name in [_kind(member) for member in members]:
        raise NoSuchPlaceError(f"there are several `{name}`; say which by its index, from 0")
    close = nearest(name, names)
    there = f"there: {listed(names)}" if names else "the list is empty"
    raise NoSuchPlaceError(f"no `{name}` in this list; {there}" + (f"; did you mean `{close}`?" if close else ""))


def _child(document: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return document[step]
    return document.get(step) if isinstance(document, Mapping) else None


def replaced(document: Any, location: Location, value: Any) -> Any:
    """The document with ``value`` at ``location``; a member named only by its kind becomes a mapping on the way.

    A new ``kind`` takes the other settings away: they were another member's.
    """
    if not location:
        return value
    head, rest = location[0], location[1:]
    if isinstance(head, int):
        return [replaced(item, rest, value) if i == head else item for i, item in enumerate(document)]
    mapping = as_member(document) or {}
    if location == ("kind",) and mapping.get("kind") != value:
        return {"kind": value}
    return {**mapping, head: replaced(mapping.get(head), rest, value)}


def found(document: Any, location: Location) -> Any:
    """What is at the location; None where nothing is."""
    for step in location:
        document = _child(as_member(document), step)
    return document


def as_member(raw: Any) -> Any:
    """``adam`` -> ``{kind: adam}``; anything else as it is."""
    return {"kind": raw} if isinstance(raw, str) else raw


def merged(base: Any, over: Any) -> Any:
    """``over`` laid over ``base``: mappings key by key, all else replaced; another ``kind`` replaces all."""
    if isinstance(base, Mapping) and "kind" in base:
        over = as_member(over)
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    if "kind" in over and over["kind"] != base.get("kind"):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}


def difference(base: Any, full: Any) -> Any:
    """The least to lay over ``base`` to get ``full``: ``merged(base, difference(base, full)) == full``."""
    if not isinstance(base, Mapping) or not isinstance(full, Mapping) or base.get("kind") != full.get("kind"):
        return full
    changed = {key: value for key, value in full.items() if key not in base or base[key] != value}
    return {key: difference(base.get(key), value) for key, value in changed.items()}
