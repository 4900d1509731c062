"""From what the user names to a classifier whose outputs are the data's classes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audit.errors import ModelError
from audit.models.classmap import (
    ClassMap,
    Gathering,
    MappedClasses,
    match_names,
    read_class_map,
)
from audit.models.frozen import freeze
from audit.models.network import Network, Request
from audit.models.preprocessing import Preprocessing, PreprocessingFlags, Triple
from audit.models.probe import probe_images, run_probe
from audit.models.programs import FirstLogits, logits_of
from audit.models.sources import from_module, open_network

# How far logits may be from each other and be the same, relative to their size.
_STEADY = 1e-3


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network with what is needed to feed it and to read it.

    Attributes:
        module: Normalised images to logits, one for each class of the data. It may be a wrapper
            around the user's network, which is shared, not copied.
        architecture: Its name.
        weights: Where the weights came from, for people.
        sha256: Of the weights, and of the code where that is the user's.
        preprocessing: Size, crop and normalisation.
        classes: Names of the outputs.
        classmap: Which outputs of the network make up each class; ``None`` where they are the
            same.
        batch: The only number of images that the network takes at a time; ``None`` for any.
        notes: What the user should know.
    """

    module: nn.Module
    architecture: str
    weights: str
    sha256: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    classmap: ClassMap | None = None
    batch: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> Triple:
        """Of the normalisation, for values in [0, 1]."""
        assert self.preprocessing.mean is not None
        return self.preprocessing.mean

    @property
    def std(self) -> Triple:
        """Likewise."""
        assert self.preprocessing.std is not None
        return self.preprocessing.std


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the data asks of a classifier.

    Attributes:
        classes: The data's class names; ``None`` takes the network's own outputs as classes.
        by_number: Whether these are only the numbers of the classes: where the weights know what
            their outputs are called, these names are taken.
        odd_labels: What the user should know of the data's labels where the classes do not fit.
        native_size: H and W of the data's images, where they all have one size.
        flags: What the user says of the preprocessing.
        class_map: A file, see :func:`audit.models.classmap.read_class_map`.
        class_map_by: See :class:`audit.models.classmap.ClassMap`.
    """

    classes: Sequence[str] | None
    by_number: bool = False
    odd_labels: str = ""
    native_size: tuple[int, int] | None = None
    flags: PreprocessingFlags = field(default_factory=PreprocessingFlags)
    class_map: Path | None = None
    class_map_by: Gathering = "max"


def open_classifier(source: Request | nn.Module, wanted: Wanted) -> Classifier:
    """Open a network, load its weights and settle its images and classes.

    Args:
        source: What the user asked for, or a network that is at hand.
        wanted: What the data asks.

    Returns:
        The classifier, on the CPU.

    Raises:
        ModelError: If the model is unknown, its weights are absent or do not fit, it does not run
            on such images, or its classes are others.
    """
    network = from_module(source) if isinstance(source, nn.Module) else open_network(source)
    preprocessing = _settled(network, wanted)
    size = preprocessing.geometry.size if preprocessing.geometry else wanted.native_size
    assert size is not None
    proven = _proven(network, size)
    network = replace(network, notes=network.notes + proven.notes)
    classmap, notes = _classmap(network, wanted, proven.outputs)
    module = proven.module if classmap is None else MappedClasses(proven.module, classmap)
    if not isinstance(source, nn.Module):
        freeze(module)
    return Classifier(
        module=module,
        architecture=network.name,
        weights=network.weights,
        sha256=network.identity,
        preprocessing=preprocessing,
        classes=_names(network, wanted, proven.outputs),
        classmap=classmap,
        batch=proven.batch,
        notes=network.notes + notes,
    )


def _settled(network: Network, wanted: Wanted) -> Preprocessing:
    """The network's word, overridden by flags; images of one size keep it if nobody objects."""
    own = network.preprocessing
    if wanted.native_size is not None and network.usual_size:
        # Small images of one size: a network trained on them sees them whole.
        own = replace(own, geometry=None)
    settled = wanted.flags.applied_to(own)
    missing = [key for key in ("mean", "std") if getattr(settled, key) is None]
    if settled.geometry is None and wanted.native_size is None:
        missing.insert(0, "image size")
    if missing:
        raise _unsaid(network, missing)
    return settled


def _unsaid(network: Network, missing: Sequence[str]) -> ModelError:
    """Tell of all at once that nobody says of a network's images."""
    flags = {
        "image size": ("--image-size N or HxW", "--image-size 224 --resize 256"),
        "mean": ("--mean R G B, for values in [0, 1]", "--mean 0.485 0.456 0.406"),
        "std": ("--std R G B, for values in [0, 1]", "--std 0.229 0.224 0.225"),
    }
    problem = f"how the images of '{network.name}' were normalised is not known"
    if missing == ["image size"]:
        problem = f"the size of the images that '{network.name}' wants is not known"
    elif "image size" in missing:
        problem = (
            f"the size of the images that '{network.name}' wants, and how they were normalised, "
            "are not known"
        )
    return ModelError(
        problem,
        expected="; ".join(flags[key][0] for key in missing),
        found="of network, weights and flags none says: " + ", ".join(missing),
        remedy="give the training's; for ImageNet's usual values: --preprocessing imagenet, or "
        + " ".join(flags[key][1] for key in missing),
    )


