"""How does the cost grow with the batch, and with the number of classes?"""

import pytest
from contenders import CONTENDERS, HAND, METHODS, OURS, Point
from cpu_timing import measure, show

BATCHES = (8, 32, 128, 512, 2048, 4096)
CLASSES = (10, 100, 1000, 21_841)
CHOSEN = [c for c in CONTENDERS if c.name in (OURS, HAND) and c.destination == "out"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", ["batch", "classes"])
def test_growth(method, axis, benchmark, keep, pytestconfig):
    if axis == "batch":
        points = [Point(method, (batch, 3, 32, 32)) for batch in BATCHES]
    else:
        points = [Point(method, (256, 3, 32, 32), num_classes=classes) for classes in CLASSES]
    rounds = pytestconfig.getoption("rounds") or 25
    tables = [measure(point, rounds, CHOSEN) for point in points]
    for point, table in zip(points, tables, strict=True):
        show(point.title, table)
    keep(f"growth of {method} with {axis}", {"method": method, "axis": axis, "tables": tables})
    benchmark.pedantic(lambda: None)
    ratios = [r["ratio"] for r in tables[-1]["rows"] if r["contender"] == OURS]
    assert ratios, "no time for ours at the largest point"
