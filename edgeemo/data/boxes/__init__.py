"""Files of labelled face boxes, to measure a detector on.

labelled   what every reader returns, and the checks that they share
wider      the text format of WIDER FACE
coco       COCO's JSON
table      CSV: image,x,y,width,height
read       by the ending of the file
"""

from edgeemo.data.boxes.labelled import LabelledBox, LabelledImage
from edgeemo.data.boxes.read import FORMATS, read_boxes

__all__ = ["FORMATS", "LabelledBox", "LabelledImage", "read_boxes"]
