// From an image to the faces in it: edgeemo/faces/search.py with passes.py, merge.py and blazeface.py.
//
// A candidate is an array [x, y, width, height, score, x, y, ...]: a box, its score and six landmarks.

import { resize } from "./images.js";

const DOUBTFUL = 0.5; // part of the threshold; boxes with a score between the two are looked at once more, from closer
const CERTAIN = 0.7; // score; boxes between the threshold and it are looked at once more, too
const CONFIRMED = 0.9; // part of the threshold that the mean of their two scores must reach
const MOST_DOUBTFUL = 4;
const MOST_UNCERTAIN = 8;
const ZOOM = 3; // sides of a doubtful box in the part that is looked at once more
const TILE_FACE = 48; // pixels of the smallest face that tiles are made for
const MAX_TILES = 36;
const OVERLAP = 0.25; // of a tile with the next one
const REDUCING_GAP = 2; // an image is first averaged down to twice the canvas
const MAX_IOU = 0.3; // above it, two boxes are one face
const MAX_COVERED = 0.5; // part of a box that lies in another one, where a tile cuts either
const MAX_NESTED = 0.7; // part of a box that lies in a larger one
const CLEARLY = 0.2; // of a score
const TINY = 1e-9; // instead of an area of 0
const STRIDE = 4; // pixels of the canvas between the anchors of BlazeFace

/** Finds the faces of a whole image. */
export class Detector {
  /** card: of the detector. run: takes a batch of one canvas, a Float32Array; resolves to { boxes, scores }. */
  constructor(card, run) {
    this.card = card;
    this.run = run;
  }

  /** Resolve to the faces of an RGB image as { box, score, landmarks }, the highest score first. */
  async detect(image) {
    const { threshold } = this.card;
    const least = threshold * DOUBTFUL;
    const faces = await this.search(image, planPasses(image.width, image.height, this.card), least);
    const sure = faces.map((face) => face[4] >= threshold);
    const uncertain = [];
    const doubtful = [];
    for (const k of faces.keys()) {
      if (!sure[k]) doubtful.push(k);
      else if (faces[k][4] < CERTAIN) uncertain.push(k);
    }
    uncertain.splice(MOST_UNCERTAIN);
    doubtful.splice(MOST_DOUBTFUL);
    const closer = [...uncertain, ...doubtful].map((k) => zoom(faces[k], image.width, image.height));
    let found = faces.filter((_, k) => sure[k]);
    if (closer.length) {
      const seen = await this.search(image, closer, least);
      for (const k of uncertain) sure[k] = (faces[k][4] + findScore(faces[k], seen)) / 2 >= threshold * CONFIRMED;
      found = [...faces.filter((_, k) => sure[k]), ...seen.filter((face) => face[4] >= threshold)];
      found = merge(found, found.map((face) => face.slice(0, 4)), found.map(() => false)); // prettier-ignore
    }
    return dropNested(found).map((face) => ({
      box: face.slice(0, 4),
      score: face[4],
      landmarks: Array.from({ length: (face.length - 5) / 2 }, (_, k) => face.slice(5 + 2 * k, 7 + 2 * k)),
    }));
  }

  async search(image, passes, least) {
    const candidates = [];
    const parts = [];
    const cut = [];
    for (const one of passes) {
      const canvas = drawCanvas(image, one, this.card.input_size);
      const { boxes, scores } = await this.run(toBatch(canvas.pixels));
      for (const raw of decode(boxes, scores, least, this.card.input_size)) {
        const candidate = toImage(raw, canvas);
        candidates.push(candidate);
        parts.push(clip(candidate, one));
        cut.push(isCut(candidate, one, image.width, image.height));
      }
    }
    return merge(candidates, parts, cut);
  }
}

