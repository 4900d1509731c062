"""The network's forward pass, as fast as the machine allows and as exact as the user wants."""

from audit.inference.backbone import FastBackbone
from audit.inference.compiling import compiled

__all__ = ["FastBackbone", "compiled"]
