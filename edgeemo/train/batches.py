"""Batches that depend on seed, epoch and step alone, so that a resumed run repeats those of an uninterrupted one."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.data.faces import describe_faces
from edgeemo.errors import MachineError
from edgeemo.images import to_input
from edgeemo.memory import available_memory, format_bytes
from edgeemo.stages import Train
from edgeemo.train.augment import Corruption, augment_view, make_augmentation
from edgeemo.train.sampling import draw_order


class BatchSpec(NamedTuple):
    """One batch: the seed of its augmentation, the rows of its faces, and its epoch."""

    seed: int
    rows: np.ndarray  # (batch,) int64
    epoch: int


class Shard(NamedTuple):
    """The part of every batch that this process trains on: every `processes`-th face, starting at `rank`."""

    rank: int = 0
    processes: int = 1


def plan_epoch(
    truth: np.ndarray, *, batch_size: int, seed: int, epoch: int, sampler: str, shard: Shard
) -> list[BatchSpec]:
    """Return the batches of one epoch over faces with the labels `truth`; a short last one is dropped (BatchNorm)."""
    rng = np.random.default_rng((seed, epoch))
    rows = draw_order(truth, rng, sampler=sampler)
    steps = max(1, len(rows) // batch_size)
    seeds = rng.integers(2**31, size=steps)
    batches = (rows[k * batch_size : (k + 1) * batch_size] for k in range(steps))
    return [
        BatchSpec(int(start) + shard.rank, batch[shard.rank :: shard.processes], epoch)
        for start, batch in zip(seeds, batches, strict=True)
    ]


class BatchDataset(Dataset):  # type: ignore[type-arg]
    """Prepares the batch of a BatchSpec: (N, C, S, S) float32 pixels and float32 targets.

    Targets are (N, K) or, with a teacher, (N, 2, K): the label's targets, and the teacher's log-probabilities for the
    same augmented view. Faces are corrupted after that view, so the teacher has seen them clean.
    """

    def __init__(
        self,
        faces: Faces,
        targets: np.ndarray,
        contract: InputContract,
        config: Train,
        *,
        teacher_log_probs: np.ndarray | None = None,
    ) -> None:
        self.faces, self.targets, self.contract, self.teacher_log_probs = faces, targets, contract, teacher_log_probs
        self.seed = config.seed
        self.transform = make_augmentation(config.augment, vertical_flips=config.vertical_flips)
        self.corruption = Corruption(config.corrupt_share)

    def __getitem__(self, spec: BatchSpec) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment, corrupt and normalise the faces of a batch."""
        target = self.targets[spec.rows]
        if self.teacher_log_probs is None:
            self.transform.set_random_seed(spec.seed)
            pixels = np.stack([self.transform(image=self.faces.pixels[row])["image"] for row in spec.rows])
        else:
            view = spec.epoch % len(self.teacher_log_probs)
            pixels = augment_view(self.faces.pixels, spec.rows, self.transform, seed=(self.seed, view))
            target = np.stack([target, self.teacher_log_probs[view, spec.rows]], axis=1)
        pixels = self.corruption(pixels, seed=spec.seed)
        return torch.from_numpy(to_input(pixels, self.contract)), torch.from_numpy(target)


def check_memory(contract: InputContract, *, batch_size: int) -> None:
    """Raise MachineError if the available memory does not hold a batch, without the network and its activations.

    A batch is made as uint8, and twice as float32: as array, and in the memory format of the network.
    """
    size, available = 9 * batch_size * prod(contract.pixels), available_memory()
    if available is not None and size > available:
        raise MachineError(
            f"{describe_faces(f'a batch of {batch_size} faces', contract)} needs {format_bytes(size)} of memory; "
            f"{format_bytes(available)} are available: free memory, or use a smaller --batch-size or --size"
        )


def make_loader(batches: BatchDataset, specs: list[BatchSpec], *, workers: int) -> DataLoader:  # type: ignore[type-arg]
    """Return a loader of the batches in this order, prepared by `workers` processes (0: by this one)."""
    return DataLoader(batches, sampler=specs, batch_size=None, num_workers=workers)  # type: ignore[arg-type]