/** Return the pass around a doubtful box, inside the image. */
function zoom(face, imageWidth, imageHeight) {
  const side = ZOOM * Math.max(face[2], face[3]);
  const x = face[0] + face[2] / 2;
  const y = face[1] + face[3] / 2;
  const left = Math.max(0, Math.floor(x - side / 2));
  const top = Math.max(0, Math.floor(y - side / 2));
  return {
    left: Math.min(left, imageWidth - 1),
    top: Math.min(top, imageHeight - 1),
    width: Math.max(1, Math.min(imageWidth, Math.ceil(x + side / 2)) - left),
    height: Math.max(1, Math.min(imageHeight, Math.ceil(y + side / 2)) - top),
    share: 1,
  };
}

/** Return the highest score of what was seen where a face is, 0 if nothing was. */
function findScore(face, seen) {
  return Math.max(0, ...seen.filter((one) => computeIou(face, one) > MAX_IOU).map((one) => one[4]));
}

/** Return the parts of an image to search: { left, top, width, height, share }, share of the canvas that each fills. */
export function planPasses(width, height, { smallest_face: smallest, half_pass: half }) {
  const whole = (half ? [1, 0.5] : [1]).map((share) => ({ left: 0, top: 0, width, height, share }));
  const longer = Math.max(width, height);
  if (smallest * longer <= TILE_FACE) return whole;
  let side = Math.min(TILE_FACE / smallest, longer / (2 - OVERLAP));
  while (countTiles(width, side) * countTiles(height, side) > MAX_TILES) side *= 1.02;
  return [...whole, ...makeTiles(width, height, Math.min(Math.ceil(side), longer))];
}

function makeTiles(width, height, side) {
  const columns = spread(width, side);
  const size = { width: Math.min(side, width), height: Math.min(side, height), share: 1 };
  return spread(height, side).flatMap((top) => columns.map((left) => ({ left, top, ...size })));
}

function spread(length, side) {
  const count = countTiles(length, side);
  return Array.from({ length: count }, (_, k) => (count > 1 ? round((k * (length - side)) / (count - 1)) : 0));
}

function countTiles(length, side) {
  return side >= length ? 1 : Math.ceil((length / side - OVERLAP) / (1 - OVERLAP) - 1e-9);
}

/** Round to a whole number, halves to the even one, as Python does. */
function round(value) {
  const below = Math.floor(value);
  if (value - below === 0.5) return below % 2 ? below + 1 : below;
  return Math.round(value);
}

/** Resize a pass of an image onto a black canvas of side × side px: { pixels, scale, corner }. */
export function drawCanvas(image, { left, top, width, height, share }, side) {
  const fit = (side * share) / Math.max(width, height);
  const [across, down] = [width, height].map((length) => Math.max(1, round(length * fit)));
  const part = resize(image, across, down, [left, top, left + width, top + height], REDUCING_GAP);
  const x = Math.floor((side - across) / 2);
  const y = Math.floor((side - down) / 2);
  const pixels = new Uint8Array(3 * side * side);
  for (let row = 0; row < down; row++) {
    pixels.set(part.data.subarray(3 * row * across, 3 * (row + 1) * across), 3 * ((y + row) * side + x));
  }
  const scale = [width / across, height / down];
  return { pixels, scale, corner: [left - x * scale[0], top - y * scale[1]] };
}

/** Return pixels as BlazeFace reads them: -1..1, channel by channel. */
function toBatch(pixels) {
  const area = pixels.length / 3;
  const batch = new Float32Array(pixels.length);
  const scale = Math.fround(2 / 255);
  for (let k = 0; k < area; k++) {
    for (let band = 0; band < 3; band++) batch[band * area + k] = Math.fround(pixels[3 * k + band] * scale) - 1;
  }
  return batch;
}

/** Decode the outputs of BlazeFace, (cells, 16) and (cells,), to candidates in pixels of the canvas. */
export function decode(boxes, logits, least, side) {
  const lowest = Math.fround(Math.log(least / (1 - least)));
  const cells = side / STRIDE;
  const found = [];
  logits.forEach((logit, cell) => {
    if (logit < lowest) return;
    const anchor = [((cell % cells) + 0.5) * STRIDE, (Math.floor(cell / cells) + 0.5) * STRIDE];
    const raw = boxes.subarray(16 * cell, 16 * cell + 16);
    const corner = [0, 1].map((axis) => raw[axis] + anchor[axis] - raw[2 + axis] / 2);
    const landmarks = Array.from(raw.subarray(4), (value, k) => value + anchor[k % 2]);
    found.push([...corner, raw[2], raw[3], 1 / (1 + Math.exp(-logit)), ...landmarks]);
  });
  return found;
}

