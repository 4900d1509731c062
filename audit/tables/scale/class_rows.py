"""``classes.parquet`` of a large run: what sums tell of each class, the rest of its kept rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from audit.run.columns import table_of
from audit.tables.classes import (
    ANSWER_SCORES,
    CLASS_COLUMNS,
    CONFIDENT_SCORES,
    MOVED_SCORES,
    QUANTILE_SCORES,
    SCORES,
    compare_classes,
)
from audit.tables.clusters import find_clusters
from audit.tables.power import ALPHA, detectable_mean, mean_error, wilson_interval
from audit.tables.scale.gathering import Gathered, Sums
from audit.tables.scale.jackknife import grouped_means
from audit.tables.scale.numbers import GROUPED, Floats, Ids
from audit.tables.scale.quantiles import BINS, BOUNDED, read_quantiles

_QUANTILES = {"_median": 0.5, "_p10": 0.1, "_p90": 0.9}
_SHARES = np.array(list(_QUANTILES.values()))
# Columns of the table that are the mean of what is summed under this name.
_MEANS = {
    **{name: name for name in ("background_agrees", "object_agrees")},
    **{name: name for name in ("transplant_far_rate", "transplant_additive_rate")},
    **{f"{s}_{a}": f"{s}_{a}" for s in ANSWER_SCORES for a in ("correct", "incorrect")},
    **{f"{s}_mask_{end}": f"{s}_{end}" for s in MOVED_SCORES for end in ("low", "high")},
    **{f"{s}_confident": f"{s}_confident" for s in CONFIDENT_SCORES},
}
_HIGHEST = dict.fromkeys((*BOUNDED, "kappa"), 1.0)
_LOWEST = dict.fromkeys((*BOUNDED, "background_lift"), 0.0)


def kept_of_classes(gathered: Gathered) -> Ids:
    """How many rows of each class were kept, K."""
    label = gathered.kept["label"].dropna().to_numpy(np.int64)
    return np.bincount(label, minlength=len(gathered.setting.classes))


def summed_classes(kept: pa.Table, gathered: Gathered) -> pa.Table:
    """Put sums over all rows in place of numbers from kept rows.

    A class all of whose rows were kept stays as it is: its numbers are exact, intervals included.

    Args:
        kept: ``classes.parquet`` made of the kept rows.
        gathered: What it is to rest on.

    Returns:
        A table with :data:`audit.tables.classes.CLASS_COLUMNS`.
    """
    numbers = _Numbers.of(gathered)
    held, every = kept_of_classes(gathered), gathered.exact.counts[:-1]
    count = every[:, gathered.exact.names.index("one")].astype(np.int64)
    trials = _trials(gathered)
    rows: list[dict[str, Any]] = []
    for label, row in enumerate(kept.select([c.name for c in CLASS_COLUMNS]).to_pylist()):
        row["trials"] = trials[label]
        if count[label] > held[label]:
            rows.append(row | numbers.of_class(label, row))
        else:
            rows.append(row)
    compare_classes(rows)
    return table_of(rows, CLASS_COLUMNS)


def _trials(gathered: Gathered) -> Floats:
    """By how many independent transplant rates the mean of each class's kept rows rests, K."""
    kept, clusters = gathered.kept, find_clusters(gathered.kept)
    rates = kept["transplant_rate"].to_numpy(np.float64, na_value=np.nan)
    labels = kept["label"].to_numpy(np.float64, na_value=np.nan)
    found = []
    for label in range(len(gathered.setting.classes)):
        own = (labels == label) & np.isfinite(rates)
        found.append(mean_error(rates[own], clusters[own]).effective)
    return np.array(found)


