"""Weights on disk: safetensors, or PyTorch files that hold nothing but tensors."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from audit.errors import ModelError
from audit.models.pickles import read_pickled, some_of

# The entry of a safetensors header that says how the weights are to be used, as JSON.
HEADER = "audit"

# Wrappers around parts of a network that put their own name into all names below.
_WRAPPING = ("module", "_orig_mod")
# Counters that no layer reads in evaluation: batch norm's, and those of averaged models.
_COUNTERS = ("num_batches_tracked", "n_averaged")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Named tensors and what the file says of them.

    Attributes:
        path: Where they came from.
        tensors: Parameters and buffers by name, on the CPU.
        about: What the file says: architecture, dataset, classes, image_size, mean, std.
        sha256: Of the whole file.
        key: Under which key of the file the tensors lay; empty for a bare state dict.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    sha256: str
    key: str = ""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in the order of the logits, where the file tells them."""
        named = self.about.get("classes")
        return tuple(map(str, named)) if isinstance(named, list) else None


def read_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Read weights without running any code from the file.

    Args:
        path: ``.safetensors``, or a file of ``torch.save`` with a state dict, bare or wrapped.
        key: Which entry of a wrapped file to take; ``None`` prefers averaged (EMA) weights.

    Returns:
        The tensors under the names that the file gives them.

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
    # A safetensors file begins with the length of its header.
    if path.suffix == ".safetensors" or content[8:10] == b'{"':
        if key is not None:
            raise ModelError(
                f"{path} has no entry '{key}'", remedy="leave --checkpoint-key: it holds one set"
            )
        tensors, about = _read_safetensors(path)
        found = ""
    else:
        tensors, about, found = read_pickled(path, content, key)
    sha256 = hashlib.sha256(content).hexdigest()
    return Checkpoint(path=path, tensors=tensors, about=about, sha256=sha256, key=found)


def fitted(checkpoint: Checkpoint, names: Iterable[str]) -> tuple[dict[str, Tensor], list[str]]:
    """A checkpoint's tensors under a model's names.

    Wrappers (``DataParallel``, ``torch.compile``, Lightning modules) put a prefix before every
    name. The prefix that serves most of the model's names is removed; tensors without it belong
    to something else (a loss, a second network) and are left out.

    Args:
        checkpoint: The tensors.
        names: The model's own.

    Returns:
        The tensors, and the names of those left out.

    Example:
        >>> ours = Checkpoint(path=Path("x"), about={}, sha256="", tensors={
        ...     "model.fc.weight": torch.zeros(1), "loss.weight": torch.zeros(1)})
        >>> tensors, left = fitted(ours, ["fc.weight"])
        >>> list(tensors), left
        (['fc.weight'], ['loss.weight'])
    """
    wanted = {name for name in names if not name.endswith(_COUNTERS)}
    tensors = _without_wrappers(checkpoint.tensors, wanted)
    present = [name for name in tensors if not name.endswith(_COUNTERS)]
    prefix = max(_prefixes(present), key=lambda p: (_served(present, p, wanted), -len(p)))
    kept = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    left = [n for n in tensors if not n.startswith(prefix)]
    return kept, [name for name in left if not name.endswith(_COUNTERS)]


def _without_wrappers(tensors: Mapping[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Names without those of wrappers, also around parts of a network, where it has none."""
    own = {step for name in wanted for step in name.split(".")}
    dropped = [step for step in _WRAPPING if step not in own]
    bare = {
        ".".join(step for step in name.split(".") if step not in dropped): tensor
        for name, tensor in tensors.items()
    }
    return bare if len(bare) == len(tensors) else dict(tensors)


def _prefixes(names: list[str]) -> list[str]:
    """Every way a name can begin, up to four steps deep; the empty one first."""
    found = {""}
    for name in names:
        steps = name.split(".")
        found |= {".".join(steps[:depth]) + "." for depth in range(1, min(len(steps), 5))}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _served(names: list[str], prefix: str, wanted: set[str]) -> int:
    return sum(n.removeprefix(prefix) in wanted for n in names if n.startswith(prefix))


def load_into(
    model: nn.Module, checkpoint: Checkpoint, architecture: str, elsewhere: str | None = None
) -> list[str]:
    """Copy a checkpoint's tensors into a model.

    Args:
        model: Is changed in place.
        checkpoint: Must hold exactly the model's names and shapes, behind any common prefix.
        architecture: The model's name, for the message.
        elsewhere: What else to try if they do not fit, likewise.

    Returns:
        Names of tensors in the file that do not belong to the model.

    Raises:
        ModelError: If names or shapes differ, or a value is not finite.
    """
    own = model.state_dict()
    tensors, left = fitted(checkpoint, own)
    _refuse_others(checkpoint, tensors, own, architecture, elsewhere)
    _refuse_infinite(checkpoint, tensors, dict(model.named_buffers()))
    known = OrderedDict((name, tensor) for name, tensor in tensors.items() if name in own)
    # Some layers read from it which release named the tensors.
    known._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
    model.load_state_dict(known, strict=False)
    return left


def _refuse_others(
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Any],
    architecture: str,
    elsewhere: str | None,
) -> None:
    plain = {name: tensor for name, tensor in own.items() if isinstance(tensor, Tensor)}
    kinds = {
        "missing": [n for n in plain if n not in tensors and not n.endswith(_COUNTERS)],
        "unexpected": [n for n in tensors if n not in own and not n.endswith(_COUNTERS)],
        "of another shape": [
            f"{n} is {_shape(t)}, not {_shape(plain[n])}"
            for n, t in tensors.items()
            if n in plain and t.shape != plain[n].shape
        ],
    }
    if not any(kinds.values()):
        return
    remedy = "name the architecture that the file was trained with: --model NAME"
    raise ModelError(
        f"{checkpoint.path} does not hold the weights of '{architecture}'",
        expected=f"{len(plain)} tensors: {some_of(list(plain))}",
        found="; ".join(f"{len(n)} {kind}: {some_of(n)}" for kind, n in kinds.items() if n),
        remedy=remedy if elsewhere is None else f"{remedy}; {elsewhere}",
    )


def _refuse_infinite(
    checkpoint: Checkpoint, tensors: Mapping[str, Tensor], buffers: Mapping[str, object]
) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        # Masks are added to attention, and hold what makes a weight vanish.
        mask = name in buffers and not name.rpartition(".")[2].startswith("running_")
        bad = int((tensor.isnan() if mask else ~torch.isfinite(tensor)).sum())
        if bad:
            raise ModelError(
                f"{checkpoint.path} holds values that are not finite",
                expected="finite weights",
                found=f"{bad} NaN or infinite values in {name}",
                remedy="the training that wrote it diverged: use an earlier checkpoint",
            )


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


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"
