"""Damages files of runs at random, then asks every command about them: recovered, refused in three lines, or a fault.

Small runs are made once: one that is finished and one that was stopped on its way, of a classifier with evaluation and
two arms, of a sweep with two programs in an arm, and of a replay agent. For each damage a run is copied, one of its
files is damaged (bytes flipped, cut, emptied, removed, JSON of wrong types), and on copies of it `--resume`, `plot`,
`report`, `watch --once`, `compare` with the sound run and `measure` are called in this process.

    python tests/stress/damage.py --damages 300 [--seed 0] [--json FILE]

Outcomes of a command: `same` (nothing it says or leaves differs from the sound run), `told` (it differs, and the file
is named in a line of its own), `refused` (exit code 2, at most three lines). A fault: a traceback, rows that are lost
or differ after a resume that ends with exit code 0, more than three lines, or something else shown than for the sound
run without a word.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny  # noqa: E402

from plasticity.cli import main as cli  # noqa: E402
from plasticity.cli import watch  # noqa: E402
from plasticity.config.documents import to_yaml  # noqa: E402
from plasticity.engine import runner  # noqa: E402
from plasticity.runs import launch, session, sharded  # noqa: E402
from plasticity.runs.accounts import unmerged  # noqa: E402
from plasticity.runs.checksums import DamagedError, read_table  # noqa: E402

OUTCOMES = ("same", "told", "refused", "FAULT")
COMMANDS = ("resume", "plot", "report", "watch", "compare", "measure")
WRONG = ("[]", "{}", "null", '"text"', "3", '{"arms": 3, "stream": []}', '{"finished": 0, "state": [], "step": "x"}')


class Subject(NamedTuple):
    """A run that is to be damaged."""

    name: str
    config: Path
    run: Path
    whole: Path  # the same run, finished


class Said(NamedTuple):
    """What a command did."""

    code: int
    text: str  # on both outputs, warnings included
    crash: str  # a traceback; empty where there is none
    errors: int = 0  # lines on the error output, without warnings


# ---------------------------------------------------------------------------------------------------- the subjects


def documents(small: bool) -> dict[str, dict[str, Any]]:
    """Configs by name; ``small``: only the first."""
    stream = {**tiny.document()["stream"], "tasks": 3, "steps_per_task": 10}
    common = {"stream": stream, "seeds": 2, "placement": {"width": 1, "devices": 1}, "checkpoint_every": 5}
    fresh = {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]}
    evaluated = {"evaluation": {"every": "visit", "tasks": "seen", "steps": 3}}
    found = {"classifier": tiny.document(**common, **evaluated, name="classifier", arms={"base": {}, "fresh": fresh})}
    widths = {"agent.network.widths": [[4], [8]], "agent.optimizer.learning_rate": [0.01, 1e30]}
    found["sweep"] = tiny.document(**common, name="sweep", arms={"swept": {"sweep": widths}})
    catch = {"stream": {"kind": "catch", "tasks": 3, "steps_per_task": 20, "envs": 2}}
    found["dqn"] = tiny.document(**{**common, **tiny.DQN, **catch}, name="dqn")
    return dict(list(found.items())[:1]) if small else found


class Stopped(BaseException):
    """Simulates the end of the process."""


def subjects(place: Path, small: bool) -> list[Subject]:
    """The runs, finished and stopped on their way, made in ``place``."""
    made = []
    for name, document in documents(small).items():
        config = place / f"{name}.yaml"
        config.write_text(to_yaml(document))
        whole, half = place / f"{name}-whole", place / f"{name}-half"
        command(["run", config, "--out", whole], must=True)
        stopped_after(launch.load_config(config), half, 9 if name == "classifier" else 6)
        made += [Subject(f"{name} finished", config, whole, whole), Subject(f"{name} stopped", config, half, whole)]
    return made


def stopped_after(experiment: Any, out: Path, chunks: int) -> None:
    """A run whose process ended after so many chunks."""

    class Look(session.NoProgress):
        left = chunks

        def chunk(self, chunk: Any) -> None:
            del chunk
            self.left -= 1
            if self.left == 0:
                raise Stopped

    with contextlib.suppress(Stopped):
        launch.run(experiment, out, progress=Look())


# ----------------------------------------------------------------------------------------------------- the damage


def flip(raw: bytes, chance: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 4, 64))):
        changed[chance.randrange(len(raw))] ^= chance.randrange(1, 256)
    return bytes(changed)


def cut(raw: bytes, chance: random.Random) -> bytes:
    return raw[: chance.randrange(len(raw))]


def zeros(raw: bytes, chance: random.Random) -> bytes:
    """A hole, as a file system leaves where blocks never reached the disk."""
    start = chance.randrange(len(raw))
    length = min(chance.randrange(1, 4097), len(raw) - start)
    return raw[:start] + bytes(length) + raw[start + length :]


def longer(raw: bytes, chance: random.Random) -> bytes:
    return raw + chance.randbytes(chance.randrange(1, 200))


def wrong(raw: bytes, chance: random.Random) -> bytes:
    """Another document; for JSON and YAML."""
    del raw
    return chance.choice(WRONG).encode()


def damage(run: Path, chance: random.Random) -> tuple[Path, str]:
    """Damages one file of the run; which, and how."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.suffix in (".parquet", ".npz", ".json"))
    files += [run / "experiment.yaml"]
    path = chance.choice(files)
    kinds: dict[str, Callable[[bytes, random.Random], bytes]] = {"flip": flip, "cut": cut, "zeros": zeros}
    kinds |= {"longer": longer, "empty": lambda raw, chance: b""}
    kinds |= {"wrong": wrong} if path.suffix in (".json", ".yaml") else {}
    kind = chance.choice((*kinds, "flip", "removed"))
    if kind == "removed":
        path.unlink()
    else:
        path.write_bytes(kinds[kind](path.read_bytes(), chance))
    return path, kind


