"""Networks by name, by function or by file, with what they say of themselves."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from audit.data.geometry import Geometry
from audit.errors import ModelError
from audit.files import sha256_of
from audit.models.architectures import ARCHITECTURES, build
from audit.models.checkpoint import Checkpoint, load_into, read_checkpoint
from audit.models.functions import open_function
from audit.models.libraries import (
    has_timm,
    open_timm,
    open_torchvision,
    timm_has,
    torchvision_names,
)
from audit.models.network import (
    Network,
    Request,
    digest_of,
    notes_on,
    other_rows,
    own_word,
    path_name,
    refuse_unfinished,
    told,
    unwrapped,
    with_header,
    with_random_weights,
)
from audit.models.preprocessing import Preprocessing
from audit.models.programs import fixed_shape, open_program

WEIGHTS = Path(__file__).parent / "weights"

_PROGRAM_SUFFIXES = (".pt2", ".pt", ".pth", ".ts", ".jit", ".torchscript")


def open_network(request: Request) -> Network:
    """Open a network with its weights.

    Args:
        request: What the user asked for.

    Returns:
        The network on the CPU.

    Raises:
        ModelError: If there is no such network, or its weights are absent or do not fit.
    """
    loaded = None
    if request.checkpoint is not None:
        loaded = read_checkpoint(request.checkpoint, request.key)
    if request.model is not None or loaded is None:
        name = request.model or "cnn"
        return _opener(name)(replace(request, model=name), loaded)
    name = str(loaded.about.get("architecture") or "cnn")
    try:
        opener = _opener(name)
    except ModelError as error:
        raise ModelError(
            f"{loaded.path} names a network that is not known here: '{name}'",
            remedy="name its network: --model module:function, or the name of torchvision or timm",
        ) from error
    return opener(replace(request, model=name), loaded)


def shipped_weights(dataset: str, architecture: str) -> Path | None:
    """The weights that come with the audit for a dataset, if there are any."""
    if not dataset.isalnum():
        return None
    file = WEIGHTS / f"{dataset}-{architecture}" / "model.safetensors"
    return file if file.is_file() else None


def all_shipped_weights(architecture: str | None = None) -> list[Path]:
    """All weights that come with the audit, or those of one architecture."""
    files = sorted(WEIGHTS.glob("*/model.safetensors"))
    return [file for file in files if architecture in (None, file.parent.name.partition("-")[2])]


def from_module(module: nn.Module) -> Network:
    """A network that the caller already holds.

    Args:
        module: Any network; says what it wants by ``pretrained_cfg`` if it is timm's.

    Returns:
        The network, unwrapped from ``DataParallel`` and ``torch.compile``.

    Raises:
        ModelError: If its weights have no values yet.
    """
    inner = unwrapped(module)
    name = type(inner).__name__
    refuse_unfinished(inner, name)
    return Network(
        module=inner,
        name=name,
        weights="in memory",
        identity=digest_of(inner),
        preprocessing=own_word(inner, name),
        usual_size=True,
        batch=fixed_shape(inner)[0],
    )


_Opener = Callable[[Request, Checkpoint | None], Network]


def _opener(name: str) -> _Opener:
    library, _, rest = name.partition(":")
    named = {"torchvision": open_torchvision, "timm": open_timm}
    if name in ARCHITECTURES:
        return _open_ours
    if rest and library in named:
        return named[library]
    if Path(name).is_file() or (name.endswith(_PROGRAM_SUFFIXES) and ":" not in name):
        return _open_file
    if rest:
        return open_function
    if name in torchvision_names() or timm_has(name):
        return named["torchvision" if name in torchvision_names() else "timm"]
    known = [*ARCHITECTURES, *torchvision_names()]
    near = difflib.get_close_matches(name, known, n=1)
    raise ModelError(
        f"unknown model '{name}'",
        expected=" | ".join(ARCHITECTURES) + " | a torchvision or timm name | module:function "
        "| a .pt2 or TorchScript file",
        found=name + ("" if has_timm() else " (timm is not installed)"),
        remedy=f"did you mean '{near[0]}'?" if near else "for your own code use module:function",
    )


def _open_ours(request: Request, loaded: Checkpoint | None) -> Network:
    name = str(request.model)
    usual = Preprocessing(geometry=Geometry.square(32), origin=f"usual for {name}")
    if loaded is None and request.random_weights:
        return with_random_weights(build(name, request.num_classes or 10), name, usual)
    file = loaded or read_checkpoint(_shipped_or_refuse(request.dataset, name))
    rows = other_rows(build(name, 10), file)
    module = build(name, rows or 10)
    left = load_into(module, file, name)
    network = Network(
        module=module,
        name=name,
        weights="shipped with audit" if loaded is None else told(file),
        identity=file.sha256,
        preprocessing=usual,
        notes=notes_on(file, left),
    )
    network = with_header(network, file, usual)
    if loaded is not None:
        return network
    # Where the package lies says nothing to a reader of the manifest.
    return replace(
        network, preprocessing=replace(network.preprocessing, origin="shipped with audit")
    )


def _shipped_or_refuse(dataset: str, architecture: str) -> Path:
    file = shipped_weights(dataset, architecture)
    if file is not None:
        return file
    shipped = [file.parent.name for file in all_shipped_weights()]
    raise ModelError(
        f"no weights for '{architecture}' on '{dataset}' come with audit",
        expected="--checkpoint FILE, or one of the shipped pairs: " + ", ".join(shipped),
        remedy=f"train some: audit train --dataset {dataset} --model {architecture}",
    )


def _open_file(request: Request, loaded: Checkpoint | None) -> Network:
    path = Path(str(request.model))
    module = open_program(path)
    if loaded is not None:
        raise ModelError(
            f"{path} is a whole program and holds its weights",
            found=f"--checkpoint {loaded.path} beside it",
            remedy="leave one of the two out",
        )
    batch, size = fixed_shape(module)
    frame = Preprocessing()
    if size is not None:
        square = size[0] == size[1]
        geometry = Geometry(size=size, resize=size[0] if square else size)
        frame = Preprocessing(geometry=geometry, origin=f"the input that {path.name} takes")
    return Network(
        module=module,
        name=path_name(path.stem),
        weights=str(path),
        identity=sha256_of(path),
        preprocessing=frame,
        batch=batch,
    )
