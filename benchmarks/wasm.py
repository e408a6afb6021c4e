"""Do the packaged models give the same logits in WebAssembly as natively? Runs onnxruntime-web in Node.js.

python benchmarks/wasm.py NODE_FOLDER DATA OUT.json   (in NODE_FOLDER: npm install onnxruntime-web)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.card import get_label_set
from edgeemo.data import load
from edgeemo.data.faces import kind_of
from edgeemo.images import to_input
from edgeemo.report import files
from edgeemo.report.facts import FacesBlock, make_header
from edgeemo.report.result import Measurement
from edgeemo.runtime import open_model, shipped

COUNT = 64
SCRIPT = Path(__file__).with_suffix(".mjs").resolve()


def main() -> None:
    """Compare every packaged model and write the result; exit 1 if a label differs."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    folder, data, out = sys.argv[1:]
    batches, expected, hashes = [], {}, {}
    for name in shipped.NAMES:
        with open_model(name) as model:
            faces = load(data, "valid", get_label_set(model.card), contract=model.card.input).take_evenly(COUNT)
            batch = to_input(faces.pixels, model.card.input)
            expected[name] = model.logits(batch)
            hashes[name] = model.card.sha256
            file = str(model.path.resolve())
        batches.append({"name": name, "file": file, "shape": batch.shape, "values": batch.ravel().tolist()})
    outputs = _run(Path(folder), batches)
    rows = [
        {"name": name, "sha256": hashes[name], **_compare(expected[name], outputs["models"][name])}
        for name in shipped.NAMES
    ]
    about = FacesBlock(kind_of(data), "valid", "plurality", len(faces), faces.fingerprint)
    facts = {"onnxruntime_web": outputs["onnxruntime_web"]}
    files.write(Measurement(header=make_header(), script="wasm", rows=rows, facts=facts, faces=about), Path(out))
    print(json.dumps(rows))
    sys.exit(any(row["changed"] for row in rows))


def _run(folder: Path, batches: list[dict[str, Any]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        inputs, logits = Path(temporary) / "batch.json", Path(temporary) / "logits.json"
        inputs.write_text(json.dumps(batches), encoding="utf-8")
        command = ["node", str(SCRIPT), str(inputs), str(logits)]
        subprocess.run(command, check=True, cwd=folder)
        outputs: dict[str, Any] = json.loads(logits.read_text(encoding="utf-8"))
        return outputs


def _compare(ours: np.ndarray, theirs: dict[str, Any]) -> dict[str, Any]:
    other = np.array(theirs["logits"]).reshape(theirs["shape"])
    changed = int((ours.argmax(1) != other.argmax(1)).sum())
    return {"changed": changed, "largest_logit_difference": float(np.abs(ours - other).max())}


if __name__ == "__main__":
    main()
