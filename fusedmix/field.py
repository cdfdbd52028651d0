"""FMix's random images of low frequencies, as ranks: which pixels come first when an image is thresholded."""

import torch
from torch import Tensor

from .cpu import native


def fmix_ranks(
    batch: int, height: int, width: int, decay: float, official: bool, device: torch.device, seed: int | None
) -> Tensor:
    """int32 [batch, height, width]: rank of each pixel, the highest value first.

    Noise with a spectrum of 1 / max(f, 1 / max(height, width))**decay (arXiv 2002.12047). It comes from torch's
    generator on the device (seeded with `seed`, or the default one for None), so that, unlike lam and partners, it
    differs between devices.
    """
    if batch == 0:
        return torch.empty((0, height, width), dtype=torch.int32, device=device)
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    half = width // 2 + 1
    noise = torch.randn(batch, height, half, 2, device=device, generator=generator)
    rows = torch.fft.fftfreq(height, device=device)[:, None]
    columns = torch.fft.rfftfreq(width, device=device)
    frequency = torch.sqrt(rows * rows + columns * columns).clamp(min=1.0 / max(height, width))
    noise = noise / (frequency**decay)[:, :, None]
    if official:  # real and imaginary parts taken for neighbouring frequencies, as the authors' reshape does
        spectrum = torch.complex(noise.flatten(2)[..., :half], torch.zeros_like(noise[..., 0]))
    else:
        edges = torch.ones(half, device=device)  # frequencies that are their own mirror image keep half their energy
        edges[0] = edges[-1 if width % 2 == 0 else 0] = 2.0**0.5
        spectrum = torch.view_as_complex(noise) * edges
    image = torch.fft.irfft2(spectrum, s=(height, width))
    is_there = image.device.type == "cpu" and type(image) is Tensor and not torch.compiler.is_compiling()
    library = native.library() if is_there else None
    if library is not None:
        return native.ranks(library, image.flatten(1)).view(batch, height, width)
    order = image.flatten(1).argsort(stable=True, dim=1, descending=True)
    ranks = torch.arange(height * width, device=device, dtype=torch.int32).expand(batch, -1)
    return torch.empty_like(ranks).scatter_(1, order, ranks).view(batch, height, width)
