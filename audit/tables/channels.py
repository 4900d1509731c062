"""``channels.parquet``: from where each channel of the target layer feeds each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, schema_of

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

REGIONS = ("object", "near", "far")
# A table of more rows keeps the strongest channels of each class only.
MOST_ROWS = 1_000_000
STRONGEST = 64
_F64 = pa.float64()

CHANNEL_COLUMNS: tuple[Column, ...] = (
    Column(name="target", type=pa.int32(), range="[0, K)",
           meaning="The class that the contributions go to: the samples' target."),
    Column(name="target_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="channel", type=pa.int32(), range="[0, C)",
           meaning="Channel of the target layer. All of them, classes without samples left out; of "
           f"more than {MOST_ROWS:,} rows only those that are among a class's {STRONGEST} largest "
           "|far_logit| or |object_logit|."),
    Column(name="n", type=pa.int64(), range="≥ 1",
           meaning="Samples explained as this class whose channel_logits were kept."),
    *(
        Column(name=f"{region}_logit", type=_F64, range="logits",
               meaning=f"Mean over them of what the channel supplies from {where}.")
        for region, where in zip(
            REGIONS, ("the object", "near background", "far background"), strict=True
        )
    ),
    *(
        Column(name=f"{region}_error", type=_F64, range="logits, ≥ 0",
               meaning=f"Standard error of {region}_logit.", null_when="n is 1")
        for region in REGIONS
    ),
    Column(name="far_positive", type=_F64, range="[0, 1]",
           meaning="Share of them to whose class the channel adds from far background."),
    Column(name="background_rank", type=pa.int32(), range="[1, C]",
           meaning="Place among the class's channels by far_logit; 1 supplies most from far "
           "background."),
    Column(name="lean", type=_F64, range="[−1, 1]",
           meaning="(far + near)/(|object| + |near| + |far|) of the three means: 1 = the channel "
           "feeds the class from background alone, −1 = background alone speaks against it "
           "through this channel. Descriptive.",
           null_when="all three are 0"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChannelEvidence:
    """What channels supply, of the samples whose vectors were kept; n samples, C channels.

    Attributes:
        place: Where the samples stand among all rows, n.
        target: The class that each one's contributions go to, n.
        object: Logits from the object, n×C.
        near: From background within one cell of it, n×C.
        far: From the rest of the background, n×C.
    """

    place: NDArray[np.int64]
    target: NDArray[np.int64]
    object: Floats
    near: Floats
    far: Floats

    def __len__(self) -> int:
        return len(self.place)

    def of_classes(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each class that is a target, with the positions of its samples in these arrays."""
        order = np.argsort(self.target, kind="stable")
        ends = np.flatnonzero(np.diff(self.target[order])) + 1
        for members in np.split(order, ends):
            if len(members):
                yield int(self.target[members[0]]), members


def read_channels(samples: pd.DataFrame, kept: NDArray[np.bool_]) -> ChannelEvidence:
    """Unpack the stored contributions of channels.

    Args:
        samples: All rows, with ``channel_logits`` or without.
        kept: Which rows are asked for; all of these have a target.

    Returns:
        Those of the samples that have them.
    """
    place, logits = unpack(samples, "channel_logits", kept)
    third = logits.shape[1] // 3
    return ChannelEvidence(
        place=place,
        target=samples["target"].iloc[place].to_numpy(np.int64),
        object=logits[:, :third],
        near=logits[:, third : 2 * third],
        far=logits[:, 2 * third :],
    )


def unpack(
    samples: pd.DataFrame, name: str, kept: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Floats]:
    """Vectors that rows hold as half precision over their largest magnitude.

    Args:
        samples: All rows; the vectors are in ``name``, the magnitudes in ``<name>_scale``.
        name: Of the column; it may be missing.
        kept: Which rows are asked for.

    Returns:
        The positions of those that have a vector, n, and the vectors, n×C (C = 0 without any).
    """
    if name not in samples:
        return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    place = np.flatnonzero(samples[name].notna().to_numpy(bool) & kept)
    if not len(place):
        return place, np.zeros((0, 0), np.float32)
    scale = samples[f"{name}_scale"].iloc[place].to_numpy(np.float32)
    vectors = np.stack(samples[name].iloc[place].tolist()).astype(np.float32)
    vectors *= scale[:, None]
    return place, vectors


def summarise_channels(
    samples: pd.DataFrame, classes: Sequence[str], *, most_rows: int = MOST_ROWS
) -> pa.Table:
    """One row for each class that is a target and each channel.

    Args:
        samples: The rows of all parts.
        classes: Class names.
        most_rows: Above this many rows each class keeps its strongest channels only.

    Returns:
        A table with :data:`CHANNEL_COLUMNS`, by class and channel; empty without kept vectors.
    """
    evidence = read_channels(samples, samples["target"].notna().to_numpy(bool))
    channels = evidence.far.shape[1]
    found = list(evidence.of_classes())
    few = len(found) * channels > most_rows
    parts = [_of_class(evidence, target, members, few=few) for target, members in found]
    schema = schema_of(CHANNEL_COLUMNS)
    if not parts:
        return schema.empty_table()
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    values["target_name"] = np.array(classes, object)[values["target"].astype(np.int64)]
    arrays = [
        pa.array(values[name], from_pandas=True).cast(schema.field(name).type)
        for name in schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _of_class(
    evidence: ChannelEvidence, target: int, members: NDArray[np.int64], *, few: bool
) -> dict[str, NDArray[np.generic]]:
    """The rows of one class as columns."""
    count = len(members)
    columns: dict[str, NDArray[np.generic]] = {}
    means = []
    for region in REGIONS:
        values = getattr(evidence, region)[members].astype(np.float64)
        means.append(values.mean(axis=0))
        columns[f"{region}_logit"] = means[-1]
        columns[f"{region}_error"] = _standard_error(values)
    in_object, near, far = means
    channels = len(far)
    rank = np.empty(channels, np.int64)
    rank[np.argsort(-far, kind="stable")] = np.arange(1, channels + 1)
    columns |= {
        "target": np.full(channels, target),
        "channel": np.arange(channels),
        "n": np.full(channels, count),
        "far_positive": (evidence.far[members] > 0).mean(axis=0),
        "background_rank": rank,
        "lean": lean(in_object, near, far),
    }
    if not few:
        return columns
    chosen = strongest(far) | strongest(in_object)
    return {name: values[chosen] for name, values in columns.items()}


def lean(in_object: Doubles, near: Doubles, far: Doubles) -> Doubles:
    """How far contributions come from background: (far + near)/(|object| + |near| + |far|).

    Args:
        in_object: Contributions from the object.
        near: From near background; likewise.
        far: From far background; likewise.

    Returns:
        In [−1, 1]; NaN where all three are 0.

    Example:
        >>> lean(np.array([1.0, 0.0]), np.array([0.5, 0.0]), np.array([0.5, 0.0])).tolist()
        [0.5, nan]
    """
    total = abs(in_object) + abs(near) + abs(far)
    return np.divide(far + near, total, out=np.full(len(total), np.nan), where=total > 0)


def _standard_error(values: Doubles) -> Doubles:
    count, channels = values.shape
    if count < 2:
        return np.full(channels, np.nan)
    return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(count), np.float64)


def strongest(means: Doubles) -> NDArray[np.bool_]:
    """Which channels are among the :data:`STRONGEST` of a class by magnitude, C."""
    kept = np.zeros(len(means), bool)
    kept[np.argsort(-abs(means), kind="stable")[:STRONGEST]] = True
    return kept
