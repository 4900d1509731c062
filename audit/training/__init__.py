"""Training the classifiers that come with the audit: recipe, loop, curves, model card."""

from audit.training.loop import train
from audit.training.recipe import Recipe

__all__ = ["Recipe", "train"]
