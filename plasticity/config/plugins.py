"""Members of other packages: what they return is checked, and what they raise is told in a line that names them."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from plasticity.core.errors import UserError, cut

WIDTH = 240  # of what a foreign package says, in a message
STOPS = (Exception, SystemExit)  # whatever a foreign function may end with, but Ctrl-C

Lift = Callable[[str, Any], Any]  # the member's name, what it returned -> the same as the family's type, if that can be


Keeps = Callable[[tuple[Any, ...], Any], str]  # a function's arguments, what it returned -> what is wrong with that


class Returns(NamedTuple):
    """What a member of a family has to return."""

    kind: type
    lift: Lift = lambda name, made: made
    keeps: Mapping[str, Keeps] = MappingProxyType({})  # of its functions
    then: type | None = None  # of a member that is a function: what this has to return


class Origin(NamedTuple):
    """Whose function it is."""

    family: str
    name: str
    package: str

    def __str__(self) -> str:
        return f"{self.family.removesuffix('s')} `{self.name}` ({self.package})"


def said(error: BaseException) -> str:
    """The error's kind and message, as one short line."""
    return cut(" ".join(f"{type(error).__name__}: {error}".split()), WIDTH)


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Whatever ends the block but Ctrl-C becomes a ``UserError`` of one line that opens with ``where``."""
    try:
        yield
    except UserError:
        raise
    except STOPS as error:
        raise UserError(f"{where}: {said(error)}") from error


def calling(origin: Origin, function: Callable[..., Any], where: str, keeps: Keeps | None = None) -> Callable[..., Any]:
    """The function, whose errors are the user's news: ``UserError``, in a line that opens with member and package.

    Records of functions that it returns are treated alike.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        with told(f"{origin}: `{where}` fails"):
            made = function(*args, **kwargs)
            wrong = keeps(args, made) if keeps else ""
            if wrong:
                raise TypeError(f"returns {wrong}")
        return record(origin, made)

    return call


def is_record(made: Any) -> bool:
    return isinstance(made, tuple) and hasattr(made, "_fields") and type(made).__module__.startswith("plasticity.")


def record(origin: Origin, made: Any, keeps: Mapping[str, Keeps] = MappingProxyType({})) -> Any:
    """A record of functions with each of them as :func:`calling` makes it; those it has by default stay as they are."""
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
    """The factory of a foreign member, with its signature and metadata; what it makes has the family's type.

    ``UserError`` naming member and package where the factory, or a function that it made, raises or exits, or where it
    returns something else.
    """

    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Any:
        with told(str(origin)):
            made = factory(*args, **kwargs)
        wanted = returns.get(origin.family)
        if wanted is None:
            return made
        made = wanted.lift(origin.name, made)
        if not isinstance(made, wanted.kind):
            raise UserError(f"{origin} must return {article(wanted.kind.__name__)}; it returns {described(made)}")
        function: Any = made
        return record(origin, made, wanted.keeps) if wanted.then is None else applying(origin, function, wanted.then)

    return make


def applying(origin: Origin, function: Callable[..., Any], kind: type) -> Callable[..., Any]:
    """The function of a member that is one, such as a transform; ``UserError`` where it fails or returns another type.

    What it returns is not wrapped: transforms of transforms look into it.
    """

    def apply(*args: Any) -> Any:
        with told(f"{origin}: fails where it is applied"):
            made = function(*args)
        if not isinstance(made, kind):
            wanted = article(kind.__name__)
            raise UserError(f"{origin} must be applied to {wanted}, to give another; it gives {described(made)}")
        return made

    return apply


def article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"


def described(value: Any) -> str:
    return "nothing" if value is None else article(type(value).__name__)
