"""``properties.parquet``: does light, colour, detail or the file tell the label or the error?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import ndtr

from audit.run.columns import Column, table_of
from audit.tables.nulls import adjusted_p
from audit.tables.say import Say, in_english
from audit.tables.separation import (
    LEAST_SAMPLES,
    Floats,
    Ints,
    Separation,
    ranks_within,
    separate_from_rest,
    separate_within,
)

PROPERTIES = (
    "brightness", "contrast", "saturation", "red_green", "yellow_blue", "sharpness", "entropy",
    "pixels", "aspect_ratio", "file_bytes", "bytes_per_pixel",
)  # fmt: skip
# From where on a property is called a confounder; with thousands of samples every difference is
# significant, so an effect is asked for too. An AUC of .70 is a difference of .74 standard
# deviations between two normal distributions, one of .60 of .36: about a large and a medium effect
# in the sense of Cohen 1988. Errors get the lower bar, because a class has few of them and nothing
# in the data makes them differ.
LABEL_EFFECT = 0.2
ERROR_EFFECT = 0.1
SKILL_EFFECT = 0.1
LARGEST_Q = 0.05
# Below these shares of what one number could do, classes are told apart "a little" and "in part".
_A_LITTLE, _IN_PART = 0.25, 0.6
# The shallow model: a histogram of each class over this many bins at most.
MOST_BINS = 32
_F64 = pa.float64()
_FEW = f"fewer than {LEAST_SAMPLES} samples on a side, or all values are equal"
_OF_CLASS = "it is a row of the split"
_NO_SKILL = "it is a row of a class, or there are not two classes with ten samples, or all values "
_NO_SKILL += "are equal"

PROPERTY_COLUMNS: tuple[Column, ...] = (
    Column(name="property", type=pa.string(), range=", ".join(PROPERTIES),
           meaning="What images are compared by; a property that no sample has has no rows."),
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="The class.",
           null_when=_OF_CLASS),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name.",
           null_when=_OF_CLASS),
    Column(name="n", type=pa.int64(), range="≥ 0",
           meaning="Samples with this property and a label; copies (equal image_hash and label) "
           "count once."),
    Column(name="n_wrong", type=pa.int64(), range="≥ 0",
           meaning="Of them, samples with a wrong prediction."),
    Column(name="median", type=_F64, range="as the property", meaning="Median of the property.",
           null_when="n is 0"),
    Column(name="label_skill", type=_F64, range="≤ 1; 0 = chance",
           meaning="How much of the label the property alone tells: balanced accuracy of a "
           "histogram of B bins for each of C classes, on samples that it was not made from, as "
           "(C · accuracy − 1)/(min(B, C) − 1).", null_when=_NO_SKILL),
    Column(name="label_auc", type=_F64, range="[0, 1]; .5 = chance",
           meaning="Chance that a sample of this class has more of the property than one of "
           "another class.", null_when=_FEW + ", or " + _OF_CLASS),
    Column(name="label_low", type=_F64, range="[0, 1]",
           meaning="Lower end of label_auc's 95% interval (DeLong, logit).",
           null_when="label_auc is null"),
    Column(name="label_high", type=_F64, range="[0, 1]", meaning="Upper end of it.",
           null_when="label_auc is null"),
    Column(name="label_p", type=_F64, range="[0, 1]",
           meaning="Of no tie to the label: Mann–Whitney for a class, label_skill's for the split.",
           null_when="label_auc and label_skill are null"),
    Column(name="label_q", type=_F64, range="[0, 1]",
           meaning="The same after Benjamini and Hochberg over all rows of this table.",
           null_when="label_p is null"),
    Column(name="error_auc", type=_F64, range="[0, 1]; .5 = chance",
           meaning="Chance that a wrongly predicted sample (of this class) has more of the "
           "property than a rightly predicted one.", null_when=_FEW),
    Column(name="error_low", type=_F64, range="[0, 1]",
           meaning="Lower end of error_auc's 95% interval (DeLong, logit).",
           null_when="error_auc is null"),
    Column(name="error_high", type=_F64, range="[0, 1]", meaning="Upper end of it.",
           null_when="error_auc is null"),
    Column(name="error_p", type=_F64, range="[0, 1]", meaning="Mann–Whitney, two-sided.",
           null_when="error_auc is null"),
    Column(name="error_q", type=_F64, range="[0, 1]",
           meaning="The same after Benjamini and Hochberg over all rows of this table.",
           null_when="error_p is null"),
    Column(name="transplant_correlation", type=_F64, range="[−1, 1]",
           meaning="Rank correlation over these samples of the property with transplant_rate.",
           null_when=f"fewer than {LEAST_SAMPLES} samples have both, or one is constant"),
    Column(name="predicts_label", type=pa.bool_(), range="true, false",
           meaning=f"label_q is at most {LARGEST_Q}, and label_auc is at least {LABEL_EFFECT} "
           f"from .5, or label_skill at least {SKILL_EFFECT}.", null_when="label_p is null"),
    Column(name="predicts_error", type=pa.bool_(), range="true, false",
           meaning=f"error_q is at most {LARGEST_Q}, and error_auc is at least {ERROR_EFFECT} "
           "from .5.", null_when="error_p is null"),
    Column(name="is_confounder", type=pa.bool_(), range="true, false",
           meaning="predicts_label or predicts_error: the property may stand behind what looks "
           "like an effect of the background.", null_when="both are null"),
    Column(name="is_followed", type=pa.bool_(), range="true, false",
           meaning="Both, and the wrong samples of this class are those that are less like it in "
           "the property: the model may go by it, or by what goes with it.",
           null_when="predicts_label or predicts_error is null, or " + _OF_CLASS),
)  # fmt: skip


class _Shown(NamedTuple):
    """The samples that have a property, and the property's values."""

    rows: pd.DataFrame
    values: Floats
    labels: Ints


