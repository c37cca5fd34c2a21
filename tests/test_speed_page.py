"""The tables of `plasticity bench` in the docs are those of the file that is kept, and are drawn right."""

import re
import sys

import pytest
from documented import DOCS

from plasticity.bench import BENCHMARKS
from plasticity.bench.agents import AgentSpeed
from plasticity.bench.convolution import Milliseconds
from plasticity.bench.interventions import Slowdown
from plasticity.bench.monitors import Cost
from plasticity.bench.overhead.comparison import Overhead
from plasticity.bench.placements import Speed
from plasticity.bench.stream_rates import Rate


@pytest.fixture
def speed(monkeypatch):
    """docs/speed_page.py, which is no package's."""
    monkeypatch.syspath_prepend(str(DOCS))
    yield __import__("speed_page")
    assert sys.modules.pop("speed_page")


def test_the_tables_of_speed_are_made_of_the_file_that_is_kept(speed):
    pages = {name: (DOCS / name).read_text() for name in speed.PAGES}
    for name, written in pages.items():
        assert speed.page(written, speed.kept()) == written, f"run `python docs/make_pages.py speed`: {name}"
    block = r"speed FILE`: (\w+) -->\n.*?\n<!-- end of \1 -->"
    found = [name for written in pages.values() for name in re.findall(block, written, re.DOTALL)]
    assert sorted(found) == sorted(speed.TABLES) == sorted(BENCHMARKS)


def rows_of(*rows):
    return [row._asdict() for row in rows]


def test_the_tables_of_speed_by_hand(speed):
    one = AgentSpeed("dqn", 1, "1 x 1 x 1", 1234.5, 1.0, None)
    eight = one._replace(lanes=8, steps_per_second=9e3, target=500)
    assert speed.agents(rows_of(one, eight))[2] == "| dqn | 1,234 | 9,000 | 500 with 8 lanes |"
    placed = rows_of(Speed("mlp", 8, 2, 4, 1, True, 5000.0, 0.987))
    assert speed.lanes(placed)[2] == "| mlp | 8 | 2 x 4 x 1 * | 5,000 | 0.99 |"
    programs = rows_of(Overhead("ppo", 2, "by hand", 1000.0, 1.0, None), Overhead("ppo", 2, "loop", 940.0, 0.94, 0.06))
    assert speed.overhead(programs)[::2] == [
        "| agent | lanes | by hand, env steps/s | loop |",
        "| `ppo` | 2 | 1,000 | 0.94 |",
    ]
    gradients = rows_of(
        Milliseconds(32, 1, "patches", "scan", 9.6, 0.64), Milliseconds(32, 1, "lax", "alone", 15.0, 1.0)
    )
    assert speed.convolution(gradients)[2] == "| 32 | 1 | 9.6 ms (0.64) | 15 ms (1.00) |"
    costs = rows_of(
        Slowdown("redo", "a", 1.0, 105.0, 1.04),
        Slowdown("redo", "b", 1.0, 2.0, 1.5),
        Slowdown("sam", "a", 42.3, None, 42.3),
    )
    lines = speed.interventions(costs)
    assert lines[2:4] == ["| `redo` | 1.04 (105) | 1.50 (2.0) |", "| `sam` | 42 |  |"]
    assert lines[-2].endswith("the most expensive first: `sam`, `redo`.")
    rates = rows_of(Rate("gym", 1, 2.5e6, True, None), Rate("gym", 8, 3000.0, True, 0.125))
    assert speed.streams(rates)[2] == "| `gym` | 2.5M | 3,000 | 12 % |"
    shares = rows_of(*(Cost(name, "dqn", 2, 1.0, 1.0, 0.02) for name in ("weight_norm", "ntk")))
    assert speed.monitors(shares)[2] == "| dqn | 2 | 2.0 % |"


def test_only_the_place_of_a_table_is_written(speed):
    rows = rows_of(Speed("mlp", 8, 2, 4, 1, False, 5000.0, 1.0))
    kept = {"lanes": {"machine": {"cpus": 2, "jax": "1.2", "python": "3.11"}, "rows": rows}}
    begin, end = "<!-- Made by `python docs/make_pages.py speed FILE`: lanes -->", "<!-- end of lanes -->"
    made = speed.page(f"before\n{begin}\nold\n{end}\nafter", kept)
    assert made.startswith(f"before\n{begin}\n\n2 CPU cores, JAX 1.2, Python 3.11:\n\n| case | lanes |")
    assert made.endswith(f"| mlp | 8 | 2 x 4 x 1 | 5,000 | 1.00 |\n\n{end}\nafter")
    assert speed.page("no place for it", kept) == "no place for it"
    with pytest.raises(ValueError, match="end of lanes"):
        speed.page(f"{begin}\nthe rest", kept)
