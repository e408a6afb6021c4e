"""Faces drawn from facial action units: labelled images for anyone, with no data set to download.

The Facial Action Coding System (FACS; Ekman & Friesen, 1978) describes a face by the muscles that
move: AU1 lifts the inner brows, AU12 pulls the lip corners up, AU26 drops the jaw.  EMFACS names
the combinations that people read as emotions; `PROTOTYPES` is that table.  Happiness, for one, is
AU6 (cheeks up, eyes narrow) with AU12, so whoever draws those two on any head draws a happy face:
the label fixes the muscles, chance picks the person, and a network must learn to tell them apart.

Data flows one way, and each file imports only from those above it:

    actions.py    label -> action units: the prototype, its strength and a little fidgeting
    person.py     who is drawn, how the head is held, how it is lit
    geometry.py   action units -> the curves of brows, lids, lips and jaw
    wrinkles.py   action units -> the creases they fold
    canvas.py     the head's coordinates -> pixels, and the brushes
    paint.py      the parts of the face, painted from back to front
    camera.py     lens and sensor; `draw_face` runs all of it

The unit of length is half the height of a head.  (0, 0) lies between eyes and nose tip, x grows to
the right of the image and y grows downward, so an action that lifts makes y smaller.  Where there
is a `side`, 0 is the left of the image and 1 the right.

Every random choice comes from one generator, seeded with the label and the caller's seed: the same
pair at the same size gives the same bytes.  Changing the order of the choices changes every face.

Sizes without another source were set by eye on contact sheets, and intensities and noise so that a
small network finds the task hard enough.  A drawing has no data of a person in it, and a model that
reads drawings well has proved nothing about people.

    >>> face = draw_face("surprise", seed=1, size=48)
    >>> face.shape, face.dtype
    ((48, 48), dtype('uint8'))
"""

from edgeemo.data.drawing.actions import PROTOTYPES
from edgeemo.data.drawing.camera import draw_face

__all__ = ["PROTOTYPES", "draw_face"]