# --------------------------------------------------------------------------------------------------- the commands


def command(arguments: list[Any], must: bool = False) -> Said:
    """The command line, in this process; ``must``: it has to end well."""
    text, told, code, crash = io.StringIO(), io.StringIO(), 0, ""
    consoles = [(each, each.file) for each in (cli.console, cli.errors)]
    before = sys.argv
    try:
        for (console, _), output in zip(consoles, (text, told), strict=True):
            console.file, console.width = output, 500
        sys.argv = ["plasticity", *map(str, arguments)]
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(told), warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except Exception:
        code, crash = 1, traceback.format_exc()
    finally:
        sys.argv = before
        for console, file in consoles:
            console.file = file
    if must and (code or crash):
        raise SystemExit(f"{arguments}: {code}\n{text.getvalue()}\n{crash}")
    errors = [line for line in told.getvalue().splitlines() if line.strip() and not line.startswith("warning:")]
    return Said(code, text.getvalue() + told.getvalue(), crash, len(errors))


def arguments(name: str, subject: Subject, run: Path, own: bool) -> list[Any]:
    """What is typed; ``own``: resumed with the config in the folder, not with the one it was made from."""
    return {
        "resume": ["run", run / "experiment.yaml" if own else subject.config, "--out", run, "--resume"],
        "plot": ["plot", run],
        "report": ["report", run],
        "watch": ["watch", run, "--once"],
        "compare": ["compare", subject.whole, run],
        "measure": ["measure", run, "--monitors", "weight_norm,srank"],
    }[name]


def tables(run: Path) -> dict[str, Any]:
    """Metrics, evaluations and lanes of each arm as they are in the files."""
    found: dict[str, Any] = {}
    for arm in sorted(path.parent for path in run.glob("*/lanes.parquet")):
        found[f"{arm.name}/lanes"] = read_table(arm / "lanes.parquet").to_pandas()
        for folder in ("metrics", "evaluations"):
            parts = [read_table(path).to_pandas() for path in unmerged((arm / folder).glob("part-*.parquet"))]
            if parts:
                joined = pd.concat(parts, ignore_index=True)
                keys = [key for key in ("step", "lane", "evaluated_visit") if key in joined]
                joined = joined[sorted(joined)].sort_values(keys, kind="stable").reset_index(drop=True)
                found[f"{arm.name}/{folder}"] = joined
    return found


