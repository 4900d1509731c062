"""Single pictures explained: what the classifier sees in them, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audit import cam
from audit.devices import pick_device
from audit.errors import AuditError, UsageError
from audit.explain.files import Place, Read, find_images, places_of, read_batches
from audit.explain.names import labels_of, number_of, read_names
from audit.explain.opening import open_for_pictures, settings_of
from audit.explaining import CLASS_AGNOSTIC, Explainer, Explanation, explainer_of
from audit.files import make_folder, write_atomically
from audit.models import cut, describe, evaluation, own_failures, plain_kernels
from audit.report.pictures.panels import Panel, draw_panels

OK, UNREADABLE, NONFINITE = "ok", "unreadable", "nonfinite"


@dataclass(frozen=True, kw_only=True)
class ExplainedImage:
    """What the classifier said of one picture.

    Attributes:
        path: The picture.
        status: ``ok``; ``unreadable``; ``nonfinite`` where the network gave no finite logits.
        reason: Why it is not ``ok``.
        probabilities: Of all classes by name, the highest first.
        explained: The classes that have a heatmap, in order.
        heatmap: The file with them.
        channels: The file with the most active channels, where it was asked for.
    """

    path: Path
    status: str = OK
    reason: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    explained: tuple[str, ...] = ()
    heatmap: Path | None = None
    channels: Path | None = None


def explain_images(
    images: Path | str | Iterable[Path | str],
    *,
    network: nn.Module | None = None,
    classes: Sequence[str] | Path | str | None = None,
    targets: int | Sequence[str | int] = 1,
    channels: int = 0,
    out: Path | str = ".",
    say: Callable[[str], object] | None = None,
    **settings: Any,
) -> list[ExplainedImage]:
    """Classify pictures and draw where the evidence lies.

    For each picture ``<name>_heatmap.jpg`` is written: one panel for each explained class, the
    picture with the heatmap over the part that the network saw (a single one for methods whose map
    is the same for every class). Pictures whose long side is below 320 pixels are enlarged to
    that. The second picture of a name gets ``<name>_heatmap_2.jpg``;
    a picture that is explained is never written over, what an earlier call drew is.

    Args:
        images: Files, folders (all pictures in them at any depth, sorted) or globs. What this
            function drew earlier is left out of folders and globs.
        network: The network, where you hold it already; it is afterwards as it was before.
            Otherwise the setting ``model`` names it.
        classes: Names of the outputs: in order, with commas between, or a file of them, see
            :func:`read_names`. ``None`` takes the network's own.
        targets: Explain so many of the most probable classes, or these, by name or number.
        channels: Draw so many of the most active channels' maps too.
        out: Folder for the heatmaps.
        say: Is told in a few lines what was opened, and how.
        **settings: ``model``, ``checkpoint``, ``checkpoint_key``, ``download``,
            ``preprocessing``, ``image_size``, ``resize``, ``interpolation``, ``mean``, ``std``,
            ``target_layer``, ``method`` (one), ``smooth`` and ``device`` of
            :class:`audit.config.AuditConfig`.

    Returns:
        One entry a picture, in order; those that cannot be read have another ``status``.

    Raises:
        AuditError: If nothing matches a name, or the network cannot be opened or explained.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (64, 48)).save(tmp / "night.png")
        >>> network = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 4, 3, stride=8), torch.nn.ReLU(),
        ...     torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> (night,) = explain_images(
        ...     tmp / "night.png", network=network, classes=["moon", "sun"], image_size=32,
        ...     mean=(0, 0, 0), std=(1, 1, 1), out=tmp)
        >>> sorted(night.probabilities), night.heatmap.name
        (['moon', 'sun'], 'night_heatmap.jpg')
    """
    return list(
        each_image(
            images,
            network=network,
            classes=classes,
            targets=targets,
            channels=channels,
            out=out,
            say=say,
            **settings,
        )
    )


def each_image(
    images: Path | str | Iterable[Path | str],
    *,
    network: nn.Module | None = None,
    classes: Sequence[str] | Path | str | None = None,
    targets: int | Sequence[str | int] = 1,
    channels: int = 0,
    out: Path | str = ".",
    say: Callable[[str], object] | None = None,
    **settings: Any,
) -> Iterator[ExplainedImage]:
    """The same as :func:`explain_images`, one picture after the other.

    Args:
        images: As there, and so are the others.
        network: The network.
        classes: Names of the outputs.
        targets: Classes to explain, or how many.
        channels: How many channels to draw.
        out: Folder for the heatmaps.
        say: Is told what was opened.
        **settings: Of the network, its images and the explanation.

    Yields:
        One entry a picture, in order.
    """
    files = find_images(images)
    config = settings_of(settings | {"channels": channels or None})
    names = read_names(classes) if classes is not None else None
    device = pick_device(config.device)
    classifier = open_for_pictures(config, network, names)
    labels, notes = labels_of(names, classifier)
    asked = _asked(labels, targets, channels)
    geometry = classifier.preprocessing.geometry
    assert geometry is not None
    parts = cut(
        classifier.module, geometry.size, layers=config.target_layer, batch=classifier.batch
    )
    if say is not None:
        say(describe(classifier, parts, notes))
    places = places_of(files, make_folder(Path(out)))
    failures = own_failures(
        classifier.architecture, "mend the network, or explain fewer pictures at a time"
    )
    with failures, evaluation(classifier.module), plain_kernels():
        explainer = explainer_of(config, classifier, parts)
        explainer.to_device(device)
        for batch in read_batches(files, geometry):
            yield from _explained(explainer, batch, places, asked)


def probability_lines(one: ExplainedImage, most: int = 5) -> list[str]:
    """The most probable classes of a picture, a line each, in columns.

    Args:
        one: The picture.
        most: How many at most.

    Example:
        >>> shares = {"roses": 0.913, "ivy": 0.087}
        >>> said = ExplainedImage(path=Path("x.jpg"), probabilities=shares)
        >>> probability_lines(said)
        ['roses  0.913', 'ivy    0.087']
    """
    shown = list(one.probabilities.items())[:most]
    width = max((len(name) for name, _ in shown), default=0)
    return [f"{name.ljust(width)}  {share:.3f}" for name, share in shown]


def _asked(labels: tuple[str, ...], targets: int | Sequence[str | int], channels: int) -> _Asked:
    if isinstance(targets, int):
        if targets < 1:
            raise UsageError("--top is not valid", expected="1 or more", found=str(targets))
        return _Asked(labels=labels, targets=(), top=targets, channels=channels)
    given = [targets] if isinstance(targets, str) else targets
    # Each once, should a class be named twice.
    numbers = tuple(dict.fromkeys(number_of(str(target).strip(), labels) for target in given))
    return _Asked(labels=labels, targets=numbers, top=1, channels=channels)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What of a picture is explained.

    Attributes:
        labels: The classes' names.
        targets: The classes to explain; none means the most probable.
        top: How many of those.
        channels: How many channels to draw.
    """

    labels: tuple[str, ...]
    targets: tuple[int, ...]
    top: int
    channels: int

    def choose(self, logits: Tensor) -> Tensor:
        """The classes to explain, N×T, for logits N×K."""
        if self.targets:
            chosen = torch.tensor(self.targets, device=logits.device)
            return chosen.expand(len(logits), -1)
        return logits.topk(min(self.top, logits.shape[1]), dim=1).indices