def relate_properties(samples: pd.DataFrame, classes: Sequence[str], seed: int) -> pa.Table:
    """One row a property for the whole split, then one for each class.

    Copies would count as evidence twice, so of samples with equal ``image_hash`` and label the
    first is taken; the model answers copies alike.

    Args:
        samples: The rows of all parts.
        classes: Class names.
        seed: Deals samples into halves.

    Returns:
        A table with :data:`PROPERTY_COLUMNS`.
    """
    known = samples[samples["label"].notna() & ~_is_copy(samples)]
    rows: list[dict[str, Any]] = []
    for name in PROPERTIES:
        values = property_values(known, name)
        has = np.isfinite(values)
        if has.any():
            held = known[has]
            shown = _Shown(held, values[has], held["label"].to_numpy(np.int64))
            rows += [{"property": name} | row for row in _rows(shown, classes, seed)]
    for kind in ("label", "error"):
        adjusted = adjusted_p(np.array([row[f"{kind}_p"] for row in rows], np.float64))
        for row, q in zip(rows, adjusted, strict=True):
            row[f"{kind}_q"] = q
    return table_of([row | _flags(row) for row in rows], PROPERTY_COLUMNS)


def in_words(property: str, say: Say = in_english) -> str:
    """What a property is, in plain words that fit into a sentence.

    Args:
        property: One of :data:`PROPERTIES`.
        say: The language.

    Returns:
        Words that begin with a small letter.

    Raises:
        KeyError: For any other name.

    Example:
        >>> in_words("yellow_blue")
        'blue against yellow tones'
    """
    return {
        "brightness": say("brightness"),
        "contrast": say("contrast"),
        "saturation": say("strength of colour"),
        "red_green": say("red against green tones"),
        "yellow_blue": say("blue against yellow tones"),
        "sharpness": say("fineness of detail"),
        "entropy": say("variety of tones"),
        "pixels": say("number of pixels"),
        "aspect_ratio": say("width over height"),
        "file_bytes": say("size of the file"),
        "bytes_per_pixel": say("size of the file for each pixel"),
    }[property]


def compared(property: str, *, more: bool, say: Say = in_english) -> str:
    """What images with more of a property are, or those with less.

    Args:
        property: One of :data:`PROPERTIES`.
        more: Whether they have more of it.
        say: The language.

    Example:
        >>> compared("sharpness", more=False)
        'smoother'
    """
    higher, lower = {
        "brightness": (say("brighter"), say("darker")),
        "contrast": (say("richer in contrast"), say("poorer in contrast")),
        "saturation": (say("more colourful"), say("greyer")),
        "red_green": (say("redder"), say("less red")),
        "yellow_blue": (say("yellower"), say("bluer")),
        "sharpness": (say("finer in detail"), say("smoother")),
        "entropy": (say("richer in tones"), say("plainer")),
        "pixels": (say("larger"), say("smaller")),
        "aspect_ratio": (say("wider"), say("taller")),
        "file_bytes": (say("larger as files"), say("smaller as files")),
        "bytes_per_pixel": (say("less compressed"), say("more compressed")),
    }[property]
    return higher if more else lower


