"""One batch through model, CAM and score, without leaving the device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from audit.cam import Method, top_channels
from audit.explaining import Explainer, Explanation
from audit.score import attention
from audit.score.contributions import load_forward_mode, regions
from audit.score.faithfulness import Faithfulness, faithfulness
from audit.score.masks import CellMasker, CellMasks, Masks
from audit.score.pooled import PooledDonors, PooledHead
from audit.score.positions import is_kept
from audit.score.prediction import predict
from audit.score.properties import image_properties
from audit.score.transplant import Donors, Transplants, choose_donors, takes_channels_last
from audit.step.columns import (
    contribution_columns,
    has_one_side,
    mask_columns,
    overlap_of,
    prediction_columns,
    range_of,
    reason_columns,
    scaled,
    transplant_columns,
)
from audit.step.statuses import (
    CODE,
    REGION_LOGITS,
    blank,
    blank_family,
    blank_method,
    settle_status,
)
from audit.step.supply import Supply, Transplanting, general_supply, pooled_supply

Target = Literal["predicted", "label"]

# Smaller batches are filled up to this size.
_LEAST_BATCH = 8
# Of the masks on the grid (main, eroded, dilated, further families), the first of another family.
_FIRST_FAMILY = 3


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What a batch gives.

    Attributes:
        columns: One tensor a column, N rows each; NaN (floats) or -1 (integers) where undefined.
        histogram: int64, 2×256: see :func:`audit.score.attention.pixel_histogram`.
    """

    columns: dict[str, Tensor]
    histogram: Tensor


