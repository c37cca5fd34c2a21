"""Figures as files: names, formats, sizes, folders."""

import pytest
import synthetic_run as made

from plasticity import plots
from plasticity.plots import options

ARMS = ["baseline", "layer_norm", "fresh"]
MONITORS = ("loss", "effective_rank", "dormant_units/hidden_0")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three arms on twenty visits of five tasks."""
    plan = made.plan(ARMS, tasks=list("abcde"), visits=[(k % 5, 50) for k in range(20)])
    return made.invented(tmp_path_factory.mktemp("plots") / "made", plan, [0, 1, 2], monitors=MONITORS)


@pytest.mark.slow
def test_save_all_writes_every_figure_in_every_format(run, tmp_path):
    written = plots.save_all([run], tmp_path / "figures")
    names = {path.name for path in written}
    drawn = (
        "performance", "learning_curve", "aggregates", "profiles", "revisits", "learning_speed", "monitors",
        "mechanisms", "layers_dormant_units",
    )  # fmt: skip
    assert names == {f"{name}.{end}" for name in drawn for end in ("png", "pdf")}
    assert all(path.parent == tmp_path / "figures" for path in written)
    png = (tmp_path / "figures" / "performance.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == 150 * options.WIDTH  # pixels across
    pdf = (tmp_path / "figures" / "performance.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf  # TrueType
    assert b"/Type3" not in pdf


def test_runs_on_different_streams_get_folders_of_their_own(tmp_path):
    for name, steps in (("one", 10), ("two", 20)):
        made.invented(tmp_path / name, made.plan(["a"], tasks=["t"], visits=[(0, steps)]), [0], monitors=())
    written = plots.save_all([tmp_path / "one", tmp_path / "two"], tmp_path / "out", formats=("png",))
    names = [f"{name}.png" for name in ("performance", "learning_curve", "aggregates")]
    assert [str(path.relative_to(tmp_path / "out")) for path in written] == [
        *(f"one/{name}" for name in names), *(f"two/{name}" for name in names),
    ]  # fmt: skip


def test_a_run_without_records_has_no_figures(tmp_path):
    folder = made.write(tmp_path / "run", made.plan(["a"], tasks=["t"], visits=[(0, 10)]))
    assert plots.save_all([folder], tmp_path / "out") == []


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run_dirs is empty"):
        plots.save_all([], tmp_path)
    with pytest.raises(ValueError, match="is not a run"):
        plots.save_all([tmp_path / "absent"], tmp_path)