def property_values(samples: pd.DataFrame, name: str) -> Floats:
    """A property of samples, stored or derived from what is stored.

    Args:
        samples: Rows.
        name: One of :data:`PROPERTIES`.

    Returns:
        One number a sample, NaN where it is not known.

    Example:
        >>> rows = pd.DataFrame({"stored_height": [20, None], "stored_width": [30, 10]})
        >>> property_values(rows, "aspect_ratio"), property_values(rows, "pixels")
        (array([1.5, nan]), array([600.,  nan]))
    """
    if name == "pixels":
        return _stored(samples, "stored_height") * _stored(samples, "stored_width")
    if name == "aspect_ratio":
        return _stored(samples, "stored_width") / _stored(samples, "stored_height")
    if name == "bytes_per_pixel":
        return _bytes_per_pixel(samples)
    return _stored(samples, name)


def _bytes_per_pixel(samples: pd.DataFrame) -> Floats:
    """NaN where all pictures have one size: file_bytes says the same then."""
    pixels = property_values(samples, "pixels")
    known = pixels[np.isfinite(pixels)]
    if len(known) and np.ptp(known) == 0:
        return np.full(len(samples), np.nan)
    return _stored(samples, "file_bytes") / pixels


def _stored(samples: pd.DataFrame, name: str) -> Floats:
    if name not in samples:
        return np.full(len(samples), np.nan)
    return samples[name].to_numpy(np.float64, na_value=np.nan)


def _is_copy(samples: pd.DataFrame) -> NDArray[np.bool_]:
    if "image_hash" not in samples:
        return np.zeros(len(samples), np.bool_)
    repeated = samples.duplicated(["image_hash", "label"]) & samples["image_hash"].notna()
    return repeated.to_numpy(np.bool_)


