"""Where and how precisely to compute."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import nn

from pyzoo.errors import UsageError
from pyzoo.settings import AtLeast, AtMost, Count, Settings
from pyzoo.streams import logger_at

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Hardware", "find_device", "using_threads"]


def are_convolutional(*networks: nn.Module) -> bool:
    """Whether any of some networks convolves images."""
    return any(isinstance(layer, nn.Conv2d) for network in networks for layer in network.modules())


def find_device(text: str) -> torch.device:
    """The device of a name as torch spells it, such as "cpu", "cuda:1" or "mps"; "auto" takes a GPU where there is one.

    Raises:
        UsageError: there is no such device, or this machine has none.
    """
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except (RuntimeError, TypeError):
        raise UsageError(f"--device must be auto, cpu, cuda, cuda:1, mps or the like, got {text}") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"--device {text}: this machine, or this build of torch, has no CUDA device")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"--device {text}: this machine has {torch.cuda.device_count()} CUDA devices, counted from 0")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError(f"--device {text}: this machine, or this build of torch, has no MPS device")
    elif device.type != "cpu":
        raise UsageError(f"--device must be auto, cpu, cuda, cuda:1, mps or the like, got {text}")
    return device


@contextlib.contextmanager
def using_threads(count: int) -> Iterator[None]:
    """The context to compute in with so many threads on a CPU; 0 leaves their number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclasses.dataclass(frozen=True)
class Hardware(Settings):
    """Where and how precisely to compute."""

    group: ClassVar[str] = "hardware"

    device: str = "auto"
    """Device as torch spells it: cpu, cuda, cuda:1, mps. auto takes a GPU where there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 computes the networks' products in bfloat16; likelihoods and KLs stay in float32."""
    devices: Count = 1
    """Processes or GPUs on each machine; each takes its slice of the batch."""
    num_nodes: Count = 1
    """Machines."""
    threads: Annotated[int, AtLeast(0), AtMost(1024)] = 0
    """Threads on a CPU. 0 takes the number that is fastest when the run starts; the run then keeps it, since the last digits of
    sums depend on it."""
    engine: Literal["auto", "eager", "traced", "compiled", "captured"] = "auto"
    """How a step is run; auto is eager in runs of fewer than a hundred steps, otherwise what the recipe says, eager or traced,
    and compiled where training would take more than twenty minutes. eager runs model and guide as they stand, as several
    processes do in any case. traced records the arithmetic of their first run and repeats it, bit-identical, but without Python
    code that would change. compiled compiles that record, which takes a minute or two. captured, on a CUDA device, repeats whole
    steps as one CUDA graph."""

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.devices * self.num_nodes

    def completed_by(self, chosen: "Hardware") -> "Hardware":
        """The same, with the threads and the engine that a run has chosen where these are left open.

        Example:
            >>> Hardware(precision="bf16").completed_by(Hardware(threads=2, engine="compiled"))
            Hardware(device='auto', precision='bf16', devices=1, num_nodes=1, threads=2, engine='compiled')
        """
        engine = chosen.engine if self.engine == "auto" else self.engine
        return dataclasses.replace(self, threads=self.threads or chosen.threads, engine=engine)

    def find(self) -> torch.device:
        """The device.

        Raises:
            UsageError: this machine has none of the kind, or there are to be several machines and nothing that launches them.
        """
        if self.num_nodes > 1 and not os.environ.keys() & {"MASTER_ADDR", "SLURM_JOB_ID"}:
            raise UsageError(f"--num-nodes {self.num_nodes} needs a launcher on each machine, such as torchrun or SLURM")
        return find_device(self.device)

    def fabric(self, *networks: nn.Module) -> "Fabric":
        """The launcher: devices, processes, and autocast.

        Args:
            *networks: what is computed. On a CPU autocast makes convolutions twice as fast; without them only products of
                matrices are in bfloat16, see :meth:`arithmetic`.
        """
        from lightning_fabric import Fabric  # takes a second to import, and only training needs it
        from lightning_fabric.plugins.environments import LightningEnvironment

        device = self.find()
        autocast = self.precision == "bf16" and (device.type == "cuda" or are_convolutional(*networks))
        chosen = [device.index] if device.index is not None and device.type != "cpu" and self.devices == 1 else self.devices
        strategy = "ddp" if self.processes > 1 else "auto"
        # One process is one process, whatever a cluster's or torchrun's variables say.
        plugins = [LightningEnvironment()] if self.processes == 1 else []
        with logger_at("lightning_fabric", logging.WARNING):
            return Fabric(
                accelerator=device.type,
                strategy=strategy,
                devices=chosen,
                num_nodes=self.num_nodes,
                precision="bf16-mixed" if autocast else "32-true",
                plugins=plugins,
            )

    def require_equal_shares(self, batch_size: int, fewest: int = 1) -> None:
        """Raises a UsageError unless each process gets as many examples as the others, and so as much weight, and enough.

        Args:
            batch_size: examples in a step, over all processes.
            fewest: that a process needs; see ``Recipe.fewest_examples``.
        """
        if batch_size % self.processes:
            raise UsageError(f"--batch-size {batch_size} can't be shared equally by {self.processes} processes")
        if batch_size < fewest * self.processes:
            what = f"{fewest * self.processes} with {self.processes} processes, {fewest} for each, for batch norm"
            raise UsageError(f"--batch-size must be at least {what}, got {batch_size}")

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The context to compute in: on a CPU, bf16 means that matrices in float32 are multiplied in bfloat16.

        That is as fast for them as autocast, keeps no copies of the weights, and leaves everything but the products alone.
        """
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium" if self.precision == "bf16" and self.find().type == "cpu" else before)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
