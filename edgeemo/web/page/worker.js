// Runs the model beside the page, which stays responsive: answers { id, action, options } with { id, result or error }.

import { load } from "./edgeemo.js";
import { mapLabels } from "./model.js";

let model;
let last = Promise.resolve(); // calls of a model may not overlap

const actions = {
  async load(options) {
    model = await load(options);
    const labelSets = model.labelSets.map((name) => ({ name, count: mapLabels(model.card, name).labels.length }));
    return { labelSets, adaptable: Boolean(model.card.adaptation), check: await model.check() };
  },
  configure(options) {
    model.configure(options);
    return { labels: model.labels };
  },
  async faces({ image }) {
    const start = performance.now();
    const found = await model.faces(image);
    return { ...found, ms: performance.now() - start };
  },
};

self.addEventListener("message", ({ data: { id, action, options } }) => {
  last = last
    .then(() => actions[action](options))
    .then((result) => self.postMessage({ id, result }))
    .catch((error) => self.postMessage({ id, error: error.message }));
});
