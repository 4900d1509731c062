"""A network is the same after an audit as before, whatever happens in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp

from audit.models import cut, evaluation, fused_kernels, plain_kernels
from audit.models.tap import Way
from tests.models.scripting import scripted

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")


def tiny(classes: int = 3, seed: int = 0) -> nn.Sequential:
    """A small network with batch norm and dropout, for images of any size."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, classes),
    )


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def state_of(network: nn.Module) -> dict[str, Any]:
    """Everything about a network that an audit must not change."""
    found: dict[str, Any] = {}
    for name, part in network.named_modules():
        found[f"{name} mode"] = getattr(part, "training", None)
        found[f"{name} hooks"] = (
            len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks),
        )  # fmt: skip
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        found[f"{name} tensor"] = (
            id(tensor), tensor.data_ptr(), tensor.dtype, tensor.device, tensor.requires_grad,
        )  # fmt: skip
        found[f"{name} values"] = tensor.detach().clone().flatten().tolist()
        gradient = tensor.grad
        found[f"{name} gradient"] = gradient if gradient is None else (
            id(gradient), gradient.data_ptr(), gradient.dtype, gradient.flatten().tolist(),
        )  # fmt: skip
    return found


def mixed(dtype: torch.dtype) -> nn.Sequential:
    """Parts in both modes, some parameters without gradients, others with one."""
    network = tiny().train().to(dtype)
    network(IMAGES.to(dtype)).sum().backward()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    network[3].bias.grad = None
    network[4].register_forward_hook(lambda *_: None)
    return network


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_inside_it_is_float32_and_evaluates_without_gradients(dtype: torch.dtype) -> None:
    network = mixed(dtype)
    with evaluation(network):
        assert not any(part.training for part in network.modules())
        assert not any(p.requires_grad for p in network.parameters())
        assert network(IMAGES).dtype == torch.float32
        assert torch.equal(network(IMAGES), network(IMAGES))
        assert network[1].num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_it_is_as_before(dtype: torch.dtype, fails: bool) -> None:
    network = mixed(dtype)
    before = state_of(network)
    try:
        with evaluation(network):
            network(IMAGES)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert state_of(network) == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("swap", [False, True])
def test_moving_it_to_a_device_is_undone(dtype: torch.dtype, swap: bool) -> None:
    network = mixed(dtype)
    before = state_of(network)
    torch.__future__.set_overwrite_module_params_on_conversion(swap)
    try:
        with evaluation(network):
            network.to("meta")
            assert all(p.is_meta for p in network.parameters())
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    assert state_of(network) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_comes_to_the_cpu_and_goes_back() -> None:
    network = tiny().cuda().half()
    network(IMAGES.cuda().half()).sum().backward()
    before = state_of(network)
    with evaluation(network):
        assert network(IMAGES).device.type == "cpu"
        network.to("cuda")
        assert network(IMAGES.cuda()).dtype == torch.float32
    assert state_of(network) == before


def test_one_inside_another() -> None:
    network = mixed(torch.float16)
    before = state_of(network)
    with evaluation(network):
        between = state_of(network)
        with evaluation(network):
            network(IMAGES)
        assert state_of(network) == between
    assert state_of(network) == before


def test_shared_weights_stay_shared() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).double()
    network[1].weight = network[0].weight
    with evaluation(network):
        assert network[1].weight is network[0].weight
        assert network(torch.ones(1, 3)).dtype == torch.float32
    assert network[1].weight is network[0].weight


class Merging(nn.Linear):
    """Writes into its weights when its mode is set, as some low-rank adapters do."""

    def train(self, mode: bool = True) -> Merging:
        with torch.no_grad():
            self.weight.add_(1 if not mode else -1)
        return super().train(mode)


def test_modules_that_change_weights_with_their_mode_are_left_alone() -> None:
    network = Merging(2, 2)
    before = state_of(network)
    with evaluation(network):
        assert not network.training
    assert state_of(network) == before


def programs() -> dict[str, nn.Module]:
    with torch.no_grad():
        exported = torch.export.export(tiny().eval(), (IMAGES,)).module()
        return {
            "scripted": scripted(tiny().train()),
            "double": scripted(tiny().double()),
            "traced": torch.jit.trace(tiny().eval(), IMAGES),
            "frozen": torch.jit.freeze(scripted(tiny().eval())),
            "exported": exported,
        }


@pytest.mark.parametrize("kind", ["scripted", "double", "traced", "frozen", "exported"])
def test_programs_too(kind: str) -> None:
    network = programs()[kind]
    before = state_of(network)
    with evaluation(network):
        first: Tensor = network(IMAGES)
        assert torch.equal(first, network(IMAGES))
        assert first.dtype == torch.float32
        if kind != "exported":
            network.to("cpu")
    assert state_of(network) == before


def test_plain_kernels_end_with_their_block() -> None:
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    with pytest.raises(RuntimeError), plain_kernels():
        assert not torch.backends.mha.get_fastpath_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
        raise RuntimeError
    after = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    assert after == before


def test_fused_kernels_inside_plain_ones() -> None:
    q = torch.randn(2, 2, 9, 8)
    attend = nn.functional.scaled_dot_product_attention
    with plain_kernels():
        plain = attend(q, q, q)
        with fused_kernels():
            assert not torch.backends.mha.get_fastpath_enabled()
            assert torch.backends.cuda.flash_sdp_enabled()
            fused = attend(q, q, q)
            assert torch.equal(attend(q, q, q), fused)
            with pytest.raises(NotImplementedError, match="forward AD"):
                jvp(lambda x: attend(x, x, x), (q,), (q,))
        # A head may be differentiated again.
        jvp(lambda x: attend(x, x, x), (q,), (q,))
        assert not torch.backends.cuda.flash_sdp_enabled()
    torch.testing.assert_close(fused, plain)


class Attending(nn.Module):
    """Patches, attention by torch's own module, and a pooling; a part of it can be hooked."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = self.attention(x, x, x, need_weights=False)[0].transpose(1, 2)
        return self.last(x.unflatten(2, (4, 4)).relu().mean(dim=(2, 3)))


@pytest.mark.parametrize("way", ["graph", "hooks"])
def test_halves_made_with_plain_kernels_run_with_fused_ones(way: Way) -> None:
    torch.manual_seed(0)
    network = Attending().eval()
    parts = cut(network, (16, 16), way=way)
    with evaluation(network), plain_kernels(), torch.no_grad():
        plain = parts.backbone(IMAGES)
        with fused_kernels():
            fused = parts.backbone(IMAGES)
            assert all(map(torch.equal, parts.backbone(IMAGES), fused))
        assert len(plain) == len(fused) == 1 + parts.rest
        for ours, theirs in zip(fused, plain, strict=True):
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(parts.head(*fused), network(IMAGES))
