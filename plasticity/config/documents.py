"""Configs as plain data: reading and writing YAML, dotted paths, and merging of mappings.

The YAML is close to the 1.2 core schema: ``1e-3`` is a number, ``on`` and ``no`` are text, dates are text. Digits
may be grouped (``1_000``). Integers in other bases are text. Keys are text as written: ``1.10``, ``true`` and
``null`` before a colon are names. Duplicate keys and tags are errors, and so is a document that is too long, too
deep, or too large once its aliases are expanded. Data are never changed in place.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from plasticity.core.errors import KEY, Location, NoSuchPlaceError, UserError, cut, listed, nearest, shown, suggestion

INTEGER = r"[-+]?(?:0|[1-9][0-9_]*)$"
POWER = r"[eE][-+]?[0-9]+"
POINT = r"(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)"
REAL = rf"[-+]?(?:{POINT}(?:{POWER})?|[0-9][0-9_]*{POWER}|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"


LENGTH = 1_000_000  # characters of a document, at most; PyYAML reads about 100,000 per second
NODES = 200_000  # keys, values, lists and mappings, with aliases expanded
DEPTH = 50  # of nested lists and mappings, and of a dotted path
DIGITS = 1_000  # of an integer
SOURCE = 300  # characters of a file's name in a message
MERGE, NULL = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:null"
NAMED = ("name", "control")  # keys whose value is a name: text as written, like a key
TOO_DEEP = f"lists and mappings are nested more than {DEPTH} deep"


def _refusal(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, text, mark)


class _Loader(yaml.SafeLoader):
    """Rejects documents that would take too much time or memory, before constructing any data."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (PyYAML's own attribute)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # id of a finished node -> number of nodes in it

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            name = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise _refusal(f"the tag `{cut(name, KEY)}` is not allowed; write the value without it", event.start_mark)
        if self._depth == DEPTH:
            raise _refusal(TOO_DEEP, event.start_mark)
        before = self._nodes
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not isinstance(event, yaml.AliasEvent):
            self._nodes += 1
            self._sizes[id(node)] = self._nodes - before
        elif id(node) in self._sizes:
            self._nodes += self._sizes[id(node)]
        else:
            raise _refusal("a value contains itself", event.start_mark)
        if self._nodes > NODES:
            text = f"is too large: with all aliases expanded it has more than {NODES:,} keys and values"
            raise _refusal(text, event.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[bool, str], int] = {}
        for key in (key for key, _ in node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key must be text, not a list or a mapping", key.start_mark)
            name = (key.tag == MERGE, key.value)
            if name in lines:
                text = f"the key `{cut(key.value, KEY)}` is given twice (first on line {lines[name]})"
                raise _refusal(text, key.start_mark)
            lines[name] = key.start_mark.line + 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        return {key.value: self._value(key.value, value, deep) for key, value in node.value}

    def _value(self, key: str, value: yaml.Node, deep: bool) -> Any:
        if key in NAMED and isinstance(value, yaml.ScalarNode) and value.tag != NULL:
            return value.value
        return self.construct_object(value, deep=deep)

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > DIGITS:
            raise _refusal(f"an integer of {len(node.value)} digits is too long", node.start_mark)
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would not read back as text; writes ASCII, as PyYAML breaks lines at U+0085."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


class _QuotingDumper(_Dumper):
    """Writes text in double quotes, the only form that keeps line breaks within text on one line."""


_QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def _resolve(tag: str, pattern: str, first: str) -> None:
    for side in (_Loader, _Dumper):
        side.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), [*first, ""])


