"""``index.html`` of a comparison: two runs on one page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from numpy.typing import NDArray

from audit.report.comparing.words import (
    NUMBERS,
    change_in,
    comparison_name,
    headline,
    interval_in,
    kind_names,
    lead_sentences,
    metric_names,
    value_in,
)
from audit.report.language import Language, load_language
from audit.report.page.assets import D3, PLOT, embedded_json, frame
from audit.report.page.missing import missing_view
from audit.report.page.plain import column, data_uri, encoded_map, plain
from audit.report.page.samples import borders_of
from audit.report.page.words import words
from audit.report.phrases import family_name, reason_name, verdict_name
from audit.report.pictures.tiles import colour_table
from audit.tables.changes import FLAGS, GAINED, LOST, OTHER, REASON
from audit.tables.comparison import COMPARISONS, SPLIT, UNDECIDED, UNPAIRED
from audit.tables.reading import AuditRun
from audit.tables.verdicts import VERDICTS

# Changed images that the page shows, and bytes that their pictures may take; the table has all.
MOST_PICTURES = 120
_PICTURE_BYTES = 6_000_000
# Whose turn comes first.
_PICTURED = (LOST, GAINED, REASON, OTHER, FLAGS)
_NUMBERS = ("n", "a", "b", "change", "low", "high", "q", "detectable")
_REASONS = ("object", "background", "both", "neither")
_SCRIPTS = ("core.js", "table.js", "heat.js", "compare.js", D3, PLOT)


def comparison_page(
    a: AuditRun,
    b: AuditRun,
    tables: Mapping[str, pd.DataFrame],
    *,
    lang: str,
    one_model: bool,
) -> str:
    """The page.

    Args:
        a: The first run.
        b: The second.
        tables: Rows of ``compare`` and ``changes``.
        lang: ``en`` or ``zh``.
        one_model: Whether both runs are of the same weights.

    Returns:
        HTML that needs nothing from outside.
    """
    language = load_language(lang)
    compare, changes = shown_metrics(tables["compare"]), tables["changes"]
    names = metric_names(language)
    return environment_of(language).get_template("compare.html.j2").render(
        **frame(styles=("report.css", "compare.css"), scripts=_SCRIPTS),
        lang=language.tag,
        data_json=embedded_json(_data(a, b, compare, changes, language)),
        headline=headline(language, compare, one_model=one_model),
        missing=missing_view(a.manifest, language),
        said=[sentence.html() for sentence in lead_sentences(language, compare)],
        sides=[
            (letter, run.manifest | {"file": Path(str(run.manifest["weights"])).name})
            for letter, run in (("A", a), ("B", b))
        ],
        split=_split_rows(compare, language),
        verdicts=_changed_verdicts(a, b, compare, language),
        counts=changes["kind"].value_counts().reindex(list(kind_names(language))).fillna(0).astype(int)
        .to_dict(),
        kinds=kind_names(language),
        changed=len(changes),
        samples=len(a.samples),
        classes=len(a.manifest["classes"]),
        metrics={name: names[name] for name in names if (compare["metric"] == name).any()},
        notes=_notes(a, b, compare, language),
        facts=_facts(a, b, language),
    )  # fmt: skip


def shown_metrics(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that a page shows: with one kind of masks none of them shows most."""
    highest = table["metric"] == "transplant_highest"
    return table if table.loc[highest, "family"].nunique() > 1 else table[~highest]


