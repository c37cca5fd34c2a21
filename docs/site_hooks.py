"""The mkdocs hook that turns links to files outside docs/ into plain text before a page is rendered."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s:]+)(#[\w-]*)?\)")


def outside(page: str, target: str) -> bool:
    """Whether a relative link of a page leads out of docs/, where the site has no pages."""
    return DOCS not in (DOCS / page).parent.joinpath(target).resolve().parents


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with such links as plain text; in a checkout they work unchanged."""

    def replaced(found: re.Match[str]) -> str:
        return found[1] if outside(page.file.src_uri, found[2]) else found[0]

    return LINK.sub(replaced, markdown)
