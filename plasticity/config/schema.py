"""Signature -> schema: a factory's keyword-only parameters are its settings (see ``plasticity.config.fields``)."""

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BeforeValidator, Strict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from plasticity.config.documents import on_one_line
from plasticity.config.fields import Member, Traced
from plasticity.core.errors import cut, shown, suggestion

PLAIN = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
    Any: "anything",
}
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Setting:
    """One keyword-only parameter of a factory."""

    name: str
    allowed: str  # in words: "a number in [0, 1]"
    default: Any  # REQUIRED if there is none
    traced: bool  # its numbers are arrays in the compiled program
    family: str | None  # of a setting that is itself a member of a family ...
    many: bool  # ... or a list of members
    optional: bool  # of a member: it may be null
    words: tuple[str, ...]  # the allowed strings, if they are enumerated
    adapter: TypeAdapter[Any]

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def default_text(self) -> str:
        return "required" if self.required else on_one_line(self.default)

    def is_traced(self, value: Any) -> bool:
        """Whether this value is an array in the program; a setting ``Positive | None`` is static if None."""
        return self.traced and isinstance(value, int | float) and not isinstance(value, bool)

    def parse(self, value: Any) -> Any:
        """Convert the value to the parameter's type. ``ValueError`` with a readable message if it is not allowed."""
        if isinstance(value, bool) and (word := str(value).lower()) in self.words:
            value = word  # YAML reads an unquoted true as a boolean
        try:
            parsed = self.adapter.validate_python(value)
        except ValidationError as error:
            own = [e["msg"].removeprefix("Value error, ") for e in error.errors() if e["type"] == "value_error"]
            raise ValueError(self._refusal(value, own[0] if own else "")) from None
        if self.is_traced(parsed) and not self._survives(parsed):
            raise ValueError(self._refusal(value, "as a float32"))
        return parsed

    def _survives(self, value: float) -> bool:
        """Whether a number is also in range in the program's precision."""
        with np.errstate(over="ignore"):
            single = float(np.float32(value))
        try:
            self.adapter.validate_python(single)
        except ValidationError:
            return False
        return bool(np.isinf(single) == np.isinf(value))

    def _refusal(self, value: Any, because: str) -> str:
        hint = suggestion(value, self.words) if isinstance(value, str) else ""
        reason = f" ({because})" if because else ""
        return f"{shown(value)} is not allowed; must be {cut(self.allowed, 100)}{reason}{hint}"


def annotations(factory: Callable[..., Any]) -> dict[str, Any]:
    """The annotation of each keyword-only parameter. ``TypeError`` if one has none or has a reserved name."""
    parameters = inspect.signature(factory).parameters.values()
    keywords = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    bare = [name for name, annotation in keywords.items() if annotation is REQUIRED or name == "kind"]
    if bare:
        raise TypeError(f"{_named(factory)}: `{bare[0]}` has no annotation or is a reserved name")
    # Only the keyword-only annotations are evaluated: others may name types that exist for the type checker alone.
    holder = types.SimpleNamespace(__annotations__=keywords)
    module = vars(sys.modules[factory.__module__])
    return typing.get_type_hints(holder, globalns=module, include_extras=True)


@functools.cache
def schema_of(factory: Callable[..., Any]) -> Mapping[str, Setting]:
    """The settings of a factory by name, in signature order. ``TypeError`` if its signature cannot be a schema."""
    hints, parameters = annotations(factory), inspect.signature(factory).parameters
    return types.MappingProxyType({n: _setting(factory, n, hints[n], parameters[n].default) for n in hints})


def _setting(factory: Callable[..., Any], name: str, annotation: Any, default: Any) -> Setting:
    parts = list(_alternatives(annotation))
    traced = any(isinstance(mark, Traced) for part in parts if not _is_container(part) for mark in _marks(part))
    members = ((m.family, _is_container(part)) for part in parts for m in _marks(part) if isinstance(m, Member))
    member, many = next(members, (None, False))
    if not (member or traced) and any(isinstance(mark, Traced | Member) for mark in _deep_marks(annotation)):
        raise TypeError(f"{_named(factory)}: `{name}`: traced numbers and members are not allowed in a container")
    allowed = _members(member, many) if member else words(annotation)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(Any if member else strict(annotation))
        optional = default is None or type(None) in parts
        setting = Setting(name, allowed, default, traced, member, many, optional, _texts(parts), adapter)
        return setting if setting.required or member else replace(setting, default=setting.parse(default))
    except (ValueError, PydanticUserError) as error:
        raise TypeError(f"{_named(factory)}: `{name}`: {str(error).splitlines()[0]}") from None


