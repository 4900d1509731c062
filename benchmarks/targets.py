"""What was aimed at, what was measured, and whether it was reached.

python -m benchmarks.targets [--from benchmarks/results.parquet]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare import PACKED
from benchmarks.libraries import WAYS
from benchmarks.peers import ONE_FAMILY
from benchmarks.results import FILE, Row, load

# Of the step over the best bare pass.
_STEP = {"resnet20, 32×32": 1.05, "EfficientNet-Lite0, 224×224": 1.05, "resnet50, 224×224": 1.05,
         "cnn, 32×32": 1.10, "ViT-Tiny/16, 224×224": 1.10}  # fmt: skip
_STEP_GPU = {"resnet50, 224×224": 1.05, "resnet20, 32×32": 1.15}
# How many times as fast as a library, and on which networks.
_PEERS = {"torch-cam CAM": 1.3, "torch-cam Grad-CAM": 1.3, "captum": 2.5, "pytorch-grad-cam": 4.0}
_PEERS_ON = ("resnet20, 32×32", "resnet50, 224×224")
_GRADCAM_GPU = 20.0
_JOB, _STARTUP, _GROWTH, _CLASSES = 1.25, 5.0, 1.03, 1.10
_CIFAR, _SECOND = 10_000, 1.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """One aim.

    Attributes:
        what: In words.
        aim: The bound.
        found: What was measured.
        most: Whether the aim is an upper bound.
    """

    what: str
    aim: float
    found: float
    most: bool = True

    @property
    def reached(self) -> bool:
        """Whether it was."""
        return self.found <= self.aim if self.most else self.found >= self.aim

    def line(self) -> str:
        """For people."""
        sign = "≤" if self.most else "≥"
        word = "reached" if self.reached else "MISSED"
        return f"  {word:8} {self.what}: {self.found:.2f}, aim {sign} {self.aim:g}"


def targets(rows: Sequence[Row]) -> list[Target]:
    """The aims that the rows of one machine say something about."""
    gpu = any("bf16" in row.setting and "thread" not in row.setting for row in rows)
    return [*_steps(rows, gpu), *_peers(rows, gpu), *_jobs(rows), *_growths(rows)]


def _groups(rows: Sequence[Row], section: str) -> Iterator[tuple[str, str, dict[str, Row]]]:
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row.section == section:
            found.setdefault((row.subject, row.setting), {})[row.variant] = row
    for (subject, setting), own in found.items():
        yield subject, setting, own


def _steps(rows: Sequence[Row], gpu: bool) -> Iterator[Target]:
    """Of each network the best setting that counts."""
    aims, precision = (_STEP_GPU, "bf16") if gpu else (_STEP, "float32")
    best: dict[str, tuple[float, str]] = {}
    usual: dict[str, float] = {}
    fastest = 0.0
    for subject, setting, own in _groups(rows, "step"):
        if precision not in setting or "1 thread" in setting.split(", ")[-1:]:
            continue
        audits = [own[name] for name in ("audit", "audit, compiled") if name in own]
        if not audits or subject not in aims:
            continue
        ratio = min(row.ratio or 0 for row in audits)
        if subject not in best or ratio < best[subject][0]:
            best[subject] = (ratio, setting)
            bare = [r for n, r in own.items() if r.ratio and not n.startswith("audit")]
            ways = [r.seconds or 0 for r in bare if r.variant != PACKED]
            usual[subject] = min(row.seconds or 0 for row in audits) / min(ways)
        if subject.startswith("resnet20"):
            fastest = max([fastest, *(row.images_per_second or 0 for row in audits)])
    for subject, (ratio, setting) in best.items():
        over = f"step over the best usual pass, {subject}; {setting}"
        yield Target(what=over, aim=aims[subject], found=usual[subject])
        over = f"step over the audit's own bare pass too, {subject}; {setting}"
        yield Target(what=over, aim=aims[subject], found=ratio)
    if gpu and fastest:
        what = f"{_CIFAR:,} images of 32×32 from memory, resnet20, seconds"
        yield Target(what=what, aim=_SECOND, found=_CIFAR / fastest)


def _peers(rows: Sequence[Row], gpu: bool) -> Iterator[Target]:
    for subject, _, own in _groups(rows, "peers"):
        if subject not in _PEERS_ON:
            continue
        less = own.pop(ONE_FAMILY, None)
        ours = {"": min(r.seconds or 0 for name, r in own.items() if name.startswith("audit"))}
        if less is not None:
            ours[", one family of masks"] = less.seconds or 0
        aims = {"pytorch-grad-cam": _GRADCAM_GPU} if gpu else _PEERS
        for library, aim in aims.items():
            for way in WAYS:
                if row := own.get(f"{library}, {way}"):
                    for how, seconds in ours.items():
                        what = f"{subject}, times as fast as {library}, {way}{how}"
                        found = (row.seconds or 0) / seconds
                        yield Target(what=what, aim=aim, found=found, most=False)


def _jobs(rows: Sequence[Row]) -> Iterator[Target]:
    for subject, _, own in _groups(rows, "job"):
        for variant, row in own.items():
            if variant.startswith("audit run") and variant.endswith("batch to the end"):
                yield Target(what=f"job, {subject}", aim=_JOB, found=row.ratio or 0)
            if variant.startswith("audit run") and variant.endswith("to the first batch"):
                what = f"start-up, {subject}, seconds"
                yield Target(what=what, aim=_STARTUP, found=row.seconds or 0)


def _growths(rows: Sequence[Row]) -> Iterator[Target]:
    for subject, _, own in _groups(rows, "growth"):
        for variant, row in own.items():
            if row.ratio is None or row.ratio == 1:
                continue
            if subject == "samples" and "until all parts" in variant:
                yield Target(what=variant, aim=_GROWTH, found=row.ratio)
            if variant.startswith("1,000 classes: time of a row") or (
                subject.startswith("resnet20") and variant.endswith("1,000 classes")
            ):
                what = f"{subject}, {variant}, over 10 classes"
                yield Target(what=what, aim=_CLASSES, found=row.ratio)


def tell(rows: Iterable[Row]) -> str:
    """All machines' aims, in words."""
    by_machine: dict[str, list[Row]] = {}
    for row in rows:
        by_machine.setdefault(row.machine, []).append(row)
    return "\n".join(
        "\n".join([machine, *(target.line() for target in targets(own))])
        for machine, own in by_machine.items()
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print them."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--from", dest="file", type=Path, default=FILE)
    print(tell(load(made.parse_args(arguments).file)))


if __name__ == "__main__":
    main()
