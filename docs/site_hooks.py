"""What mkdocs does to a page before it is rendered: links to files outside docs/ become plain code."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s:]+)(#[\w-]*)?\)")


def outside(page: str, target: str) -> bool:
    """Whether a relative link of a page leads out of docs/, where the site has nothing."""
    return DOCS not in (DOCS / page).parent.joinpath(target).resolve().parents


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with such links as plain text; in a checkout they work as they are."""

    def mended(found: re.Match[str]) -> str:
        return found[1] if outside(page.file.src_uri, found[2]) else found[0]

    return LINK.sub(mended, markdown)