_resolve("null", r"(?:~|null|Null|NULL|)$", "~nN")
_resolve("bool", r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", INTEGER, "-+0123456789")
_resolve("float", REAL, "-+.0123456789")
_resolve("merge", r"<<$", "<")


def value_of(key: str, text: str, source: str) -> Any:
    """Parse the text of a key's value; a name is text as written. See :func:`from_yaml`."""
    value = from_yaml(text, source)
    named = key in NAMED and value is not None and not isinstance(value, str | list | dict)
    return text.strip() if named else value


def from_yaml(text: str, source: str) -> Any:
    """Parse YAML text; keys and names (``NAMED``) are text as written.

    ``UserError``, one line with source, line and column, if it is not valid YAML, has a tag, or is too large.
    """
    source = cut(source, SOURCE)
    if len(text) > LENGTH:
        raise UserError(f"{source}: is too long; at most {LENGTH:,} characters are allowed")
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
        problem = str(error.problem or error.context)
        if problem == "but found another document":  # the second half of PyYAML's sentence
            problem = "a second document begins; one file holds one"
        raise UserError(f"{place}: {problem}") from None
    except yaml.reader.ReaderError as error:
        place = f"{source}, line {text.count(chr(10), 0, error.position) + 1}"
        raise UserError(f"{place}: the character U+{error.character:04X} is not allowed in YAML") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: {' '.join(str(error).split())}") from None
    except RecursionError:  # the caller is deep in calls itself
        raise UserError(f"{source}: {TOO_DEEP}") from None


def with_text_keys(data: Any, depth: int = DEPTH) -> Any:
    """Convert Python data to the form a YAML file would give: every key is text, tuples become lists.

    ``UserError`` if the data are nested too deeply or contain themselves.
    """
    if depth < 0:
        raise UserError(TOO_DEEP)
    if isinstance(data, Mapping):
        found = {_key(key): with_text_keys(value, depth - 1) for key, value in data.items()}
        if len(found) < len(data):
            raise UserError(f"two keys of {shown(data)} are equal as text")
        return found
    return [with_text_keys(item, depth - 1) for item in data] if isinstance(data, list | tuple) else data


def _key(key: Any) -> str:
    return key if isinstance(key, str) else on_one_line(key) if key is None or isinstance(key, bool) else str(key)


def to_yaml(data: Any, comment: str = "") -> str:
    """The data as YAML that :func:`from_yaml` reads back unchanged, after ``comment`` as ``#`` lines."""
    heading = "".join(f"# {line}\n" for line in comment.splitlines())
    return heading + yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, default_flow_style=None)


def on_one_line(data: Any) -> str:
    """The data as one line of YAML."""
    for dumper in (_Dumper, _QuotingDumper):
        text = yaml.dump(data, Dumper=dumper, sort_keys=False, width=10**9, default_flow_style=True)
        text = text.removesuffix("\n").removesuffix("\n...")
        if "\n" not in text:
            break
    return text


def read_file(path: str | Path) -> Any:
    """Read a YAML file. ``UserError`` if there is no such file (suggesting the nearest name), and as in
    :func:`from_yaml`."""
    path = Path(path)
    if path.is_dir():  # the system's message varies: "Is a directory", "Permission denied"
        raise UserError(_folder(path))
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LENGTH + 1)  # a device may have no end
    except FileNotFoundError:
        raise UserError(_missing(path)) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{shown(str(path))} is not a valid file name") from None
    return from_yaml(text, str(path))


