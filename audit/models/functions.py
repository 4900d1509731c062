"""Networks that the user's own code makes: ``module:function``."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from audit.errors import ModelError
from audit.files import sha256_of
from audit.models.checkpoint import Checkpoint, load_into
from audit.models.network import (
    Network,
    Request,
    digest_of,
    header_or,
    notes_on,
    other_rows,
    own_word,
    path_name,
    refuse_unfinished,
    said_or,
    told,
    unwrapped,
)
from audit.models.pickles import class_list
from audit.models.preprocessing import from_header
from audit.usercode import Role, call, find

_SAID = ("classes", "image_size", "resize", "interpolation", "mean", "std")

_ROLE = Role(
    name="model",
    gives="network",
    fits="a function without arguments, or with num_classes alone",
    error=ModelError,
)
_OURS = Path(__file__).parents[1]


def open_function(request: Request, loaded: Checkpoint | None) -> Network:
    """Open what a function gives: a network, or a network and a dict of what it wants.

    Args:
        request: Its ``model`` is ``module:function``; a class or a network will do as well. A
            function that takes ``num_classes`` is told how many.
        loaded: Weights for the network; ``None`` leaves it as it is.

    Raises:
        ModelError: If there is no such function, if it fails or gives something else, or if the
            weights do not fit.
    """
    spec = str(request.model)
    module, said = _made(spec, request.num_classes)
    notes: tuple[str, ...] = ()
    if loaded is not None:
        rows = other_rows(module, loaded)
        module = _made(spec, rows)[0] if rows else module
        notes = notes_on(loaded, load_into(module, loaded, spec))
    usual = own_word(module, spec)
    own = said_or(from_header(said, spec), usual)
    sized = "image_size" in said or (loaded is not None and "image_size" in loaded.about)
    return Network(
        module=module,
        name=path_name(spec),
        weights=told(loaded) if loaded else f"as {spec} gives them",
        identity=_identity(spec, module),
        preprocessing=header_or(loaded, own) if loaded else own,
        usual_size=not sized and (loaded is not None or _has_other_classes(module)),
        classes=_classes(said, spec) or (loaded.classes if loaded else None),
        notes=notes,
    )


def _made(spec: str, num_classes: int | None) -> tuple[nn.Module, Mapping[str, Any]]:
    made = _called(spec, num_classes)
    module, said = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(module, nn.Module) or not isinstance(said, Mapping):
        raise ModelError(
            f"{spec} does not give a network",
            expected="a torch.nn.Module, or a pair of one and a dict of " + ", ".join(_SAID),
            found=type(made).__name__
            if made is module
            else f"a pair of {type(module).__name__} and {type(said).__name__}",
        )
    unknown = [str(key) for key in said if key not in _SAID]
    if unknown:
        raise ModelError(
            f"{spec} says something unknown of its network",
            expected=" | ".join(_SAID),
            found=", ".join(unknown),
        )
    module = unwrapped(module)
    refuse_unfinished(module, spec)
    return module, said


def _called(spec: str, num_classes: int | None) -> Any:
    found = find(spec, _ROLE)
    if isinstance(found, nn.Module) or not callable(found):
        return found
    return call(spec, _ROLE, lambda: found(**_wanted(found, num_classes)))


def _wanted(function: Callable[..., object], num_classes: int | None) -> dict[str, int]:
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    if "num_classes" not in known or num_classes is None:
        return {}
    return {"num_classes": num_classes}


def _classes(said: Mapping[str, Any], spec: str) -> tuple[str, ...] | None:
    if said.get("classes") is None:
        return None
    names = class_list(said["classes"])
    if names is None:
        raise ModelError(
            f"the classes that {spec} names are not valid",
            expected="names in the order of the outputs, or a dict of names and numbers from 0",
            found=repr(said["classes"])[:80],
        )
    return tuple(names)


def _has_other_classes(module: nn.Module) -> bool:
    """Whether a network of timm is not the one that its configuration describes."""
    config = getattr(module, "pretrained_cfg", None)
    described = config.get("num_classes") if isinstance(config, Mapping) else None
    return described is not None and described != getattr(module, "num_classes", described)


def _identity(spec: str, module: nn.Module) -> str:
    """A digest of the network, and of the user's own files that it came from."""
    digest = hashlib.sha256(digest_of(module).encode())
    here = Path.cwd()
    files = {
        Path(file)
        for name, loaded in list(sys.modules.items())
        if (file := getattr(loaded, "__file__", None)) is not None
        # A script that asks for the audit is no part of the network, and is not what other
        # processes of the run are started with.
        and (name == spec.partition(":")[0] or (name != "__main__" and _is_users(Path(file), here)))
    }
    for file in sorted(files):
        if file.is_file():
            digest.update(sha256_of(file).encode())
    return digest.hexdigest()


def _is_users(file: Path, here: Path) -> bool:
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    return not installed and file.is_relative_to(here) and not file.is_relative_to(_OURS)
