// The faces as a list with a bar per label, and as text.

const FLAGS = { small: "few pixels", tilted: "tilted far", clipped: "partly outside the image" };

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const plural = (number) => `${number || "No"} ${number === 1 ? "face" : "faces"}`;

/** Return what was found as { text, short }: with probabilities, and labels alone. */
export function summarize({ faces }) {
  const name = ({ label, unsure }) => (unsure ? `unsure, perhaps ${label}` : label);
  const list = (describe) => (faces.length ? `${plural(faces.length)}: ${faces.map(describe).join("; ")}.` : "No face found.");
  return { text: list((face) => `${name(face)} ${percent(face.probability)}`), short: list(name) };
}

/** Show faces in a list, and why others were left out; items are kept, so that they do not flicker. */
export function showFaces(list, faces, leftOut, reasons) {
  while (list.children.length > faces.length) list.lastChild.remove();
  faces.forEach((face, number) => {
    const labels = Object.keys(face.probabilities).sort();
    let item = list.children[number];
    if (!item || item.dataset.labels !== labels.join()) {
      const made = makeItem(labels);
      if (item) item.replaceWith(made);
      else list.append(made);
      item = made;
    }
    fill(item, face, number + 1, labels);
  });
  leftOut.textContent = reasons.map((reason) => `1 face left out: ${reason}.`).join(" ");
  leftOut.hidden = !reasons.length;
}

function make(name, className = "", ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function makeItem(labels) {
  const bars = labels.map((label) => {
    const track = make("span", "track", make("span", "fill"));
    track.setAttribute("aria-hidden", "true");
    return make("li", "", make("span", "", label), track, make("span", "share"));
  });
  const item = make("li", "", make("h3", "", make("span"), make("span", "notes")), make("ul", "", ...bars));
  item.dataset.labels = labels.join();
  return item;
}

function fill(item, face, number, labels) {
  const [title, notes] = item.querySelector("h3").children;
  setText(title, `${number}. ${face.label} ${percent(face.probability)}`);
  setText(notes, [...(face.unsure ? ["unsure"] : []), ...face.flags.map((flag) => FLAGS[flag])].join(", "));
  labels.forEach((label, k) => {
    const row = item.querySelector("ul").children[k];
    const share = face.probabilities[label];
    row.className = label === face.label ? "top" : "";
    row.querySelector(".fill").style.width = `${100 * share}%`;
    setText(row.querySelector(".share"), percent(share));
  });
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