def _rows(shown: _Shown, classes: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """The rows of one property, without what depends on other rows."""
    skill, skill_p = label_skill(shown.values, shown.labels, np.random.default_rng(seed))
    nobody = np.full(1, np.nan)
    of_split = _columns(
        shown,
        np.zeros_like(shown.labels),
        1,
        Separation(auc=nobody, low=nobody, high=nobody, p=np.array([skill_p])),
    )
    of_classes = _columns(
        shown,
        shown.labels,
        len(classes),
        separate_from_rest(shown.values, shown.labels, len(classes)),
    )
    named = [{"label": k, "label_name": name} for k, name in enumerate(classes)]
    return [
        {"label": None, "label_name": None, "label_skill": skill} | _pick(of_split, 0),
        *(row | {"label_skill": np.nan} | _pick(of_classes, k) for k, row in enumerate(named)),
    ]


def _pick(columns: Mapping[str, NDArray[Any]], place: int) -> dict[str, Any]:
    return {name: values[place] for name, values in columns.items()}


def _columns(shown: _Shown, group: Ints, groups: int, label: Separation) -> dict[str, NDArray[Any]]:
    """Columns with one number a group."""
    answered = shown.rows["correct"].notna().to_numpy(np.bool_)
    wrong = ~shown.rows["correct"].fillna(value=True).to_numpy(np.bool_)
    error = separate_within(shown.values[answered], wrong[answered], group[answered], groups)
    median = pd.Series(shown.values).groupby(group).median().reindex(range(groups))
    return {
        "n": np.bincount(group, minlength=groups),
        "n_wrong": np.bincount(group[wrong], minlength=groups),
        "median": median.to_numpy(np.float64),
        "label_auc": label.auc,
        "label_low": label.low,
        "label_high": label.high,
        "label_p": label.p,
        "error_auc": error.auc,
        "error_low": error.low,
        "error_high": error.high,
        "error_p": error.p,
        "transplant_correlation": _correlations(shown, group, groups),
    }


def _correlations(shown: _Shown, group: Ints, groups: int) -> Floats:
    """Spearman's correlation with the transplant rate in each group."""
    rate = _stored(shown.rows, "transplant_rate")
    both = np.isfinite(rate)
    of = group[both]
    count = np.bincount(of, minlength=groups)
    first, second = (
        ranks_within(values[both], of) - (count[of] + 1) / 2 for values in (shown.values, rate)
    )

    def total(each: Floats) -> Floats:
        return np.bincount(of, weights=each, minlength=groups).astype(np.float64)

    spread = np.sqrt(total(first**2) * total(second**2))
    enough = (count >= LEAST_SAMPLES) & (spread > 0)
    return np.divide(total(first * second), spread, where=enough, out=np.full(groups, np.nan))


def label_skill(values: Floats, labels: Ints, rng: np.random.Generator) -> tuple[float, float]:
    """How well a shallow model names the class by one number.

    The number is cut into B bins of equal count, B = √(n/C) for C classes, at most 32. Half of the
    samples answers each bin with the class that has the largest share of its own samples there;
    the other half is asked, and then the other way round. Balanced accuracy is 1/C by chance and
    can reach min(B, C)/C.

    Classes weigh alike, so that a frequent one is no baseline to beat; and bins, unlike a
    regression, find a class that lies between two others.

    Args:
        values: Finite numbers, n.
        labels: Classes, n; those with fewer than ten samples are left out.
        rng: Deals samples into halves.

    Returns:
        (C · balanced accuracy − 1)/(min(B, C) − 1), at most 1, 0 = chance; and its one-sided p.
        Over all ways to deal one half's labels anew, the balanced accuracy of given answers has
        mean 1/C and a variance in closed form; twice the mean of the two halves' p is a p however
        they depend on each other. NaN with fewer than two classes or where all values are equal.

    Source:
        The variance: Hoeffding 1951, "A combinatorial central limit theorem"; twice the mean:
        Rüschendorf 1982, "Random variables with maximum sums".

    Example:
        >>> labels = np.arange(200) % 2
        >>> label_skill(labels + 0.0, labels, np.random.default_rng(0))[0]
        1.0
    """
    frequent = np.bincount(labels) >= LEAST_SAMPLES
    kept = frequent[labels]
    values, labels = values[kept], np.unique(labels[kept], return_inverse=True)[1]
    count, classes = len(values), int(frequent.sum())
    if classes < 2 or np.ptp(values) == 0:
        return np.nan, np.nan
    bins = int(np.clip(np.sqrt(count / classes), 2, MOST_BINS))
    middle = ranks_within(values, np.zeros_like(labels)) - 0.5
    cell = np.minimum((middle * bins / count).astype(np.int64), bins - 1)
    place = (_dealt(labels, rng) * classes + labels) * bins + cell
    held = np.bincount(place, minlength=2 * classes * bins).reshape(2, classes, bins)
    first, second = _asked(held[0], held[1]), _asked(held[1], held[0])
    accuracy = (first[0] + second[0]) / 2
    return (classes * accuracy - 1) / (min(bins, classes) - 1), min(1.0, first[1] + second[1])


def _asked(held: Ints, seen: Ints) -> tuple[float, float]:
    """Balanced accuracy over one half's counts, C×B, answered from the other's; and its p."""
    classes, bins = held.shape
    # A little more than nothing in every bin, for classes of few samples.
    share = (seen + 1 / bins) / (seen.sum(axis=1, keepdims=True) + 1)
    answer = share.argmax(axis=0)
    of_class, count = held.sum(axis=1), int(held.sum())
    accuracy = float((held[answer, np.arange(bins)] / of_class[answer]).sum()) / classes
    answered = np.bincount(answer, weights=held.sum(axis=0), minlength=classes)
    variance = float((answered * (1 - answered / count) / of_class).sum()) / (count - 1)
    if variance == 0:
        return accuracy, 1.0
    return accuracy, float(ndtr((1 - classes * accuracy) / np.sqrt(variance)))


def _dealt(labels: Ints, rng: np.random.Generator) -> Ints:
    """The half that each sample belongs to, 0 or 1; every class is dealt evenly."""
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    half = np.empty_like(labels)
    half[by_class] = np.arange(len(labels)) % 2
    return half


def _flags(row: Mapping[str, Any]) -> dict[str, bool | None]:
    away = row["label_skill"] >= SKILL_EFFECT or abs(row["label_auc"] - 0.5) >= LABEL_EFFECT
    label = _flag(away, row["label_q"])
    error = _flag(abs(row["error_auc"] - 0.5) >= ERROR_EFFECT, row["error_q"])
    neither_known = label is None and error is None
    opposite = (row["label_auc"] - 0.5) * (row["error_auc"] - 0.5) < 0
    of_class = row["label"] is not None and label is not None and error is not None
    return {
        "predicts_label": label,
        "predicts_error": error,
        "is_confounder": None if neither_known else bool(label or error),
        "is_followed": bool(label and error and opposite) if of_class else None,
    }


def _flag(large: bool, q: float) -> bool | None:
    return None if np.isnan(q) else bool(large and q <= LARGEST_Q)


def confounders(properties: pd.DataFrame, say: Say = in_english) -> list[dict[str, Any]]:
    """The flagged rows in words: first those that the model may go by, then by strength.

    Args:
        properties: The rows of ``properties.parquet``.
        say: The language of the sentences.

    Returns:
        One entry for each flag that is set, or for the two of a row with ``is_followed``:
        ``property``, ``class`` (``None`` for the split), ``predicts`` (label, error or both),
        ``direction`` (higher, lower) and ``auc`` of the label, else of the error (``None`` for the
        split's label, which has ``skill``), ``n`` and ``sentence``. Strength is the effect over its
        threshold.
    """
    found: list[tuple[bool, float, dict[str, Any]]] = []
    for row in properties.to_dict("records"):
        if _is_set(row["is_followed"]):
            strength = _strength(row, "label") + _strength(row, "error")
            found.append((True, strength, _entry(row, "both", _of_both(row, say))))
            continue
        if _is_set(row["predicts_label"]):
            if pd.isna(row["label_name"]):
                strength = row["label_skill"] / SKILL_EFFECT
                found.append((False, strength, _entry(row, "skill", _told(row, say))))
            else:
                strength = _strength(row, "label")
                found.append((False, strength, _entry(row, "label", _of_label(row, say))))
        if _is_set(row["predicts_error"]):
            strength = _strength(row, "error")
            found.append((False, strength, _entry(row, "error", _of_error(row, say))))
    found.sort(key=lambda each: each[:2], reverse=True)
    return [entry for _, _, entry in found]


def _is_set(flag: Any) -> bool:
    return not pd.isna(flag) and bool(flag)


def _strength(row: Mapping[Any, Any], kind: str) -> float:
    threshold = LABEL_EFFECT if kind == "label" else ERROR_EFFECT
    return float(abs(row[f"{kind}_auc"] - 0.5) / threshold)


def _entry(row: Mapping[Any, Any], predicts: str, sentence: str) -> dict[str, Any]:
    of_split, skill = pd.isna(row["label_name"]), predicts == "skill"
    auc = None if skill else float(row["error_auc" if predicts == "error" else "label_auc"])
    return {
        "property": str(row["property"]),
        "class": None if of_split else str(row["label_name"]),
        "predicts": "label" if skill else predicts,
        "direction": None if auc is None else ("higher" if auc > 0.5 else "lower"),
        "auc": auc,
        "skill": float(row["label_skill"]) if skill else None,
        "n": int(row["n"]),
        "sentence": sentence,
    }


def _told(row: Mapping[Any, Any], say: Say) -> str:
    skill = float(row["label_skill"])
    if skill < _A_LITTLE:
        text = say(
            "By {property} alone the classes can be told apart a little: {skill} of the way from "
            "guessing to the best that a single number could do."
        )
    elif skill < _IN_PART:
        text = say(
            "By {property} alone the classes can be told apart in part: {skill} of the way from "
            "guessing to the best that a single number could do."
        )
    else:
        text = say(
            "By {property} alone the classes can be told apart well: {skill} of the way from "
            "guessing to the best that a single number could do."
        )
    return text.format(property=in_words(row["property"], say), skill=f"{skill:.0%}")


def _of_label(row: Mapping[Any, Any], say: Say) -> str:
    text = say(
        "Images of {name} are {which} than those of other classes in {share} of pairs (95% "
        "interval {low} to {high})."
    )
    return text.format(name=row["label_name"], **_values(row, "label", say))


def _of_error(row: Mapping[Any, Any], say: Say) -> str:
    if pd.isna(row["label_name"]):
        text = say(
            "Images answered wrongly are {which} than the rest in {share} of pairs (95% interval "
            "{low} to {high})."
        )
    else:
        text = say(
            "Images of {name} answered wrongly are {which} than the rest in {share} of pairs (95% "
            "interval {low} to {high})."
        )
    return text.format(name=row["label_name"], **_values(row, "error", say))


def _of_both(row: Mapping[Any, Any], say: Say) -> str:
    text = say(
        "Images of {name} are {which} than those of other classes in {share} of pairs (95% "
        "interval {low} to {high}), and those answered wrongly are {error_which} than the rest of "
        "them in {error_share} of pairs (95% interval {error_low} to {error_high}): the model may "
        "go by it, or by what goes with it."
    )
    error = {f"error_{key}": value for key, value in _values(row, "error", say).items()}
    return text.format(name=row["label_name"], **_values(row, "label", say), **error)


def _values(row: Mapping[Any, Any], kind: str, say: Say) -> dict[str, str]:
    """Of an AUC towards the side that it is on: which side, the share of pairs, its interval."""
    auc, low, high = (100 * float(row[f"{kind}_{end}"]) for end in ("auc", "low", "high"))
    which = compared(row["property"], more=auc > 50, say=say)
    if auc < 50:
        auc, low, high = 100 - auc, 100 - high, 100 - low
    return {"which": which, "share": f"{auc:.0f}%", "low": f"{low:.0f}%", "high": f"{high:.0f}%"}
