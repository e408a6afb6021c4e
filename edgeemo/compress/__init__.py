"""The workshop's second room: a trained network made small and fast, judged at every step. Needs torch."""

from edgeemo.runtime.backends.ort import import_onnxruntime

import_onnxruntime()  # with telemetry off, before the modules of this package import parts of it
