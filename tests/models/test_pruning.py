"""Pruned heads give what whole ones give, with less work."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, fx, nn
from torch.func import jvp
from torch.utils.flop_counter import FlopCounterMode

from audit import cam
from audit.models import Cut, cut, evaluation, plain_kernels
from audit.models.biases import bias_tangents
from audit.models.graph_network import GraphNetwork
from audit.models.halves import Head, Tail
from audit.models.network import with_random_weights
from audit.models.preprocessing import Preprocessing
from audit.models.probe import probe_images
from audit.models.pruning import pruned
from audit.score.contributions import contributions, regions, target_evidence

SIZE = (32, 32)


def of_timm(name: str, **settings: Any) -> nn.Module:
    return timm.create_model(
        name, num_classes=5, depth=2, img_size=32, patch_size=8, **settings
    )  # fmt: skip


def of_torchvision() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 3, 48, 96, num_classes=5)


class PlainAttention(nn.Module):
    """A transformer of one block with attention written out, its class token last."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 24))
        self.norm, self.last = nn.LayerNorm(24), nn.Linear(24, 5)
        self.to_q, self.to_kv = nn.Linear(24, 24, bias=False), nn.Linear(24, 48)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).relu().flatten(2).transpose(1, 2)
        x = torch.cat([patches, self.token.expand(images.shape[0], -1, -1)], dim=1).roll(1, 1)
        n = self.norm(x)
        k, v = self.to_kv(n).chunk(2, dim=-1)
        q, k, v = (each.unflatten(2, (2, 12)).transpose(1, 2) for each in (self.to_q(n), k, v))
        weights = (q @ k.transpose(-2, -1) / 12**0.5).softmax(dim=-1)
        x = x + (weights @ v).transpose(1, 2).flatten(2)
        return self.last(F.gelu(x)[:, 0])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "class token": (lambda: of_timm("vit_tiny_patch16_224"), "blocks.1.norm1"),
    "two tokens": (lambda: of_timm("deit_tiny_distilled_patch16_224"), "blocks.1.norm1"),
    "torchvision": (of_torchvision, "encoder.layers.encoder_layer_1.ln_1"),
    "written out": (PlainAttention, "norm"),
    "before the block": (lambda: of_timm("vit_tiny_patch16_224"), ""),
    "norms of queries and keys": (
        lambda: of_timm("vit_tiny_patch16_224", qk_norm=True), "blocks.1.norm1",
    ),
    "registers": (
        lambda: of_timm("vit_small_patch14_reg4_dinov2", embed_dim=96, num_heads=3),
        "blocks.1.norm1",
    ),
    "rotary": (lambda: of_timm("eva02_tiny_patch14_224", global_pool="token"), "blocks.1.norm1"),
    "biased attention": (
        lambda: of_timm("beit_base_patch16_224", global_pool="token", embed_dim=96, num_heads=3),
        "blocks.1.norm1",
    ),
}  # fmt: skip
CASES = [(name, False) for name in NETWORKS] + [(name, True) for name in list(NETWORKS)[:5]]


def drawn(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.dim() < 2:
            parameter.data += 0.3 * torch.randn(parameter.shape)
        else:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return with_random_weights(network.eval(), "drawn", Preprocessing()).module


def exported(network: nn.Module) -> nn.Module:
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch},)
    program = torch.export.export(network, (torch.randn(2, 3, *SIZE),), dynamic_shapes=shapes)
    return program.module(check_guards=False)


def whole_head(network: nn.Module, parts: Cut) -> Head:
    """The head that the graph of the network has, as it is."""
    with evaluation(network), plain_kernels(), torch.no_grad():
        captured = GraphNetwork(network, probe_images(2, SIZE), fixed=False)
        layer = next(each for each in captured.candidates if each.name == parts.layer)
        assert layer.layout is not None
        return Head(captured.halves(layer)[1], layer.layout)


def work_of(head: nn.Module, given: tuple[Tensor, ...]) -> int:
    with FlopCounterMode(display=False) as counter:
        head(*given)
    return counter.get_total_flops()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    scale = 1 + float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize(("name", "as_program"), CASES)
