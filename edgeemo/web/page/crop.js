// The crop around a detected face, as edgeemo/faces/crop.py takes it, and the flags of edgeemo/faces/quality.py.
//
// A face is { box: [x, y, width, height], score, landmarks: [[x, y], ...] } in pixels of the image, the eyes first, the
// person's right one before the left. framing is the key `box` of the detector's card, null if it is not known.

import { MIN_SIDE, takeSquare, toPixels } from "./images.js";

export const AUGMENTED = [0.9, 1, 1.2]; // sides of the crops whose probabilities are averaged
export const FACE_CROP = { side_eye_distances: 2.8, below_eyes: 0.3, turn_from_degrees: 10 }; // of cards without `crop`
const MAX_CROP = 7094; // pixels a side
const MIN_EYE_SHARE = 0.6; // eyes closer together than this share of what the box implies: a head turned sideways
const SMALL = 2 / 3; // of the side of the input, or of MEASURED_SIDE if that is less
const MEASURED_SIDE = 48; // pixels
const MAX_TILT = 40; // degrees
const MAX_SKEW = 10; // degrees between the axes of eyes and mouth
const CLIPPED = 0.25; // share of the square outside the image
const CLIPPED_BELOW = 0.3; // share of its lower half outside the image
const GRID = 32; // samples a side, to count how much of a square lies outside
const MOUTH = { 5: [3, 4], 6: [3] }; // by number of landmarks

const toRadians = (degrees) => degrees * (Math.PI / 180);
const toDegrees = (radians) => radians * (180 / Math.PI);
const computeTilt = ([right, left]) => toDegrees(Math.atan2(left[1] - right[1], left[0] - right[0]));

/** Return the square around a face: { centre, side, degrees }; degrees is the tilt that turning removes. */
export function place(face, contract, framing) {
  const wanted = contract.crop ?? FACE_CROP;
  const { eyes, implied } = findEyes(face, framing);
  const [right, left] = eyes;
  const distance = Math.max(Math.hypot(left[0] - right[0], left[1] - right[1]), MIN_EYE_SHARE * implied);
  if (!(distance > 0 && Number.isFinite(distance))) throw new Error("expected two eyes and a box with a size");
  const tilt = computeTilt(eyes);
  const below = wanted.below_eyes * distance;
  const down = [-Math.sin(toRadians(tilt)), Math.cos(toRadians(tilt))];
  return {
    centre: [0, 1].map((axis) => (right[axis] + left[axis]) / 2 + below * down[axis]),
    side: wanted.side_eye_distances * distance,
    degrees: Math.abs(tilt) > wanted.turn_from_degrees ? tilt : 0,
  };
}

function findEyes({ box: [x, y, width, height], landmarks = [] }, framing) {
  const implied = framing ? Math.max(width, height) / framing.side_eye_distances : 0;
  if (landmarks.length >= 2) return { eyes: landmarks.slice(0, 2), implied };
  if (!framing) throw new Error("a face needs eyes, or a detector whose boxes are known");
  const middle = x + width / 2;
  const line = y + height / 2 - framing.below_eyes * implied;
  return { eyes: [[middle - implied / 2, line], [middle + implied / 2, line]], implied }; // prettier-ignore
}

/** Return why a square cannot be cut out of an image, or "" if it can. */
export function findFault({ centre: [x, y], side }, width, height) {
  const whole = Math.floor(side + 0.5);
  if (!(MIN_SIDE <= whole && whole <= MAX_CROP)) {
    return `the face gives a square of ${side.toFixed(0)} px; expected ${MIN_SIDE} to ${MAX_CROP}`;
  }
  const reach = side / 2;
  const inside = -reach < x && x < width + reach && -reach < y && y < height + reach;
  return inside ? "" : `the face at ${x.toFixed(0)}, ${y.toFixed(0)} lies outside the image of ${width}x${height} px`;
}

/** Return the face of a square as the card's input has it; scale: of the square's side. */
export function crop(image, square, contract, scale = 1) {
  const side = scale === 1 ? square.side : Math.min(Math.max(square.side * scale, MIN_SIDE), MAX_CROP);
  return toPixels(extract(image, { ...square, side }, contract.size), contract);
}

