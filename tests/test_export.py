"""Tables as CSV and LaTeX."""

import io

import numpy as np
import pandas as pd
import pytest

from plasticity import results

NAN = np.nan


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "arm": pd.Categorical(["base_line", "50% & more"], ["base_line", "50% & more"]),
            "seeds": [8, 1],
            "iqm": [1 / 3, -0.25],
            "iqm_low": [0.3, NAN],
            "iqm_high": [0.4, NAN],
            "rate": [1e-5, NAN],
        }
    )


def test_csv_holds_every_digit(table):
    text = results.csv_text(table)
    assert text.splitlines()[0] == "arm,seeds,iqm,iqm_low,iqm_high,rate"
    assert text.splitlines()[2] == "50% & more,1,-0.25,,,"
    assert "\r" not in text
    again = pd.read_csv(io.StringIO(text))
    pd.testing.assert_frame_equal(again, table.astype({"arm": "str"}), check_exact=True, check_dtype=False)


def test_latex_by_hand(table):
    assert results.latex_text(table) == "\n".join([
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"arm & seeds & iqm & rate \\",
        r"\midrule",
        r"base\_line & 8 & 0.333 [0.300, 0.400] & $1.00 \cdot 10^{-5}$ \\",
        r"50\% \& more & 1 & $-$0.250 & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ])  # fmt: skip


def test_columns_headings_and_digits(table):
    text = results.latex_text(table, columns={"iqm": r"IQM $\uparrow$", "arm": "method"}, digits=2)
    assert text.splitlines()[2:5:2] == [r"IQM $\uparrow$ & method \\", r"0.33 [0.30, 0.40] & base\_line \\"]
    assert r"\begin{tabular}{rl}" in text
    bounds = results.latex_text(table, columns=["iqm_low"])
    assert bounds.splitlines()[2:6] == [r"iqm\_low \\", r"\midrule", r"0.300 \\", r"-- \\"]


def test_a_caption_makes_a_table(table):
    lines = results.latex_text(table, caption="Scores, $n = 8$.", label="tab:scores").splitlines()
    assert lines[:5] == [
        r"\begin{table}", r"\centering", r"\caption{Scores, $n = 8$.}", r"\label{tab:scores}", r"\begin{tabular}{lrrr}",
    ]  # fmt: skip
    assert lines[-1] == r"\end{table}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (123456.0, "123456"),
        (9.999, "10.00"),
        (12.3456, "12.3"),
        (-0.00123, "$-$0.00123"),
        (-3e9, r"$-3.00 \cdot 10^{9}$"),
        (np.inf, r"$\infty$"),
        (-np.inf, r"$-\infty$"),
        (7, "7"),
        (True, "True"),
        ("a\\b~c^d#{e}$", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\#\{e\}\$"),
        ("[16, 16]", "[16, 16]"),
    ],
)
def test_cells(value, text):
    assert results.latex_text(pd.DataFrame({"x": [value]})).splitlines()[4] == rf"{text} \\"


def test_what_is_refused(table, tmp_path):
    with pytest.raises(ValueError, match="the table has no column mean; its columns: arm, seeds, iqm"):
        results.latex_text(table, columns=["mean"])
    with pytest.raises(ValueError, match="digits: 0 is not allowed"):
        results.latex_text(table, digits=0)
    with pytest.raises(ValueError, match=r"path: .*scores.txt with options \[\] is not allowed; must end with .csv"):
        results.save_table(table, tmp_path / "scores.txt")
    with pytest.raises(ValueError, match=r"options \['digits'\] is not allowed"):
        results.save_table(table, tmp_path / "scores.csv", digits=2)
    assert not list(tmp_path.iterdir())


def test_files(table, tmp_path):
    path = results.save_table(table, tmp_path / "made" / "scores.csv")
    assert path.read_bytes() == results.csv_text(table).encode()
    path = results.save_table(table, str(tmp_path / "scores.tex"), digits=2)
    assert path.read_text() == results.latex_text(table, digits=2)


def test_every_table_of_statistics_can_be_exported():
    rng = np.random.default_rng(0)
    rows = [(arm, s, s, t, f"t_{t}", rng.random()) for arm in ("a", "b") for s in range(3) for t in range(2)]
    scores = results.task_scores(pd.DataFrame(rows, columns=["arm", "lane", "seed", "visit", "task", "performance"]))
    tables = [
        results.aggregates(scores, resamples=20),
        results.performance_profiles(scores, [0.2, 0.5], resamples=20),
        results.probability_of_improvement(scores, "a", resamples=20),
    ]
    for table in tables:
        folded = [name for name in table if str(name).endswith(("_low", "_high"))]
        lines = results.latex_text(table).splitlines()
        assert len(lines) == len(table) + 6
        assert all(line.count("&") == table.shape[1] - len(folded) - 1 for line in lines[4:-2])
        assert len(results.csv_text(table).splitlines()) == len(table) + 1
