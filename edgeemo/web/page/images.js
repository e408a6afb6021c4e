// From an image to the pixels and the input that a card defines, as edgeemo/images.py makes them with Pillow.
//
// An image is { data, width, height, channels }: 8-bit values row by row, red first; channels is 1 (gray) or 3 (RGB).

export const MIN_SIDE = 16; // pixels; below it no expression is recognisable
export const MAX_PIXELS = 9280 * 6944; // a 64-megapixel phone photo
const MID_GREY = 128; // background of transparent pixels
const BITS = 22; // Pillow: fixed-point precision of the coefficients for 8-bit images

/** Return the RGB image of an ImageData; transparent pixels are blended with mid-grey, as Pillow's alpha_composite. */
export function toRgb({ data, width, height }) {
  const out = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < out.length; from += 4, to += 3) {
    const alpha = data[from + 3];
    const opaque = alpha === 255;
    out[to] = opaque ? data[from] : blend(data[from], alpha);
    out[to + 1] = opaque ? data[from + 1] : blend(data[from + 1], alpha);
    out[to + 2] = opaque ? data[from + 2] : blend(data[from + 2], alpha);
  }
  return { data: out, width, height, channels: 3 };
}

function blend(value, alpha) {
  const sum = (value * alpha + MID_GREY * (255 - alpha) + 128) << 7;
  return (((sum >> 8) + sum) >> 8) >> 7;
}

/** Return an image as gray, ITU-R 601 as in Pillow's mode L. */
export function toGray(image) {
  if (image.channels === 1) return image;
  const { data, width, height } = image;
  const out = new Uint8Array(width * height);
  for (let to = 0, from = 0; to < out.length; to++, from += 3) {
    out[to] = (19595 * data[from] + 38470 * data[from + 1] + 7471 * data[from + 2] + 32768) >> 16;
  }
  return { data: out, width, height, channels: 1 };
}

/** Resize the part `box` (left, top, right, bottom) of an image: Pillow's Image.resize with BILINEAR.
 *
 * reducingGap: first average down by whole factors to at least this many times the new size; 0: do not.
 */
export function resize(image, width, height, box = [0, 0, image.width, image.height], reducingGap = 0) {
  if (reducingGap) {
    const x = Math.floor((box[2] - box[0]) / width / reducingGap) || 1;
    const y = Math.floor((box[3] - box[1]) / height / reducingGap) || 1;
    if (x > 1 || y > 1) {
      const safe = findSafeBox(image, width, height, box);
      image = reduce(image, x, y, safe);
      box = [(box[0] - safe[0]) / x, (box[1] - safe[1]) / y, (box[2] - safe[0]) / x, (box[3] - safe[1]) / y];
    }
  }
  const [left, top, right, bottom] = box.map(Math.fround);
  const whole = left === 0 && top === 0;
  const across = whole && right === image.width && width === image.width;
  const down = whole && bottom === image.height && height === image.height;
  const rows = computeCoefficients(image.height, top, bottom, height);
  let result = image;
  if (!across) {
    const first = rows.starts[0];
    const last = rows.starts[height - 1] + rows.counts[height - 1];
    result = resampleRows(image, computeCoefficients(image.width, left, right, width), width, first, last);
    rows.starts = rows.starts.map((start) => start - first);
  }
  return down ? result : resampleColumns(result, rows, height);
}

/** Return the part of an image that the filter reads, in whole pixels: Pillow's Image._get_safe_box. */
function findSafeBox(image, width, height, [left, top, right, bottom]) {
  const x = (0.5 * (right - left)) / width;
  const y = (0.5 * (bottom - top)) / height;
  return [
    Math.max(0, Math.trunc(left - x)),
    Math.max(0, Math.trunc(top - y)),
    Math.min(image.width, Math.ceil(right + x)),
    Math.min(image.height, Math.ceil(bottom + y)),
  ];
}

/** Average blocks of x × y pixels of a part of an image; blocks at its right and lower edge may be smaller. */
export function reduce(image, x, y, [left, top, right, bottom]) {
  const { data, width: stride, channels } = image;
  const width = Math.ceil((right - left) / x);
  const height = Math.ceil((bottom - top) / y);
  const out = new Uint8Array(width * height * channels);
  for (let row = 0, to = 0; row < height; row++) {
    const firstRow = top + row * y;
    const lastRow = Math.min(firstRow + y, bottom);
    for (let column = 0; column < width; column++) {
      const first = left + column * x;
      const last = Math.min(first + x, right);
      const count = (lastRow - firstRow) * (last - first);
      const multiplier = Math.trunc(Math.fround(2 ** 24 / count));
      for (let band = 0; band < channels; band++) {
        let sum = count >> 1;
        for (let inner = firstRow; inner < lastRow; inner++) {
          const end = (inner * stride + last) * channels + band;
          for (let from = (inner * stride + first) * channels + band; from < end; from += channels) sum += data[from];
        }
        out[to++] = Math.floor((sum * multiplier) / 2 ** 24);
      }
    }
  }
  return { data: out, width, height, channels };
}

