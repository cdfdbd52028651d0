"""Ready recipes for `FusedAugment`, with the published numbers and where they were published.

Each takes what is left to the user (classes, what to mix, the dtype) and any argument of `FusedAugment` to override.
Images are uint8, [B, 3, H, W].
"""

from typing import Any

from .augment import FusedAugment
from .placement import ColorJitter, RandomCrop, RandomResizedCrop
from .spec import CutMix, Mixup, RandomErasing

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # 255 * (0.485, 0.456, 0.406)
IMAGENET_STD = (58.395, 57.12, 57.375)  # 255 * (0.229, 0.224, 0.225)
CIFAR10_MEAN = (125.307, 122.961, 113.8575)  # 255 * (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (62.985, 62.0925, 66.708)  # 255 * (0.2470, 0.2435, 0.2616)


def cifar10(num_classes: int | None = 10, **options: Any) -> FusedAugment:
    """CIFAR-10 as ResNet trained it: a crop of the image padded by 4 pixels, a flip; 32 x 32 in and out.

    num_classes: 100 for CIFAR-100; None leaves labels as classes. options: of `FusedAugment`; `mix=CutMix()` with
    `mix=[(CutMix(), 0.5)]` for half of the samples is CutMix's own recipe, `erase=Cutout(16)` Cutout's.

    Source: arXiv 1512.03385, section 4.2; mean and standard deviation of the 50,000 training images.

    Example:
        >>> import torch, fusedmix
        >>> augment = fusedmix.recipes.cifar10(mix=[(fusedmix.CutMix(), 0.5)])
        >>> x, y = augment(torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([1, 2, 3, 4]))
        >>> x.shape, y.shape
        (torch.Size([4, 3, 32, 32]), torch.Size([4, 10]))
    """
    return build(
        options, size=32, crop=RandomCrop(4), flip=0.5, mean=CIFAR10_MEAN, std=CIFAR10_STD, num_classes=num_classes
    )


def imagenet_resnet(num_classes: int | None = 1000, **options: Any) -> FusedAugment:
    """ImageNet as ResNets are trained: a random resized crop to 224, a flip.

    Images of one size, usually 256 x 256 or larger. options: of `FusedAugment`.

    Source: the crop of arXiv 1409.4842, section 6 (8 to 100 % of the area, aspect 3/4 to 4/3), as in torchvision's
    reference training of ResNet-50; mean and standard deviation of ImageNet as there.

    Example:
        >>> import torch, fusedmix
        >>> augment = fusedmix.recipes.imagenet_resnet(dtype=torch.bfloat16)
        >>> x, y = augment(torch.randint(256, (2, 3, 256, 256), dtype=torch.uint8), torch.tensor([1, 2]))
        >>> x.shape, x.dtype
        (torch.Size([2, 3, 224, 224]), torch.bfloat16)
    """
    return build(
        options, size=224, crop=RandomResizedCrop(), flip=0.5, mean=IMAGENET_MEAN, std=IMAGENET_STD,
        num_classes=num_classes,
    )  # fmt: skip


def deit(num_classes: int | None = 1000, **options: Any) -> FusedAugment:
    """ImageNet as DeiT is trained: mixup (0.8) or CutMix (1.0), a quarter erased by noise, smoothing 0.1.

    RandAugment and repeated augmentation, which DeiT has besides, are not part of it, nor is its bicubic resizing
    (bilinear here); the colour jitter of 0.3 is what its code does without RandAugment. Mixing is per sample with
    random partners; DeiT's code mixes with the reversed batch, one draw for all (`mode="batch", partner="flip"`), and
    erases each image before it is mixed, where we erase the mixed one. Without `num_classes` nothing is smoothed.

    Source: arXiv 2012.12877, table 9, and the defaults of its training code (timm's `Mixup` and `RandomErasing`).

    Example:
        >>> import torch, fusedmix
        >>> augment = fusedmix.recipes.deit(size=64)
        >>> x, y = augment(torch.randint(256, (2, 3, 72, 72), dtype=torch.uint8), torch.tensor([1, 2]))
        >>> x.shape, y.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 1000]))
    """
    return build(
        options, size=224, crop=RandomResizedCrop(), flip=0.5, color=ColorJitter(0.3, 0.3, 0.3),
        mix=[(CutMix(1.0), 0.5), (Mixup(0.8), 0.5)],
        erase=RandomErasing(p=0.25, fill_mode="pixel", value=0.0, sigma=1.0, space="output"),
        mean=IMAGENET_MEAN, std=IMAGENET_STD, num_classes=num_classes, smoothing=0.1 if num_classes else 0.0,
    )  # fmt: skip


def build(options: dict[str, Any], **published: Any) -> FusedAugment:
    return FusedAugment(**{**published, **options})