def differing(run: Path, whole: Path) -> str:
    """Where the tables of two runs differ; nothing where they are equal value for value."""
    try:
        mine, theirs = tables(run), tables(whole)
    except (DamagedError, OSError) as error:
        return f"a table is damaged after the resume: {error}"
    if set(mine) != set(theirs):
        return f"tables {sorted(set(mine) ^ set(theirs))} are in one of them only"
    for name, table in mine.items():
        try:
            pd.testing.assert_frame_equal(table, theirs[name], check_exact=True, check_dtype=False)
        except AssertionError as error:
            return f"{name}: {' '.join(str(error).split())[:200]}"
    return ""


def shown(name: str, said: Said, run: Path) -> str:
    """What a command shows, without what differs from call to call."""
    text = said.text.replace(str(run), "RUN")
    page = run / "report.html"
    if name == "report" and page.exists():
        text += page.read_text().replace(str(run), "RUN").replace(run.name, "RUN")
    return text


# ------------------------------------------------------------------------------------------------------ the verdict


def names(text: str, sound: str, path: Path, run: Path) -> bool:
    """Whether a line that is not there of the sound run names the damaged file, or its folder inside its arm."""
    known = set(sound.splitlines())
    new = [line for line in text.replace(str(run), "RUN").splitlines() if line not in known]
    parent = path.relative_to(run).parent
    return any(path.name in line or (len(parent.parts) > 1 and str(parent) in line) for line in new)


def killed_before(path: Path, subject: Subject, run: Path) -> bool:
    """Whether the newest checkpoint of a killed run is gone, which is a run that was killed before it was written."""
    before = sorted((subject.run / path.relative_to(run)).parent.glob("*.npz"))
    return subject.run != subject.whole and not path.exists() and path.name in [each.name for each in before[-1:]]


def judge(name: str, said: Said, subject: Subject, run: Path, path: Path, sound: str) -> tuple[str, str]:
    """Outcome of a command, and what is wrong where it is a fault."""
    if said.crash:
        return "FAULT", said.crash.strip().splitlines()[-1] + " | " + said.crash.strip().splitlines()[-3].strip()
    if said.code:
        if said.code != 2 or said.errors > 3:
            return "FAULT", f"exit code {said.code}, {said.errors} lines: {said.text[:300]}"
        return "refused", ""
    if name == "resume":
        wrong = differing(run, subject.whole)
        if wrong:
            return "FAULT", wrong
        return ("told", "") if names(said.text, "", path, run) else ("same", "")
    if shown(name, said, run) == sound:
        return "same", ""
    if names(said.text, sound, path, run):
        return "told", ""
    if name == "measure" and killed_before(path, subject, run):
        return "same", ""
    return "FAULT", f"shows something else without a word: {first_difference(shown(name, said, run), sound)}"


def first_difference(a: str, b: str) -> str:
    for x, y in zip(a.splitlines(), b.splitlines(), strict=False):
        if x != y:
            at = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), 0)
            return f"{x[max(0, at - 60) : at + 60]!r} instead of {y[max(0, at - 60) : at + 60]!r}"
    return f"{len(a.splitlines())} lines instead of {len(b.splitlines())}"


class Found(NamedTuple):
    """What one damage did."""

    subject: str
    file: str
    kind: str
    outcomes: dict[str, str]
    faults: dict[str, str]
    said: dict[str, str]  # by commands that refused


