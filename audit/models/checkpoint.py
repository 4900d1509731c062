"""Weights on disk: safetensors, or PyTorch files that hold nothing but tensors."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from audit.errors import ModelError

# The entry of a safetensors header that says how the weights are to be used, as JSON.
HEADER = "audit"

_WRAPPERS = ("state_dict", "model_state_dict", "model")
# A zip archive, or a pickle of protocol 2 and up.
_TORCH_MAGIC = (b"PK", b"\x80")
_PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Named tensors and what the file says of them.

    Attributes:
        path: Where they came from.
        tensors: Parameters and buffers by name, on the CPU.
        about: What its header says: architecture, dataset, classes, image_size, mean, std.
        sha256: Of the whole file.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    sha256: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Read weights without running any code from the file.

    Args:
        path: ``.safetensors``, or a file of ``torch.save`` with a state dict, bare or wrapped.

    Returns:
        The tensors, common prefixes (``module.``, ``_orig_mod.``, ``model.``) removed.

    Raises:
        ModelError: If the file is absent, truncated, holds code, or no state dict.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise ModelError(
            f"the checkpoint {path} {problem}", remedy="check the path after --checkpoint"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    about: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        tensors, about = _read_safetensors(path)
    else:
        tensors = _read_torch(path, content)
    return Checkpoint(
        path=path,
        tensors=_without_prefixes(tensors),
        about=about,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def load_into(model: nn.Module, checkpoint: Checkpoint, architecture: str) -> None:
    """Copy a checkpoint's tensors into a model.

    Args:
        model: Is changed in place.
        checkpoint: Must hold exactly the model's names and shapes.
        architecture: The model's name, for the message.

    Raises:
        ModelError: If names or shapes differ, or a value is not finite.
    """
    own = model.state_dict()
    # Old files lack the step counter of batch norm, which evaluation does not read.
    missing = [n for n in own if n not in checkpoint.tensors and "num_batches" not in n]
    unexpected = [n for n in checkpoint.tensors if n not in own]
    wrong = [
        f"{n} is {_shape(t)}, not {_shape(own[n])}"
        for n, t in checkpoint.tensors.items()
        if n in own and t.shape != own[n].shape
    ]
    if missing or unexpected or wrong:
        raise ModelError(
            f"{checkpoint.path} does not hold the weights of '{architecture}'",
            expected=f"{len(own)} tensors: {_some(list(own))}",
            found="; ".join(
                f"{len(names)} {kind}: {_some(names)}"
                for kind, names in (
                    ("missing", missing),
                    ("unexpected", unexpected),
                    ("of another shape", wrong),
                )
                if names
            ),
            remedy="name the architecture that the file was trained with: --model NAME",
        )
    for name, tensor in checkpoint.tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise ModelError(
                f"{checkpoint.path} holds values that are not finite",
                expected="finite weights",
                found=f"{bad} NaN or infinite values in {name}",
                remedy="the training that wrote it diverged: use an earlier checkpoint",
            )
    model.load_state_dict(dict(checkpoint.tensors), strict=False)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file",
            found=str(error).splitlines()[0],
            remedy="copy or download it again",
        ) from error
    return tensors, _parsed(header.get(HEADER, "{}"))


def _parsed(text: str) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _read_torch(path: Path, raw: bytes) -> dict[str, Tensor]:
    if not raw.startswith(_TORCH_MAGIC):
        raise _not_a_checkpoint(path, f"a file that begins with {raw[:12]!r}")
    if raw.startswith(b"PK") and b"/constants.pkl" in raw:
        raise ModelError(
            f"{path} is a TorchScript program",
            expected="a state dict of tensors",
            remedy="save one with torch.save(model.state_dict(), FILE)",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of unusual pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() and "unsupported" not in str(error).lower():
            raise _not_a_checkpoint(path, str(error)) from error
        raise ModelError(
            f"{path} holds more than tensors and was not loaded",
            expected="a state dict of tensors, because loading anything else runs its code",
            found=_offender(str(error)),
            remedy="save it again with torch.save(model.state_dict(), FILE) or as .safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise _not_a_checkpoint(path, str(error)) from error
    return _find_state_dict(content, path)


def _not_a_checkpoint(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} is not a whole PyTorch checkpoint",
        found=(reason.splitlines() or ["no reason given"])[0][:200],
        remedy="copy or download it again",
    )


def _offender(message: str) -> str:
    line = next((line for line in message.splitlines() if "GLOBAL" in line or "global" in line), "")
    return line.strip()[:160] or message.splitlines()[0][:160]


def _find_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in _WRAPPERS:
            if isinstance(content.get(key), Mapping):
                return _find_state_dict(content[key], path)
        tensors = {
            str(k): v
            for k, v in content.items()
            if isinstance(v, Tensor) and v.layout == torch.strided
        }
        if tensors and len(tensors) == len(content):
            return tensors
    found = type(content).__name__
    if isinstance(content, Mapping):
        found = f"a dict with {_some([str(key) for key in content]) or 'nothing in it'}"
    raise ModelError(
        f"{path} holds no state dict",
        expected="a dict of tensors, bare or under " + ", ".join(_WRAPPERS),
        found=found,
    )


def _without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stripped = dict(tensors)
    while prefix := next(
        (p for p in _PREFIXES if stripped and all(n.startswith(p) for n in stripped)), None
    ):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
    return stripped


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
