"""The page in headless Chromium: Python's answers, nothing sent elsewhere, and usable by keyboard, at every size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import chromium
import pytest
import web_host
from PIL import Image
from web_host import EXPECTED, make_adaptation

import edgeemo
from edgeemo import images
from edgeemo.card import card_path, read_card
from edgeemo.card.files import write_card
from edgeemo.card.layout import compute_seal
from edgeemo.runtime import shipped
from edgeemo.web.pages import MEDIA_TYPES, Page

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
LIMIT = 90  # seconds to load the page, on a busy machine
READY = "document.getElementById('status').textContent === 'Ready.'"
TOLERANCES = EXPECTED["tolerances"]
FOUR = web_host.FIXTURES / "pictures" / "four.png"
SIZES = {"phone": (360, 740), "tablet": (820, 1180), "desktop": (1366, 768)}


@pytest.fixture(scope="module")
def runtime() -> Path:
    return web_host.get_runtime()


@pytest.fixture(scope="module")
def page(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    """The page with nano and small, in a browser whose camera shows four faces."""
    folder = tmp_path_factory.mktemp("browser")
    video = web_host.write_camera(folder / "camera.y4m", images.read(FOUR))
    with (
        web_host.serve(web_host.list_files(runtime)) as (url, _),
        chromium.open_page("about:blank", folder / "profile", *web_host.camera_flags(video)) as opened,
    ):
        opened.record_requests()
        opened.call("DOM.enable")
        opened.url = url
        yield opened


@pytest.fixture
def ready(page: chromium.Page) -> chromium.Page:
    """The page, loaded again."""
    return load(page, page.url)


def load(page: chromium.Page, url: str) -> chromium.Page:
    page.errors.clear()
    page.requests.clear()
    page.call("Emulation.setDeviceMetricsOverride", width=820, height=1180, deviceScaleFactor=1, mobile=False)
    page.call("Page.navigate", url=url)
    page.wait(READY, LIMIT)
    return page


def text(page: chromium.Page, name: str) -> str:
    found: str = page.evaluate(f"document.getElementById('{name}').textContent")
    return found


def choose(page: chromium.Page, file: Path) -> None:
    """Choose a file, as a user does in the dialog."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])


def choose_option(page: chromium.Page, name: str, value: str) -> None:
    page.evaluate(
        f"(select => {{ select.value = '{value}'; select.dispatchEvent(new Event('change')) }})"
        f"(document.getElementById('{name}'))"
    )


def wait_for(page: chromium.Page, words: str) -> None:
    page.wait(f"document.getElementById('status').textContent.includes({json.dumps(words)})", LIMIT)


def check_face(found: dict, expected: dict, model: str) -> None:
    """Box, landmarks, score and flags of a face, and what is predicted for it."""
    assert found["box"] == pytest.approx(expected["box"], abs=TOLERANCES["box_px"])
    for point, other in zip(found["landmarks"], expected["landmarks"], strict=True):
        assert point == pytest.approx(other, abs=TOLERANCES["box_px"])
    assert found["score"] == pytest.approx(expected["score"], abs=TOLERANCES["score"])
    assert found["flags"] == expected["flags"]
    check_prediction(found, expected["predictions"][model])


def check_prediction(found: dict, expected: dict) -> None:
    assert (found["label"], found["unsure"]) == (expected["label"], expected["unsure"])
    assert found["probability"] == pytest.approx(expected["probability"], abs=TOLERANCES["probability"])
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=TOLERANCES["probability"])


@pytest.mark.parametrize("model", shipped.NAMES)
def test_answers_are_those_of_python(ready: chromium.Page, model: str) -> None:
    """For every fixture: the same faces, labels, flags and faces left out, and probabilities within the tolerance."""
    answers = ready.run(web_host.make_answering(model))
    for picture in EXPECTED["pictures"]:
        found = answers[picture["file"]]
        assert (found["width"], found["height"]) == (picture["width"], picture["height"])
        assert found["left_out"] == picture["left_out"]
        assert len(found["faces"]) == len(picture["faces"])
        for face, expected in zip(found["faces"], picture["faces"], strict=True):
            check_face(face, expected, model)
    for crop in EXPECTED["ready"]:
        check_prediction(answers[crop["file"]], crop["predictions"][model])


