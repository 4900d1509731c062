"""Files of ``torch.save``: state dicts, what trainers write around them, and nothing that runs."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audit.errors import ModelError

# Where trainers put the weights. Averaged ones come first: they are what the trainer evaluates.
_WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "averaged_model", "state_dict",
    "model_state_dict", "model", "net", "network", "module", "weights", "params",
)  # fmt: skip
_CLASS_KEYS = ("classes", "class_names", "class_to_idx", "idx_to_class", "CLASSES")
# Where they may lie beside the weights.
_PLACES = ("hyper_parameters", "meta")
# A zip archive, or a pickle of protocol 2 and up.
_TORCH_MAGIC = (b"PK", b"\x80")
# What else is taken for a checkpoint, by its first bytes.
_KINDS = {
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file with git lfs pull",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"\x89HDF": "HDF5, as Keras writes it",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a gzip archive",
    b"GGUF": "GGUF",
}
# What the last bytes of a zip archive begin with, and how many these are at most.
_ARCHIVE_END, _LONGEST_END = b"PK\x05\x06", 22 + 65_535
# What trainers store beside weights and what cannot run code when it is loaded; some of it under
# the names of other versions of Python and NumPy, or of Windows.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    datetime.datetime,
    datetime.timedelta,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDSU"},
    *((pathlib.PosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *(
        (pathlib.PureWindowsPath, f"{module}.WindowsPath")
        for module in ("pathlib", "pathlib._local")
    ),
    *(
        (function, f"{module}.multiarray.{name}")
        for module in ("numpy.core", "numpy._core")
        for name, function in (
            ("scalar", np._core.multiarray.scalar),  # type: ignore[attr-defined]
            ("_reconstruct", np._core.multiarray._reconstruct),  # type: ignore[attr-defined]
        )
    ),
]


def read_pickled(
    path: Path, raw: bytes, key: str | None
) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Read a file of ``torch.save`` without running any code from it.

    Args:
        path: The file.
        raw: Its content.
        key: Which entry to take; ``None`` prefers averaged (EMA) weights.

    Returns:
        The tensors by name, what is said beside them, and under which key they lay.

    Raises:
        ModelError: If it is truncated, holds code, or no state dict.
    """
    if not raw.startswith(_TORCH_MAGIC):
        raise _not_a_checkpoint(path, kind_of(raw))
    if raw.startswith(b"PK") and (b"/constants.pkl" in raw or b"/archive_format" in raw):
        raise ModelError(
            f"{path} is a whole program (TorchScript or torch.export), not a set of weights",
            expected="a state dict of tensors",
            remedy=f"give it as the model: --model {path}",
        )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore", UserWarning)  # of unusual pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() and "unsupported" not in str(error).lower():
            raise _not_a_checkpoint(path, _told(error, raw)) from error
        raise ModelError(
            f"{path} holds more than tensors and was not loaded",
            expected="a state dict of tensors, because loading anything else runs its code",
            found=pickled_classes(path) or _offender(str(error)),
            remedy="save it again with torch.save(model.state_dict(), FILE) or as .safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise _not_a_checkpoint(path, _told(error, raw)) from error
    tensors, found = _find_state_dict(content, path, key)
    return tensors, _told_beside(content), found


def kind_of(raw: bytes) -> str:
    """What a file is that is no PyTorch file, for people.

    Args:
        raw: Its content, or the beginning of it.

    Example:
        >>> kind_of(b"<html><body>Not found")
        "a file that begins with b'<html><body>'"
    """
    if not raw:
        return "an empty file"
    kind = next((kind for magic, kind in _KINDS.items() if raw.startswith(magic)), None)
    return kind or f"a file that begins with {raw[:12]!r}"


def pickled_classes(path: Path) -> str | None:
    """The classes and functions that a PyTorch file would load; nothing is loaded.

    Args:
        path: The file.

    Returns:
        Their names, or ``None`` if it is another kind of file or holds tensors only.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, OSError, pickle.UnpicklingError):
        return None
    return f"pickled objects that need {some_of(sorted(names))}" if names else None


def _told_beside(content: object) -> dict[str, Any]:
    """What a training loop wrote beside the weights: class names, architecture."""
    if not isinstance(content, Mapping):
        return {}
    about: dict[str, Any] = {}
    places = [content, *(content.get(place) for place in _PLACES)]
    told = [place.get(key) for place in places if isinstance(place, Mapping) for key in _CLASS_KEYS]
    names = next(filter(None, map(class_list, told)), None)
    if names is not None:
        about["classes"] = names
    if isinstance(content.get("arch"), str):
        about["architecture"] = content["arch"]
    return about


def class_list(value: object) -> list[str] | None:
    """Class names in order, from a list or from a dict in either direction.

    Args:
        value: What may be names.

    Returns:
        ``None`` if it is none of these, or if numbers are left out.

    Example:
        >>> class_list({"dog": 1, "cat": 0}), class_list({0: "cat", 1: "dog"})
        (['cat', 'dog'], ['cat', 'dog'])
    """
    if isinstance(value, (list, tuple)) and value and all(isinstance(n, str) for n in value):
        return list(value)
    if not isinstance(value, Mapping) or not value:
        return None
    pairs = [(i, n) if isinstance(n, str) else (n, i) for i, n in value.items()]
    try:
        ordered = sorted((int(i), str(n)) for i, n in pairs)
    except (TypeError, ValueError):
        return None
    whole = [i for i, _ in ordered] == list(range(len(ordered)))
    return [name for _, name in ordered] if whole else None


def _not_a_checkpoint(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} is not a whole PyTorch checkpoint",
        expected="a file of torch.save, or .safetensors",
        found=(reason.splitlines() or ["no reason given"])[0][:200],
        remedy="copy or download it again",
    )


def _told(error: Exception, raw: bytes) -> str:
    cut_off = raw.startswith(b"PK") and _ARCHIVE_END not in raw[-_LONGEST_END:]
    if cut_off or isinstance(error, EOFError):
        return f"a file that ends too early, after {len(raw):,} bytes"
    return str(error)


def _offender(message: str) -> str:
    line = next((line for line in message.splitlines() if "GLOBAL" in line or "global" in line), "")
    return line.strip()[:160] or message.splitlines()[0][:160]


def _find_state_dict(content: object, path: Path, key: str | None) -> tuple[dict[str, Tensor], str]:
    if isinstance(content, Mapping):
        if key is not None:
            return _chosen_entry(content, path, key)
        found = _search(content)
        if found is not None:
            return found
    holds = type(content).__name__
    if isinstance(content, Mapping):
        holds = f"a dict with {some_of([str(key) for key in content]) or 'nothing in it'}"
    raise ModelError(
        f"{path} holds no state dict",
        expected="a dict of tensors, bare or under " + ", ".join(_WRAPPERS),
        found=holds,
        remedy="name the entry that holds it: --checkpoint-key NAME",
    )


def _search(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], str] | None:
    tensors = _tensors_of(content)
    if tensors:
        return tensors, ""
    for wrapper in _WRAPPERS:
        inner = content.get(wrapper)
        found = _search(inner) if isinstance(inner, Mapping) else None
        if found is not None:
            return found[0], f"{wrapper}.{found[1]}".rstrip(".")
    return None


def _chosen_entry(
    content: Mapping[str, Any], path: Path, key: str
) -> tuple[dict[str, Tensor], str]:
    """The state dict under a key, or under several with points between."""
    entry: Any = content
    for step in [key] if key in content else key.split("."):
        entry = entry.get(step) if isinstance(entry, Mapping) else None
    found = _search(entry) if isinstance(entry, Mapping) else None
    if found is not None:
        return found[0], f"{key}.{found[1]}".rstrip(".")
    raise ModelError(
        f"{path} has no state dict under '{key}'",
        expected="the name of an entry that holds a dict of tensors",
        found=some_of([str(name) for name in content], most=8),
    )


def _tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The content if it is nothing but plain tensors by name."""
    plain = all(isinstance(v, Tensor) and v.layout == torch.strided for v in content.values())
    return {str(name): tensor for name, tensor in content.items()} if plain and content else None


def some_of(names: list[str], most: int = 3) -> str:
    """The first of several names, and how many more there are.

    Args:
        names: Any.
        most: How many to tell.

    Example:
        >>> some_of(["a", "b", "c"], most=1)
        'a and 2 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
