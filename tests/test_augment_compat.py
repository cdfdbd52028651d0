"""FusedAugment against torchvision (extra `bench`): the same images from the same draws, the same distributions."""

import numpy as np
import pytest
import torch
from cases import images
from scipy import stats
from test_augment import flipped, window_of
from test_compat import peer
from torch import Tensor

import fusedmix
from fusedmix import ColorJitter, Flip, RandomAffine, RandomCrop, RandomResizedCrop

X = images((12, 3, 40, 52), torch.uint8)
FLOATS = X[:4].float() / 255


def functional():
    return peer("torchvision.transforms.v2.functional")


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_resized_crop(interpolation: str) -> None:
    F = functional()
    augment = fusedmix.FusedAugment(
        (17, 23), RandomResizedCrop(), Flip(0.5, 0.5), dtype=torch.float32, interpolation=interpolation
    )
    out, plan = augment(X, generator=torch.Generator().manual_seed(0), return_plan=True)
    mode = F.InterpolationMode.BILINEAR if interpolation == "bilinear" else F.InterpolationMode.NEAREST_EXACT
    compared = 0
    for i, image in enumerate(X):
        *box, flip_v, flip = window_of(plan, i)
        want = F.resized_crop(image.float(), *box, (17, 23), mode, antialias=False)
        apart = (out[i] - flipped(want, flip_v, flip)).abs()
        if interpolation == "bilinear":
            assert float(apart.max()) < 255 * 2e-5
        else:  # a point on the edge of two pixels may be rounded to either
            m = plan.map[i]
            rows, columns = between(m[4], m[5], 17), between(m[0], m[2], 23)
            compared += int(rows.sum() * columns.sum())
            assert not apart[:, rows][:, :, columns].any()
    assert interpolation == "bilinear" or compared > 0.6 * len(X) * 17 * 23


def between(step: Tensor, start: Tensor, size: int) -> Tensor:
    """bool [size]: whether a row or column lies within a pixel and not on an edge."""
    points = step * (torch.arange(size) + 0.5) + start
    return (points - points.round()).abs() > 1e-3


@pytest.mark.parametrize("padding_mode", ["constant", "reflect", "edge"])
def test_padded_crop(padding_mode: str) -> None:
    F = functional()
    out, plan = fusedmix.FusedAugment(32, RandomCrop(4, padding_mode), 0.5)(X, return_plan=True)
    for i, image in enumerate(X):
        y0, x0, h, w, flip_v, flip = window_of(plan, i)
        want = F.crop(F.pad(image, [4, 4, 4, 4], padding_mode=padding_mode), y0 + 4, x0 + 4, h, w)
        assert torch.equal(out[i], flipped(want, flip_v, flip))


@pytest.mark.parametrize(
    ("angle", "scale", "shear"), [(30.0, 1.0, (0.0, 0.0)), (-75.0, 1.3, (12.0, -7.0)), (0.0, 0.73, (20.0, 0.0))]
)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_affine(interpolation: str, angle: float, scale: float, shear: tuple[float, float]) -> None:
    F = functional()
    affine = RandomAffine((angle, angle), (0.0, 0.0), (scale, scale), (shear[0], shear[0], shear[1], shear[1]))
    ours = fusedmix.FusedAugment(affine=affine, interpolation=interpolation)(FLOATS)
    mode = F.InterpolationMode(interpolation)
    theirs = F.affine(FLOATS, angle, [0, 0], scale, list(shear), interpolation=mode, fill=0.0)
    apart = (ours - theirs).abs()
    if interpolation == "nearest":
        assert float((apart > 1e-6).float().mean()) < 0.01
        return
    # torchvision blends a mask of the whole image with `fill` instead of each pixel beyond it: only the rim differs.
    inside = F.affine(torch.ones_like(FLOATS), angle, [0, 0], scale, list(shear), interpolation=mode, fill=0.0) > 0.999
    assert float(inside.float().mean()) > 0.2
    assert float(apart[inside].max()) < 1e-4


def colored(x: Tensor, gray: Tensor | None = None, **factors: float) -> Tensor:
    pairs = {name: (factor, factor) for name, factor in factors.items()}
    return fusedmix.FusedAugment(color=ColorJitter(**pairs))(x, gray=gray)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_brightness_contrast_saturation(factor: float) -> None:
    F = functional()
    close = dict(rtol=0, atol=1e-5)
    torch.testing.assert_close(colored(FLOATS, brightness=factor), F.adjust_brightness(FLOATS, factor), **close)
    torch.testing.assert_close(colored(FLOATS, saturation=factor), F.adjust_saturation(FLOATS, factor), **close)
    gray = F.rgb_to_grayscale(FLOATS).mean((1, 2, 3))
    torch.testing.assert_close(colored(FLOATS, gray, contrast=factor), F.adjust_contrast(FLOATS, factor), **close)
    both = F.adjust_contrast(F.adjust_brightness(FLOATS, 0.9), factor)  # nothing is clamped: the mean scales along
    torch.testing.assert_close(colored(FLOATS, gray, brightness=0.9, contrast=factor), both, **close)


@pytest.mark.parametrize("size", [(15, 8), (11, 8), (40, 52), (7, 33)])
def test_centre(size: tuple[int, int]) -> None:
    """Of odd and even rests, and larger than the image."""
    F = functional()
    for sides in (size, (size[0] + 40, size[1] + 51)):
        augment = fusedmix.FusedAugment(sides, fusedmix.CenterCrop())
        assert torch.equal(augment(X), F.center_crop(X, list(sides)))


def test_grayscale() -> None:
    F = functional()
    ours = fusedmix.FusedAugment(color=ColorJitter(grayscale=1.0))(FLOATS)
    torch.testing.assert_close(ours, F.rgb_to_grayscale(FLOATS, num_output_channels=3), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("shape", "scale"), [((64, 64), (0.08, 1.0)), ((40, 100), (0.5, 1.0))])
def test_resized_crops_are_drawn_alike(shape: tuple[int, int], scale: tuple[float, float]) -> None:
    """The second: most tries do not fit, and the rest takes the central crop."""
    v2, count = peer("torchvision.transforms.v2"), 3000
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(8, scale=scale)
    drawn = [theirs.make_params([torch.empty(3, *shape)]) for _ in range(count)]
    batch = torch.zeros(count, 1, *shape, dtype=torch.uint8)
    _, plan = fusedmix.FusedAugment(8, RandomResizedCrop(scale))(batch, return_plan=True)
    ours = np.array([window_of(plan, i)[:4] for i in range(count)])
    for column, name in enumerate(("top", "left", "height", "width")):
        assert stats.ks_2samp(ours[:, column], [params[name] for params in drawn]).pvalue > 1e-4, name
