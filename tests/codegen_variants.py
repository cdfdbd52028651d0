"""The hot variants: what a training loop is likely to run. Free of triton, so that tests can list them."""

from dataclasses import dataclass, replace
from itertools import product

import torch

from fusedmix.placement import NOTHING, ColorJitter, Flip, Placement, RandomAffine, RandomCrop, RandomResizedCrop
from fusedmix.recipe import EXACT, GIVEN, PERMUTE, ROLL, Geometry, Recipe
from fusedmix.spec import (
    CutMix,
    Cutout,
    FMix,
    GridMask,
    GridMix,
    HideAndSeek,
    Mixup,
    Policy,
    RandomErasing,
    ResizeMix,
    SmoothMix,
)

F32, F16, BF16, U8 = torch.float32, torch.float16, torch.bfloat16, torch.uint8
CUTMIX = Recipe(num_classes=1000)
MIXUP = CUTMIX._replace(switch_prob=0.0)
POLICY = CUTMIX._replace(switch_prob=0.5)


@dataclass(frozen=True)
class Variant:
    """One combination of compile-time constants, in the words of a caller."""

    recipe: Recipe
    x_dtype: torch.dtype = F32
    out_dtype: torch.dtype | None = None
    shape: tuple[int, ...] = (128, 3, 224, 224)
    target_shape: tuple[int, ...] | None = (128,)
    target_dtype: torch.dtype = torch.int64
    channels_last: bool = False
    out_last: bool | None = None
    in_place: bool = False
    replay: bool = False
    has_norm: bool = False
    wants_plan: bool = False
    given: bool = False  # lam, or the mean gray of images; boxes of CutMix; partners
    load_width: str = "128"  # bits of an image load
    store_width: str = "128"  # bits of an image store
    narrow_rows: bool = False  # rows of targets too short, or of int64 classes, for 128-bit stores
    images: int = 2  # images that a program reads and writes
    gathers: bool = False  # reads pixel by pixel what ResizeMix shrinks
    max_registers: int = 128  # room for 512 threads a multiprocessor at the least
    geometry: Geometry | None = None  # of FusedAugment
    placement: Placement | None = None  # what the geometry is of
    prefetches: int = 0  # of the rows behind even and behind odd ones, of each image
    by_words: bool = False  # reads bytes of images that are gathered by words
    max_shared: int = 128  # bytes: reductions only, no tile passes through shared memory


POLICIES: dict[Recipe, Policy] = {}  # what the recipes are of


def family(*specs: object, erase: object = None) -> Recipe:
    share = 1.0 / len(specs)
    policy = Policy(tuple((spec, share) for spec in specs), erase, num_classes=1000)
    return POLICIES.setdefault(policy.recipe, policy).recipe


EVERYTHING = (
    Mixup(), CutMix(), Cutout(), RandomErasing(), GridMask(), HideAndSeek(), GridMix(), ResizeMix(), SmoothMix(),
    FMix(),
)  # fmt: skip

FAMILY = {
    "list: cutmix, mixup, erasing bfloat16": Variant(family(CutMix(), Mixup(), erase=RandomErasing()), BF16),
    "cutout bfloat16": Variant(family(Cutout()), BF16, images=1),
    "cutout uint8 to bfloat16 normalised": Variant(
        family(Cutout()), U8, BF16, has_norm=True, load_width="64", images=1
    ),
    "erasing float32": Variant(family(RandomErasing()), F32, images=1),
    "erasing pixel bfloat16": Variant(family(RandomErasing(fill_mode="pixel")), BF16, images=1, max_shared=1024),
    "gridmask bfloat16": Variant(family(GridMask()), BF16, images=1),
    "hide and seek bfloat16": Variant(family(HideAndSeek()), BF16, images=1),
    "gridmix float32": Variant(family(GridMix()), F32),
    "resizemix float32": Variant(family(ResizeMix()), F32),
    "resizemix bilinear bfloat16": Variant(family(ResizeMix(interpolation="bilinear")), BF16, gathers=True),
    "smoothmix bfloat16": Variant(family(SmoothMix()), BF16, max_shared=8192),
    "fmix bfloat16": Variant(family(FMix()), BF16),
    "everything, erasing bfloat16": Variant(
        family(*EVERYTHING, erase=RandomErasing()), BF16, gathers=True, max_registers=255, max_shared=8192,
    ),
}  # fmt: skip


