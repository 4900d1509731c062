"""Classifiers: those that come with the audit, opening weights, cutting into features and head."""

from audit.models.architectures import ARCHITECTURES, build
from audit.models.opening import Classifier, open_classifier
from audit.models.tap import Cut, cut

__all__ = ["ARCHITECTURES", "Classifier", "Cut", "build", "cut", "open_classifier"]
