"""An epoch of MNIST: a torchvision DataLoader and a hand-written step, against images on the device and a step of ours.

    python -m benchmarks.epoch [--batch 64] [--workers 0] [--rounds 3] [--images 60000] [--device cpu]

The VAE is that of ``python -m benchmarks vae``; pixels are binarized anew in each batch. Both sides take turns, and each is
timed also without its steps: what then is left is reading. The images are MNIST's where PYZOO_DATA has them, and otherwise
random ones, which take as long.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator

import pyro
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

from benchmarks.cases import Case, vae
from pyzoo.data.images import ImageSource, load_images
from pyzoo.errors import UsageError
from pyzoo.infer import NegativeELBO
from pyzoo.threads import limit_spinning
from pyzoo.training import Hardware, Objective, keep_freed_memory
from pyzoo.training.steps import make_step

SIDES = ("DataLoader, handwritten", "on the device, traced")


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


def step_by_hand(case: Case) -> Callable[[Tensor], float]:
    """A step of hand-written PyTorch with its default settings."""
    optimizer = torch.optim.Adam([*case.model.parameters(), *case.guide.parameters()], lr=1e-3)

    def step(x: Tensor) -> float:
        case.batch["x"].copy_(x)
        optimizer.zero_grad()
        loss = case.by_hand()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(case: Case, device: str) -> Callable[[Tensor], Tensor]:
    """A traced step of ours."""
    objective = Objective(NegativeELBO(case.model, case.guide), functools.partial(torch.optim.Adam, lr=1e-3, fused=True))
    step = make_step(objective, "traced", Hardware(device=device).fabric(case.model, case.guide))
    return lambda x: step({"x": x})[0]


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
    cases = [vae.make(str(arguments.batch), device) for _ in SIDES]
    steps = dict(zip(SIDES, (step_by_hand(cases[0]), our_step(cases[1], arguments.device)), strict=True))
    read = {
        SIDES[0]: functools.partial(batches_of_loader, images, arguments.batch, arguments.workers, device),
        SIDES[1]: functools.partial(batches_on_device, images, arguments.batch, device),
    }
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    with pyro.validation_enabled(False):
        for side, step in steps.items():
            step(next(read[side]()))
        for _ in range(arguments.rounds):
            for side in SIDES:
                found[side].append((_seconds(read[side], steps[side], device), _seconds(read[side], None, device)))
    print("| | epoch, s | reading alone, s |\n|---|---|---|")
    for side, rows in found.items():
        print(f"| {side} | " + " | ".join(f"{statistics.median(each):.2f}" for each in zip(*rows, strict=True)) + " |")
    ratios = [ours[0] / theirs[0] for theirs, ours in zip(*found.values(), strict=True)]
    print(f"\nratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


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
