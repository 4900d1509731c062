"""The ``[gate]`` table of a job file: what a run must keep to for a pipeline to go on."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)

from audit.config import GATE, read_toml
from audit.errors import ConfigError
from audit.tables.scored import METRIC_NAMES
from audit.tables.verdicts import CLEAR, VERDICTS

TABLE = GATE
# A class with it is what a gate is to let through.
FORBIDDABLE = tuple(verdict for verdict in VERDICTS if verdict != CLEAR)
AGAINST_BASELINE = ("max_rise", "max_fall")
RULES = (
    "forbid", "min_accuracy", "min_class_accuracy", "max_reliance", "max_background_share",
    "max_label_issue_share", "max_undefined_share", "min_tested_classes", *AGAINST_BASELINE,
)  # fmt: skip

# Strict: neither true nor "0.9" is a number.
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Switch = Annotated[bool, Strict()]
Limit = Annotated[float, Strict()]


class GateSettings(BaseModel):
    """Rules, and the classes they hold for.

    Attributes:
        forbid: Verdicts that no class may have.
        min_accuracy: Of the split.
        min_class_accuracy: Of each class.
        max_reliance: Of each class: what its background moves in pixel transplants.
        max_background_share: Of each class: the mean share of its maps that lies on background.
        max_label_issue_share: Of the split: labels that look wrong.
        max_undefined_share: Of the split and of each class: samples without scores.
        min_tested_classes: Classes with a verdict other than mask-limited or too few samples.
        max_rise: By metric, how much more than in the baseline it may be.
        max_fall: By metric, how much less.
        baseline: A run's folder, or a folder of runs of which the newest counts.
        classes: The only classes that rules of classes hold for; empty for all.
        except_classes: Classes that they do not hold for; ``except`` in the file.
        strict: A limit is kept only where the whole 95% interval keeps it.
        untested: What becomes of a class that cannot be judged: ``list`` names it, and a rule by
            which nothing can be judged fails; ``fail`` fails each; ``allow`` fails none.
        allow_missing: Whether a run may go without parts of its split.

    Example:
        >>> GateSettings(forbid=["suspect"], max_rise={"far_logit": 0.1}, baseline="b").rules
        ('forbid', 'max_rise')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False)

    forbid: tuple[str, ...] = ()
    min_accuracy: Share | None = None
    min_class_accuracy: Share | None = None
    max_reliance: Share | None = None
    max_background_share: Share | None = None
    max_label_issue_share: Share | None = None
    max_undefined_share: Share | None = None
    min_tested_classes: Annotated[int, Strict(), Field(ge=1)] | None = None
    max_rise: dict[str, Limit] = Field(default_factory=dict)
    max_fall: dict[str, Limit] = Field(default_factory=dict)
    baseline: Path | None = None
    classes: tuple[str, ...] = ()
    except_classes: tuple[str, ...] = Field(default=(), alias="except")
    strict: Switch = False
    untested: Literal["list", "fail", "allow"] = "list"
    allow_missing: Switch = False

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that are set."""
        return tuple(name for name in RULES if getattr(self, name) not in ((), None, {}))

    @field_validator("forbid")
    @classmethod
    def _check_verdicts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for verdict in value:
            if verdict not in FORBIDDABLE:
                raise ValueError(
                    f"verdicts among {', '.join(FORBIDDABLE)}{_near(verdict, FORBIDDABLE)}"
                )
        return value

    @field_validator("max_rise", "max_fall")
    @classmethod
    def _check_limits(cls, value: dict[str, float]) -> dict[str, float]:
        for metric in value:
            if metric not in METRIC_NAMES:
                names = ", ".join(METRIC_NAMES)
                raise ValueError(f"metrics among {names}{_near(metric, METRIC_NAMES)}")
        if not all(limit >= 0 and math.isfinite(limit) for limit in value.values()):
            raise ValueError("for each metric a finite number of at least 0")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> GateSettings:
        both = sorted(set(self.classes) & set(self.except_classes))
        if both:
            raise ValueError(f"no class in both classes and except, as '{both[0]}' is")
        if not self.rules:
            raise ValueError(f"at least one rule: {', '.join(RULES)}")
        against = [name for name in AGAINST_BASELINE if name in self.rules]
        if against and self.baseline is None:
            raise ValueError(f"a baseline, which {against[0]} compares with")
        if self.baseline is not None and not against:
            raise ValueError("[gate.max_rise] or [gate.max_fall], as there is a baseline")
        return self


def load_gate(file: Path, baseline: Path | None = None) -> GateSettings | None:
    """Read the ``[gate]`` table of a job file.

    Args:
        file: TOML.
        baseline: A baseline to take instead of the file's.

    Returns:
        The settings; ``None`` if the file has no such table.

    Raises:
        ConfigError: If the file cannot be read, or a name or a value is not allowed.
    """
    content = read_toml(file)
    if TABLE not in content:
        return None
    table = content[TABLE]
    if not isinstance(table, dict):
        raise ConfigError(f"the setting 'gate' in {file} is not valid", expected="a table [gate]",
                          found=repr(table))  # fmt: skip
    given: dict[str, Any] = table | ({} if baseline is None else {"baseline": str(baseline)})
    names = [field.alias or name for name, field in GateSettings.model_fields.items()]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ConfigError(
            f"unknown rule '{unknown[0]}' in [gate] of {file}",
            expected="one of " + ", ".join(names),
            remedy=did_you_mean(unknown[0], names),
        )
    try:
        return GateSettings(**given)
    except ValidationError as error:
        raise _explained(error, given, file) from error


def did_you_mean(name: str, names: Iterable[str]) -> str | None:
    """A remedy for a misspelt name, where one of the right names is near.

    Example:
        >>> did_you_mean("tree", ["one", "three"])
        "did you mean 'three'?"
    """
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean '{near[0]}'?" if near else None


def _near(name: str, names: Iterable[str]) -> str:
    remedy = did_you_mean(name, names)
    return f"; {remedy}" if remedy else ""


def _explained(error: ValidationError, given: dict[str, Any], file: Path) -> ConfigError:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not first["loc"]:
        return ConfigError(
            f"the rules in [gate] of {file} do not fit together",
            expected=message,
            found=", ".join(given) or "an empty table",
        )
    name = ".".join(map(str, first["loc"]))
    return ConfigError(
        f"the rule '{name}' in [gate] of {file} is not valid",
        expected=message,
        found=repr(first["input"]),
    )