def test_a_photo_is_answered_and_nothing_leaves_the_page(ready: chromium.Page) -> None:
    """Every request goes to the page's origin, while it loads and afterwards; its policy blocks any other."""
    assert "Self-check passed" in text(ready, "check")
    loaded = len(ready.requests)
    choose(ready, FOUR)
    wait_for(ready, "4 faces: neutral")
    assert ready.evaluate("document.querySelectorAll('#faces > li').length") == 4
    assert " ms for 640 x 480 px" in text(ready, "latency")
    assert loaded > 10
    assert [url for url in ready.requests if not url.startswith((ready.url, "blob:"))] == []
    assert len(ready.requests) == loaded
    assert ready.errors == []
    elsewhere = ready.url.replace("127.0.0.1", "localhost")
    assert ready.run(f"return fetch('{elsewhere}').then(() => 'sent', () => 'blocked')") == "blocked"
    assert any("Content Security Policy" in json.dumps(error) for error in ready.errors)


def test_the_page_works_where_no_headers_are_sent(page: chromium.Page, runtime: Path) -> None:
    """As from `python -m http.server`; the policy in the file still holds."""
    with web_host.serve(web_host.list_files(runtime, ["nano"]), headers={}) as (url, _):
        load(page, url)
        assert page.evaluate("document.getElementById('model-choice').hidden")
        elsewhere = url.replace("127.0.0.1", "localhost")
        assert page.run(f"return fetch('{elsewhere}').then(() => 'sent', () => 'blocked')") == "blocked"


def test_what_is_no_photo_is_reported(ready: chromium.Page, tmp_path: Path) -> None:
    """In an alert, which goes away with the next photo."""
    (tmp_path / "photo.png").write_text("no photo")
    Image.new("L", (12, 40)).save(tmp_path / "small.png")
    choose(ready, tmp_path / "photo.png")
    ready.wait("!document.getElementById('error').hidden")
    assert "cannot be read as a picture" in text(ready, "error")
    choose(ready, tmp_path / "small.png")
    ready.wait("document.getElementById('error').textContent.includes('at least 16 px')")
    choose(ready, FOUR)
    wait_for(ready, "4 faces")
    assert ready.evaluate("document.getElementById('error').hidden")


def test_a_camera_that_is_not_allowed_is_reported(ready: chromium.Page) -> None:
    """Or is not there; photos still work."""
    for name, words in (("NotAllowedError", "was not allowed"), ("NotFoundError", "no camera can be used")):
        ready.evaluate(
            f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('none', '{name}'))"
        )
        ready.evaluate("document.getElementById('camera').click()")
        ready.wait(f"document.getElementById('error').textContent.includes('{words}')")
    assert text(ready, "camera") == "Use the camera"
    choose(ready, FOUR)
    wait_for(ready, "4 faces")


@pytest.mark.parametrize(
    ("file", "words"), [("models/nano.onnx", "is not the file of its card"), ("models/nano.onnx.json", "was changed")]
)
def test_a_changed_model_is_not_run(page: chromium.Page, runtime: Path, file: str, words: str) -> None:
    """By its hash, or that of its card; nothing can be chosen then."""
    pages = web_host.list_files(runtime, ["nano"])
    content = pages[file].read()
    changed = content.replace(b'"temperature": ', b'"temperature": 1') if file.endswith(".json") else content[:-1]
    pages[file] = Page(changed, pages[file].media_type)
    with web_host.serve(pages) as (url, _):
        page.call("Page.navigate", url=url)
        page.wait(f"document.getElementById('error').textContent.includes('{words}')", LIMIT)
        assert page.evaluate("document.getElementById('camera').disabled")


