// Finds the faces of an image and predicts the emotion of each, in the browser, with onnxruntime-web.
//
//   import { decodeImage, load } from "./edgeemo.js";
//   const model = await load({ model: "models/small.onnx" });
//   const { faces } = await model.faces(await decodeImage(file)); // or context.getImageData(0, 0, width, height)

import { AUGMENTED, crop, findFault, findFlags, place } from "./crop.js";
import { Detector } from "./detector.js";
import { MAX_PIXELS, MIN_SIDE, takeCentralSquare, takeSquare, toInput, toPixels, toRgb } from "./images.js";
import * as cards from "./model.js";

const BATCH = 64; // faces run at once
const GOLDEN = 8; // faces, side by side in a strip
const GOLDEN_TOLERANCE = 1e-3; // of a logit

/** Load a model with its card and a detector; resolves to a Model.
 *
 * Addresses are relative to this file. card, detectorCard: by default the file's, with ".json". labels: a name that
 * `labelSets` lists, by default the model's own. adapted: apply the card's adaptation, if it has one. Rejects with an
 * Error if a file is missing or is not that of its card, or the labels do not fit the model.
 */
export async function load({
  model,
  card = `${model}.json`,
  detector = "models/blazeface-full.onnx",
  detectorCard = detector.replace(/\.onnx$/, ".json"),
  runtime = "runtime/ort.wasm.min.mjs",
  labels,
  adapted = true,
}) {
  const [file, text, detectorFile, detectorText, ort] = await Promise.all([
    fetchBytes(model),
    fetchText(card),
    fetchBytes(detector),
    fetchText(detectorCard),
    importRuntime(runtime),
  ]);
  const known = await cards.readCard(text, file, model);
  const finder = JSON.parse(detectorText);
  await cards.checkFile(finder, detectorFile, detector);
  const classify = await openSession(ort, file);
  const find = await openSession(ort, detectorFile);
  const opened = new Model(known, finder, classify, find, ort);
  opened.configure({ labels, adapted });
  return opened;
}

const resolve = (address) => new URL(address, import.meta.url).href;

async function get(address) {
  const response = await fetch(resolve(address));
  if (!response.ok) throw new Error(`${address} cannot be loaded: ${response.status} ${response.statusText}`);
  return response;
}

const fetchBytes = async (address) => new Uint8Array(await (await get(address)).arrayBuffer());
const fetchText = async (address) => (await get(address)).text();

async function importRuntime(address) {
  const ort = await import(resolve(address));
  ort.env.wasm.numThreads = 1; // threads need cross-origin isolation, and such small networks gain nothing
  ort.env.wasm.wasmPaths = resolve(address.slice(0, address.lastIndexOf("/") + 1));
  ort.env.logLevel = "fatal";
  return ort;
}

const openSession = (ort, file) =>
  ort.InferenceSession.create(file, { executionProviders: ["wasm"], graphOptimizationLevel: "all", logSeverityLevel: 4 });

/** Resolve to the ImageData of a picture, a Blob; upright, with the pixels as they are stored.
 *
 * Rejects if it cannot be decoded, or has more pixels than a face can be looked for in.
 */
export async function decodeImage(blob) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, options);
  } catch {
    throw new Error("this file cannot be read as a picture; expected PNG, JPEG, WebP or BMP");
  }
  const { width, height } = bitmap;
  checkSize(width, height);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

/** An open model; its calls may not overlap. */
class Model {
  constructor(card, detectorCard, classify, find, ort) {
    this.card = card;
    this.ort = ort;
    this.framing = detectorCard.box;
    this.session = classify;
    this.detector = new Detector(detectorCard, async (batch) => {
      const side = detectorCard.input_size;
      const { boxes, scores } = await find.run({ image: new ort.Tensor("float32", batch, [1, 3, side, side]) });
      return { boxes: boxes.data, scores: scores.data };
    });
  }

  /** The names of the label sets that the model can report in, its own first. */
  get labelSets() {
    return cards.listLabelSets(this.card);
  }

  /** The emotions that are reported. */
  get labels() {
    return this.reported.labels;
  }