def test_logits_maps_and_contributions_stay(name: str, as_program: bool) -> None:
    make, layer = NETWORKS[name]
    network = drawn(make())
    network = exported(network) if as_program else network
    parts = cut(network, SIZE, layers=[layer] if layer else ())
    whole = whole_head(network, parts)
    assert bias_tangents(whole).keys() == parts.biases.keys()
    for module in (network, parts.backbone, parts.head, whole):
        module.double()
    biases = {key: value.double() for key, value in parts.biases.items()}
    features, *rest = (each.detach() for each in parts.backbone(torch.randn(3, 3, *SIZE).double()))
    given = (features, *rest)
    assert work_of(parts.head, given) < 0.7 * work_of(whole, given)
    cells = regions(torch.rand(3, *parts.grid, dtype=torch.float64))
    targets = torch.tensor([0, 3, 1])
    with plain_kernels(), torch.no_grad():
        logits = whole(*given)
        assert_close(parts.head(*given), logits)
        ours, theirs = (
            contributions(head, features, logits, cells, biases=biases, rest=tuple(rest))
            for head in (parts.head, whole)
        )
        for field in fields(ours):
            assert_close(getattr(ours, field.name), getattr(theirs, field.name))
        # What is scaled before a norm changes nothing after it, so nothing is left to compare.
        assert float(ours.object.abs().max()) > 1e-3 or not layer
        assert_close(
            target_evidence(parts.head, features, targets, tuple(rest)),
            target_evidence(whole, features, targets, tuple(rest)),
        )
    gradients = [_gradient(head, given, targets) for head in (parts.head, whole)]
    assert_close(gradients[0], gradients[1])
    for method in (cam.hirescam, cam.gradcam):
        map_ours, map_theirs = (method(features, gradient) for gradient in gradients)
        assert_close(map_ours, map_theirs)


def _gradient(head: nn.Module, given: tuple[Tensor, ...], targets: Tensor) -> Tensor:
    leaf = given[0].clone().requires_grad_()
    chosen = head(leaf, *given[1:]).gather(1, targets[:, None]).sum()
    return torch.autograd.grad(chosen, leaf)[0]


def test_the_last_block_is_computed_for_the_class_token_alone() -> None:
    network = drawn(of_timm("vit_tiny_patch16_224"))
    parts = cut(network, SIZE)
    given = tuple(parts.backbone(torch.randn(2, 3, *SIZE)))
    tokens, channels, heads = 17, 192, 3
    with plain_kernels(), torch.no_grad():
        counted = work_of(parts.head, given)
    of_one_token = 12 * channels**2 + 5 * channels + channels  # the last for the keys' bias
    of_all_tokens = 2 * heads * channels * tokens
    assert counted == 2 * 2 * (of_one_token + of_all_tokens)


def test_tails_of_several_layers_are_pruned_after_the_last() -> None:
    network = drawn(of_timm("vit_tiny_patch16_224"))
    parts = cut(network, SIZE, layers=["blocks.0.add_1", "blocks.0.add_2"])
    assert parts.fused is not None
    fused = parts.fused
    images = torch.randn(2, 3, *SIZE)
    with evaluation(network), plain_kernels(), torch.no_grad():
        captured = GraphNetwork(network, probe_images(2, SIZE), fixed=False)
        layers = {each.name: each for each in captured.candidates}
        tail = captured.tail(layers["blocks.0.add_1"], [layers["blocks.0.add_2"]])
        whole = Tail(tail, fused.layouts[0])
        given = tuple(fused.front(images))
        for ours, theirs in zip(fused.tail(*given), whole(*given), strict=True):
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(fused.tail(*given)[-1], network(images))
        assert work_of(fused.tail, given) < work_of(whole, given)
    leaf = given[0].requires_grad_()
    later, logits = fused.tail(leaf, *given[1:])
    gradients = torch.autograd.grad(logits[:, 0].sum(), (leaf, later))
    assert all(bool(gradient.any()) for gradient in gradients)


def test_whatever_needs_all_tokens_stays() -> None:
    network = drawn(of_timm("vit_tiny_patch16_224", global_pool="avg"))
    graph = fx.symbolic_trace(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)))
    assert pruned(graph, [torch.randn(2, 5, 4)], 1e-4) is graph
    parts = cut(network, SIZE)
    given = tuple(parts.backbone(torch.randn(2, 3, *SIZE)))
    assert work_of(parts.head, given) == work_of(whole_head(network, parts), given)


