"""Synthetic faces, drawn from facial action units: labelled images without a data set to download.

The Facial Action Coding System (FACS; Ekman & Friesen, 1978) describes a face by the muscles that
move: AU1 lifts the inner brows, AU12 pulls the lip corners up, AU26 drops the jaw.  EMFACS lists
the combinations that people recognise as emotions; `PROTOTYPES` is that table.  Happiness, for
example, is AU6 (cheeks up, eyes narrow) with AU12: drawn on any head, the two give a happy face.
The label determines the muscles, the person is random, and a network has to separate the two.

Data flows in one direction, and each file imports only from those above it:

    actions.py    label -> action units: the prototype, its strength, and small random movements
    person.py     the person, the pose of the head and the lighting
    geometry.py   action units -> the curves of brows, lids, lips and jaw
    wrinkles.py   action units -> the creases they cause
    canvas.py     head coordinates -> pixels, and the drawing tools
    paint.py      the parts of the face, painted from back to front
    camera.py     lens and sensor; `draw_face` runs all steps

The unit of length is half the height of a head.  (0, 0) is between eyes and nose tip, x increases
to the right of the image and y downward, so an action that lifts decreases y.  `side` 0 is the left
of the image and 1 the right.

All random numbers come from one generator, seeded with the label and the caller's seed: the same
pair at the same size gives the same bytes.  Changing the order of the draws changes every face.

Sizes without a source were chosen by eye on contact sheets; intensities and noise so that the task
is not too easy for a small network.  The faces contain no data of real people, and results on them
say nothing about real people.

    >>> face = draw_face("surprise", seed=1, size=48)
    >>> face.shape, face.dtype
    ((48, 48), dtype('uint8'))
"""

from edgeemo.data.drawing.actions import PROTOTYPES
from edgeemo.data.drawing.camera import draw_face

__all__ = ["PROTOTYPES", "draw_face"]
