"""From settings to the classifier that explains pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from audit.config import AuditConfig, load_config
from audit.errors import ConfigError, UsageError
from audit.inputs import flags_of, refuse_two_networks
from audit.models import ARCHITECTURES, Classifier, Request, Wanted, open_classifier
from audit.models.sources import all_shipped_weights

_SETTINGS = frozenset(
    {
        "model", "checkpoint", "checkpoint_key", "download", "preprocessing", "image_size",
        "resize", "interpolation", "mean", "std", "target_layer", "method", "smooth", "channels",
        "device",
    }
)  # fmt: skip


def settings_of(given: Mapping[str, Any]) -> AuditConfig:
    """The settings that single pictures need, validated.

    Args:
        given: Values by name; ``None`` leaves the default.

    Raises:
        ConfigError: If a name or a value is not allowed.
    """
    unknown = [name for name in given if name not in _SETTINGS]
    if unknown:
        raise ConfigError(
            f"pictures are explained without the setting '{unknown[0]}'",
            expected="one of " + ", ".join(sorted(_SETTINGS)),
        )
    config = load_config(None, given)
    if len(config.method) > 1:
        raise ConfigError(
            "pictures are explained by one method at a time",
            expected="one --method",
            found=", ".join(config.method),
        )
    return config


def open_for_pictures(
    config: AuditConfig, network: nn.Module | None, names: tuple[str, ...] | None
) -> Classifier:
    """Open the network whose predictions are explained.

    Args:
        config: The settings.
        network: The network, where the caller holds it.
        names: What the user calls its outputs. They are put on afterwards: as the data's classes,
            fewer names than outputs would pick some of the outputs.

    Raises:
        ModelError: If it cannot be opened.
        UsageError: If no network or no weights are named.
    """
    if network is None and config.checkpoint is None:
        _refuse_nameless(config.model)
        _refuse_no_weights(config.model)
    return _opened(config, network, num_classes=len(names) if names else None)


def open_for_layers(config: AuditConfig, network: nn.Module | None) -> Classifier:
    """Open a network to look at its layers, with random weights if there are no others.

    Args:
        config: The settings.
        network: The network, where the caller holds it.

    Raises:
        ModelError: If it cannot be opened.
        UsageError: If no network is named.
    """
    if network is None and config.checkpoint is None:
        _refuse_nameless(config.model)
    return _opened(config, network, random_weights=True)


def _opened(config: AuditConfig, network: nn.Module | None, **more: Any) -> Classifier:
    refuse_two_networks(config, network)
    request = Request(
        model=config.model,
        checkpoint=config.checkpoint,
        key=config.checkpoint_key,
        download=config.download,
        **more,
    )
    wanted = Wanted(classes=None, flags=flags_of(config))
    return open_classifier(request if network is None else network, wanted)


def _refuse_nameless(model: str | None) -> None:
    if model is None:
        raise UsageError(
            "no network is named",
            expected="--model NAME, --checkpoint FILE, or both",
            remedy="for example: --model torchvision:resnet50 --checkpoint FILE"
            + "".join(f", or --checkpoint {file}" for file in all_shipped_weights()[:1]),
        )


def _refuse_no_weights(model: str | None) -> None:
    if model in ARCHITECTURES:
        shipped = [f"--checkpoint {file}" for file in all_shipped_weights(model)]
        raise UsageError(
            f"no weights for '{model}' are named",
            expected="--checkpoint FILE",
            remedy=f"take one of those that come with audit: {' or '.join(shipped)}"
            if shipped
            else f"none come with audit; train some: audit train --model {model}",
        )
