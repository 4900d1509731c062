"""The numbers of a run that trackers plot: of the split, and of each class."""

from __future__ import annotations

import math

from audit.export.names import safe_name, safe_names
from audit.tables.reading import AuditRun
from audit.tables.verdicts import VERDICTS

_OF_SPLIT = (
    "samples", "accuracy", "accuracy_macro", "background_share", "background_share_low",
    "background_share_high", "transplant_rate", "transplant_rate_low", "transplant_rate_high",
    "kappa", "kappa_low", "kappa_high", "label_issue_share", "label_suspects",
    "pixel_average_precision",
)  # fmt: skip
_OF_CLASS = (
    "accuracy", "reliance", "reliance_low", "reliance_high", "background_share", "transplant_rate",
    "far_logit", "kappa",
)  # fmt: skip


def metrics_of(run: AuditRun) -> dict[str, float]:
    """Names and finite numbers; what is undefined is left out.

    Args:
        run: A finished run.

    Returns:
        ``split/accuracy`` and the like, ``verdicts/relies_on_background``, the number of classes
        with that verdict, and ``class_accuracy/CLASS`` and the like. Names hold letters, digits,
        ``_``, ``-`` and one ``/``.
    """
    totals = run.manifest["totals"]
    found = {f"split/{name}": totals.get(name) for name in _OF_SPLIT}
    counts = run.classes["verdict"].value_counts()
    found |= {
        f"verdicts/{safe_name(verdict)}": float(counts.get(verdict, 0)) for verdict in VERDICTS
    }
    names = safe_names([str(name) for name in run.classes["label_name"]])
    for column in _OF_CLASS:
        values = run.classes[column].to_numpy(float, na_value=math.nan)
        found |= {
            f"class_{column}/{name}": value for name, value in zip(names, values, strict=True)
        }
    return {
        name: float(value)
        for name, value in found.items()
        if value is not None and math.isfinite(value)
    }


def identity_of(run: AuditRun) -> dict[str, str]:
    """What says which run it is."""
    names = ("run_id", "fingerprint", "data_fingerprint", "weights_sha256", "code_fingerprint")
    return {name: str(run.manifest[name]) for name in names}