/** Return a square upright, ready to be resized to `size` px. */
export function extract(image, square, size) {
  if (square.degrees) return turn(image, square, size);
  const side = Math.floor(square.side + 0.5);
  const [left, top] = square.centre.map((middle) => Math.floor(middle - side / 2 + 0.5));
  return takeSquare(image, left, top, side);
}

/** Sample a square upright: bilinear, as Pillow's affine transform of float pixels, then rounded to 8 bits. */
function turn(image, square, size) {
  const side = size * Math.max(1, Math.ceil(square.side / size));
  const reach = Math.ceil((square.side * Math.SQRT2) / 2) + 2;
  const [left, top] = square.centre.map((middle) => Math.floor(middle) - reach);
  const around = takeSquare(image, left, top, 2 * reach + 1);
  const step = square.side / side;
  const across = step * Math.cos(toRadians(square.degrees));
  const down = step * Math.sin(toRadians(square.degrees));
  const half = side / 2;
  const x = square.centre[0] - left - half * (across - down);
  const y = square.centre[1] - top - half * (down + across);
  const { channels } = image;
  const out = new Uint8Array(side * side * channels);
  for (let row = 0, to = 0; row < side; row++) {
    for (let column = 0; column < side; column++, to += channels) {
      const atX = across * (column + 0.5) - down * (row + 0.5) + x;
      const atY = down * (column + 0.5) + across * (row + 0.5) + y;
      sample(around, atX - 0.5, atY - 0.5, out, to);
    }
  }
  return { data: out, width: side, height: side, channels };
}

/** Interpolate between the four pixels around a place, which lies at least a pixel inside the image. */
function sample({ data, width, channels }, x, y, out, to) {
  const column = Math.floor(x);
  const row = Math.floor(y);
  const dx = x - column;
  const dy = y - row;
  const upper = (row * width + column) * channels;
  const lower = upper + width * channels;
  for (let band = 0; band < channels; band++) {
    const first = data[upper + band] + (data[upper + channels + band] - data[upper + band]) * dx;
    const second = data[lower + band] + (data[lower + channels + band] - data[lower + band]) * dx;
    out[to + band] = Math.floor(Math.fround(Math.fround(first + (second - first) * dy) + 0.5));
  }
}

/** Return the flags of a face in an image: small, tilted, clipped, in this order. */
export function findFlags(face, square, width, height, contract) {
  const flags = {
    small: square.side < SMALL * Math.min(contract.size, MEASURED_SIDE),
    tilted: isTilted(face),
    clipped: isClipped(square, width, height),
  };
  return Object.keys(flags).filter((name) => flags[name]);
}

function isTilted({ landmarks = [] }) {
  if (landmarks.length < 2) return false;
  const eyes = landmarks.slice(0, 2);
  const tilt = computeTilt(eyes);
  if (Math.abs(tilt) > MAX_TILT) return true;
  if (!(landmarks.length in MOUTH)) return false;
  const mouth = findMiddle(MOUTH[landmarks.length].map((number) => landmarks[number]));
  const middle = findMiddle(eyes);
  const axis = toDegrees(Math.atan2(middle[0] - mouth[0], mouth[1] - middle[1]));
  const turned = (((axis - tilt + 180) % 360) + 360) % 360; // never negative, as in Python
  return Math.abs(turned - 180) > MAX_SKEW;
}

const findMiddle = (points) => [0, 1].map((axis) => points.reduce((sum, one) => sum + one[axis], 0) / points.length);

function isClipped({ centre: [x, y], side, degrees }, width, height) {
  const reach = side / Math.SQRT2;
  if (reach <= x && x <= width - reach && reach <= y && y <= height - reach) return false;
  const cosine = Math.cos(toRadians(degrees));
  const sine = Math.sin(toRadians(degrees));
  let outside = 0;
  let below = 0;
  for (let row = 0; row < GRID; row++) {
    for (let column = 0; column < GRID; column++) {
      const across = ((column + 0.5) / GRID - 0.5) * side;
      const down = ((row + 0.5) / GRID - 0.5) * side;
      const atX = x + across * cosine - down * sine;
      const atY = y + across * sine + down * cosine;
      if (atX >= 0 && atX < width && atY >= 0 && atY < height) continue;
      outside++;
      if (row >= GRID / 2) below++;
    }
  }
  return outside / GRID ** 2 > CLIPPED || below / (GRID ** 2 / 2) > CLIPPED_BELOW;
}
