"""Where the libraries' maps are wrong: what they give, and what is right.

Each test shows a peer's value and ours beside a value done by hand. A test that fails after an
upgrade means that the peer has mended the fault: it can then serve as an oracle.
"""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import Tensor, nn

from audit.cam import (
    ablationcam,
    eigencam,
    gradcam,
    gradcam_plus_plus,
    scorecam,
    to_image,
    xgradcam,
)

A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 5.0], [0.0, 0.0]]]])
G = torch.tensor([[[[0.3, -1.0], [0.0, 0.0]], [[-2.0, 0.0], [0.8, 0.2]]]])
FIRST = [ClassifierOutputTarget(0)]


def linear_model(*gradients: Tensor) -> nn.Sequential:
    """A model whose images are its features; logit k has the k-th gradient."""
    weight = torch.cat(gradients).flatten(1)
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(*weight.T.shape, bias=False))
    model[2].weight = nn.Parameter(weight, requires_grad=False)
    return model.eval()


def grad_cam_map(kind: type, features: Tensor, gradients: Tensor) -> Tensor:
    """pytorch-grad-cam's map before it is cut, scaled and enlarged."""
    model = linear_model(gradients)
    with kind(model=model, target_layers=[model[0]]) as method:
        arrays = features.numpy(), gradients.numpy()
        return torch.from_numpy(method.get_cam_image(features, model[0], FIRST, *arrays, False))


def torchcam_map(kind: type, model: nn.Sequential, images: Tensor, **options: bool) -> Tensor:
    with kind(model, target_layer=model[0]) as method:
        (found,) = method(0, model(images.clone().requires_grad_()), **options)
    return found.detach()


def test_torchcam_gradcam_plus_plus_loses_its_denominator() -> None:
    # the division goes to a copy: α stays g², so weights are .3³ = .027 and .8³ + .2³ = .52
    theirs = torchcam_map(torchcam.methods.GradCAMpp, linear_model(G), A, normalized=False)
    torch.testing.assert_close(theirs, 0.027 * A[:, 0] + 0.52 * A[:, 1])
    # .3/(2 + 10·.3) = .06, and .8/(2 + 5·.8) + .2/(2 + 5·.2) = .2
    torch.testing.assert_close(gradcam_plus_plus(A, G), 0.06 * A[:, 0] + 0.2 * A[:, 1])


def test_pytorch_grad_cam_gradcam_plus_plus_stifles_tiny_gradients() -> None:
    # a layer scaled up by a thousand has gradients a thousandth as large and the same map
    features, gradients = A * 1000, G / 1000
    squared = gradients**2
    alpha = squared / (2 * squared + features.sum(dim=(2, 3), keepdim=True) * gradients**3 + 1e-6)
    weights = (alpha * gradients.relu()).sum(dim=(2, 3), keepdim=True)
    theirs = grad_cam_map(pytorch_grad_cam.GradCAMPlusPlus, features, gradients)
    torch.testing.assert_close(theirs, (weights * features).sum(dim=1))
    right = 0.06 * A[:, 0] + 0.2 * A[:, 1]
    assert theirs[0, 0, 0] < 0.4 * right[0, 0, 0]
    torch.testing.assert_close(gradcam_plus_plus(features, gradients), right)


