"""The static model's reading of machine code, and its counts of what tiles do."""

import pytest
import torch
from augment_cases import Case, check
from cases import images, run
from codegen_variants import augment
from family_cases import extras_for

from bench import paths, static
from fusedmix.kernels.config import Launch
from fusedmix.placement import NOTHING, CenterCrop, Flip, Placement, RandomCrop, RandomResizedCrop
from fusedmix.spec import Policy, RandomErasing

LOOP = """
//## File "{kernel}", line {top}
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
//## File "{kernel}", line {rare}
        /*0020*/                   IMAD R2, R0, R0, RZ ;
//## File "{kernel}", line {top}
        /*0030*/              @!P0 BRA `(.L_x_2) ;
//## File "{kernel}", line {rare} inlined at "{kernel}", line {top}
//## File "{kernel}", line {top}
        /*0040*/                   IMAD R3, R2, R2, RZ ;
        /*0050*/                   IMAD R3, R3, R2, RZ ;
//## File "{kernel}", line {top}
        /*0060*/                   IADD3 R4, R3, R2, RZ ;
.L_x_2:
        /*0070*/                   STG.E.128 [R8], R4 ;
        /*0080*/               @P1 BRA `(.L_x_1) ;
        /*0090*/                   EXIT ;
"""


@pytest.mark.parametrize(
    ("placement", "read"),
    [
        (Placement((32, 32)), 64 * 64),  # the whole image
        (Placement((32, 32), CenterCrop()), 32 * 64),  # rows of columns 16 to 48: of two sectors
        (Placement((64, 64), RandomCrop()), 64 * 64),
        (Placement((32, 32), RandomResizedCrop((1.0, 1.0), (1.0, 1.0))), 64 * 64),
    ],
    ids=str,
)
def test_bytes_that_crops_read(placement: Placement, read: int) -> None:
    height, width = placement.size
    assert static.read_of_crops(augment(placement, NOTHING, side=64)) == read / (height * width)


def code_of(rare: int) -> tuple[str, str, str]:
    """A loop, and the names of a statement in it and of the one it calls."""
    kernel = paths.KERNELS / "family.py"
    top = paths.tile_loop(kernel).start
    names = tuple(paths.place(str(kernel), line) for line in (top, rare))
    assert names[0]
    assert names[1]
    return LOOP.format(kernel=kernel, top=top, rare=rare), *names


def test_expected_path() -> None:
    code, top, rare = code_of(100)
    bound = static.dynamic_counts(code, 4, {})
    assert (bound["all"], bound["imad"]) == (2 + 4 * 8, 4 * 3)  # four tiles
    expected = static.dynamic_counts(code, 4, {f"{top} {rare}": 0.25})
    # The block is reached by a quarter of the tiles, with what was moved into it; what stands before it by all.
    assert (expected["all"], expected["imad"]) == (2 + 4 * (5 + 3 / 4), 4 * (1 + 2 / 4))
    assert static.dynamic_counts(code, 4, {rare: 0.25}) == bound  # another statement's


@pytest.mark.parametrize("branch", ["BRA.U !UP0, `(.L_x_2) ;", "BRA !P0, `(.L_x_2) ;"])
def test_predicates_may_stand_behind_the_opcode(branch: str) -> None:
    code, top, rare = code_of(100)
    assert "@!P0 BRA `(.L_x_2) ;" in code
    other = code.replace("@!P0 BRA `(.L_x_2) ;", branch)
    for shares in ({}, {f"{top} {rare}": 0.25}):
        assert static.dynamic_counts(other, 4, shares) == static.dynamic_counts(code, 4, shares)


EARLY = """
//## File "{kernel}", line {asks}
        /*0000*/                   MOV R1, c[0x0][0x28] ;
//## File "{sampling}", line {ranks} inlined at "{kernel}", line {asks}
//## File "{kernel}", line {asks}
.L_x_1:
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
        /*0020*/               @P2 BRA `(.L_x_1) ;
//## File "{kernel}", line {asks}
        /*0030*/              @!P0 EXIT ;
//## File "{kernel}", line {top}
.L_x_2:
        /*0040*/                   STG.E.128 [R8], R4 ;
        /*0050*/               @P1 BRA `(.L_x_2) ;
        /*0060*/                   EXIT ;
"""


