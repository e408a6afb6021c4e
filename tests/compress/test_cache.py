"""Compression with faces that are read from disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeemo.compress import run as compression
from edgeemo.data import cache
from edgeemo.stages import Compress


def list_models(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("model.*") if file.suffix != ".json"}


def test_models_are_those_from_memory(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruned by the gradients of faces, fine-tuned and quantized; afterwards the faces are removed."""
    settings = {"prune": 0.5, "importance": "taylor", "epochs": 1, "int8": True, "time": False, "min_agreement": 0.0}
    plain = Compress(run=trained, threads=1, out=tmp_path / "memory", **settings)
    compression.run(plain)
    monkeypatch.setattr(cache, "available_memory", lambda: 1000)
    removed: list[Path] = []
    remove = cache.Cache.remove

    def list_and_remove(one: cache.Cache) -> None:
        removed.extend(one.folder.glob("*/pixels.npy"))
        remove(one)

    monkeypatch.setattr(cache.Cache, "remove", list_and_remove)
    compression.run(Compress(run=trained, threads=1, out=tmp_path / "disk", **settings))
    assert sorted(file.parent.name.partition("-")[0] for file in removed) == ["train", "valid"]
    assert not (tmp_path / "disk" / "decoded-faces").exists()
    assert list_models(tmp_path / "disk") == list_models(tmp_path / "memory")
    assert len(list_models(tmp_path / "disk")) == 3
