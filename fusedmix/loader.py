"""Batches copied and augmented on a stream of their own, ahead of the step that uses them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .spec import check_integer

Device = torch.device | str | int | None


class CudaStreams:
    """A side stream for copies and augmentation, and its order with the stream of the steps (the current one)."""

    def __init__(self, device: torch.device):
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found <= (device.index or 0):
            raise ValueError(
                f"device must be one that torch finds here: cpu or one of {found} cuda devices, got {device}"
            )
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self.side = torch.cuda.Stream(self.device)

    def on_side(self) -> Any:
        """A context in which work is queued on the side stream."""
        return torch.cuda.stream(self.side)

    def copy(self, tensor: Tensor) -> Tensor:
        """The tensor on the device; the host does not wait for the copy. Inside `on_side`."""
        if tensor.device == self.device:
            tensor.record_stream(self.side)
        elif tensor.device.type == "cpu" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        # PyTorch records an event for the copy and does not give the pinned memory away before it, so nothing here
        # keeps the source alive.
        return tensor.to(self.device, non_blocking=True)

    def follow(self) -> None:
        """Lets the side stream wait for what the current stream has been given so far. Outside `on_side`."""
        self.side.wait_stream(torch.cuda.current_stream(self.device))

    def mark(self) -> torch.cuda.Event:
        """An event behind all that the side stream has been given so far."""
        return self.side.record_event()

    def take(self, batch: Any, event: torch.cuda.Event) -> Any:
        """The batch, for the current stream to use: it waits for the event, and the tensors' memory waits for it."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)

        def keep(tensor: Tensor) -> Tensor:
            if tensor.is_cuda:
                tensor.record_stream(current)
            return tensor

        return each_tensor(keep, batch)


def prefetch(
    loader: Iterable[Any], device: Device = None, augment: Callable[..., Any] | None = None, *, depth: int = 2
) -> "Prefetcher":
    """Batches of a loader on the device, augmented there, ready when the step needs them.

    On CUDA each batch is pinned, copied and augmented on a stream of its own while earlier batches train, so that one
    uint8 batch crosses the bus and the host waits for neither. On a CPU it is a plain loop over the loader.

    Args:
        loader: gives batches, as a `DataLoader` does: a Tensor x, or a tuple, list or mapping whose first element is x
            and whose second, if any, is y. Tensors of all elements are moved, also those within tuples, lists and
            mappings; the rest is passed on. A batch must not be written over after it was given. Pinned batches
            (`pin_memory=True`) spare a copy on the host.
        device: cpu or cuda; None: the current CUDA device, or the CPU where there is none.
        augment: any module (`fusedmix.FusedMix`) or function, called on the device as augment(x, y), or augment(x)
            where a batch has no y, with x and y as the loader gave them; what it returns takes their places. None: copy
            only.
        depth: batches in flight, at least 1, each holding memory of the device. At 1, augmentation does not overlap
            with the step.

    Returns a `Prefetcher`: each `iter()` is a pass over the loader, `len()` is the loader's. Batches are of the
    loader's kind (mappings become dicts), in its order. An exception of the loader or of `augment` is raised in place
    of its batch, after all before it.

    Batches are loaded and augmented in the order of a plain loop, `depth - 1` batches ahead of the step: seeds are the
    same, but what changes the augmentation (`set_progress`, `eval()`) belongs between two passes.

    Raises TypeError or ValueError for a wrong argument and, in a pass, TypeError for a batch that is none of the above.

    Example:
        >>> import torch, fusedmix
        >>> from fusedmix.loader import prefetch
        >>> loader = [(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4)) for _ in range(3)]
        >>> mix = fusedmix.FusedMix([(fusedmix.CutMix(1.0), 0.5)], num_classes=10, mean=127.5, std=127.5)
        >>> for x, y in prefetch(loader, "cpu", mix):
        ...     print(x.dtype, list(x.shape), list(y.shape))
        torch.float32 [4, 3, 8, 8] [4, 10]
        torch.float32 [4, 3, 8, 8] [4, 10]
        torch.float32 [4, 3, 8, 8] [4, 10]
    """
    return Prefetcher(loader, device, augment, depth=depth)


