"""How fast is a call on the CPU, beside everyone and `out.copy_(x)`, and what does it allocate?

Each test times all contenders of a work point in the same rounds, keeps the table, prints it (with -s), and asserts
what we promise.
"""

from collections.abc import Iterator

import contenders
import pytest
import torch
from contenders import COMPILED, DESTINATIONS, METHODS, OURS, Point
from cpu_timing import measure, show

import fusedmix

SMALL, LARGE = (512, 3, 32, 32), (128, 3, 224, 224)
POINTS = [
    *(Point(method, shape) for method in METHODS for shape in (SMALL, LARGE)),
    *(Point(method, (32, 3, 512, 512)) for method in METHODS),
    *(Point(method, LARGE, channels_last=True) for method in METHODS),
    *(Point(method, LARGE, num_classes=21_841) for method in METHODS),
    *(Point(method, LARGE, pipeline=True) for method in METHODS),
]
ROUNDS = {SMALL: 100}
FEW_ROUNDS = 15
MAX_OUT = {"cutmix": 2.0, "mixup": 1.5}  # copies that our out= may take at the large shape
CALLS = {"cutmix": fusedmix.fused_cutmix, "mixup": fusedmix.fused_mixup}


def broken_promises(title: str, point: Point, table: dict) -> list[str]:
    """Ours within MAX_OUT, and ahead of everyone but torch.compile who does the same."""
    rows = [r for r in table["rows"] if "ratio" in r and r["scope"] != "yardstick"]
    ours = {(r["contender"], r["scope"], r["destination"]): r["ratio"] for r in rows if r["contender"].startswith(OURS)}
    wanted = [d for d in DESTINATIONS if not (point.pipeline and d == "in place")]
    broken = [f"{title}: no time for ours, {d}" for d in wanted if (OURS, "per sample", d) not in ours]
    ratio = ours.get((OURS, "per sample", "out"), 0)
    if point == Point(point.method, LARGE) and ratio > MAX_OUT[point.method]:
        broken.append(f"{title}: out= takes {ratio} copies, more than {MAX_OUT[point.method]}")
    for r in rows:
        if r["contender"].startswith((OURS, COMPILED)):
            continue
        name = f'{OURS} mode="batch"' if r["scope"] == "per batch" else OURS
        scope = "per batch" if r["scope"] == "per batch" else "per sample"
        ratio = ours.get((name, scope, r["destination"]), 0)
        if ratio >= r["ratio"]:
            broken.append(f"{title}, {r['destination']}: {name} takes {ratio} copies, {r['contender']} {r['ratio']}")
    return broken


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


CASES = [*((point, 2) for point in POINTS), *((point, 1) for point in POINTS[:4])]


@pytest.mark.parametrize(
    ("point", "threads"), CASES, indirect=["threads"], ids=[f"{point.title}, threads={n}" for point, n in CASES]
)
def test_speed(point, threads, benchmark, keep, pytestconfig):
    torch._dynamo.reset()
    chosen = [c for c in contenders.contenders(point) if not (c.compiled and threads == 1)]
    rounds = pytestconfig.getoption("rounds") or ROUNDS.get(point.shape, FEW_ROUNDS)
    title = point.title + (", 1 thread" if threads == 1 else "")
    table = measure(point, rounds, chosen)
    keep(title, table)
    show(title, table)
    benchmark.extra_info["table"] = table
    x, y = point.batch()
    benchmark.pedantic(CALLS[point.method], (x, y), {"num_classes": point.num_classes}, rounds=rounds, warmup_rounds=3)
    broken = broken_promises(title, point, table)
    assert not broken, "\n".join(broken)