def _explained(
    explainer: Explainer, batch: Sequence[Read], places: Mapping[Path, Place], asked: _Asked
) -> Iterator[ExplainedImage]:
    framed = [read.framed for read in batch if read.framed is not None]
    found = iter(_one_by_one(_run(explainer, framed, asked), explainer, asked) if framed else ())
    for read in batch:
        if read.picture is None:
            yield ExplainedImage(path=read.path, status=UNREADABLE, reason=read.reason)
        else:
            yield _drawn(read, places[read.path], next(found), asked)


def _run(explainer: Explainer, framed: list[Tensor], asked: _Asked) -> Explanation:
    images = torch.stack(framed).to(explainer.mean.device)
    try:
        explanation: Explanation = explainer(images, asked.choose)
    except torch.OutOfMemoryError as error:
        raise AuditError(
            f"the device {images.device} has too little memory for {len(images)} images of "
            f"{images.shape[2]}×{images.shape[3]}",
            remedy="compute on the CPU: --device cpu",
        ) from error
    return explanation


@dataclass(frozen=True, kw_only=True)
class _One:
    """What there is to tell of one picture; on the CPU."""

    logits: Tensor
    targets: list[int]
    maps: NDArray[np.float32]
    channels: list[tuple[int, float, NDArray[np.float32]]]
    agnostic: str


