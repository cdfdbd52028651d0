"""fusedmix: batch augmentation for PyTorch, one launch a call."""

from . import loader, recipes, visualize
from .augment import AugmentPlan, FusedAugment
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
from .placement import CenterCrop, ColorJitter, Flip, RandomAffine, RandomCrop, RandomResizedCrop
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
    MixupOrCutMix,
    RandomErasing,
    ResizeMix,
    SmoothMix,
)
from .transforms import FusedMix

__version__ = "0.1.0"
__all__ = [
    "METHOD_NAMES",
    "AugmentPlan",
    "CenterCrop",
    "ColorJitter",
    "CutMix",
    "Cutout",
    "FMix",
    "Flip",
    "FusedAugment",
    "FusedMix",
    "GridMask",
    "GridMix",
    "HideAndSeek",
    "Linear",
    "MixedTarget",
    "Mixup",
    "MixupOrCutMix",
    "Plan",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomResizedCrop",
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
    "loader",
    "recipes",
    "visualize",
]
