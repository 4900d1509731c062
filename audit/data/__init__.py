"""Where images, labels and dataset masks come from."""

from audit.data.geometry import Geometry
from audit.data.loader import iterate
from audit.data.maskfiles import MaskFiles
from audit.data.pictures import Samples
from audit.data.reading import ReadPolicy
from audit.data.sources import DATASETS, is_code, open_split
from audit.data.split import ArraySplit, Batch, LimitedSplit, Split

__all__ = [
    "DATASETS",
    "ArraySplit",
    "Batch",
    "Geometry",
    "LimitedSplit",
    "MaskFiles",
    "ReadPolicy",
    "Samples",
    "Split",
    "is_code",
    "iterate",
    "open_split",
]
