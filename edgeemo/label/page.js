"use strict";

const find = (id) => document.getElementById(id);
let state = null;
let busy = false;

const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

async function ask(path, body) {
  const options = body ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {};
  const response = await fetch(path, options);
  const answer = await response.json();
  if (response.status === 409) return null; // another window was faster
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function send(path, done) {
  if (busy) return;
  wait(true);
  try {
    const body = state && state.face ? { face: state.face.number } : {};
    if (path === "label") body.label = done;
    const answer = await ask(path, body);
    say("");
    await render(answer || (await ask("state")));
    report(path === "label" ? `Labelled ${done}.` : path === "skip" ? "Skipped." : path === "undo" ? "Undone." : "");
    if (path === "stop") close();
  } catch (error) {
    say(error instanceof TypeError ? "edgeemo label has ended; start it again to go on." : error.message);
  } finally {
    wait(false);
  }
}

function wait(yes) {
  busy = yes;
  find("work").setAttribute("aria-busy", String(yes));
}

function say(text) {
  find("error").textContent = text;
  find("error").hidden = !text;
}

// Says what was done and whose face is shown now.
function report(text) {
  find("status").textContent = text && state.face ? `${text} Now: ${state.face.person}, ${state.face.image}` : text;
}

function showPrediction(shown) {
  const line = find("prediction");
  const shares = state.face ? state.face.prediction : [];
  line.textContent = shown ? `The model predicts ${shares.map(([label, share]) => `${label} ${Math.round(100 * share)} %`).join(", ")}.` : "";
  line.hidden = !shown;
  find("show").setAttribute("aria-expanded", String(shown));
}

function makeButtons() {
  for (const [label, keys] of Object.entries(state.keys)) {
    const button = document.createElement("button");
    button.type = "button";
    if (keys) button.setAttribute("aria-keyshortcuts", [...keys].join(" "));
    for (const key of keys) {
      const cap = document.createElement("kbd");
      cap.textContent = key;
      button.append(cap);
    }
    button.append(label);
    button.addEventListener("click", () => send("label", label));
    find("labels").append(button);
  }
}

function fill(body, counts) {
  body.replaceChildren(
    ...Object.entries(counts).map(([name, number]) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      const cell = document.createElement("td");
      cell.textContent = number;
      row.append(head, cell);
      return row;
    }),
  );
}

// Resolves when the face can be seen: a key before that would be an answer to the one before it.
async function render(next) {
  state = next;
  if (!find("labels").childElementCount) makeButtons();
  const { face } = state;
  const wasFinished = !find("finished").hidden;
  find("work").hidden = !face;
  find("finished").hidden = Boolean(face);
  if (face) {
    find("face").src = `face/${face.number}.png`;
    find("face").alt = `Face of ${face.person} in ${face.image}`;
    find("caption").textContent = `${face.person} · ${face.image}`;
  } else if (!wasFinished) {
    finish("All faces are done.");
  }
  showPrediction(false);
  const done = state.labelled + state.skipped;
  find("bar").max = done + state.left;
  find("bar").value = done;
  find("sum").textContent = `${plural(state.labelled, "face")} labelled, ${state.skipped} skipped, ${state.left} left`;
  fill(find("by-label"), state.labels);
  fill(find("by-person"), state.people);
  if (face) await find("face").decode().catch(() => say("The face cannot be shown; skip it."));
}

function finish(title) {
  find("work").hidden = true;
  find("finished").hidden = false;
  find("finished-title").textContent = title;
  find("following").textContent = state.following;
  find("next").hidden = !state.labelled;
  find("finished").focus();
}

function close() {
  for (const button of document.querySelectorAll("button")) button.disabled = true;
  finish("Labelling has ended. You can close this page.");
}

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !state || find("stop").disabled) return;
  const key = event.key.toLowerCase();
  const label = Object.keys(state.keys).find((one) => key.length === 1 && state.keys[one].includes(key));
  if (key === "u") send("undo");
  else if (!state.face) return;
  else if (key === "s") send("skip");
  else if (key === "p") showPrediction(find("prediction").hidden);
  else if (label) send("label", label);
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", press);
find("skip").addEventListener("click", () => send("skip"));
find("show").addEventListener("click", () => showPrediction(find("prediction").hidden));
find("stop").addEventListener("click", () => send("stop"));
for (const button of document.querySelectorAll(".undo")) button.addEventListener("click", () => send("undo"));
ask("state").then(render, () => say("edgeemo label has ended; start it again to go on."));
