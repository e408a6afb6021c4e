"""Batches whose content depends on seed, epoch and step alone, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.images import to_input
from edgeemo.stages import Train
from edgeemo.train.augment import PoorCamera, transforms, view_of
from edgeemo.train.sampling import order


class Job(NamedTuple):
    """One batch to make: the seed of its augmentation, the rows of the faces in it, and the epoch it belongs to."""

    seed: int
    rows: np.ndarray  # (batch,) int64
    epoch: int


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
        Job(int(start) + shard.rank, batch[shard.rank :: shard.processes], epoch)
        for start, batch in zip(seeds, batches, strict=True)
    ]


class Batches(Dataset):  # type: ignore[type-arg]
    """Makes the batch of a job: (N, C, S, S) float32 pixels and their float32 goals.

    Goals are (N, K) targets, or with a teacher (N, 2, K): targets and what it told of just this view of the face. A
    poor camera comes after it.
    """

    def __init__(
        self,
        faces: Faces,
        targets: np.ndarray,
        contract: InputContract,
        config: Train,
        *,
        taught: np.ndarray | None = None,
    ) -> None:
        self.faces, self.targets, self.contract, self.taught = faces, targets, contract, taught
        self.seed = config.seed
        self.transform = transforms(config.augment, vertical_flips=config.vertical_flips)
        self.camera = PoorCamera(config.corrupt_share)

    def __getitem__(self, job: Job) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment and normalise the job's faces."""
        goal = self.targets[job.rows]
        if self.taught is None:
            self.transform.set_random_seed(job.seed)
            pixels = np.stack([self.transform(image=self.faces.pixels[row])["image"] for row in job.rows])
        else:
            view = job.epoch % len(self.taught)
            pixels = view_of(self.faces.pixels, job.rows, self.transform, seed=(self.seed, view))
            goal = np.stack([goal, self.taught[view, job.rows]], axis=1)
        pixels = self.camera(pixels, seed=job.seed)
        return torch.from_numpy(to_input(pixels, self.contract)), torch.from_numpy(goal)


def loader(batches: Batches, jobs: list[Job], *, workers: int) -> DataLoader:  # type: ignore[type-arg]
    """The batches of `jobs` in their order, made by `workers` processes (0: by this one)."""
    return DataLoader(batches, sampler=jobs, batch_size=None, num_workers=workers)  # type: ignore[arg-type]
