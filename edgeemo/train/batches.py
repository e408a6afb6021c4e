"""Batches whose content depends on seed, epoch and step alone, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.images import to_input
from edgeemo.train.augment import transforms
from edgeemo.train.sampling import order


class Job(NamedTuple):
    """One batch to make: the seed of its augmentation and the rows of the faces in it."""

    seed: int
    rows: np.ndarray  # (batch,) int64


class Shard(NamedTuple):
    """This process's part of every batch: every `processes`-th face from `rank` on."""

    rank: int = 0
    processes: int = 1


def plan(truth: np.ndarray, *, batch_size: int, seed: int, epoch: int, sampler: str, shard: Shard) -> list[Job]:
    """The jobs of one epoch over faces with the labels `truth`; a last short batch is dropped (BatchNorm)."""
    rng = np.random.default_rng((seed, epoch))
    rows = order(truth, rng, sampler=sampler)
    steps = max(1, len(rows) // batch_size)
    seeds = rng.integers(2**31, size=steps)
    batches = (rows[k * batch_size : (k + 1) * batch_size] for k in range(steps))
    return [
        Job(int(start) + shard.rank, batch[shard.rank :: shard.processes])
        for start, batch in zip(seeds, batches, strict=True)
    ]


class Batches(Dataset):  # type: ignore[type-arg]
    """Makes the batch of a job: (N, C, S, S) float32 pixels and (N, K) float32 targets."""

    def __init__(
        self, faces: Faces, targets: np.ndarray, contract: InputContract, *, augment: str, vertical_flips: bool = False
    ) -> None:
        self.faces, self.targets, self.contract = faces, targets, contract
        self.transform = transforms(augment, vertical_flips=vertical_flips)

    def __getitem__(self, job: Job) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment and normalise the job's faces."""
        self.transform.set_random_seed(job.seed)
        pixels = np.stack([self.transform(image=self.faces.pixels[row])["image"] for row in job.rows])
        return torch.from_numpy(to_input(pixels, self.contract)), torch.from_numpy(self.targets[job.rows])


def loader(batches: Batches, jobs: list[Job], *, workers: int) -> DataLoader:  # type: ignore[type-arg]
    """The batches of `jobs` in their order, made by `workers` processes (0: by this one)."""
    return DataLoader(batches, sampler=jobs, batch_size=None, num_workers=workers)  # type: ignore[arg-type]
