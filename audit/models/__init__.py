"""Classifiers: opening anyone's, loading weights, cutting into features and head."""

from audit.models.architectures import ARCHITECTURES, build
from audit.models.describing import describe
from audit.models.failing import own_failures
from audit.models.frozen import evaluation, fused_kernels, plain_kernels
from audit.models.network import Request
from audit.models.opening import Classifier, Wanted, open_classifier
from audit.models.preprocessing import PreprocessingFlags
from audit.models.tap import Cut, cut, list_layers

__all__ = [
    "ARCHITECTURES",
    "Classifier",
    "Cut",
    "PreprocessingFlags",
    "Request",
    "Wanted",
    "build",
    "cut",
    "describe",
    "evaluation",
    "fused_kernels",
    "list_layers",
    "open_classifier",
    "own_failures",
    "plain_kernels",
]
