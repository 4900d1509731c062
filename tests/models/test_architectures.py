"""Networks of torchvision and timm: target layer, halves, contributions, maps."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from audit.explaining import Explainer
from audit.models import Cut, cut, evaluation, plain_kernels
from audit.models.probe import probe_images
from audit.score.contributions import centre, contributions, regions


@dataclass(frozen=True, kw_only=True)
class Case:
    """An architecture and what is known of it.

    Attributes:
        name: With the library.
        layer: How the target layer's name begins.
        grid: At 224.
        small: The smallest size that leaves a map, and one that is not square.
        how: What cuts it.
        linear: Whether its head is pooling and one linear layer.
        exact: Whether its head is piecewise linear.
        oracle: The module whose output pytorch-grad-cam explains rightly; empty if it has none:
            a function or an in-place operation follows, which it cannot tell apart.
        prefix: Tokens before the grid's.
        last: Whether the activation's channels are its last axis.
    """

    name: str
    layer: str
    grid: tuple[int, int] = (7, 7)
    small: tuple[tuple[int, int], ...] = ((64, 64), (64, 96))
    how: str = "torch.fx"
    linear: bool = True
    exact: bool = True
    oracle: str = ""
    prefix: int = 0
    last: bool = False


CASES = (
    # flatten + MLP
    Case(name="torchvision:alexnet", layer="features.11", grid=(13, 13), linear=False),
    Case(name="torchvision:vgg11_bn", layer="features.27", grid=(14, 14), linear=False,
         small=((32, 32), (32, 64))),
    # GAP + linear: residual, grouped, dense, inverted-residual, shuffled, searched
    Case(name="torchvision:resnet18", layer="layer4.1", oracle="layer4",
         small=((33, 33), (64, 96))),
    Case(name="torchvision:resnext50_32x4d", layer="layer4.2", oracle="layer4"),
    Case(name="torchvision:densenet121", layer="relu"),
    Case(name="torchvision:mobilenet_v2", layer="features.18", oracle="features"),
    Case(name="torchvision:shufflenet_v2_x0_5", layer="conv5", oracle="conv5"),
    Case(name="torchvision:mnasnet0_5", layer="layers.16", oracle="layers"),
    Case(name="torchvision:googlenet", layer="inception5b", oracle="inception5b"),
    Case(name="torchvision:regnet_y_400mf", layer="trunk_output", oracle="trunk_output"),
    Case(name="torchvision:efficientnet_b0", layer="features.8", oracle="features"),
    # GAP + MLP
    Case(name="torchvision:mobilenet_v3_small", layer="features.12", linear=False, exact=False,
         oracle="features"),
    # 1×1-convolution as classifier
    Case(name="torchvision:squeezenet1_1", layer="classifier.2", grid=(13, 13),
         oracle="classifier.2"),
    # average pool, then norm
    Case(name="torchvision:convnext_tiny", layer="features.7.2", linear=False, exact=False,
         oracle="features"),
    # windows of tokens, channels last
    Case(name="torchvision:swin_t", layer="norm", oracle="norm", last=True),
    # a class token
    Case(name="torchvision:vit_b_32", layer="encoder.layers.encoder_layer_11.ln_1", small=(),
         linear=False, exact=False, oracle="encoder.layers.encoder_layer_11.ln_1", prefix=1),
    Case(name="timm:resnet10t", layer="layer4.0", grid=(7, 7), oracle="layer4"),
    Case(name="timm:seresnet18", layer="layer4.1", oracle="layer4"),
    Case(name="timm:efficientnet_lite0", layer="bn2", oracle="bn2"),
    Case(name="timm:mobilenetv3_small_050", layer="blocks.5.0", linear=False, exact=False,
         oracle="blocks.5"),
    Case(name="timm:tf_efficientnet_b0", layer="bn2", how="torch.export", oracle="bn2"),
    Case(name="timm:convnext_atto", layer="stages.3", linear=False, exact=False,
         oracle="stages.3"),
    Case(name="timm:vit_tiny_patch16_224", layer="blocks.11.norm1", grid=(14, 14), small=(),
         linear=False, exact=False, oracle="blocks.11.norm1", prefix=1),
    Case(name="timm:deit_tiny_distilled_patch16_224", layer="blocks.11.norm1",
         grid=(14, 14), small=(), linear=False, exact=False, oracle="blocks.11.norm1", prefix=2),
    Case(name="timm:swin_tiny_patch4_window7_224", layer="norm", small=(), oracle="norm",
         last=True),
    Case(name="timm:mixer_s32_224", layer="norm", small=(), oracle="norm"),
    # attention pool
    Case(name="timm:resnet50_clip", layer="stages.3", how="torch.export", small=(),
         linear=False, exact=False, oracle="stages.3"),
)  # fmt: skip


def build(name: str) -> nn.Module:
    """Random weights; matrices that start as zeros would hide everything before them."""
    library, _, model = name.partition(":")
    torch.manual_seed(0)
    if library == "timm":
        timm = pytest.importorskip("timm")
        network: nn.Module = timm.create_model(model)
    else:
        import torchvision

        slow = {"init_weights": False} if model == "googlenet" else {}
        network = torchvision.models.get_model(model, weights=None, **slow)
    with torch.no_grad():
        for key, tensor in (*network.named_parameters(), *network.named_buffers()):
            if tensor.dim() >= 2 and not tensor.any():
                tensor.normal_(0, 0.05)
            elif key.endswith("running_mean") or (key.endswith("bias") and not tensor.any()):
                tensor.normal_(0, 0.1)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_architecture_at_224(case: Case) -> None:
    model = build(case.name)
    parts = cut(model, (224, 224))
    assert parts.layer.startswith(case.layer)
    assert (parts.grid, parts.how) == (case.grid, case.how)
    assert (parts.linear is not None) == case.linear
    # The tokens before the grid's, and what else of the class token the head reads.
    assert parts.rest == (2 if case.prefix else 0)
    assert not parts.notes
    images = probe_images(2, (224, 224), seed=1)
    with evaluation(model), plain_kernels(), torch.no_grad():
        check_halves(parts, model, images)
        check_contributions(parts, images, exact=case.exact)
        if case.oracle:
            check_maps(case, parts, model, images)


@pytest.mark.parametrize(
    ("name", "size"), [(case.name, size) for case in CASES for size in case.small]
)
def test_an_architecture_at_other_sizes(name: str, size: tuple[int, int]) -> None:
    case = next(case for case in CASES if case.name == name)
    model = build(name)
    parts = cut(model, size)
    assert parts.grid[0] * parts.grid[1] > 1
    images = probe_images(3, size, seed=1)
    with evaluation(model), plain_kernels(), torch.no_grad():
        check_halves(parts, model, images)
        check_contributions(parts, images, exact=case.exact and parts.layer.startswith(case.layer))


@pytest.mark.parametrize(
    ("name", "side"),
    [("torchvision:resnet18", 96), ("torchvision:mobilenet_v3_small", 96),
     ("timm:convnext_atto", 96), ("timm:vit_tiny_patch16_224", 224),
     ("timm:efficientnet_lite0", 96), ("torchvision:swin_t", 96)],
)  # fmt: skip
def test_hooks_give_the_same_numbers_as_the_graph(name: str, side: int) -> None:
    model = build(name)
    graph, hooks = (cut(model, (side, side), way=way) for way in ("graph", "hooks"))
    assert (graph.how, hooks.how) == ("torch.fx", "hooks")
    assert (graph.grid, graph.channels) == (hooks.grid, hooks.channels)
    images = probe_images(2, (side, side), seed=1)
    with evaluation(model), plain_kernels(), torch.no_grad():
        check_halves(hooks, model, images)
        ours, theirs = (split_logits(parts, images) for parts in (graph, hooks))
        if graph.rest:
            # Through hooks what runs before the layer is the head's too, and its biases are.
            ours, theirs = ((*each[:3], each[3] + each[4]) for each in (ours, theirs))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(ours[0].abs().max() + 1))
        a, b = (maps_of(parts, images, "hirescam") for parts in (graph, hooks))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6 * size_of_products(graph, images))
    assert sum(len(part._forward_hooks) for part in model.modules()) == 0


def check_halves(parts: Cut, model: nn.Module, images: Tensor) -> None:
    features, *rest = parts.backbone(images)
    assert features.shape == (len(images), parts.channels, *parts.grid)
    logits, expected = parts.head(features, *rest), model(images)
    scale = float(expected.abs().max())
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * (1 + scale))
    if parts.linear is not None:
        constant = parts.head(torch.zeros_like(features))
        ours = features.mean(dim=(2, 3)) @ parts.linear.T + constant
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 * (1 + scale))


def split_logits(parts: Cut, images: Tensor) -> tuple[Tensor, ...]:
    features, *rest = parts.backbone(images)
    mask = torch.zeros(len(images), *parts.grid)
    mask[:, : parts.grid[0] // 2 + 1, 1:] = 1
    found = contributions(
        parts.head,
        features,
        parts.head(features, *rest),
        regions(mask),
        biases=parts.biases,
        rest=tuple(rest),
    )
    return found.object, found.near, found.far, found.bias, found.residual


def check_contributions(parts: Cut, images: Tensor, *, exact: bool) -> None:
    *known, residual = split_logits(parts, images)
    logits = centre(parts.head(*parts.backbone(images)))
    torch.testing.assert_close(sum(known) + residual, logits, rtol=1e-4, atol=1e-4)
    if exact:
        assert float((residual.abs() - 1e-4 * (1 + logits.abs())).max()) <= 0


def maps_of(parts: Cut, images: Tensor, method: str) -> Tensor:
    explainer = Explainer(parts, mean=(0, 0, 0), std=(1 / 255,) * 3, methods=(method,))  # type: ignore[arg-type]
    top = explainer(images, lambda logits: logits.argmax(dim=1, keepdim=True))
    return top.maps[method][:, 0]  # type: ignore[index]


def check_maps(case: Case, parts: Cut, model: nn.Module, images: Tensor) -> None:
    def on_the_grid(activation: Tensor) -> Tensor:
        if case.last:
            return activation.permute(0, 3, 1, 2)
        if activation.dim() == 3:
            cells = activation[:, case.prefix :].transpose(1, 2)
            return cells.unflatten(2, parts.grid)
        return activation

    targets = model(images).argmax(dim=1).tolist()
    scale = size_of_products(parts, images)
    hirescam, gradcam = oracles(model, case.oracle, images, targets, on_the_grid)
    for method, theirs in (("hirescam", hirescam), ("gradcam", gradcam)):
        ours = maps_of(parts, images, method)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * scale)


def size_of_products(parts: Cut, images: Tensor) -> float:
    """How large the products are that a map sums over channels.

    Before a layer norm they nearly cancel; they are what rounds.
    """
    features, *rest = parts.backbone(images)
    leaf = features.requires_grad_()
    with torch.enable_grad():
        logits = parts.head(leaf, *rest)
        (gradient,) = torch.autograd.grad(logits.amax(dim=1).sum(), leaf)
    return float((leaf.detach() * gradient).abs().sum(dim=1).max())


def oracles(model, layer, images, targets, reshape) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """pytorch-grad-cam's maps of one pass before it enlarges and normalises: HiResCAM, Grad-CAM."""
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = model.get_submodule(layer)
        given = {"model": model, "target_layers": [module], "reshape_transform": reshape}
        chosen = [ClassifierOutputTarget(k) for k in targets]
        with GradCAM(**given) as method:
            method(input_tensor=images.clone().requires_grad_(), targets=chosen)
            seen = method.activations_and_grads
            activations, gradients = seen.activations[0].numpy(), seen.gradients[0].numpy()
        found = [
            kind.get_cam_image(method, images, module, chosen, activations, gradients, False)
            for kind in (HiResCAM, GradCAM)
        ]
    return [torch.from_numpy(maps) for maps in found]
