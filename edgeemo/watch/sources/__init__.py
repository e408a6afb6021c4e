"""Where frames come from; every source is a `Source`.

source      the protocol, its error, and what sources share
choose      which source a text means
opencv      a VideoCapture of OpenCV's, without its messages
camera      a webcam
video       a video file
network     RTSP and HTTP
folder      images as frames
picamera    a camera of a Raspberry Pi
synthetic   a rendered scene (scene.py)
"""

from edgeemo.watch.sources.choose import open_source
from edgeemo.watch.sources.source import Source, SourceLostError

__all__ = ["Source", "SourceLostError", "open_source"]