def test_programs_that_leave_early_and_rankings_count() -> None:
    """Of two programs to a pair, one does no more than find out that the pair is the other's."""
    kernel, sampling = paths.KERNELS / "family.py", paths.KERNELS / "sampling.py"
    (ranks,) = (function for function in paths.functions(sampling) if function.name == "beside")
    lines = kernel.read_text(encoding="utf-8").splitlines()
    asks = next(n for n, line in enumerate(lines, 1) if "= owned_samples(" in line)
    code = EARLY.format(kernel=kernel, sampling=sampling, asks=asks, ranks=ranks.body[1].lineno,
                        top=paths.tile_loop(kernel).start)  # fmt: skip
    assert static.dynamic_counts(code, 4, {})["all"] == 4 + 4 * 2 + 1
    assert static.dynamic_counts(code, 4, {}, idle=1)["all"] == 4 + 4 * 2 + 1 + 4
    assert static.dynamic_counts(code, 4, {}, idle=1, rankings=3)["all"] == 2 * (2 + 2 * 3) + 4 * 2 + 1


UNROLLED = """
        /*0000*/               @P0 BRA `(.L_x_1) ;
        /*0010*/                   STG.E.128 [R8], R4 ;
        /*0020*/                   STG.E.128 [R8+0x10], R4 ;
        /*0030*/                   EXIT ;
.L_x_1:
        /*0040*/                   FADD R3, R2, R2 ;
        /*0050*/                   FADD R3, R3, R2 ;
        /*0060*/                   FADD R3, R3, R2 ;
        /*0070*/                   STG.E [R8], R4 ;
        /*0080*/                   EXIT ;
"""


def test_without_a_loop_the_path_of_most_stores_counts() -> None:
    """Not that of a program of target rows, which may be longer."""
    assert static.dynamic_counts(UNROLLED, 2, {})["all"] == 4


BODY = """
//## File "{kernel}", line {top}
.L_x_1:
        /*0000*/              @!P0 BRA `(.L_x_4) ;
//## File "{kernel}", line {rare} inlined at "{kernel}", line {top}
//## File "{kernel}", line {top}
        /*0010*/              @!P2 BRA `(.L_x_2) ;
//## File "{kernel}", line {rarer} inlined at "{kernel}", line {top}
//## File "{kernel}", line {top}
        /*0020*/                   FADD R3, R2, R2 ;
        /*0030*/                   FADD R3, R3, R2 ;
//## File "{kernel}", line {rare} inlined at "{kernel}", line {top}
//## File "{kernel}", line {top}
        /*0040*/                   FADD R3, R3, R2 ;
//## File "{kernel}", line {rarer} inlined at "{kernel}", line {top}
//## File "{kernel}", line {top}
.L_x_2:
        /*0050*/              @!P3 BRA `(.L_x_4) ;
        /*0060*/                   IADD3 R4, R3, R2, RZ ;
//## File "{kernel}", line {top}
.L_x_4:
        /*0070*/                   STG.E.128 [R8], R4 ;
        /*0080*/               @P1 BRA `(.L_x_1) ;
        /*0090*/                   EXIT ;
"""


def test_blocks_are_reached_as_often_as_most_of_what_is_in_them() -> None:
    """A statement of half the tiles in a block of a tenth; and what asks there is asked by all who came so far."""
    kernel = paths.KERNELS / "family.py"
    top, rare, rarer = paths.tile_loop(kernel).start, 98, 100
    code = BODY.format(kernel=kernel, top=top, rare=rare, rarer=rarer)
    names = [paths.place(str(kernel), line) for line in (top, rare, rarer)]
    assert len(set(names)) == 3
    expected = static.dynamic_counts(code, 1, {f"{names[0]} {names[1]}": 0.5, f"{names[0]} {names[2]}": 0.1})
    assert expected["fma"] == pytest.approx(3 * 0.1)
    assert expected["alu"] == pytest.approx(0.1)
    assert expected["all"] == pytest.approx(1 + 0.5 + 3 * 0.1 + 0.5 + 0.1 + 2 + 1)


BOTH_WAYS = """
//## File "{kernel}", line {top}
.L_x_1:
        /*0000*/              @!P0 BRA `(.L_x_3) ;
//## File "{kernel}", line {rare} inlined at "{kernel}", line {top}
//## File "{kernel}", line {top}
        /*0010*/                   FADD R3, R2, R2 ;
        /*0020*/                   FADD R3, R3, R2 ;
        /*0030*/                   FADD R3, R3, R2 ;
//## File "{kernel}", line {top}
.L_x_2:
        /*0040*/                   STG.E.128 [R8], R4 ;
        /*0050*/               @P1 BRA `(.L_x_1) ;
        /*0060*/                   EXIT ;
.L_x_3:
        /*0070*/                   IADD3 R4, R3, R2, RZ ;
        /*0080*/              @!P2 BRA `(.L_x_2) ;
        /*0090*/                   CALL.REL.NOINC `($__internal_0_$__cuda_sm20_sqrt_rn_f32_slowpath) ;
        /*00a0*/                   BRA `(.L_x_2) ;
"""


