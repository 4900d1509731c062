"""Maps from masking: a channel weighs what the logit does when it is kept alone or taken away.

No gradients, but a pass for each channel of each image that says anything. Passes run in chunks
over (image, channel) pairs; the chunks are nearly equal, and none is much smaller than the others,
because the routines for tiny batches round differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from audit.cam.resample import to_image

# What the inputs of one chunk take by default; the network's activations come on top, for usual
# networks ten to thirty times as much. On the CPU they should stay in its caches: at 224 pixels
# EfficientNet-Lite0 takes 25 ms an image in chunks of 2 MiB, and 66 ms in chunks of 32 MiB.
CPU_LIMIT_BYTES = 2 * 2**20
DEVICE_LIMIT_BYTES = 64 * 2**20


@torch.no_grad()
def scorecam(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    features: Tensor,
    targets: Tensor,
    *,
    limit_bytes: int | None = None,
) -> Tensor:
    """Sum over channels of activation times how well the image under that channel alone scores.

    A channel's map is enlarged, then scaled to [0, 1], and multiplies the image. Its score is the
    target's logit of that masked image, less the logit of a baseline image; its weight is the
    softmax of the scores over the channels. The baseline lowers all scores alike and cancels in
    the softmax. A channel that is the same in all cells masks everything: its masked image is the
    zero image, the paper's baseline, which is passed once for all of them.

    The paper's text and the authors' code speak of class probabilities, and the code leaves the
    softmax over channels out; its Algorithm 1, followed here, takes logits and that softmax.

    Args:
        model: Images to logits, N×3×H×W to N×K, in evaluation mode.
        images: Normalised, N×3×H×W.
        features: ``A`` of these images, N×C×h×w.
        targets: Classes to explain, int64, N×T; they share the passes.
        limit_bytes: What the masked images of one chunk may take together; one at least is passed.
            By default 2 MiB on the CPU, 64 MiB elsewhere.

    Returns:
        Signed maps, N×T×h×w: weighted means of the channels.

    Source:
        Wang et al. 2020, "Score-CAM", Algorithm 1 (equations 6 to 9) before the ReLU.

    Example:
        >>> A = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
        >>> def brightness_on_the_left(x: torch.Tensor) -> torch.Tensor:
        ...     return x[:, 0, :, 0]
        >>> scorecam(brightness_on_the_left, torch.ones(1, 3, 1, 2), A, torch.tensor([[0]]))
        tensor([[[[0.7311, 0.2689]]]])
    """
    size = (images.shape[2], images.shape[3])
    varied = features.amax(dim=(2, 3)) > features.amin(dim=(2, 3))
    blank = model(images.new_zeros(1, *images.shape[1:]))[0, targets].to(features.dtype)
    scores = blank[:, None].repeat(1, features.shape[1], 1)
    for image, channel in _chunks(varied, (images,), limit_bytes):
        masked = images[image].mul_(_masks(features[image, channel], size)[:, None])
        scores[image, channel] = model(masked).gather(1, targets[image]).to(scores.dtype)
    return torch.einsum("nct,nchw->nthw", scores.softmax(dim=1), features)


@torch.no_grad()
def ablationcam(
    head: Callable[..., Tensor],
    features: Tensor,
    logits: Tensor,
    targets: Tensor,
    *,
    rest: Sequence[Tensor] = (),
    limit_bytes: int | None = None,
) -> Tensor:
    """Sum over channels of activation times the share of the logit lost without that channel.

    The weight is ``(y − y_c) / y``, with ``y_c`` the target's logit after channel ``c`` is set to
    0. As in the paper, ``y`` keeps its sign: for a class with a negative logit the map is positive
    where the channels *lower* the logit.

    Args:
        head: Features, and the rest if there is any, to logits: N×C×h×w to N×K, in evaluation
            mode.
        features: ``A``, N×C×h×w.
        logits: ``head(features, *rest)``, N×K. Logits from elsewhere that differ by a constant
            would shift every weight.
        targets: Classes to explain, int64, N×T; they share the passes.
        rest: What else the head reads of each image, N×…; it stays as it is.
        limit_bytes: What the head's inputs of one chunk may take together; one image's at least
            are passed. By default 2 MiB on the CPU, 64 MiB elsewhere.

    Returns:
        Signed maps, N×T×h×w; 0 where ``y`` is 0.

    Source:
        Desai and Ramaswamy 2020, "Ablation-CAM", the weights normalised by ``y``, before the ReLU.

    Example:
        >>> A = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
        >>> def head(x: torch.Tensor) -> torch.Tensor:
        ...     return x.sum(dim=(2, 3)) @ torch.tensor([[1.0], [2.0]])
        >>> ablationcam(head, A, head(A), torch.tensor([[0]]))
        tensor([[[[1.5000, 1.5000]]]])
    """
    whole = logits.gather(1, targets).to(features.dtype)
    # Taking away a channel that is 0 everywhere changes nothing.
    present = features.ne(0).flatten(2).any(dim=2)
    lost = features.new_zeros(*present.shape, targets.shape[1])
    for image, channel in _chunks(present, (features, *rest), limit_bytes):
        ablated = features[image]
        ablated[torch.arange(len(ablated), device=ablated.device), channel] = 0
        left = head(ablated, *(each[image] for each in rest)).gather(1, targets[image])
        lost[image, channel] = whole[image] - left.to(lost.dtype)
    weights = torch.where(whole[:, None] != 0, lost / whole[:, None], 0.0)
    return torch.einsum("nct,nchw->nthw", weights, features)


def _chunks(
    wanted: Tensor, inputs: Sequence[Tensor], limit_bytes: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Image and channel numbers of the wanted pairs (bool N×C), in nearly equal chunks.

    ``limit_bytes`` bounds a chunk's copies of the inputs, N×….
    """
    if limit_bytes is None:
        limit_bytes = CPU_LIMIT_BYTES if wanted.device.type == "cpu" else DEVICE_LIMIT_BYTES
    image, channel = wanted.nonzero(as_tuple=True)
    bytes_each = sum(each.shape[1:].numel() * each.itemsize for each in inputs)
    count = math.ceil(len(image) / max(1, limit_bytes // bytes_each))
    if count:
        yield from zip(image.tensor_split(count), channel.tensor_split(count), strict=True)


def _masks(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps N×h×w, enlarged and then scaled to [0, 1], N×H×W; a constant map gives 0."""
    large = to_image(maps, size)
    low = large.amin(dim=(1, 2), keepdim=True)
    span = large.amax(dim=(1, 2), keepdim=True) - low
    return torch.where(span > 0, (large - low) / span, 0.0)
