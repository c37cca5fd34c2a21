"""Write the GPU section of docs/speed.md from the file that `make gpu-check` writes (kept as docs/gpu.json)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
KEPT, PAGE = DOCS / "gpu.json", DOCS / "speed.md"
BEGIN, END = "<!-- Made by `python docs/make_pages.py gpu FILE`: begin -->", "<!-- end -->"
NOTHING = (
    "There are no GPU measurements yet. `make gpu-check` (one GPU, at most eight minutes) writes the numbers, and\n"
    "`python docs/make_pages.py gpu gpu.json` writes this section."
)
Row = Mapping[str, Any]


def rows(document: Row, section: str) -> list[Row]:
    return list(document["sections"].get(section, {}).get("rows", []))


def sections(document: Row, kind: str) -> Iterator[tuple[str, list[Row]]]:
    """Yield the names that follow ``kind``, with their rows."""
    for name in document["sections"]:
        if name.startswith(f"{kind} "):
            yield name.removeprefix(f"{kind} "), rows(document, name)


def table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> list[str]:
    if not lines:
        return []
    return [f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines)] + [""]


def number(value: Any, form: str = ",.3g") -> str:
    return "" if value is None else f"{value:{form}}"


def megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:,.1f}"


def scaling(document: Row) -> list[str]:
    """Tabulate speed, compilation and memory by the number of lanes."""
    lines = []
    for agent, found in sections(document, "lanes"):
        speeds = {row["lanes"]: row for row in found if "chunk_seconds" in row}
        compiled = {row["lanes"]: row for row in found if "compile_seconds" in row}
        for lanes in sorted(speeds):
            one, made = speeds[lanes], compiled.get(lanes, {})
            lines.append(
                (
                    f"`{agent}`", str(lanes), number(one["steps_per_second"], ",.0f"),
                    number(one["microseconds_per_step"], ",.0f"), number(one["time_of_one_lane"], ".2f"),
                    number(made.get("trace_seconds")), number(made.get("compile_seconds")),
                    megabytes(made.get("state_bytes_per_lane")), megabytes(made.get("temp_size")),
                )
            )  # fmt: skip
    head = ("agent", "lanes in one vmap", "env steps/s", "µs per step of all lanes", "time relative to one lane",
            "trace, s", "compile, s", "state per lane, MiB", "workspace in total, MiB")  # fmt: skip
    return table(head, lines)


def verdict(document: Row) -> list[str]:
    found = [row for _, each in sections(document, "lanes") for row in each if row.get("within_limit") is not None]
    if not found:
        return []
    text = ", ".join(f"`{row['agent']}` {row['time_of_one_lane']:.2f}" for row in found)
    return [f"The time of 64 lanes relative to that of one lane (limit 4): {text}.", ""]


def deviations(document: Row) -> list[str]:
    lines = [
        (
            f"`{agent}`", row["precision"], str(row["steps"]), str(row["updates"]), number(row["of_change"], ".1e"),
            number(row["of_parameters"], ".1e"), "yes" if row["same_stream"] else "no",
        )
        for agent, found in sections(document, "against_cpu")
        for row in found
        if "of_change" in row
    ]  # fmt: skip
    head = (
        "agent",
        "precision",
        "env steps",
        "updates",
        "relative deviation of the change",
        "of the parameters",
        "same stream",
    )
    return table(head, lines)


def repeated(document: Row) -> list[str]:
    again = {row.get("agent"): row.get("digest") for row in rows(document, "determinism again")}
    resumed = {row.get("agent"): row.get("equal") for row in rows(document, "resume")}
    says = {True: "yes", False: "no", None: "not measured"}
    lines = []
    for row in rows(document, "determinism"):
        if "equal" in row:
            other = again.get(row["agent"])
            equal = None if other is None else other == row["digest"]
            lines.append((f"`{row['agent']}`", says[row["equal"]], says[equal], says[resumed.get(row["agent"])]))
    return table(("agent", "equal in one process", "equal across processes", "equal after a resume"), lines)


def convolutions(document: Row) -> list[str]:
    found: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows(document, "convolution"):
        if "milliseconds" in row:
            found.setdefault((row["batch"], row["lanes"]), {})[row["method"]] = row["milliseconds"]
    lines = [
        (str(batch), str(lanes), number(each.get("lax")), number(each.get("patches")))
        for (batch, lanes), each in found.items()
    ]
    return table(("batch", "lanes", "`lax`, ms per lane", "patches, ms per lane"), lines)


def monitors(document: Row) -> list[str]:
    lines = [
        (row["learner"], str(row["lanes"]), f"`{row['monitor']}`", number(row["milliseconds"]))
        for row in rows(document, "curvature")
        if "milliseconds" in row
    ]
    return table(("learner", "lanes", "monitor", "ms per lane"), lines)


def run(document: Row) -> list[str]:
    lines = [
        (row["what"], arm, f"{each['step']:,} of {each['steps']:,}", number(each["steps_per_second"], ",.0f"))
        for row in rows(document, "real run")
        for arm, each in row.get("arms", {}).items()
    ]
    return table(("", "arm", "steps per lane", "steps/s of all lanes"), lines)


def tests(document: Row) -> list[str]:
    found = [row for row in rows(document, "tests") if "counts" in row]
    if not found:
        return []
    failed = [f"`{row['failed']}`" for row in rows(document, "tests") if "failed" in row]
    text = ", ".join(f"{count} {result.lower()}" for result, count in found[-1]["counts"].items())
    whole = "" if found[-1].get("complete") else " (stopped before the end)"
    return [f"Quick tests on this GPU{whole}: {text}" + (f": {', '.join(failed)}" if failed else "") + ".", ""]


def facts(document: Row) -> list[str]:
    (found, *_) = [row for row in rows(document, "facts") if "device" in row] or [{}]
    if not found:
        return []
    packages = found["packages"]
    text = f"{found['device']}, JAX {packages['jax']}, Python {document['python']}, {found['cpus']} CPU cores"
    memory = "" if found.get("memory") is None else f", {found['memory'] / 2**30:.0f} GiB for JAX"
    return [f"`make gpu-check`, {document['seconds']:.0f} s in all, {document['began']}: {text}{memory}.", ""]


def unfinished(document: Row) -> list[str]:
    names = [name for name, each in document["sections"].items() if each["state"] != "done"]
    return [f"Not finished: {', '.join(names)}.", ""] if names else []


PARTS = (
    ("", (facts, unfinished)),
    ("**Lanes.**", (verdict, scaling)),
    ("**Comparison with the CPU**, two lanes; at the default precision matrix products may use TF32.", (deviations,)),
    ("**Repeatability**, value for value.", (repeated,)),
    ("**Convolution**, one gradient of the Nature network in a scan.", (convolutions,)),
    ("**Monitors.**", (monitors,)),
    ("**An experiment**, stopped and resumed.", (run,)),
    ("", (tests,)),
)


def text(document: Row | None) -> str:
    """Return the text of the section; one sentence if there are no measurements."""
    if document is None:
        return NOTHING
    lines: list[str] = []
    for title, parts in PARTS:
        body = [line for part in parts for line in part(document)]
        lines += ([title, ""] if title and body else []) + body
    for later in document.get("later", ()):
        flags = f" with `XLA_FLAGS={later['xla_flags']}`" if later.get("xla_flags") else ""
        why = later.get("why", "after fixes to problems found in the first run")
        lines += [f"**Repeated in part**{flags}, {later['began']}, {why}.", ""]
        parts = (unfinished, repeated, verdict, *((scaling,) if "why" in later else ()), convolutions, monitors)
        lines += [line for part in parts for line in part(later)]
    return "\n".join(lines).rstrip()


def kept() -> Row | None:
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else None


def page(written: str, document: Row | None) -> str:
    """Return the page with the section replaced."""
    before, _, rest = written.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text(document)}\n\n{END}{after}"


def main(*given: str) -> None:
    """Write the section from ``FILE [LATER ...]``: the check, then repeats of sections; by default the kept file."""
    if given:
        whole, *later = (json.loads(Path(path).read_text(encoding="utf-8")) for path in given)
        KEPT.write_text(json.dumps({**whole, **({"later": later} if later else {})}, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), kept()), encoding="utf-8")