APART = """
//## File "{kernel}", line {top}
.L_x_1:
        /*0000*/                   BRA.DIV UR4, `(.L_x_3) ;
        /*0010*/                   REDUX.SUM.S32 UR5, R2 ;
.L_x_2:
        /*0020*/               @P0 BRA `(.L_x_4) ;
//## File "{kernel}", line 0
//## File "{kernel}", line {inner} inlined at "{kernel}", line 0
//## File "{kernel}", line 0
        /*0030*/                   FADD R3, R2, R2 ;
        /*0040*/                   FADD R3, R3, R2 ;
//## File "{kernel}", line {top}
.L_x_4:
        /*0050*/                   STG.E.128 [R8], R4 ;
        /*0060*/               @P1 BRA `(.L_x_1) ;
        /*0070*/                   EXIT ;
.L_x_3:
        /*0080*/                   WARPSYNC.COLLECTIVE R6, `(.L_x_2) ;
        /*0090*/                   MOV R5, R2 ;
        /*00a0*/                   MOV R5, R2 ;
        /*00b0*/                   BRA `(.L_x_2) ;
"""


def test_threads_stay_together_and_callers_may_be_unknown() -> None:
    """The way of a warp whose threads went apart is longer, and never taken. Line 0: instructions of several calls."""
    kernel = paths.KERNELS / "family.py"
    top, inner = paths.tile_loop(kernel).start, paths.heads(paths.functions(kernel)[0])[1]
    code = APART.format(kernel=kernel, top=top, inner=inner)
    assert static.dynamic_counts(code, 2, {})["all"] == 1 + 2 * 7
    expected = static.dynamic_counts(code, 2, {f"{paths.UNKNOWN} {paths.place(str(kernel), inner)}": 0.25})
    assert expected["all"] == 1 + 2 * (5 + 2 / 4)


def test_calls_of_a_function_share_their_shares() -> None:
    trace = paths.Trace()
    kernel = paths.KERNELS / "family.py"
    first = paths.place(str(kernel), paths.tile_loop(kernel).start)
    other = paths.place(str(kernel), paths.tile_loop(kernel).stop - 1)
    assert paths.in_loop(first)
    assert paths.in_loop(other)
    trace.tiles = 10
    trace.counts.update({(first, "f:1"): 4, (other, "f:1"): 2, (first, "f:2"): 3, (first,): 10, (other,): 10})
    shares = trace.shares()
    assert shares[f"{first} f:1"] == shares[f"{other} f:1"] == shares[f"{paths.UNKNOWN} f:1"] == 0.3
    assert shares[f"{first} f:2"] == 0.3


def test_what_only_gpus_reach_is_reached_as_what_is_around_it() -> None:
    """Inline assembly, which the interpreter does without, as often as the call; prefetches as the row is read."""
    trace, geometry, taps = paths.Trace(), paths.KERNELS / "geometry.py", paths.KERNELS / "taps.py"
    first = paths.place(str(paths.KERNELS / "augment.py"), paths.tile_loop(paths.KERNELS / "augment.py").start)
    (saturated,) = (f for f in paths.functions(geometry) if f.name == "saturated")
    (walked,) = (f for f in paths.functions(taps) if f.name == "walked")
    _, asks, assembly, plain = (paths.names(geometry)[line] for line in paths.heads(saturated)[1:])
    lines = taps.read_text(encoding="utf-8").splitlines()
    names = {lines[line - 1].split("#")[0].strip(): paths.names(taps)[line] for line in paths.heads(walked)}
    reads, even, prefetch = "if reads & 1 != 0:", "even = row_between(", "fetch_ahead(ahead)"
    even = next(name for name in names if name.startswith(even))
    trace.tiles = 10
    trace.counts.update({(first,): 10, (first, asks): 4, (first, plain): 4})
    trace.counts.update(
        {(first, names[reads]): 10, (first, names[even]): 3, (first, names["if places is not None:"]): 3}
    )
    shares = trace.shares()
    assert shares[f"{first} {assembly}"] == shares[f"{first} {plain}"] == 0.4
    assert shares[f"{first} {names[prefetch]}"] == shares[f"{first} {names[even]}"] == 0.3