class AuditStep(nn.Module):
    """The fused step.

    Args:
        explainer: The classifier and how its maps are made. Its first method fills the columns
            without a prefix; each other one its own, see :func:`prefix_of`.
        image_size: H and W.
        target: The class that the main map explains. The other of the predicted and the labelled
            class fills the ``alt_`` columns where the two differ.
        partners: Transplants a sample.
        faithful: Score every map's faithfulness too, for some forty passes a method.
        evidence_share: Of the samples, the share whose evidence by channel is kept, in [0, 1];
            which ones follows from their positions.
    """

    def __init__(
        self,
        explainer: Explainer,
        *,
        image_size: tuple[int, int],
        target: Target = "predicted",
        partners: int = 4,
        faithful: bool = False,
        evidence_share: float = 1.0,
    ) -> None:
        super().__init__()
        if explainer.parts.linear is None:
            load_forward_mode()
        self.explainer = explainer
        self.image_size = image_size
        self.grid = explainer.parts.grid
        self.channels_of_features = explainer.parts.channels
        self.evidence_share = evidence_share
        self.donors: Donors | None = None
        self._pooled: PooledHead | None = None
        self._pooled_donors: PooledDonors | None = None
        self._target = target
        self._partners = partners
        self._faithful = faithful
        self._place_operators(torch.device("cpu"))

    def to_device(self, device: torch.device) -> AuditStep:
        """Move the network and the operators."""
        self.to(device)
        self.explainer.to_device(device)
        self._place_operators(device)
        return self

    def _place_operators(self, device: torch.device) -> None:
        self._masker = CellMasker(self.image_size, self.grid, device)
        parts = self.explainer.parts
        if parts.linear is not None:
            shape = (parts.channels, *parts.grid)
            self._pooled = PooledHead.of(self.explainer.head, parts.linear, shape)
        same = self.grid == self.explainer.map_grid
        self._map_masker = (
            self._masker if same else CellMasker(self.image_size, self.explainer.map_grid, device)
        )

    def features(self, images: Tensor) -> Tensor:
        """Features of uint8 images, N×C×h×w."""
        return self.explainer.features(images)

    def donor_masks(self, masks: Masks) -> tuple[Tensor, Tensor]:
        """What donors of transplants need of their masks.

        Args:
            masks: Of samples whose main masks have an object and a background.

        Returns:
            The masks of every family on the feature grid, F×N×h×w, the main one first; and which
            of them have an object and a background, bool F×N.
        """
        cells = _of_families(self._masker(masks).object.transpose(0, 1))
        valid = [torch.ones_like(cells[0, :, 0, 0]) > 0]
        for family in masks.others.values():
            fine = ~has_one_side(family, masks.unknown)
            valid.append(fine if family.valid is None else fine & family.valid)
        return cells, torch.stack(valid)

    def take_donors(
        self, features: Tensor, grid_masks: Tensor, labels: Tensor, classes: int, valid: Tensor
    ) -> None:
        """Transplant these objects from now on.

        Args:
            features: From :meth:`features`, D×C×h×w.
            grid_masks: From :meth:`donor_masks`, F×D×h×w.
            labels: int64, D.
            classes: K.
            valid: From :meth:`donor_masks`, F×D.
        """
        donors = Donors.of(
            features,
            grid_masks,
            labels,
            classes,
            valid=valid,
            linear=self.explainer.parts.linear,
            channels_last=takes_channels_last(self.explainer.lean_head, features[:2]),
        )
        self.donors = donors
        if self._pooled is not None:
            self._pooled_donors = PooledDonors.of(donors, self._pooled)

    @torch.no_grad()
    def forward(
        self, images: Tensor, labels: Tensor, masks: Masks, given: Tensor, index: Tensor
    ) -> StepOutput:
        """Score a batch.

        Args:
            images: uint8, N×3×H×W.
            labels: int64, N; -1 where unknown.
            masks: Object masks; anything where ``given`` says there is none. Every family beside
                the main one fills the columns of :data:`FAMILY_SCORES` behind its name.
            given: What is known before: codes into :data:`STATUSES`, N.
            index: Positions in the split, N.

        Returns:
            The columns of the rows.
        """
        count = len(images)
        if count >= _LEAST_BATCH:
            return self._score(images, labels, masks, given, index)
        # Libraries compute a batch of one by other routines, which differ in the fifth digit.
        again = torch.arange(_LEAST_BATCH, device=images.device) % count
        given = given[again]
        given[count:] = CODE["unreadable"]
        output = self._score(images[again], labels[again], masks.take(again), given, index[again])
        columns = {name: values[:count] for name, values in output.columns.items()}
        return StepOutput(columns=columns, histogram=output.histogram)

    def _score(
        self, images: Tensor, labels: Tensor, masks: Masks, given: Tensor, index: Tensor
    ) -> StepOutput:
        found = self.explainer(
            images,
            lambda logits: self._targets(logits, labels),
            evidence=self._pooled is None,
        )
        prediction = predict(found.logits, labels)
        first, second = found.targets.unbind(dim=1)
        alt = torch.where(first != second, second, -1)
        main, *others = self.explainer.methods
        maps = found.maps[main]
        status = settle_status(given, found.logits, maps[:, 0], masks)
        cells = self._masker(masks)
        map_cells = cells if self._map_masker is self._masker else self._map_masker(masks)
        columns: dict[str, Tensor] = {"status": status, "target": first, "alt_target": alt}
        columns |= prediction_columns(prediction, labels)
        weights = regions(cells.object, cells.unknown)  # 3 (or 4)×N×V×h×w
        supply = self._supply(found, weights, labels, alt, index)
        supplied = (weights[:3].flatten(3) @ supply.by_cell.flatten(1)[:, :, None])[..., 0]  # 3×N×V
        columns |= self._channel_columns(found.features, supply.activity)
        columns |= contribution_columns(supply.regions, found.logits, first)
        columns |= _moved_border(columns, supplied)
        columns |= reason_columns(columns, labels)
        columns |= self._evidence_columns(supply, index)
        carried = supply.carried
        columns |= transplant_columns(carried)
        columns |= mask_columns(masks)
        columns["grid_mask"] = map_cells.object[:, 0].half()
        columns |= image_properties(images, status != CODE["unreadable"])
        blank(columns, status, alt)

        upsampled = self._map_masker.to_image(maps[:, 0].clamp_min(0))
        columns |= self._method_columns(found, main, upsampled, masks, map_cells, status, alt)
        for method in others:
            large = self._map_masker.to_image(found.maps[method][:, 0].clamp_min(0))
            own = self._method_columns(found, method, large, masks, map_cells, status, alt)
            columns |= {prefix_of(method) + name: values for name, values in own.items()}
        columns |= self._family_columns(found, masks, map_cells, supplied, carried, status)
        usable = (status == CODE["ok"]) | (status == CODE["bad_label"])
        histogram = attention.pixel_histogram(upsampled, masks.indicator, usable, masks.known)
        return StepOutput(columns=columns, histogram=histogram)

    def _targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The class of the main map, and the other of predicted and labelled class."""
        predicted = logits.argmax(dim=1)
        labelled = torch.where(labels >= 0, labels, predicted)
        order = [predicted, labelled] if self._target == "predicted" else [labelled, predicted]
        return torch.stack(order, dim=1)

    def _supply(
        self, found: Explanation, weights: Tensor, labels: Tensor, alt: Tensor, index: Tensor
    ) -> Supply:
        """What regions and transplants supply, under masks 3 (or 4)×N×V×h×w."""
        of_families = _of_families(weights.permute(2, 0, 1, 3, 4)).transpose(0, 1)  # …×F×N×h×w
        transplanting = None
        # What the head reads beside the features cannot be transplanted with them.
        if self.donors is not None and not found.rest:
            transplanting = Transplanting(
                donors=self.donors,
                supplied=self._pooled_donors,
                chosen=choose_donors(index, labels, self.donors, self._partners),
            )
        if self._pooled is not None:
            return pooled_supply(
                self._pooled, found, of_families, labels, alt, transplanting, self._partners
            )
        return general_supply(
            self.explainer, found, of_families, labels, transplanting, self._partners
        )

    def _evidence_columns(self, supply: Supply, index: Tensor) -> dict[str, Tensor]:
        """What each channel supplies, of the samples for which that is kept."""
        kept = is_kept(index, self.evidence_share)
        supplied = torch.where(kept[:, None, None], supply.by_channel, torch.nan)
        seen = torch.where(kept[:, None], supply.far_features, torch.nan)
        return {**scaled("channel_logits", supplied), **scaled("far_features", seen)}

    def _family_columns(
        self,
        found: Explanation,
        masks: Masks,
        map_cells: CellMasks,
        supplied: Tensor,
        carried: Transplants,
        status: Tensor,
    ) -> dict[str, Tensor]:
        """The main scores under masks from elsewhere, blank where those are undefined."""
        if not masks.others:
            return {}
        maps = found.maps[self.explainer.methods[0]][:, 0]
        areas, shares = map_cells.areas(), map_cells.shares(maps.clamp_min(0))
        no_map = (maps.amax(dim=(1, 2)) <= 0) | (status <= CODE["nonfinite"])
        columns: dict[str, Tensor] = {}
        for number, (name, family) in enumerate(masks.others.items()):
            place = _FIRST_FAMILY + number
            own = {
                "object_area": areas[:, place],
                "mask_iou": overlap_of(masks, family),
                "background_share": 1 - shares[:, place],
                "kappa": attention.kappa(shares[:, place], areas[:, place]),
                **dict(zip(REGION_LOGITS, supplied[:, :, place], strict=True)),
                "transplant_rate": carried.rate[1 + number],
                "transplant_predictions": carried.predictions[1 + number],
            }
            blank_family(
                own,
                status,
                valid=family.valid,
                one_sided=has_one_side(family, masks.unknown),
                no_map=no_map,
            )
            columns |= {f"{name}_{score}": values for score, values in own.items()}
        return columns

    def _method_columns(
        self,
        found: Explanation,
        method: Method,
        upsampled: Tensor,
        masks: Masks,
        cells: CellMasks,
        status: Tensor,
        alt: Tensor,
    ) -> dict[str, Tensor]:
        """What one method's maps give, blank where it is undefined."""
        maps, alt_maps = found.maps[method].unbind(dim=1)
        columns = {**scaled("map", maps), **scaled("alt_map", alt_maps)}
        columns |= self._attention_columns(maps, upsampled, masks, cells)
        columns["alt_background_share"] = 1 - cells.shares(alt_maps.clamp_min(0))[:, 0]
        if self._faithful:
            images = self.explainer.normalised(found.pixels)
            scores = faithfulness(self.explainer.network, images, upsampled, found.targets[:, 0])
            columns |= {field.name: getattr(scores, field.name) for field in fields(Faithfulness)}
        blank_method(columns, status, alt, maps)
        return columns

    def _channel_columns(self, features: Tensor, activity: Tensor | None) -> dict[str, Tensor]:
        numbers, own = top_channels(features, self.explainer.channels, activity)
        if own.shape[2:] != self.explainer.map_grid:
            own = nn.functional.interpolate(
                own, size=self.explainer.map_grid, mode="bilinear", align_corners=False
            )
        return {"top_channels": numbers, **scaled("channel_maps", own)}

    def _attention_columns(
        self, maps: Tensor, upsampled: Tensor, masks: Masks, cells: CellMasks
    ) -> dict[str, Tensor]:
        positive, inside, known = maps.clamp_min(0), masks.indicator, masks.known
        # The mask as it is, eroded and dilated.
        shares, areas = cells.shares(positive)[:, :3], cells.areas()[:, :3]
        share, area = shares[:, 0], masks.area
        background = 1 - shares
        kappas = attention.kappa(shares, areas)
        kappas[:, 0] = attention.kappa(share, area)
        known_cells = None if cells.unknown is None else cells.known[:, 0]
        ceiling = attention.share_ceiling(cells.object[:, 0], cells.weight, known_cells)
        tolerance = attention.pointing_tolerance(min(self.image_size))
        entropy, effective = attention.focus(positive)
        return {
            "object_share": share,
            "background_share": background[:, 0],
            **range_of("background_share", background),
            "background_lift": attention.background_lift(share, area),
            "kappa": kappas[:, 0],
            **range_of("kappa", kappas),
            "kappa_res": attention.kappa(share, area, ceiling, least_room=attention.LEAST_ROOM),
            "pointing_hit": attention.pointing_hit(upsampled, inside, tolerance, known),
            "rank_accuracy": attention.rank_accuracy(upsampled, inside, known),
            "iou_50": attention.iou_at_half(upsampled, inside, known),
            "focus_entropy": entropy,
            "effective_cells": effective,
        }


def _of_families(by_mask: Tensor) -> Tensor:
    """Of V masks those that are a family's own, V×… to F×…: without eroded and dilated ones."""
    return torch.cat([by_mask[:1], by_mask[_FIRST_FAMILY:]])


def _moved_border(columns: dict[str, Tensor], supplied: Tensor) -> dict[str, Tensor]:
    """The range of the regions' contributions over the main mask and its moved borders."""
    ends: dict[str, Tensor] = {}
    for name, values in zip(REGION_LOGITS, supplied[:, :, :_FIRST_FAMILY], strict=True):
        every = torch.cat([columns[name][:, None], values], dim=1)
        ends |= {f"{name}_low": every.amin(dim=1), f"{name}_high": every.amax(dim=1)}
    return ends


def prefix_of(method: Method) -> str:
    """What stands before the columns of a method that is not the first.

    Example:
        >>> prefix_of("gradcam++")
        'gradcampp_'
    """
    return method.replace("+", "p") + "_"