@pytest.mark.parametrize(("peer", "constant"), [("pytorch-grad-cam", 1e-7), ("torchcam", 1e-8)])
def test_xgradcam_of_the_peers_stifles_small_activations(peer: str, constant: float) -> None:
    # a channel that sums to as much as their constant loses half of its weight
    features = torch.tensor([[[[0.25, 0.75]]]]) * constant
    gradients = torch.ones_like(features)
    if peer == "torchcam":
        model = linear_model(gradients)
        theirs = torchcam_map(torchcam.methods.XGradCAM, model, features, normalized=False)
    else:
        theirs = grad_cam_map(pytorch_grad_cam.XGradCAM, features, gradients)
    torch.testing.assert_close(theirs, features[:, 0] / 2, rtol=1e-5, atol=0)
    torch.testing.assert_close(xgradcam(features, gradients), features[:, 0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("peer", ["pytorch-grad-cam", "torchcam"])
def test_peers_take_the_minimum_away_before_they_return(peer: str) -> None:
    ones = torch.ones(1, 1, 2, 2)
    model, images = linear_model(ones), A[:, :1]
    if peer == "torchcam":
        theirs = torchcam_map(torchcam.methods.GradCAM, model, images)
    else:
        with pytorch_grad_cam.GradCAM(model=model, target_layers=[model[0]]) as method:
            theirs = torch.from_numpy(method(images.clone().requires_grad_(), FIRST))
    ours = gradcam(images, ones)
    assert ours.flatten().tolist() == [1, 2, 3, 4]
    torch.testing.assert_close(theirs, (ours - 1) / 3)
    # an object in the last cell has 4 of 10 of the mass; theirs says half
    assert float(ours[0, 1, 1] / ours.sum()) == pytest.approx(0.4)
    assert float(theirs[0, 1, 1] / theirs.sum()) == pytest.approx(0.5)


class TestInPlaceActivation:
    """A target layer whose output the next layer overwrites, as in many torchvision models."""

    def setup_method(self) -> None:
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 3)
        self.model = nn.Sequential(
            self.layer, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5)
        ).eval()
        self.images = torch.randn(2, 3, 8, 8)
        self.before = self.layer(self.images).detach().requires_grad_()
        self.after = F.relu(self.before)
        logit = self.model[3](self.after.flatten(1))[:, 0].sum()
        self.slope, self.slope_after = torch.autograd.grad(logit, [self.before, self.after])
        self.right = gradcam(self.before.detach(), self.slope)
        assert self.before.min() < -1

    def test_pytorch_grad_cam_multiplies_with_the_overwritten_activations(self) -> None:
        targets = FIRST * 2
        with pytorch_grad_cam.GradCAM(model=self.model, target_layers=[self.layer]) as method:
            method(self.images, targets)
            seen = method.activations_and_grads
            arrays = seen.activations[0].numpy(), seen.gradients[0].numpy()
            theirs = method.get_cam_image(self.images, self.layer, targets, *arrays, False)
        mixed = gradcam(self.after.detach(), self.slope)
        torch.testing.assert_close(torch.from_numpy(theirs), mixed)
        assert float((mixed - self.right).abs().max()) > 0.3 * float(self.right.abs().max())

    def test_torchcam_explains_the_next_layer(self) -> None:
        theirs = torchcam_map(torchcam.methods.GradCAM, self.model, self.images, normalized=False)
        next_layer = gradcam(self.after.detach(), self.slope_after).relu()
        torch.testing.assert_close(theirs, next_layer)
        assert float((next_layer - self.right.relu()).abs().max()) > 0.1 * float(self.right.max())

    def test_captum_keeps_a_copy(self) -> None:
        theirs = captum.attr.LayerGradCam(self.model, self.layer).attribute(self.images, target=0)
        torch.testing.assert_close(theirs[:, 0].detach(), self.right)


def test_pytorch_grad_cam_leaves_zero_maps_for_images_without_a_target() -> None:
    model, images = linear_model(G.abs()), torch.cat([A, A])
    with pytorch_grad_cam.GradCAM(model=model, target_layers=[model[0]]) as method:
        theirs = torch.from_numpy(method(images.clone().requires_grad_(), FIRST))
    assert theirs[0].any()
    assert not theirs[1].any(), "the same image, but the list of targets ended before it"
    ours = gradcam(images, G.abs().expand_as(images))
    assert torch.equal(ours[1], ours[0])


