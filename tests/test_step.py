"""The fused step against the pieces it is made of, one sample at a time in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from audit.cam import Method, Resampler, gradcam, hirescam
from audit.explaining import Explainer
from audit.models import cut
from audit.score import attention
from audit.score.contributions import regions
from audit.score.masks import Family, Masks
from audit.score.positions import is_kept
from audit.step import FAMILY_SCORES, STATUSES, AuditStep, StepOutput, status_code
from tests.conftest import ARCHITECTURES, random_model
from tests.score import reference

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
OK = status_code("ok")


def make(
    architecture: str,
    methods: tuple[Method, ...] = ("hirescam",),
    channels: int = 3,
    **settings: Any,
) -> tuple[AuditStep, nn.Module]:
    model = random_model(architecture, seed=2)
    explainer = Explainer(
        cut(model, (32, 32)), mean=MEAN, std=STD, methods=methods, channels=channels
    )
    return AuditStep(explainer, image_size=(32, 32), **settings), model


def run(
    step: AuditStep,
    images: torch.Tensor,
    labels: torch.Tensor,
    masks: torch.Tensor,
    given: torch.Tensor,
    index: torch.Tensor,
) -> StepOutput:
    return step(images, labels, Masks(main=masks), given, index)


def give_donors(step: AuditStep, images: torch.Tensor, labels: torch.Tensor, masks: Masks) -> None:
    """The batch itself as donors."""
    grids, valid = step.donor_masks(masks)
    step.take_donors(step.features(images), grids, labels, 10, valid)


def batch(count: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    masks = torch.zeros(count, 32, 32)
    for n in range(count):
        masks[n, 4 + n : 16 + n, 6 : 20 + n] = 1
    return images, torch.arange(count) % 10, masks, torch.full((count,), OK), torch.arange(count)


@pytest.mark.parametrize("method", ["hirescam", "gradcam"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_to_a_slow_float64_reference(architecture: str, method: str) -> None:
    step, model = make(architecture, methods=(method,))
    data = batch(6)
    columns = run(step, *data).columns
    model = copy.deepcopy(model).double()
    parts = cut(model.float(), (32, 32))
    backbone, head = parts.backbone.double(), parts.head.double()
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    scored = 0
    for n in range(6):
        (given,) = backbone((data[0][n : n + 1].double() / 255 - mean) / std)
        leaf = given.requires_grad_()
        logits = head(leaf)
        target = int(logits.argmax())
        (gradient,) = torch.autograd.grad(logits[0, target], leaf)
        features = leaf.detach()
        raw = (hirescam if method == "hirescam" else gradcam)(features, gradient)[0]
        stored = columns["map"][n].double() * columns["map_scale"][n].double()
        torch.testing.assert_close(stored, raw, rtol=0, atol=6e-4 * float(raw.abs().max()))
        if raw.max() <= 0:
            assert STATUSES[columns["status"][n]] == "zero_map"
            continue
        scored += 1
        expected = reference.scores(raw.numpy(), data[2][n].double().numpy(), 1)
        # Of the ranked scores, float32 may order two nearly equal pixels differently.
        loose = {"rank_accuracy": 2 / data[2][n].sum().item(), "iou_50": 5e-3}
        for name, value in expected.items():
            bound = loose.get(name, 1e-5)
            assert columns[name][n].item() == pytest.approx(value, rel=1e-5, abs=bound), name
        assert columns["predicted"][n] == target
        probability = torch.softmax(logits, dim=1)[0]
        assert columns["confidence"][n].item() == pytest.approx(probability.max().item(), abs=1e-5)
        total = sum(
            columns[f"{part}_logit"][n].item() for part in ("object", "near", "far", "bias")
        )
        centred = (logits[0, target] - logits[0].mean()).item()
        assert total == pytest.approx(centred, abs=1e-4 * (1 + abs(centred)))
    assert scored >= 2


def test_the_other_class_fills_the_alt_columns_where_it_differs() -> None:
    images, labels, masks, given, index = batch(10)
    predicted_step, _ = make("cnn")
    label_step, _ = make("cnn", target="label")
    labels[0] = run(predicted_step, images, labels, masks, given, index).columns["predicted"][0]
    by_prediction = run(predicted_step, images, labels, masks, given, index).columns
    by_label = run(label_step, images, labels, masks, given, index).columns
    assert by_prediction["alt_target"][0] == -1
    assert by_prediction["alt_map"][0].isnan().all()
    assert by_prediction["alt_background_share"][0].isnan()
    differ = by_prediction["alt_target"] >= 0
    assert differ.sum() >= 5
    assert torch.equal(by_prediction["alt_target"][differ], by_label["target"][differ])
    torch.testing.assert_close(
        by_prediction["alt_background_share"][differ], by_label["background_share"][differ]
    )
    torch.testing.assert_close(
        by_prediction["alt_far_logit"][differ], by_label["far_logit"][differ]
    )


def test_each_status_blanks_what_it_must_and_no_more() -> None:
    step, _ = make("cnn")
    images, labels, masks, given, index = batch(7)
    given[0], given[1], given[2] = (
        status_code(s) for s in ("unreadable", "mask_missing", "bad_label")
    )
    labels[2] = -1
    masks[3], masks[4] = 0, 1
    columns = run(step, images, labels, masks, given, index).columns
    found = [STATUSES[code] for code in columns["status"].tolist()]
    assert found == [
        "unreadable",
        "mask_missing",
        "bad_label",
        "empty_mask",
        "full_mask",
        "ok",
        "ok",
    ]
    share, confidence = columns["background_share"], columns["confidence"]
    assert share.isnan().tolist() == [True, True, False, True, True, False, False]
    assert confidence.isnan().tolist() == [True, *[False] * 6]
    assert columns["predicted"][0] == -1
    assert columns["correct"].tolist()[2] == -1
    assert columns["label_probability"][2].isnan()
    assert columns["object_area"].isnan().tolist() == [True, True, *[False] * 5]
    assert columns["far_logit"].isnan().tolist() == [True, True, False, True, True, False, False]


def test_zero_and_nonfinite_maps_are_undefined() -> None:
    model: Any = random_model("resnet20", seed=2)
    data = batch(3)
    parts = cut(model, (32, 32))
    model.linear.weight.data.zero_()
    assert parts.linear is not None
    parts = replace(parts, linear=torch.zeros_like(parts.linear))
    step = AuditStep(Explainer(parts, mean=MEAN, std=STD), image_size=(32, 32))
    columns = run(step, *data).columns
    assert [STATUSES[c] for c in columns["status"].tolist()] == ["zero_map"] * 3
    assert columns["background_share"].isnan().all()
    assert not columns["confidence"].isnan().any()
    model.linear.bias.data[0] = torch.nan
    columns = run(step, *data).columns
    assert [STATUSES[c] for c in columns["status"].tolist()] == ["nonfinite"] * 3
    assert columns["confidence"].isnan().all()
    assert (columns["predicted"] == -1).all()


def test_channels_are_the_most_active_ones() -> None:
    step, _ = make("cnn", channels=2)
    data = batch(2)
    columns = run(step, *data).columns
    features = step.features(data[0])
    activity = features.mean(dim=(2, 3))
    assert torch.equal(columns["top_channels"], activity.topk(2, dim=1).indices)
    first = features[0, columns["top_channels"][0, 0]]
    stored = columns["channel_maps"][0, 0].float() * columns["channel_maps_scale"][0]
    torch.testing.assert_close(stored, first, rtol=0, atol=6e-4 * float(first.max()))


def test_the_model_is_left_as_it_was() -> None:
    step, model = make("cnn")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(step, *batch(4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not model.training


def test_mask_on_the_grid_serves_soft_masks_too() -> None:
    resampler = Resampler.between((32, 32), (8, 8))
    soft = torch.full((1, 32, 32), 0.3)
    torch.testing.assert_close(resampler.to_grid(soft), torch.full((1, 8, 8), 0.3))


def test_scores_have_a_range_over_the_moved_border() -> None:
    step, _ = make("cnn")
    columns = run(step, *batch(6)).columns
    for name in ("background_share", "kappa", "object_logit", "near_logit", "far_logit"):
        value, low, high = (columns[f"{name}{end}"] for end in ("", "_low", "_high"))
        known = ~value.isnan()
        assert known.any()
        assert (low[known] <= value[known]).all()
        assert (high[known] >= value[known]).all()
        assert (high[known] > low[known]).any()
        assert torch.equal(low.isnan(), value.isnan())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_families_are_scored_as_if_they_were_the_main_one(architecture: str) -> None:
    step, _ = make(architecture)
    images, labels, masks, given, index = batch(8)
    other = masks.flip(1)
    other[2], other[3] = 0, 1
    every = Masks(main=masks, others={"x": Family(mask=other)})
    usable = torch.tensor([0, 1, 4, 5, 6, 7])
    give_donors(step, images[usable], labels[usable], every.take(usable))
    both = step(images, labels, every, given, index).columns
    give_donors(step, images[usable], labels[usable], Masks(main=other[usable]))
    alone = run(step, images, labels, other, given, index).columns
    assert not torch.equal(both["x_transplant_predictions"], both["transplant_predictions"])
    # It tries the first half of the donors.
    few = alone["transplant_predictions"][:, :2]
    alone["transplant_predictions"] = torch.nn.functional.pad(few, (0, 2), value=-1)
    hits = (few == labels[:, None]).float().mean(dim=1)
    alone["transplant_rate"] = torch.where((few >= 0).all(dim=1), hits, torch.nan)
    for name in FAMILY_SCORES:
        if name != "mask_iou":
            torch.testing.assert_close(
                both[f"x_{name}"], alone[name], rtol=1e-4, atol=1e-5, equal_nan=True
            )
    shared, either = (masks * other).sum(dim=(1, 2)), torch.maximum(masks, other).sum(dim=(1, 2))
    torch.testing.assert_close(both["x_mask_iou"], shared / either)
    assert both["x_kappa"].isnan().tolist()[2:4] == [True, True]
    assert both["x_transplant_rate"].isnan().tolist() == [n in (2, 3) for n in range(8)]
    assert (both["x_transplant_predictions"][2:4] == -1).all()
    assert both["x_object_area"][2:4].tolist() == [0, 1]


def test_what_is_unknown_counts_on_no_side() -> None:
    """A score equals that of the known pixels alone, whatever the mask says elsewhere."""
    step, _ = make("cnn")
    images, labels, masks, given, index = batch(8)
    unknown = torch.zeros_like(masks)
    unknown[:, 8:28, 12:28] = 1
    known = 1 - unknown
    columns = step(images, labels, Masks(main=masks * known, unknown=unknown), given, index).columns
    raw = columns["map"].float() * columns["map_scale"][:, None, None]
    up = torch.nn.functional.interpolate(
        raw.clamp_min(0)[:, None].double(), size=(32, 32), mode="bilinear"
    )[:, 0]
    share = (up * masks * known).sum(dim=(1, 2)) / (up * known).sum(dim=(1, 2))
    area = (masks * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2))
    scored = columns["status"] == OK
    assert scored.sum() >= 3
    torch.testing.assert_close(
        columns["object_share"][scored].double(), share[scored], rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(columns["object_area"], area)
    torch.testing.assert_close(columns["unknown_area"], torch.full((8,), 320 / 1024))
    total = sum(
        columns[f"{part}_logit"]
        for part in ("object", "near", "far", "unknown", "bias", "residual")
    )
    torch.testing.assert_close(total[scored], columns["target_logit"][scored], rtol=1e-4, atol=1e-4)
    assert (columns["unknown_logit"][scored].abs() > 0).any()
    up32, inside, seen = up.float(), masks * known >= 0.5, known > 0.5
    for name, score in (
        ("pointing_hit", lambda k: attention.pointing_hit(up32, inside, 1, k)),
        ("rank_accuracy", lambda k: attention.rank_accuracy(up32, inside, k)),
        ("iou_50", lambda k: attention.iou_at_half(up32, inside, k)),
    ):
        torch.testing.assert_close(columns[name][scored], score(seen)[scored], atol=8e-3, rtol=0)
        if name != "pointing_hit":
            assert (score(seen) - score(None))[scored].abs().max() > 0.012
    resampler = Resampler.between((32, 32), step.grid)
    ceiling = attention.share_ceiling(
        resampler.to_grid(masks * known), resampler.weight, resampler.to_grid(known)
    )
    expected = attention.kappa(share.float(), area, ceiling, least_room=attention.LEAST_ROOM)
    torch.testing.assert_close(
        columns["kappa_res"][scored], expected[scored], rtol=5e-3, atol=5e-3, equal_nan=True
    )
    histogram = step(
        images, labels, Masks(main=masks * known, unknown=unknown), given, index
    ).histogram
    assert histogram.sum() == int(scored.sum()) * int(known[0].sum())
    full = step(images, labels, Masks(main=known, unknown=unknown), given, index).columns
    assert {STATUSES[code] for code in full["status"].tolist()} <= {"full_mask", "zero_map"}
    nothing = step(
        images, labels, Masks(main=0 * masks, unknown=torch.ones_like(masks)), given, index
    ).columns
    assert {STATUSES[code] for code in nothing["status"].tolist()} <= {"empty_mask", "zero_map"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_evidence_by_channel_and_cell_is_that_of_the_scores(architecture: str) -> None:
    step, _ = make(architecture)
    images, labels, masks, given, index = batch(8)
    columns = run(step, images, labels, masks, given, index).columns
    assert columns["channel_logits"].shape == (8, 3, step.channels_of_features)
    by_channel = columns["channel_logits"].double() * columns["channel_logits_scale"][:, None, None]
    for place, name in enumerate(("object_logit", "near_logit", "far_logit")):
        bound = 2**-11 * columns["channel_logits_scale"] * step.channels_of_features
        assert ((by_channel[:, place].sum(dim=1) - columns[name]).abs() <= bound).all(), name
    positive = (columns["map"].double() * columns["map_scale"][:, None, None]).clamp_min(0)
    mass = positive * Resampler.between((32, 32), step.grid).weight
    share = (mass * columns["grid_mask"]).sum(dim=(1, 2)) / mass.sum(dim=(1, 2))
    scored = columns["status"] == OK
    assert scored.any()
    torch.testing.assert_close(
        share[scored], columns["object_share"][scored].double(), rtol=0, atol=2e-3
    )
    features = step.features(images)
    cells = regions(Resampler.between((32, 32), step.grid).to_grid(masks))[2]
    mean = (features * cells[:, None]).sum(dim=(2, 3)) / cells.sum(dim=(1, 2))[:, None]
    stored = columns["far_features"].float() * columns["far_features_scale"][:, None]
    torch.testing.assert_close(stored, mean, rtol=0, atol=6e-4 * float(mean.abs().max()))


def test_evidence_is_kept_for_a_share_of_the_samples_only() -> None:
    step, _ = make("cnn", evidence_share=0.5)
    columns = run(step, *batch(16)).columns
    kept = is_kept(torch.arange(16), 0.5)
    assert 3 < kept.sum() < 13
    for name in ("channel_logits", "channel_logits_scale", "far_features", "far_features_scale"):
        values = columns[name].flatten(1) if columns[name].dim() > 1 else columns[name][:, None]
        assert torch.equal(values.isnan().all(dim=1), ~kept), name
        assert torch.equal(values.isnan().any(dim=1), ~kept), name


def test_the_reason_is_where_the_predicted_class_comes_from() -> None:
    step, _ = make("cnn")
    images, labels, masks, given, index = batch(16)
    first = run(step, images, labels, masks, given, index).columns
    labels[:8] = first["predicted"][:8]
    labels[8:12] = first["background_pred"][8:12]
    labels[0] = -1
    given[0] = status_code("bad_label")
    given[1] = status_code("mask_missing")
    columns = run(step, images, labels, masks, given, index).columns
    unknown = columns["status"] <= status_code("zero_map")
    assert unknown[1]
    assert torch.equal(columns["reason"] < 0, unknown)
    for n in (~unknown).nonzero()[:, 0].tolist():
        obj, back, target, label = (
            int(columns[name][n]) if name in columns else int(labels[n])
            for name in ("object_pred", "background_pred", "target", "label")
        )
        names = {(True, False): 0, (False, True): 1, (True, True): 2, (False, False): 3}
        assert columns["reason"][n] == names[obj == target, back == target]
        wrong = int(columns["predicted"][n]) != label
        expected = [-1, -1, -1]
        if label >= 0:
            expected = [
                int(not wrong and back == label and obj != label),
                int(wrong and back == target and obj != target),
                int(back == label and obj != label),
            ]
        found = [
            int(columns[name][n])
            for name in ("right_for_wrong_reason", "wrong_because_of_background", "context_driven")
        ]
        assert found == expected
    assert (columns["context_driven"][0:2] == -1).all()
    assert (columns["context_driven"] == 1).any()


def test_transplants_need_a_mask_a_label_and_a_head_of_features_alone() -> None:
    step, _ = make("resnet20")
    images, labels, masks, given, index = batch(12)
    columns = run(step, images, labels, masks, given, index).columns
    assert (columns["transplant_objects"] == -1).all(), "no donors yet"
    assert columns["transplant_rate"].isnan().all()
    give_donors(step, images, labels, Masks(main=masks))
    labels[0] = -1
    given[0], given[1], given[2] = (
        status_code(s) for s in ("bad_label", "mask_missing", "unreadable")
    )
    columns = run(step, images, labels, masks, given, index).columns
    undefined = [True, True, True, *[False] * 9]
    for name in ("transplant_rate", "transplant_additive_rate"):
        assert columns[name].isnan().tolist() == undefined, name
    assert (columns["transplant_predictions"] < 0).all(dim=1).tolist() == undefined
    objects = columns["transplant_objects"]
    assert (objects < 0).all(dim=1).tolist() == [True, False, True, *[False] * 9]
    assert (objects[3:] != labels[3:, None]).all()
    hits = (columns["transplant_predictions"] == labels[:, None]).float().mean(dim=1)
    torch.testing.assert_close(columns["transplant_rate"][3:], hits[3:])
    flat, _ = make("cnn")
    give_donors(flat, images, labels.clamp_min(0), Masks(main=masks))
    columns = run(flat, images, labels, masks, given, index).columns
    assert columns["transplant_additive_rate"].isnan().all()
    assert not columns["transplant_rate"][3:].isnan().any()
