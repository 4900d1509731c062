"""Where faults are made: a frozen copy of the code, an undisturbed run, and runs to disturb."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import audit
from tests.faults.outcome import Difference, compare, is_complete, whole_parts
from tests.faults.processes import PATIENCE, Hung, Running, Stem

MOST_RERUNS = 3
Reached = Callable[[], bool]


class Skipped(Exception):
    """This machine cannot make this fault."""


@dataclass(frozen=True)
class Job:
    """What is audited each time.

    Attributes:
        limit: Samples.
        shard_size: Samples a part.
        edits: Samples to look at in pixels too; 0 for none.
        masks: Where object masks come from.
    """

    limit: int = 120
    shard_size: int = 15
    edits: int = 12
    masks: str = "estimated"

    @property
    def parts(self) -> int:
        return -(-self.limit // self.shard_size)

    def flags(self) -> list[str]:
        return [
            *("--dataset", "demo", "--limit", str(self.limit), "--masks", self.masks),
            *("--shard-size", str(self.shard_size), "--edits", str(self.edits or "none")),
            *("--no-grids", "--device", "cpu"),
        ]


class Bench:
    """Runs the real command, of code that nobody changes meanwhile.

    Args:
        scratch: An empty folder for everything.
        job: What is audited.
    """

    def __init__(self, scratch: Path, job: Job) -> None:
        self.scratch = scratch
        self.job = job
        self.undisturbed = scratch / "undisturbed"
        # Seconds of an undisturbed run, by the flags that say where it computes.
        self.seconds: dict[tuple[str, ...], float] = {}
        self.shared = ExitStack()
        self._code = scratch / "code"
        self._here = scratch / "here"
        self._logs = scratch / "logs"
        # Paths of sockets are at most 107 bytes long.
        self._ray = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
        self.shared.callback(shutil.rmtree, self._ray, ignore_errors=True)
        self._count = 0
        self._run = Path()

    def __enter__(self) -> Bench:
        home = Path(audit.__file__).parent
        shutil.copytree(
            home, self._code / "audit", ignore=shutil.ignore_patterns("__pycache__", "*.po")
        )
        self._here.mkdir()
        self._logs.mkdir()
        self._stem = Stem(self.environment(), self._here)
        self.shared.callback(self._stem.close)
        assert self._stem.code.parent == self._code / "audit", self._stem.code
        self.measure()
        (page,) = self.undisturbed.glob("*/*/*/index.html")
        self._run = page.parent.relative_to(self.undisturbed)
        assert len(whole_parts(page.parent)) == self.job.parts
        return self

    def __exit__(self, *error: object) -> None:
        self.shared.close()

    def environment(self) -> dict[str, str]:
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "AUDIT_"))
        }  # fmt: skip
        settled = {
            "PYTHONPATH": str(self._code),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            "RAY_TMPDIR": str(self._ray),
            # Else a cluster and its drivers differ, where only one of them finds a token.
            "RAY_AUTH_MODE": "disabled",
        }
        return {**own, **settled}

    def command(self, out: Path, where: Sequence[str] = ()) -> list[str]:
        return ["run", *self.job.flags(), *where, "--out", str(out)]

    def start(
        self, words: Sequence[str], *, fresh: bool = False, host: str = "", **more: str
    ) -> Running:
        self._count += 1
        log = self._logs / f"{self._count:04d}.log"
        return Running(self._stem, words, log, fresh=fresh, host=host, more=more)

    def measure(self, *where: str, **environment: str) -> float:
        """The seconds of an undisturbed run, whose outcome is that of the first one."""
        if where not in self.seconds:
            out = self.scratch / "measured" if self.seconds else self.undisturbed
            running = self.start(self.command(out, where), **environment)
            code = running.end()
            if code or (self.seconds and compare(self.undisturbed, out)):
                problem = compare(self.undisturbed, out) if self.seconds else ""
                raise AssertionError(f"undisturbed, {where}: {code}, {problem}\n{running.said}")
            self.seconds[where] = time.monotonic() - running.started
            shutil.rmtree(self.scratch / "measured", ignore_errors=True)
        return self.seconds[where]

    def folder(self, out: Path) -> Path:
        """Where the run is that a command leaves."""
        return out / self._run


@dataclass
class Scene:
    """One run, what is done to it, and what became of it.

    Attributes:
        bench: Where it happens.
        kind: Of the fault.
        out: What the command is given as ``--out``.
        draw: Where random moments come from.
        commands: What is given again until the run is complete; in this order.
        environment: Added to that of these.
        host: What the machine is called on which they are given, if not as it is.
        moment: When and what, for people.
        codes: How the disturbed commands ended.
        faults: How many faults were made.
        parts: Whole parts after the fault.
        leftovers: Unfinished files and claims after the fault.
        reruns: How often all commands were given again.
        problems: What was not as it must be, beside the outcome.
        difference: The outcome against the undisturbed run.
    """

    bench: Bench
    kind: str
    out: Path
    draw: random.Random
    commands: list[list[str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    host: str = ""
    moment: str = ""
    codes: list[str] = field(default_factory=list)
    faults: int = 0
    parts: int = 0
    leftovers: int = 0
    reruns: int = 0
    problems: list[str] = field(default_factory=list)
    difference: Difference = field(default_factory=Difference)
    seconds: float = 0.0
    skipped: str = ""
    stack: ExitStack = field(default_factory=ExitStack)
    running: list[Running] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.bench.folder(self.out)

    @property
    def fine(self) -> bool:
        return not self.problems and not self.difference

    def command(self, *where: str) -> list[str]:
        return self.bench.command(self.out, where)

    def start(self, words: Sequence[str], *, fresh: bool = False, **more: str) -> Running:
        running = self.bench.start(
            words, fresh=fresh, host=self.host, **{**self.environment, **more}
        )
        self.running.append(running)
        return running

    def end(self, running: Running, *allowed: int) -> int:
        """Wait for a command's end; its exit code must be one of these, where any are given."""
        code = running.end()
        self.codes.append(str(code))
        if allowed and code not in allowed:
            self.expect(False, f"ended with {code} instead of {allowed}: {running.said[-600:]}")
        if code >= 0:
            self.expect("Traceback" not in running.said, f"a traceback: {running.said[-1500:]}")
        return code

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.problems.append(otherwise)

    def say(self, what: str) -> None:
        self.moment = f"{self.moment}; {what}" if self.moment else what

    def made(self, times: int = 1) -> None:
        self.faults += times

    # Moments

    def after_share(self, running: Running, seconds: float, share: float) -> Reached:
        moment = running.started + share * seconds
        self.say(f"at {share:.2f} of {seconds:.0f} s")
        return lambda: time.monotonic() >= moment

    def after_parts(self, count: int) -> Reached:
        self.say(f"part {count} of {self.bench.job.parts} there")
        return lambda: self._there("samples/part-*.parquet") >= count

    def unfinished_file(self) -> Reached:
        self.say("while a file is written")
        return lambda: self._there("samples/*.writing") > 0

    def masking(self) -> Reached:
        self.say("during masks")
        folders = self.out / ".cache" / "masks"
        return lambda: any(folders.glob("*/lock")) and not self._there("samples/part-*.parquet")

    def unfinished_table(self) -> Reached:
        self.say("while a table or the page is written")
        return lambda: self._there("*.writing") > 0

    def unproven_part(self) -> Reached:
        self.say("part without sidecar")

        def reached() -> bool:
            sidecars = self._there("samples/_part-*.json")
            return self._there("samples/part-*.parquet") > sidecars

        return reached

    def claimed(self, number: int) -> Reached:
        self.say(f"part {number} being computed")
        return (self.folder / "samples" / f"_part-{number:06d}.claim").exists

    def all_parts(self) -> Reached:
        self.say("during edits")
        parts = self.bench.job.parts
        return lambda: self._there("samples/_part-*.json") >= parts

    def edited(self) -> Reached:
        self.say("during tables")
        return (self.folder / "edits" / "_part-000000.json").exists

    def tabulated(self) -> Reached:
        self.say("tables there")
        return (self.folder / "classes.parquet").exists

    def drawn(self) -> Reached:
        self.say("page there")
        return (self.folder / "index.html").exists

    def any_moment(self, running: Running, seconds: float) -> Reached:
        """Any: half of the time by the clock, else by what is there."""
        job = self.bench.job
        choices: list[Callable[[], Reached]] = [
            lambda: self.after_parts(self.draw.randint(1, job.parts)),
            *((self.masking,) if job.masks == "estimated" else ()),
            self.unfinished_file,
            self.unfinished_table,
            self.unproven_part,
            lambda: self.claimed(self.draw.randrange(job.parts)),
            self.all_parts,
            *((self.edited,) if job.edits else ()),
            self.tabulated,
            self.drawn,
        ]
        if self.draw.random() < 0.4:
            return self.after_share(running, seconds, self.draw.uniform(0.05, 0.95))
        return self.draw.choice(choices)()

    def while_computing(self) -> Reached:
        """A moment while parts are made."""
        most = self.bench.job.parts - 2
        return self.draw.choice(
            [
                lambda: self.after_parts(self.draw.randint(1, most)),
                lambda: self.claimed(self.draw.randint(1, most)),
                self.unfinished_file,
                self.unproven_part,
            ]
        )()

    def _there(self, pattern: str) -> int:
        return sum(1 for _ in self.folder.glob(pattern))

    # The end

    def conclude(self) -> None:
        """Give the commands again until the run is complete; then hold it against the other."""
        kept = whole_parts(self.folder)
        self.parts = len(kept)
        self.leftovers = sum(
            path.name.endswith((".writing", ".claim")) for path in self.out.rglob("*")
        )
        ended_well = bool(self.codes) and self.codes[-1] == "0"
        while self.reruns < MOST_RERUNS and not (ended_well and is_complete(self.folder)):
            self.reruns += 1
            code = 0
            for command in self.commands:
                running = self.start(command)
                code = running.end()
                if code:
                    self.say(f"rerun {self.reruns} ended with {code}")
                    break
            ended_well = code == 0
        self.expect(ended_well, f"not complete after {self.reruns} reruns: {self._last_said()}")
        self.difference = compare(self.bench.undisturbed, self.out)
        now = whole_parts(self.folder)
        again = [name for name, facts in kept.items() if now.get(name) != facts]
        self.expect(not again, f"whole parts were computed again: {again}")

    def _last_said(self) -> str:
        return self.running[-1].said[-800:] if self.running else ""


def play(bench: Bench, kind: str, act: Callable[[Scene], None], out: Path, seed: str) -> Scene:
    """One run with one kind of fault, from its beginning to the comparison."""
    scene = Scene(bench=bench, kind=kind, out=out, draw=random.Random(seed))
    scene.commands = [scene.command()]
    started = time.monotonic()
    with scene.stack:
        try:
            act(scene)
            for running in scene.running:
                if not running.ended:
                    running.end(PATIENCE)
            scene.conclude()
        except Skipped as reason:
            scene.skipped = str(reason)
        except Hung as hung:
            scene.problems.append(f"hung: {hung}")
        finally:
            for running in scene.running:
                if not running.ended:
                    running.send(signal.SIGCONT, group=True)
                    running.kill()
    scene.seconds = time.monotonic() - started
    return scene
