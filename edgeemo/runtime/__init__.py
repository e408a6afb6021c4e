"""Run a model on a device: numpy, Pillow and one backend; never torch.

The models classify one face crop: an image in which a single face fills the frame. There is no face detector yet:
crop the face first.
"""

from edgeemo.runtime.backends.table import BACKENDS, Backend
from edgeemo.runtime.model import Model, Prediction, load, open_model

__all__ = ["BACKENDS", "Backend", "Model", "Prediction", "load", "open_model"]
