"""An epoch of MNIST: a torchvision DataLoader and a hand-written step, against images on the device and a step of ours.

    python -m benchmarks.epoch [--batch 64] [--workers 0] [--rounds 3] [--images 60000] [--device cpu]

The VAE is that of ``python -m benchmarks vae``; pixels are binarized anew in each batch. The sides take turns, and each is
timed also without its steps: what then is left is reading. The images are MNIST's where PYZOO_DATA has them, and otherwise
random ones, which take as long.
"""

import argparse
import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

from benchmarks.cases import Case, vae
from benchmarks.rounds import stepping
from pyzoo.data.images import ImageSource, load_images
from pyzoo.errors import UsageError
from pyzoo.threads import limit_spinning
from pyzoo.training import keep_freed_memory

SIDES = {
    "DataLoader, handwritten": "handwritten",
    "on the device, traced": "fp32 traced",
    "on the device, compiled": "fp32 compiled",
}
"""What is compared, and whose steps those are, of :data:`benchmarks.rounds.SIDES`."""


class Digits(torchvision.datasets.MNIST):
    """MNIST of images that are in memory."""

    def __init__(self, images: Tensor) -> None:
        self.data, self.targets = images, torch.zeros(len(images), dtype=torch.int64)
        self.transform, self.target_transform = ToTensor(), None


def images_of(count: int) -> Tensor:
    """So many images, (images, 28, 28), uint8."""
    try:
        return load_images("mnist", "train")[0][:count].squeeze(1)
    except UsageError:
        return torch.randint(256, (count, 28, 28), dtype=torch.uint8)


def batches_of_loader(images: Tensor, batch: int, workers: int, device: torch.device) -> Iterator[Tensor]:
    """Batches as PyTorch's tutorials read them, (batch, 784)."""
    for x, _ in DataLoader(Digits(images), batch, shuffle=True, num_workers=workers, drop_last=True):
        yield torch.bernoulli(x.to(device)).flatten(1)


def batches_on_device(images: Tensor, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Batches as ours, (batch, 784)."""
    source = ImageSource(images.unsqueeze(1), "dynamic", seed=0, device=device)
    for step in range(len(images) // batch):
        yield source.batch(step, batch)["x"].flatten(1)


def on_batches(case: Case, step: Callable[[], float]) -> Callable[[Tensor], float]:
    """A step of a case on other batches than its own."""

    def on(x: Tensor) -> float:
        case.batch["x"].copy_(x)
        return step()

    return on


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.epoch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes of the DataLoader")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    limit_spinning()
    keep_freed_memory()
    device, images = torch.device(arguments.device), images_of(arguments.images)
    by_loader, *ours = SIDES
    read = dict.fromkeys(ours, functools.partial(batches_on_device, images, arguments.batch, device))
    read[by_loader] = functools.partial(batches_of_loader, images, arguments.batch, arguments.workers, device)
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    with contextlib.ExitStack() as stack:
        steps = {}
        for side, name in SIDES.items():
            case = vae.make(str(arguments.batch), device)
            steps[side] = on_batches(case, stack.enter_context(stepping(case, name, arguments.device)))
            steps[side](next(read[side]()))  # graphs are made in it
        for _ in range(arguments.rounds):
            for side in SIDES:
                found[side].append((_seconds(read[side], steps[side], device), _seconds(read[side], None, device)))
    print("| | epoch, s | ratio | reading alone, s |\n|---|---|---|---|")
    for side, rows in found.items():
        whole, reading = (statistics.median(each) for each in zip(*rows, strict=True))
        ratios = [mine[0] / theirs[0] for theirs, mine in zip(found[by_loader], rows, strict=True)]
        print(
            f"| {side} | {whole:.2f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {reading:.2f} |"
        )


def _seconds(read: Callable[[], Iterator[Tensor]], step: Callable[[Tensor], object] | None, device: torch.device) -> float:
    started = time.perf_counter()
    for x in read():
        if step is not None:
            step(x)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
