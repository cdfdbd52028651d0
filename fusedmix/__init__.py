"""fusedmix: batch augmentation for PyTorch, one launch a call."""

from . import visualize
from .functional import (
    Plan,
    debug,
    fused_cutmix,
    fused_cutout,
    fused_fmix,
    fused_gridmask,
    fused_gridmix,
    fused_hide_and_seek,
    fused_mixup,
    fused_random_erasing,
    fused_resizemix,
    fused_smoothmix,
)
from .labels import MixedTarget
from .recipe import METHOD_NAMES
from .schedule import Linear, Until
from .spec import (
    CutMix,
    Cutout,
    FMix,
    GridMask,
    GridMix,
    HideAndSeek,
    Mixup,
    RandomErasing,
    ResizeMix,
    SmoothMix,
)
from .transforms import FusedMix

__version__ = "0.1.0"
__all__ = [
    "METHOD_NAMES",
    "CutMix",
    "Cutout",
    "FMix",
    "FusedMix",
    "GridMask",
    "GridMix",
    "HideAndSeek",
    "Linear",
    "MixedTarget",
    "Mixup",
    "Plan",
    "RandomErasing",
    "ResizeMix",
    "SmoothMix",
    "Until",
    "debug",
    "fused_cutmix",
    "fused_cutout",
    "fused_fmix",
    "fused_gridmask",
    "fused_gridmix",
    "fused_hide_and_seek",
    "fused_mixup",
    "fused_random_erasing",
    "fused_resizemix",
    "fused_smoothmix",
    "visualize",
]
