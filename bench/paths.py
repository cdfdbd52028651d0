"""Which statements of a kernel not every tile or program reaches: `TRITON_INTERPRET=1 python -m bench.paths NAME ...`

Runs some programs of hot variants in Triton's interpreter, with their own tiles and draws, and prints, per variant,
what share of the tiles reached each statement of the tile loop, and what share of the programs that have tiles each of
the others: {"function:statement function:statement ...": share}, the calls from the kernel inwards. A statement that is
not named is reached as often as the one that called it, at the top by all; one in an unrolled loop has the mean of
those of its turns that reach it, and one that the loop reaches by several calls of a function the mean of those calls,
since machine code may name another of them, or none ("?"). What no tile reached counts as never reached, but assembly
and prefetches, which the interpreter does without, as often as what is around them. bench.static weighs with all that.
"""

import ast
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"
PROGRAMS = 96  # of a launch, spread over it
GOLDEN = (5**0.5 - 1) / 2
Chain = tuple[str, ...]
UNKNOWN = "?"
ON_GPUS = {"PTX", "INTERPRETED", "PREFETCHES", "places"}  # what branches ask of that the interpreter does without


@cache
def kernel_file(filename: str) -> Path | None:
    """The kernels' file of that name: machine code from triton's cache may name that of another checkout."""
    path = Path(filename)
    known = KERNELS / path.name
    return known if path.parent.name == "kernels" and known.exists() else None


@cache
def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]


def heads(function: ast.FunctionDef) -> list[int]:
    """The first lines of a function's statements, its own line first."""
    return sorted(node.lineno for node in ast.walk(function) if isinstance(node, ast.stmt))


@cache
def statements(path: Path) -> dict[int, int]:
    """The first line of the innermost statement on each line; of a statement with a body, only its head."""
    first: dict[int, int] = {}
    nodes = [node for function in functions(path) for node in ast.walk(function) if isinstance(node, ast.stmt)]
    for node in sorted(nodes, key=lambda node: node.lineno):  # inner statements come later, and write over
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            first[line] = node.lineno
    return first


@cache
def names(path: Path) -> dict[int, str]:
    """Of the first line of each statement: its function and its number in it, which other edits leave as they are."""
    return {line: f"{function.name}:{n}" for function in functions(path) for n, line in enumerate(heads(function))}


@cache
def tile_loop(path: Path) -> range:
    """The lines of a kernel's loop over its tiles."""
    for function in functions(path):
        for node in ast.walk(function):
            if isinstance(node, ast.For) and "TILES" in ast.unparse(node.iter):
                return range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)
    return range(0)


@cache
def early_exits() -> set[str]:
    """The branches that end programs before their tiles, and the statements that find what they ask."""
    found: set[str] = set()
    for path, function in kernel_functions():
        nodes = list(ast.walk(function))
        exits = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.body) == "return"]
        asked = {name for node in exits for name in names_in(node.test)}
        sets = [node for node in nodes if isinstance(node, ast.Assign) and asked & names_in(node.targets[0])]
        found |= {names(path)[node.lineno] for node in (*exits, *sets)}
    return found


def names_in(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


@cache
def looped() -> set[str]:
    """The statements in loops over tiles."""
    return {name for path in KERNELS.glob("*.py") for line, name in names(path).items() if line in tile_loop(path)}


@cache
def beside() -> dict[str, list[str]]:
    """The statements of each statement's function; none of those that only a GPU may reach."""
    found: dict[str, list[str]] = {}
    for path, function in kernel_functions():
        own = [names(path)[line] for line in heads(function)[1:]]
        usual = [name for name in own if name not in around().get(function.name, {})]
        found |= {name: usual for name in own}  # noqa: C420, which all share
    return found


def kernel_functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    return ((path, function) for path in sorted(KERNELS.glob("*.py")) for function in functions(path))


@cache
def around() -> dict[str, dict[str, list[str]]]:
    """By function, of the statements that only a GPU may reach: those of the same block, then what is around it."""
    found: dict[str, dict[str, list[str]]] = {}

    def visit(path: Path, statement: ast.stmt, outer: list[str], elsewhere: bool) -> None:
        if isinstance(statement, ast.If):
            elsewhere |= bool(ON_GPUS & names_in(statement.test))
        for block in (getattr(statement, part, []) for part in ("body", "orelse")):
            inside = [names(path)[inner.lineno] for inner in block]
            for name, inner in zip(inside, block, strict=True):
                if elsewhere:
                    found.setdefault(function_of(name), {})[name] = inside + outer
                visit(path, inner, [name, *outer], elsewhere)

    for path, function in kernel_functions():
        visit(path, function, [], False)
    return found


@cache
def unrolled(path: Path) -> dict[int, tuple[int, ...]]:
    """Of each statement in unrolled loops, the first statements of the loops, the outer's first."""
    found: dict[int, tuple[int, ...]] = {}
    for node in (node for function in functions(path) for node in ast.walk(function)):  # outer loops come first
        if isinstance(node, ast.For) and "static_range" in ast.unparse(node.iter):
            for line in range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1):
                found[line] = (*found.get(line, ()), node.body[0].lineno)
    return found


def function_of(name: str) -> str:
    return name.split(":")[0]


def without_turns(chain: Chain) -> Chain:
    return tuple(name.split("#")[0] for name in chain)


