"""Run a model on a device: numpy, Pillow and one backend; never torch.

The models classify one face crop: an image in which a single face fills the frame. `Model.faces` finds the faces of a
whole image and crops them first; `Model.predict` takes ready crops.
"""

from edgeemo.runtime.backends.table import BACKENDS, Backend
from edgeemo.runtime.model import Model, load, open_model
from edgeemo.runtime.prediction import Face, FoundFaces, Prediction
from edgeemo.runtime.prior import Prior

__all__ = ["BACKENDS", "Backend", "Face", "FoundFaces", "Model", "Prediction", "Prior", "load", "open_model"]
