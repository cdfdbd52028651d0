"""prefetch: the plain loop on a CPU, and the queue of a GPU with a recorder in place of its streams."""

import gc
import itertools
import weakref
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import fusedmix
from fusedmix.loader import Prefetcher, each_tensor, prefetch

Pair = namedtuple("Pair", "image label")


class Recorder:
    """Stands for the streams of a GPU: tensors stay where they are, `log` holds what was asked in which order."""

    def __init__(self, device: torch.device):
        self.device, self.log, self.inside, self.marks = device, list[Any](), False, itertools.count()

    @contextmanager
    def on_side(self) -> Iterator[None]:
        assert not self.inside
        self.inside = True
        try:
            yield
        finally:
            self.inside = False

    def copy(self, tensor: Tensor) -> Tensor:
        assert self.inside
        self.log.append("copy")
        return tensor.clone()

    def follow(self) -> None:
        assert not self.inside, "the stream to wait for is the side stream itself"
        self.log.append("follow")

    def mark(self) -> int:
        assert self.inside
        number = next(self.marks)
        self.log.append(("mark", number))
        return number

    def take(self, batch: Any, event: int) -> Any:
        assert not self.inside
        self.log.append(("take", event))
        return batch


class Faked(Prefetcher):
    streams = Recorder


class Counted:
    """A loader of n batches, numbered by their pixels and their first class; counts what was pulled."""

    def __init__(self, n: int, fails_at: int | None = None):
        self.n, self.fails_at, self.pulled = n, fails_at, 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.pulled = 0
        for k in range(self.n):
            if k == self.fails_at:
                raise OSError(f"batch {k}")
            self.pulled += 1
            yield torch.full((2, 3, 4, 4), k, dtype=torch.uint8), torch.tensor([k, k + 1])


