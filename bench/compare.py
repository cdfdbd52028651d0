"""What changed between two results: `python -m bench.compare OLD NEW [--threshold 1.1]`. Exit code 1: a regression.

Compares ratios to a copy (CPU) and shares of copy bandwidth (GPU), never times of different runs. A CPU row counts as
changed when it moved by more than the threshold and the quartiles of both runs are apart.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

OURS = "fusedmix"

Row = tuple[float, float, float]  # middle and quartiles, lower is better


def rows(results: dict[str, Any]) -> dict[str, Row]:
    found = {}
    for title, table in results.get("tables", {}).items():
        for part in table.get("tables", [table]):
            for r in part.get("rows", []):
                if "ratio" in r and r["contender"].startswith(OURS):
                    where = title if part is table else f"{title}: {part['shape']}, {part['num_classes']} classes"
                    found[f"{where}, {r['contender']}, {r['destination']}"] = (r["ratio"], *r["quartiles"])
        for destination, ratio in table.get("host cost in cheapest eager ops", {}).items():
            found[f"{title}, {destination}"] = (ratio, ratio, ratio)
    for entry in results.get("bench", []):
        if "percent_of_copy" in entry:
            ratio = 100 / entry["percent_of_copy"]
            found[f"{entry['name']}, {entry['method']}"] = (ratio, ratio, ratio)
    return found


def compare(old: dict[str, Row], new: dict[str, Row], threshold: float) -> tuple[list[str], bool]:
    """Lines to print, worst first, and whether anything got slower."""
    lines, worse = [], False
    both = sorted(old.keys() & new.keys(), key=lambda name: old[name][0] / new[name][0])
    for name in both:
        (before, low_before, high_before), (after, low_after, high_after) = old[name], new[name]
        change = after / before
        slower = change > threshold and low_after > high_before
        faster = change < 1 / threshold and high_after < low_before
        worse |= slower
        mark = "SLOWER" if slower else "faster" if faster else ""
        lines.append(f"{mark:7} {change:6.2f}x  {before:8.3f} -> {after:8.3f}  {name}")
    lines += [f"only in OLD: {name}" for name in sorted(old.keys() - new.keys())]
    lines += [f"only in NEW: {name}" for name in sorted(new.keys() - old.keys())]
    return lines, worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threshold", type=float, default=1.1, help="smallest change that counts (default: 1.1)")
    options = parser.parse_args()
    results = []
    for path in (options.old, options.new):
        try:
            results.append(rows(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            parser.error(f"{path} is no result file: {error}")
    lines, worse = compare(*results, options.threshold)
    print("\n".join(lines) or "nothing to compare")
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
