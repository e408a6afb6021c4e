"""Where the arithmetic runs: device, precision, threads and processes, chosen once and told with its reason."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from edgeemo.errors import UsageError
from edgeemo.machine import this_machine, usable_cores
from edgeemo.stages import Train
from edgeemo.train.batches import Shard

# malloc.h: M_MMAP_MAX (no block of its own for large requests), M_TRIM_THRESHOLD (free memory that is kept)
KEEP_FREED = {-4: 0, -1: 2**31 - 1}
AUTOCAST = {"bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Place:
    """Lightning Fabric, set up for one config, with what it was set up to do."""

    fabric: Fabric
    plugin: Precision  # holds the loss scale of fp16
    device: str  # cpu or cuda
    precision: str  # fp32, bf16 or fp16
    threads: int
    reason: str

    @property
    def shard(self) -> Shard:
        """This process's part of every batch."""
        return Shard(self.fabric.global_rank, self.fabric.world_size)

    def check_together(self, network: nn.Module) -> None:
        """RuntimeError if the processes do not hold the same weights: a sum of gradients was missed, without a word."""
        if self.fabric.world_size == 1:
            return
        mine = torch.stack([weight.detach().double().sum() for weight in network.parameters()])
        all_of_them = cast("torch.Tensor", self.fabric.all_gather(mine))  # (processes, tensors)
        if not torch.equal(all_of_them, all_of_them[:1].expand_as(all_of_them)):
            raise RuntimeError("the weights of the processes have drifted apart")

    def leave(self) -> None:
        """Part from the other processes, once all are done: one that exits earlier would pull the rest down."""
        self.fabric.barrier()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def check(config: Train) -> None:
    """UsageError for a config that this device, or these processes, cannot train."""
    precision_for(config.precision, _device())
    processes, _ = _processes()
    if config.batch_size % processes:
        raise UsageError(f"--batch-size {config.batch_size}: expected a multiple of the {processes} processes")


def place_for(config: Train) -> Place:
    """Device, precision and processes for a config; under torchrun every process takes a part of each batch."""
    check(config)
    keep_freed_memory()
    threads = config.threads or len(usable_cores())
    torch.set_num_threads(threads)
    device = _device()
    precision, reason = precision_for(config.precision, device)
    processes, here = _processes()
    plugin = _plugin(precision, device)
    fabric = Fabric(
        accelerator=device,
        # layers that thaw late have no gradients before, which DDP must be told to expect
        strategy=DDPStrategy(find_unused_parameters=config.mode == "gradual") if processes > 1 else "auto",
        devices=here,
        num_nodes=processes // here,
        plugins=plugin,
    )
    fabric.launch()
    return Place(fabric, plugin, device, precision, threads, reason)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _processes() -> tuple[int, int]:
    """How many torchrun started, everywhere and on this machine."""
    everywhere, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return everywhere, here


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; returns whether it listens, as glibc does and others do not.

    A step frees hundreds of megabytes and asks for them again. glibc hands such blocks back to the system, which
    then has to clear every page anew: 22,000 page faults a step of edge_vgg, instead of none.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(option, value) for option, value in KEEP_FREED.items())


def precision_for(asked: str, device: str) -> tuple[str, str]:
    """fp32, bf16 or fp16 for what `--precision` asks on cpu or cuda, and why."""
    if asked == "fp16" and device == "cpu":
        raise UsageError("--precision fp16 needs a CUDA device; this machine has none.  Use bf16, fp32 or auto")
    if asked != "auto":
        return asked, f"--precision {asked}"
    if device == "cuda":
        bf16 = torch.cuda.is_bf16_supported()
        return ("bf16" if bf16 else "fp16"), f"the CUDA device has {'' if bf16 else 'no '}bf16"
    native = {"avx512_bf16", "amx_bf16"} & set(this_machine().features or ())
    reason = f"this CPU has {', '.join(sorted(native))}" if native else "this CPU has no bf16 instructions"
    return ("bf16" if native else "fp32"), reason


def _plugin(precision: str, device: str) -> Precision:
    """Fabric's own choice for CPU fp16 would be bf16, silently; a plugin says what is meant."""
    if precision == "fp32":
        return Precision()
    return MixedPrecision(AUTOCAST[precision], device=device)  # type: ignore[arg-type]
