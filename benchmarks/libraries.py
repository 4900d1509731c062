"""Other libraries' heatmaps, as a good user of theirs would ask for them.

Each is used in three ways: as its manual shows; on the faster network, with batch norms folded and
channels_last, as far as its hooks allow; and beside that with gradients from the target layer on
only, which none of the manuals tells of: everything before is frozen, and captum explains the
highest logit, whichever class it is of.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.bare import folded
from benchmarks.scoring import Scores, score, upsampled
from benchmarks.subjects import Subject, normalised

MANUAL, FASTER, FROZEN = "by the manual", "faster network", "faster network, frozen"
WAYS = (MANUAL, FASTER, FROZEN)
# Normalised images to maps (of the grid or the image) and predicted classes.
Explain = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures, uint8 N×3×H×W, with the masks that they are scored under, N×H×W."""

    images: Tensor
    masks: Tensor


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another library.

    Attributes:
        name: Of the library and the way of using it.
        explain: Makes maps.
        last: Whether it is fed in channels_last.
        stretched: Whether each of its maps is stretched from 0 to 1.
    """

    name: str
    explain: Explain
    last: bool = False
    stretched: bool = False

    def maps(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Maps in the size of the image, and predictions."""
        images = normalised(batch.images)
        if self.last:
            images = images.contiguous(memory_format=torch.channels_last)
        maps, predicted = self.explain(images)
        size = (images.shape[2], images.shape[3])
        heat = maps if tuple(maps.shape[1:]) == size else upsampled(maps, size)
        return heat.to(images.device), predicted

    def score(self, batch: Batch) -> Scores:
        """Predictions and scores on the host."""
        heat, predicted = self.maps(batch)
        return {**score(heat, batch.masks), "predicted": predicted.cpu().numpy()}


def peers_of(subject: Subject, model: nn.Module, device: str) -> list[Peer]:
    """Every library, used in every way.

    Args:
        subject: Says which layer to explain.
        model: In evaluation mode; is left as it is.
        device: Where to compute.
    """
    return [
        Peer(
            name=f"{name}, {way}",
            explain=make(_network(model, way, device), subject),
            last=way != MANUAL,
            stretched=make is pytorch_gradcam,
        )
        for way in WAYS
        for name, make in _MAKERS.items()
    ]


def _network(model: nn.Module, way: str, device: str) -> nn.Module:
    if way == MANUAL:
        return copy.deepcopy(model).to(device).requires_grad_(True)
    faster = folded(model).to(device).to(memory_format=torch.channels_last)
    return faster.requires_grad_(way == FASTER)


def torchcam_cam(model: nn.Module, subject: Subject) -> Explain:
    """torch-cam's CAM: no gradients at all."""
    from torchcam.methods import CAM

    maker = CAM(model, subject.layer, subject.fc)

    def explain(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            predicted = model(images).argmax(dim=1)
            return maker(predicted.tolist(), normalized=False)[0], predicted

    return explain


def torchcam_gradcam(model: nn.Module, subject: Subject) -> Explain:
    """torch-cam's Grad-CAM."""
    from torchcam.methods import GradCAM

    _open_to_gradients(model, subject)
    maker = GradCAM(model, subject.layer)

    def explain(images: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(images)
        predicted = logits.argmax(dim=1)
        return maker(predicted.tolist(), logits, normalized=False)[0].detach(), predicted

    return explain


def captum_gradcam(model: nn.Module, subject: Subject) -> Explain:
    """LayerGradCam of captum; in a frozen network without the pass that finds the class."""
    from captum.attr import LayerGradCam

    once = not _has_gradients(model)
    answers: list[Tensor] = []

    def highest(images: Tensor) -> Tensor:
        top = model(images).max(dim=1)
        answers[:] = [top.indices]
        return top.values

    layer = model.get_submodule(str(subject.layer))
    maker = LayerGradCam(highest if once else model, layer)

    def explain(images: Tensor) -> tuple[Tensor, Tensor]:
        if once:
            maps = maker.attribute(images, relu_attributions=True)
            return maps.detach()[:, 0], answers[0]
        with torch.no_grad():
            predicted = model(images).argmax(dim=1)
        maps = maker.attribute(images, target=predicted, relu_attributions=True)
        return maps.detach()[:, 0], predicted

    return explain


def pytorch_gradcam(model: nn.Module, subject: Subject) -> Explain:
    """pytorch-grad-cam's GradCAM; it finds the predicted class and enlarges its maps by itself."""
    from pytorch_grad_cam import GradCAM

    _open_to_gradients(model, subject)
    maker = GradCAM(model=model, target_layers=[model.get_submodule(str(subject.layer))])

    def explain(images: Tensor) -> tuple[Tensor, Tensor]:
        maps = maker(input_tensor=images, targets=None)
        return torch.from_numpy(maps), maker.outputs.detach().argmax(dim=1)

    return explain


def _open_to_gradients(model: nn.Module, subject: Subject) -> None:
    """In a frozen network, let them flow back to the target layer's last parameter, no further."""
    if not _has_gradients(model):
        *_, last = model.get_submodule(str(subject.layer)).parameters()
        last.requires_grad_(True)


def _has_gradients(model: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in model.parameters())


_MAKERS: dict[str, Callable[[nn.Module, Subject], Explain]] = {
    "torch-cam CAM": torchcam_cam,
    "torch-cam Grad-CAM": torchcam_gradcam,
    "captum": captum_gradcam,
    "pytorch-grad-cam": pytorch_gradcam,
}
