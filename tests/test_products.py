"""Products with a weight that was laid out once, against the usual ones."""

from __future__ import annotations

import pytest
import torch
from torch.func import jvp, vmap

from audit.products import PackedLinear, linear


@pytest.mark.parametrize("shape", [(1, 7), (33, 7), (2, 3, 4, 7)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_packed_products_are_the_usual_ones(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 7), torch.randn(5) if with_bias else None
    rows, layer = torch.randn(shape), PackedLinear(weight, bias)
    expected = torch.nn.functional.linear(rows, weight, bias)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(layer(rows), expected, rtol=1e-5, atol=1e-6)
        # Rows that do not lie together.
        apart = rows.movedim(-1, 0).contiguous().movedim(0, -1)
        torch.testing.assert_close(layer(apart), expected, rtol=1e-5, atol=1e-6)
        assert layer(rows[:0]).shape == (0, *shape[1:-1], 5)


def test_what_is_differentiated_is_computed_as_usual() -> None:
    layer = PackedLinear(torch.tensor([[1.0, 2.0]]), torch.tensor([3.0]))
    rows = torch.ones(4, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(rows).sum(), rows)
    assert gradient.tolist() == [[1.0, 2.0]] * 4
    with torch.no_grad():
        assert layer.double()(torch.ones(1, 2).double()).item() == 6.0


@pytest.mark.parametrize("shape", [(1, 7), (33, 7), (2, 3, 4, 7)])
def test_gradients_are_the_usual_ones(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 7), torch.randn(5)
    rows, cotangents = torch.randn(shape, requires_grad=True), torch.randn(*shape[:-1], 5)
    for product in (linear, lambda *given: PackedLinear(*given[1:])(given[0])):
        values = product(rows, weight, bias)
        expected = torch.nn.functional.linear(rows, weight, bias)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)
        # As often as the graph is kept, and of rows that do not lie together.
        for apart in (cotangents, cotangents.movedim(-1, 0).contiguous().movedim(0, -1)):
            found, usual = (
                torch.autograd.grad(each, rows, apart, retain_graph=True)[0]
                for each in (values, expected)
            )
            torch.testing.assert_close(found, usual, rtol=1e-5, atol=1e-6)


def test_weights_that_learn_get_their_gradients() -> None:
    rows, weight = torch.ones(2, 3), torch.ones(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(linear(rows, weight).sum(), weight)
    assert gradient.tolist() == [[2.0, 2.0, 2.0]]


def test_transforms_of_functions_see_through_products() -> None:
    torch.manual_seed(0)
    weight, rows, steps = torch.randn(5, 7), torch.randn(3, 7), torch.randn(2, 3, 7)
    found = vmap(lambda step: jvp(lambda x: linear(x, weight), (rows,), (step,))[1])(steps)
    torch.testing.assert_close(found, steps @ weight.T)
