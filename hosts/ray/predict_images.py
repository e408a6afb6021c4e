"""Predict the faces of many images on a Ray cluster: a Parquet table with a row for each face.

pip install edgeemo 'ray[data]'     # on every machine of the cluster
python hosts/ray/predict_images.py IMAGES OUT [ADDRESS]

IMAGES and OUT are folders that every machine can read and write, or addresses such as s3://bucket/images. ADDRESS is
that of the cluster, as ray://head:10001; without it, Ray runs on the cores of this machine. One model is open in each
core's process. An image that cannot be read gives a row with the reason in `error`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read at import; Ray sends usage data otherwise
import ray

import edgeemo
from edgeemo.errors import DataError

COLUMNS = ("x", "y", "width", "height")


class Predictor:
    """Holds a model in a process of its own."""

    def __init__(self, model: str) -> None:
        """model: a name or a path, as for edgeemo.load."""
        self.model = edgeemo.load(model)

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a row for each face of an image, or one for an image that cannot be read."""
        nothing = {**dict.fromkeys(COLUMNS, None), "score": None, "label": "", "probability": None, "unsure": None}
        try:
            faces = self.model.find_faces(row["bytes"]).faces
        except DataError as error:
            return [{"image": row["path"], **nothing, "error": str(error)}]
        return [
            {
                "image": row["path"],
                **dict(zip(COLUMNS, face.box, strict=True)),
                "score": face.score,
                "label": face.prediction.label,
                "probability": face.prediction.probability,
                "unsure": face.prediction.unsure,
                "error": "",
            }
            for face in faces
        ]


def predict_images(images: str, out: str, *, model: str = "small", processes: int | None = None) -> None:
    """Predict all images under a folder; processes: one for each core of the cluster by default."""
    count = processes or int(ray.cluster_resources()["CPU"])
    pool = ray.data.ActorPoolStrategy(size=count)
    files = ray.data.read_binary_files(images, include_paths=True)
    faces = files.flat_map(Predictor, fn_constructor_args=(model,), compute=pool, num_cpus=1)
    faces.write_parquet(out)


if __name__ == "__main__":
    ray.init(*sys.argv[3:])
    predict_images(*sys.argv[1:3])
