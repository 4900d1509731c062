from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from audit import run_audit
from audit.report.pictures.grids import SHOWN
from audit.report.pictures.prototypes import (
    BACKGROUND,
    CHANNEL,
    CHANNELS,
    IMAGES,
    KINDS,
    STRONGEST,
    background_channel_sheet,
    background_sheet,
    background_sheets,
    choose_backgrounds,
    strongest_channels,
)
from audit.report.pictures.tiles import SIDE, WIDTH
from audit.report.thumbs import picture, silhouette
from audit.tables import AuditRun

PLANTED = {3, 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    out = tmp_path_factory.mktemp("prototypes")
    return run_audit(dataset="demo", limit=300, edits="none", out=out)


@pytest.fixture(scope="module")
def thumbs(run: AuditRun) -> pd.DataFrame:
    return pd.read_parquet(run.path / "thumbs.parquet")


def far_of_channel(row: pd.Series, channel: int) -> float:
    far = np.asarray(row["channel_logits"], np.float64).reshape(3, -1)[2]
    return float(far[channel] * row["channel_logits_scale"])


def test_every_class_has_its_sheets(run: AuditRun) -> None:
    names = {path.name for path in (run.path / "grids").glob("background-*.png")}
    assert names == {
        sheet(label, name)
        for label, name in enumerate(run.manifest["classes"])
        for sheet in (background_sheet, background_channel_sheet)
    }
    assert {f"grids/{name}" for name in names} <= set(run.manifest["files"])


def test_planted_backgrounds_supply_most(run: AuditRun) -> None:
    first = run.backgrounds[run.backgrounds["cluster"] == 0].set_index("label")
    ranked = first["far_logit"].sort_values(ascending=False)
    assert set(ranked.index[:2]) == PLANTED
    assert ranked.iloc[1] > 3 * ranked.iloc[2]
    assert (first.loc[list(PLANTED), "logit_share"] > 0.3).all()


def test_planted_prototypes_show_the_planted_texture(run: AuditRun, thumbs: pd.DataFrame) -> None:
    """Diagonal stripes of "three" repeat along one diagonal; diamonds of "eight" along both."""
    own = thumbs[thumbs["section"] == BACKGROUND].set_index("label")
    for label in sorted(PLANTED):
        across = []
        for _, thumb in own.loc[[label]].iterrows():
            grey = picture(thumb["image"]).mean(axis=2)
            outside = silhouette(thumb["mask"]) == 0
            across.append([_likeness(grey, outside, step) for step in ((2, -2), (2, 2))])
        falling, rising = np.mean(across, axis=0)
        likeness = max(falling, rising), min(falling, rising)
        if label == 3:
            assert likeness[0] > 0.6, "the same along the stripes"
            assert likeness[1] < 0.2, "and another across them"
        else:
            assert abs(likeness[0] - likeness[1]) < 0.4, "the same both ways"


def _likeness(grey: np.ndarray, outside: np.ndarray, step: tuple[int, int]) -> float:
    """Correlation of background pixels with those a step away."""
    down, right = step
    moved, there = (np.roll(values, (down, right), (0, 1)) for values in (grey, outside))
    inner = np.zeros_like(outside)
    inner[3:-3, 3:-3] = True
    both = outside & there & inner
    return float(np.corrcoef(grey[both], moved[both])[0, 1])


def test_chosen_images_are_what_the_tables_say(run: AuditRun, thumbs: pd.DataFrame) -> None:
    rows = run.samples.set_index("sample_id")
    for label in range(10):
        own = thumbs[thumbs["label"] == label]
        kinds = run.backgrounds[run.backgrounds["label"] == label]
        shown = own[own["section"] == BACKGROUND].sort_values("rank")["sample_id"].tolist()
        wanted = [name for names in kinds["prototypes"][:KINDS] for name in names[:IMAGES]]
        assert shown == wanted
        drawn = own[own["section"] == CHANNEL].sort_values("rank")
        assert len(drawn) <= CHANNELS * STRONGEST
        explained = rows[rows["target"] == label]
        for order, channel in enumerate(strongest_channels(run.channels, label)):
            far = explained.apply(far_of_channel, axis=1, channel=channel)
            found = drawn.iloc[order * STRONGEST : (order + 1) * STRONGEST]["sample_id"]
            np.testing.assert_allclose(
                far[found].to_numpy(), far.sort_values(ascending=False)[:STRONGEST], rtol=1e-5
            )


def test_strongest_channels_add_something() -> None:
    table = pd.DataFrame(
        {
            "target": [0, 0, 0, 0, 1],
            "channel": [0, 1, 2, 3, 0],
            "far_logit": [0.1, 0.5, -0.2, 0.0, 9.0],
            "background_rank": [2, 1, 4, 3, 1],
        }
    )
    assert strongest_channels(table, 0) == [1, 0]
    assert strongest_channels(table, 7) == []


def test_sheets_are_redrawn_from_the_tables_alone(run: AuditRun, thumbs: pd.DataFrame) -> None:
    drawn = dict(
        background_sheets(
            run.samples, thumbs, run.backgrounds, run.channels, tuple(run.manifest["grid"])
        )
    )
    assert len(drawn) == 20
    for name, content in drawn.items():
        assert (run.path / "grids" / name).read_bytes() == content
        with Image.open(io.BytesIO(content)) as image:
            assert image.width == WIDTH


def test_the_label_stands_under_wrong_answers_and_no_others(
    run: AuditRun, thumbs: pd.DataFrame
) -> None:
    wanted = thumbs[thumbs["section"] == CHANNEL]
    shown = run.samples["index"].isin(wanted["index"])

    def drawn(correct: bool | None, label_name: str) -> list[bytes]:
        samples = run.samples.astype({"label_name": object})
        samples["correct"] = pd.array([correct] * len(samples), "boolean")
        samples.loc[shown, "label_name"] = label_name
        grid = tuple(run.manifest["grid"])
        sheets = background_sheets(samples, wanted, run.backgrounds, run.channels, grid)
        return [content for _, content in sheets]

    for correct, tells in ((False, True), (True, False), (None, False)):
        first, second = drawn(correct, "apple"), drawn(correct, "pear")
        assert len(first) == 10
        assert [a != b for a, b in zip(first, second, strict=True)] == [tells] * 10


def test_a_run_without_vectors_shows_nothing(run: AuditRun, thumbs: pd.DataFrame) -> None:
    nothing = run.backgrounds.iloc[:0], run.channels.iloc[:0]
    assert choose_backgrounds(run.samples, *nothing, range(10)).empty
    others = thumbs[~thumbs["section"].isin([BACKGROUND, CHANNEL])]
    assert list(background_sheets(run.samples, others, *nothing, (8, 8))) == []


def test_objects_are_hidden(run: AuditRun, thumbs: pd.DataFrame) -> None:
    """The middle of every left picture's object is grey, wherever the tile stands."""
    name = background_sheet(3, "three")
    with Image.open(run.path / "grids" / name) as image:
        pixels = np.asarray(image.convert("RGB"))
    grey = (pixels == 128).all(axis=2)
    own = thumbs[(thumbs["section"] == BACKGROUND) & (thumbs["label"] == 3)]
    # Of each kind the first three are on the sheet.
    own = own[own["rank"] % IMAGES < SHOWN]
    hidden = sum((silhouette(mask) == 255).mean() * SIDE * SIDE for mask in own["mask"])
    assert 0.5 * hidden < grey.sum() < 1.1 * hidden


def test_the_page_leads_to_the_sheets(run: AuditRun) -> None:
    text = (run.path / "index.html").read_text(encoding="utf-8")
    for sheet in (background_sheet, background_channel_sheet):
        assert f"grids/{sheet(3, 'three')}" in text


@pytest.mark.parametrize("name", ["../../etc/passwd", "日本語", "x" * 300])
def test_any_class_name_gives_a_safe_file_name(name: str) -> None:
    for sheet in (background_sheet, background_channel_sheet):
        assert Path(sheet(3, name)).name == sheet(3, name)
        assert set(sheet(3, name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
