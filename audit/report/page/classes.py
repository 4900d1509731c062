"""What a page shows of each class."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from audit.report.language import Language
from audit.report.page.plain import column, records
from audit.report.page.samples import Shown
from audit.report.phrases import background_in, stratum_name, verdict_in, verdict_name
from audit.report.pictures.grids import channel_sheet, class_sheet
from audit.report.pictures.prototypes import (
    BACKGROUND,
    CHANNEL,
    IMAGES,
    KINDS,
    background_channel_sheet,
    background_sheet,
)
from audit.report.selection import CLASS_SECTIONS
from audit.tables.totals import rank_classes
from audit.tables.verdicts import VERDICTS

BINS = 20
# Rows of a class that the page carries; the tables hold all.
MOST_OBJECTS = 20
# Beyond so many classes those of little evidence come without their strata.
_DETAILED = 300

_FIGURES = (
    "label", "n", "verdict", "verdict_reason", "accuracy", "accuracy_low", "accuracy_high",
    "reliance", "reliance_low", "reliance_high", "decided_share", "n_edited", "acc_unedited",
    "acc_object_only", "acc_background_only", "acc_mixed_same", "acc_mixed_rand", "acc_fg",
    "acc_bg", "bg_gap", "bg_gap_low", "bg_gap_high", "transplant_rate", "transplant_highest",
    "background_share", "background_share_low", "background_share_high", "background_share_median",
    "kappa", "kappa_low", "kappa_high", "far_logit", "far_logit_low", "far_logit_high",
    "object_logit", "near_logit", "mask_confidence", "area_correlation", "rfs", "rfs_low",
    "rfs_high",
)  # fmt: skip
# Names on the page that the tables call otherwise.
_RENAMED = {
    "name": "label_name",
    "family": "reliance_family",
    "transplant_low": "transplant_rate_low",
    "transplant_high": "transplant_rate_high",
    "background_p10": "background_share_p10",
    "background_p90": "background_share_p90",
}
_EVIDENCE = {
    "family": "family", "effect": "effect", "low": "effect_low", "high": "effect_high", "n": "n",
    "decided_share": "decided_share", "decided_low": "decided_share_low",
    "decided_high": "decided_share_high", "background_only": "background_only_rate",
    "transplant_rate": "feature_transplant_rate",
}  # fmt: skip
_BACKGROUNDS = (
    "cluster", "description", "n", "share", "far_logit", "logit_share", "transplant_rate",
    "accuracy", "accuracy_low", "accuracy_high", "accuracy_outside", "accuracy_outside_low",
    "accuracy_outside_high",
)  # fmt: skip
_SPURIOSITY = ("gap", "low", "high", "p", "q", "n")
_STRATA = (
    "stratum", "value", "n", "accuracy", "accuracy_low", "accuracy_high", "transplant_rate",
    "background_share", "kappa", "kappa_low", "kappa_high",
)  # fmt: skip
_SHEETS = {
    "examples": class_sheet,
    "channels": channel_sheet,
    "background": background_sheet,
    "background_channels": background_channel_sheet,
}

Rows = dict[int, list[dict[str, Any]]]


def class_views(
    samples: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    thumbs: pd.DataFrame,
    shown: Shown,
    *,
    family: str,
    drawn: Collection[str],
    language: Language,
) -> list[dict[str, Any]]:
    """One entry a class, most reliant first.

    Args:
        samples: All rows.
        tables: The run's tables by name.
        thumbs: The rows of ``thumbs.parquet``.
        shown: The samples on the page.
        family: The main family of masks.
        drawn: Contact sheets beside the page, relative to it.
        language: Of the texts.
    """
    ranked = rank_classes(tables["classes"])
    views = records(ranked, _FIGURES)
    for name, stored in _RENAMED.items():
        for view, value in zip(views, column(ranked[stored]), strict=True):
            view[name] = value
    missing = column(ranked["n"] - ranked["n_scored"])
    said = (verdict_in(language, row) for row in ranked.to_dict("records"))
    for view, (text, limits), undefined in zip(views, said, missing, strict=True):
        view |= {"text": text, "limits": limits, "undefined": undefined}
        view["verdict_name"] = verdict_name(language, view["verdict"])
        view["severity"] = VERDICTS.index(view["verdict"])
    histograms = share_histograms(samples, len(views))
    transplants, totals = transplant_rows(tables["transplants"], family)
    evidence = evidence_rows(tables["evidence"])
    backgrounds, spuriosity = background_rows(tables["backgrounds"], thumbs, shown, language)
    strata = strata_rows(tables["strata"], ranked["label"].tolist()[:_DETAILED], language)
    sections = section_numbers(thumbs, shown)
    for view in views:
        label = view["label"]
        view |= {
            "histogram": histograms[label].tolist(),
            "evidence": evidence.get(label, []),
            "transplants": transplants.get(label, []),
            "transplants_total": totals.get(label, 0),
            "sections": sections.get(label, {}),
            "backgrounds": backgrounds.get(label, []),
            "spuriosity": spuriosity.get(label),
            "strata": strata.get(label, []),
            "edits": [],
            "sheets": _sheets(label, view["name"], drawn),
        }
    return views


def share_histograms(samples: pd.DataFrame, classes: int) -> np.ndarray[Any, Any]:
    """How many images of each class have which background share.

    Args:
        samples: All rows.
        classes: K.

    Returns:
        int64, K×20: bins of equal width from 0 to 1, the last with 1 itself.

    Example:
        >>> rows = pd.DataFrame({"label": [0, 0, 1], "background_share": [0.0, 1.0, np.nan]})
        >>> share_histograms(rows, 2).sum(axis=1).tolist(), share_histograms(rows, 2)[0, 19]
        ([2, 0], np.int64(1))
    """
    labels = samples["label"].to_numpy(np.float64, na_value=np.nan)
    shares = samples["background_share"].to_numpy(np.float64, na_value=np.nan)
    known = np.isfinite(labels) & np.isfinite(shares)
    bins = np.minimum((shares[known] * BINS).astype(np.int64), BINS - 1)
    cells = labels[known].astype(np.int64) * BINS + bins
    return np.bincount(cells, minlength=classes * BINS).reshape(classes, BINS)


def transplant_rows(transplants: pd.DataFrame, family: str) -> tuple[Rows, dict[int, int]]:
    """What each class's background makes of other classes' objects.

    Args:
        transplants: The rows of ``transplants.parquet``.
        family: Under whose masks.

    Returns:
        By class the objects that most often become it, and how many there are in all.
    """
    own = transplants[transplants["family"] == family]
    own = own.assign(hits=own["n"] * own["predicted_label"])
    ordered = own.sort_values(["label", "hits", "object"], ascending=[True, False, True])
    kept = ordered.groupby("label").head(MOST_OBJECTS)
    renamed = kept.rename(columns={"predicted_label": "to_class", "predicted_object": "kept"})
    labels, totals = np.unique(own["label"].to_numpy(np.int64), return_counts=True)
    return (
        _by_label(renamed, ("object", "n", "to_class", "kept")),
        dict(zip(labels.tolist(), totals.tolist(), strict=True)),
    )


def evidence_rows(evidence: pd.DataFrame) -> Rows:
    """What pixels say of each class under each family of masks."""
    tested = evidence[evidence["n"] > 0]
    return _by_label(
        tested.drop(columns=["label_name"]).rename(
            columns={stored: name for name, stored in _EVIDENCE.items()}
        ),
        tuple(_EVIDENCE),
    )


def background_rows(
    backgrounds: pd.DataFrame, thumbs: pd.DataFrame, shown: Shown, language: Language
) -> tuple[Rows, dict[int, dict[str, Any]]]:
    """Each class's kinds of background with the samples that show them, and what hangs on them."""
    kept = backgrounds[backgrounds["cluster"] < KINDS]
    rows = _by_label(kept, _BACKGROUNDS)
    pictures = thumbs[thumbs["section"] == BACKGROUND].sort_values("rank")
    kinds = pictures.groupby(["label", pictures["rank"] // IMAGES])["index"].agg(list)
    examples = {key: shown.numbers(index) for key, index in kinds.items()}
    for label, kinds_of_class in rows.items():
        for kind in kinds_of_class:
            kind["description"] = background_in(language, kind["description"])
            kind["samples"] = examples.get((label, kind["cluster"]), [])
    known = kept[kept["spuriosity_n"].notna()].drop_duplicates("label")
    names = ["label", *(f"spuriosity_{name}" for name in _SPURIOSITY)]
    gaps = records(known, names, whole=["spuriosity_n"])
    return rows, {
        gap["label"]: {name: gap[f"spuriosity_{name}"] for name in _SPURIOSITY} for gap in gaps
    }


def strata_rows(strata: pd.DataFrame, labels: Collection[int], language: Language) -> Rows:
    """Each class by what its images are like."""
    rows = _by_label(strata[strata["label"].isin(list(labels))], _STRATA)
    for of_class in rows.values():
        for row in of_class:
            row["name"] = stratum_name(language, row["stratum"], row["value"])
    return rows


def section_numbers(thumbs: pd.DataFrame, shown: Shown) -> dict[int, dict[str, list[int]]]:
    """The samples of each section by class; those of the whole split under −1."""
    ordered = thumbs.sort_values("rank", kind="stable")
    found: dict[int, dict[str, list[int]]] = {}
    for _, rows in ordered.groupby(["label", "section"]):
        label, section = int(rows["label"].iloc[0]), str(rows["section"].iloc[0])
        found.setdefault(label, {})[section] = list(dict.fromkeys(shown.numbers(rows["index"])))
    names = (*CLASS_SECTIONS, BACKGROUND, CHANNEL)
    for label, sections in found.items():
        if label >= 0:
            found[label] = {name: sections.get(name, []) for name in names}
    return found


def _sheets(label: int, name: str, drawn: Collection[str]) -> dict[str, str | None]:
    files = {kind: f"grids/{file(label, name)}" for kind, file in _SHEETS.items()}
    return {kind: quote(file) if file in drawn else None for kind, file in files.items()}


def _by_label(frame: pd.DataFrame, names: tuple[str, ...]) -> Rows:
    found: Rows = {}
    labels = column(frame["label"])
    for label, row in zip(labels, records(frame, names), strict=True):
        found.setdefault(label, []).append(row)
    return found
