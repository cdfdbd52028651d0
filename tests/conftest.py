"""Without a GPU the kernels run in Triton's interpreter, which must be chosen before triton is imported."""

import contextlib
import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    # Without triton there is the CPU path, and where the interpreter's insides are others it is slow but no less right.
    with contextlib.suppress(ImportError, AttributeError):
        from quick_interpreter import quicken

        quicken()
torch.set_num_threads(1)  # tests run in parallel processes