def place(filename: str, line: int) -> str | None:
    """A statement's name; None outside the kernels, UNKNOWN where a compiler has made one instruction of several's."""
    path = kernel_file(filename)
    if path is None:
        return None
    return names(path).get(statements(path).get(line, line), f"{path.name}:{line}") if line else UNKNOWN


def in_loop(name: str) -> bool:
    return name == UNKNOWN or name in looped()


def without_call(chain: Chain) -> Chain:
    """What several calls of a function by a kernel's loop over tiles have in common."""
    return (UNKNOWN, *chain[1:]) if len(chain) > 1 and in_loop(chain[0]) else chain


class Trace:
    """Counts, for sys.settrace, the tiles or programs that reach each statement."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.turns: list[Counter[int]] = []  # of each frame's loops, by their first statements
        self.reached: set[Chain] = set()  # by the tile at hand
        self.outside: set[Chain] = set()  # by the program at hand, without its tiles
        self.counts: Counter[Chain] = Counter()
        self.tiles = self.programs = self.before = 0  # before: the tiles of the programs before

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if event != "call" or code.co_name == "<module>" or kernel_file(code.co_filename) is None:
            return None
        self.stack.append("")
        self.turns.append(Counter())
        return self.step

    def step(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "return":
            self.stack.pop()
            self.turns.pop()
            if not self.stack:
                self.end_program()
        elif event == "line":
            path = kernel_file(frame.f_code.co_filename)
            assert path is not None
            line, turns = statements(path).get(frame.f_lineno, frame.f_lineno), self.turns[-1]
            if len(self.stack) == 1 and line == tile_loop(path).start:
                self.end_tile()
                self.tiles += 1
                turns.clear()
            loops = unrolled(path).get(line, ())
            turns[line] += 1
            self.stack[-1] = names(path)[line] + "".join(f"#{turns[first]}" for first in loops)
            top = self.stack[0].split("#")[0]
            (self.reached if in_loop(top) else self.outside).add(tuple(self.stack))
        return self.step

    @contextmanager
    def watching(self) -> Iterator[None]:
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(None)

    def end_tile(self) -> None:
        self.counts.update(self.reached)
        self.reached.clear()

    def end_program(self) -> None:
        self.end_tile()
        if self.tiles > self.before:
            self.counts.update(self.outside)
            self.programs += 1
        self.outside.clear()
        self.before = self.tiles

    def shares(self) -> dict[str, float]:
        """Those of the statements that fewer tiles or programs reach than what called them."""
        counts: dict[Chain, list[int]] = {}
        for chain, count in self.counts.items():  # machine code does not tell the turns of an unrolled loop
            counts.setdefault(without_turns(chain), []).append(count)
        reached = dict(counts)
        for *callers, name in reached:
            for other in beside().get(name, ()):
                counts.setdefault((*callers, other), [0])
        for callers, function in {(chain[:-1], function_of(chain[-1])) for chain in reached}:
            for name, others in around().get(function, {}).items():
                known = (reached.get((*callers, other)) for other in others)
                counts.setdefault((*callers, name), next(filter(None, known), [0]))
        alike: dict[Chain, list[int]] = {}
        for chain, some in counts.items():  # a call that does not reach it may have been compiled without it
            alike.setdefault(without_call(chain), []).extend(filter(None, some))
        result: dict[str, float] = {}
        for chain in sorted(counts, key=len):
            whole = max(self.tiles if in_loop(chain[0]) else self.programs, 1)
            some = alike[without_call(chain)] or [0]
            share = round(sum(some) / len(some) / whole, 4)
            if share < share_of(chain, result):
                result[" ".join(chain)] = share
                result[" ".join(without_call(chain))] = share
        return result


def share_of(chain: Chain, shares: dict[str, float]) -> float:
    return min((shares.get(" ".join(chain[:n]), 1.0) for n in range(1, len(chain) + 1)), default=1.0)


def run_some_programs() -> None:
    """Lets the interpreter run PROGRAMS of a launch instead of all."""
    from triton.runtime import interpreter

    builder: Any = interpreter.interpreter_builder
    prepare, set_grid, set_index = interpreter.GridExecutor.__init__, builder.set_grid_dim, builder.set_grid_idx
    whole: list[int] = []
    chosen: list[int] = []

    def shrink(self: Any, fn: Any, arg_names: Any, grid: tuple[int, ...], *others: Any) -> None:
        whole[:] = grid
        chosen[:] = sorted({int((n * GOLDEN) % 1 * grid[0]) for n in range(PROGRAMS)})
        prepare(self, fn, arg_names, (len(chosen),), *others)

    interpreter.GridExecutor.__init__ = shrink
    builder.set_grid_dim = lambda *_: set_grid(*whole)
    builder.set_grid_idx = lambda x, y, z: set_index(chosen[x], y, z)


def run(name: str) -> dict[str, float]:
    from hot import HOT, hot

    tensors = hot(HOT[name], HOT[name].shape[0], "cpu", with_targets=False)
    trace = Trace()
    with trace.watching():
        tensors.launch(0)
    return trace.shares()


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]
    from quick_interpreter import quicken

    quicken()
    run_some_programs()
    print(json.dumps({name: run(name) for name in sys.argv[1:]}))