def number(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x.float() / 10, y + 100


KINDS = [lambda *arguments, **options: prefetch(arguments[0], "cpu", *arguments[1:], **options)]
KINDS.append(lambda *arguments, **options: Faked(arguments[0], "cuda", *arguments[1:], **options))
both = pytest.mark.parametrize("make", KINDS, ids=["cpu", "queue"])


@both
@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_each_pass_gives_all_batches_in_order(make: Any, depth: int) -> None:
    batches = make(Counted(5), number, depth=depth)
    assert len(batches) == 5
    for _ in range(2):
        seen = list(batches)
        assert [x.unique().tolist() for x, _ in seen] == [[pytest.approx(k / 10)] for k in range(5)]
        assert [y[0].item() for _, y in seen] == [100, 101, 102, 103, 104]


@both
def test_empty_loader(make: Any) -> None:
    assert list(make([], number)) == []


@both
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_pulled_ahead(make: Any, depth: int) -> None:
    loader = Counted(6)
    ahead = depth if make is KINDS[1] else 1
    batches = iter(make(loader, number, depth=depth))
    assert loader.pulled == 0
    for k in range(6):
        next(batches)
        assert loader.pulled == min(6, k + ahead)
    with pytest.raises(StopIteration):
        next(batches)


def test_queue_launches_and_waits_in_this_order() -> None:
    batches = Faked(Counted(3), "cuda", number)
    for k, (_, y) in enumerate(batches):
        assert y[0] == 100 + k
        assert batches.side.log[-1] == ("take", k)
        batches.side.log.append("step")
    launch = ["copy", "copy", "follow"]
    assert batches.side.log == [
        *launch, ("mark", 0), *launch, ("mark", 1), ("take", 0), "step",
        *launch, ("mark", 2), ("take", 1), "step", ("take", 2), "step",
    ]  # fmt: skip


def test_copy_alone_does_not_wait_for_the_step() -> None:
    batches = Faked(Counted(2), "cuda")
    assert [y[0].item() for _, y in batches] == [0, 1]
    assert "follow" not in batches.side.log


def test_augment_runs_on_the_side_stream() -> None:
    inside = []
    batches = Faked(Counted(2), "cuda", lambda x, y: (inside.append(batches.side.inside), y))
    list(batches)
    assert inside == [True, True]


@both
@pytest.mark.parametrize("at", [0, 1, 3])
def test_exception_of_the_loader_comes_at_its_batch(make: Any, at: int) -> None:
    batches = iter(make(Counted(5, fails_at=at), number))
    assert [next(batches)[1][0].item() for _ in range(at)] == list(range(100, 100 + at))
    with pytest.raises(OSError, match=f"batch {at}"):
        next(batches)


@both
@pytest.mark.parametrize("error", [KeyError, StopIteration])
def test_exception_of_augment_comes_at_its_batch(make: Any, error: type[Exception]) -> None:
    def augment(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if y[0] == 2:
            raise error("two")
        return x, y

    loader = Counted(5)
    batches = iter(make(loader, augment))
    assert [next(batches)[1][0].item() for _ in range(2)] == [0, 1]
    with pytest.raises(RuntimeError if error is StopIteration else error):
        next(batches)
    assert loader.pulled == 3
    assert next(batches, "end") == "end"


@both
def test_stopping_early_frees_everything(make: Any) -> None:
    alive: list[weakref.ref[Tensor]] = []

    def augment(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        alive.append(weakref.ref(x))
        return x, y

    closed = []

    def loader() -> Iterator[tuple[Tensor, Tensor]]:
        try:
            yield from Counted(6)
        finally:
            closed.append(True)

    gc.disable()
    try:
        for _x, _y in make(loader(), augment):
            break
        del _x, _y
        assert closed == [True]
        assert alive
        assert [ref() for ref in alive] == [None] * len(alive)
    finally:
        gc.enable()


def test_queue_keeps_nothing_that_was_handed_out() -> None:
    batches = iter(Faked(Counted(4), "cuda", number))
    x, _ = next(batches)
    gone = weakref.ref(x)
    del x, _
    assert gone() is None


@both
def test_kinds_of_batches(make: Any) -> None:
    x, y, rest = torch.zeros(2, 3), torch.tensor([1, 2]), torch.tensor([7, 8])

    def shift(x: Tensor, y: Tensor) -> list[Tensor]:
        return [x + 1, y + 1]

    def only(batch: Any, augment: Any) -> Any:
        (result,) = make([batch], augment)
        return result

    assert torch.equal(only(x, lambda x: x + 1), x + 1)
    (lone,) = only((x,), lambda x: x + 1)
    assert torch.equal(lone, x + 1)
    for batch in ((x, y), [x, y], Pair(x, y), {"image": x, "label": y}):
        result = only(batch, shift)
        assert type(result) is type(batch)
        a, b = result.values() if isinstance(batch, dict) else result
        assert torch.equal(a, x + 1)
        assert torch.equal(b, y + 1)
    assert list(only({"image": x, "label": y}, shift)) == ["image", "label"]
    result = only((x, y, rest, "name", {"boxes": [rest, None]}), shift)
    assert torch.equal(result[2], rest)
    assert result[3] == "name"
    assert torch.equal(result[4]["boxes"][0], rest)
    assert result[4]["boxes"][1] is None


def test_every_tensor_is_copied_once() -> None:
    x = torch.zeros(2)
    batches = Faked([(x, {"a": [x, x]}, "name", x)], "cuda")
    list(batches)
    assert batches.side.log.count("copy") == 4


def test_cpu_copies_nothing() -> None:
    x, y = torch.zeros(2, 3), torch.tensor([1, 2])
    ((a, b),) = prefetch([(x, y)], "cpu")
    assert a is x
    assert b is y


@both
def test_same_seeds_as_a_plain_loop(make: Any) -> None:
    mix = fusedmix.FusedMix([(fusedmix.CutMix(1.0), 0.5), (fusedmix.Mixup(0.4), 0.5)], num_classes=10)
    x = torch.randint(256, (24, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(TensorDataset(x, torch.arange(24) % 10), batch_size=6, shuffle=True)
    torch.manual_seed(5)
    expected = [mix(*batch) for batch in loader]
    torch.manual_seed(5)
    result = list(make(loader, mix))
    assert len(result) == 4
    for (a, b), (c, d) in zip(result, expected, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_dataloader_attributes() -> None:
    loader = DataLoader(TensorDataset(torch.zeros(5, 2)), batch_size=2)
    batches = prefetch(loader, "cpu")
    assert len(batches) == 3
    assert batches.dataset is loader.dataset
    assert batches.sampler is loader.sampler


def test_no_length_where_the_loader_has_none() -> None:
    batches = prefetch((torch.zeros(2) for _ in range(3)), "cpu")
    with pytest.raises(TypeError, match="len"):
        len(batches)
    assert len(list(batches)) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(depth=0), ValueError, r"depth must be in \[1, .*, got 0"),
        (dict(depth=1.5), TypeError, "depth must be an int, got float"),
        (dict(depth=True), TypeError, "depth must be an int, got bool"),
        (dict(device="meta"), ValueError, "device must be cpu or cuda, got 'meta'"),
        (dict(device="gpu"), ValueError, "device must be cpu or cuda, got 'gpu'"),
        (dict(device=1.0), TypeError, "device must be a torch.device, str, int or None, got float"),
        (dict(device="cuda:99"), ValueError, "device must be one that torch finds here.*got cuda:99"),
        (dict(augment=3), TypeError, "augment must be callable or None, got int"),
        (dict(loader=3), TypeError, "loader must be an iterable of batches, got int"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prefetch(**{"loader": [], "device": "cpu", **arguments})


@both
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ("text", "a Tensor, tuple, list or mapping, got str"),
        (3, "a Tensor, tuple, list or mapping, got int"),
        ((), "first element is a Tensor x, got no element in tuple of 0"),
        (("a", torch.zeros(2)), "first element is a Tensor x, got str in tuple of 2"),
        ({"x": [1, 2]}, "first element is a Tensor x, got list of 2 in dict of 1"),
    ],
)
def test_wrong_batches(make: Any, batch: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        list(make([batch]))


@both
def test_augment_must_return_a_pair(make: Any) -> None:
    with pytest.raises(TypeError, match=r"augment must return a pair \(x, y\) for a batch with y, got Tensor"):
        list(make(Counted(1), lambda x, y: x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("source", ["pageable", "pinned", "device"])
def test_on_a_gpu(depth: int, source: str) -> None:
    """Slow steps, an augmentation in torch and memory reused at once: the batches are those of a plain loop."""
    shape, n = (64, 3, 64, 64), 20
    host = torch.randint(256, (n, *shape), dtype=torch.uint8)
    busy = torch.randn(2048, 2048, device="cuda")

    def batches() -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        for k in range(n):
            x = host[k]
            if source == "pinned":
                x = x.pin_memory()
            elif source == "device":
                x = (busy @ busy).sum().mul(0).to(torch.uint8) + x.cuda(non_blocking=True)
            yield x, torch.full((64,), k), [torch.full((2,), k)]

    def augment(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(4):
            x = x.float() + 1
        return x, y + 1

    sums = []
    for x, y, (z,) in prefetch(batches(), "cuda", augment, depth=depth):
        assert x.is_cuda
        assert y.is_cuda
        assert z.is_cuda
        for _ in range(3):
            busy = torch.tanh(busy @ busy)
        sums.append(torch.stack([x.double().sum(), y.double().sum(), z.double().sum()]))
        del x, y, z
    expected = [[host[k].double().sum().item() + 4 * host[k].numel(), 64.0 * (k + 1), 2.0 * k] for k in range(n)]
    assert torch.stack(sums).tolist() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_policy_on_a_gpu_draws_as_on_a_cpu() -> None:
    mix = fusedmix.FusedMix([(fusedmix.CutMix(1.0), 1.0)], num_classes=20)
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(3)
        results.append([each_tensor(Tensor.cpu, batch) for batch in prefetch(Counted(6), device, mix)])
    for (a, b), (c, d) in zip(*results, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
