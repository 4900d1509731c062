"""A network with what it says of itself, and what the user asks for."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from audit.errors import ModelError
from audit.files import sha256_of
from audit.models.checkpoint import Checkpoint, fitted
from audit.models.preprocessing import Preprocessing, from_header, from_timm


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network and what it says of itself.

    Attributes:
        module: The network, as its maker left it.
        name: For paths and titles.
        weights: Where the weights came from, for people.
        identity: A digest of code and weights.
        preprocessing: What it wants done to its images.
        usual_size: Whether the size of its images is only what is usual for the architecture,
            while the weights may have been trained on another.
        classes: Names of its outputs in order, where they are known.
        sure_of_classes: Whether the names belong to these weights, rather than to the
            architecture's usual ones.
        batch: The only number of images it takes at a time; ``None`` for any.
        notes: What the user should know.
    """

    module: nn.Module
    name: str
    weights: str
    identity: str
    preprocessing: Preprocessing
    usual_size: bool = False
    classes: tuple[str, ...] | None = None
    sure_of_classes: bool = True
    batch: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for.

    Attributes:
        model: A name, ``module:function`` or a program file; ``None`` takes what the checkpoint
            says of itself, else ``cnn``.
        checkpoint: Weights, or ``None``.
        key: Which entry of the checkpoint.
        dataset: The dataset as the user names it; some have weights that come with the audit.
        num_classes: How many classes the data has, if that is known.
        download: Whether pretrained weights may be fetched.
        random_weights: Take random ones where no checkpoint is given, to look at the layers of
            a network by name.
    """

    model: str | None
    checkpoint: Path | None = None
    key: str | None = None
    dataset: str = ""
    num_classes: int | None = None
    download: bool = False
    random_weights: bool = False


def with_random_weights(module: nn.Module, name: str, preprocessing: Preprocessing) -> Network:
    """A network whose weights were just drawn, with logits that depend on every layer.

    Args:
        module: Is changed in place.
        name: Its name.
        preprocessing: What is usual for it.
    """
    for weight in module.parameters():
        # Some last layers begin with zeros, and then no logit depends on any layer.
        if weight.dim() >= 2 and not bool(weight.any()):
            nn.init.normal_(weight, std=0.02)
    return Network(
        module=module,
        name=name,
        weights="random",
        identity=digest_of(module),
        preprocessing=preprocessing,
    )


def other_rows(
    module: nn.Module, checkpoint: Checkpoint, layers: tuple[str, ...] | None = None
) -> int | None:
    """How many classes a checkpoint has, where the network has another number of them.

    Args:
        module: A network whose names the checkpoint has.
        checkpoint: The weights.
        layers: Names of its last layers; ``None`` takes the last layer with a matrix.

    Returns:
        ``None`` if they are as many, or if that cannot be told.
    """
    if layers is None:
        layers = tuple(
            n for n, m in module.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))
        )[-1:]
    own = module.state_dict()
    tensors, _ = fitted(checkpoint, own)
    for layer in layers:
        theirs, ours = tensors.get(f"{layer}.weight"), own.get(f"{layer}.weight")
        if theirs is None or theirs.dim() < 2:
            continue
        # A network without a classifier has nothing to compare with.
        if ours is None or (theirs.shape[1:] == ours.shape[1:] and len(theirs) != len(ours)):
            return len(theirs)
    return None


def own_word(module: nn.Module, origin: str) -> Preprocessing:
    """What a network says by ``pretrained_cfg`` if it is timm's.

    Args:
        module: Any network.
        origin: Who says so.
    """
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(config, Mapping) and "input_size" in config:
        return from_timm(config, origin)
    return Preprocessing()


def header_or(checkpoint: Checkpoint, usual: Preprocessing) -> Preprocessing:
    """What a checkpoint says, and what is usual where it is silent.

    Args:
        checkpoint: The weights.
        usual: For the architecture.
    """
    return said_or(from_header(checkpoint.about, str(checkpoint.path)), usual)


def said_or(said: Preprocessing, usual: Preprocessing) -> Preprocessing:
    """What is said of a network, and what is usual where that is silent.

    Args:
        said: Of these weights.
        usual: For the architecture.
    """
    given = (said.geometry, said.mean, said.std)
    if given == (None, None, None):
        return usual
    taken = (usual.geometry, usual.mean, usual.std)
    mixed = any(
        mine is None and other is not None for mine, other in zip(given, taken, strict=True)
    )
    return Preprocessing(
        geometry=said.geometry or usual.geometry,
        mean=said.mean or usual.mean,
        std=said.std or usual.std,
        origin=f"{said.origin}; the rest {usual.origin}" if mixed else said.origin,
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside ``DataParallel`` and ``torch.compile``.

    Args:
        module: Any network.
    """
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod  # type: ignore[assignment]
        else:
            return module


