"""Kernels that look up pixels by computed places stay within the batch."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

GUARDED = """
    import ctypes, mmap, sys
    import numpy as np
    import torch
    import augment_cases
    import family_cases
    from fusedmix.placement import Placement

    PAGE, libc, kept = mmap.PAGESIZE, ctypes.CDLL(None, use_errno=True), []
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    plain = augment_cases.images

    def guarded(*arguments):
        x = plain(*arguments)
        memory = mmap.mmap(-1, 2 * PAGE)
        room = np.frombuffer(memory, np.uint8)
        assert libc.mprotect(room.ctypes.data + PAGE, PAGE, 0) == 0  # a read of this page ends the process
        kept.append(room)
        last = torch.from_numpy(room[PAGE - x.numel() : PAGE]).view(x.shape)
        return last.copy_(x)

    augment_cases.images = family_cases.images = guarded
    for name in sys.argv[1:]:
        if name in family_cases.SPECS:
            family_cases.check("kernel", family_cases.single(name), (4, 3, 8, 9), torch.uint8, seed=len(name))
        elif name == "resized crop, words":
            placement = Placement((3, 64), augment_cases.RESIZED)
            augment_cases.check("kernel", augment_cases.Case(placement), (3, 3, 5, 12), torch.uint8)
        else:
            augment_cases.check("kernel", augment_cases.CASES[name], (3, 3, 8, 9), torch.uint8, seed=len(name))
    print("unharmed")
    if sys.argv[1:] == ["nothing"]:
        print(kept[0][PAGE])
"""


@pytest.mark.skipif(torch.cuda.is_available() or os.name != "posix", reason="guards pages of the host")
def test_kernels_read_nothing_behind_the_batch() -> None:
    """Tiles reach past the last image, whose bytes end where memory that can't be read begins."""
    here = Path(__file__).resolve().parent
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))}

    def run(*names: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", textwrap.dedent(GUARDED), *names]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    crops = "smaller crop", "crop and flip", "crop, edge, mixed", "resized crop", "centre, share", "resized crop, words"
    done = run(*crops, "whole", "affine", "affine, nearest, reflect", "resizemix", "resizemix bilinear")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["unharmed"]
    done = run("nothing")  # then reads the guarded page on purpose
    assert done.returncode < 0, "the guard is none"