def test_pytorch_grad_cam_swallows_a_class_that_does_not_exist(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, found = linear_model(G), None
    with pytorch_grad_cam.GradCAM(model=model, target_layers=[model[0]]) as method:
        found = method(A.clone().requires_grad_(), [ClassifierOutputTarget(7)])
    assert found is None, "no map, and no error either"
    assert "IndexError" in capsys.readouterr().out
    with pytest.raises(RuntimeError):
        ablationcam(model, A, model(A), torch.tensor([[7]]))


def test_captum_applies_no_relu() -> None:
    model = linear_model(G)
    method = captum.attr.LayerGradCam(model, model[0])
    theirs = method.attribute(A.clone(), target=0)[:, 0].detach()
    assert theirs.max() < 0, "the paper's map of this case is 0 everywhere"
    torch.testing.assert_close(theirs, gradcam(A, G))
    assert not gradcam(A, G).relu().any()


def test_captum_enlarges_to_the_nearest_cell() -> None:
    row = torch.tensor([[[[0.0, 4.0]]]])
    theirs = captum.attr.LayerAttribution.interpolate(row, (1, 4))
    assert theirs.flatten().tolist() == [0, 0, 4, 4]
    assert to_image(row[0], (1, 4)).flatten().tolist() == [0, 1, 3, 4]


def test_pytorch_grad_cam_eigencam_has_an_arbitrary_sign() -> None:
    torch.manual_seed(0)
    features = torch.randn(64, 6, 3, 3).relu()
    theirs, ours = torch.from_numpy(get_2d_projection(features.numpy())), eigencam(features)
    torch.testing.assert_close(theirs.abs(), ours.abs(), rtol=0, atol=1e-5)
    activation = features.mean(dim=1)
    activation = activation - activation.mean(dim=(1, 2), keepdim=True)
    assert ((ours * activation).sum(dim=(1, 2)) > 0).all()
    upside_down = ((theirs * activation).sum(dim=(1, 2)) < 0).sum()
    assert 8 < upside_down < 56, "about half highlight where the layer is least active"


def ablation_weights(features: Tensor, gradients: Tensor, batch_size: int) -> Tensor:
    model = linear_model(gradients)
    method = pytorch_grad_cam.AblationCAM(model, [model[0]], batch_size=batch_size)
    with method:
        weights = method.get_cam_weights(features, model[0], FIRST, features.numpy(), None)
    return torch.from_numpy(weights)


def test_pytorch_grad_cam_ablates_with_minus_ten_million() -> None:
    # it sets a channel to 0 only if the lowest activation is 0, else far below the lowest
    features = A + 1
    logit = float((features * G).sum())
    ours = ablationcam(linear_model(G), features, torch.tensor([[logit]]), torch.tensor([[0]]))
    supplied = (features * G).sum(dim=(2, 3))
    right = (supplied / logit)[:, :, None, None] * features
    torch.testing.assert_close(ours[:, 0], right.sum(dim=1))
    lowered = (supplied - G.sum(dim=(2, 3)) * (1 - 1e7)) / logit
    theirs = ablation_weights(features, G, batch_size=1)
    torch.testing.assert_close(theirs, lowered, rtol=1e-5, atol=0)
    assert float((theirs / (supplied / logit)).abs().min()) > 1e6
    # with a lowest activation of 0 it is right
    supplied = (A * G).sum(dim=(2, 3))
    torch.testing.assert_close(ablation_weights(A, G, batch_size=1), supplied / (A * G).sum())


def test_pytorch_grad_cam_ablation_depends_on_the_batch_size() -> None:
    # the lowest value is looked up again after each channel of a batch has been lowered
    alone = ablation_weights(A + 1, G, batch_size=1)
    together = ablation_weights(A + 1, G, batch_size=2)
    torch.testing.assert_close(together / alone, torch.tensor([[1.0, 2.0]]), rtol=1e-5, atol=0)
    model = linear_model(G)
    ours = [
        ablationcam(model, A + 1, model(A + 1), torch.tensor([[0]]), limit_bytes=limit)
        for limit in (1, 1000)
    ]
    torch.testing.assert_close(ours[0], ours[1])


class Recorder(nn.Module):
    """Keeps the images that it is given; its target layer gives fixed features."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features
        self.layer = nn.Identity()
        self.unused = nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        self.layer(self.features)
        return x.sum(dim=(2, 3))


def masks_of(peer: str, features: Tensor, size: tuple[int, int]) -> Tensor:
    """What Score-CAM multiplies a white image with, for one channel."""
    model, images = Recorder(features).eval(), torch.ones(1, 3, *size)
    if peer == "ours":
        scorecam(model, images, features, torch.tensor([[0]]))
    elif peer == "torchcam":
        with torchcam.methods.ScoreCAM(model, target_layer="layer") as method:
            model(images)
            method(0)
    else:
        with pytorch_grad_cam.ScoreCAM(model=model, target_layers=[model.layer]) as method:
            method.get_cam_weights(images, model.layer, FIRST, features.numpy(), None)
    return model.seen[-1][0, 0]


def test_scorecam_of_the_peers_masks_otherwise_than_the_paper() -> None:
    # enlarged with pixel centres: [0, 1/4, 3/4, 3/4, 1/4, 0]; then scaled to reach 1
    peak = torch.tensor([[[[0.0, 5.0, 0.0]]]])
    right = torch.tensor([0, 1, 3, 3, 1, 0]) / 3
    torch.testing.assert_close(masks_of("ours", peak, (1, 6))[0], right)
    # torchcam scales before it enlarges: no pixel is kept whole
    torch.testing.assert_close(masks_of("torchcam", peak, (1, 6))[0], right * 0.75)
    # pytorch-grad-cam stretches the grid until its outer centres meet the image's border
    stretched = torch.tensor([0, 2, 4, 4, 2, 0]) / 4
    torch.testing.assert_close(masks_of("pytorch-grad-cam", peak, (1, 6))[0], stretched)


def test_pytorch_grad_cam_scorecam_makes_masks_of_rounding_errors() -> None:
    # enlarging 1.1 gives 1.1 and its neighbour in float32, which it scales to nearly 0 and 1
    constant = torch.full((1, 1, 7, 7), 1.1)
    theirs = masks_of("pytorch-grad-cam", constant, (32, 32))
    assert theirs.max() > 0.9
    assert theirs.mean() > 0.3
    assert not masks_of("ours", constant, (32, 32)).any()
    assert not masks_of("torchcam", constant, (32, 32)).any()


@pytest.mark.parametrize("kind", [torchcam.methods.GradCAM, torchcam.methods.LayerCAM])
def test_torchcam_drops_activations_that_are_not_finite(kind: type) -> None:
    features = A.clone()
    features[0, 0, 0, 1] = torch.nan
    theirs = torchcam_map(kind, linear_model(G.abs()), features, normalized=False)
    assert theirs.isfinite().all()
    assert gradcam(features, G.abs())[0, 0, 1].isnan()


def test_pytorch_grad_cam_eigencam_takes_activations_that_are_not_numbers_for_zero() -> None:
    features = A.clone()
    features[0, 0, 0, 1] = torch.nan
    assert np.isfinite(get_2d_projection(features.numpy())).all()
    assert eigencam(features).isnan().all()
