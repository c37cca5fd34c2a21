"""The commands that measure: ``plasticity measure``, ``bench`` and ``findings``."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.text import Text
from typer.core import TyperCommand

from plasticity.cli import completion, tables
from plasticity.cli.terminal import console, errors, say_broken
from plasticity.config.fields import LARGEST
from plasticity.core.errors import UserError, shown


def measure(
    folder: Annotated[
        Path,
        typer.Argument(
            help="folder of a run, finished or not; with --network: .npz, .safetensors or a folder of Orbax",
            metavar="RUN",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="settings of a monitor: monitors.srank.delta=0.05; with --network also more files",
            metavar="[KEY=VALUE]...",
        ),
    ] = None,
    monitors: Annotated[
        str,
        typer.Option(help="monitors to apply, by name", metavar="NAME[,NAME...]", autocompletion=completion.monitors),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="output table; default measured.parquet in RUN or beside the file")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier table")] = False,
    network: Annotated[
        str | None, typer.Option(help="the network of another program's parameters: a .yaml file, or module:function")
    ] = None,
    outputs: Annotated[int | None, typer.Option(help="number of its outputs, if --network is module:function")] = None,
    meaning: Annotated[
        str | None, typer.Option(help="of these outputs: values, logits or prediction, if --network is module:function")
    ] = None,
    observations: Annotated[Path | None, typer.Option(help="what it reads: .npz with the array observations")] = None,
    mapping: Annotated[Path | None, typer.Option(help="which entry is which parameter: a .yaml file")] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="with targets: cross_entropy or squared; default: by their type"),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="that trains copies, as in a config; default: adam")] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST, help="of what monitors draw, with --network; default: 0"),
    ] = None,
) -> None:
    """Apply monitors to the checkpoints of a run (the last two of each program, and those that were kept).

    With --network: to parameters that another program trained, one row for each file.
    """
    names = [name.strip() for name in monitors.split(",") if name.strip()]
    if network is not None:
        given = NetworkOptions(network, outputs, meaning, observations, mapping, loss, optimizer, seed or 0)
        measure_parameters([str(folder), *(settings or ())], names, given, out, force)
        return
    needing = {
        "outputs": outputs, "meaning": meaning, "observations": observations, "mapping": mapping, "loss": loss,
        "optimizer": optimizer, "seed": seed,
    }  # fmt: skip
    for option in (f"--{name}" for name, value in needing.items() if value is not None):
        raise UserError(f"{option}: is allowed only with --network, which describes the network of another program")
    measure_run(folder, settings or [], names, out, force)


def measure_run(folder: Path, settings: list[str], names: list[str], out: Path | None, force: bool) -> None:
    """``plasticity measure`` without ``--network``."""
    from plasticity.runs import measure as measuring
    from plasticity.runs import parquet

    if folder.is_file():
        raise UserError(
            f"{folder}: is a file; name a run's folder, or describe the network of its parameters: --network"
        )
    path = out or folder / "measured.parquet"
    _check_free(path, out, force)
    _check_once(names)
    found = list(measuring.measure(folder, names, settings, say=lambda line: errors.print(Text(line))))
    say_broken()
    try:
        parquet.write_tables(path, [each.table for each in found])
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    tables.print_measured(found, console)
    console.print(Text(f"measured: {path}"))


class NetworkOptions(NamedTuple):
    """The options of ``plasticity measure`` about parameters that another program trained."""

    network: str
    outputs: int | None
    meaning: str | None
    observations: Path | None
    mapping: Path | None
    loss: str | None
    optimizer: str | None
    seed: int


def measure_parameters(
    words: list[str], names: list[str], given: NetworkOptions, out: Path | None, force: bool
) -> None:
    """``plasticity measure`` with ``--network``. ``words``: the files, and settings of monitors."""
    from plasticity.config.documents import from_yaml, read_file
    from plasticity.runs import described_network, parameter_files, parameter_mapping
    from plasticity.runs import measure_parameters as measuring

    settings = [word for word in words if "=" in word and not Path(word).exists()]
    files = [word for word in words if word not in settings]
    path = out or Path(files[0] if files else ".").parent / "measured.parquet"
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out: {shown(str(path))} is not allowed; must end in .csv or .parquet")
    _check_free(path, out, force)
    _check_once(names)
    places = [Path(each).resolve() for each in files]
    for each, place in zip(files, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{each}: is given twice")
    if given.observations is None:
        raise UserError("--observations: is required with --network; a .npz file with the array `observations`")
    described = _described(given, described_network, read_file)
    source = str(given.mapping)
    how = None if given.mapping is None else parameter_mapping.parse(read_file(given.mapping), source)
    found = measuring.measure(
        {each: each for each in files},
        names,
        network=described,
        observations=parameter_files.read_batch(given.observations),
        mapping=how,
        loss=given.loss,  # type: ignore[arg-type]
        optimizer=None if given.optimizer is None else from_yaml(given.optimizer, "--optimizer"),
        settings=settings,
        seed=given.seed,
        say=lambda line: errors.print(Text(line)),
    )
    say_broken()
    _write_rows(path, [{"file": each.name, **each.metrics} for each in found])
    tables.print_rows("file", [(each.name, each.metrics) for each in found], console)
    console.print(Text(f"measured: {path}"))


def _described(given: NetworkOptions, described_network: Any, read_file: Any) -> Any:
    """The network of ``--network``: a file, or a function with ``--outputs``."""
    if given.network.endswith((".yaml", ".yml")):
        for key in ("outputs", "meaning"):
            if getattr(given, key) is not None:
                raise UserError(f"--{key}: is allowed only if --network is module:function; a file has the key `{key}`")
        return described_network.parse(read_file(given.network), given.network)
    if ":" not in given.network:
        raise UserError(f"--network: {shown(given.network)} is not allowed; must be a .yaml file or module:function")
    if given.outputs is None:
        raise UserError("--outputs: is required if --network is module:function")
    if given.meaning is None:
        raise UserError("--meaning: is required if --network is module:function; values, logits or prediction")
    found = {"network": given.network, "outputs": given.outputs, "meaning": given.meaning}
    return described_network.parse(found, "--network")


def _check_free(path: Path, out: Path | None, force: bool) -> None:
    if path.exists() and not force:
        raise UserError(f"{path} exists; replace it with --force, or choose another --out")
    if out is not None and not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")


def _check_once(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--monitors: {shown(name)} is given twice")


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table as CSV or Parquet, with null for a number that is not finite."""
    import pandas as pd
    import pyarrow as pa

    from plasticity.results.export import csv_text
    from plasticity.runs.files import write_text
    from plasticity.runs.parquet import write_parquet

    table = pd.DataFrame(rows).replace([float("inf"), float("-inf")], float("nan"))
    try:
        if path.suffix == ".csv":
            write_text(path, csv_text(table))
        else:
            write_parquet(path, pa.Table.from_pandas(table, preserve_index=False))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def dataset(
    folder: Annotated[Path, typer.Argument(help="folder of a run, finished or not", metavar="RUN")],
    out: Annotated[Path, typer.Option(help="the file, .npz")],
    arm: Annotated[str | None, typer.Option(help="arm; default: the only one")] = None,
    lane: Annotated[int, typer.Option(help="number of the lane in the arm")] = 0,
    visit: Annotated[int | None, typer.Option(help="number of the visit; default: that of the checkpoint")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier file")] = False,
) -> None:
    """Save the transitions in a lane's replay, for the stream `dataset` (newest checkpoint)."""
    from plasticity.runs import transitions

    if out.suffix != ".npz":
        raise UserError(f"--out: {shown(str(out))} is not allowed; must end in .npz")
    if out.exists() and not force:
        raise UserError(f"{out} exists; replace it with --force, or choose another --out")
    if not out.parent.is_dir():
        raise UserError(f"{out}: the folder {out.parent} does not exist")
    saved = transitions.replay_of(folder, arm, lane, visit)
    try:
        transitions.write(out, saved)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    what = f"{saved.rows:,} transitions, {saved.episodes:,} ends of episodes"
    console.print(Text(f"{out}: {what} of visit {saved.visit} ({saved.task}), at step {saved.step:,}"))


class NamesBenchmarks(TyperCommand):
    """A command whose help ends with the list of benchmarks; they are imported, with JAX, only for that."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from plasticity.bench import BENCHMARKS

        self.epilog = "\n\n".join(["Benchmarks:", *(f"{name}: {each.title}" for name, each in BENCHMARKS.items())])
        super().format_help(ctx, formatter)


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="see the list below; default: all", metavar="[NAME]...")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="also write the numbers to this file, after each benchmark")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="small and imprecise, to check that everything works")] = False,
) -> None:
    """Measure speed on this machine."""
    from plasticity import bench as benchmarks

    def keep(report: benchmarks.Report) -> None:
        if json is not None:
            benchmarks.write(report, json)

    report = benchmarks.run(names or (), quick=quick, say=lambda line: errors.print(Text(line)), keep=keep)
    benchmarks.show(report, console)


def findings(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="names, ids (F5) or files of findings; default: all",
            metavar="[NAME]...",
            autocompletion=completion.finding,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of the runs")] = Path("runs/findings"),
    full: Annotated[bool, typer.Option("--full", help="run at the published size (GPU)")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="show what would run; run nothing")] = False,
    listed: Annotated[bool, typer.Option("--list", help="print saved results; run nothing")] = False,
    force: Annotated[bool, typer.Option("--force", help="rerun findings that have a result")] = False,
) -> None:
    """Reproduce published findings one after another and judge each by the criterion in its file."""
    from plasticity.cli import findings as command

    chosen = command.named(names or ())
    if plan:
        say_broken()
        for planned in command.plans(chosen, full):
            console.print(tables.plan_table(planned))
            for line in tables.plan_lines(planned):
                console.print(Text(line))
    elif listed:
        command.print_table(chosen, out, full, console)
    else:
        say_broken()
        code = command.run(chosen, out, full, force, console, errors)
        if code:
            raise typer.Exit(code)