@dataclass(frozen=True, kw_only=True)
class _Proven:
    """A network that was seen to give logits.

    Attributes:
        module: Wrapped, if it returns more than logits.
        outputs: How many logits.
        batch: The only number of images it takes; ``None`` for any.
        notes: What was seen of them.
    """

    module: nn.Module
    outputs: int
    batch: int | None
    notes: tuple[str, ...]


def _proven(network: Network, size: tuple[int, int]) -> _Proven:
    module, name = network.module, network.name
    _refuse_more_inputs(module, name)
    images = probe_images(network.batch or 2, size)
    batch, output = _first_run(network, images)
    images = images[:batch]
    logits = logits_of(output)
    _refuse_no_logits(logits, len(images), name)
    module = module if logits is output else FirstLogits(module)
    _refuse_unsteady(module, images, logits, name)
    return _Proven(
        module=module, outputs=int(logits.shape[1]), batch=batch, notes=_notes_on(logits, name)
    )


def _first_run(network: Network, images: Tensor) -> tuple[int | None, Any]:
    """The only batch size, and what the network gives for that many of the images."""
    try:
        output = run_probe(network.module, images, network.name)
    except ModelError:
        if not isinstance(network.module, torch.jit.ScriptModule):
            raise
        output = None
    logits = logits_of(output)
    if isinstance(network.module, torch.jit.ScriptModule) and (
        output is None or (isinstance(logits, Tensor) and len(logits) != len(images))
    ):
        # Tracing to TorchScript can freeze the batch size of the example, usually 1.
        return 1, run_probe(network.module, images[:1], network.name)
    return network.batch, output


def _refuse_unsteady(module: nn.Module, images: Tensor, logits: Tensor, name: str) -> None:
    """Refuse logits that are drawn, or that depend on the other images of the batch."""
    others = images.clone()
    if len(images) > 1:
        others[-1] *= -2
    same = len(images) - 1 or 1
    gap = _gap(module, others, logits[:same], name)
    if gap <= _STEADY:
        return
    if len(images) > 1 and _gap(module, images, logits, name) <= _STEADY:
        raise ModelError(
            f"'{name}' gives an image other logits beside other images",
            expected="logits that depend on the image alone",
            found=f"logits that differ by {gap:.1%}: batch statistics, or a branch on the whole "
            "batch",
            remedy="call eval() before an export or a trace; let nothing depend on the batch",
        )
    raise ModelError(
        f"'{name}' gives the same image other logits each time",
        expected="logits that depend on the image alone",
        found=f"logits that differ by {gap:.1%}: dropout, or other random numbers",
        remedy="call eval() before an export or a trace",
    )


def _gap(module: nn.Module, images: Tensor, logits: Tensor, name: str) -> float:
    """How far the logits of the first images are from those of before, relative to their size."""
    again: Tensor = logits_of(run_probe(module, images, name))[: len(logits)]
    return float((again - logits).abs().max()) / (1 + float(logits.abs().max()))


def _notes_on(logits: Tensor, name: str) -> tuple[str, ...]:
    sums = logits.sum(dim=1)
    if logits.shape[1] < 2 or float(logits.min()) < 0 or float((sums - 1).abs().max()) > _STEADY:
        return ()
    return (
        f"'{name}' gives probabilities, not logits: contributions are shares of these; better "
        "audit it without its softmax",
    )


def _refuse_no_logits(output: Any, count: int, name: str) -> None:
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != count:
        shown = type(output).__name__
        if isinstance(output, Tensor):
            shown = "×".join(map(str, output.shape))
        raise ModelError(
            f"'{name}' does not give logits",
            expected=f"a tensor of {count}×classes for {count} images",
            found=shown,
            remedy="wrap it in a module that returns the logits alone",
        )
    if not bool(torch.isfinite(output).all()):
        raise ModelError(
            f"'{name}' gives logits that are not finite",
            expected="finite numbers for any image",
            found=f"{int((~torch.isfinite(output)).sum())} NaN or infinite of {output.numel()}",
            remedy="check the weights, and that mean and std are the training's",
        )


def _names(network: Network, wanted: Wanted, outputs: int) -> tuple[str, ...]:
    if wanted.classes is not None and not _names_numbers(network, wanted, outputs):
        return tuple(wanted.classes)
    if network.classes is not None and len(network.classes) == outputs:
        return network.classes
    return tuple(f"class {number}" for number in range(outputs))


