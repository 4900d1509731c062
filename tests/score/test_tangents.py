from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from audit.models import attending, build, cut
from audit.models.biases import bias_tangents
from audit.models.halves import FixedBatch, Head
from audit.models.layout import Layout
from audit.score import tangents
from audit.score.contributions import contributions, object_and_background, regions
from audit.score.operations import RULES
from audit.score.tangents import NotFollowedError, along, by_forward_mode, derivatives

CHANNELS, SIDE, CLASSES = 6, 4, 5
PICTURES = Layout(order="channels first", channels=CHANNELS, grid=(SIDE, SIDE))
# As in a pruned head, these are single operations of the graph.
fx.wrap("scores_of")
fx.wrap("mixture_of")
scores_of, mixture_of = attending.scores_of, attending.mixture_of


def head_of(inner: nn.Module, layout: Layout = PICTURES) -> Head:
    """A captured head in float64, whose biases are not zero."""
    torch.manual_seed(0)
    for parameter in inner.parameters():
        nn.init.normal_(parameter, std=0.4)
    for part in inner.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return Head(fx.symbolic_trace(inner.double().eval()), layout).eval()


@torch.no_grad()
def assert_followed(head: nn.Module, features: Tensor, *rest: Tensor) -> None:
    """That the head is followed, to what differentiating it as a whole gives."""
    directions = torch.stack([features * 0.3, torch.randn_like(features), features.flip(-1)])
    biases = bias_tangents(head)
    kept, weights = features.clone(), {k: v.clone() for k, v in head.state_dict().items()}
    found = derivatives(head, features, directions, biases=biases, rest=rest)
    assert tangents._FOLLOWED[head.inner]  # type: ignore[index]
    expected = by_forward_mode(head, features, directions, biases=biases, rest=rest)
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 1e-4 or ours.abs().max() == 0
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10 * float(theirs.abs().max()))
    torch.testing.assert_close(features, kept, rtol=0, atol=0)
    for name, value in head.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


def pictures(count: int = 8) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, CHANNELS, SIDE, SIDE, dtype=torch.float64)


class Last(nn.Module):
    """Any operations between convolutions and the logits."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.middle = middle
        self.last = nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(torch.flatten(self.middle(self.first(x)), 1))
        return result


def ready(middle: Callable[[Tensor], Tensor]) -> Head:
    head = Last(middle)
    head(torch.zeros(2, CHANNELS, SIDE, SIDE))
    return head_of(head)


MIDDLES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu_": lambda x: x.relu_(),
    "gelu": F.gelu,
    "a curve without a rule": lambda x: torch.sin(x) + torch.logsumexp(x, 1, keepdim=True),
    "max pool": lambda x: F.max_pool2d(x, 2),
    "max pool, overlapping": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "mean": lambda x: x.mean(dim=(2, 3), keepdim=True) * x,
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "sums": lambda x: (x + x.sum(dim=1, keepdim=True)) - 2 * x[:, :1] + 1.5,
    "products": lambda x: x * x[:, :1] + (3 * x) / (1 + x[:, 1:2] ** 2) + 2 / (4 + x.square()),
    "added with a factor": lambda x: torch.add(x, x.flip(2), alpha=0.5),
    "softmax": lambda x: x.flatten(2).softmax(dim=-1),
    "softmax over images": lambda x: F.softmax(x, dim=0),
    "matrix product": lambda x: x @ x.transpose(2, 3),
    "reshaped": lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, CHANNELS)[:, ::2],
    "pieces": lambda x: torch.cat([x.chunk(2, dim=1)[1], x.unbind(1)[0][:, None]], dim=1),
    "added in place": lambda x: operator.iadd(F.max_pool2d(x, 2), 2) * 3,
    "told by place": lambda x: F.relu(x, True),
    "norm by name": lambda x: F.layer_norm(x, (SIDE,), eps=1e-3),
    "no rule's form": lambda x: F.layer_norm(x, (SIDE, SIDE)) + F.softmax(x, 1, dtype=x.dtype),
}


@pytest.mark.parametrize("middle", MIDDLES)
def test_operations(middle: str) -> None:
    head = ready(MIDDLES[middle])
    for count in (1, 8):
        assert_followed(head, pictures(count))


@pytest.mark.parametrize(
    "part",
    [
        nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS, affine=False), nn.GroupNorm(2, CHANNELS),
        nn.Conv2d(CHANNELS, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(inplace=True),
        nn.Conv2d(CHANNELS, 4, 3, stride=2, groups=2, bias=False), nn.MaxPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d(2), nn.Sequential(nn.Dropout(0.5), nn.SiLU(inplace=True)),
        nn.LayerNorm([CHANNELS, SIDE, SIDE]), nn.LayerNorm(SIDE), nn.Hardswish(), nn.PReLU(),
    ],
    ids=str,
)  # fmt: skip
def test_modules(part: nn.Module) -> None:
    assert_followed(ready(part), pictures())


def test_features_laid_out_in_other_ways() -> None:
    head = ready(lambda x: F.max_pool2d(F.relu(x), 2))
    assert_followed(head, pictures().contiguous(memory_format=torch.channels_last))
    assert_followed(head, pictures().transpose(2, 3))
    assert_followed(head, pictures(16)[::2])


def test_a_module_that_is_used_twice_adds_its_bias_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Linear(SIDE, SIDE)
            self.alias = nn.Linear(SIDE, SIDE)
            self.alias.bias = self.own.bias
            self.last = nn.Linear(CHANNELS * SIDE * SIDE, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = self.own(F.relu(self.own(x)))
            result: Tensor = self.last(self.alias(x).tanh().flatten(1))
            return result

    assert_followed(head_of(Twice()), pictures())


class Attention(nn.Module):
    """Few queries to many tokens, as a pruned transformer computes them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.query = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.both = nn.Linear(CHANNELS, 2 * CHANNELS)
        self.plain = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.last = nn.Linear(CHANNELS, CLASSES)

    def forward(self, tokens: Tensor, extra: Tensor) -> Tensor:
        x = self.norm(tokens)
        queries = self.query(x[:, :2]).unflatten(-1, (2, 3)).permute(0, 2, 1, 3)
        weight, bias = self.both.weight, self.both.bias
        scores = scores_of(queries, x, weight[:CHANNELS], bias[:CHANNELS], 0.5)
        scores = scores + scores_of(queries, tokens, self.plain.weight, None, 1.0)
        weights = torch.softmax(scores, -1)
        mixed = mixture_of(weights, x, weight[CHANNELS:], bias[CHANNELS:])
        mixed = mixed + mixture_of(weights, tokens, self.plain.weight, None)
        mixed = mixed.transpose(1, 2).flatten(2) + extra[:, None]
        result: Tensor = self.last(F.gelu(mixed)).mean(1)
        return result