/** Return for each output pixel the first input pixel, how many count, and their weights of BITS bits. */
function computeCoefficients(size, low, high, outputs) {
  const scale = Math.fround(high - low) / outputs; // a C float, as the box is
  const reach = Math.max(scale, 1);
  const most = 2 * Math.ceil(reach) + 1;
  const starts = new Int32Array(outputs);
  const counts = new Int32Array(outputs);
  const weights = new Int32Array(outputs * most);
  const exact = new Float64Array(most);
  for (let output = 0; output < outputs; output++) {
    const centre = low + (output + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const count = Math.min(size, Math.trunc(centre + reach + 0.5)) - start;
    let sum = 0;
    for (let k = 0; k < count; k++) {
      exact[k] = Math.max(0, 1 - Math.abs((k + start - centre + 0.5) * (1 / reach)));
      sum += exact[k];
    }
    for (let k = 0; k < count; k++) {
      const weight = sum ? exact[k] / sum : exact[k];
      weights[output * most + k] = Math.trunc(weight * (1 << BITS) + 0.5);
    }
    starts[output] = start;
    counts[output] = count;
  }
  return { starts, counts, weights, most };
}

/** Resample rows `first` to `last` of an image to a new width. */
function resampleRows(image, { starts, counts, weights, most }, width, first, last) {
  const { data, width: stride, channels } = image;
  const out = new Uint8ClampedArray(width * (last - first) * channels);
  for (let row = first, to = 0; row < last; row++) {
    for (let column = 0; column < width; column++) {
      const begin = column * most;
      const end = begin + counts[column];
      const from = (row * stride + starts[column]) * channels;
      for (let band = 0; band < channels; band++) {
        let sum = 1 << (BITS - 1);
        for (let k = begin, at = from + band; k < end; k++, at += channels) sum += data[at] * weights[k];
        out[to++] = sum >> BITS;
      }
    }
  }
  return { data: out, width, height: last - first, channels };
}

function resampleColumns(image, { starts, counts, weights, most }, height) {
  const { data, width, channels } = image;
  const stride = width * channels;
  const out = new Uint8ClampedArray(stride * height);
  for (let row = 0, to = 0; row < height; row++) {
    const begin = row * most;
    const end = begin + counts[row];
    const from = starts[row] * stride;
    for (let column = 0; column < stride; column++) {
      let sum = 1 << (BITS - 1);
      for (let k = begin, at = from + column; k < end; k++, at += stride) sum += data[at] * weights[k];
      out[to++] = sum >> BITS;
    }
  }
  return { data: out, width, height, channels };
}

/** Return the square of whole pixels from column `left` and row `top`; outside, the nearest pixel is repeated. */
export function takeSquare(image, left, top, side) {
  const { data, width, height, channels } = image;
  const out = new Uint8Array(side * side * channels);
  for (let row = 0, to = 0; row < side; row++) {
    const line = Math.min(Math.max(top + row, 0), height - 1) * width;
    for (let column = 0; column < side; column++) {
      const from = (line + Math.min(Math.max(left + column, 0), width - 1)) * channels;
      for (let band = 0; band < channels; band++) out[to++] = data[from + band];
    }
  }
  return { data: out, width: side, height: side, channels };
}

/** Return the largest central square of a ready crop. */
export function takeCentralSquare(image) {
  const side = Math.min(image.width, image.height);
  return takeSquare(image, Math.floor((image.width - side) / 2), Math.floor((image.height - side) / 2), side);
}

/** Convert and resize a square to the pixels of the card's `input`: size × size, 1 or 3 channels. */
export function toPixels(square, contract) {
  const { size } = contract;
  const coloured = contract.colour === "rgb" ? repeatGray(square) : toGray(square);
  const pixels = coloured.width === size ? coloured : resize(coloured, size, size);
  return contract.colour === "gray3" ? repeatGray(pixels) : pixels;
}

function repeatGray(image) {
  if (image.channels === 3) return image;
  const out = new Uint8Array(3 * image.data.length);
  for (let k = 0; k < out.length; k++) out[k] = image.data[Math.floor(k / 3)];
  return { ...image, data: out, channels: 3 };
}

/** Normalise faces from `toPixels` to the model's input, (N, channels, size, size) as a Float32Array. */
export function toInput(faces, contract) {
  const area = contract.size ** 2;
  const channels = contract.mean.length;
  const values = new Float32Array(faces.length * channels * area);
  const scale = Math.fround(1 / 255);
  faces.forEach((face, number) => {
    for (let band = 0; band < channels; band++) {
      const mean = Math.fround(contract.mean[band]);
      const std = Math.fround(contract.std[band]);
      const to = (number * channels + band) * area;
      for (let k = 0; k < area; k++) {
        const centred = Math.fround(Math.fround(face.data[k * channels + band] * scale) - mean);
        values[to + k] = centred / std;
      }
    }
  });
  return values;
}