def _names_numbers(network: Network, wanted: Wanted, outputs: int) -> bool:
    """Whether the data's labels are numbers of outputs whose names are known for sure."""
    names, classes = network.classes, wanted.classes
    return (
        wanted.by_number
        and wanted.class_map is None
        and network.sure_of_classes
        and classes is not None
        and names is not None
        and len(classes) <= outputs == len(names)
        # Digits may be classes of their own.
        and match_names(classes, names) is None
    )


def _classmap(
    network: Network, wanted: Wanted, outputs: int
) -> tuple[ClassMap | None, tuple[str, ...]]:
    """Which outputs make up each class of the data, and what the user should know of that."""
    names = network.classes
    notes: tuple[str, ...] = ()
    if names is not None and len(names) != outputs:
        notes = (
            f"{len(names)} class names come with {network.weights}, which has {outputs} outputs: "
            "they are left aside",
        )
        names = None
    if wanted.class_map is not None:
        if wanted.classes is None:
            raise ModelError("a class map needs the names of the data's classes")
        classmap = read_class_map(
            wanted.class_map, wanted.classes, outputs, names, wanted.class_map_by
        )
        return classmap, notes
    if wanted.classes is None or (names is not None and list(names) == list(wanted.classes)):
        return None, notes
    if names is not None and _names_numbers(network, wanted, outputs):
        listed = ", ".join(f"{n} is '{name}'" for n, name in enumerate(names[:3]))
        note = (
            f"the data's labels are numbers: taken as those of the model's {outputs} outputs, "
            f"{listed}" + (" …" if outputs > 3 else "")
        )
        return None, (*notes, note)
    matched = match_names(wanted.classes, names) if names is not None else None
    if matched is not None:
        same = matched.members == tuple((n,) for n in range(outputs))
        return None if same else matched, notes
    if outputs != len(wanted.classes):
        raise _another_number(network, wanted, outputs)
    if names is None:
        order = ", ".join(wanted.classes[:4]) + (" …" if outputs > 4 else "")
        note = f"the names of the model's classes are not known: taken in the data's order, {order}"
        return None, (*notes, note)
    if network.sure_of_classes:
        raise ModelError(
            f"{network.weights} was trained on other classes than the data's",
            expected=", ".join(wanted.classes),
            found=", ".join(names),
            remedy=_after_labels(wanted, "say which outputs make up each class: --class-map FILE"),
        )
    differs = next(n for n in range(outputs) if names[n] != wanted.classes[n])
    note = (
        f"the data's classes are taken in the order of the outputs, which are usually called "
        f"otherwise: output {differs} is '{wanted.classes[differs]}', usually '{names[differs]}'"
    )
    return None, (*notes, note)


def _another_number(network: Network, wanted: Wanted, outputs: int) -> ModelError:
    classes = wanted.classes or ()
    expected = f"{len(classes)} outputs: {', '.join(classes[:4])}" + (
        " …" if len(classes) > 4 else ""
    )
    remedy = (
        "audit it on the data it was trained for, or say which outputs make up each class: "
        "--class-map FILE"
    )
    if wanted.by_number:
        expected = f"{len(classes)} outputs, for labels from 0 to {len(classes) - 1}"
    if wanted.by_number and outputs < len(classes):
        remedy = f"look whether the label {len(classes) - 1} is a mistake; else {remedy}"
    if outputs == 1:
        remedy = "wrap it in a module that gives two logits, for one number z: 0 and z"
    return ModelError(
        f"{network.weights} has another number of classes than the data",
        expected=expected,
        found=f"{outputs}",
        remedy=_after_labels(wanted, remedy),
    )


def _after_labels(wanted: Wanted, remedy: str) -> str:
    """A remedy, after the one that odd labels suggest."""
    return f"mend the labels ({wanted.odd_labels}); else {remedy}" if wanted.odd_labels else remedy


def _refuse_more_inputs(module: nn.Module, name: str) -> None:
    needed = _inputs_of(module)
    if len(needed) == 1:
        return
    raise ModelError(
        f"'{name}' does not take images alone",
        expected="a network with one input, images N×3×H×W",
        found=f"{len(needed)} inputs: {', '.join(needed)}" if needed else "no input",
        remedy="wrap it in a module that fixes the others",
    )


def _inputs_of(module: nn.Module) -> list[str]:
    if isinstance(module, torch.jit.ScriptModule):
        schema: Any = module.forward.schema  # type: ignore[attr-defined]
        return [a.name for a in schema.arguments[1:] if not a.has_default_value()]
    if isinstance(module, torch.fx.GraphModule):
        return [node.name for node in module.graph.nodes if node.op == "placeholder"]
    if type(module).forward is nn.Module.forward or "_forward_unimplemented" in repr(
        module.forward
    ):
        return []
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ["images"]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ["images"]
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in positional]
    needed += [p.name for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    # All defaulted: the first is the images.
    return needed or [p.name for p in parameters][:1]