  /** Choose the label set, and whether the card's adaptation is applied; throws for labels that do not fit. */
  configure({ labels = this.card.label_set, adapted = true }) {
    const reported = cards.mapLabels(this.card, labels);
    if (!reported) throw new Error(`unknown label set ${labels}; known: ${this.labelSets.join(", ")}`);
    this.reported = reported;
    this.adapted = adapted;
  }

  /** Find the faces of an upright image, an ImageData, and predict the emotion of each; the highest score first.
   *
   * augment: average the probabilities of three crops of each face, of different sizes. Resolves to { width, height,
   * faces, left_out } with the keys of `edgeemo predict --json`.
   */
  async faces(imageData, { augment = true } = {}) {
    const image = readImage(imageData);
    const { width, height } = image;
    const scales = augment ? AUGMENTED : [1];
    const left_out = [];
    const kept = [];
    for (const face of await this.detector.detect(image)) {
      const square = place(face, this.card.input, this.framing);
      const fault = findFault(square, width, height);
      if (fault) left_out.push(fault);
      else kept.push({ face, square });
    }
    const crops = kept.flatMap(({ square }) => scales.map((scale) => crop(image, square, this.card.input, scale)));
    const rows = await this.computeProbabilities(crops);
    const faces = kept.map(({ face, square }, k) => ({
      ...face,
      ...this.predictFrom(cards.average(rows.slice(k * scales.length, (k + 1) * scales.length))),
      flags: findFlags(face, square, width, height, this.card.input),
    }));
    return { width, height, faces, left_out };
  }

  /** Predict the emotion of one ready crop, an ImageData that the face fills. */
  async predict(imageData) {
    const pixels = toPixels(takeCentralSquare(readImage(imageData)), this.card.input);
    return this.predictFrom((await this.computeProbabilities([pixels]))[0]);
  }

  /** Compare the logits of the packaged synthetic faces with those in the card, on this device and in this browser.
   *
   * Resolves to { largest, passed }, the largest difference of a logit; null if the card has none, or for other faces.
   */
  async check(address = "models/faces.png") {
    const { golden, input } = this.card;
    const file = await fetchBytes(address);
    if (!golden || golden.faces_sha256 !== (await cards.hash(file))) return null;
    const strip = readImage(await decodeImage(new Blob([file], { type: "image/png" })));
    const side = strip.height;
    const faces = Array.from({ length: GOLDEN }, (_, k) => toPixels(takeSquare(strip, k * side, 0, side), input));
    const found = (await this.computeLogits(faces)).flatMap((row) => Array.from(row));
    const largest = Math.max(...golden.logits.flat().map((logit, k) => Math.abs(logit - found[k])));
    return { largest, passed: largest <= GOLDEN_TOLERANCE };
  }

  predictFrom(probabilities) {
    return cards.makePrediction(probabilities, this.labels, cards.getLeastProbability(this.card, this.adapted));
  }

  async computeProbabilities(pixels) {
    const logits = await this.computeLogits(pixels);
    return logits.map((row) => cards.toProbabilities(row, this.card, this.reported, this.adapted));
  }

  async computeLogits(pixels) {
    const { size, mean } = this.card.input;
    const rows = [];
    for (let start = 0; start < pixels.length; start += BATCH) {
      const batch = pixels.slice(start, start + BATCH);
      const values = toInput(batch, this.card.input);
      const tensor = new this.ort.Tensor("float32", values, [batch.length, mean.length, size, size]);
      const output = await this.session.run({ [this.session.inputNames[0]]: tensor });
      const { data, dims } = output[this.session.outputNames[0]];
      if (dims[1] !== this.card.labels.length) throw new Error("the model's outputs are not those of its card");
      if (!data.every(Number.isFinite)) throw new Error("the model returned no finite logits");
      for (let k = 0; k < batch.length; k++) rows.push(data.slice(k * dims[1], (k + 1) * dims[1]));
    }
    return rows;
  }
}

function readImage(imageData) {
  checkSize(imageData.width, imageData.height);
  return toRgb(imageData);
}

function checkSize(width, height) {
  if (width * height > MAX_PIXELS) throw new Error(`${width}x${height} pixels; the limit is ${MAX_PIXELS}`);
  if (Math.min(width, height) < MIN_SIDE) {
    throw new Error(`image is ${width}x${height} px; a face needs at least ${MIN_SIDE} px a side`);
  }
}
