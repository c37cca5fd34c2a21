"""Start sections, schedule turns, end sections that take too long, and update the file. Does not need JAX."""

import contextlib
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plasticity.bench.gpu.plan import ALONE, PREPARE, Section, Settings
from plasticity.bench.gpu.section import BEGAN
from plasticity.core.cores import cores

GRACE = 10.0  # seconds after its deadline before a section is ended
LOG_LINES = 25  # of a section that failed


class Message(NamedTuple):
    name: str
    text: str  # a line of JSON; empty: the process has ended


class Player:
    """A section's process."""

    def __init__(self, section: Section, command: Sequence[str], env: Mapping[str, str], log: Path, inbox: Any) -> None:
        self.section, self.state, self.log = section, "prepares", log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(env),
                start_new_session=True,
            )  # fmt: skip
        self.listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self.listener.start()

    def _listen(self, inbox: Any) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                inbox.put(Message(self.section.name, line))
        self.process.wait()
        inbox.put(Message(self.section.name, ""))

    def go(self, seconds: float) -> None:
        assert self.process.stdin is not None
        self.state = "has its turn"
        try:
            self.process.stdin.write(f"{seconds:.1f}\n")
            self.process.stdin.flush()
        except OSError:
            self.state = "over"

    def end(self) -> None:
        """End the process and all its children."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except (ProcessLookupError, PermissionError):
                return
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                continue

    def close(self) -> None:
        """End the process if it is still running, and close its pipes."""
        if self.process.poll() is None:
            self.end()
        self.listener.join(GRACE)  # it closes the pipe that it reads
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def tail(self) -> list[str]:
        try:
            return self.log.read_text(errors="replace", encoding="utf-8").splitlines()[-LOG_LINES:]
        except OSError:
            return []


class Conductor:
    """The state of the whole check."""

    def __init__(self, sections: Sequence[Section], settings: Settings, out: Path, workers: int | None) -> None:
        self.settings, self.out = settings, out
        self.workers = workers or max(2, cores() - 2)
        self.began, self.waiting = time.time(), list(sections)
        self.inbox: queue.Queue[Message] = queue.Queue()
        self.players: dict[str, Player] = {}
        self.scratch = Path(tempfile.mkdtemp(prefix="gpu-check-"))
        self.document: dict[str, Any] = {
            "quick": settings.quick,
            "seconds_allowed": settings.seconds,
            "began": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
            "python": platform.python_version(),
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
            "sections": {section.name: {"state": "not started", "rows": []} for section in sections},
        }
        self.env = {
            **os.environ,
            BEGAN: str(self.began),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "JAX_COMPILATION_CACHE_DIR": str(self.scratch / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONUNBUFFERED": "1",
        }

    def elapsed(self) -> float:
        return time.time() - self.began

    def left(self) -> float:
        return self.settings.seconds - self.elapsed()

    def write(self) -> None:
        self.document["seconds"] = round(self.elapsed(), 1)
        temporary = self.out.with_name(self.out.name + ".part")
        temporary.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.out)

    def say(self, text: str) -> None:
        print(f"{self.elapsed():6.1f} s  {text}", flush=True)

    def start(self) -> None:
        """Start as many sections as may prepare in parallel."""
        preparing = sum(player.state == "prepares" for player in self.players.values())
        while self.waiting and preparing < self.workers and self.elapsed() < PREPARE * self.settings.seconds:
            section = self.waiting.pop(0)
            folder = self.scratch / section.name.replace(" ", "_")
            folder.mkdir()
            command = [sys.executable, "-m", "plasticity.bench.gpu", "--out", str(folder)]
            command += ["--seconds", str(self.settings.seconds), *(["--quick"] if self.settings.quick else [])]
            command += ["--section", section.module, section.function, *section.arguments]
            player = Player(section, command, self.env, folder / "log", self.inbox)
            self.players[section.name] = player
            self.mark(section.name, "prepares")
            preparing += 1

    def mark(self, name: str, state: str, **more: Any) -> None:
        self.players[name].state = state
        self.document["sections"][name] |= {"state": state, **more}
        self.write()

    def hear(self, seconds: float) -> None:
        """Handle one message of a section, if one arrives in time."""
        try:
            message = self.inbox.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return
        player, kept = self.players[message.name], self.document["sections"][message.name]
        if not message.text:
            if player.state not in ("done", "failed", "ended"):
                self.mark(message.name, "failed", log=player.tail(), exit_code=player.process.returncode)
                self.say(f"{message.name}: failed")
            return
        said = json.loads(message.text)
        if "row" in said:
            kept["rows"].append(said["row"])
            self.write()
        elif said.get("turn") == "wanted":
            self.mark(message.name, "waits", prepared_at=round(self.elapsed(), 1))
        elif said.get("turn") == "over":
            self.mark(message.name, "finishes")
        elif "done" in said:
            self.mark(message.name, "done", seconds=said["done"], ended_at=round(self.elapsed(), 1))
            self.say(f"{message.name}: {len(kept['rows'])} rows")
        elif "error" in said:
            self.mark(message.name, "failed", error=said["error"], log=player.tail())
            self.say(f"{message.name}: {said['error']}")

    def busy(self) -> list[str]:
        return [name for name, player in self.players.items() if player.state in ("prepares", "finishes")]

    def end(self, name: str, why: str) -> None:
        player = self.players[name]
        player.end()
        self.mark(name, "ended", error=why, log=player.tail())
        self.say(f"{name}: {why}")

    def prepare(self) -> None:
        """Wait until all sections are prepared, or the time for it is over."""
        until = self.began + PREPARE * self.settings.seconds
        while self.elapsed() < ALONE * self.settings.seconds:
            self.start()
            if not self.busy() and not (self.waiting and time.time() < until):
                break
            self.hear(0.5)
        for name in self.busy():
            self.end(name, "took too long to prepare")
        for section in self.waiting:
            self.document["sections"][section.name]["state"] = "no time to start"
        self.write()

    def turns(self) -> None:
        """Give each section its turn; sections that may use the remaining time come last."""
        ready = [player for player in self.players.values() if player.state == "waits"]
        ready.sort(key=lambda player: player.section.rest)
        for i, player in enumerate(ready):
            behind = sum(min(other.section.timed, 20.0) for other in ready[i + 1 :])
            spare = self.left() - 2 * GRACE
            seconds = spare if player.section.rest else min(player.section.timed, max(spare - behind, 4.0))
            if seconds < 3:
                self.end(player.section.name, "no time was left for its turn")
                continue
            self.say(f"{player.section.name}: {seconds:.0f} s")
            self.turn(player, seconds)

    def turn(self, player: Player, seconds: float) -> None:
        name, until = player.section.name, time.time() + seconds + GRACE
        self.mark(name, "has its turn", began_at=round(self.elapsed(), 1))
        player.go(seconds)
        while player.state in ("has its turn", "finishes"):
            if time.time() > until:
                self.end(name, "overran its turn")
                return
            self.hear(min(0.5, until - time.time()))

    def close(self) -> None:
        for name, player in self.players.items():
            player.close()
            if player.state not in ("done", "failed", "ended"):
                self.mark(name, "ended", error="the check was over")
        self.document["complete"] = True
        self.write()


def conduct(sections: Sequence[Section], settings: Settings, out: Path, workers: int | None = None) -> int:
    """Run the whole check; returns 0 if every section finished."""
    conductor = Conductor(sections, settings, out, workers)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        conductor.write()
        conductor.prepare()
        conductor.turns()
    finally:
        conductor.close()
    states = [kept["state"] for kept in conductor.document["sections"].values()]
    conductor.say(f"{states.count('done')} of {len(states)} sections finished; {out}")
    return 0 if set(states) == {"done"} else 1
