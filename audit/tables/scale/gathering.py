"""Bringing the digests of all parts together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from audit.errors import OutputError
from audit.tables.classes import SCORES
from audit.tables.clusters import MOST_COPIES
from audit.tables.frames import typed_samples
from audit.tables.scale.digest import CHANNEL_NUMBERS, first_suspects, made_by
from audit.tables.scale.extremes import Extremes
from audit.tables.scale.numbers import GROUPED, Floats, Ids, column, whole
from audit.tables.scale.packing import Content, unpack_content
from audit.tables.scale.quantiles import BINS
from audit.tables.scale.sampling import first_of_each, is_drawn, scramble
from audit.tables.scale.setting import Digesting
from audit.tables.scale.sums import KeyedSums

# The rows at some positions, given ascending, in that order and in the parts' types.
Fetch = Callable[[Ids], pa.Table]

# Candidates that wait before all but the first of each class are dropped.
_WAITING = 200_000
# Kept rows of so many parts are put together.
_PIECES = 256


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Pictures that occur more than once, by a share of all pictures; by class, the last unknown.

    Attributes:
        samples: Counted samples, K + 1.
        clusters: Different pictures among them, K + 1.
        repeated: Samples beyond the first of each picture, over all classes.
        conflicting: Pairs of samples with one picture and different labels.
        share: Of the pictures that were looked at.
    """

    samples: Ids
    clusters: Ids
    repeated: int
    conflicting: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What was added up over all rows; K classes, the one after them for samples without label.

    Attributes:
        rows: Samples.
        parts: Digests.
        names: What is summed, m; first those that groups are told of, s.
        counts: Values, (K + 1)×m.
        sums: (K + 1)×m.
        squares: Sums of squares, (K + 1)×s.
        cell_counts: Values in each group of pictures, (K + 1)×G×s.
        cell_sums: (K + 1)×G×s.
        histograms: Of the scores, by key (class·S + score)·BINS + bin, one count each.
        pairs: label·2³² + predicted, p.
        pair_sums: Samples, scored ones and the sum of their background shares, p×3.
        channels: C.
        channel_counts: Samples whose channels were kept, by target, K.
        channel_sums: By target·C + channel: sums from object, near and far, of their squares, and
            how often far adds.
        repeats: Of pictures.
        mask_sources: Samples by where their masks came from.
    """

    rows: int
    parts: int
    names: tuple[str, ...]
    counts: Floats
    sums: Floats
    squares: Floats
    cell_counts: Floats
    cell_sums: Floats
    histograms: KeyedSums
    pairs: Ids
    pair_sums: Floats
    channels: int
    channel_counts: Ids
    channel_sums: KeyedSums | None
    repeats: Repeats
    mask_sources: dict[str, int]

    def mean(self, name: str) -> float | None:
        """Over all samples; ``None`` without values."""
        place = self.names.index(name)
        count = self.counts[:, place].sum()
        return float(self.sums[:, place].sum() / count) if count else None

    def means(self, name: str) -> Floats:
        """Of each class, K; NaN without values."""
        place = self.names.index(name)
        counts = self.counts[:-1, place]
        return np.where(counts > 0, self.sums[:-1, place] / np.maximum(counts, 1), np.nan)

    def total(self, name: str) -> float:
        """The sum over all samples."""
        return float(self.sums[:, self.names.index(name)].sum())


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What the tables of a large run are made of.

    Attributes:
        kept: Whole rows as :func:`audit.tables.frames.read_samples` gives them: a sample of the
            split, and of each class at least as many as :attr:`Digesting.least`.
        uniform: Which of them are the sample of the split, bool.
        extremes: The first of each list and class, with their positions.
        suspects: Rows with the least probable labels of each class.
        exact: Sums over all rows.
        setting: What the rows do not say.
        fetch: Gives rows that were not kept.
    """

    kept: pd.DataFrame
    uniform: pd.Series
    extremes: pd.DataFrame
    suspects: pd.DataFrame
    exact: Sums
    setting: Digesting
    fetch: Fetch


