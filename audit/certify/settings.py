"""What the benchmark is asked to do: frozen, validated, from flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from audit.certify.plants import CUES, cue_named
from audit.config import AuditConfig, Triple
from audit.errors import ConfigError
from audit.models.architectures import ARCHITECTURES
from audit.validating import expected_of

# Most test images for data that is not small by itself.
_LIMIT, _TRAIN_LIMIT = 2000, 20_000

_PERCENT = re.compile(r"[0-9]{1,3}")
_PERCENTS = "whole percents from 0 to 100, with commas"


class CertifySettings(BaseModel):
    """Settings of one benchmark.

    Attributes:
        dataset: A dataset with a training and a test part; ``demo`` in its variant without cue.
        data_root: Where datasets with a name lie.
        model: ``cnn``, ``cnn-se`` or ``resnet20``.
        checkpoint: Base weights; ``None`` takes those shipped for the dataset, else trains some.
        mean: Of the checkpoint's normalisation, for values in [0, 1], where it does not say.
        std: Likewise.
        cues: What is planted, in this order, three to a model.
        strengths: Shares of a class's images that carry its cue, in percent; 0 is the clean model.
        seeds: How often all is done, with other classes, places, orders and fresh weights.
        random: Networks with random weights that are audited as a check; 0 leaves all checks.
        limit: Most test images.
        train_limit: Most training images.
        base_epochs: Of the base, where it is trained.
        epochs: Of each model.
        lr: Peak learning rate.
        kept: Share of the base's weights in what each model begins with; the rest is fresh.
        masks: As in ``audit run``.
        device: ``auto``, ``cpu``, ``cuda``.
        out: Where reports go.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    dataset: str = "demo"
    data_root: Path = Path("data")
    model: str = "cnn"
    checkpoint: Path | None = None
    mean: Triple | None = None
    std: Triple | None = None
    cues: tuple[str, ...] = Field(default=tuple(CUES), min_length=1)
    strengths: tuple[int, ...] = Field(default=(0, 20, 50, 80, 95, 100), min_length=1)
    seeds: int = Field(default=1, ge=1, le=100)
    random: int = Field(default=10, ge=0, le=100)
    limit: int = Field(default=_LIMIT, ge=20)
    train_limit: int = Field(default=_TRAIN_LIMIT, ge=100)
    base_epochs: int = Field(default=6, ge=1)
    epochs: int = Field(default=4, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    kept: float = Field(default=0.3, ge=0, le=1)
    masks: str = "auto"
    device: str = "auto"
    out: Path = Path("reports")

    @property
    def mask_sources(self) -> tuple[str, ...]:
        """Where object masks come from; scores rest on the first."""
        return _parts(self.masks)

    @field_validator("cues", mode="before")
    @classmethod
    def _read_cues(cls, value: Any) -> Any:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("strengths", mode="before")
    @classmethod
    def _read_strengths(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = _parts(value)
        if not all(_PERCENT.fullmatch(part) for part in parts):
            raise ValueError(_PERCENTS)
        return [int(part) for part in parts]

    @field_validator("strengths")
    @classmethod
    def _check_strengths(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not all(0 <= strength <= 100 for strength in value):
            raise ValueError(_PERCENTS)
        return tuple(sorted(set(value)))

    @field_validator("masks")
    @classmethod
    def _check_masks(cls, value: str) -> str:
        # The audit reads them from this text; what it would refuse is refused before any training.
        AuditConfig._check_masks(_parts(value))
        return value

    @field_validator("cues")
    @classmethod
    def _check_cues(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                cue_named(name)
            except ConfigError as error:
                raise ValueError(f"{error.expected}, several with commas") from error
        if len(set(value)) < len(value):
            raise ValueError("each cue once")
        return value

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: str) -> str:
        if value not in ARCHITECTURES:
            raise ValueError(" | ".join(ARCHITECTURES) + ", which can be trained here")
        return value


def _parts(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


def load_settings(flags: Mapping[str, Any]) -> CertifySettings:
    """Settings from flags.

    Args:
        flags: Values by name; ``None`` leaves the default.

    Returns:
        The settings.

    Raises:
        ConfigError: If a value is not allowed.

    Example:
        >>> load_settings({"strengths": "95,0", "cues": "frame"}).strengths
        (0, 95)
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return CertifySettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigError(
            f"the setting --{name.replace('_', '-')} is not valid",
            expected=expected_of(error),
            found=repr(given.get(name)),
        ) from error
