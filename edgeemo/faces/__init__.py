"""From a whole image to the faces in it: where they are, and the crop of each that a model reads.

detection   Detection and Detector, what every detector answers
cards       the known detectors: file by SHA-256, licence, training data, how their boxes lie
load        a detector by name or path
passes      which parts of an image are searched, at which scale
search      a detector: passes through a network, merged once
merge       weighted non-maximum suppression
blazeface   the packaged network: anchors and decoding
yunet       YuNet, by the path of a user's file
crop        the square around a face, turned upright, at the size of a model's input
quality     flags on faces that are too small, tilted too far or clipped
"""

from edgeemo.faces.cards import DetectorCard, list_detectors
from edgeemo.faces.crop import crop
from edgeemo.faces.detection import Detection, Detector, Framing
from edgeemo.faces.load import load_detector
from edgeemo.faces.quality import find_flags

__all__ = ["Detection", "Detector", "DetectorCard", "Framing", "crop", "find_flags", "list_detectors", "load_detector"]
