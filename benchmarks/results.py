"""What was measured, as rows of one Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.timing import Seconds, fastest, ratios, spread

FILE = Path(__file__).with_name("results.parquet")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        machine: In words.
        section: Which measurement: ``step``, ``peers``, …
        subject: On what: a network, a format.
        setting: How: batch, threads, precision.
        variant: Which contestant, or which part of the work.
        rounds: How often it was timed.
        seconds: Median; ``None`` for what is no time.
        low: Lower quartile.
        high: Upper quartile.
        ratio: Median over rounds of seconds over those of the base in the same round.
        ratio_low: Lower quartile.
        ratio_high: Upper quartile.
        images_per_second: Images over the median.
        value: What is no time, such as bytes.
        unit: Of ``value``.
        measured: Day.
    """

    machine: str
    section: str
    subject: str
    setting: str
    variant: str
    rounds: int = 1
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    images_per_second: float | None = None
    value: float | None = None
    unit: str | None = None
    measured: str = ""


_TYPES = {"int": pa.int32(), "str": pa.string(), "str | None": pa.string()}
SCHEMA = pa.schema([(f.name, _TYPES.get(str(f.type), pa.float64())) for f in fields(Row)])
# Rows of one such group were measured together; a later measurement replaces all of it.
_GROUP = ("machine", "section", "subject", "setting")


@dataclass(frozen=True, kw_only=True)
class About:
    """What the rows of one measurement share; see :class:`Row`."""

    machine: str
    section: str
    subject: str
    setting: str

    def row(self, variant: str, **figures: Any) -> Row:
        """One of them."""
        today = datetime.now(UTC).date().isoformat()
        return Row(**asdict(self), variant=variant, measured=today, **figures)

    def timed(self, seconds: Seconds, images: int, base: Sequence[str]) -> list[Row]:
        """Rows of contestants that took turns.

        Args:
            seconds: Of each, by round.
            images: That one turn takes.
            base: Ratios are to the fastest of these.
        """
        best = seconds[fastest(seconds, base)]
        rows = []
        for name, taken in seconds.items():
            over, own = ratios(taken, best), spread(taken)
            rows.append(
                self.row(
                    name, rounds=len(taken), seconds=own.middle, low=own.low, high=own.high,
                    ratio=over.middle, ratio_low=over.low, ratio_high=over.high,
                    images_per_second=images / own.middle,
                )
            )  # fmt: skip
        return rows


def keep(rows: Sequence[Row], file: Path | None) -> None:
    """Print rows, and put them into a file in the place of what was measured there before.

    Args:
        rows: Of whole groups.
        file: Where to; ``None`` only prints.
    """
    show(rows)
    if file is None:
        return
    new = {_group(row) for row in rows}
    old = [row for row in load(file) if _group(row) not in new]
    every = sorted([*old, *rows], key=lambda row: (row.machine, row.section))
    table = pa.Table.from_pylist([asdict(row) for row in every], schema=SCHEMA)
    pq.write_table(table, file, compression="zstd")


def load(file: Path) -> list[Row]:
    """What a file holds; nothing where there is none."""
    if not file.exists():
        return []
    return [Row(**row) for row in pq.read_table(file, schema=SCHEMA).to_pylist()]


def show(rows: Sequence[Row]) -> None:
    """Print rows for people."""
    shown = None
    for row in rows:
        if _group(row) != shown:
            shown = _group(row)
            print(f"\n{row.section}: {row.subject}; {row.setting}", flush=True)
        print("  " + "  ".join([f"{row.variant:44}", *_figures(row)]), flush=True)


def _figures(row: Row) -> list[str]:
    told = []
    if row.ratio is not None:
        told.append(f"{row.ratio:6.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})")
    if row.seconds is not None:
        told.append(f"{1000 * row.seconds:9.1f} ms")
    if row.images_per_second is not None:
        told.append(f"{row.images_per_second:10,.0f} images/s")
    if row.value is not None:
        told.append(f"{row.value:12,.2f} {row.unit}")
    return told


def _group(row: Row) -> tuple[str, ...]:
    return tuple(getattr(row, name) for name in _GROUP)
