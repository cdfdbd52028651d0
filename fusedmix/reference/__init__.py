"""The definition of every method in plain PyTorch: what the kernels and the CPU path must equal.

Mirrors `kernels/` name for name. Slow and obvious on purpose; differentiable, so that its autograd defines ours.
"""

from .mix import mix as mix
