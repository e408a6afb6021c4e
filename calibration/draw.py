"""Draw a calibration list: train faces of a data set, balanced over the labels, for a seed.

Usage:  python calibration/draw.py --data ferplus:PATH --out calibration/ferplus-six-512.json
"""

from __future__ import annotations

import logging
from pathlib import Path

import click

from edgeemo.cli import Commands
from edgeemo.compress.quantize import calibrate
from edgeemo.labels import label_set
from edgeemo.stages import DATA, PROTOCOL


@click.group(cls=Commands, invoke_without_command=True)
@click.option("--data", required=True, help=DATA)
@click.option("--out", required=True, help="calibration list to write, .json")
@click.option(
    "--label-set", "labels", default="six", show_default=True, help="six, ferplus8, or own labels such as a,b,c"
)
@click.option("--protocol", default="plurality", show_default=True, help=PROTOCOL)
@click.option("--count", default=512, show_default=True, help="number of faces")
@click.option("--seed", default=0, show_default=True, help="random seed")
def main(data: str, out: str, labels: str, protocol: str, count: int, seed: int) -> None:
    """Draw a calibration list from the train faces of a data set."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    chosen = calibrate.draw(data, label_set(labels), protocol=protocol, count=count, seed=seed)
    calibrate.write(chosen, Path(out))
    click.echo(f"{out}: {len(chosen.ids)} train faces, ids {chosen.sha256[:12]}…")


if __name__ == "__main__":
    main()
