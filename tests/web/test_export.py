"""onnxruntime-web, fetched or given, and the page as a folder of static files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from base64 import b64encode
from pathlib import Path

import pytest

import edgeemo
from edgeemo import build
from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.runtime import shipped
from edgeemo.stages import Build
from edgeemo.web import runtime
from edgeemo.web.pages import FOLDER, HEADERS, list_pages

ROOT = Path(__file__).parents[2]
POLICY = "Content-Security-Policy"


def make_tarball(contents: dict[str, bytes]) -> bytes:
    """An npm package with these files in dist/."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tarball of a small release, whose hashes are the expected ones; the user's cache is empty."""
    contents = {name: f"// {name}\n".encode() for name in runtime.FILES}
    file = tmp_path / "onnxruntime-web.tgz"
    file.write_bytes(make_tarball({**contents, "ort.all.mjs": b"not needed"}))
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(runtime, "FILES", hashes)
    monkeypatch.setattr("edgeemo.web.pages.FILES", hashes)
    monkeypatch.setattr(runtime, "INTEGRITY", b64encode(hashlib.sha512(file.read_bytes()).digest()).decode())
    monkeypatch.setattr(runtime, "URL", "http://127.0.0.1:9/onnxruntime-web.tgz")  # where nothing answers
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    return file


def unpack(tarball: Path, folder: Path) -> Path:
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def test_a_tarball_is_kept_in_the_cache(release: Path) -> None:
    """And found there afterwards, without a network and without the tarball."""
    with pytest.raises(MachineError, match="edgeemo build small --for web --out DIR"):
        runtime.find_runtime()
    folder = runtime.get_runtime(release)
    release.unlink()
    assert folder == runtime.get_runtime() == runtime.find_runtime()
    assert sorted(file.name for file in folder.iterdir()) == sorted(runtime.FILES)


@pytest.mark.parametrize("part", ["", "dist"])
def test_an_unpacked_package_is_taken(release: Path, tmp_path: Path, part: str) -> None:
    """The folder of the package, as in node_modules, or its dist/."""
    folder = runtime.get_runtime(unpack(release, tmp_path) / part)
    assert sorted(file.name for file in folder.iterdir()) == sorted(runtime.FILES)


def test_another_package_is_refused(release: Path, tmp_path: Path) -> None:
    """A tarball by its SHA-512, a folder by the SHA-256 of its files, and what is there is not kept."""
    package = unpack(release, tmp_path)
    (package / "dist" / "ort.wasm.min.mjs").write_text("changed")
    with pytest.raises(IntegrityError, match=r"ort\.wasm\.min\.mjs of .*package is not that of onnxruntime-web"):
        runtime.get_runtime(package)
    release.write_bytes(release.read_bytes() + b"!")
    with pytest.raises(IntegrityError, match=r"is not onnxruntime-web .*: expected the SHA-512"):
        runtime.get_runtime(release)
    for missing in (tmp_path / "none.tgz", tmp_path):
        with pytest.raises(UsageError, match=r"expected the .*npm package"):
            runtime.get_runtime(missing)
    assert not (tmp_path / "cache").exists()


def test_without_a_network_the_command_for_elsewhere_is_named(release: Path) -> None:
    """Run it where there is one, and bring the file."""
    assert release.is_file()
    with pytest.raises(MachineError, match=r"cannot be fetched: .*npm pack onnxruntime-web@.*--onnxruntime-web"):
        runtime.get_runtime()


def test_a_damaged_cache_is_refused(release: Path) -> None:
    (runtime.get_runtime(release) / "ort.wasm.min.mjs").write_text("half")
    for find in (runtime.find_runtime, runtime.get_runtime):
        with pytest.raises(IntegrityError, match=r"ort\.wasm\.min\.mjs of .* Remove it"):
            find()


def export(release: Path, out: Path, model: str = "nano,small") -> Path:
    return build.run(Build(model=model, for_="web", out=out, onnxruntime_web=release))


