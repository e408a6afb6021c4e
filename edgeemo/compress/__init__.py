"""A trained run → a smaller and faster model, every step compared with the one before.

In the order of use: run.py (the stage), plan.py (settings and faces), fine_tune.py (the steps that train), prune/ and
quantize/ (what they change), export.py (torch → ONNX), write.py (the files and their cards), compare.py (the table of
all steps), plots.py. search.py tries several compressions within a latency budget.
"""

from edgeemo.sessions import import_onnxruntime

import_onnxruntime()  # with telemetry off, before the modules of this package import parts of it
