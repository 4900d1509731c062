"""From images to logits and to the maps of one or several methods."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from audit import cam
from audit.cam import Method
from audit.config import AuditConfig
from audit.errors import UsageError
from audit.inference import FastBackbone
from audit.inference.moving import move_graphs
from audit.models import Classifier, Cut
from audit.models.layout import Layout

Smooth = Literal["none", "flip", "flip+intensity"]
_INTENSITIES = (1.0, 0.9, 1.1)
_LEAST_BATCH = 8

GRADIENT_METHODS: dict[Method, Callable[[Tensor, Tensor], Tensor]] = {
    "hirescam": cam.hirescam,
    "gradcam": cam.gradcam,
    "gradcam++": cam.gradcam_plus_plus,
    "xgradcam": cam.xgradcam,
    "layercam": cam.layercam,
}
# Methods that give the same map, but for a factor, where the gradient is alike in all cells.
_SUMS_OF_WEIGHTS: tuple[Method, ...] = ("cam", "hirescam", "gradcam")
# Methods whose map is the same for every class.
CLASS_AGNOSTIC: tuple[Method, ...] = ("eigencam", "channels")


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What one pass over a batch gives.

    Attributes:
        logits: N×K.
        targets: The classes explained, int64 N×T.
        pixels: The pictures, uint8, N×3×H×W.
        features: ``A`` of the target layer, N×C×h×w.
        rest: What the head reads beside them.
        maps: For each method its signed maps, N×T×h×w.
        evidence: Gradients of the logits at the target layer, where they were asked for.
    """

    logits: Tensor
    targets: Tensor
    pixels: Tensor
    features: Tensor
    rest: tuple[Tensor, ...]
    maps: dict[Method, Tensor]
    evidence: Gradients | None = None


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Gradients of logits at the target layer, N×C×h×w each.

    Attributes:
        targets: Of the logits of the T classes explained.
        mean: Of the mean logit.
    """

    targets: tuple[Tensor, ...]
    mean: Tensor


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """A forward pass whose tail can be differentiated."""

    pixels: Tensor
    live: Tensor
    leaves: tuple[Tensor, ...]
    rest: tuple[Tensor, ...]
    # Of the leaves, where they are not features N×C×h×w already.
    layouts: tuple[Layout | None, ...] = (None,)

    def features(self, layer: int) -> Tensor:
        """Of one of the layers, N×C×h×w."""
        return self.as_features(self.leaves[layer].detach(), layer)

    def as_features(self, activation: Tensor, layer: int) -> Tensor:
        """An activation, or its gradient, as N×C×h×w."""
        layout = self.layouts[layer]
        return activation if layout is None else layout.split(activation)[0]


class Explainer(nn.Module):
    """Explains the predictions of a classifier.

    Args:
        parts: The classifier, cut at its target layer.
        mean: Of the normalisation, for values in [0, 1].
        std: Likewise.
        methods: How maps are made; several share the forward pass.
        smooth: Average the maps of the image and of changed copies: mirrored; also darker and
            brighter by a tenth.
        channels: How many of the most active channels the method ``channels`` averages.
        fast: Makes features where one layer is explained; without it the backbone is computed as
            it is.
        fast_head: Computes what the head does, where nothing is differentiated; without it the
            head itself.

    Raises:
        UsageError: If a method does not fit the classifier.

    Example:
        >>> from audit.models import build, cut
        >>> explainer = Explainer(cut(build("cnn", 10), (32, 32)), mean=(0, 0, 0), std=(1, 1, 1))
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> explanation = explainer(images, lambda logits: logits.argsort(dim=1)[:, -2:])
        >>> explanation.maps["hirescam"].shape
        torch.Size([2, 2, 8, 8])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        parts: Cut,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        methods: Sequence[Method] = ("hirescam",),
        smooth: Smooth = "none",
        channels: int = 3,
        fast: FastBackbone | None = None,
        fast_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _refuse_unfit(parts, methods)
        self.parts = parts
        # In tuples, and so no parts of this module: they have weights of their own.
        self._fast = (fast,)
        self._fast_head = (fast_head,)
        self.methods = tuple(methods)
        self.backbone = parts.backbone
        self.head = parts.head
        for name, values in (("mean", mean), ("std", std)):
            scaled = 255 * torch.tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, scaled)
        self.channels = min(channels, parts.channels)
        grids = parts.fused.grids if parts.fused is not None else (parts.grid,)
        # Maps of several layers are averaged on the finest grid.
        self.map_grid = max(grids, key=lambda grid: grid[0] * grid[1])
        self._smooth = smooth

    def to_device(self, device: torch.device) -> None:
        """Move the network, and what was computed of it beside it."""
        self.to(device)
        move_graphs(self, device)
        (fast,) = self._fast
        if fast is not None:
            fast.to_device(device)
        (fast_head,) = self._fast_head
        if fast_head is not None:
            fast_head.to(device)
            move_graphs(fast_head, device)
        linear = self.parts.linear
        biases = {name: tangent.to(device) for name, tangent in self.parts.biases.items()}
        moved = linear.to(device) if linear is not None else None
        self.parts = replace(self.parts, linear=moved, biases=biases)
        if self.parts.fused is not None:
            for half in (self.parts.fused.front, self.parts.fused.tail):
                half.to(device)
                move_graphs(half, device)

    def normalised(self, images: Tensor) -> Tensor:
        """What the network is fed with for uint8 images."""
        return (images.float() - self.mean) / self.std

    def as_it_is(self) -> Explainer:
        """The same network, whose features are computed without shortcuts."""
        other = copy.copy(self)
        other._fast, other._fast_head = (None,), (None,)
        return other

    @property
    def lean_head(self) -> nn.Module:
        """The head, on a CPU with products as fast as it has them."""
        return self._fast_head[0] or self.head

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Features of pictures, and what else the head reads.

        Args:
            pixels: Grey levels, uint8 or float, N×3×H×W.
        """
        (fast,) = self._fast
        if fast is not None:
            return fast(pixels)
        found: tuple[Tensor, ...] = self.backbone(self.normalised(pixels))
        return found

    def features(self, pixels: Tensor) -> Tensor:
        """Features of pictures at the target layer, N×C×h×w."""
        return self.encode(pixels)[0]

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> Tensor:
        """Logits of pictures: grey levels, uint8 or float, N×3×H×W."""
        logits: Tensor = self.lean_head(*self.encode(pixels))
        return logits

    def network(self, images: Tensor) -> Tensor:
        """Logits of normalised images, by the network as it is."""
        logits: Tensor = self.head(*self.backbone(images))
        return logits

    @torch.no_grad()
    def forward(
        self, images: Tensor, choose: Callable[[Tensor], Tensor], *, evidence: bool = False
    ) -> Explanation:
        """Explain a batch.

        Args:
            images: uint8, N×3×H×W.
            choose: Gives the classes to explain, int64 N×T, for logits N×K.
            evidence: Whether gradients are wanted too.

        Returns:
            Logits and maps.
        """
        plain = self._run(images)
        logits = plain.live.detach()
        targets = choose(logits)
        gradients: list[tuple[Tensor, ...]] = []
        if evidence or self._needs_gradients:
            gradients = self._gradients(plain, targets)
        maps = self._maps(plain, targets, gradients)
        for copies, (changed, undo) in enumerate(self._changed(images), start=1):
            other = self._run(changed)
            own = self._gradients(other, targets) if self._needs_gradients else []
            more = self._maps(other, targets, own)
            for name in maps:
                # A running mean, so that no more than two copies' maps are held.
                maps[name] = maps[name] + (undo(more[name]) - maps[name]) / (copies + 1)
        return Explanation(
            logits=logits,
            targets=targets,
            pixels=images,
            features=plain.features(-1),
            rest=plain.rest,
            maps=maps,
            evidence=self._evidence(plain, gradients) if evidence else None,
        )

    def _changed(self, images: Tensor) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
        if self._smooth == "none":
            return
        factors = _INTENSITIES if self._smooth == "flip+intensity" else (1.0,)
        for factor in factors:
            lit = (images.float() * factor).clamp(max=255) if factor != 1 else images
            if factor != 1:
                yield lit, _same
            yield lit.flip(3), _mirrored

    def _run(self, pixels: Tensor) -> _Pass:
        fused = self.parts.fused
        if fused is None:
            features, *rest = self.encode(pixels)
            if self._closed_form:
                live = self.lean_head(features)
                return _Pass(pixels=pixels, live=live, leaves=(features,), rest=())
            leaf = features.detach().requires_grad_()
            with torch.enable_grad():
                live = self.lean_head(leaf, *rest)
            return _Pass(pixels=pixels, live=live, leaves=(leaf,), rest=tuple(rest))
        features, *before = fused.front(self.normalised(pixels))
        leaf = features.detach().requires_grad_()
        with torch.enable_grad():
            *later, live = fused.tail(leaf, *before)
        last = fused.layouts[-1].split(later[-1].detach())[1]
        return _Pass(
            pixels=pixels,
            live=live,
            leaves=(leaf, *later),
            layouts=(None, *fused.layouts[1:]),
            rest=() if last is None else (last,),
        )

    def _maps(
        self, one: _Pass, targets: Tensor, gradients: list[tuple[Tensor, ...]]
    ) -> dict[Method, Tensor]:
        return {
            method: self._averaged(
                [
                    self._one_layer(method, one, layer, targets, gradients)
                    for layer in range(len(one.leaves))
                ]
            )
            for method in self.methods
        }

    @property
    def _closed_form(self) -> bool:
        """Whether the head is pooling and a linear map, whose gradient is the map's weight."""
        return self.parts.linear is not None and self.parts.fused is None

    @property
    def _needs_gradients(self) -> bool:
        known = _SUMS_OF_WEIGHTS if self._closed_form else ()
        return any(m in GRADIENT_METHODS and m not in known for m in self.methods)

    def _gradients(self, one: _Pass, targets: Tensor) -> list[tuple[Tensor, ...]]:
        """For each column of classes, the gradient of each sample's logit at each layer."""
        first, *others = targets.unbind(dim=1)
        known = self._gradient(one, first)
        return [known, *(self._changed_gradient(one, first, other, known) for other in others)]

    def _gradient(self, one: _Pass, target: Tensor) -> tuple[Tensor, ...]:
        if self._closed_form:
            assert self.parts.linear is not None
            features = one.leaves[0]
            cells = features.shape[2] * features.shape[3]
            weight = self.parts.linear[target] / cells
            return (weight[:, :, None, None].expand_as(features),)
        with torch.enable_grad():
            chosen = one.live.gather(1, target[:, None]).sum()
        found = torch.autograd.grad(chosen, one.leaves, retain_graph=True)
        return tuple(one.as_features(gradient, layer) for layer, gradient in enumerate(found))

    def _changed_gradient(
        self, one: _Pass, before: Tensor, target: Tensor, known: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The gradient for other classes, which differ from those before for few samples."""
        if self._closed_form or self.parts.fused is not None or target.device.type != "cpu":
            return self._gradient(one, target)
        rows = (target != before).nonzero()[:, 0]
        if not len(rows) or 2 * len(rows) > len(target):
            return self._gradient(one, target) if len(rows) else known
        # Libraries compute a batch of one by other routines, which differ in the fifth digit.
        filled = rows.repeat(-(-_LEAST_BATCH // len(rows)))
        leaf = one.leaves[0].detach()[filled].requires_grad_()
        with torch.enable_grad():
            live = self.lean_head(leaf, *(part[filled] for part in one.rest))
            chosen = live.gather(1, target[filled][:, None]).sum()
        (found,) = torch.autograd.grad(chosen, leaf)
        gradient = known[0].clone()
        gradient[rows] = found[: len(rows)]
        return (gradient,)

    def _evidence(self, one: _Pass, gradients: list[tuple[Tensor, ...]]) -> Gradients:
        with torch.enable_grad():
            mean = one.live.mean(dim=1).sum()
        (found,) = torch.autograd.grad(mean, one.leaves[-1], retain_graph=True)
        last = len(one.leaves) - 1
        return Gradients(
            targets=tuple(each[last] for each in gradients), mean=one.as_features(found, last)
        )

    def _one_layer(
        self,
        method: Method,
        one: _Pass,
        layer: int,
        targets: Tensor,
        gradients: list[tuple[Tensor, ...]],
    ) -> Tensor:
        features = one.features(layer)
        if self._closed_form and method in _SUMS_OF_WEIGHTS:
            assert self.parts.linear is not None
            maps = cam.weighted(features, self.parts.linear[targets])
            return maps if method == "cam" else maps / (features.shape[2] * features.shape[3])
        if method in GRADIENT_METHODS:
            explain = GRADIENT_METHODS[method]
            return torch.stack([explain(features, g[layer]) for g in gradients], dim=1)
        if method == "scorecam":
            return cam.scorecam(self.network, self.normalised(one.pixels), features, targets)
        if method == "ablationcam":
            logits = one.live.detach()
            return cam.ablationcam(self.head, features, logits, targets, rest=one.rest)
        if method == "eigencam":
            same = cam.eigencam(features)
        else:
            same = cam.top_channels(features, min(self.channels, features.shape[1]))[1].mean(dim=1)
        return same[:, None].expand(-1, targets.shape[1], -1, -1)

    def _averaged(self, maps: list[Tensor]) -> Tensor:
        """The mean over layers, each scaled to the same positive mass, on the finest grid."""
        if len(maps) == 1:
            return maps[0].contiguous()
        total = torch.zeros_like(maps[0])
        for found in maps:
            large = nn.functional.interpolate(
                found, size=self.map_grid, mode="bilinear", align_corners=False
            )
            mass = large.clamp_min(0).sum(dim=(2, 3), keepdim=True)
            scaled = torch.where(mass > 0, large / mass, torch.zeros_like(large))
            total = scaled if found is maps[0] else total + scaled
        return total / len(maps)


def explainer_of(
    config: AuditConfig,
    classifier: Classifier,
    parts: Cut,
    fast: FastBackbone | None = None,
    fast_head: nn.Module | None = None,
) -> Explainer:
    """An explainer as the settings want it.

    Args:
        config: The settings.
        classifier: Says how its images are normalised.
        parts: The classifier, cut at its target layer.
        fast: Makes its features.
        fast_head: Computes what its head does.
    """
    return Explainer(
        parts,
        mean=classifier.mean,
        std=classifier.std,
        methods=config.method,
        smooth=config.smooth,
        channels=config.channels,
        fast=fast,
        fast_head=fast_head,
    )


def _same(maps: Tensor) -> Tensor:
    return maps


def _mirrored(maps: Tensor) -> Tensor:
    return maps.flip(3)


def _refuse_unfit(parts: Cut, methods: Sequence[Method]) -> None:
    unknown = [method for method in methods if method not in cam.METHODS]
    if unknown or not methods:
        raise UsageError(
            f"there is no method '{', '.join(unknown)}'", expected=" | ".join(cam.METHODS)
        )
    if "cam" in methods and parts.linear is None:
        raise UsageError(
            f"the method cam does not fit the head after '{parts.layer}'",
            expected="global average pooling and one linear layer after the target layer",
            found="another head",
            remedy="use --method hirescam, which equals cam where cam applies",
        )
    single = [m for m in ("cam", "ablationcam") if m in methods]
    if parts.fused is not None and single:
        raise UsageError(
            f"the method {single[0]} explains one layer",
            found=f"several: {parts.layer}",
            remedy="name one --target-layer, or another --method",
        )
