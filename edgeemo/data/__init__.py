"""Labelled faces: where they come from, which label the votes give, and the pixels a model is trained on."""

from edgeemo.data.faces import Faces, load, samples
from edgeemo.data.sample import Sample

__all__ = ["Faces", "Sample", "load", "samples"]
