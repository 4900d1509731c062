from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest

from audit.tables.transplants import TRANSPLANT_COLUMNS, tabulate_transplants

CLASSES = [f"class-{k}" for k in range(5)]


def rows(count: int = 200, partners: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, count)
    objects = (labels[:, None] + rng.integers(1, 5, (count, partners))) % 5
    under_main, under_ellipse = rng.integers(0, 5, (2, count, partners))
    under_ellipse[::3, 1] = -1
    frame = pd.DataFrame(
        {
            "label": pd.array(labels, "Int32"),
            "transplant_objects": list(objects.astype(np.int32)),
            "transplant_predictions": list(under_main.astype(np.int32)),
            "ellipse_transplant_predictions": list(under_ellipse.astype(np.int32)),
        }
    )
    frame.loc[5, "label"] = pd.NA
    frame.loc[6, ["transplant_predictions", "transplant_objects"]] = None
    frame.loc[7, "ellipse_transplant_predictions"] = None
    return frame


def counted(samples: pd.DataFrame, column: str) -> dict[tuple[int, int], dict[str, object]]:
    """The same by loops."""
    found = defaultdict(list)
    for place, row in samples.iterrows():
        if row["transplant_objects"] is None or row[column] is None or pd.isna(row["label"]):
            continue
        for other, prediction in zip(row["transplant_objects"], row[column], strict=True):
            if prediction >= 0:
                found[int(row["label"]), int(other)].append((place, int(prediction)))
    return {
        (label, other): {
            "n": len(each),
            "n_samples": len({place for place, _ in each}),
            "predicted_label": sum(p == label for _, p in each) / len(each),
            "predicted_object": sum(p == other for _, p in each) / len(each),
            "predicted_neither": sum(p not in (label, other) for _, p in each) / len(each),
        }
        for (label, other), each in found.items()
    }


def test_equal_to_counting_by_loops() -> None:
    samples = rows()
    table = tabulate_transplants(samples, ["estimated", "ellipse"], CLASSES).to_pandas()
    assert table.columns.tolist() == [column.name for column in TRANSPLANT_COLUMNS]
    for family, column in (("estimated", ""), ("ellipse", "ellipse_")):
        own = table[table["family"] == family]
        expected = counted(samples, f"{column}transplant_predictions")
        assert list(zip(own["label"], own["object"], strict=True)) == sorted(expected)
        for row in own.to_dict("records"):
            for name, value in expected[row["label"], row["object"]].items():
                assert row[name] == pytest.approx(value, abs=1e-12), name
            assert row["label_name"] == CLASSES[row["label"]]
            assert row["object_name"] == CLASSES[row["object"]]
    shares = table[["predicted_label", "predicted_object", "predicted_neither"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1)
    assert table["family"].unique().tolist() == ["estimated", "ellipse"]
    assert (table["n"] > table["n_samples"]).any()


def test_without_any_transplant_the_table_is_empty() -> None:
    samples = rows(8)
    samples["transplant_predictions"] = None
    empty = tabulate_transplants(samples, ["dataset", "box"], CLASSES)
    assert empty.num_rows == 0
    assert empty.column_names == [column.name for column in TRANSPLANT_COLUMNS]


def test_a_thousand_classes_and_many_samples() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 1000, 5000)
    objects = (labels[:, None] + rng.integers(1, 1000, (5000, 4))) % 1000
    samples = pd.DataFrame(
        {
            "label": pd.array(labels, "Int32"),
            "transplant_objects": list(objects),
            "transplant_predictions": list(np.broadcast_to(labels[:, None], (5000, 4))),
        }
    )
    table = tabulate_transplants(samples, ["dataset"], [str(k) for k in range(1000)]).to_pandas()
    assert table["n"].sum() == 20_000
    assert (table["predicted_label"] == 1).all()
    assert (table["object"] != table["label"]).all()