def test_names_of_statements_outlast_other_edits() -> None:
    """A statement is known by its function, which no two kernels' files may share, and its number in it."""
    functions = [function for path in paths.KERNELS.glob("*.py") for function in paths.functions(path)]
    assert len({function.name for function in functions}) == len(functions)
    kernel = paths.KERNELS / "family.py"
    (write_rows,) = (function for function in paths.functions(kernel) if function.name == "write_rows")
    last = write_rows.body[-1].lineno
    assert paths.place(str(kernel), last) == f"write_rows:{paths.heads(write_rows).index(last)}"
    assert paths.place(str(kernel), write_rows.lineno) == "write_rows:0"
    assert paths.in_loop(paths.place(str(kernel), paths.tile_loop(kernel).start))


def test_both_ways_of_a_branch_count() -> None:
    """Also those that lie behind the loop and jump back into it, which is no loop; slow paths are not taken."""
    kernel = paths.KERNELS / "family.py"
    top, rare = paths.tile_loop(kernel).start, 100
    code = BOTH_WAYS.format(kernel=kernel, top=top, rare=rare)
    names = [paths.place(str(kernel), line) for line in (top, rare)]
    bound = static.dynamic_counts(code, 4, {})
    assert (bound["all"], bound["fma"], bound["alu"]) == (1 + 4 * 6, 4 * 3, 0)  # the longer way
    expected = static.dynamic_counts(code, 4, {" ".join(names): 0.25})
    assert (expected["fma"], expected["alu"]) == (4 * 3 / 4, 4 * 3 / 4)
    assert expected["all"] == 1 + 4 * (3 + 3 / 4 + 2 * 3 / 4)


def test_shares_are_those_of_the_tiles() -> None:
    """Noise is drawn by the tiles in whose rows a box lies, and boxes by the programs of samples that get one."""
    policy = Policy(((RandomErasing(p=0.7, area=(0.02, 0.2), fill_mode="pixel"), 1.0),))
    x = images((6, 3, 16, 16), torch.float32)
    trace = paths.Trace()
    with trace.watching():
        result = run("kernel", x, None, policy.recipe, extras=extras_for(policy, x, None), launch=Launch(64, 1, 4))
    touched = []
    for y0, _, y1, _ in result.plan[:, 4:8].tolist():
        rows = [range(top, top + 4) for top in range(0, 16, 4)] * 3  # a tile has four rows
        touched += [any(y0 <= row < y1 for row in tile) for tile in rows]
    assert trace.tiles == len(touched)
    share, drawn = round(sum(touched) / len(touched), 4), float((result.plan[:, 0] > 0).float().mean())
    assert 0.1 < share < 0.9
    assert 0.1 < drawn < 0.9
    shares = {True: set(), False: set()}
    for chain, value in trace.shares().items():
        shares[paths.in_loop(chain.split()[0])].add(value)
    assert shares[True] == {0.0, share}  # what no tile does is in the other branches
    assert shares[False] == {0.0, round(drawn, 4)}
    assert trace.programs == trace.tiles  # of one tile each


def test_shares_count_the_rows_that_a_walk_reads() -> None:
    """Of even and of odd rows of the source: those that the row before did not lie between."""
    case, rows, shape = Case(Placement((12, 8), RandomResizedCrop((0.05, 0.6)), Flip(0.5, 0.5))), 4, (4, 3, 14, 16)
    trace = paths.Trace()
    with trace.watching():
        result = check("kernel", case, shape, torch.uint8, form=None, launch=Launch(8, rows, 1))
    reads = [0, 0]
    for plan in result.plan[:, NOTHING.columns :]:
        step, start = plan[4:6].view(torch.float32).tolist()
        for first in range(0, 12, rows):
            known: set[int] = set()
            for y in range(first, min(first + rows, 12)):
                place = min(max(step * (y + 0.5) + start - 0.5, int(plan[6])), int(plan[8]) - 1)
                top = min(int(place), shape[2] - 2)
                for row in {top, top + 1} - known:
                    reads[row % 2] += 1
                known = {top, top + 1}
    assert trace.tiles == 4 * 12
    kernel = paths.KERNELS / "taps.py"
    lines = [line.strip() for line in kernel.read_text(encoding="utf-8").splitlines()]
    for parity, name in enumerate(("even", "odd")):
        (line,) = (n for n, text in enumerate(lines, 1) if text.startswith(f"{name} = row_between("))
        (share,) = {share for chain, share in trace.shares().items() if chain.endswith(f" {paths.names(kernel)[line]}")}
        assert 0 < share < 1
        assert share == round(reads[parity] / trace.tiles, 4)
