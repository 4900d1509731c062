"""Errors of networks that failed after they were opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from audit.errors import AuditError
from audit.explaining import Explainer
from audit.models import build, cut, own_failures
from tests.models.scripting import scripted

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")


class Picky(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 2:
            raise self.error
        return images


class Folding(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.view(7, -1)


def told(network: nn.Module, count: int = 4) -> AuditError:
    with pytest.raises(AuditError) as caught, own_failures("tulip"):
        nn.Sequential(network)(torch.zeros(count, 3, 8, 8))
    return caught.value


def test_an_error_of_the_networks_code_names_its_place() -> None:
    error = told(Picky(ValueError("too many\nby far")))
    assert str(error).splitlines()[:1] == ["the model 'tulip' fails on a batch of 4 images"]
    assert error.exit_code == 1
    # Of this file, not of torch, which called it.
    line = Path(__file__).read_text().splitlines().index("            raise self.error") + 1
    assert error.found == f"ValueError: too many, at test_failing.py:{line}"
    assert error.remedy is not None
    assert "--batch-size" in error.remedy
    assert isinstance(error.__cause__, ValueError)


@pytest.mark.parametrize("make", [Folding, lambda: fx.symbolic_trace(Folding()),
                                  lambda: scripted(Folding())])  # fmt: skip
def test_so_do_errors_of_torch_in_it(make: Callable[[], nn.Module]) -> None:
    found = told(make()).found
    assert found is not None
    assert found.startswith("RuntimeError: ")
    assert "shape '[7, -1]' is invalid for input of size 768" in found


def test_an_error_of_ours_is_left_as_it_is() -> None:
    with pytest.raises(ValueError, match="ours"), own_failures("tulip"):
        raise ValueError("ours")
    explainer = Explainer(cut(build("cnn", 10), (32, 32)), mean=(0, 0, 0), std=(1, 1, 1))
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ZeroDivisionError), own_failures("tulip"):
        explainer(images, lambda logits: logits / (1 // 0))


def test_a_driver_that_fails_and_a_message_are_left_as_they_are() -> None:
    for error in (
        RuntimeError("CUDA error: unspecified launch failure"),
        AuditError("a message already"),
        KeyboardInterrupt(),
    ):
        with pytest.raises(type(error)) as caught, own_failures("tulip"):
            Picky(error)(torch.zeros(4, 3))  # type: ignore[arg-type]
        assert caught.value is error