def test_attention_of_tokens_with_others_beside_them() -> None:
    layout = Layout(order="tokens", channels=CHANNELS, grid=(SIDE, SIDE), prefix=1)
    head = head_of(Attention(), layout)
    for count in (1, 8):
        before = torch.randn(count, 1, CHANNELS, dtype=torch.float64)
        extra = torch.randn(count, CHANNELS, dtype=torch.float64)
        assert_followed(head, pictures(count), before, extra)


@pytest.mark.parametrize("architecture", ["cnn", "cnn-se"])
def test_networks_of_the_audit(architecture: str) -> None:
    torch.manual_seed(0)
    parts = cut(build(architecture, 10).eval(), (32, 32))
    head = parts.head.double()
    features = parts.backbone(torch.randn(8, 3, 32, 32))[0].double()
    weights = regions(torch.rand(8, 8, 8, dtype=torch.float64))
    biases = {name: tangent.double() for name, tangent in parts.biases.items()}
    with torch.no_grad():
        found = object_and_background(head, features, weights, biases=biases)
        whole = contributions(head, features, head(features), weights, biases=biases)
    assert tangents._FOLLOWED[head.inner]  # type: ignore[index]
    expected = (whole.object, whole.background, whole.bias)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


WRITING: dict[str, Callable[[Tensor], Tensor]] = {
    "what is read later": lambda x: x.relu_() + x,
    "a view": lambda x: x + x[:, :1].relu_(),
    "an item": lambda x: x.index_fill_(1, torch.tensor([0]), 0.0),
    "by its method": lambda x: torch.sin(x).__iadd__(x),
}


@pytest.mark.parametrize("middle", WRITING)
def test_what_writes_into_what_others_read_is_left_to_torch(middle: str) -> None:
    head, features = ready(WRITING[middle]), pictures()
    directions, biases = features[None], bias_tangents(head)
    with pytest.raises((NotFollowedError, RuntimeError)):
        along(head.inner, (features,), directions, {})  # type: ignore[arg-type]
    found = derivatives(head, features, directions, biases=biases)
    expected = by_forward_mode(head, features, directions, biases=biases)
    assert not tangents._FOLLOWED[head.inner]  # type: ignore[index]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_heads_that_are_no_graph_are_left_to_torch() -> None:
    inner = ready(F.relu)
    for head in (FixedBatch(inner, 3), Head(Last(F.relu), PICTURES)):
        head(pictures().float() if isinstance(head, Head) else pictures())
        features = pictures().to(next(head.parameters()).dtype)
        biases = bias_tangents(head)
        found = derivatives(head, features, features[None], biases=biases)
        expected = by_forward_mode(head, features, features[None], biases=biases)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_rule_that_is_wrong_is_found_on_two_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "relu", RULES["mean"])
    head, features = ready(F.relu), pictures()
    biases = bias_tangents(head)
    found = derivatives(head, features, features[None], biases=biases)
    assert not tangents._FOLLOWED[head.inner]  # type: ignore[index]
    expected = by_forward_mode(head, features, features[None], biases=biases)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_head_without_biases_gets_nothing_from_them() -> None:
    inner = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * SIDE * SIDE, CLASSES, bias=False))
    assert_followed(head_of(inner), pictures())