def augment(
    placement: Placement, recipe: Recipe, out_dtype: torch.dtype = BF16, side: int = 256, **options: object
) -> Variant:
    """FusedAugment of uint8 images, normalised."""
    geometry = placement.geometry(side, side)
    batch = 512 if side == 32 else 128
    return Variant(
        recipe._replace(num_classes=1000), U8, out_dtype, (batch, 3, side, side), (batch,), has_norm=True,
        geometry=geometry, placement=placement, gathers=True, **options,
    )  # fmt: skip


WINDOW = Placement((224, 224), RandomCrop(), Flip())
RESIZED = Placement((224, 224), RandomResizedCrop(), Flip())
DEIT = Placement((224, 224), RandomResizedCrop(), Flip(), None, ColorJitter(0.3, 0.3, 0.3))
MIX = family(CutMix(), Mixup())
DEIT_MIX = family(CutMix(), Mixup(), erase=RandomErasing(p=0.25, fill_mode="pixel"))
AUGMENT = {
    "augment: CIFAR, CutMix to float32": augment(
        Placement(None, RandomCrop(4), Flip()), family(CutMix()), F32, 32, load_width="32"
    ),
    "augment: crop, flip": augment(WINDOW, NOTHING, images=1),
    "augment: crop, flip, mix": augment(WINDOW, MIX, store_width="64"),
    "augment: resized crop": augment(RESIZED, NOTHING, images=1, by_words=True, prefetches=2),
    "augment: resized crop, mix": augment(
        RESIZED, MIX, store_width="64", max_registers=168, by_words=True, prefetches=4
    ),
    "augment: affine to float32": augment(
        Placement((224, 224), None, None, RandomAffine(10.0)), NOTHING, F32, images=1, max_registers=255
    ),
    "augment: DeiT": augment(
        DEIT, DEIT_MIX, store_width="64", max_registers=255, max_shared=1024, by_words=True, prefetches=4
    ),
}

HOT = {
    **FAMILY,
    **AUGMENT,
    **{
        f"{name} {str(dtype)[6:]}": Variant(recipe, dtype)
        for name, recipe in (("cutmix", CUTMIX), ("mixup", MIXUP), ("policy", POLICY))
        for dtype in (F32, F16, BF16, U8)
    },
    "cutmix float32 in place": Variant(CUTMIX, F32, in_place=True),
    "cutmix bfloat16 in place": Variant(CUTMIX, BF16, in_place=True),
    "mixup bfloat16 in place": Variant(MIXUP, BF16, in_place=True),
    "policy bfloat16 in place": Variant(POLICY, BF16, in_place=True),
    "cutmix bfloat16 channels_last": Variant(CUTMIX, BF16, channels_last=True),
    "mixup float32 channels_last": Variant(MIXUP, F32, channels_last=True),
    "cutmix float32 CIFAR": Variant(CUTMIX._replace(num_classes=100), F32, shape=(512, 3, 32, 32)),
    "mixup float32 CIFAR": Variant(MIXUP._replace(num_classes=100), F32, shape=(512, 3, 32, 32)),
    "cutmix float32 permute": Variant(CUTMIX._replace(pairing=PERMUTE), F32),
    "mixup bfloat16 permute": Variant(MIXUP._replace(pairing=PERMUTE), BF16),
    "policy bfloat16 roll": Variant(POLICY._replace(pairing=ROLL), BF16),
    "cutmix bfloat16 exact": Variant(CUTMIX._replace(pairing=EXACT), BF16),
    "cutmix float32 exact, 10 classes, odd": Variant(
        CUTMIX._replace(pairing=EXACT, num_classes=10),
        F32,
        shape=(513, 3, 32, 32),
        target_shape=(513,),
        narrow_rows=True,
    ),
    "mixup float32 permute, class pairs": Variant(
        MIXUP._replace(pairing=PERMUTE, num_classes=0),
        F32,
        shape=(512, 3, 32, 32),
        target_shape=(512,),
        narrow_rows=True,
    ),
    "policy bfloat16 exact, class pairs": Variant(
        POLICY._replace(pairing=EXACT, num_classes=0), BF16, narrow_rows=True
    ),
    "cutmix bfloat16 replay": Variant(CUTMIX, BF16, replay=True),
    "policy bfloat16 replay": Variant(POLICY, BF16, replay=True),
    "policy bfloat16 adjoint": Variant(POLICY._replace(adjoint=True), BF16, replay=True, target_shape=None),
    "mixup float32 adjoint": Variant(MIXUP._replace(adjoint=True), F32, replay=True, target_shape=None),
    "cutmix bfloat16 soft": Variant(CUTMIX, BF16, target_shape=(128, 1000), target_dtype=F32),
    "cutmix uint8 to bfloat16": Variant(CUTMIX, U8, BF16, load_width="64"),
    "mixup uint8 to bfloat16": Variant(MIXUP, U8, BF16, load_width="64"),
    "policy uint8 to bfloat16 normalised": Variant(POLICY, U8, BF16, has_norm=True, load_width="64"),
    "mixup uint8 to float32": Variant(MIXUP, U8, F32, load_width="32"),
}

