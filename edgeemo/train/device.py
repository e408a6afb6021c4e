"""Device, precision, threads and processes of a training run."""

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

# malloc.h: M_MMAP_MAX (0: never map large blocks separately), M_TRIM_THRESHOLD (how much free memory to keep)
KEEP_FREED = {-4: 0, -1: 2**31 - 1}
AUTOCAST = {"bf16": "bf16-mixed", "fp16": "16-mixed"}
MIN_SHARD = 2  # faces of a batch in each process: BatchNorm needs two values per channel


@dataclass(frozen=True)
class DeviceSetup:
    """Lightning Fabric for one config, with the device and precision that were chosen, and why."""

    fabric: Fabric
    precision_plugin: Precision  # holds the loss scale of fp16
    device: str  # cpu or cuda
    precision: str  # fp32, bf16 or fp16
    threads: int
    reason: str  # of the precision

    @property
    def shard(self) -> Shard:
        """The part of every batch that this process trains on."""
        return Shard(self.fabric.global_rank, self.fabric.world_size)

    def check_in_sync(self, network: nn.Module) -> None:
        """Raise RuntimeError if the processes have different weights: gradients were not synchronised."""
        if self.fabric.world_size == 1:
            return
        mine = torch.stack([weight.detach().double().sum() for weight in network.parameters()])
        gathered = cast("torch.Tensor", self.fabric.all_gather(mine))  # (processes, tensors)
        if not torch.equal(gathered, gathered[:1].expand_as(gathered)):
            raise RuntimeError("the weights of the processes have diverged")

    def leave_process_group(self) -> None:
        """Wait for all processes, then leave the process group: one that exits early would make the others fail."""
        self.fabric.barrier()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def check(config: Train) -> None:
    """Raise UsageError for a precision or batch size that this device or number of processes does not support."""
    resolve_precision(config.precision, _pick_device())
    processes, _ = _count_processes()
    if config.batch_size % processes or config.batch_size < MIN_SHARD * processes:
        raise UsageError(
            f"--batch-size {config.batch_size}: expected a multiple of the {processes} processes, "
            f"{MIN_SHARD * processes} or more"
        )


def set_up_device(config: Train) -> DeviceSetup:
    """Set up device, precision and processes; under torchrun, every process trains on its part of each batch."""
    check(config)
    keep_freed_memory()
    threads = config.threads or len(usable_cores())
    torch.set_num_threads(threads)
    device = _pick_device()
    precision, reason = resolve_precision(config.precision, device)
    processes, local = _count_processes()
    plugin = _precision_plugin(precision, device)
    fabric = Fabric(
        accelerator=device,
        # layers have no gradients until they are unfrozen; DDP has to expect that
        strategy=DDPStrategy(find_unused_parameters=config.mode == "gradual") if processes > 1 else "auto",
        devices=local,
        num_nodes=processes // local,
        plugins=plugin,
    )
    fabric.launch()
    return DeviceSetup(fabric, plugin, device, precision, threads, reason)


def _pick_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _count_processes() -> tuple[int, int]:
    """Return how many processes torchrun started, in total and on this machine."""
    total, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return total, local


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory; return whether that is supported (by glibc, not by others).

    Every training step frees and allocates hundreds of megabytes. By default, glibc returns such blocks to the system,
    which has to clear each page again: 22,000 page faults per step of edge_vgg, instead of none.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(option, value) for option, value in KEEP_FREED.items())


def resolve_precision(requested: str, device: str) -> tuple[str, str]:
    """Return the precision (fp32, bf16 or fp16) for the requested one on cpu or cuda, and the reason."""
    if requested == "fp16" and device == "cpu":
        raise UsageError("--precision fp16 needs a CUDA device; this machine has none.  Use bf16, fp32 or auto")
    if requested != "auto":
        return requested, f"--precision {requested}"
    if device == "cuda":
        bf16 = torch.cuda.is_bf16_supported()
        return ("bf16" if bf16 else "fp16"), f"the CUDA device has {'' if bf16 else 'no '}bf16"
    native = {"avx512_bf16", "amx_bf16"} & set(this_machine().features or ())
    reason = f"this CPU has {', '.join(sorted(native))}" if native else "this CPU has no bf16 instructions"
    return ("bf16" if native else "fp32"), reason


def _precision_plugin(precision: str, device: str) -> Precision:
    """Return an explicit plugin: by name, Fabric would silently use bf16 for fp16 on the CPU."""
    if precision == "fp32":
        return Precision()
    return MixedPrecision(AUTOCAST[precision], device=device)  # type: ignore[arg-type]
