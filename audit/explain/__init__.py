"""Single pictures and layers: what a classifier sees, and where it may be cut."""

from audit.explain.files import as_text, find_images
from audit.explain.layers import describe_layers
from audit.explain.names import read_names
from audit.explain.pictures import (
    OK,
    ExplainedImage,
    each_image,
    explain_images,
    probability_lines,
)

__all__ = [
    "OK",
    "ExplainedImage",
    "as_text",
    "describe_layers",
    "each_image",
    "explain_images",
    "find_images",
    "probability_lines",
    "read_names",
]