class Selecting(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x))[:, 1])


def test_what_disagrees_is_not_taken() -> None:
    torch.manual_seed(0)
    graph = fx.symbolic_trace(Selecting(F.gelu))
    given = [torch.randn(2, 50, 4)]
    assert pruned(graph, given, 1e-4) is not graph
    assert pruned(graph, given, -1.0) is graph
    # Outputs that are no numbers cannot be compared.
    graph = fx.symbolic_trace(Selecting(lambda x: x / 0))
    assert pruned(graph, given, 1e-4) is graph


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.add_(1),
        lambda x: F.relu(x, inplace=True),
        lambda x: F.relu(x, True),
        torch.sigmoid_,
    ],
)
def test_graphs_that_write_into_their_inputs_stay(between: Callable[[Tensor], Tensor]) -> None:
    graph = fx.symbolic_trace(Selecting(between))
    assert pruned(graph, [torch.randn(2, 5, 4)], 1e-4) is graph


MIXING: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.cumsum(dim=1),
    lambda x: x.roll(1, 1),
    lambda x: x - x.mean(dim=1, keepdim=True),
    lambda x: x.softmax(dim=1),
    lambda x: F.layer_norm(x, x.shape[1:]),
    lambda x: x.flip(1),
    lambda x: x.reshape(x.shape[0], 4, x.shape[1]).transpose(1, 2),
    lambda x: torch.cat([x[:, 3:], x[:, :3]], dim=1),
    lambda x: x.transpose(1, 2).reshape(x.shape),
]
ALONG: list[Callable[[Tensor], Tensor]] = [
    lambda x: F.gelu(x) * 2 + x,
    lambda x: F.layer_norm(x, (4,)),
    lambda x: x.softmax(dim=-1),
    lambda x: x.mT.mT.transpose(0, 1).reshape(-1, 4).exp().view(7, -1, 4).transpose(0, 1),
    lambda x: x.unflatten(2, (2, 2)).permute(0, 2, 1, 3).flatten(1, 1).transpose(1, 2).flatten(2),
    lambda x: x + x[:, :1],
    lambda x: x + torch.cat([x[:, :1], x[:, 1:] * 3], dim=1),
    lambda x: x @ x.transpose(1, 2) @ x / 10,
    lambda x: F.scaled_dot_product_attention(x, x.tanh(), x),
    lambda x: torch.stack(x.unbind(2), dim=2)[:, :, [1, 0, 2, 3]],
    lambda x: x.view(x.shape[0], x.size(1), 2, -1).sum(dim=2).repeat(1, 1, 2),
    lambda x: x[:, 1:][:, :4].sum(dim=1, keepdim=True) + x,
    lambda x: x.unsqueeze(1).squeeze(1),
    lambda x: x * torch.linspace(0, 1, 7)[:, None],
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_any_mixture_of_operations(seed: int) -> None:
    choice = random.Random(seed)
    operations = choice.sample(ALONG, 3) + choice.sample(MIXING, choice.randint(0, 1))
    choice.shuffle(operations)

    def between(x: Tensor) -> Tensor:
        for operation in operations:
            x = operation(x)
        return x

    torch.manual_seed(seed)
    graph = fx.symbolic_trace(Selecting(between)).double().requires_grad_(False)
    given = torch.randn(2, 7, 4, dtype=torch.float64)
    with plain_kernels():
        check_pruned(graph, given, operations)


def check_pruned(
    graph: fx.GraphModule, given: Tensor, operations: list[Callable[[Tensor], Tensor]]
) -> None:
    lean = pruned(graph, [given], 1e-4)
    other = torch.randn(5, 7, 4, dtype=torch.float64)
    assert_close(lean(other), graph(other))
    ours, theirs = (jvp(each, (other,), (torch.cos(other),))[1] for each in (lean, graph))
    assert_close(ours, theirs)
    assert work_of(lean, (other,)) <= work_of(graph, (other,))
    if set(operations) <= set(ALONG[:3]):
        assert work_of(lean, (other,)) < work_of(graph, (other,))
