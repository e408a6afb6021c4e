// An image on a canvas, with a numbered box around each face.

const LONGEST = 1600; // pixels of the canvas; larger photos are shown smaller
const FONT = 16; // pixels on the screen

/** Draw an image, an ImageData, and its faces. */
export function draw(canvas, image, faces) {
  const scale = Math.min(1, LONGEST / Math.max(image.width, image.height));
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  const context = canvas.getContext("2d");
  if (scale === 1) context.putImageData(image, 0, 0);
  else drawSmaller(context, image, canvas);
  const unit = canvas.width / (canvas.clientWidth || canvas.width); // pixels of the canvas per pixel of the screen
  faces.forEach((face, number) => drawBox(context, face, number + 1, scale, unit));
}

function drawSmaller(context, image, canvas) {
  const whole = new OffscreenCanvas(image.width, image.height);
  whole.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(whole, 0, 0, canvas.width, canvas.height);
}

/** A white line in a black one, which stand out from any image; dashed if the prediction is unsure. */
function drawBox(context, { box, label, unsure }, number, scale, unit) {
  const [x, y, width, height] = box.map((value) => value * scale);
  context.setLineDash([]);
  context.lineWidth = 4 * unit;
  context.strokeStyle = "#000000";
  context.strokeRect(x, y, width, height);
  context.setLineDash(unsure ? [8 * unit, 6 * unit] : []);
  context.lineWidth = 2 * unit;
  context.strokeStyle = "#ffffff";
  context.strokeRect(x, y, width, height);
  const text = `${number} ${label}${unsure ? "?" : ""}`;
  const size = FONT * unit;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const wide = context.measureText(text).width + size * 0.6;
  const tall = size * 1.4;
  const left = Math.min(Math.max(0, x), Math.max(0, context.canvas.width - wide));
  const top = y - tall >= 0 ? y - tall : Math.max(0, Math.min(y, context.canvas.height - tall));
  context.fillStyle = "#000000";
  context.fillRect(left, top, wide, tall);
  context.fillStyle = "#ffffff";
  context.textBaseline = "middle";
  context.fillText(text, left + size * 0.3, top + tall / 2);
}