def test_a_browser_whose_answers_are_wrong_says_so(page: chromium.Page, runtime: Path) -> None:
    """The self-check runs the packaged faces: here with a card that has other logits for them."""
    pages = web_host.list_files(runtime, ["nano"])
    raw = json.loads(pages["models/nano.onnx.json"].read())
    raw["golden"]["logits"][3][2] += 0.5
    raw["seal"] = compute_seal(raw)
    pages["models/nano.onnx.json"] = Page(json.dumps(raw).encode(), MEDIA_TYPES[".json"])
    with web_host.serve(pages) as (url, _):
        load(page, url)
        assert "Self-check failed: this browser's logits differ by 0.500" in text(page, "check")


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_photos_are_pasted_and_dropped(ready: chromium.Page, way: str) -> None:
    """Anywhere on the page."""
    event = {
        "paste": "new ClipboardEvent('paste', { clipboardData: data, bubbles: true })",
        "drop": "new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })",
    }[way]
    ready.run(
        "const blob = await (await fetch('fixtures/pictures/one.png')).blob();"
        "const data = new DataTransfer(); data.items.add(new File([blob], 'one.png', { type: 'image/png' }));"
        f"document.querySelector('main').dispatchEvent({event});"
    )
    wait_for(ready, "1 face: surprise")


def test_settings_apply_to_the_photo_that_is_shown(ready: chromium.Page) -> None:
    """Another network and fewer labels; what the network is unsure of is marked in words and in the list."""
    choose(ready, FOUR)
    wait_for(ready, "4 faces: neutral 84.3 %")
    choose_option(ready, "model", "models/small.onnx")
    wait_for(ready, "4 faces: unsure, perhaps neutral 72.1 %")
    assert ready.evaluate("document.querySelector('#faces .notes').textContent") == "unsure"
    assert ready.evaluate("document.querySelectorAll('#faces > li:first-child ul li').length") == 8
    choose_option(ready, "labels", "six")
    wait_for(ready, "4 faces: neutral 76.2 %")
    assert ready.evaluate("document.querySelectorAll('#faces > li:first-child ul li').length") == 6


def test_the_adaptation_can_be_switched_off(page: chromium.Page, runtime: Path, tmp_path: Path) -> None:
    """A card with one is applied as Python does, and without it the answers are the model's."""
    adapted = tmp_path / "nano.onnx"
    shutil.copyfile(shipped.find("nano"), adapted)
    card = read_card(shipped.find("nano"))
    write_card(adapted, replace(card, adaptation=make_adaptation(card.sha256), answers=None))
    with edgeemo.load(adapted) as model:
        face = model.faces(FOUR)[0].prediction
    pages = web_host.list_files(runtime, ["nano"])
    pages["models/nano.onnx.json"] = Page(card_path(adapted), MEDIA_TYPES[".json"])
    with web_host.serve(pages) as (url, _):
        load(page, url)
        assert page.evaluate("!document.getElementById('adaptation-choice').hidden")
        choose(page, FOUR)
        wait_for(page, f"4 faces: {face.label} {100 * face.probability:.1f} %")
        page.evaluate("document.getElementById('adapted').click()")
        wait_for(page, "4 faces: neutral 84.3 %")


def test_the_camera_is_watched_until_it_is_stopped(ready: chromium.Page) -> None:
    """Its frames are shown with boxes; stopping it ends its track."""
    ready.evaluate("document.getElementById('camera').click()")
    wait_for(ready, "4 faces")
    assert text(ready, "camera") == "Stop the camera"
    ready.evaluate("window.track = document.getElementById('video').srcObject.getVideoTracks()[0]")
    ready.evaluate("document.getElementById('camera').click()")
    assert ready.evaluate("window.track.readyState") == "ended"
    assert text(ready, "camera") == "Use the camera"
    assert ready.errors == []


RECORD_TRACKS = """
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
window.tracks = [];
navigator.mediaDevices.getUserMedia = async (options) => {
  const stream = await open(options);
  window.tracks.push(...stream.getTracks());
  return stream;
};
"""


