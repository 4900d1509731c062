"""Functions of tensors compiled by inductor where that works, and as they are where it does not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Tell = Callable[[str], object]

_LOG = logging.getLogger("audit.inference")
# How far compiled results may be from eager ones, relative to the largest value.
TOLERANCE = 1e-4
# Compiled forms of one function in a process.
_MOST_CODE = 64
# Where graphs replayed as a whole spare launching kernels one by one.
_SMALL = 50_000_000


def log_warning(message: str) -> None:
    """Tell loggers of ``audit`` of a trouble that ends nothing."""
    _LOG.warning(message)


def compiled(
    work: Callable[..., Any],
    *,
    name: str,
    tell: Tell = log_warning,
    freezing: bool = False,
    tolerance: float = TOLERANCE,
) -> Callable[..., Any]:
    """Compile a function of tensors at its first call.

    The first call's results are compared with those of the function as it is. Where compiling
    fails, or gives other results, the function stays as it is. So do calls with tensors of other
    shapes, types or devices than the first one's: nothing is compiled a second time.

    Args:
        work: Tensors to a tensor, or to a tuple, list or mapping of tensors (also nested); of the
            same shapes always the same operations. A module is compiled with its parameters.
        name: What it is called, for people.
        tell: Is told in one line why it could not be compiled.
        freezing: Make the parameters constants of the compiled code. They are then never read
            again, and gradients never flow.
        tolerance: Of floats, relative to the largest value of a tensor.

    Returns:
        A function that takes and gives the same.

    Example:
        >>> double = compiled(lambda x: {"twice": 2 * x}, name="double")
        >>> type(double).__name__
        'Compiled'
    """
    return Compiled(work, name, tell, freezing, tolerance)


class Compiled:
    """See :func:`compiled`.

    Attributes:
        failed: Why the function stays as it is; empty while it does not.
    """

    def __init__(
        self, work: Callable[..., Any], name: str, tell: Tell, freezing: bool, tolerance: float
    ) -> None:
        self.failed = ""
        self._work = work
        self._name = name
        self._tell = tell
        self._freezing = freezing
        self._tolerance = tolerance
        self._fast: Callable[..., Any] | None = None
        self._signature: object = None

    def __call__(self, *given: Any) -> Any:
        """The function's results."""
        if self.failed:
            return self._work(*given)
        if self._fast is None:
            return self._first(given)
        if self._signature != _signature(given):
            return self._work(*given)
        return self._fast(*given)

    def _first(self, given: tuple[Any, ...]) -> Any:
        expected = self._work(*given)
        try:
            with _compiling(self._freezing):
                fast = _inductor(self._work, given)
                found = fast(*given)
        except Exception as error:  # noqa: BLE001  # compilers, linkers and disks raise anything
            return self._stay(_reason(error), expected)
        gap = difference(found, expected)
        if gap is None or gap > self._tolerance:
            off = "of another form" if gap is None else f"off by {gap:.1e} of the largest value"
            return self._stay(f"its results are {off}", expected)
        self._fast, self._signature = fast, _signature(given)
        return expected

    def _stay(self, why: str, expected: Any) -> Any:
        self.failed = why
        self._tell(f"the {self._name} is computed without being compiled: {why}")
        return expected


def difference(found: Any, expected: Any) -> float | None:
    """How far results are from others, relative to the largest value of each tensor.

    Args:
        found: A tensor, or a tuple, list or mapping of tensors, nested or not.
        expected: Likewise.

    Returns:
        The largest distance; infinite where whole numbers differ, or where only one of two
        numbers is finite. ``None`` for results of another form.

    Example:
        >>> difference({"a": torch.tensor([1.0, 4.0])}, {"a": torch.tensor([1.5, 4.0])})
        0.125
    """
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or list(found) != list(expected):
            return None
        return difference(list(found.values()), list(expected.values()))
    if isinstance(expected, (tuple, list)):
        if not isinstance(found, (tuple, list)) or len(found) != len(expected):
            return None
        gaps = [difference(f, e) for f, e in zip(found, expected, strict=True)]
        known = [gap for gap in gaps if gap is not None]
        return max(known, default=0.0) if len(known) == len(gaps) else None
    if isinstance(expected, Tensor):
        return _tensor_difference(found, expected)
    return 0.0 if found == expected else None


def _tensor_difference(found: Any, expected: Tensor) -> float | None:
    same = isinstance(found, Tensor) and (found.shape, found.dtype) == (
        expected.shape,
        expected.dtype,
    )
    if not same:
        return None
    if not expected.is_floating_point():
        return 0.0 if torch.equal(found, expected) else float("inf")
    finite = expected.isfinite()
    if not torch.equal(finite, found.isfinite()) or not torch.equal(
        expected.isnan(), found.isnan()
    ):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    gap = torch.where(finite, found.float() - expected.float(), 0).abs().max()
    scale = torch.where(finite, expected.float(), 0).abs().max()
    return float(gap / scale.clamp_min(torch.finfo(torch.float32).tiny))


def _inductor(work: Callable[..., Any], given: tuple[Any, ...]) -> Callable[..., Any]:
    options: dict[str, Any] = {}
    if any(isinstance(each, Tensor) and each.is_cuda for each in given) and _is_small(work):
        options["triton.cudagraphs"] = True
    fast: Callable[..., Any] = torch.compile(
        work, backend="inductor", fullgraph=True, dynamic=False, options=options or None
    )
    return _kept(fast) if options else fast


def _kept(fast: Callable[..., Any]) -> Callable[..., Any]:
    """Results of a graph of CUDA that its next replay does not overwrite."""
    from torch.utils._pytree import tree_map_only

    def run(*given: Any) -> Any:
        return tree_map_only(Tensor, torch.clone, fast(*given))

    return run


def _is_small(work: Callable[..., Any]) -> bool:
    return isinstance(work, nn.Module) and sum(p.numel() for p in work.parameters()) < _SMALL


@contextmanager
def _compiling(freezing: bool) -> Iterator[None]:
    """Settings of a compilation, and silence."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    logger = logging.getLogger("torch")
    with ExitStack() as stack:
        # No pool of compiling processes stays behind, beside those that decode.
        stack.enter_context(inductor.patch(freezing=freezing, compile_threads=1))
        # Each network and each step is its own; they share code.
        stack.enter_context(dynamo.patch(recompile_limit=_MOST_CODE))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        yield


def _signature(given: tuple[Any, ...]) -> object:
    """What compiled code was made for."""
    found: list[object] = []
    for each in given:
        if isinstance(each, Tensor):
            found.append((each.shape, each.dtype, each.device, each.stride()))
        elif isinstance(each, Mapping):
            found.append((tuple(each), _signature(tuple(each.values()))))
        elif isinstance(each, (tuple, list)):
            found.append(_signature(tuple(each)))
        else:
            found.append(each)
    return tuple(found)


def _reason(error: Exception) -> str:
    """Why compiling failed, in words and on one line."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or getattr(chain[-1], "inner_exception", None)) is not None:
        chain.append(cause)
    text = " ".join(str(each) for each in chain)
    kinds = {type(each).__name__ for each in chain}
    if "InvalidCxxCompiler" in kinds or "No working C++ compiler" in text:
        return "this machine has no C++ compiler that works (g++ would do)"
    if any(isinstance(each, OSError) for each in chain):
        found = next(each for each in chain if isinstance(each, OSError))
        return f"compiled code cannot be kept: {found.strerror or found}"
    lines = [line.strip() for line in str(chain[-1]).splitlines() if line.strip()]
    return f"{type(chain[-1]).__name__}: {(lines or ['no message'])[0][:160]}"
