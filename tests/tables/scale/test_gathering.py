"""Digests of parts brought together: the same however rows are cut, and right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audit.errors import OutputError
from audit.report.gallery import choose_flagged, flag_samples
from audit.report.selection import choose_samples
from audit.run.summing import EXACT_ROWS, is_summed
from audit.tables.assembly import assemble
from audit.tables.clusters import count_duplicates, find_clusters
from audit.tables.scale import (
    Digesting,
    Gathered,
    Gathering,
    PartRows,
    assemble_summed,
    digest_part,
    fits,
    kept_table,
    read_kept,
    shown_rows,
    summed_totals,
)
from audit.tables.scale import setting as scale_setting
from audit.tables.scale.packing import unpack_content
from audit.tables.scale.quantiles import BOUNDED_ERROR
from audit.tables.totals import summarise_split
from tests.tables.scale.making import (
    CLASSES,
    COUNT,
    NAMES,
    RARE,
    SETTING,
    gather,
    in_parts,
    make_rows,
    told,
    typed,
)

SIDECAR = {"statuses": {"ok": COUNT}, "histogram": [[2, 0], [0, 2]], "problems": []}
Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return make_rows()


@pytest.fixture(scope="module")
def gathered(rows: pa.Table) -> Gathered:
    return gather(in_parts(rows, 3))


@pytest.fixture(scope="module")
def summed(gathered: Gathered) -> Tables:
    tables = assemble_summed(gathered, None, told())
    return {name: table.to_pandas() for name, table in tables.items()}


@pytest.fixture(scope="module")
def exact(rows: pa.Table) -> Tables:
    tables = assemble(typed(rows), None, told())
    return {name: table.to_pandas() for name, table in tables.items()}


def test_large_runs_are_summed() -> None:
    assert EXACT_ROWS == 200_000
    assert [is_summed(count) for count in (0, 200_000, 200_001)] == [False, False, True]


@pytest.mark.parametrize("number", [1, 50])
def test_how_rows_are_cut_changes_nothing(rows: pa.Table, gathered: Gathered, number: int) -> None:
    other = gather(in_parts(rows, number))
    pd.testing.assert_frame_equal(other.kept, gathered.kept)
    assert (other.uniform == gathered.uniform).all()
    pd.testing.assert_frame_equal(other.extremes, gathered.extremes)
    pd.testing.assert_frame_equal(other.suspects, gathered.suspects)
    one, two = gathered.exact, other.exact
    assert (one.counts == two.counts).all()
    assert (one.cell_counts == two.cell_counts).all()
    assert (one.channel_counts == two.channel_counts).all()
    assert (one.pairs == two.pairs).all()
    for a, b in zip(one.histograms.found(), two.histograms.found(), strict=True):
        assert (a == b).all()
    assert one.mask_sources == two.mask_sources
    assert one.repeats.clusters.tolist() == two.repeats.clusters.tolist()
    assert (one.repeats.repeated, one.repeats.conflicting) == (
        two.repeats.repeated,
        two.repeats.conflicting,
    )
    for name in ("sums", "squares", "cell_sums", "pair_sums"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-12, atol=1e-12)


def test_a_digest_has_the_same_bytes_whatever_the_threads(rows: pa.Table) -> None:
    threads = pa.cpu_count()
    found = digest_part(rows, SETTING)
    try:
        pa.set_cpu_count(1)
        assert digest_part(rows, SETTING) == found
    finally:
        pa.set_cpu_count(threads)
    pieces = pa.concat_tables(in_parts(rows, 7))
    assert digest_part(pieces, SETTING) == found


def test_a_stored_part_tells_the_same(rows: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    stored = pq.read_table(pa.BufferReader(sink.getvalue()))
    one, other = (unpack_content(digest_part(table, SETTING)) for table in (rows, stored))
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other[name])
        else:
            assert value == other[name]


def test_counts_and_means_are_those_of_all_rows(summed: Tables, exact: Tables) -> None:
    found, every = summed["classes"], exact["classes"]
    for name in ("n", "n_scored", "n_confident"):
        assert found[name].tolist() == every[name].tolist()
    suffixes = ("_low", "_high", "_median", "_p10", "_p90")
    means = [
        name
        for name in every.select_dtypes("float").columns
        if ("_mask_" in name or not name.endswith(suffixes))
        and not name.startswith(("shuffle", "area_corr", "kappa_p", "kappa_q", "detectable"))
        and every[name].notna().any()
    ]
    assert len(means) > 30
    for name in means:
        np.testing.assert_allclose(found[name], every[name], rtol=1e-9, err_msg=name)
    assert found["transplant_family"].tolist() == every["transplant_family"].tolist()


def test_quantiles_are_as_near_as_stated(summed: Tables, exact: Tables) -> None:
    for name in ("_median", "_p10", "_p90"):
        one, other = (t["classes"][f"background_share{name}"] for t in (summed, exact))
        assert (abs(one - other) <= BOUNDED_ERROR + 1e-12).all()
        one, other = (t["classes"][f"far_logit{name}"] for t in (summed, exact))
        assert (abs(one - other) <= 0.011 * abs(other) + 1e-3).all()


def test_intervals_are_about_as_wide_as_the_bootstrap(summed: Tables, exact: Tables) -> None:
    scores = ("background_share", "kappa", "far_logit", "transplant_rate", "accuracy",
              "background_share_median", "kappa_p90")  # fmt: skip
    ratios = []
    for score in scores:
        found, every = (t["classes"].iloc[:RARE] for t in (summed, exact))
        assert (found[f"{score}_low"] <= found[score]).all()
        assert (found[score] <= found[f"{score}_high"]).all()
        width = [t[f"{score}_high"] - t[f"{score}_low"] for t in (found, every)]
        ratios += (width[0] / width[1]).tolist()
    # The jackknife's error has a standard deviation of about 6% with 256 groups.
    assert 0.9 < np.mean(ratios) < 1.15
    assert 0.5 < min(ratios) < max(ratios) < 2


def test_tests_and_power_are_near_those_of_all_rows(summed: Tables, exact: Tables) -> None:
    for name in ("detectable_kappa", "detectable_transplant_rate"):
        one, other = (t["classes"][name].iloc[:RARE] for t in (summed, exact))
        np.testing.assert_allclose(one, other, rtol=0.25)
    assert ((summed["classes"]["kappa_p"] < 1e-6) == (exact["classes"]["kappa_p"] < 1e-6)).all()


def test_confusion_and_channels_are_those_of_all_rows(summed: Tables, exact: Tables) -> None:
    pd.testing.assert_frame_equal(
        summed["confusion"], exact["confusion"], check_dtype=False, rtol=1e-6
    )
    pd.testing.assert_frame_equal(
        summed["channels"], exact["channels"], check_dtype=False, rtol=1e-6, atol=1e-9
    )


def test_a_rare_class_is_kept(gathered: Gathered, summed: Tables, rows: pa.Table) -> None:
    kept = gathered.kept["label"].value_counts()
    assert kept[RARE] == 50
    assert (
        gathered.uniform[(gathered.kept["label"] == RARE).fillna(False).to_numpy(bool)].sum() < 20
    )
    assert summed["classes"]["n_kept"].tolist() == [kept[label] for label in range(CLASSES)]
    assert len(gathered.kept) < 0.2 * COUNT
    # Kept rows are the stored ones.
    every = typed(rows).set_index("index").loc[gathered.kept["index"]].reset_index()
    pd.testing.assert_frame_equal(
        gathered.kept.drop(columns=["channel_maps"]),
        every[gathered.kept.columns].drop(columns=["channel_maps"]),
    )


def test_a_class_that_is_kept_whole_has_the_exact_numbers(rows: pa.Table, exact: Tables) -> None:
    setting = dataclasses.replace(SETTING, count=COUNT)
    everything = gather(in_parts(rows, 3), setting)
    assert len(everything.kept) == COUNT
    tables = assemble_summed(everything, None, told())
    found = tables["classes"].to_pandas().drop(columns="n_kept")
    pd.testing.assert_frame_equal(found, exact["classes"])
    pd.testing.assert_frame_equal(
        tables["labels"].to_pandas().drop(columns="is_label_issue"),
        exact["labels"].drop(columns="is_label_issue"),
        check_exact=False,
    )


def test_label_suspects_are_ranked_as_among_all_rows(summed: Tables, exact: Tables) -> None:
    found, every = summed["labels"], exact["labels"]
    assert len(found) > 50
    both = set(found["index"]) & set(every["index"])
    assert len(both) > 0.8 * max(len(found), len(every))
    order = [t[t["index"].isin(both)]["index"].tolist() for t in (found, every)]
    assert order[0] == order[1]
    for column in ("suggested", "is_confident", "kind"):
        one, other = (t.set_index("index")[column].loc[order[0]] for t in (found, every))
        assert (one == other).all()


def test_totals_are_those_of_all_rows(
    gathered: Gathered, summed: Tables, exact: Tables, rows: pa.Table
) -> None:
    found = summed_totals(gathered, summed["classes"], [SIDECAR], seed=3)
    every = summarise_split(typed(rows), exact["classes"], [SIDECAR], seed=3)
    assert set(found) - set(every) == {"basis"}
    for name, value in every.items():
        if name.endswith(("_low", "_high")) and "_mask_" not in name:
            continue
        if name not in ("area_correlation", "duplicates", "conflicting_labels"):
            assert found[name] == pytest.approx(value, rel=1e-6), name
    width = {k: every[f"{k}_high"] - every[f"{k}_low"] for k in ("kappa", "kappa_macro")}
    for name, wide in width.items():
        assert found[f"{name}_high"] - found[f"{name}_low"] == pytest.approx(wide, rel=0.4)
    assert found["basis"]["kept_rows"]["rows"] == len(gathered.kept)
    assert found["basis"]["classes"] == {"all_rows_kept": 0, "summed": CLASSES, "recentred": 0}


def test_repeated_pictures_are_counted(rows: pa.Table) -> None:
    # Of a split no larger than the number of counted pictures all are looked at.
    setting = dataclasses.replace(SETTING, count=60_000)
    repeats = gather(in_parts(rows, 4), setting).exact.repeats
    samples = typed(rows)
    clusters = find_clusters(samples)
    every = count_duplicates(clusters, samples["label"])
    assert (repeats.repeated, repeats.conflicting) == (every.repeated, every.conflicting)
    known = samples["image_hash"].notna().to_numpy()
    for label in range(CLASSES):
        own = known & (samples["label"] == label).fillna(False).to_numpy(bool)
        assert repeats.clusters[label] == len(np.unique(clusters[own]))


def test_galleries_are_those_of_all_rows(
    gathered: Gathered, summed: Tables, exact: Tables, rows: pa.Table
) -> None:
    shown = shown_rows(gathered, summed["classes"], CLASSES)
    assert shown["index"].is_monotonic_increasing
    one, other = (choose_samples(samples, exact["classes"], 0) for samples in (shown, typed(rows)))
    for section in {*other["section"]} - {"median", "random"}:
        pair = (t[t["section"] == section].reset_index(drop=True) for t in (one, other))
        pd.testing.assert_frame_equal(*pair)
    flags = flag_samples(shown, summed["labels"])
    chosen = choose_flagged(shown, flags, 100)
    every = choose_flagged(typed(rows), flag_samples(typed(rows), exact["labels"]), 100)
    assert len(set(chosen["index"]) & set(every["index"])) >= 95


def test_kept_rows_are_stored_and_read(gathered: Gathered, summed: Tables, tmp_path: Path) -> None:
    shown = shown_rows(gathered, summed["classes"], CLASSES)
    pq.write_table(kept_table(gathered, shown), tmp_path / "kept.parquet")
    found = read_kept(tmp_path)
    assert found["kept_as"].value_counts()["split"] == gathered.uniform.sum()
    assert set(found["kept_as"]) == {"split", "class", "list"}
    pd.testing.assert_frame_equal(
        found.drop(columns=["kept_as", "map", "channel_maps"]),
        shown.drop(columns=["map", "channel_maps"]),
        check_categorical=False,
    )


def test_one_composition_does_not_decide_an_interval(rows: pa.Table) -> None:
    # All pictures look alike: one group holds everything, and groups tell nothing.
    place = rows.schema.get_field_index("image_hash")
    alike = rows.set_column(place, "image_hash", pa.array(np.full(COUNT, 5)))
    found = gather(in_parts(alike, 2))
    classes = assemble_summed(found, None, told())["classes"].to_pandas()
    assert (classes["kappa_low"] < classes["kappa"]).all()
    assert (classes["kappa"] < classes["kappa_high"]).all()
    totals = summed_totals(found, classes, [SIDECAR], seed=3)
    assert totals["basis"]["classes"]["recentred"] == CLASSES
    assert totals["kappa_low"] < totals["kappa"] < totals["kappa_high"]


def test_digests_of_other_settings_or_code_are_refused(rows: pa.Table) -> None:
    other = dataclasses.replace(SETTING, seed=4)
    digest = digest_part(rows, other)
    assert fits(digest, other)
    assert not fits(digest, SETTING)
    assert not fits(digest[:-1], other)
    gathering = Gathering(SETTING, PartRows(starts=[0], read=[rows].__getitem__))
    with pytest.raises(OutputError, match="beside part 7 are of another"):
        gathering.add(7, digest)


def test_many_classes_are_kept_within_bounds() -> None:
    few, many = (Digesting(count=10**7, classes=[""] * number, seed=0) for number in (2, 30_000))
    assert (few.least, many.least) == (50, 0)
    assert (few.groups, many.groups) == (256, 32)
    assert many.suspects * 30_000 <= 300_000
    most = scale_setting.UNIFORM_ROWS + scale_setting.ADDED_ROWS
    assert most < 50_000


def test_foreign_columns_may_be_missing(rows: pa.Table) -> None:
    slim = rows.select(["index", "label", "predicted", "correct", "background_share"])
    found = gather(in_parts(slim, 2))
    assert found.exact.rows == COUNT
    assert np.isnan(found.exact.means("kappa")).all()
    assert found.exact.channel_sums is None
    assert len(NAMES) == CLASSES
