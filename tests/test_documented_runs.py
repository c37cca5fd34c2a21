"""What pages say of runs follows from the values by seed in docs/results."""

import pandas as pd
from documented import DOCS, agree, interval, page, rows_of, sentence, table_of


def gap(table, probe, arm, visits_done, measure):
    """By seed: the learners of the run minus new ones."""
    found = table[
        (table["probe"] == probe) & (table["arm"] == arm) & (table["visits_done"] == visits_done)
        & (table["measure"] == measure)
    ]  # fmt: skip
    return found.set_index("seed")["value"] - found.set_index("seed")["fresh"]


def test_fork():
    text = page("howto/fork.md")
    table = pd.read_csv(DOCS / "results" / "probes" / "stream-probes.csv")
    arm = ""
    for label, visits_done, accuracy, held_out, first in rows_of(text, "| arm | visits done |"):
        arm = label.split("`")[1] if label else arm
        done = int(visits_done)
        agree(accuracy, [gap(table, "next", arm, done, "performance").mean()])
        agree(held_out, [gap(table, "next", arm, done, "performance_evaluated").mean()])
        agree(first, [gap(table, "first", arm, done, "performance_start").mean()])
    others = pd.read_csv(DOCS / "results" / "probes" / "probes-eight-seeds.csv")
    text = sentence(text, "on the tenth problem after eight visits were ", " ## What to know").replace(" and ", " ")
    shown = [interval(gap(others, "next", arm, 8, "performance")) for arm in ("baseline", "l2_init")]
    agree(text.removesuffix("."), [*shown[0], *shown[1]])


def test_lifetime_tuning():
    table = table_of("lifetime-tuning")
    points = pd.read_csv(DOCS / "results" / "tuned" / "lifetime-tuning.csv").set_index("arm")["value"]
    rows = rows_of(page("howto/tuning.md"), "| arm | selected |")
    assert len(rows) == 2
    for label, selected, first, last, change in rows:
        found = table[table["arm"] == label.split("`")[1]]
        assert points[label.split("`")[1]] == float(selected)
        assert found["visit"].max() == 20
        early = found[found["visit"] <= 2].groupby("seed")["performance"].mean()
        late = found[found["visit"] > 18].groupby("seed")["performance"].mean()
        agree(first, [early.mean()])
        agree(last, [late.mean()])
        agree(change, interval(late - early))


def test_offline():
    found = pd.read_csv(DOCS / "results" / "evaluations" / "offline-catch-short.csv")
    rows = rows_of(page("howto/offline.md"), "| after the data of |")
    assert [row[0] for row in rows] == ["random actions", "skilled actions"]
    assert found["seed"].nunique() == 2
    for step, (_, *cells) in zip((2000, 4000), rows, strict=True):
        means = found[found["step"] == step].groupby("arm")["performance"].mean()
        agree(" ".join(cells), [means[arm] for arm in ("dqn", "cql", "bc")])
    agreed = table_of("offline-catch-short", visit=2).groupby("arm")["performance"].mean()
    text = " ".join(page("howto/offline.md").split())
    for arm, end in (("cql", " of the skilled"), ("bc", " of the skilled"), ("dqn", ": in most states")):
        start = "`offline_dqn` with " if arm == "dqn" else "`cql` and `bc` agree with "
        agree(sentence(text, start, f" %{end}"), [100 * agreed[arm]])


def test_shapes():
    found = pd.read_csv(DOCS / "results" / "evaluations" / "images-shapes.csv").groupby("arm")["performance"]
    assert (found.size() == 3).all()
    text = " ".join(page("streams.md").split())
    agree(sentence(text, "a linear classifier gets ", " of the test images"), [100 * found.mean()["linear"]])
    agree(sentence(text, "a small convolutional network ", " ("), [100 * found.mean()["convolutional"]])