class Prefetcher:
    """A loader whose batches are copied and augmented ahead; see `prefetch`."""

    streams: Callable[[torch.device], Any] = CudaStreams  # tests put one in its place that needs no GPU

    def __init__(
        self,
        loader: Iterable[Any],
        device: Device = None,
        augment: Callable[..., Any] | None = None,
        *,
        depth: int = 2,
    ):
        if not isinstance(loader, Iterable):
            raise TypeError(f"loader must be an iterable of batches, got {type(loader).__name__}")
        if augment is not None and not callable(augment):
            raise TypeError(f"augment must be callable or None, got {type(augment).__name__}")
        check_integer("depth", depth, 1, 2**31 - 1)
        self.loader, self.augment, self.depth = loader, augment, int(depth)
        self.device = check_device(device)
        self.side: Any = None
        if self.device.type == "cuda":
            self.side = type(self).streams(self.device)
            self.device = self.side.device

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return self.plain() if self.side is None else self.ahead()

    @property
    def dataset(self) -> Any:
        return self.loader.dataset  # type: ignore[attr-defined]

    @property
    def sampler(self) -> Any:
        return self.loader.sampler  # type: ignore[attr-defined]

    def plain(self) -> Iterator[Any]:
        """One batch at a time, on a CPU."""
        for batch in self.loader:
            check_batch(batch)
            yield self.augmented(each_tensor(lambda tensor: tensor.to(self.device), batch))

    def ahead(self) -> Iterator[Any]:
        """`depth` batches in flight, the oldest handed out."""
        launched = (self.launch(batch) for batch in self.loader)
        ready: deque[tuple[Any, Any]] = deque()
        failed: list[Exception] = []
        more = True
        while more or ready:
            while more and len(ready) < self.depth:
                try:
                    ready.append(next(launched))
                except StopIteration:
                    more = False
                except Exception as error:
                    failed.append(error)
                    more = False
            if ready:
                yield self.side.take(*ready.popleft())
        if failed:
            raise failed.pop()

    def launch(self, batch: Any) -> tuple[Any, Any]:
        """The batch on the device and augmented, and the event after which it is."""
        check_batch(batch)
        with self.side.on_side():
            batch = each_tensor(self.side.copy, batch)
        if self.augment is not None:
            self.side.follow()  # behind what wrote the augmentation's numbers, or x where it was made on the device
        with self.side.on_side():
            return self.augmented(batch), self.side.mark()

    def augmented(self, batch: Any) -> Any:
        """The batch with what `augment` makes of its x, or of its x and y, in their places."""
        if self.augment is None:
            return batch
        if isinstance(batch, Tensor):
            return self.augment(batch)
        parts = elements(batch)
        result = self.augment(*parts[:2])
        if len(parts) == 1:
            return like(batch, [result])
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise TypeError(f"augment must return a pair (x, y) for a batch with y, got {kind(result)}")
        return like(batch, [*result, *parts[2:]])


def check_device(device: object) -> torch.device:
    """The device that is meant. Refuses others than cpu and cuda."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(device, bool) or not isinstance(device, torch.device | str | int):
        raise TypeError(f"device must be a torch.device, str, int or None, got {type(device).__name__}")
    try:
        found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be cpu or cuda, got {device!r}") from None
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {str(found)!r}")
    return found


def check_batch(batch: object) -> None:
    if isinstance(batch, Tensor):
        return
    if not isinstance(batch, tuple | list | Mapping):
        raise TypeError(f"loader must give batches that are a Tensor, tuple, list or mapping, got {kind(batch)}")
    parts = elements(batch)
    if not parts or not isinstance(parts[0], Tensor):
        got = kind(parts[0]) if parts else "no element"
        raise TypeError(f"loader must give batches whose first element is a Tensor x, got {got} in {kind(batch)}")


def kind(value: object) -> str:
    """The name of the type, with the length of what has elements."""
    name = type(value).__name__
    return f"{name} of {len(value)}" if isinstance(value, tuple | list | Mapping) else name


def each_tensor(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The value with every tensor changed, also within tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list | Mapping):
        return like(value, [each_tensor(change, part) for part in elements(value)])
    return value


def elements(value: Any) -> list[Any]:
    return list(value.values() if isinstance(value, Mapping) else value)


def like(value: Any, parts: list[Any]) -> Any:
    """The parts in the container that `value` is; a dict for any mapping."""
    if isinstance(value, Mapping):
        return dict(zip(value, parts, strict=True))
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
