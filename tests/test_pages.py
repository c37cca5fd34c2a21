"""The pages that are made of docstrings say what the docstrings say."""

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


PAGES = {"interventions": "interventions", "monitors": "monitors", "streams": "streams", "transforms": "streams"}


@pytest.mark.parametrize("family", PAGES)
def test_pages_are_up_to_date(family, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    pages = __import__("make_pages")
    written = (DOCS / f"{PAGES[family]}.md").read_text()
    known = pages.registry()
    own = [name for name in known[family] if known.origin(family, name) == "built in"]
    stale = [name for name in own if pages.section(family, name) not in written]
    assert not stale, f"run `python docs/make_pages.py {PAGES[family]} ...` (see there) for {', '.join(stale)}"
    assert pages.sections(family).rstrip() in written
    assert sys.modules.pop("make_pages")


def test_every_picture_of_streams_is_drawn_and_shown(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    pictures = __import__("stream_pictures")
    files = {pictures.file_of(module) for module in pictures.PICTURES}
    assert files == {path.name for path in (DOCS / "figures").glob("streams_*.png")}
    written = (DOCS / "streams.md").read_text()
    assert all(f"(figures/{name})" in written for name in files)
    assert sys.modules.pop("stream_pictures")


def test_links_within_the_pages_lead_somewhere():
    for page in set(DOCS.glob("*.md")) - set(DOCS.glob("*.template.md")):
        for target, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text()):
            text = (DOCS / target if target else page).read_text()
            titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            known = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert anchor in known, f"{page.name}: {target}#{anchor}"