@dataclass(frozen=True)
class _Numbers:
    """Of all classes K: means, their errors and effective sizes, by score; and the sums."""

    exact: Sums
    mean: Floats
    error: Floats
    degrees: Floats
    ends: Floats
    effective: Floats
    spread: Floats

    @classmethod
    def of(cls, gathered: Gathered) -> _Numbers:
        exact = gathered.exact
        cells = (np.moveaxis(c[:-1], 1, 2) for c in (exact.cell_counts, exact.cell_sums))
        found = grouped_means(*cells)
        count = exact.counts[:-1, : len(GROUPED)]
        squares = exact.squares[:-1] - count * np.nan_to_num(found.mean) ** 2
        variance = np.maximum(squares, 0) / np.maximum(count - 1, 1)
        told = np.nan_to_num(found.error) > 0
        effective = np.where(told, variance / np.where(told, found.error, 1) ** 2, count)
        return cls(
            exact=exact,
            mean=found.mean,
            error=found.error,
            degrees=found.degrees,
            ends=found.ends(),
            effective=np.minimum(count, effective),
            spread=np.sqrt(variance),
        )

    def of_class(self, label: int, kept: dict[str, Any]) -> dict[str, Any]:
        """What sums say of one class; ``kept`` is its row by the kept rows."""
        found: dict[str, Any] = {**self._counts(label), **self._accuracy(label, kept)}
        for score in SCORES:
            found |= self._score(label, score, kept)
        for column, name in _MEANS.items():
            found[column] = self._mean(label, name) if name in self.exact.names else None
        return found | self._highest(label) | self._chance(label, kept)

    def _counts(self, label: int) -> dict[str, Any]:
        repeats, exact = self.exact.repeats, self.exact
        size = int(exact.counts[label, exact.names.index("one")])
        scored = int(exact.counts[label, exact.names.index("background_share")])
        seen = repeats.samples[label]
        different = round(size * repeats.clusters[label] / seen) if seen else size
        return {
            "n": size,
            "n_scored": scored,
            "undefined_share": 1 - scored / size,
            "n_clusters": different,
            "n_duplicates": size - different,
            "n_confident": int(exact.sums[label, exact.names.index("trusted")]),
        }

    def _accuracy(self, label: int, kept: dict[str, Any]) -> dict[str, Any]:
        place = GROUPED.index("correct")
        share = self.mean[label, place]
        if np.isnan(self.error[label, place]):
            return _recentred("accuracy", _or_none(share), kept)
        low, high = wilson_interval(share, self.effective[label, place])
        return {"accuracy": float(share), "accuracy_low": float(low), "accuracy_high": float(high)}

    def _score(self, label: int, score: str, kept: dict[str, Any]) -> dict[str, Any]:
        place = GROUPED.index(score)
        mean = _or_none(self.mean[label, place])
        if mean is None:
            return dict.fromkeys([n for n in kept if _is_of(n, score)])
        start = (label * len(SCORES) + SCORES.index(score)) * BINS
        counts = self.exact.histograms.of(np.arange(start, start + BINS))[:, 0]
        found = self._interval(label, score, mean, kept)
        values = read_quantiles(score, counts, _SHARES)
        found |= dict(zip([score + s for s in _QUANTILES], map(float, values), strict=True))
        if score in QUANTILE_SCORES:
            for suffix, share in _QUANTILES.items():
                reach = self._reach(label, place, share)
                ends = read_quantiles(score, counts, np.array([share - reach, share + reach]))
                for end, value in zip(("low", "high"), ends, strict=True):
                    found[f"{score}{suffix}_{end}"] = float(value)
        return found

    def _interval(
        self, label: int, score: str, mean: float, kept: dict[str, Any]
    ) -> dict[str, Any]:
        place = GROUPED.index(score)
        if np.isnan(self.error[label, place]):
            return _recentred(score, mean, kept)
        low, high = self.ends[label, place]
        return {
            score: mean,
            f"{score}_low": max(float(low), _LOWEST.get(score, -np.inf)),
            f"{score}_high": min(float(high), _HIGHEST.get(score, np.inf)),
        }

    def _reach(self, label: int, place: int, share: float) -> float:
        """How far probabilities are moved to find a quantile's interval (Woodruff 1952)."""
        size = max(self.effective[label, place], 1.0)
        quantile = stdtrit(max(self.degrees[label, place], 1), 1 - ALPHA / 2)
        return float(quantile * np.sqrt(share * (1 - share) / size))

    def _highest(self, label: int) -> dict[str, Any]:
        ending = "_transplant_rate"
        main = next(iter(self.exact.mask_sources), "main")
        families = {main: "transplant_rate"} | {
            name.removesuffix(ending): name for name in self.exact.names if name.endswith(ending)
        }
        means = {family: self._mean(label, name) for family, name in families.items()}
        known = {family: mean for family, mean in means.items() if mean is not None}
        family = max(known, key=known.__getitem__, default=None)
        return {
            "transplant_highest": known[family] if family is not None else None,
            "transplant_family": family,
        }

    def _chance(self, label: int, kept: dict[str, Any]) -> dict[str, Any]:
        place, rate = GROUPED.index("kappa"), GROUPED.index("transplant_rate")
        error = self.error[label, place]
        found: dict[str, Any] = {}
        if np.isfinite(self.error[label, rate]):
            found["trials"] = self.effective[label, rate]
        if np.isnan(error):
            return found
        p, smallest = None, None
        if error > 0:
            p = 2 * float(stdtr(self.degrees[label, place], -abs(self.mean[label, place] / error)))
            spread, size = self.spread[label, place], self.effective[label, place]
            smallest = _or_none(float(detectable_mean(spread, size)))
        return found | {"kappa_p": p, "detectable_kappa": smallest}

    def _mean(self, label: int, name: str) -> float | None:
        place = self.exact.names.index(name)
        count = self.exact.counts[label, place]
        return float(self.exact.sums[label, place] / count) if count else None


def _recentred(name: str, mean: float | None, kept: dict[str, Any]) -> dict[str, Any]:
    """The kept rows' interval about the mean of all rows, where groups do not tell one."""
    found: dict[str, Any] = {name: mean}
    for end in ("low", "high"):
        of_kept, middle = kept[f"{name}_{end}"], kept[name]
        moved = None if None in (mean, of_kept, middle) else of_kept + mean - middle
        found[f"{name}_{end}"] = moved
    return found


def _is_of(name: str, score: str) -> bool:
    """Whether a column is the score's mean, one of its quantiles, or an end of an interval."""
    ends = ["", "_low", "_high"]
    return name in {f"{score}{suffix}{end}" for suffix in ("", *_QUANTILES) for end in ends}


def _or_none(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def interval_counts(gathered: Gathered) -> dict[str, int]:
    """Classes by what their numbers rest on.

    Returns:
        ``all_rows_kept``; ``summed``, with intervals by the jackknife; ``recentred``, summed, with
        the kept rows' intervals, as groups do not tell them.
    """
    exact, held = gathered.exact, kept_of_classes(gathered)
    more = exact.counts[:-1, exact.names.index("one")] > held
    share = GROUPED.index("background_share")
    cells = (exact.cell_counts[:-1, :, share], exact.cell_sums[:-1, :, share])
    told: NDArray[np.bool_] = np.isfinite(grouped_means(*cells).error)
    return {
        "all_rows_kept": int((~more & (held > 0)).sum()),
        "summed": int((more & told).sum()),
        "recentred": int((more & ~told).sum()),
    }
