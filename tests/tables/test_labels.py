from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cleanlab.experimental.label_issues_batched import find_label_issues_batched
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import average_precision_score
from torchvision.io import decode_image

from audit.job import run_audit
from audit.models import Request, Wanted, open_classifier
from audit.tables import confident_learning
from audit.tables.confident_learning import Predictions, inspect_labels, spread_probabilities
from audit.tables.labels import (
    BACKGROUND_SUGGESTS,
    CONTEXT_DRIVEN,
    DISAGREEMENT,
    LABEL_COLUMNS,
    LABEL_ERROR,
    MOST_SHARE,
    find_suspects,
    label_scores,
    label_totals,
    majority_predictions,
)
from tests.conftest import CIFAR10, real_data


def noisy(
    count: int, classes: int, *, flipped: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a model that is mostly right; labels, some flipped; which are."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), true] += rng.normal(4, 2, count)
    odds = np.exp(logits)
    wrong = rng.uniform(size=count) < flipped
    labels = np.where(wrong, (true + rng.integers(1, max(classes, 2), count)) % classes, true)
    return odds / odds.sum(axis=1, keepdims=True), labels, wrong


def kept(full: np.ndarray, labels: np.ndarray, most: int = 5) -> Predictions:
    """What rows keep of all probabilities."""
    top = np.argsort(-full, axis=1, kind="stable")[:, :most]
    return Predictions(
        labels=labels,
        label_probability=full[np.arange(len(labels)), labels],
        top_classes=top,
        top_probabilities=np.take_along_axis(full, top, axis=1),
        classes=full.shape[1],
    )


def as_rows(full: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The same as rows of a run, where neither region points anywhere."""
    few = kept(full, labels)
    nowhere = pd.array([None] * len(labels), "Int32")
    return pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "sample_id": [f"s{n}" for n in range(len(labels))],
            "label": pd.array(labels, "Int32"),
            "predicted": pd.array(few.top_classes[:, 0], "Int32"),
            "confidence": few.top_probabilities[:, 0].astype(np.float32),
            "label_probability": few.label_probability.astype(np.float32),
            "top_classes": list(few.top_classes.astype(np.int32)),
            "top_probabilities": list(few.top_probabilities.astype(np.float32)),
            "object_pred": nowhere,
            "background_pred": nowhere,
        }
    )


def names(count: int) -> list[str]:
    return [f"c{n}" for n in range(count)]


@pytest.mark.parametrize("classes", [2, 5, 6])
def test_up_to_six_classes_all_probabilities_come_back(classes: int) -> None:
    full, labels, _ = noisy(50, classes)
    np.testing.assert_allclose(spread_probabilities(kept(full, labels)), full, atol=1e-12)


def test_more_classes_share_the_rest() -> None:
    full, labels, _ = noisy(50, 30)
    few = kept(full, labels)
    spread = spread_probabilities(few)
    np.testing.assert_allclose(spread.sum(axis=1), 1, atol=1e-12)
    for row in range(50):
        known = {*few.top_classes[row].tolist(), int(labels[row])}
        others = [k for k in range(30) if k not in known]
        assert all(spread[row, k] == full[row, k] for k in known)
        assert np.ptp(spread[row, others]) == 0
        assert spread[row, others[0]] <= few.top_probabilities[row, -1]


@pytest.mark.parametrize("classes", [2, 6, 10, 40])
def test_issues_and_scores_are_cleanlabs_from_all_probabilities(classes: int) -> None:
    full, labels, _ = noisy(2000, classes, seed=classes)
    found = inspect_labels(kept(full, labels))
    expected = find_label_issues_batched(labels, full, return_mask=True, verbose=False)
    assert found.is_issue.tolist() == expected.tolist()
    assert 50 < found.is_issue.sum() < 600
    np.testing.assert_allclose(found.scores, get_label_quality_scores(labels, full), atol=1e-12)
    # The unbatched function may round its count differently by one.
    whole = find_label_issues(labels, full, filter_by="low_self_confidence", n_jobs=1)
    assert (found.is_issue != whole).sum() <= 1


def test_issues_by_brute_force() -> None:
    full, labels, _ = noisy(300, 7, seed=3)
    count = 0
    for row, label in zip(full, labels, strict=True):
        k = int(row.argmax())
        of_class = [full[n, k] for n in range(300) if labels[n] == k]
        count += k != label and row[k] >= sum(of_class) / len(of_class)
    order = sorted(range(300), key=lambda n: full[n, labels[n]])
    expected = [n for n in order[:count] if full[n].argmax() != labels[n]]
    assert np.flatnonzero(inspect_labels(kept(full, labels)).is_issue).tolist() == sorted(expected)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    full, labels, _ = noisy(101, 10)
    whole = inspect_labels(kept(full, labels))
    monkeypatch.setattr(confident_learning, "_CELLS", 70)
    parts = inspect_labels(kept(full, labels))
    assert parts.is_issue.tolist() == whole.is_issue.tolist()
    np.testing.assert_allclose(parts.thresholds, whole.thresholds, atol=1e-12)


def test_a_class_without_samples_is_never_confident() -> None:
    full, labels, _ = noisy(500, 10, seed=1)
    stay = labels != 4
    full, labels = full[stay], labels[stay]
    found = inspect_labels(kept(full, labels))
    assert np.isinf(found.thresholds[4])
    assert np.isfinite(np.delete(found.thresholds, 4)).all()
    whole = find_label_issues(labels, full, filter_by="low_self_confidence", n_jobs=1)
    assert (found.is_issue != whole).sum() <= 1


def test_many_classes_few_samples() -> None:
    full, labels, _ = noisy(200, 1000)
    table = find_suspects(as_rows(full, labels), names(1000))
    assert 0 < table.num_rows <= MOST_SHARE * 200


def one(object_pred: int | None, background_pred: int | None) -> pd.DataFrame:
    """A hundred good labels c0 to c3, then a c0 that looks like c1."""
    full = np.full((101, 4), 0.05)
    labels = np.append(np.arange(100) % 4, 0)
    full[np.arange(100), labels[:100]] = 0.85
    full[100] = [0.02, 0.9, 0.05, 0.03]
    rows = as_rows(full, labels)
    rows.loc[100, "object_pred"], rows.loc[100, "background_pred"] = object_pred, background_pred
    return rows


@pytest.mark.parametrize(
    ("object_pred", "background_pred", "kind"),
    [
        (1, 1, LABEL_ERROR),
        (1, 2, LABEL_ERROR),
        (1, 0, CONTEXT_DRIVEN),
        (0, 1, BACKGROUND_SUGGESTS),
        (2, 1, BACKGROUND_SUGGESTS),
        (0, 0, DISAGREEMENT),
        (2, 3, DISAGREEMENT),
        (None, None, DISAGREEMENT),
        (1, None, DISAGREEMENT),
    ],
)
def test_kinds_by_hand(object_pred: int | None, background_pred: int | None, kind: str) -> None:
    samples = one(object_pred, background_pred)
    (row,) = find_suspects(samples, ["cat", "dog", "cow", "pig"]).to_pylist()
    assert (row["sample_id"], row["index"], row["label_rank"]) == ("s100", 100, 1)
    assert (row["label_name"], row["suggested_name"], row["kind"]) == ("cat", "dog", kind)
    assert "dog" in row["reason"]
    assert row["label_score"] == pytest.approx(0.02)
    assert row["is_label_issue"]
    assert row["is_confident"]
    known = object_pred is not None and background_pred is not None
    assert row["evidence"] == ("contributions" if known else None)
    assert row["object_agrees_with_suggestion"] == (object_pred == 1 if known else None)
    assert row["object_only_pred"] is None
    assert label_scores(samples, names(4))[100] == pytest.approx(row["label_score"])


def test_an_unsure_suggestion_is_no_label_error() -> None:
    samples = one(1, 2)
    # Other samples labelled c1 are predicted with .95, so .9 is not confident.
    for n in range(1, 100, 4):
        samples.at[n, "label_probability"] = 0.95
        samples.at[n, "top_probabilities"] = np.array([0.95, 0.02, 0.02, 0.01])
    assert find_suspects(samples, names(4)).num_rows == 0
    # It becomes suspect as another one is confident, and cleanlab counts one issue.
    samples.at[0, "top_classes"] = np.array([1, 2, 3, 0])
    samples.at[0, "top_probabilities"] = np.array([0.96, 0.01, 0.01, 0.02])
    samples.at[0, "predicted"], samples.at[0, "label_probability"] = 1, 0.03
    (row,) = find_suspects(samples, names(4)).to_pylist()
    assert (row["index"], row["is_confident"], row["kind"]) == (100, False, DISAGREEMENT)


def test_pixels_decide_where_they_are_known() -> None:
    samples = one(1, 0)
    edits = pd.DataFrame(
        {
            "sample_id": ["s100", "s3"],
            "object_only_predictions": [np.array([0, 0, 1]), np.array([3, 3, 3])],
            "background_only_predictions": [np.array([1, 1, 1]), np.array([3, 3, 3])],
        }
    )
    (row,) = find_suspects(samples, names(4), majority_predictions(edits)).to_pylist()
    assert (row["object_only_pred"], row["object_only_pred_name"]) == (0, "c0")
    assert (row["background_only_pred"], row["evidence"]) == (1, "pixels")
    assert row["kind"] == BACKGROUND_SUGGESTS
    assert row["object_agrees_with_suggestion"] is False
    # The ranking is the same for samples that were edited and those that were not.
    assert row["label_score"] == find_suspects(samples, names(4))["label_score"][0].as_py()
    edits["object_only_predictions"] = [np.array([0, 1, 2]), np.array([3, 3, 3])]
    (row,) = find_suspects(samples, names(4), majority_predictions(edits)).to_pylist()
    assert (row["object_only_pred"], row["evidence"]) == (None, "contributions")
    assert row["kind"] == CONTEXT_DRIVEN


@pytest.mark.parametrize(
    ("object_pred", "background_pred", "inside", "outside", "kind"),
    [
        # The object's pixels speak for the label, the background's have no majority.
        (1, 1, [0, 0, 1], [1, 2, 3], DISAGREEMENT),
        (1, 2, [0, 0, 0], [1, 2, 3], DISAGREEMENT),
        (1, 0, [0, 0, 0], [1, 2, 3], DISAGREEMENT),
        (2, 1, [0, 0, 0], [1, 2, 3], BACKGROUND_SUGGESTS),
        # They speak for the suggestion, or for neither, or have no majority either.
        (1, 2, [1, 1, 1], [1, 2, 3], LABEL_ERROR),
        (1, 2, [3, 3, 1], [1, 2, 3], LABEL_ERROR),
        (1, 2, [0, 2, 1], [1, 2, 3], LABEL_ERROR),
        (1, 0, [1, 1, 1], [1, 2, 3], CONTEXT_DRIVEN),
        # No contributions are known.
        (None, None, [0, 0, 0], [1, 2, 3], DISAGREEMENT),
    ],
)
def test_a_label_that_the_objects_pixels_speak_for_is_no_error(
    object_pred: int | None,
    background_pred: int | None,
    inside: list[int],
    outside: list[int],
    kind: str,
) -> None:
    edits = pd.DataFrame(
        {
            "sample_id": ["s100"],
            "object_only_predictions": [inside],
            "background_only_predictions": [outside],
        }
    )
    found = find_suspects(one(object_pred, background_pred), names(4), majority_predictions(edits))
    (row,) = found.to_pylist()
    assert (row["kind"], row["background_only_pred"]) == (kind, None)
    assert row["evidence"] == (None if object_pred is None else "contributions")
    said = "but of the object's pixels alone it says c0" in row["reason"]
    assert said == (object_pred == 1 and inside[:2] == [0, 0])


def test_majorities() -> None:
    lists = [[1, 1, 2], [1, 2], [-1, -1, 4], [5], []]
    edits = pd.DataFrame({"sample_id": list("abcde"), "object_only_predictions": lists})
    edits["background_only_predictions"] = lists
    found = majority_predictions(edits)
    assert found is not None
    assert found["object_only_pred"].tolist() == [1, -1, -1, 5, -1]
    assert majority_predictions(None) is None


def test_a_confident_prediction_is_suspect_beyond_cleanlabs_count() -> None:
    samples = one(1, 1)
    samples.at[100, "label_probability"] = 0.009
    # Not confident, but with less for its label, so that cleanlab's one issue is this.
    samples.at[50, "predicted"], samples.at[50, "label_probability"] = 1, 0.001
    samples.at[50, "top_classes"] = np.array([1, 0, 3, 2])
    samples.at[50, "top_probabilities"] = np.array([0.5, 0.25, 0.249, 0.001])
    rows = find_suspects(samples, names(4)).to_pylist()
    assert [row["index"] for row in rows] == [50, 100]
    assert [row["is_label_issue"] for row in rows] == [True, False]
    assert [row["is_confident"] for row in rows] == [False, True]
    samples.at[100, "label_probability"] = 0.011
    assert find_suspects(samples, names(4))["index"].to_pylist() == [50]


def test_the_table_is_bounded_and_the_totals_are_not() -> None:
    full, labels, wrong = noisy(1000, 10, flipped=0.6)
    table = find_suspects(as_rows(full, labels), names(10))
    totals = label_totals(table)
    assert table.num_rows == MOST_SHARE * 1000 == totals["label_suspects"]
    assert totals["labels_judged"] == 1000
    issues = inspect_labels(kept(full, labels)).is_issue.sum()
    assert totals["label_issues"] == issues > 200
    assert totals["label_issue_share"] == issues / 1000
    assert wrong[table["index"].to_numpy()].mean() > 0.95
    scores = table["label_score"].to_numpy()
    assert (np.diff(scores) >= 0).all()


def test_rows_have_exactly_the_columns_and_survive_a_file(tmp_path: Path) -> None:
    table = find_suspects(one(1, 0), names(4))
    assert table.schema.names == [c.name for c in LABEL_COLUMNS]
    assert [f.type for f in table.schema] == [c.type for c in LABEL_COLUMNS]
    for column in LABEL_COLUMNS:
        assert column.null_when or table[column.name].null_count == 0
    pq.write_table(table, tmp_path / "labels.parquet")
    assert label_totals(pq.read_table(tmp_path / "labels.parquet")) == label_totals(table)


def nothing_to_judge() -> dict[str, tuple[pd.DataFrame, list[str]]]:
    full, labels, _ = noisy(20, 5)
    rows = as_rows(full, labels)
    unlabelled = rows.assign(
        label=pd.array([None] * 20, "Int32"), label_probability=np.float32("nan")
    )
    unread = rows.assign(predicted=pd.array([None] * 20, "Int32"), top_classes=None)
    single = as_rows(np.ones((20, 1)), np.zeros(20, np.int64))
    return {
        "no labels": (unlabelled, names(5)),
        "no predictions": (unread, names(5)),
        "no samples": (rows.iloc[:0], names(5)),
        "one class": (single, names(1)),
    }


@pytest.mark.parametrize("case", nothing_to_judge())
def test_nothing_to_judge_is_an_empty_table(case: str) -> None:
    samples, classes = nothing_to_judge()[case]
    table = find_suspects(samples, classes)
    assert table.num_rows == 0
    assert table.schema.types == [c.type for c in LABEL_COLUMNS]
    assert label_totals(table) == {
        "labels_judged": 0,
        "label_issues": 0,
        "label_issue_share": None,
        "label_suspects": 0,
        "likely_label_errors": 0,
    }
    scores = label_scores(samples, classes)
    assert scores.isna().all()
    assert len(scores) == len(samples)


def test_one_sample_and_one_labelled_class() -> None:
    full, _, _ = noisy(30, 4)
    for count in (1, 30):
        labels = np.zeros(count, np.int64)
        table = find_suspects(as_rows(full[:count], labels), names(4))
        assert label_totals(table)["labels_judged"] == count
        assert label_totals(table)["label_issues"] == 0


def test_scores_keep_the_index_and_leave_out_what_is_unknown() -> None:
    full, labels, _ = noisy(6, 3)
    samples = as_rows(full, labels).set_index("sample_id")
    samples.loc["s2", "label"] = None
    samples.loc["s2", "label_probability"] = np.nan
    samples.loc["s4", "predicted"] = None
    scores = label_scores(samples, names(3))
    assert scores.index.equals(samples.index)
    assert scores.isna().tolist() == [False, False, True, False, True, False]
    stay = scores.notna()
    expected = samples.loc[stay, "label_probability"].to_numpy(np.float64)
    np.testing.assert_allclose(scores[stay], expected, rtol=1e-12)


def test_the_table_ranks_flipped_labels_as_cleanlab_does() -> None:
    full, labels, wrong = noisy(2000, 10, seed=5)
    samples = as_rows(full, labels)
    samples["object_pred"] = samples["background_pred"] = samples["predicted"]
    scores = label_scores(samples, names(10))
    alone = get_label_quality_scores(labels, full)
    expected = average_precision_score(wrong, -alone)
    assert average_precision_score(wrong, -scores) == pytest.approx(expected, abs=1e-6)
    listed = find_suspects(samples, names(10))
    first = np.argsort(alone, kind="stable")[:50]
    assert listed["index"].to_pylist()[:50] == first.tolist()
    assert wrong[first].mean() > 0.9


def test_a_run_has_the_table(tmp_path: Path) -> None:
    run = run_audit(dataset="demo", limit=120, edits="none", grids=False, out=tmp_path)
    assert run.labels.columns.tolist() == [c.name for c in LABEL_COLUMNS]
    assert len(run.labels) == run.manifest["totals"]["label_suspects"]
    assert run.manifest["totals"]["labels_judged"] == 120
    by_name = run.samples.set_index("sample_id")
    for row in run.labels.to_dict("records"):
        assert by_name.loc[row["sample_id"], "label_name"] == row["label_name"]
    stored = pq.read_schema(run.path / "labels.parquet")
    assert stored.field("label_score").type == pa.float64()


@pytest.mark.data
def test_issues_on_real_images_equal_those_from_all_probabilities() -> None:
    rows = pq.read_table(real_data("cifar10") / "test-00000-of-00001.parquet").slice(0, 2000)
    images = torch.stack(
        [
            decode_image(torch.frombuffer(bytearray(image["bytes"]), dtype=torch.uint8))
            for image in rows["img"].to_pylist()
        ]
    )
    labels = rows["label"].to_numpy().copy()
    rng = np.random.default_rng(0)
    at = rng.choice(2000, 160, replace=False)
    labels[at] = (labels[at] + rng.integers(1, 10, 160)) % 10
    classifier = open_classifier(
        Request(model="cnn", dataset="cifar10", num_classes=10),
        Wanted(classes=CIFAR10, native_size=(32, 32)),
    )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (classifier.mean, classifier.std))
    with torch.no_grad():
        logits = classifier.module.eval()((images / 255 - mean) / std)
    full = logits.double().softmax(dim=1).numpy()
    found = inspect_labels(kept(full, labels))
    expected = find_label_issues_batched(labels, full, return_mask=True, verbose=False)
    assert found.is_issue.tolist() == expected.tolist()
    flipped = np.isin(np.arange(2000), at)
    assert found.is_issue[flipped].mean() > 0.85
