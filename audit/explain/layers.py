"""The layers that heatmaps may be made of, as a table."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from audit.explain.opening import open_for_layers, settings_of
from audit.models import list_layers
from audit.models.halves import Layer

# Refused layers near the chosen one that the short list shows.
_NEAR = 8
_BYPASSED = (
    "A layer beside which the head reads others may be named too; its map explains a part only."
)


def describe_layers(
    *, network: nn.Module | None = None, everything: bool = False, **settings: Any
) -> str:
    """A table of the activations that might be the target layer.

    Args:
        network: The network, where you hold it already.
        everything: All of them, rather than those that can be chosen and some near the choice.
        **settings: What names the network and the size of its images, as in
            :func:`explain_images`. Weights need not be at hand: layers do not depend on them.

    Returns:
        Lines of text.

    Raises:
        AuditError: If the network cannot be opened.

    Example:
        >>> table = describe_layers(model="cnn")
        >>> [line.split()[0] for line in table.splitlines() if line.endswith("<- chosen")]
        ['features.2.2']
    """
    given = {name: value for name, value in settings.items() if value is not None}
    # Layers do not depend on the normalisation either.
    config = settings_of({"mean": (0, 0, 0), "std": (1, 1, 1)} | given)
    classifier = open_for_layers(config, network)
    geometry = classifier.preprocessing.geometry
    assert geometry is not None
    layers, chosen, how = list_layers(classifier.module, geometry.size, batch=classifier.batch)
    shown = range(len(layers)) if everything else _worth_showing(layers, chosen)
    size = "×".join(map(str, geometry.size))
    lines = [f"{classifier.architecture} on {size} images, cut by {how}", ""]
    lines += _table([_row(classifier.module, layers[n], chosen) for n in shown])
    hidden = len(layers) - len(shown)
    if any(layers[n].bypassed for n in shown):
        lines += ["", _BYPASSED]
    if not chosen:
        lines += ["", "No layer can be explained: each has the reason beside it."]
    if hidden:
        lines += ["", f"{hidden} more that are refused: --all"]
    return "\n".join(lines)


def _worth_showing(layers: Sequence[Layer], chosen: str) -> list[int]:
    """Those that can be chosen, and the refused ones nearest to the choice."""
    last = len(layers) - 1
    choice = next((n for n, layer in enumerate(layers) if layer.name == chosen), last)
    refused = [n for n, layer in enumerate(layers) if layer.reason]
    near = sorted(refused, key=lambda n: abs(n - choice))[:_NEAR]
    return sorted({*near, *(n for n, layer in enumerate(layers) if not layer.reason)})


def _row(module: nn.Module, layer: Layer, chosen: str) -> tuple[str, str, str, str]:
    if layer.name == chosen:
        remark = "<- chosen"
    elif not layer.reason:
        remark = "may be chosen with --target-layer"
    else:
        remark = layer.reason
    return layer.name, _shape(layer), _kind(module, layer.name), remark


def _shape(layer: Layer) -> str:
    shape = "×".join(map(str, layer.shape))
    layout = layer.layout
    if layout is None or layout.order == "channels first":
        return shape
    if layout.order == "channels last":
        return f"{shape} (channels last)"
    grid = "×".join(map(str, layout.grid))
    return f"{shape} (tokens: {layout.prefix} + {grid})" if layout.prefix else f"{shape} ({grid})"


def _kind(module: nn.Module, name: str) -> str:
    """The class of a layer; an operation between layers has none."""
    for root in (module, getattr(module, "network", None)):
        with contextlib.suppress(AttributeError):
            if root is not None:
                return type(root.get_submodule(name.partition("#")[0])).__name__
    return "operation"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with columns of equal width."""
    titled = [("layer", "shape", "what", ""), *rows]
    widths = [max(len(row[n]) for row in titled) for n in range(3)]
    lines = []
    for *columns, remark in titled:
        padded = [text.ljust(width) for text, width in zip(columns, widths, strict=True)]
        lines.append("  ".join([*padded, remark]).rstrip())
    return lines