def _one_by_one(explanation: Explanation, explainer: Explainer, asked: _Asked) -> Iterator[_One]:
    (method,) = explainer.methods
    agnostic = method if method in CLASS_AGNOSTIC else ""
    maps = explanation.maps[method].float().cpu().numpy()
    features = explanation.features.float()
    numbers, own = cam.top_channels(features, min(asked.channels, features.shape[1]))
    own, numbers = own.cpu(), numbers.cpu()
    for row, targets in enumerate(explanation.targets.tolist()):
        # Of a map that is the same for every class, one is enough.
        shown = targets[:1] if agnostic else targets
        yield _One(
            logits=explanation.logits[row].float().cpu(),
            targets=shown,
            maps=maps[row, : len(shown)],
            channels=[
                (number, float(each.mean()), each.numpy())
                for number, each in zip(numbers[row].tolist(), own[row], strict=True)
            ],
            agnostic=agnostic,
        )


def _drawn(read: Read, place: Place, one: _One, asked: _Asked) -> ExplainedImage:
    if not bool(torch.isfinite(one.logits).all()):
        reason = "the network's logits for it are not finite"
        return ExplainedImage(path=read.path, status=NONFINITE, reason=reason)
    assert read.picture is not None
    probabilities = one.logits.double().softmax(dim=0)
    order = probabilities.argsort(descending=True, stable=True).tolist()
    picture = read.picture.permute(1, 2, 0).contiguous().numpy()
    shown = _class_panels(one, probabilities, asked.labels)
    write_atomically(place.heatmap, draw_panels(picture, shown, read.box))
    if asked.channels:
        write_atomically(place.channels, draw_panels(picture, _channel_panels(one), read.box))
    return ExplainedImage(
        path=read.path,
        probabilities={asked.labels[k]: float(probabilities[k]) for k in order},
        explained=tuple(asked.labels[k] for k in one.targets),
        heatmap=place.heatmap,
        channels=place.channels if asked.channels else None,
    )


def _class_panels(one: _One, probabilities: Tensor, labels: Sequence[str]) -> list[Panel]:
    panels = []
    for target, values in zip(one.targets, one.maps, strict=True):
        heat, note = _heat(values)
        if one.agnostic and not note:
            note = f"{one.agnostic}: the same for every class"
        value = _percent(float(probabilities[target]))
        panels.append(Panel(heat=heat, name=labels[target], value=value, note=note))
    return panels


def _channel_panels(one: _One) -> list[Panel]:
    panels = []
    for number, mean, values in one.channels:
        heat, note = _heat(values)
        panels.append(
            Panel(heat=heat, name=f"channel {number}", value=f"· mean {mean:.3g}", note=note)
        )
    return panels


def _heat(values: NDArray[np.float32]) -> tuple[NDArray[np.float32] | None, str]:
    """The positive part of a map as a share of its peak, and what to say if there is none."""
    if not np.isfinite(values).all():
        return None, "the map is not finite"
    peak = float(values.max())
    if peak <= 0:
        return None, "the map is nowhere positive"
    return (values.clip(0) / peak).astype(np.float32), ""


def _percent(share: float) -> str:
    return "<0.1%" if share < 0.0005 else f"{100 * share:.1f}%"
