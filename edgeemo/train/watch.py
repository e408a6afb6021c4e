"""What may be watched while training runs: the curves of every epoch, for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeemo.stages import Train
from edgeemo.train.place import Place

FOLDER = "tensorboard"
Watch = Callable[[dict[str, Any]], None]


@contextmanager
def watching(folder: Path, config: Train, place: Place, *, epoch: int) -> Iterator[Watch]:
    """A function that takes an epoch's row of the log; what an interrupted sitting wrote from `epoch` on is dropped."""
    if not config.tensorboard or not place.fabric.is_global_zero:
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter  # seconds to import

    with SummaryWriter(str(folder / FOLDER), purge_step=epoch or None) as writer:  # type: ignore[no-untyped-call]

        def watch(row: dict[str, Any]) -> None:
            for name, value in _scalars(row).items():
                writer.add_scalar(name, value, row["epoch"])  # type: ignore[no-untyped-call]
            writer.flush()  # type: ignore[no-untyped-call]

        yield watch


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """Names and values as TensorBoard groups them."""
    rates = {f"learning rate/{k}": rate for k, rate in enumerate(row["learning_rates"])}
    recalls = {f"valid recall/{name}": share for name, share in row["recall"].items() if share is not None}
    valid = {"valid/accuracy": row["accuracy"], "valid/macro F1": row["macro_f1"]}
    return {"train/loss": row["loss"], "train/images per second": row["images_per_second"], **valid, **recalls, **rates}
