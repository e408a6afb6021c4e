"""Labelled faces: data sets, labels from votes, and the pixels a model is trained on."""

from edgeemo.data.faces import Faces, load, samples
from edgeemo.data.sample import Sample

__all__ = ["Faces", "Sample", "load", "samples"]