class Gathering:
    """Adds up digests, one part in memory at a time.

    Args:
        setting: As the parts were digested with.
        fetch: Gives the rows at some positions.
    """

    def __init__(self, setting: Digesting, fetch: Fetch) -> None:
        self._setting, self._fetch = setting, fetch
        self._made_by = made_by(setting)
        self._classes = len(setting.classes)
        of = self._classes + 1
        self._cells = KeyedSums(of * setting.groups, 2 * len(GROUPED))
        self._histograms = KeyedSums(of * len(SCORES) * BINS, 1, np.uint32)
        self._by_class: dict[str, KeyedSums] = {}
        self._names: tuple[str, ...] = ()
        self._pairs = KeyedSums(of << 32, 3)
        self._channel_counts = np.zeros(self._classes, np.int64)
        self._channels: KeyedSums | None = None
        self._channel_number = 0
        self._pictures: list[tuple[Ids, Ids]] = []
        self._pictures_waiting = 0
        self._firsts: list[tuple[Ids, Ids]] = []
        self._firsts_waiting = 0
        self._extremes = Extremes(setting)
        self._suspects: list[pa.Table] = []
        self._suspects_waiting = 0
        self._kept: list[pa.Table] = []
        self._blocks = 0
        self._drawn = np.zeros(of, np.int64)
        self._sources: Counter[str] = Counter()
        self._rows = self._parts = 0

    def add(self, shard_number: int, digest: bytes) -> None:
        """Add a part.

        Args:
            shard_number: Of the part, for messages; parts are added in the split's order.
            digest: From :func:`audit.tables.scale.digest.digest_part`.

        Raises:
            OutputError: If it cannot be read, or does not belong to the others.
        """
        content = unpack_content(digest)
        facts = content["facts"]
        if not self._names:
            self._names = tuple(facts["names"])
        if facts["made_by"] != self._made_by or tuple(facts["names"]) != self._names:
            raise OutputError(
                f"the sums beside part {shard_number} are of another run or another version",
                expected=f"sums made by {self._made_by}, of the columns of the first part",
                found=f"sums made by {facts['made_by']}",
                remedy="delete the file, and run the same command again",
            )
        self._rows += facts["rows"]
        self._parts += 1
        self._sources.update(facts["mask_sources"])
        self._add_sums(content)
        self._add_channels(content)
        self._add_samples(content)

    def _add_sums(self, content: Content) -> None:
        width = {"counts": len(self._names), "sums": len(self._names), "squares": len(GROUPED)}
        for kind, numbers in width.items():
            sums = self._by_class.setdefault(kind, KeyedSums(self._classes + 1, numbers))
            sums.add(content["class_keys"], content[f"class_{kind}"])
        cells = np.concatenate([content["cell_counts"], content["cell_sums"]]).T
        self._cells.add(np.cumsum(content["cell_keys"]), cells)
        self._histograms.add(np.cumsum(content["bin_keys"]), content["bin_counts"][:, None])
        self._pairs.add(content["pair_keys"], content["pair_sums"])

    def _add_channels(self, content: Content) -> None:
        if "channel_targets" not in content:
            return
        targets, sums = content["channel_targets"], content["channel_sums"]
        channels = sums.shape[2]
        if self._channels is None:
            self._channels = KeyedSums(self._classes * channels, CHANNEL_NUMBERS)
            self._channel_number = channels
        self._channel_counts[targets] += content["channel_counts"]
        keys = (targets[:, None] * channels + np.arange(channels)).ravel()
        self._channels.add(keys, sums.transpose(0, 2, 1).reshape(-1, CHANNEL_NUMBERS))

    def _add_samples(self, content: Content) -> None:
        self._kept.append(content["kept"])
        if len(self._kept) - self._blocks > _PIECES:
            # A table in many small pieces takes far more memory than its rows.
            block = pa.concat_tables(self._kept[self._blocks :]).combine_chunks()
            self._kept[self._blocks :] = [block]
            self._blocks += 1
        labels = whole(content["kept"], "label")
        np.add.at(self._drawn, labels[labels >= 0], 1)
        self._extremes.add({name: content[f"extreme_{name}"] for name in ("group", "key", "index")})
        self._suspects.append(content["suspects"])
        self._suspects_waiting += content["suspects"].num_rows
        if self._suspects_waiting > _WAITING:
            self._suspects, self._suspects_waiting = [self._first_suspects()], 0
        self._pictures.append((content["picture_keys"], content["picture_counts"]))
        self._pictures_waiting += len(content["picture_counts"])
        if self._pictures_waiting > _WAITING:
            self._pictures, self._pictures_waiting = [self._known_pictures()], 0
        self._add_firsts(content["first_labels"].astype(np.int64), content["first_index"])

    def _add_firsts(self, labels: Ids, index: Ids) -> None:
        # A class of which enough were drawn needs no others.
        wanted = self._drawn[labels] < self._setting.least
        self._firsts.append((labels[wanted], index[wanted]))
        self._firsts_waiting += int(wanted.sum())
        if self._firsts_waiting > _WAITING:
            self._firsts, self._firsts_waiting = [self._added()], 0

    def _added(self) -> tuple[Ids, Ids]:
        """Classes and positions of rows to add, so that each class has enough."""
        labels, index = _together(self._firsts, (0,), (0,))
        most = np.maximum(self._setting.least - self._drawn[labels], 0)
        kept = first_of_each(labels, (scramble(index), index), most)
        return labels[kept], index[kept]

    def _known_pictures(self) -> tuple[Ids, Ids]:
        keys, counts = _together(self._pictures, (0, 2), (0,))
        found, place = np.unique(keys, axis=0, return_inverse=True)
        return found, np.bincount(place.ravel(), counts, len(found)).astype(np.int64)

    def _first_suspects(self) -> pa.Table:
        together = pa.concat_tables(self._suspects).combine_chunks()
        kept = first_suspects(
            whole(together, "label"),
            column(together, "label_probability"),
            whole(together, "index"),
            self._setting,
        )
        return together.take(pa.array(np.sort(kept)))

    def result(self) -> Gathered:
        """Everything, with the rows of classes of which few were drawn fetched.

        At least one part was added.
        """
        kept, uniform = self._kept_rows()
        return Gathered(
            kept=kept,
            uniform=uniform,
            extremes=self._extremes.frame(),
            suspects=typed_samples(self._first_suspects()),
            exact=self._sums(),
            setting=self._setting,
            fetch=self._fetch,
        )

    def _kept_rows(self) -> tuple[pd.DataFrame, pd.Series]:
        tables = self._kept
        added = np.sort(self._added()[1])
        if len(added):
            tables = [*tables, self._fetch(added).cast(tables[0].schema)]
        frame = typed_samples(pa.concat_tables(tables)).sort_values("index", ignore_index=True)
        drawn = is_drawn(frame["index"].to_numpy(np.int64), self._setting.share)
        return frame, pd.Series(drawn, frame.index)

    def _sums(self) -> Sums:
        of, groups = self._classes + 1, self._setting.groups
        every = np.arange(of)
        cells = self._cells.of(np.arange(of * groups)).reshape(of, groups, 2, len(GROUPED))
        pairs, pair_sums = self._pairs.found()
        return Sums(
            rows=self._rows,
            parts=self._parts,
            names=self._names,
            counts=self._by_class["counts"].of(every),
            sums=self._by_class["sums"].of(every),
            squares=self._by_class["squares"].of(every),
            cell_counts=cells[:, :, 0],
            cell_sums=cells[:, :, 1],
            histograms=self._histograms,
            pairs=pairs,
            pair_sums=pair_sums,
            channels=self._channel_number,
            channel_counts=self._channel_counts,
            channel_sums=self._channels,
            repeats=self._repeats(),
            mask_sources=dict(self._sources.most_common()),
        )

    def _repeats(self) -> Repeats:
        keys, counts = self._known_pictures()
        pictures, label = keys.T
        _, picture = np.unique(pictures, return_inverse=True)
        copies = np.bincount(picture, counts).astype(np.int64)
        # What many share is a composition, not a copy: each of them is a picture of its own.
        alone = copies[picture] > MOST_COPIES
        of = np.where(label < 0, self._classes, label)
        clusters = np.where(alone, counts, 1)
        known = ~alone & (label >= 0)
        of_picture = np.bincount(picture[known], counts[known]).astype(np.int64)
        pairs = int((of_picture**2).sum() - (counts[known] ** 2).sum()) // 2
        few = copies[copies <= MOST_COPIES]
        return Repeats(
            samples=np.bincount(of, counts, self._classes + 1).astype(np.int64),
            clusters=np.bincount(of, clusters, self._classes + 1).astype(np.int64),
            repeated=int((few - 1).sum()),
            conflicting=pairs,
            share=self._setting.pictures,
        )


def _together(parts: list[tuple[Ids, Ids]], *shapes: tuple[int, ...]) -> tuple[Ids, Ids]:
    """Arrays of all parts one after the other, empty ones of these shapes without any."""
    if not parts:
        one, other = (np.zeros(shape, np.int64) for shape in shapes)
        return one, other
    one, other = (np.concatenate(part) for part in zip(*parts, strict=True))
    return one.astype(np.int64), other.astype(np.int64)