/** Return a candidate on a canvas in pixels of the image. */
function toImage(candidate, { scale, corner }) {
  return candidate.map((value, k) => {
    if (k === 4) return value;
    if (k === 2 || k === 3) return value * scale[k - 2];
    const axis = k < 2 ? k : (k - 5) % 2;
    return value * scale[axis] + corner[axis];
  });
}

/** Return what is inside a pass of a candidate's box. */
function clip([x, y, width, height], one) {
  const right = one.left + one.width;
  const bottom = one.top + one.height;
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  const left = within(x, one.left, right);
  const top = within(y, one.top, bottom);
  return [left, top, within(x + width, one.left, right) - left, within(y + height, one.top, bottom) - top];
}

/** Return whether a candidate's box extends over an edge of its pass that is inside the image. */
function isCut([x, y, width, height], one, imageWidth, imageHeight) {
  const right = one.left + one.width;
  const bottom = one.top + one.height;
  return (
    (x < one.left && one.left > 0) ||
    (y < one.top && one.top > 0) ||
    (x + width > right && right < imageWidth) ||
    (y + height > bottom && bottom < imageHeight)
  );
}

/** Return one candidate per face, the highest score first; parts and cut: of `clip` and `isCut`. */
export function merge(candidates, parts, cut) {
  const whole = suppress(candidates.filter((_, k) => !cut[k]), computeIou, MAX_IOU); // prettier-ignore
  const rest = candidates.filter((_, k) => {
    const part = parts[k];
    const area = Math.max(part[2] * part[3], TINY);
    return cut[k] && whole.every((face) => intersect(part, face) / area <= MAX_COVERED);
  });
  return byScore([...whole, ...suppress(rest, computeCover, MAX_COVERED)]);
}

const byScore = (faces) => [...faces].sort((one, other) => other[4] - one[4]); // equal ones stay in order

/** Weighted non-maximum suppression: one candidate per group that overlaps by more than `most` with its best. */
function suppress(candidates, overlap, most) {
  let left = byScore(candidates);
  const faces = [];
  while (left.length) {
    const best = left[0];
    const same = left.map((one, k) => k === 0 || overlap(best, one) > most);
    const group = left.filter((_, k) => same[k]);
    const weight = group.reduce((sum, one) => sum + one[4], 0);
    const face = best.map((_, column) => group.reduce((sum, one) => sum + one[column] * one[4], 0) / weight);
    face[4] = best[4];
    faces.push(face);
    left = left.filter((_, k) => !same[k]);
  }
  return faces;
}

/** Drop one of each two faces of which the smaller lies mostly in the larger: it, unless its score is clearly higher. */
export function dropNested(faces) {
  const dropped = new Set();
  for (const smaller of faces) {
    for (const larger of faces) {
      if (!(computeCover(smaller, larger) > MAX_NESTED && getArea(smaller) < getArea(larger))) continue;
      dropped.add(smaller[4] > larger[4] + CLEARLY ? larger : smaller);
    }
  }
  return faces.filter((face) => !dropped.has(face));
}

const getArea = (box) => box[2] * box[3];

function intersect(one, other) {
  const across = Math.min(one[0] + one[2], other[0] + other[2]) - Math.max(one[0], other[0]);
  const down = Math.min(one[1] + one[3], other[1] + other[3]) - Math.max(one[1], other[1]);
  return Math.max(across, 0) * Math.max(down, 0);
}

function computeIou(one, other) {
  const shared = intersect(one, other);
  return shared / Math.max(getArea(one) + getArea(other) - shared, TINY);
}

function computeCover(one, other) {
  return intersect(one, other) / Math.max(Math.min(getArea(one), getArea(other)), TINY);
}
