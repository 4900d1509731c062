"""The first screen: which classes it names, and which pictures it sends the reader to."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor
from typing import Any

from audit.tables.labels import LABEL_ERROR
from audit.tables.thresholds import THRESHOLDS
from audit.tables.totals import highest_in_features

# Classes of the chart.
ROWS = 12
# From this severity on a verdict accuses nobody.
_ACCUSED = 2


def first_screen(data: dict[str, Any]) -> dict[str, Any]:
    """Choose what the first screen shows.

    Args:
        data: The page's data, as :mod:`audit.report.page.data` makes it.

    Returns:
        ``chart`` (:func:`reliance_chart`), ``screened`` (:func:`most_screened`), and up to three
        things to look at first, each ``None`` where there is none: ``proof``
        (:func:`strongest_proof`), ``label`` (the most suspect label with a picture) and ``sample``
        (right for the wrong reason).
    """
    images = data["samples"]["image"]
    suspects = [row for row in data["labels"] if row["s"] is not None and images[row["s"]]]
    errors = [row for row in suspects if row["kind"] == LABEL_ERROR]
    wrong_reason = data["sections"].get("right_for_the_wrong_reason") or []
    return {
        "chart": reliance_chart(data["classes"]),
        "screened": most_screened(data["classes"]),
        "proof": strongest_proof(data["classes"]),
        "label": next(iter(errors or suspects), None),
        "sample": next((s for s in wrong_reason if images[s]), None),
    }


def reliance_chart(classes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How far backgrounds move answers, as places on an axis: the gravest classes.

    Args:
        classes: The data's classes.

    Returns:
        ``ticks`` (``value`` in [−1, 1] and ``at``), ``zero``, ``clean`` (``value`` and ``at`` of
        what classes without a planted cue show at most, ``None`` where the classes' masks do not
        share one), ``rows`` (the class's ``entry`` and ``at``, ``left``, ``right``) and ``more``,
        the number of tested classes left out; places are in percent of the axis, ``right`` from
        its right end. ``None`` where nothing was tested.

    Example:
        >>> one = {"label": 0, "severity": 0, "reliance": 0.5, "reliance_low": 0.25,
        ...        "reliance_high": 0.75, "family": "estimated"}
        >>> chart = reliance_chart([one])
        >>> [tick["value"] for tick in chart["ticks"]], chart["rows"][0]["at"]
        ([0.0, 0.25, 0.5, 0.75], 66.67)
        >>> chart["clean"]
        {'value': 0.2, 'at': 26.67}
    """
    tested = [entry for entry in classes if entry["reliance"] is not None]
    if not tested:
        return None
    tested.sort(key=lambda entry: (entry["severity"], -entry["reliance"]))
    shown = sorted(tested[:ROWS], key=lambda entry: -entry["reliance"])
    ends = [value for entry in shown for value in _ends(entry)]
    low = min(0, floor(min(ends) * 4) / 4)
    high = max(0.25, ceil(max(ends) * 4) / 4)

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    ticks = [low + step / 4 for step in range(round((high - low) * 4) + 1)]
    clean = {THRESHOLDS.clean_effect_under(entry["family"]) for entry in shown}
    return {
        "ticks": [{"value": value, "at": at(value)} for value in ticks],
        "zero": at(0),
        "clean": {"value": min(clean), "at": at(min(clean))} if len(clean) == 1 else None,
        "rows": [
            {
                "entry": entry,
                "at": at(entry["reliance"]),
                "left": at(_ends(entry)[0]),
                "right": round(100 - at(_ends(entry)[1]), 2),
            }
            for entry in shown
        ],
        "more": len(tested) - len(shown),
    }


def most_screened(classes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What feature space says, for a run that tested too little in pixels.

    Args:
        classes: The data's classes.

    Returns:
        ``ranked`` and ``few``: the classes that
        :func:`audit.tables.totals.highest_in_features` names, of enough images and of few.

    Example:
        >>> rates = [0.19, None, 0.0, 1.0]
        >>> found = most_screened(
        ...     [{"transplant_highest": rate, "n": 9, "undefined": 0} for rate in rates])
        >>> [entry["transplant_highest"] for entry in found["ranked"]], found["few"]
        ([1.0, 0.19], [])
    """
    ranked, few = highest_in_features(
        [entry["transplant_highest"] for entry in classes],
        [entry["n"] - entry["undefined"] for entry in classes],
    )
    return {"ranked": [classes[k] for k in ranked], "few": [classes[k] for k in few]}


def _ends(entry: dict[str, Any]) -> tuple[float, float]:
    """The interval; the value itself where there is none."""
    low, high = entry["reliance_low"], entry["reliance_high"]
    return (
        entry["reliance"] if low is None else low,
        entry["reliance"] if high is None else high,
    )


def strongest_proof(classes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """A picture in which a background turns another class's object into its own class.

    Of the accused class whose background moves most answers, the exchange in which the model is
    surest.

    Args:
        classes: The data's classes.

    Returns:
        ``entry`` (the class), ``edit`` (the edited sample), ``original`` and ``picture`` (two of
        its pictures); ``None`` where no accused class has such a picture.
    """
    accused = [entry for entry in classes if entry["severity"] < _ACCUSED]
    accused.sort(key=lambda entry: (entry["severity"], -(entry["reliance"] or 0)))
    for entry in accused:
        found = sorted(_taken(entry), key=lambda pair: -(pair[1].get("p_label") or 0))
        if found:
            edit, picture = found[0]
            original = next((p for p in edit["pictures"] if p["edit"] == "original"), None)
            return {"entry": entry, "edit": edit, "original": original, "picture": picture}
    return None


def _taken(entry: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for edit in entry["edits"]:
        for picture in edit["pictures"]:
            if (
                picture["edit"] == "transplant"
                and picture["image"]
                and picture["predicted"] == entry["label"]
                and picture["object"] not in (None, entry["label"])
            ):
                yield edit, picture
