"""Networks that come as programs: ``torch.export`` archives (.pt2) and TorchScript files."""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audit.errors import ModelError
from audit.models.archive import UnsafeError, safe_copy
from audit.models.pickles import kind_of, pickled_classes


def open_program(path: Path) -> nn.Module:
    """Load a program as a module on the CPU.

    A ``.pt2`` archive that holds pickled objects or compiled code is refused. TorchScript runs in
    its own interpreter. Either is a program all the same: open only files from people you trust.

    Args:
        path: The file.

    Returns:
        An ``fx.GraphModule`` for a ``.pt2``, a ``ScriptModule`` for TorchScript.

    Raises:
        ModelError: If the file is not whole, unsafe, or has no ``forward``.
    """
    if not path.is_file():
        raise ModelError(
            f"the model file {path} does not exist", remedy="check the path after --model"
        )
    match _kind(path):
        case "export":
            return _open_export(path)
        case "script":
            return _open_script(path)
    raise _no_program(path)


def fixed_shape(module: nn.Module) -> tuple[int | None, tuple[int, int] | None]:
    """What an exported program was frozen at: the number of images, and their height and width.

    Args:
        module: Any; only exported programs are frozen.

    Returns:
        ``None`` for each that may vary.
    """
    if not isinstance(module, torch.fx.GraphModule):
        return None, None
    inputs = module.graph.find_nodes(op="placeholder")
    value = inputs[0].meta.get("val") if inputs else None
    if not isinstance(value, Tensor) or value.dim() != 4:
        return None, None
    batch, _, height, width = (n if isinstance(n, int) else None for n in value.shape)
    return batch, (height, width) if height and width else None


def _no_program(path: Path) -> ModelError:
    pickled = pickled_classes(path)
    remedy = f"weights need their network: --model NAME --checkpoint {path}"
    if pickled is not None:
        remedy = "write it with torch.export.save or torch.jit.save; a pickle runs its own code"
    found = "a PyTorch file of weights"
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            found = kind_of(file.read(64))
    return ModelError(
        f"{path} is not a model program",
        expected="a torch.export archive (.pt2) or a TorchScript file",
        found=pickled or found,
        remedy=remedy,
    )


def _kind(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return None
    if "archive_format" in names:
        return "export"
    return "script" if "constants.pkl" in names else None


def _open_export(path: Path) -> nn.Module:
    from torch.export.pt2_archive._package import load_pt2

    try:
        with warnings.catch_warnings(), _quietly():
            warnings.simplefilter("ignore")
            # torch.export.load would fall back to an older format that is unpickled.
            programs = load_pt2(safe_copy(path.read_bytes())).exported_programs
            module = _only(programs, path).module(check_guards=False)
    except UnsafeError as error:
        raise ModelError(
            f"{path} was not loaded, because that could run code from it",
            expected="a torch.export archive of plain tensors and operators",
            found=str(error),
            remedy="export the network again with torch.export.save",
        ) from error
    except ModelError:
        raise
    except Exception as error:  # the loader raises anything on a damaged archive
        raise _damaged(path, error) from error
    return _as_module(module)


def _only(programs: Mapping[str, torch.export.ExportedProgram], path: Path) -> Any:
    if len(programs) != 1:
        raise ModelError(
            f"{path} does not hold one program",
            expected="a file of torch.export.save",
            found=", ".join(programs) or "none",
        )
    return next(iter(programs.values()))


def _as_module(graph: Any) -> nn.Module:
    """An exported program as any other module."""
    # They raise; and evaluation mode is what it was exported in, whatever its flag says.
    vars(graph).pop("eval", None)
    vars(graph).pop("train", None)
    # These insist on the device of the export.
    for node in graph.graph.find_nodes(
        op="call_function", target=torch.ops.aten._assert_tensor_metadata.default
    ):
        graph.graph.erase_node(node)
    graph.recompile()
    module: nn.Module = graph
    return module


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep torch from writing what it is told of an archive to the terminal."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _open_script(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise _damaged(path, error) from error
    if not hasattr(module, "forward"):
        raise ModelError(
            f"the TorchScript file {path} has no forward method",
            expected="a scripted or traced module whose forward takes images and gives logits",
            found="methods: " + (", ".join(_methods(module)) or "none"),
            remedy="save torch.jit.script(network) of the network itself",
        )
    return module


def _methods(module: Any) -> list[str]:
    return sorted(str(name) for name in module._c._method_names())


def _damaged(path: Path, error: Exception) -> ModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ModelError(
        f"{path} cannot be loaded as a model program",
        found=(lines[-1] if lines else type(error).__name__)[:200],
        remedy="write it again with this machine's version of torch, "
        f"{torch.__version__.partition('+')[0]}",
    )


class FirstLogits(nn.Module):
    """A network whose output is a tuple, a dict or an object that holds the logits.

    Args:
        network: Gives a tensor, or something that holds one as its first entry, as ``logits`` or
            as ``out``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        return logits_of(self.network(images))


def logits_of(output: Any) -> Any:
    """The logits in what a network returns; anything unknown is given back as it is."""
    if isinstance(output, dict):
        return output.get("logits", output.get("out", output))
    if isinstance(output, (tuple, list)) and output:
        return output[0]
    return getattr(output, "logits", output) if not isinstance(output, Tensor) else output
