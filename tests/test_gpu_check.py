"""The GPU check: a section that fails, hangs or dies does not affect the others; nothing runs during timing."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plasticity.bench.gpu import against_cpu, cases, conductor, repeat, scaling, suite
from plasticity.bench.gpu.__main__ import parsed
from plasticity.bench.gpu.plan import AGENTS, SECTIONS, Section, Settings


def section(function: str, *arguments: str, **more: Any) -> Section:
    return Section(more.pop("name", function), "tests.gpu_sections", function, arguments, **more)


def conducted(out: Path, seconds: float, *sections: Section) -> dict[str, Any]:
    conductor.conduct(sections, Settings(True, seconds), out, 8)
    return json.loads(out.read_text())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "GRACE", 0.5)
    monkeypatch.setattr(conductor, "ALONE", 0.15)  # 6 of 40 seconds: nothing is imported or compiled here


@pytest.mark.usefixtures("short")
@pytest.mark.slow
def test_a_bad_section_loses_no_other(tmp_path: Path) -> None:
    bad = [section(name) for name in ("raises", "hangs", "dies")]
    one, two = section("times", name="one", timed=5), section("times", name="two", timed=5)
    found = conducted(tmp_path / "gpu.json", 40.0, *bad, section("overruns", timed=3), section("good", "x"), one, two)
    kept = found["sections"]
    assert found["complete"]
    assert {name: each["state"] for name, each in kept.items()} == {
        "raises": "failed", "hangs": "ended", "dies": "failed", "overruns": "ended", "good": "done", "one": "done",
        "two": "done",
    }  # fmt: skip
    assert kept["good"]["rows"] == [{"given": ["x"], "quick": True, "own": True}]
    assert kept["raises"]["error"] == "ValueError: out of luck"
    assert kept["raises"]["rows"] == [{"before": 1}, {"what": "a", "error": "KeyError: 'guarded'"}]
    assert "out of luck" in "\n".join(kept["raises"]["log"])
    assert kept["hangs"]["rows"] == kept["dies"]["rows"] == [{"before": 1}]
    assert kept["dies"]["exit_code"] == 11
    assert kept["hangs"]["error"] == "took too long to prepare"
    assert kept["overruns"]["error"] == "overran its turn"
    (first,), (second,) = kept["one"]["rows"], kept["two"]["rows"]
    assert first["ended"] <= second["began"]
    assert found["seconds"] < 40


@pytest.mark.usefixtures("short")
def test_the_rest_comes_last_and_gets_what_is_left(tmp_path: Path) -> None:
    found = conducted(
        tmp_path / "gpu.json", 30.0, section("times", name="rest", rest=True), section("times", name="timed", timed=4)
    )
    (rest,), (timed,) = (found["sections"][name]["rows"] for name in ("rest", "timed"))
    assert timed["ended"] <= rest["began"]
    assert timed["seconds"] == 4
    assert 4 < rest["seconds"] <= 30 - 2 * conductor.GRACE


def test_the_plan_names_what_there_is() -> None:
    import importlib

    assert len({each.name for each in SECTIONS}) == len(SECTIONS)
    for each in SECTIONS:
        assert callable(getattr(importlib.import_module(f"plasticity.bench.gpu.{each.module}"), each.function))
    assert set(AGENTS) <= set(cases.CASES)
    assert sum(each.timed for each in SECTIONS if not each.rest) < 0.4 * parsed(["--out", "x"]).seconds


def test_a_speed_row_by_hand() -> None:
    run = cases.run_of(cases.program(cases.CASES["classifier"].case, 64))
    row = scaling.speed("classifier", run, [2.0, 1.0, 3.0], 1.0)
    steps = 256 * 64  # of a chunk, envs together
    assert row["steps_per_second"] == 64 * steps / 2
    assert (row["time_of_one_lane"], row["within_limit"]) == (2.0, True)
    assert not scaling.speed("classifier", run, [5.0], 1.0)["within_limit"]
    assert scaling.speed("classifier", run, [5.0], None)["within_limit"] is None


def test_deviations_by_hand() -> None:
    assert against_cpu.deviation(np.array([3.0, 4.0]), np.array([3.0, 0.0])) == pytest.approx(4 / 3)
    first, second = (
        {"a": np.array([1.0, math.nan]), "b": np.array([1])},
        {"a": np.array([1.0, math.nan]), "b": np.array([2])},
    )
    assert repeat.differing(first, second) == ["['b']"]
    assert repeat.differing(first, first) == []
    assert repeat.digest(first) != repeat.digest(second)


def test_results_of_tests_are_read_with_and_without_processes() -> None:
    for line in ("tests/test_a.py::test_b[x-1] PASSED     [ 6%]", "[gw0] [  6%] PASSED tests/test_a.py::test_b[x-1]"):
        found = suite.RESULT.search(line)
        assert found is not None
        assert (found[1] or found[4], found[2] or found[3]) == ("PASSED", "tests/test_a.py::test_b[x-1]")
    assert all((suite.ROOT / name).exists() for name in suite.FILES)
