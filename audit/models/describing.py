"""What was opened, and how, for people."""

from __future__ import annotations

from collections.abc import Sequence

from audit.models.opening import Classifier
from audit.models.tap import Cut


def describe(classifier: Classifier, parts: Cut, notes: Sequence[str] = ()) -> str:
    """Network, target layer, images and classes in a few lines.

    Args:
        classifier: The classifier.
        parts: Where it was cut.
        notes: What else the user should know.
    """
    shape = f"{parts.channels}×{parts.grid[0]}×{parts.grid[1]}"
    lines = [
        f"model: {classifier.architecture}, weights {classifier.weights}",
        f"layer: {parts.layer} ({shape}), cut by {parts.how}",
        f"images: {classifier.preprocessing.describe()}",
    ]
    if classifier.classmap is not None:
        outputs, by = sum(map(len, classifier.classmap.members)), classifier.classmap.by
        lines.append(
            f"classes: {outputs} outputs of the model as {len(classifier.classes)}, by their {by}"
        )
    if parts.rest:
        lines.append(
            "note: the head also reads more than this layer; what that supplies is residual_logit"
        )
    lines += [f"note: {note}" for note in (*classifier.notes, *parts.notes, *notes)]
    return "\n".join(lines)
