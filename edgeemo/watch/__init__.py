"""Watch a camera, a stream or a video: find faces, follow them over time, and predict steady emotions.

Data flows in one direction:

    sources/      where frames come from: camera, file, network stream, folder, a rendered scene
    capture.py    a thread that always has the newest frame of a source
    tracking.py   which face of this frame is which of the frames before
    smoothing.py  one steady label per track
    watcher.py    frame -> detections -> tracks -> predictions -> smoothed predictions
    events.py     what is recorded of a frame
    outputs/      where records and images go
"""