# Where vectors share nothing of what is computed: a thread holds one of them.
ODD = (64, 3, 225, 225)
RARE = {
    "policy bfloat16, odd": Variant(POLICY, BF16, shape=ODD),
    "policy bfloat16 normalised, channels_last": Variant(POLICY, BF16, has_norm=True, channels_last=True),
    "policy uint8 to bfloat16 normalised, channels_last": Variant(POLICY, U8, BF16, has_norm=True, channels_last=True),
    "mixup uint8 to bfloat16, odd": Variant(MIXUP, U8, BF16, shape=ODD),
    "cutout uint8 to bfloat16 normalised, odd": Variant(family(Cutout()), U8, BF16, has_norm=True, shape=ODD, images=1),
}

# One of each kind of access and loop, for the targets of which the tests compile a part.
PART = (
    "cutmix float32", "mixup bfloat16", "policy uint8", "cutmix float32 in place", "policy bfloat16 in place",
    "mixup float32 channels_last", "mixup float32 CIFAR", "cutmix float32 permute", "cutmix bfloat16 exact",
    "policy bfloat16 replay", "policy bfloat16 adjoint", "cutmix bfloat16 soft", "policy uint8 to bfloat16 normalised",
    "augment: resized crop",
)  # fmt: skip
PART_AMD = (
    "cutmix uint8", "mixup float16", "cutmix bfloat16 channels_last", "policy bfloat16 exact, class pairs",
    "cutout bfloat16", "resizemix float32", "smoothmix bfloat16", "list: cutmix, mixup, erasing bfloat16",
    "augment: CIFAR, CutMix to float32",
)  # fmt: skip


def layouts() -> dict[str, Variant]:
    """Small bytes to bfloat16 by every method and placement that the tests have, in all layouts."""
    from augment_cases import CASES
    from family_cases import SPECS

    common = {"x_dtype": U8, "out_dtype": BF16, "shape": (8, 3, 9, 12), "target_shape": (8,), "has_norm": True}
    found = {}
    for last, out_last in product((False, True), repeat=2):
        suffix = f", {'channels_last' if last else 'contiguous'} to {'channels_last' if out_last else 'contiguous'}"
        common.update(channels_last=last, out_last=out_last)
        for name, recipe in (("mixup", MIXUP), ("CutMix", CUTMIX), ("policy", POLICY)):
            found[f"fused {name}" + suffix] = Variant(recipe, **common)
        for name, spec in SPECS.items():
            found[name + suffix] = Variant(family(spec), **common)
        for name, case in CASES.items():
            geometry = case.placement.geometry(9, 12)
            found["augment: " + name + suffix] = Variant(
                case.recipe, geometry=geometry, placement=case.placement, **common
            )
    plain = {name: variant for name, variant in found.items() if not (variant.channels_last or variant.out_last)}
    for name, variant in plain.items():
        given = variant.recipe._replace(pairing=GIVEN)
        found[f"{name}, replayed"] = replace(variant, replay=True)
        found[f"{name}, with a plan"] = replace(variant, wants_plan=True)
        found[f"{name}, given"] = replace(variant, recipe=given, given=True)
    return found


def variants_for(target: str) -> dict[str, Variant]:
    """What the tests compile: all for one NVIDIA target, a part for the others; all of it takes minutes."""
    return HOT if target == "sm_90" else {name: HOT[name] for name in PART + (PART_AMD if target == "gfx942" else ())}