def _texts(parts: list[Any]) -> tuple[str, ...]:
    literals = (get_args(_bare(part)) for part in parts if get_origin(_bare(part)) is Literal)
    return tuple(value for values in literals for value in values if isinstance(value, str))


def _is_container(annotation: Any) -> bool:
    return (get_origin(_bare(annotation)) or _bare(annotation)) in (list, tuple, dict)


def _named(factory: Callable[..., Any]) -> str:
    return f"{factory.__module__}.{getattr(factory, '__qualname__', factory)}"


# Walking annotations.


def _bare(annotation: Any) -> Any:
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _marks(annotation: Any) -> tuple[Any, ...]:
    """The metadata of an ``Annotated``, with pydantic's fields opened into their constraints."""
    if get_origin(annotation) is not Annotated:
        return ()
    inner, *marks = get_args(annotation)
    opened = (mark.metadata if isinstance(mark, FieldInfo) else [mark] for mark in marks)
    return (*_marks(inner), *(mark for group in opened for mark in group))


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The parts of a union (with the union's own marks, once), or the annotation itself."""
    yield annotation
    if get_origin(_bare(annotation)) in (Union, types.UnionType):
        for part in get_args(_bare(annotation)):
            yield from _alternatives(part)


def _deep_marks(annotation: Any) -> Iterator[Any]:
    yield from _marks(annotation)
    for part in get_args(_bare(annotation)):
        yield from _deep_marks(part)


def _number(value: Any) -> Any:
    """A number unchanged; ``ValueError`` for booleans, text and NaN, which pydantic would convert."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise AssertionError
    return value


def strict(annotation: Any) -> Any:
    """The annotation in strict form: numbers exclude booleans, text and NaN; booleans and text allow nothing else."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in (int, float):
        return Annotated[annotation, BeforeValidator(_number)]
    if annotation in (bool, str):
        return Annotated[annotation, Strict()]
    if origin is Annotated:
        return Annotated[(strict(parts[0]), *parts[1:])]
    if origin in (Union, types.UnionType):
        return Union[tuple(strict(part) for part in parts)]  # noqa: UP007 (built at run time)
    if origin in (list, tuple, dict):
        return origin[tuple(part if part is Ellipsis else strict(part) for part in parts)]
    return annotation


def words(annotation: Any) -> str:
    """The allowed values in words: ``an integer of at least 1``, ``relu or tanh``, ``a list, each a number``."""
    bare, parts = _bare(annotation), get_args(_bare(annotation))
    origin = get_origin(bare)
    if origin in (Union, types.UnionType):
        return " or ".join(words(part) for part in parts)
    if origin is Literal:
        return " or ".join(", ".join(_literal(p) for p in group) for group in (parts[:-1], parts[-1:]) if group)
    if origin in (list, tuple) and parts:
        if len(parts) > 1 and parts[1] is not Ellipsis:
            return f"a list of {len(parts)}: {', '.join(words(part) for part in parts)}"
        return f"a list{_bounds(annotation)}, each {words(parts[0])}"
    base = origin or bare
    return PLAIN.get(base, getattr(base, "__name__", str(base))) + _bounds(annotation)


def _literal(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else on_one_line(value)


def _bounds(annotation: Any) -> str:
    marks = _marks(annotation)
    low = next((m for m in marks if isinstance(m, Gt | Ge)), None)
    high = next((m for m in marks if isinstance(m, Lt | Le)), None)
    length = _length(marks)
    if low and high:
        left = f"({low.gt}" if isinstance(low, Gt) else f"[{low.ge}"
        return f" in {left}, " + (f"{high.lt})" if isinstance(high, Lt) else f"{high.le}]") + length
    if low:
        return (f" greater than {low.gt}" if isinstance(low, Gt) else f" of at least {low.ge}") + length
    if high:
        return (f" less than {high.lt}" if isinstance(high, Lt) else f" of at most {high.le}") + length
    return length


def _length(marks: tuple[Any, ...]) -> str:
    least = next((m.min_length for m in marks if isinstance(m, MinLen)), 0)
    most = next((m.max_length for m in marks if isinstance(m, MaxLen)), None)
    if most is None:
        return f" with {least} or more" if least else ""
    if least == most:
        return f" with {least}"
    return f" with {least} to {most}" if least else f" with at most {most}"


def _members(family: str, many: bool) -> str:
    return f"a list of {family}" if many else f"one of the {family}"
