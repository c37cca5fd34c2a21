"""Docstrings as plain text for the terminal and as Markdown for the pages."""

import inspect
import re
import textwrap
from collections.abc import Callable, Container
from typing import Any, NamedTuple

HEADING = re.compile(r"(Args|Returns|Raises):")
ITEM = re.compile(r" {2,4}(\*{0,2}\w[\w, ]*): (.*)")


class Part(NamedTuple):
    """Paragraphs, or a section with a heading."""

    heading: str  # "" for paragraphs
    lines: list[str]  # of paragraphs
    items: list[tuple[str, list[str]]]  # of a section: name and lines; text without a name has the name ""


def unmarked(text: str) -> str:
    """Remove the markup of roles and double backticks."""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")


def first_line(factory: Callable[..., Any]) -> str:
    return unmarked(str(factory.__doc__ or "").strip().partition("\n")[0])


def parts(docstring: str, settings: Container[str] | None = None) -> list[Part]:
    """Split a docstring into paragraphs and sections (``Args``, ``Returns``, ``Raises``).

    Args:
      docstring: as written.
      settings: the arguments to keep; None: all.
    """
    found, section = [Part("", [], [])], False
    for line in unmarked(inspect.cleandoc(docstring)).split("\n"):
        heading, item = HEADING.fullmatch(line), ITEM.match(line)
        if heading:
            found.append(Part(heading[1], [], []))
        elif section and line and not line.startswith(" "):
            found.append(Part("", [line], []))
        elif not section:
            found[-1].lines.append(line)
        elif item:
            found[-1].items.append((item[1], [item[2]]))
        elif line and found[-1].items:
            found[-1].items[-1][1].append(line.strip())
        elif line:
            found[-1].items.append(("", [line.strip()]))
        section = bool(found[-1].heading)
    kept = [_selected(part, settings) if part.heading == "Args" else part for part in found]
    return [part for part in kept if part.items or "".join(part.lines)]


def _selected(part: Part, settings: Container[str] | None) -> Part:
    """The section with only those arguments that are settings."""
    if settings is None:
        return part
    named = [(", ".join(each for each in name.split(", ") if each in settings), lines) for name, lines in part.items]
    return part._replace(items=[(name, lines) for name, lines in named if name])


def markdown(docstring: str, settings: Container[str] | None = None) -> str:
    """Convert a docstring to Markdown, with its sections as lists."""
    texts = []
    for part in parts(docstring, settings):
        text = re.sub(r"::$", ":", "\n".join(part.lines), flags=re.MULTILINE).strip("\n")
        items = "\n".join("\n".join([f"* `{name}`: {lines[0]}" if name else lines[0], *lines[1:]])
                          for name, lines in part.items)  # fmt: skip
        texts.append(f"**{part.heading}**\n\n{items}" if part.heading else text)
    return "\n\n".join(texts)


def plain(docstring: str, settings: Container[str] | None = None, width: int = 80) -> str:
    """Convert a docstring to text for a terminal: one line per paragraph, list items wrapped at ``width``."""
    texts = []
    for part in parts(docstring, settings):
        items = (f"{name}: {' '.join(lines)}" if name else " ".join(lines) for name, lines in part.items)
        lines = [textwrap.fill(item, width, initial_indent="  ", subsequent_indent="    ") for item in items]
        texts.append("\n".join([f"{part.heading}:", *lines]) if part.heading else _flowing("\n".join(part.lines)))
    return "\n\n".join(texts)


def _flowing(text: str) -> str:
    """Paragraphs with one line each, for the terminal to wrap; indented paragraphs are unchanged."""
    paragraphs = text.strip("\n").split("\n\n")
    return "\n\n".join(each if "\n " in each else " ".join(each.split("\n")) for each in paragraphs)
