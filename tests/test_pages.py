"""The pages generated from docstrings are up to date."""

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


PAGES = {name: name for name in ("interventions", "monitors", "networks", "streams")} | {"transforms": "streams"}


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
    assert not re.findall(r"^(?:Args|Returns|Raises):", written, re.MULTILINE)
    assert "``" not in written.replace("```", "")
    assert sys.modules.pop("make_pages")


def test_the_table_of_what_is_checked_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    pages = __import__("make_pages")
    made = pages.of_verification()
    assert made == (DOCS / "verification.md").read_text(), "run `python docs/make_pages.py verification`"
    assert sys.modules.pop("make_pages")


def test_the_table_of_interventions_is_made_of_what_is_kept(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    made = __import__("make_pages").arms_on_one_stream("interventions")
    assert made in (DOCS / "interventions.md").read_text(), "run `python docs/make_pages.py interventions RUN`"
    assert sys.modules.pop("make_pages")


def test_every_picture_of_streams_is_drawn_and_shown(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    pictures = __import__("stream_pictures")
    files = {pictures.file_of(module) for module in pictures.PICTURES}
    assert files == {path.name for path in (DOCS / "figures").glob("streams_*.png")}
    written = (DOCS / "streams.md").read_text()
    assert all(f"(figures/{name})" in written for name in files)
    assert sys.modules.pop("stream_pictures")


def test_the_section_on_a_gpu_is_made_of_the_file_that_is_kept(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    gpu = __import__("gpu_page")
    written = (DOCS / "speed.md").read_text()
    assert gpu.page(written, gpu.kept()) == written, "run `python docs/make_pages.py gpu`"
    lanes = {"agent": "dqn", "lanes": 64, "steps_per_second": 1e6, "microseconds_per_step": 64.0}
    rows = [
        {"agent": "dqn", "lanes": 64, "compile_seconds": 2.5, "trace_seconds": 1.0, "state_bytes_per_lane": 2**20},
        {**lanes, "chunk_seconds": 0.1, "time_of_one_lane": 3.25, "within_limit": True},
        {"agent": "dqn", "lanes": 256, "error": "out of memory"},
    ]
    made = gpu.text({"sections": {"lanes dqn": {"state": "ended", "rows": rows}}})
    assert "| `dqn` | 64 | 1,000,000 | 64 | 3.25 | 1 | 2.5 | 1.0 |  |" in made
    assert "`dqn` 3.25." in made
    assert "Not finished: lanes dqn." in made
    assert sys.modules.pop("gpu_page")


def test_links_within_the_pages_lead_somewhere():
    for page in set(DOCS.rglob("*.md")) - set(DOCS.glob("*.template.md")) - set((DOCS / "findings").glob("*.md")):
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", prose):
            place = page.parent / target if target else page
            assert place.exists(), f"{page.name}: {target}"
            titles = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE) if anchor else []
            known = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert not anchor or anchor in known, f"{page.name}: {target}#{anchor}"


def test_the_reference_is_what_its_generator_writes(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    reference = __import__("make_reference")
    known = reference.registry()
    stale = [name for name, made in reference.WRITTEN.items() if made(known) != (DOCS / name).read_text("utf-8")]
    assert not stale, f"run `python docs/make_reference.py` for {', '.join(stale)}"
    assert {f"reference/{path.name}" for path in (DOCS / "reference").glob("*")} <= set(reference.WRITTEN)
    for name in ("make_reference", "make_pages", "config_schema"):
        assert sys.modules.pop(name)