def test_no_camera_stays_on_after_it_was_stopped(ready: chromium.Page) -> None:
    """Although its button was pressed again before the camera was open."""
    ready.run(f"{RECORD_TRACKS} for (const _ of [1, 2, 3]) document.getElementById('camera').click();")
    wait_for(ready, "4 faces")
    ready.evaluate("document.getElementById('camera').click()")
    ready.wait("window.tracks.every((track) => track.readyState === 'ended')", 20)
    assert text(ready, "camera") == "Use the camera"


def test_a_camera_whose_images_cannot_be_looked_at_is_stopped(ready: chromium.Page) -> None:
    """Instead of staying on while the page shows an error."""
    fail = "OffscreenCanvasRenderingContext2D.prototype.getImageData = () => { throw new Error('no image'); };"
    ready.run(f"{RECORD_TRACKS} {fail} document.getElementById('camera').click();")
    ready.wait("document.getElementById('error').textContent === 'no image'")
    assert ready.evaluate("window.tracks.map((track) => track.readyState)") == ["ended"]
    assert text(ready, "camera") == "Use the camera"


def press_tab(page: chromium.Page) -> str:
    """Press Tab; return the id of what has the focus then."""
    for kind in ("rawKeyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    found: str = page.evaluate("document.activeElement.id")
    return found


def test_everything_can_be_done_by_keyboard(ready: chromium.Page) -> None:
    """Tab reaches every control in order, and shows where it is; Space starts the camera and stops it."""
    order = [press_tab(ready) for _ in range(2)]
    outline = "getComputedStyle(document.getElementById('camera')).outlineStyle"
    assert ready.evaluate(outline) == "solid"
    ready.press(" ")
    ready.wait("document.getElementById('camera').textContent === 'Stop the camera'")
    wait_for(ready, "4 faces")
    ready.press(" ")
    ready.wait("document.getElementById('camera').textContent === 'Use the camera'")
    assert [*order, press_tab(ready), press_tab(ready)] == ["file", "camera", "model", "labels"]
    for kind in ("rawKeyDown", "keyUp"):
        ready.call("Input.dispatchKeyEvent", type=kind, key="End", code="End", windowsVirtualKeyCode=35)
    ready.wait("document.getElementById('labels').value !== 'ferplus8'")


def list_names(page: chromium.Page) -> set[tuple[str, str]]:
    """Role and accessible name of every node of the accessibility tree."""
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    return {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and "role" in node
    }


def test_a_screen_reader_is_told_everything(ready: chromium.Page) -> None:
    """Every control has a name, the image says what is in it, and results are announced in a live region."""
    choose(ready, FOUR)
    wait_for(ready, "4 faces")
    names = list_names(ready)
    assert {
        ("heading", "Expressions of faces"),
        ("button", "Choose a photo"),
        ("button", "Use the camera"),
        ("combobox", "Network"),
        ("combobox", "Labels"),
        ("heading", "Faces"),
    } <= names
    assert any(role == "image" and name.startswith("The photo. 4 faces: neutral 84.3 %") for role, name in names)
    assert not [role for role, name in names if role in ("button", "combobox", "checkbox", "image") and not name]
    assert ready.evaluate("document.getElementById('status').role") == "status"
    assert ready.evaluate("document.getElementById('error').role") == "alert"


@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits_the_screen(ready: chromium.Page, size: str) -> None:
    """Nothing is scrolled sideways, and buttons are high enough for a finger."""
    width, height = SIZES[size]
    choose(ready, FOUR)
    wait_for(ready, "4 faces")
    ready.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    ready.wait(f"innerWidth === {width}")
    assert ready.evaluate("document.documentElement.scrollWidth") <= width
    heights = ready.evaluate("[...document.querySelectorAll('.button')].map(one => one.getBoundingClientRect().height)")
    assert min(heights) >= 44
    assert ready.evaluate("document.getElementById('picture').getBoundingClientRect().width") <= width - 32