def refuse_unfinished(module: nn.Module, name: str) -> None:
    """Refuse a network whose weights have no values yet.

    Args:
        module: Any network.
        name: For the message.

    Raises:
        ModelError: If a layer is lazy, or a tensor lies on the device ``meta``.
    """
    for key, tensor in module.named_parameters():
        lazy = isinstance(tensor, nn.UninitializedParameter)
        if lazy or tensor.is_meta:
            raise ModelError(
                f"the network {name} has weights without values",
                expected="a network that is ready to run",
                found=f"{key} is " + ("a lazy layer's" if lazy else "on the device meta"),
                remedy="run it once on an image" if lazy else "build it on the CPU",
            )


def digest_of(module: nn.Module) -> str:
    """A digest of a network: weights, buffers, structure, plain settings, graphs and source files.

    Args:
        module: Any network.
    """
    digest = hashlib.sha256(repr(module).encode())
    # Buffers that no checkpoint holds count too.
    named = dict(module.state_dict()) | dict(module.named_buffers())
    for name, tensor in named.items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes_of(tensor))
    for name, part in module.named_modules():
        digest.update(f"{name} {_settings_of(part)}".encode())
        if isinstance(part, torch.fx.GraphModule):
            digest.update(part.code.encode())
        if isinstance(part, torch.jit.ScriptModule):
            digest.update(str(getattr(part, "inlined_graph", "")).encode())
    for file in sorted(_sources_of(module)):
        digest.update(sha256_of(file).encode())
    return digest.hexdigest()


def _bytes_of(tensor: torch.Tensor) -> bytes:
    plain = tensor.detach().cpu()
    if plain.is_quantized:
        plain = plain.int_repr()
    plain = plain.to_dense() if plain.layout != torch.strided else plain
    return plain.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _settings_of(part: nn.Module) -> str:
    """What a module's author set beside its tensors: a temperature, a slope."""
    try:
        held = vars(part)
    except TypeError:
        return ""
    plain = (bool, int, float, complex, str, type(None))
    return repr(
        sorted(
            (name, value)
            for name, value in held.items()
            if name != "training" and isinstance(value, plain)
        )
    )


def _sources_of(module: nn.Module) -> set[Path]:
    """The files of the classes that a network is made of; torch's own are known by its version."""
    files = set()
    for kind in {type(part) for part in module.modules()}:
        if kind.__module__.partition(".")[0] in ("torch", "torchvision"):
            continue
        try:
            source = inspect.getsourcefile(kind)
        except (TypeError, OSError):
            continue
        if source is not None and Path(source).is_file():
            files.add(Path(source))
    return files


def told(checkpoint: Checkpoint) -> str:
    """Where weights came from, for people.

    Args:
        checkpoint: The weights.
    """
    return str(checkpoint.path) + (f" ({checkpoint.key})" if checkpoint.key else "")


def notes_on(checkpoint: Checkpoint, left: list[str]) -> tuple[str, ...]:
    """What to say of tensors that were left out.

    Args:
        checkpoint: The weights.
        left: Their names.
    """
    if not left:
        return ()
    shown = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
    return (f"{len(left)} tensors of {checkpoint.path} are not the network's: {shown}",)


def path_name(text: str) -> str:
    """A text as a part of a path.

    Args:
        text: Any.

    Example:
        >>> path_name("my_models:nets.build")
        'my_models-nets.build'
    """
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "model"


def with_header(network: Network, checkpoint: Checkpoint, usual: Preprocessing) -> Network:
    """A network whose checkpoint may say what its images are and what its classes are called.

    Args:
        network: The network; its classes stay where the checkpoint names none.
        checkpoint: The weights.
        usual: For the architecture.
    """
    return replace(
        network,
        preprocessing=header_or(checkpoint, usual),
        usual_size=checkpoint.about.get("image_size") is None,
        classes=checkpoint.classes or network.classes,
        sure_of_classes=checkpoint.classes is not None,
    )
