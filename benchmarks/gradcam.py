"""What Grad-CAM costs over the bare forward pass, next to the other libraries in one process.

Ours goes back through the head alone; beside it stand a full backward pass, pytorch-grad-cam,
torch-cam and captum, taking turns.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import captum.attr
import pytorch_grad_cam
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from audit.cam import gradcam
from audit.models import build, cut
from benchmarks.subjects import Lite

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network to measure on.

    Attributes:
        name: For the table.
        model: In evaluation mode.
        layer: The module that peers are told to explain: the output of our target layer.
        images: N×3×H×W.
    """

    name: str
    model: nn.Module
    layer: nn.Module
    images: Tensor


def subjects(batch: dict[str, int]) -> Iterator[Subject]:
    """The networks at hand."""
    torch.manual_seed(0)
    resnet = build("resnet20", 10).eval().requires_grad_(False)
    images = torch.randn(batch["resnet20"], 3, 32, 32)
    layer = resnet.get_submodule("layer3")
    yield Subject(name="resnet20, 32×32", model=resnet, layer=layer, images=images)
    with contextlib.suppress(ImportError):
        lite = Lite().eval().requires_grad_(False)
        images = torch.randn(batch["lite0"], 3, 224, 224)
        yield Subject(name="EfficientNet-Lite0, 224×224", model=lite, layer=lite.top, images=images)


def work_of(subject: Subject, targets: list[int]) -> Iterator[tuple[str, Work]]:
    """Every way of making the same maps, by name; the bare forward pass first."""
    model, layer, images = subject.model, subject.layer, subject.images
    parts = cut(model, (images.shape[2], images.shape[3]))
    chosen = torch.tensor(targets)
    theirs = [ClassifierOutputTarget(target) for target in targets]

    def bare() -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(images)
        return logits

    def head_only() -> Tensor:
        with torch.no_grad():
            leaf = parts.backbone(images)[0].requires_grad_()
        score = parts.head(leaf).gather(1, chosen[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, leaf)
        return gradcam(leaf.detach(), gradient)

    def full_backward() -> Tensor:
        live = images.clone().requires_grad_()
        found: list[Tensor] = []
        handle = layer.register_forward_hook(lambda *hooked: found.append(hooked[-1]))
        try:
            score = model(live).gather(1, chosen[:, None]).sum()
        finally:
            handle.remove()
        gradient, _ = torch.autograd.grad(score, [found[0], live])
        return gradcam(found[0].detach(), gradient)

    def peer_gradcam() -> object:
        with pytorch_grad_cam.GradCAM(model=model, target_layers=[layer]) as method:
            return method(input_tensor=images.clone().requires_grad_(), targets=theirs)

    def peer_torchcam() -> object:
        with torchcam.methods.GradCAM(model, target_layer=layer) as method:
            return method(targets, model(images.clone().requires_grad_()), normalized=False)

    def peer_captum() -> object:
        return captum.attr.LayerGradCam(model, layer).attribute(images, target=chosen)

    yield "bare forward", bare
    yield "audit, backward through the head", head_only
    yield "full backward", full_backward
    yield "torch-cam", peer_torchcam
    yield "captum", peer_captum
    yield "pytorch-grad-cam", peer_gradcam


def measure(work: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of every way, taking turns after two rounds of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 2):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Print one table a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    warnings.simplefilter("ignore")
    for subject in subjects({"resnet20": 256, "lite0": 16}):
        with torch.no_grad():
            targets = subject.model(subject.images).argmax(dim=1).tolist()
        work = dict(work_of(subject, targets))
        ours, full = work["audit, backward through the head"](), work["full backward"]()
        assert isinstance(ours, Tensor) and isinstance(full, Tensor)
        apart = float((ours - full).abs().max() / full.abs().max())
        seconds = measure(work, settings.rounds)
        bare = statistics.median(seconds["bare forward"])
        print(
            f"\n{subject.name}, {len(subject.images)} images, {settings.threads} threads; ", end=""
        )
        print(f"head-only and full backward differ by {apart:.1e} of the peak\n")
        print("| | over the bare forward | spread | images/s |\n| --- | --- | --- | --- |")
        for name, taken in seconds.items():
            low, middle, high = (f(taken) for f in (min, statistics.median, max))
            ratio = f"{middle / bare:.2f}"
            spread = f"{low / bare:.2f}–{high / bare:.2f}"
            print(f"| {name} | {ratio} | {spread} | {len(subject.images) / middle:,.0f} |")


if __name__ == "__main__":
    main()
