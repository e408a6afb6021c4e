"""Write the page with its models to a folder of static files: `edgeemo build MODEL --for web --out DIR`."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from edgeemo.errors import UsageError
from edgeemo.export import read_model
from edgeemo.stages import Build
from edgeemo.web.pages import HEADERS, make_pages
from edgeemo.web.runtime import VERSION, get_runtime

log = logging.getLogger(__name__)
README = """# A page of edgeemo

It finds faces in photos and camera images and predicts their expression, in the browser alone: images never leave the
device, and the page loads nothing from other hosts. Try it with

    python -m http.server 8000 --bind 127.0.0.1

in this folder, and open http://localhost:8000/. Elsewhere, serve it over HTTPS: browsers open cameras and check files
on secure pages only. Any host of static files will do; it should

- send the headers in `_headers` (Netlify and Cloudflare Pages read this file), of which index.html repeats the policy
  against requests to other hosts,
- send .wasm files as application/wasm and .mjs files as text/javascript,
- compress .wasm and .onnx files.

The models' cards, in `models/`, say what they were trained on and how accurate they are. `runtime/` is onnxruntime-web
{version}, MIT; `models/blazeface-full.onnx` is BlazeFace of MediaPipe, Apache-2.0; the page's own code is MIT.
`licences/` has all terms.
"""


def write(config: Build, folder: Path) -> None:
    """Write the page that runs `config.model` to an empty folder; several models, such as nano,small, to choose from.

    Raises UsageError for a file that is no .onnx file, or of the INT8 format of TensorRT; IntegrityError for a damaged
    model, or another onnxruntime-web; MachineError if that is not cached and cannot be fetched.
    """
    pages = make_pages(find_models(config), get_runtime(config.onnxruntime_web))
    for path, page in pages.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(page.read())
    headers = "".join(f"  {name}: {value}\n" for name, value in HEADERS.items())
    (folder / "_headers").write_text(f"/*\n{headers}", encoding="utf-8")
    readme = README.format(version=VERSION)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    size = sum(len(page.read()) for page in pages.values())
    log.info("%d files, %.1f MB; README.md says how to serve them", len(pages), size / 1e6)


def find_models(config: Build) -> list[Path]:
    """Return the checked files of `config.model`: of one model, or of several, separated by commas."""
    names = [config.model] if Path(config.model).is_file() else config.model.split(",")
    return [_find_model(replace(config, model=name.strip())) for name in names]


def _find_model(config: Build) -> Path:
    file, card = read_model(config, target_format="cpu")
    if card.precision.target_format == "tensorrt":
        raise UsageError(
            f"{file} is in the INT8 format of TensorRT; in a browser use that of CPUs:  edgeemo compress RUN --int8"
        )
    return file
