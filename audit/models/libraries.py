"""Networks of torchvision and timm, with their own pretrained weights or with the user's."""

from __future__ import annotations

import difflib
import importlib.util
import math
import re
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audit.data.geometry import Geometry
from audit.errors import ModelError
from audit.models.checkpoint import Checkpoint, load_into, read_checkpoint
from audit.models.network import (
    Network,
    Request,
    digest_of,
    notes_on,
    other_rows,
    own_word,
    told,
    with_header,
    with_random_weights,
)
from audit.models.preprocessing import Preprocessing, from_torchvision

# Outputs that only serve the training of these two; and they normalise their images once more.
_AUXILIARY = re.compile(r"(^|\.)(AuxLogits|aux1|aux2)\.")
_NORMALISE_AGAIN = ("googlenet", "inception_v3")
# What layers are called in torchvision's own files, and today.
_RENAMED = {
    "densenet": ((re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)"), r"\1"),),
    "vit_": (
        (re.compile(r"(\.mlp)\.linear_1\."), r"\1.0."),
        (re.compile(r"(\.mlp)\.linear_2\."), r"\1.3."),
    ),
}
# What timm calls a network's weights in its repositories on the Hub, the better one first.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def torchvision_names() -> list[str]:
    """What torchvision calls its classifiers."""
    import torchvision.models

    return [str(name) for name in torchvision.models.list_models(module=torchvision.models)]


def open_torchvision(request: Request, loaded: Checkpoint | None) -> Network:
    """Open a network of torchvision.

    Args:
        request: Its ``model`` names one, with or without ``torchvision:`` before it.
        loaded: The user's weights; ``None`` takes torchvision's own.

    Raises:
        ModelError: If there is none of that name, or its weights are absent or do not fit.
    """
    from torchvision.models import get_model_weights

    name = str(request.model).removeprefix("torchvision:")
    if name not in torchvision_names():
        raise _not_in("torchvision", name, torchvision_names())
    weights = get_model_weights(name).DEFAULT
    preset = from_torchvision(weights.transforms(), f"torchvision's for {name}")
    if loaded is None and request.random_weights:
        return with_random_weights(_torchvision(name, None), name, preset)
    tensors = loaded or read_checkpoint(_hub_file(weights, name, request.download))
    tensors = replace(tensors, tensors=_as_torchvision_names(name, tensors))
    side = _side_of(tensors) if name.startswith("vit_") else None
    module = _torchvision(name, side)
    rows = other_rows(module, tensors)
    module = _torchvision(name, side, num_classes=rows) if rows else module
    network = Network(
        module=module,
        name=name,
        weights=f"torchvision/{weights}",
        identity=tensors.sha256,
        preprocessing=preset,
        classes=None if rows else tuple(weights.meta["categories"]),
        sure_of_classes=False,
        notes=notes_on(tensors, load_into(module, tensors, name, _elsewhere(name, "timm"))),
    )
    if loaded is None:
        return network
    return _with_own_weights(network, loaded, preset, side)


def _with_own_weights(
    network: Network, loaded: Checkpoint, preset: Preprocessing, side: int | None
) -> Network:
    """A network of torchvision with the user's weights, which may want images of another size."""
    usual = preset
    if side is not None and preset.geometry and preset.geometry.size != (side, side):
        usual = replace(preset, geometry=Geometry.square(side))
    notes = network.notes
    if network.name in _NORMALISE_AGAIN:
        notes += (
            f"{network.name} normalises its images once more (transform_input), as torchvision's "
            "pretrained one does",
        )
    opened = with_header(replace(network, weights=told(loaded), notes=notes), loaded, usual)
    return replace(opened, usual_size=opened.usual_size and side is None)


def _torchvision(name: str, side: int | None, **more: Any) -> nn.Module:
    from torchvision.models import get_model

    if name in _NORMALISE_AGAIN:
        # Drawing their random weights takes long.
        more |= {"init_weights": False, "aux_logits": False, "transform_input": True}
    if side is not None:
        more["image_size"] = side
    module: nn.Module = get_model(name, weights=None, **more)
    return module


def _as_torchvision_names(name: str, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Weights under today's names, without those that only training needs."""
    tensors = dict(checkpoint.tensors)
    if name in _NORMALISE_AGAIN:
        tensors = {key: value for key, value in tensors.items() if not _AUXILIARY.search(key)}
    for family, changes in _RENAMED.items():
        for pattern, today in changes if name.startswith(family) else ():
            tensors = {pattern.sub(today, key): value for key, value in tensors.items()}
    return tensors


def _side_of(checkpoint: Checkpoint) -> int | None:
    """The side of the images that a vision transformer of torchvision was trained on."""
    places = _ending(checkpoint, "encoder.pos_embedding")
    patches = _ending(checkpoint, "conv_proj.weight")
    if places is None or patches is None or places.dim() != 3 or patches.dim() != 4:
        return None
    return math.isqrt(max(0, places.shape[1] - 1)) * int(patches.shape[-1])


def _ending(checkpoint: Checkpoint, name: str) -> torch.Tensor | None:
    return next((t for key, t in checkpoint.tensors.items() if key.endswith(name)), None)


def _hub_file(weights: Any, name: str, download: bool) -> Path:
    """The pretrained file in torch's own cache, fetched if that is allowed."""
    file = _cached_by_torch(weights.url)
    if file.is_file():
        return file
    if not download:
        raise ModelError(
            f"no weights were given for torchvision's '{name}'",
            expected=f"--checkpoint FILE, or the pretrained file at {file}",
            remedy="fetch torchvision's own with --download",
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        prefix = file.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(weights.url, str(file), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:
        raise _no_download(weights.url, error) from error
    return file


def _cached_by_torch(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def has_timm() -> bool:
    """Whether timm is installed."""
    return importlib.util.find_spec("timm") is not None


def timm_has(name: str) -> bool:
    """Whether timm is installed and has a network of a name.

    Args:
        name: With or without a tag.
    """
    if not has_timm():
        return False
    import timm

    return bool(timm.is_model(name.partition(".")[0]))


def open_timm(request: Request, loaded: Checkpoint | None) -> Network:
    """Open a network of timm.

    Args:
        request: Its ``model`` names one, with or without ``timm:`` before it.
        loaded: The user's weights; ``None`` takes timm's own.

    Raises:
        ModelError: If timm is not installed or has none of that name, or if the weights are
            absent, do not fit or have no classifier.
    """
    if not has_timm():
        raise ModelError(
            f"'{request.model}' needs timm, which is not installed",
            remedy="pip install 'audit[timm]'",
        )
    name = str(request.model).removeprefix("timm:")
    _refuse_unknown_to_timm(name)
    origin = f"timm's for {name}"
    if loaded is not None:
        return _timm_with(name, loaded, origin)
    if request.random_weights:
        module = _timm(name)
        return with_random_weights(module, name, own_word(module, origin))
    module = _pretrained_timm(name, request.download)
    if not getattr(module, "num_classes", 1):
        raise ModelError(
            f"timm's own weights of '{name}' have no classifier",
            expected="weights that give logits",
            found="weights that give features",
            remedy="take another tag, or give weights with a classifier: --checkpoint FILE",
        )
    return Network(
        module=module,
        name=name,
        weights=_tagged(name),
        identity=digest_of(module),
        preprocessing=own_word(module, origin),
        classes=_imagenet_names(module),
        sure_of_classes=False,
    )


def _refuse_unknown_to_timm(name: str) -> None:
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise _not_in("timm", name, timm.list_models())
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise _not_in("timm", name, timm.list_pretrained(f"{architecture}.*")) from error


def _timm(name: str, **more: Any) -> nn.Module:
    import timm

    module: nn.Module = timm.create_model(name, **more)
    return module


def _timm_with(name: str, loaded: Checkpoint, origin: str) -> Network:
    module = _timm(name)
    config: Any = getattr(module, "pretrained_cfg", {})
    heads = config.get("classifier")
    rows = other_rows(module, loaded, (heads,) if isinstance(heads, str) else heads)
    module = _timm(name, num_classes=rows) if rows else module
    left = load_into(module, loaded, name, _elsewhere(name, "torchvision"))
    network = Network(
        module=module,
        name=name,
        weights=told(loaded),
        identity=loaded.sha256,
        preprocessing=Preprocessing(),
        classes=_imagenet_names(module),
        notes=notes_on(loaded, left),
    )
    return with_header(network, loaded, own_word(module, origin))


def _pretrained_timm(name: str, download: bool) -> nn.Module:
    """The weights of timm itself, from the local caches unless a download is allowed."""
    import timm

    cached = _cached_for_timm(timm.get_pretrained_cfg(name))
    if cached is not None:
        # Read here, for timm would unpickle a file that is given to it.
        tensors = dict(read_checkpoint(Path(cached)).tensors)
        module = _timm(name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors})
        module.pretrained_cfg.pop("state_dict")  # type: ignore[operator, union-attr]
        return module
    if not download:
        raise ModelError(
            f"no weights were given for timm's '{name}'",
            expected="--checkpoint FILE, or timm's pretrained file in its cache",
            remedy="fetch timm's own with --download",
        )
    try:
        _reach_hub()
        return _timm(name, pretrained=True)
    except Exception as error:  # the Hub's client raises what its HTTP library does
        raise _no_download(f"timm's '{name}'", error) from error


def _tagged(name: str) -> str:
    """What timm's own weights are called, where the name leaves the tag to timm."""
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    return str(config.hf_hub_id or f"timm/{name}")


def _reach_hub() -> None:
    """Fail at once where there is no network: the Hub's client tries again for a minute."""
    from huggingface_hub import constants

    head = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310  # of its client
    with suppress(urllib.error.HTTPError):  # it answers
        urllib.request.urlopen(head, timeout=10).close()  # noqa: S310


def _cached_for_timm(config: Any) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    if config is None:
        return None
    if config.hf_hub_id:
        files = [config.hf_hub_filename] if config.hf_hub_filename else _HUB_FILES
        found = [try_to_load_from_cache(config.hf_hub_id, file) for file in files]
        return next((file for file in found if isinstance(file, str)), None)
    if config.url and not config.custom_load and _cached_by_torch(config.url).is_file():
        return str(_cached_by_torch(config.url))
    return None


def _imagenet_names(module: nn.Module) -> tuple[str, ...] | None:
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    if not subset:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(i) for i in range(info.num_classes()))


def _elsewhere(name: str, library: str) -> str | None:
    """What to try where a network of the same name in the other library may be meant."""
    has = timm_has(name) if library == "timm" else name in torchvision_names()
    return f"or, if it was trained with {library}: --model {library}:{name}" if has else None


def _not_in(library: str, name: str, known: list[str]) -> ModelError:
    near = difflib.get_close_matches(name, known, n=3)
    return ModelError(
        f"{library} has no model '{name}'",
        remedy="did you mean " + " or ".join(near) + "?" if near else f"list {library}'s names",
    )


def _no_download(what: str, error: Exception) -> ModelError:
    lines = str(error).splitlines() or [""]
    return ModelError(
        f"the weights of {what} cannot be fetched",
        found=lines[0][:200] or type(error).__name__,
        remedy="fetch them on another machine and give them with --checkpoint FILE",
    )
