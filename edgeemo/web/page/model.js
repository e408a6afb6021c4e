// The card of a model: its checks, and what becomes of the logits; docs/card.md has every step.

const FORMAT = 2;
const CHANNELS = { gray: 1, rgb: 3, gray3: 3 };

// Label sets that a model may report in, as edgeemo/labels.py has them; merged: the label that gets another's votes.
export const LABEL_SETS = {
  ferplus8: {
    labels: ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"],
    merged: {},
  },
  seven: {
    labels: ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear"],
    merged: { contempt: "neutral" },
  },
  six: {
    labels: ["neutral", "happiness", "surprise", "sadness", "anger", "fear"],
    merged: { disgust: "anger", contempt: "neutral" },
  },
};

/** Return JSON as RFC 8785 writes it: sorted keys, no white space. */
export function canonicalize(value) {
  if (Array.isArray(value)) return `[${value.map(canonicalize)}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonicalize(value[key])}`)}}`; // prettier-ignore
}

/** Resolve to the hex SHA-256 of bytes; rejects where the browser does not hash, on pages without HTTPS. */
export async function hash(bytes) {
  const { subtle } = globalThis.crypto ?? {};
  if (!subtle) {
    throw new Error("this page must be opened over HTTPS, or from localhost: browsers check files and open cameras there only");
  }
  return Array.from(new Uint8Array(await subtle.digest("SHA-256", bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Resolve to the card in a text; rejects another format, a changed card, or the card of another file. */
export async function readCard(text, file, name) {
  const card = JSON.parse(text);
  if (card.format !== FORMAT) throw new Error(`${name}: card format ${card.format}; expected ${FORMAT}`);
  const { seal, ...rest } = card;
  if (seal !== (await hash(new TextEncoder().encode(canonicalize(rest))))) {
    throw new Error(`${name}: the card was changed after it was written`);
  }
  await checkFile(card, file, name);
  const { mean, std, colour } = card.input;
  if (mean.length !== CHANNELS[colour] || std.length !== mean.length) {
    throw new Error(`${name}: expected mean and std of ${CHANNELS[colour]} channels for ${colour}`);
  }
  if (card.adaptation && card.adaptation.model_sha256 !== card.sha256) {
    throw new Error(`${name}: the adaptation was fitted on another model`);
  }
  return card;
}

/** Reject a file that is not the one of a card, by its SHA-256. */
export async function checkFile(card, file, name) {
  const found = await hash(file);
  if (found !== card.sha256) {
    throw new Error(`${name} is not the file of its card: expected ${card.sha256.slice(0, 12)}…, got ${found.slice(0, 12)}…`);
  }
}

/** Return the names of the label sets that a card's model can report in, its own first. */
export function listLabelSets(card) {
  const others = Object.keys(LABEL_SETS).filter((name) => name !== card.label_set && mapLabels(card, name));
  return [card.label_set, ...others];
}

/** Return { labels, positions }: of each label of the model, its position in a label set; null if it does not fit. */
export function mapLabels(card, name) {
  if (name === card.label_set) return { labels: card.labels, positions: card.labels.map((_, k) => k) };
  const { labels, merged } = LABEL_SETS[name] ?? { labels: [], merged: {} };
  const positions = card.labels.map((label) => labels.indexOf(labels.includes(label) ? label : merged[label]));
  const fits = !positions.includes(-1) && labels.every((_, k) => positions.includes(k));
  return fits ? { labels, positions } : null;
}

/** Return logits with the card's adaptation: matrix @ logits + bias. */
function adapt(logits, { matrix, bias }) {
  return matrix.map((row, k) => row.reduce((sum, factor, j) => sum + factor * logits[j], 0) + bias[k]);
}

/** Return the probabilities of merged labels from the logits of one face, at the card's temperature. */
export function toProbabilities(logits, card, { labels, positions }, adapted = true) {
  const changed = adapted && card.adaptation ? adapt(logits, card.adaptation) : Array.from(logits);
  const scaled = changed.map((logit) => logit / card.temperature);
  const most = Math.max(...scaled);
  const powers = scaled.map((value) => Math.exp(value - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  const probabilities = labels.map(() => 0);
  powers.forEach((power, k) => (probabilities[positions[k]] += power / sum));
  return probabilities;
}

/** Return the mean of several lists of probabilities. */
export function average(rows) {
  return rows[0].map((_, k) => rows.reduce((sum, row) => sum + row[k], 0) / rows.length);
}

/** Return the probability below which a prediction is unsure; null if the card has no threshold. */
export function getLeastProbability(card, adapted = true) {
  const answers = card.adaptation && !adapted ? card.adaptation.answers_before : card.answers;
  return answers ? answers.least_probability : null;
}

/** Return { label, probability, probabilities, unsure }; probabilities: by label, the most probable first. */
export function makePrediction(probabilities, labels, least) {
  const ranked = labels.map((label, k) => [label, probabilities[k]]).sort((one, other) => other[1] - one[1]);
  const [label, probability] = ranked[0];
  return { label, probability, probabilities: Object.fromEntries(ranked), unsure: least === null ? null : probability < least };
}
