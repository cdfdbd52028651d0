"""From a uint8 batch to the training tensor on a CPU: whole recipes against torchvision v2, kornia, PyTorch by hand.

timm's PrefetchLoader and triton-augment need a GPU and are in bench/gpu.py.
"""

from functools import partial
from typing import Any

import pytest
import torch
from contenders import OURS
from cpu_timing import Timed, show, table_of
from peers import Wrong
from recipes import PEERS, RECIPES, Contender, K, admitted, ours


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipe(recipe, benchmark, keep):
    batch, size = recipe.shape[0], recipe.size
    x = torch.randint(256, recipe.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(batch) % K
    out, spare = torch.empty(batch, 3, *size), torch.rand(batch, 3, *size)
    entries = [
        (Contender(OURS, ours), "fresh"), (Contender(OURS, partial(ours, out=out)), "out"),
        *((peer, "fresh") for peer in PEERS),
    ]  # fmt: skip
    timed: Timed = {}
    remarks: list[dict[str, Any]] = []
    for contender, destination in entries:
        try:
            call = admitted(contender, recipe)
            timed[contender.name, destination] = (lambda call=call: call(x, y)), lambda: out.copy_(spare)
        except (ImportError, Wrong) as error:
            remarks.append({"contender": contender.name, "destination": destination, "status": str(error)})
    table = table_of(recipe.shape, timed, remarks)
    table["unit"] = "median of out.copy_(t) of the float32 result"
    show(f"recipe {recipe.name}", table)
    keep(f"recipe {recipe.name}", table)
    benchmark.pedantic(lambda: ours(recipe)(x, y), rounds=3, warmup_rounds=1)
    assert not [r for r in table["rows"] if r["contender"] == OURS and "ratio" not in r]