def test_the_export_holds_all_that_the_page_loads(release: Path, tmp_path: Path) -> None:
    """Modules, models with their cards, detector, runtime, golden faces and licences, each with the right content."""
    out = export(release, tmp_path / "page")
    listed = json.loads((out / "models.json").read_text())["models"]
    assert [one["name"] for one in listed] == ["nano", "small"]
    for name in ("nano", "small"):
        for suffix in (".onnx", ".onnx.json"):
            assert (out / f"models/{name}{suffix}").read_bytes() == (shipped.FOLDER / f"{name}{suffix}").read_bytes()
    for name in runtime.FILES:
        assert (out / "runtime" / name).read_bytes() == f"// {name}\n".encode()
    for module in [*out.glob("*.js"), out / "index.html"]:
        for target in re.findall(r'(?:from|src=|href=|import\(|Worker\()\s*"([^"]+)"', module.read_text()):
            assert (out / target).is_file(), (module.name, target)
    assert {file.parent.name for file in out.glob("licences/*/*")} == {"edgeemo", "detector", "onnxruntime"}
    assert (out / "licences/edgeemo/LICENSE.txt").read_bytes() == (ROOT / "LICENSE").read_bytes()
    headers = (out / "_headers").read_text().splitlines()
    assert headers == ["/*", *(f"  {name}: {value}" for name, value in HEADERS.items())]
    assert "python -m http.server" in (out / "README.md").read_text()


def test_a_server_gets_the_same_files(release: Path, tmp_path: Path) -> None:
    """list_pages has every file of the export but its README, with a media type, and index.html at the root."""
    runtime.get_runtime(release)
    with edgeemo.load("nano") as model:
        pages = list_pages(model)
    out = export(release, tmp_path / "page", "nano")
    files = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert pages.keys() == {"", *files - {"README.md", "_headers"}}
    assert pages[""] == pages["index.html"]
    assert all(page.read() == (out / path).read_bytes() for path, page in pages.items() if path)
    assert pages["runtime/ort-wasm-simd-threaded.wasm"].media_type == "application/wasm"
    assert pages["page.js"].media_type.startswith("text/javascript")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("small,small", "two models are named small"),
        (str(shipped.FOLDER / "small.tensorrt.onnx"), "in the INT8 format of TensorRT"),
        ("model.trt", "--for web takes nano, small, base"),
        ("nano,tiny", "unknown model 'tiny'"),
    ],
)
def test_models_that_the_page_cannot_run_are_refused(release: Path, tmp_path: Path, model: str, reason: str) -> None:
    """And no folder is left."""
    with pytest.raises(UsageError, match=reason):
        export(release, tmp_path / "page", model)
    assert not (tmp_path / "page").exists()


def test_the_page_obeys_its_own_policy() -> None:
    """The file repeats the header's policy, and has no inline script or style, nor the address of another host."""
    html = (FOLDER / "index.html").read_text()
    (policy,) = re.findall(rf'http-equiv="{POLICY}" content="([^"]+)"', html)
    assert HEADERS[POLICY] == f"{policy}; frame-ancestors 'none'"  # which a file cannot state
    assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", html) == []
    for file in FOLDER.iterdir():
        addresses = re.findall(r"(?:https?:|wss?:)?//[a-z0-9.-]+\.[a-z]+[^\s\"']*", file.read_text())
        assert [address for address in addresses if address != "http://www.w3.org/2000/svg"] == [], file.name


def read_colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", css))


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_high_enough_in_light_and_dark() -> None:
    """WCAG 2 AA: 4.5 for text, 3 for the edges of controls and the bars."""
    css = (FOLDER / "style.css").read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)")[0], css.split("prefers-color-scheme: dark")[1]
    for colours in (read_colours(light), read_colours(dark)):
        for text in ("text", "soft", "error", "warn"):
            assert contrast(colours[text], colours["back"]) >= 4.5, text
        assert contrast(colours["text"], colours["button"]) >= 4.5
        assert contrast(colours["back"], colours["accent"]) >= 4.5  # of a pressed button
        assert contrast(colours["line"], colours["back"]) >= 3
        assert contrast(colours["accent"], colours["track"]) >= 3
    assert "prefers-reduced-motion" in css