def _missing(path: Path) -> str:
    there = sorted(file.name for file in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    if not path.parent.is_dir():
        return f"{path}: no such file; the folder {path.parent} does not exist"
    close = nearest(f"{path.name}.yaml", there) or nearest(path.name, there)
    known = f"; in {path.parent}: {listed(there)}" if there else f"; there is no config in {path.parent}"
    return f"{path}: no such file{known}" + (f"; did you mean `{path.parent / close}`?" if close else "")


def _folder(path: Path) -> str:
    """The message for a folder given in place of a file, with the files that may be meant."""
    there = sorted(file.name for file in path.glob("*.y*ml"))
    if "experiment.yaml" in there:
        return f"{path}: is the folder of a run, not a config; its config is {path / 'experiment.yaml'}"
    known = f"give one of its files: {listed(there)}" if there else "there is no config in it"
    return f"{path}: is a folder, not a config; {known}"


def labels(members: Sequence[Any]) -> tuple[str, ...]:
    """The name of each list member in a dotted path: its kind, or its index if another member has the same kind."""
    kinds = [_kind(member) for member in members]
    return tuple(
        str(i) if kind is None or kinds.count(kind) > 1 or kind.isdigit() else kind for i, kind in enumerate(kinds)
    )


def _kind(member: Any) -> str | None:
    kind = member.get("kind") if isinstance(member, Mapping) else member
    return kind if isinstance(kind, str) else None


def locate(document: Any, path: str) -> Location:
    """Resolve a dotted path: keys of mappings; kinds or indices in lists of members. The last keys may be new.

    ``NoSuchPlaceError`` if it passes through a value without keys, names no member of a list, or is too long.
    """
    location: Location = ()
    parts = path.split(".")
    if len(parts) > DEPTH:
        raise NoSuchPlaceError(f"a path has at most {DEPTH} parts; this one has {len(parts)}")
    while parts:
        step, taken = _step(document, location, parts)
        location, parts = (*location, step), parts[taken:]
        document = _child(document, step)
    return location


def _step(document: Any, location: Location, parts: list[str]) -> tuple[str | int, int]:
    if isinstance(document, list | tuple):
        return _member(document, parts[0]), 1
    if isinstance(document, Mapping):
        # Keys may contain dots (names of arms; the paths of a sweep): the longest existing key wins.
        for taken in range(len(parts), 0, -1):
            if ".".join(parts[:taken]) in document:
                return ".".join(parts[:taken]), taken
    elif document is not None and not isinstance(document, str):
        raise NoSuchPlaceError(f"there is no key `{cut(parts[0], KEY)}`: the value above it is {shown(document)}")
    return (".".join(parts), len(parts)) if location[-1:] == ("sweep",) else (parts[0], 1)


def _member(members: Sequence[Any], name: str) -> int:
    if re.fullmatch(r"[0-9]{1,6}", name) and int(name) < len(members):
        return int(name)
    names = labels(members)
    if name in names:
        return names.index(name)
    if name in [_kind(member) for member in members]:
        raise NoSuchPlaceError(f"there are several `{cut(name, KEY)}`; use an index, counted from 0")
    there = f"it has {listed(names)}" if names else "it is empty"
    raise NoSuchPlaceError(f"there is no `{cut(name, KEY)}` in this list; {there}{suggestion(name, names)}")


def _child(document: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return document[step]
    return document.get(step) if isinstance(document, Mapping) else None


def replaced(document: Any, location: Location, value: Any) -> Any:
    """The document with ``value`` at ``location``; a member given only by its kind on the way becomes a mapping.

    A new ``kind`` removes the other settings, which belonged to another member.
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
    """The value at the location; None if there is none."""
    for step in location:
        document = _child(as_member(document), step)
    return document


def as_member(raw: Any) -> Any:
    """``adam`` -> ``{kind: adam}``; anything else is unchanged."""
    return {"kind": raw} if isinstance(raw, str) else raw


def merged(base: Any, over: Any) -> Any:
    """Merge ``over`` into ``base``: mappings key by key, other values replaced; a different ``kind`` replaces all."""
    if isinstance(base, Mapping) and "kind" in base:
        over = as_member(over)
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    if "kind" in over and over["kind"] != base.get("kind"):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}


def difference(base: Any, full: Any) -> Any:
    """The smallest override of ``base`` that gives ``full``: ``merged(base, difference(base, full)) == full``."""
    if not isinstance(base, Mapping) or not isinstance(full, Mapping) or base.get("kind") != full.get("kind"):
        return full
    changed = {key: value for key, value in full.items() if key not in base or base[key] != value}
    return {key: difference(base.get(key), value) for key, value in changed.items()}
