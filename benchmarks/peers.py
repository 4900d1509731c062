"""The same work with other libraries: their maps, enlarged, and three scores under the same masks.

python -m benchmarks.peers [--subjects resnet20,lite0,resnet50]

First the scores are shown to be the audit's, then all take turns. The audit does the rest of its
work too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.asking import about, chosen, parser, settled
from benchmarks.bare import bare_ways
from benchmarks.libraries import Batch, Peer, peers_of
from benchmarks.ours import Ours, free, open_audits
from benchmarks.results import Row, keep
from benchmarks.scoring import is_tied, score, stretched, upsampled
from benchmarks.subjects import SUBJECTS, Subject, normalised
from benchmarks.timing import Work, fastest, take_turns

USUAL = ("resnet20", "lite0", "resnet50")
# Nearer to what the libraries do: without the other families of masks.
ONE_FAMILY = "audit, one family of masks"
COLUMNS = ("object_share", "pointing_hit", "iou_50")
# Of shares; and of overlaps, where single pixels may fall to either side of the threshold.
CLOSE, PIXELS = 1e-4, 2e-2
SMALL, LARGE = 512, 16

Values = NDArray[Any]


def check(peer: Peer, batches: Sequence[Batch], rows: pa.Table) -> str:
    """Hold a library's scores against the audit's columns.

    Args:
        peer: Whose maps are not stretched.
        batches: In the order of the rows.
        rows: The audit's.

    Returns:
        How far they are apart, in words.

    Raises:
        AssertionError: If that is more than rounding.
    """
    theirs = scores_of(peer, batches)
    assert (theirs["predicted"] == rows["predicted"].to_numpy()).all(), peer.name
    apart = {name: np.abs(theirs[name] - rows[name].to_numpy()) for name in COLUMNS}
    # Of several highest pixels argmax takes one, the audit the mean.
    single = ~np.concatenate([is_tied(peer.maps(batch)[0]) for batch in batches])
    assert apart["object_share"].max() < CLOSE, (peer.name, apart["object_share"].max())
    assert apart["iou_50"].max() < PIXELS, (peer.name, apart["iou_50"].max())
    assert apart["pointing_hit"][single].max(initial=0) == 0, peer.name
    return (
        f"{peer.name}: shares within {apart['object_share'].max():.1e}, overlaps within "
        f"{apart['iou_50'].max():.1e}, hits equal where one pixel alone is highest "
        f"({single.mean():.0%})"
    )


def check_stretched(peer: Peer, plain: Peer, batches: Sequence[Batch], rows: pa.Table) -> str:
    """Hold scores of stretched maps against those of another library's maps, stretched likewise.

    Args:
        peer: Whose maps are stretched.
        plain: Whose maps are not, and give the audit's scores.
        batches: In the order of the rows.
        rows: The audit's.

    Returns:
        How far the stretching moves the share, in words.

    Raises:
        AssertionError: If the scores differ by more than rounding.
    """
    theirs = scores_of(peer, batches)
    assert (theirs["predicted"] == rows["predicted"].to_numpy()).all(), peer.name
    for number, batch in enumerate(batches):
        images = normalised(batch.images)
        maps = plain.explain(images)[0].clamp(min=0)
        heat = stretched(upsampled(stretched(maps), (images.shape[2], images.shape[3])))
        expected, start = score(heat, batch.masks), number * len(batches[0].images)
        for name, bound in (("object_share", CLOSE), ("iou_50", PIXELS)):
            own = theirs[name][start : start + len(images)]
            assert np.abs(own - expected[name]).max() < bound, (peer.name, name)
    moved = np.abs(theirs["object_share"] - rows["object_share"].to_numpy())
    return (
        f"{peer.name}: stretches each map from its lowest to its highest value, which moves the "
        f"share by {np.median(moved):.1e} (median), {moved.max():.1e} (most)"
    )


def scores_of(peer: Peer, batches: Sequence[Batch]) -> dict[str, Values]:
    """Of all batches."""
    parts = [peer.score(batch) for batch in batches]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_all(peers: Sequence[Peer], batches: Sequence[Batch], ours: Ours) -> list[str]:
    """All of them; see :func:`check`."""
    rows = ours.table()
    plain = [peer for peer in peers if not peer.stretched]
    said = [check(peer, batches, rows) for peer in plain]
    return said + [
        check_stretched(peer, plain[0], batches, rows) for peer in peers if peer.stretched
    ]


def masked_batches(ours: Ours) -> list[Batch]:
    """The audit's pictures and masks."""
    return [Batch(images=one.images, masks=one.masks.main) for one in ours.masked()]


def measure(subject: Subject, asked: argparse.Namespace) -> list[Row]:
    """One network with every library, the audit and the bare forward pass.

    Args:
        subject: Which network.
        asked: The options.
    """
    model = subject.open()
    count = subject.batch if asked.quick else (SMALL if subject.side <= 64 else LARGE)
    images = normalised(subject.images(count).to(asked.device)).split(subject.batch)
    bare = bare_ways(model, images, compiled=asked.compiled)
    peers = peers_of(subject, model, asked.device)
    with ExitStack() as stack:
        audits = open_audits(stack, subject, model, count, asked)
        single: dict[str, dict[str, Any]] = {ONE_FAMILY: {"masks": "estimated", "compile": "never"}}
        less = open_audits(stack, subject, model, count, asked, ways=single)
        # The libraries take the batches that the bare pass takes.
        alike = open_audits(stack, subject, model, count, asked, batch=subject.batch)
        reference = next(iter(alike.values()))
        batches = masked_batches(reference)
        print("\n".join(["", *check_all(peers, batches, reference)]))
        work: dict[str, Work] = {f"bare, {name}": run for name, run in bare.items()}
        work |= {name: ours.rows for name, ours in (audits | less).items()}
        work |= {peer.name: _over(peer, batches) for peer in peers}
        warm = 1 if asked.quick else 2
        seconds = take_turns(work, rounds=asked.rounds, warm=warm, device=asked.device)
    # Of the many bare ways only the fastest is of interest here.
    best = fastest(seconds, [f"bare, {name}" for name in bare])
    shown = {n: s for n, s in seconds.items() if n == best or not n.startswith("bare, ")}
    shared = about(asked, "peers", subject.name, f"{subject.batch} images at a time", "float32")
    free(asked.device)
    return shared.timed(shown, count, list(audits))


def _over(peer: Peer, batches: Sequence[Batch]) -> Work:
    return lambda: [peer.score(batch) for batch in batches]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for."""
    made = parser(__doc__)
    made.add_argument("--subjects", help="some of " + ", ".join(USUAL))
    asked = settled(made, arguments)
    for key in chosen(asked.subjects, USUAL):
        try:
            rows = measure(SUBJECTS[key], asked)
        except ImportError as error:
            print(f"{key}: not measured, {error}", file=sys.stderr)
            continue
        keep(rows, asked.keep)


if __name__ == "__main__":
    main()
