"""Many faults, one after the other: ``python -m tests.faults.campaign --runs 60``."""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.bench import Bench, Job, Scene, play
from tests.faults.kinds import KINDS

_BEGIN, _END = "<!-- campaign -->", "<!-- end of campaign -->"


@dataclass
class Sums:
    """What a number of runs came to."""

    runs: int = 0
    faults: int = 0
    parts: int = 0
    leftovers: int = 0
    reruns: int = 0
    losses: int = 0
    doubled: int = 0
    orphans: int = 0
    changed: int = 0
    other: int = 0
    skipped: int = 0

    def add(self, scene: Scene) -> None:
        if scene.skipped:
            self.skipped += 1
            return
        self.runs += 1
        self.faults += scene.faults
        self.parts += scene.parts
        self.leftovers += scene.leftovers
        self.reruns += scene.reruns
        self.losses += len(scene.difference.lost)
        self.doubled += len(scene.difference.doubled)
        self.orphans += len(scene.difference.orphans)
        self.changed += len(scene.difference.changed)
        self.other += len(scene.problems)

    @property
    def fine(self) -> bool:
        wrong = (self.losses, self.doubled, self.orphans, self.changed, self.other)
        return not any(wrong)

    def row(self, name: str) -> str:
        if not self.runs:
            return f"| {name} | skipped | | | | | | | | | |"
        numbers = (
            self.runs, self.faults, self.parts, self.leftovers, self.reruns,
            self.losses, self.doubled, self.orphans, self.changed, self.other,
        )  # fmt: skip
        return f"| {name} | " + " | ".join(map(str, numbers)) + " |"


_HEAD = (
    "| fault | runs | faults | parts kept | leftovers | reruns | losses | duplicates | orphans "
    "| other content | other |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def order(runs: int, seed: int, only: Sequence[str]) -> Iterator[str]:
    """Which kinds come one after the other, each about as often as it is to."""
    draw = random.Random(f"order {seed}")
    done = dict.fromkeys(KINDS, 0)
    for _ in range(runs):
        kinds = [name for name in KINDS if not only or name in only]
        rank = {name: ((done[name] + 0.5) / KINDS[name][1], draw.random()) for name in kinds}
        name = min(rank, key=rank.__getitem__)
        done[name] += 1
        yield name


def told(number: int, scene: Scene) -> str:
    """One run in a line."""
    if scene.skipped:
        return f"{number:3d} {scene.kind}: skipped, {scene.skipped}"
    verdict = "the same" if scene.fine else "NOT THE SAME"
    line = (
        f"{number:3d} {scene.kind}: {scene.moment}; exit {' '.join(scene.codes)}; "
        f"{scene.parts} parts kept, {scene.leftovers} leftovers, {scene.reruns} reruns; "
        f"{verdict} ({scene.seconds:.0f} s)"
    )
    if not scene.fine:
        line += f"\n      {scene.difference}\n      " + "\n      ".join(scene.problems)
    return line


def tell(line: str, log: Path) -> None:
    print(line, flush=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def campaign(
    runs: int, seed: int, only: Sequence[str], scratch: Path, log: Path
) -> dict[str, Sums]:
    """Play them; what each kind came to."""
    sums: dict[str, Sums] = {}
    with Bench(scratch, Job()) as bench:
        tell(f"undisturbed: {bench.measure():.1f} s, {bench.job.parts} parts", log)
        for number, kind in enumerate(order(runs, seed, only)):
            out = scratch / f"out-{number:03d}"
            scene = play(bench, kind, KINDS[kind][0], out, f"{seed} {number} {kind}")
            sums.setdefault(kind, Sums()).add(scene)
            tell(told(number, scene), log)
            if scene.fine:
                shutil.rmtree(out, ignore_errors=True)
    return sums


def as_markdown(sums: dict[str, Sums], command: str, seconds: float, load: str) -> str:
    """The figures, for docs/faults.md."""
    total = Sums()
    for each in sums.values():
        for name, value in vars(each).items():
            setattr(total, name, getattr(total, name) + value)
    rows = [each.row(name) for name, each in sums.items()]
    return "\n".join(
        [
            f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, {seconds / 60:.0f} minutes on "
            f"{os.cpu_count()} cores, {_memory()} GiB, {platform.system()} "
            f"{platform.machine()}; {load}:",
            "",
            _HEAD,
            *rows,
            total.row("**all**"),
        ]
    )


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def write_into(file: Path, text: str) -> None:
    """Put the figures between their marks."""
    before = file.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(_BEGIN) + ".*" + re.escape(_END), re.DOTALL)
    assert pattern.search(before), f"{file} has no place for the figures"
    now = pattern.sub(lambda _: f"{_BEGIN}\n{text}\n{_END}", before)
    file.write_text(now, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], choices=list(KINDS))
    parser.add_argument("--markdown", type=Path, help="put the figures into this file")
    parser.add_argument("--scratch", type=Path, help="an empty folder, which is kept")
    parser.add_argument("--log", type=Path, default=Path("campaign.log"))
    given = parser.parse_args()
    scratch = given.scratch or Path(tempfile.mkdtemp(prefix="faults-"))
    scratch.mkdir(parents=True, exist_ok=True)
    started, load = time.monotonic(), os.getloadavg()
    sums = campaign(given.runs, given.seed, given.only, scratch.resolve(), given.log.resolve())
    command = f"python -m tests.faults.campaign --runs {given.runs} --seed {given.seed}"
    said = f"load of the machine {load[0]:.0f} before and {os.getloadavg()[0]:.0f} after"
    text = as_markdown(sums, command, time.monotonic() - started, said)
    tell(text, given.log.resolve())
    if given.markdown:
        write_into(given.markdown, text)
    fine = all(each.fine for each in sums.values())
    if given.scratch is None and fine:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
