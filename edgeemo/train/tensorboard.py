"""TensorBoard logs: loss, accuracy, recalls and learning rates of every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeemo.stages import Train
from edgeemo.train.device import DeviceSetup

FOLDER = "tensorboard"
LogEpoch = Callable[[dict[str, Any]], None]


@contextmanager
def log_epochs(folder: Path, config: Train, device_setup: DeviceSetup, *, epoch: int) -> Iterator[LogEpoch]:
    """Yield a function that logs an epoch's row; what an interrupted run logged from `epoch` on is discarded."""
    if not config.tensorboard or not device_setup.fabric.is_global_zero:
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

    with SummaryWriter(str(folder / FOLDER), purge_step=epoch or None) as writer:  # type: ignore[no-untyped-call]

        def log_epoch(row: dict[str, Any]) -> None:
            for name, value in _name_scalars(row).items():
                writer.add_scalar(name, value, row["epoch"])  # type: ignore[no-untyped-call]
            writer.flush()  # type: ignore[no-untyped-call]

        yield log_epoch


def _name_scalars(row: dict[str, Any]) -> dict[str, float]:
    """Return the values of a row under the names by which TensorBoard groups them."""
    rates = {f"learning rate/{k}": rate for k, rate in enumerate(row["learning_rates"])}
    recalls = {f"valid recall/{name}": share for name, share in row["recall"].items() if share is not None}
    valid = {"valid/accuracy": row["accuracy"], "valid/macro F1": row["macro_f1"]}
    return {"train/loss": row["loss"], "train/images per second": row["images_per_second"], **valid, **recalls, **rates}