@cache
def environment_of(language: Language) -> Environment:
    """Templates in a language, compiled once."""
    environment = Environment(
        loader=PackageLoader("audit.report"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    language.install(environment)
    return environment


def _split_rows(compare: pd.DataFrame, language: Language) -> list[dict[str, Any]]:
    """The split's rows as texts."""
    names = metric_names(language)
    return [
        {
            "name": names[row["metric"]][0],
            "meaning": names[row["metric"]][1],
            "a": value_in(row["metric"], row["a"]),
            "b": value_in(row["metric"], row["b"]),
            "change": change_in(language, row["metric"], row["change"]),
            "interval": interval_in(language, row),
            "verdict": row["verdict"],
            "verdict_name": comparison_name(language, row["verdict"]),
            "n": row["n"],
            "family": family_name(language, row["family"]) if pd.notna(row["family"]) else None,
        }
        for row in compare[compare["label"] == SPLIT].to_dict("records")
    ]


def _changed_verdicts(
    a: AuditRun, b: AuditRun, compare: pd.DataFrame, language: Language
) -> list[dict[str, Any]]:
    """Classes whose verdict differs between the runs, with what is known of their change."""
    reliance = compare[compare["metric"] == "reliance"].set_index("label", drop=False)
    found = []
    for name, label, before, after in zip(
        a.classes["label_name"], a.classes["label"], a.classes["verdict"], b.classes["verdict"],
        strict=True,
    ):  # fmt: skip
        if before == after:
            continue
        row = reliance.loc[label].to_dict() if label in reliance.index else None
        found.append(
            {
                "name": name,
                "sides": [
                    (VERDICTS.index(verdict), verdict_name(language, verdict))
                    for verdict in (before, after)
                ],
                "change": row and change_in(language, "reliance", row["change"]),
                "interval": row and interval_in(language, row),
                "verdict": row and row["verdict"],
                "verdict_name": row and comparison_name(language, row["verdict"]),
            }
        )
    return found


def _data(
    a: AuditRun, b: AuditRun, compare: pd.DataFrame, changes: pd.DataFrame, language: Language
) -> dict[str, Any]:
    """What the scripts of the page read."""
    names = metric_names(language)
    shown, samples = _pictures(a, b, changes)
    grid = _common_grid(a, b)
    return {
        "words": words(language) | _words(language),
        "meta": {
            "lang": language.tag,
            "image_size": a.manifest["image_size"],
            "grid": list(grid),
            "colours": a.manifest["config"].get("colours", "jet"),
            "estimated": a.manifest["masks"] not in ("dataset", "box"),
        },
        "colourmaps": {
            name: colour_table(name).tobytes().hex()
            for name in ("jet", "viridis", "cividis", "inferno")
        },
        "class_names": list(a.manifest["classes"]),
        "metrics": [
            {
                "key": key,
                "name": names[key][0],
                "meaning": names[key][1],
                "plain": key in NUMBERS,
            }
            for key in names
            if ((compare["metric"] == key) & (compare["label"] != SPLIT)).any()
        ],
        "verdicts": [[name, comparison_name(language, name)] for name in COMPARISONS],
        "classes": _class_rows(a, b, compare, language),
        "changes": shown,
        "samples": samples,
    }  # fmt: skip


def _class_rows(
    a: AuditRun, b: AuditRun, compare: pd.DataFrame, language: Language
) -> list[dict[str, Any]]:
    """For each class its verdicts in both runs and its rows by metric."""
    of_classes = compare[compare["label"] != SPLIT]
    rows: dict[int, dict[str, list[Any]]] = {}
    columns = [column(of_classes[name]) for name in _NUMBERS]
    verdicts = of_classes["verdict"].map(COMPARISONS.index).tolist()
    for label, metric, verdict, pairing, *numbers in zip(
        of_classes["label"].tolist(), of_classes["metric"].tolist(), verdicts,
        of_classes["pairing"].tolist(), *columns, strict=True,
    ):  # fmt: skip
        rows.setdefault(label, {})[metric] = [*numbers, verdict, int(pairing == UNPAIRED)]
    return [
        {
            "name": str(name),
            "verdicts": [
                [VERDICTS.index(verdict), verdict_name(language, verdict)]
                for verdict in (before, after)
            ],
            "rows": rows.get(label, {}),
        }
        for label, (name, before, after) in enumerate(
            zip(
                a.manifest["classes"], a.classes["verdict"], b.classes["verdict"], strict=True
            )
        )
    ]  # fmt: skip


def _common_grid(a: AuditRun, b: AuditRun) -> tuple[int, int]:
    """The finer of both grids; maps of the other are enlarged to it."""
    grids = [tuple(run.manifest["grid"]) for run in (a, b)]
    return max(grid[0] for grid in grids), max(grid[1] for grid in grids)


def _pictures(
    a: AuditRun, b: AuditRun, changes: pd.DataFrame
) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """The changed images that either run has a picture of, with the maps of both.

    Returns:
        The changes, each with the number ``s`` of its first picture (A's; B's is the next), and
        the pictures as the page's scripts read them.
    """
    thumbs = pd.concat(
        [_thumbs(run, changes["sample_id"]) for run in (a, b)], ignore_index=True
    ).drop_duplicates("sample_id")
    stored = thumbs.set_index("sample_id")
    shown: list[dict[str, Any]] = []
    found: dict[str, list[Any]] = {"image": [], "map": [], "outline": [], "unknown": []}
    chosen = changes[changes["sample_id"].isin(stored.index)]
    maps = [run.samples.set_index("sample_id")["map"] for run in (a, b)]
    grid, size, taken = _common_grid(a, b), tuple(a.manifest["image_size"]), 0
    for row in chosen.iloc[_in_turns(chosen["kind"])][:MOST_PICTURES].to_dict("records"):
        picture = stored.loc[row["sample_id"]]
        address = data_uri(picture["image"])
        taken += 2 * len(address)
        if taken > _PICTURE_BYTES:
            break
        shown.append(
            {str(k): plain(value) for k, value in row.items()} | {"s": len(found["image"])}
        )
        borders = borders_of(picture["mask"], size)
        for run, values in zip((a, b), maps, strict=True):
            found["image"].append(address)
            found["map"].append(_map(values.loc[row["sample_id"]], run, grid))
            found["outline"].append(borders[0])
            found["unknown"].append(borders[1])
    return shown, found


def _in_turns(kinds: pd.Series) -> NDArray[np.int64]:
    """Places of the changes, one of each kind after the other, answers lost and gained first.

    Example:
        >>> _in_turns(pd.Series([REASON, REASON, LOST, GAINED])).tolist()
        [2, 3, 0, 1]
    """
    turn = kinds.groupby(kinds, sort=False).cumcount().to_numpy(np.int64)
    place = kinds.map({kind: place for place, kind in enumerate(_PICTURED)}).to_numpy(np.int64)
    return np.lexsort((place, turn))


def _thumbs(run: AuditRun, wanted: pd.Series) -> pd.DataFrame:
    """The stored pictures of some samples."""
    file = run.path / "thumbs.parquet"
    columns = ["sample_id", "image", "mask"]
    if not file.is_file():
        return pd.DataFrame(columns=columns)
    rows = pd.read_parquet(file, columns=columns, partitioning=None)
    return rows[rows["sample_id"].isin(set(wanted))]


def _map(values: Any, run: AuditRun, grid: tuple[int, int]) -> str | None:
    """A stored map on the common grid."""
    own = tuple(run.manifest["grid"])
    if isinstance(values, np.ndarray) and own != grid:
        cells = np.maximum(np.asarray(values, np.float32).reshape(own), 0)
        values = cv2.resize(cells, (grid[1], grid[0]), interpolation=cv2.INTER_LINEAR).ravel()
    return encoded_map(values, grid)


def _notes(a: AuditRun, b: AuditRun, compare: pd.DataFrame, language: Language) -> list[str]:
    """What the comparison cannot tell."""
    notes = [
        language.text(
            "“No change” is said only where the change is surely within a margin (1 point of "
            "accuracy, 2 points of other shares, 5 points of what edited pictures show); "
            "“undecided” is not “no change”: these images are too few to tell."
        ),
        language.text(
            "Better and worse speak of these images. Whether a difference holds for other data, "
            "or for another training of the same network, is another question."
        ),
        language.text(
            "Evidence in logits has each model's own scale: a network with larger logits has more "
            "evidence of every kind. Compare shares and reliance between architectures."
        ),
    ]
    beside = (compare["low"] > 0) | (compare["high"] < 0)
    if (beside & (compare["verdict"] == UNDECIDED)).any():
        notes.append(
            language.text(
                "An interval that just leaves out 0 is not enough for better or worse: the test "
                "has to be sure too, after correcting for how many classes or numbers are compared."
            )
        )
    if not (compare["metric"] == "reliance").any():
        notes.append(
            language.text(
                "Nothing was edited in pixels in both runs, so that reliance on background is not "
                "compared. Audit both without --edits none."
            )
        )
    if (compare["pairing"] == UNPAIRED).any():
        notes.append(
            language.text(
                "For some classes the runs edited other images: their reliance is compared as of "
                "two separate groups of images, which is less sure."
            )
        )
    if (compare["pairing"] == "paired, other objects").any():
        notes.append(
            language.text(
                "Some backgrounds were put under other objects in one run than in the other; the "
                "intervals contain that."
            )
        )
    if a.manifest["grid"] != b.manifest["grid"]:
        notes.append(
            language.text(
                "The heatmaps have {one} cells in A and {other} in B. A coarser heatmap spreads "
                "further over the background by itself: do not compare shares of heatmaps here."
            ).format(one=_times(a.manifest["grid"]), other=_times(b.manifest["grid"]))
        )
    if a.manifest["masks"] not in ("dataset", "box"):
        notes.append(
            language.text(
                "Where the objects are is estimated, alike for both runs. What the masks miss is "
                "missed in both."
            )
        )
    if (compare["verdict"] == UNDECIDED).any():
        notes.append(
            language.text(
                "For every class and number the table compare.parquet says how large a change "
                "would have had to be to be seen (column detectable)."
            )
        )
    return notes


def _facts(a: AuditRun, b: AuditRun, language: Language) -> list[tuple[str, str, str, bool]]:
    """Where both runs came from: name, A's, B's, whether they differ."""
    rows = []
    for name, read in _sources(language).items():
        one, other = (read(run) for run in (a, b))
        rows.append((name, one, other, one != other))
    return rows


def _sources(language: Language) -> dict[str, Any]:
    def of(key: str) -> Any:
        return lambda run: str(run.manifest.get(key) or "–")

    def digest(key: str) -> Any:
        return lambda run: str(run.manifest.get(key) or "–")[:16]

    return {
        language.text("Model"): of("model"),
        language.text("Weights"): of("weights"),
        language.text("Digest of the weights"): digest("weights_sha256"),
        language.text("Run"): of("run_id"),
        language.text("Finished"): of("finished"),
        language.text("Folder"): lambda run: str(run.path),
        language.text("Dataset and split"): lambda run: (
            f"{run.manifest['dataset']} ({run.manifest['split']})"
        ),
        language.text("Digest of the data"): digest("data_fingerprint"),
        language.text("Layer"): of("layer"),
        language.text("Cells of the heatmap"): lambda run: _times(run.manifest["grid"]),
        language.text("Size of the images"): lambda run: _times(run.manifest["image_size"]),
        language.text("Object masks"): lambda run: ", ".join(run.manifest["mask_families"]),
        language.text("Method"): lambda run: ", ".join(run.manifest["config"]["method"]),
        language.text("Device"): of("device"),
        language.text("Digest of the code"): digest("code_fingerprint"),
        language.text("Versions"): lambda run: ", ".join(
            f"{name} {run.manifest['versions'].get(name, '–')}" for name in ("audit", "torch")
        ),
    }  # fmt: skip


def _times(sides: Any) -> str:
    return "×".join(map(str, sides))


def _words(language: Language) -> dict[str, str]:
    """The words of this page's scripts."""
    return {
        "metric": language.text("What is compared"),
        "change": language.text("Change"),
        "interval_95_of_change": language.text("95% interval"),
        "judged": language.text("Judgement"),
        "b_is": language.text("B is"),
        "run_a": language.text("A"),
        "run_b": language.text("B"),
        "verdict_a": language.text("Verdict in A"),
        "verdict_b": language.text("Verdict in B"),
        "pairs": language.text("Images"),
        "detectable": language.text("Would be seen from"),
        "all_judgements": language.text("all"),
        "find_class": language.text("Find a class"),
        "classes_shown": language.text("{n} of {of} classes"),
        "classes_caption": language.text("Classes of both runs: {metric}"),
        "no_rows": language.text("No class has this number in both runs."),
        "unpaired": language.text("other images in A and B"),
        "plot_label": language.text(
            "Change of {metric} from A to B by class, with 95% intervals; the numbers are in the "
            "table below."
        ),
        "plot_points": language.text("Change in points"),
        "plot_plain": language.text("Change"),
        "plot_cut": language.text("The {n} classes that changed most, of {of}."),
        "kind": language.text("What changed"),
        "all_kinds": language.text("all changes"),
        "of_class": language.text("Class"),
        "all_classes": language.text("all classes"),
        "pictures_shown": language.text("{n} of {of} changed images with a picture"),
        "answer_of": language.text("{run}: {answer}, {confidence}"),
        "reason_of": language.text("reason: {reason}"),
        "share_of": language.text("{share} of the heatmap on background"),
        "label_of": language.text("Label: {label}"),
        "more_pictures": language.text("Show more"),
        "nothing_chosen": language.text("No image fits these choices."),
        **{f"kind_{key}": name for key, name in kind_names(language).items()},
        **{f"reason_{key}": reason_name(language, key) for key in _REASONS},
    }
