"""Class activation maps: features and head to maps, and maps between grid and image."""

from audit.cam.methods import METHODS, Method, cam, gradcam, hirescam, top_channels
from audit.cam.resample import Resampler, bilinear_matrix, to_image

__all__ = [
    "METHODS",
    "Method",
    "Resampler",
    "bilinear_matrix",
    "cam",
    "gradcam",
    "hirescam",
    "to_image",
    "top_channels",
]