def compile_once() -> None:
    """Compile the programs of equal jobs once, because many runs are equal."""
    made: dict[Any, Any] = {}
    compiled, planned = runner.compile_program, launch.plan
    plans: dict[str, Any] = {}

    def plan(experiment: Any, *shard: Any) -> Any:
        """The runs here are not cut into shards."""
        assert not any(shard)
        key = json.dumps(experiment.resolve(), sort_keys=True, default=str)
        plans[key] = plans.get(key) or planned(experiment)
        return plans[key]

    def compile_program(program: Any, placement: Any, devices: Any) -> Any:
        key = (id(program), placement)
        if program.monitors is not None and key in made:
            return made[key][1]
        made[key] = (program, compiled(program, placement, devices))  # keeps the program, and so its id
        return made[key][1]

    watch.QUIET_SECONDS = 1e9  # how long ago a run was stopped is not what is compared
    runner.compile_program, launch.plan, sharded.plan = compile_program, plan, plan  # type: ignore[assignment]
    os.fsync = lambda handle: None  # type: ignore[assignment]
    Figure.savefig = lambda figure, path, **options: Path(path).touch()  # type: ignore[method-assign]  # slow, no reader


def trial(subject: Subject, place: Path, chance: random.Random, sound: dict[tuple[str, str], str]) -> Found:
    """One damage and all commands, each on a copy of its own."""
    damaged = place / "damaged"
    shutil.copytree(subject.run, damaged)
    path, kind = damage(damaged, chance)
    own = chance.random() < 0.3
    outcomes, faults, texts = {}, {}, {}
    for name in COMMANDS:
        run = place / "run"
        shutil.copytree(damaged, run)
        said = command(arguments(name, subject, run, own))
        where = run / path.relative_to(damaged)
        outcomes[name], wrong = judge(name, said, subject, run, where, sound.get((subject.name, name), ""))
        if wrong:
            faults[name] = wrong
        if outcomes[name] == "refused":
            texts[name] = said.text[-400:]
        shutil.rmtree(run)
    shutil.rmtree(damaged)
    return Found(subject.name, str(path.relative_to(damaged)), kind, outcomes, faults, texts)


def sounds(made: list[Subject], place: Path) -> dict[tuple[str, str], str]:
    """What each command shows of each run while it is sound."""
    found = {}
    for subject in made:
        for name in COMMANDS[1:]:
            run = place / "run"
            shutil.copytree(subject.run, run)
            found[subject.name, name] = shown(name, command(arguments(name, subject, run, False), must=True), run)
            shutil.rmtree(run)
    return found


def trials(damages: int, seed: int, small: bool = False, say: Callable[[str], None] = print) -> Iterator[Found]:
    """That many damages, one after another; the same for the same seed."""
    compile_once()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made = subjects(place, small)
        sound = sounds(made, place)
        say(f"{len(made)} runs are made")
        for number in range(damages):
            chance = random.Random(f"{seed} {number}")
            yield trial(chance.choice(made), place, chance, sound)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damages", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long, with fewer damages")
    parser.add_argument("--small", action="store_true", help="one config instead of three")
    parser.add_argument("--json", type=Path, help="also write every outcome to this file")
    chosen = parser.parse_args()
    started, found = time.monotonic(), []
    for each in trials(chosen.damages, chosen.seed, chosen.small):
        found.append(each)
        for name, fault in each.faults.items():
            print(f"FAULT {len(found) - 1}: {each.subject}, {each.kind} {each.file}, {name}: {fault}", flush=True)
        if time.monotonic() - started > 60 * chosen.minutes:
            break
    counts = {name: Counter(each.outcomes[name] for each in found) for name in COMMANDS}
    print(f"{len(found)} damages, seed {chosen.seed}, {time.monotonic() - started:.0f} s")
    print(f"{'':10}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES))
    for name, count in counts.items():
        print(f"{name:10}" + "".join(f"{count[outcome]:9}" for outcome in OUTCOMES))
    if chosen.json:
        chosen.json.write_text(json.dumps([each._asdict() for each in found], indent=1))
    return int(any(each.faults for each in found))


if __name__ == "__main__":
    sys.exit(main())
