"""Members of other packages: return values are checked, and errors are reported in one line that names the member."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from plasticity.core.errors import UserError, cut

WIDTH = 240  # of a third-party package's text in a message
STOPS = (Exception, SystemExit)  # whatever a third-party function may raise, except Ctrl-C

Lift = Callable[[str, Any], Any]  # member's name, returned value -> the value as the family's type, if possible


Keeps = Callable[[tuple[Any, ...], Any], str]  # a function's arguments, returned value -> what is wrong with the value


class Returns(NamedTuple):
    """Required return value of a family's members."""

    kind: type | tuple[type, ...]
    lift: Lift = lambda name, made: made
    keeps: Mapping[str, Keeps] = MappingProxyType({})  # checks of its functions
    then: type | None = None  # required return type of a member that is a function


class Origin(NamedTuple):
    """The member that a function belongs to."""

    family: str
    name: str
    package: str

    def __str__(self) -> str:
        return f"{self.family.removesuffix('s')} `{self.name}` ({self.package})"


def error_text(error: BaseException) -> str:
    """The error's type and message in one short line."""
    return cut(" ".join(f"{type(error).__name__}: {error}".split()), WIDTH)


@contextlib.contextmanager
def failing_as(where: str) -> Iterator[None]:
    """Convert any exception in the block except Ctrl-C to a one-line ``UserError`` that starts with ``where``."""
    try:
        yield
    except UserError:
        raise
    except STOPS as error:
        raise UserError(f"{where}: {error_text(error)}") from error


def calling(origin: Origin, function: Callable[..., Any], where: str, keeps: Keeps | None = None) -> Callable[..., Any]:
    """Wrap the function so that its errors become a one-line ``UserError`` that starts with member and package.

    Records of functions that it returns are wrapped too.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        with failing_as(f"{origin}: `{where}` fails"):
            made = function(*args, **kwargs)
            wrong = keeps(args, made) if keeps else ""
            if wrong:
                raise TypeError(f"returns {wrong}")
        return record(origin, made)

    return call


def is_record(made: Any) -> bool:
    return isinstance(made, tuple) and hasattr(made, "_fields") and type(made).__module__.startswith("plasticity.")


def record(origin: Origin, made: Any, keeps: Mapping[str, Keeps] = MappingProxyType({})) -> Any:
    """Wrap each function of a record with :func:`calling`; functions that are the record's defaults are unchanged."""
    if not is_record(made):
        return made
    defaults = type(made)._field_defaults
    own = {
        name: calling(origin, value, name, keeps.get(name))
        for name, value in zip(made._fields, made, strict=True)
        if callable(value) and not isinstance(value, type | tuple) and value is not defaults.get(name)
    }
    return made._replace(**own) if own else made


def guarded(origin: Origin, factory: Callable[..., Any], returns: Mapping[str, Returns]) -> Callable[..., Any]:
    """Wrap the factory of a third-party member; signature and metadata are kept, and its result has the family's type.

    ``UserError`` naming member and package if the factory, or a function that it returned, raises or exits, or if the
    factory returns another type.
    """

    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Any:
        with failing_as(str(origin)):
            made = factory(*args, **kwargs)
        wanted = returns.get(origin.family)
        if wanted is None:
            return made
        made = wanted.lift(origin.name, made)
        if not isinstance(made, wanted.kind):
            raise UserError(f"{origin} must return {kinds(wanted.kind)}; it returns {described(made)}")
        function: Any = made
        return record(origin, made, wanted.keeps) if wanted.then is None else applying(origin, function, wanted.then)

    return make


def applying(origin: Origin, function: Callable[..., Any], kind: type) -> Callable[..., Any]:
    """Wrap a member that is itself a function, such as a transform.

    ``UserError`` if it fails or returns another type. The returned value is not wrapped, as transforms of transforms
    inspect it.
    """

    def apply(*args: Any) -> Any:
        with failing_as(f"{origin}: fails when it is applied"):
            made = function(*args)
        if not isinstance(made, kind):
            wanted = article(kind.__name__)
            raise UserError(f"{origin} must map {wanted} to another; it returns {described(made)}")
        return made

    return apply


def article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"


def kinds(wanted: type | tuple[type, ...]) -> str:
    """``a NetworkSpec or a Functions``."""
    return " or ".join(article(kind.__name__) for kind in (wanted if isinstance(wanted, tuple) else (wanted,)))


def described(value: Any) -> str:
    return "nothing" if value is None else article(type(value).__name__)
