// The page: photos and the camera in, boxes and bars out. The model runs in worker.js.

import { decodeImage } from "./edgeemo.js";
import { draw } from "./drawing.js";
import { showFaces, summarize } from "./results.js";

const PAUSE = 3000; // ms between two announcements of what the camera shows
const CAMERA = { video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" }, audio: false };

const find = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map(); // the calls of the worker without an answer, by number
let calls = 0;
let photo = null; // the ImageData that is shown, to look at again when a setting changes
let stream = null; // of the camera
let opening = false; // whether the camera was asked for and has not come yet
let announced = { text: "", at: 0 };

worker.addEventListener("message", ({ data: { id, result, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
});
worker.addEventListener("error", () => fail(new Error("the model's worker cannot be started in this browser")));

/** Resolve to what the worker answers to an action. */
function call(action, options, transfer = []) {
  return new Promise((resolve, reject) => {
    waiting.set(++calls, { resolve, reject });
    worker.postMessage({ id: calls, action, options }, transfer);
  });
}

function say(text) {
  find("status").textContent = text;
}

function fail(error) {
  find("error").textContent = error ? error.message : "";
  find("error").hidden = !error;
  if (error) say("");
}

/** Run a task that the user asked for; its error is shown. */
async function attempt(task) {
  fail(null);
  try {
    await task();
  } catch (error) {
    fail(error);
  }
}

function enable(yes) {
  for (const id of ["file", "camera", "settings"]) find(id).disabled = !yes;
}

async function start() {
  const response = await fetch("models.json");
  if (!response.ok) throw new Error(`models.json cannot be loaded: ${response.status}`);
  const { models } = await response.json();
  find("model").replaceChildren(...models.map(({ name, model }) => new Option(name, model)));
  find("model-choice").hidden = models.length < 2;
  await loadModel();
}

async function loadModel() {
  enable(false);
  say("Loading the model …");
  try {
    const { labelSets, adaptable, check } = await call("load", { model: find("model").value });
    find("labels").replaceChildren(...labelSets.map(({ name, count }, k) => new Option(`${count}, ${k ? name : "as trained"}`, name)));
    find("adaptation-choice").hidden = !adaptable;
    find("adapted").checked = true;
    showCheck(check);
  } catch (error) {
    stopCamera();
    find("settings").disabled = false; // another network may be there
    throw error;
  }
  enable(true);
  say("Ready.");
  await lookAgain();
}

function showCheck(check) {
  find("check").textContent = !check
    ? "Self-check: the model's card has no expected answers for the packaged faces."
    : check.passed
      ? `Self-check passed: on eight packaged faces, this browser's logits differ by less than ${Math.max(1e-5, check.largest * 1.01).toFixed(5)} from the card's.`
      : `Self-check failed: this browser's logits differ by ${check.largest.toFixed(3)} from the card's; its answers are wrong.`;
}

async function configure() {
  await call("configure", { labels: find("labels").value, adapted: find("adapted").checked });
  await lookAgain();
}

async function lookAgain() {
  if (photo && !stream) await showPhoto(photo);
}

async function openPhoto(blob) {
  stopCamera();
  say("Looking for faces …");
  photo = await decodeImage(blob);
  await showPhoto(photo);
  find("picture").scrollIntoView({ block: "nearest" });
}

async function showPhoto(image) {
  const found = await call("faces", { image });
  show(image, found);
  const { text } = summarize(found);
  find("picture").setAttribute("aria-label", `The photo. ${text}`);
  say(text);
}

/** Show an image, an ImageData, with what was found in it. */
function show(image, found) {
  find("view").hidden = find("results").hidden = false;
  draw(find("picture"), image, found.faces);
  showFaces(find("faces"), found.faces, find("left-out"), found.left_out);
  find("latency").textContent = `${Math.round(found.ms)} ms for ${found.width} x ${found.height} px`;
}

async function startCamera() {
  if (!navigator.mediaDevices) throw new Error("the camera needs HTTPS, or a page of localhost");
  if (opening) return;
  opening = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia(CAMERA);
  } catch (error) {
    throw new Error(error.name === "NotAllowedError" ? "the camera was not allowed" : `no camera can be used: ${error.message}`);
  } finally {
    opening = false;
  }
  const source = stream;
  try {
    await showCamera(source);
  } catch (error) {
    if (stream !== source) return; // it was stopped meanwhile
    stopCamera();
    throw error;
  }
}

async function showCamera(source) {
  photo = null;
  showButton();
  const video = find("video");
  video.srcObject = source;
  source.getVideoTracks()[0].addEventListener("ended", stopCamera);
  await video.play();
  find("picture").setAttribute("aria-label", "The camera's image");
  await watch(video, source);
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  find("video").srcObject = null;
  showButton();
}

function showButton() {
  const button = find("camera");
  button.classList.toggle("active", Boolean(stream));
  button.textContent = stream ? "Stop the camera" : "Use the camera";
}

/** Look at the newest frame, again and again, until the camera is stopped. */
async function watch(video, source) {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const { canvas } = context;
  while (stream === source) {
    const { videoWidth: width, videoHeight: height } = video;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.drawImage(video, 0, 0);
    const image = context.getImageData(0, 0, width, height);
    const found = await call("faces", { image });
    if (stream !== source) return;
    show(image, found);
    announce(summarize(found).short);
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
}

/** Say what the camera shows if it changed, at most every PAUSE. */
function announce(text) {
  const now = performance.now();
  if (text === announced.text || now - announced.at < PAUSE) return;
  announced = { text, at: now };
  say(text);
}

const isFile = ({ types }) => types.includes("Files");

find("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (file) attempt(() => openPhoto(file));
});
find("camera").addEventListener("click", () => (stream ? stopCamera() : attempt(startCamera)));
find("model").addEventListener("change", () => attempt(loadModel));
find("labels").addEventListener("change", () => attempt(configure));
find("adapted").addEventListener("change", () => attempt(configure));
document.addEventListener("paste", ({ clipboardData }) => {
  const [file] = clipboardData.files;
  if (file && !find("file").disabled) attempt(() => openPhoto(file));
});
document.addEventListener("dragover", (event) => {
  if (!isFile(event.dataTransfer)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!isFile(event.dataTransfer)) return;
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file && !find("file").disabled) attempt(() => openPhoto(file));
});
attempt(start);
