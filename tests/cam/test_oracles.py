"""The same maps as the libraries give, where those are right."""

from __future__ import annotations

import captum.attr
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from audit.cam import cam, gradcam, hirescam
from audit.models import cut
from tests.conftest import ARCHITECTURES, random_model

LAYERS = {"cnn": "features.2.2", "cnn-se": "features.2.3", "resnet20": "layer3"}


@pytest.fixture(params=ARCHITECTURES)
def case(
    request: pytest.FixtureRequest,
) -> tuple[nn.Module, nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """Model, target layer, images, targets, and the features and gradients that we get."""
    model = random_model(request.param)
    torch.manual_seed(1)
    images, targets = torch.randn(6, 3, 32, 32), torch.randint(0, 10, (6,))
    parts = cut(model, (32, 32))
    features = parts.backbone(images).requires_grad_()
    logits = parts.head(features)
    (gradients,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), features)
    layer = model.get_submodule(LAYERS[request.param])
    return model, layer, images, targets, features.detach(), gradients


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * float(ours.abs().max()))


def raw_map(kind: type, case: tuple) -> Tensor:  # type: ignore[type-arg]
    """pytorch-grad-cam's map before it enlarges and normalises."""
    model, layer, images, targets, *_ = case
    with kind(model=model, target_layers=[layer]) as method:
        chosen = [ClassifierOutputTarget(int(k)) for k in targets]
        method(input_tensor=images.clone().requires_grad_(), targets=chosen)
        seen = method.activations_and_grads
        activations, gradients = seen.activations[0].numpy(), seen.gradients[0].numpy()
        found = method.get_cam_image(images, layer, chosen, activations, gradients, False)
    return torch.from_numpy(found)


def test_gradcam_equals_pytorch_grad_cam(case: tuple) -> None:  # type: ignore[type-arg]
    close(gradcam(case[4], case[5]), raw_map(pytorch_grad_cam.GradCAM, case))


def test_hirescam_equals_pytorch_grad_cam(case: tuple) -> None:  # type: ignore[type-arg]
    close(hirescam(case[4], case[5]), raw_map(pytorch_grad_cam.HiResCAM, case))


def test_gradcam_equals_torchcam(case: tuple) -> None:  # type: ignore[type-arg]
    model, layer, images, targets, features, gradients = case
    with torchcam.methods.GradCAM(model, target_layer=layer) as method:
        scores = model(images.clone().requires_grad_())
        (theirs,) = method(targets.tolist(), scores, normalized=False)
    close(gradcam(features, gradients).clamp_min(0), theirs.detach())


def test_gradcam_equals_captum(case: tuple) -> None:  # type: ignore[type-arg]
    model, layer, images, targets, features, gradients = case
    theirs = captum.attr.LayerGradCam(model, layer).attribute(images, target=targets)
    close(gradcam(features, gradients), theirs[:, 0].detach())


def test_cam_equals_torchcam_and_the_other_methods_on_a_pooled_linear_head() -> None:
    model = random_model("resnet20")
    torch.manual_seed(1)
    images, targets = torch.randn(6, 3, 32, 32), torch.randint(0, 10, (6,))
    parts = cut(model, (32, 32))
    features = parts.backbone(images).requires_grad_()
    logits = parts.head(features)
    (gradients,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), features)
    features = features.detach()
    assert parts.linear is not None
    ours = cam(features, parts.linear, targets)
    cells = features.shape[2] * features.shape[3]
    close(ours, hirescam(features, gradients) * cells)
    close(ours, gradcam(features, gradients) * cells)
    with torchcam.methods.CAM(model, target_layer="layer3", fc_layer="linear") as method:
        method_scores = model(images)
        (theirs,) = method(targets.tolist(), method_scores, normalized=False)
    close(ours.clamp_min(0), theirs.clamp_min(0))
