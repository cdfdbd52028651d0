"""fusedmix: batch augmentation for PyTorch, one launch a call."""

from .functional import Plan, debug, fused_cutmix, fused_mixup
from .labels import MixedTarget
from .transforms import FusedMix

__version__ = "0.1.0"
__all__ = ["FusedMix", "MixedTarget", "Plan", "debug", "fused_cutmix", "fused_mixup"]
