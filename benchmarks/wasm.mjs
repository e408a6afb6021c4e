// Do the shipped models give their golden logits in WebAssembly, as a browser runs them?
//
//   npm install onnxruntime-web && node benchmarks/wasm.mjs BATCH.json OUT.json
//
// BATCH.json holds the faces as each model's input; benchmarks/wasm.py writes it and compares what comes back.
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [batchFile, outFile] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const ort = await import(pathToFileURL(require.resolve("onnxruntime-web")));
ort.env.wasm.numThreads = 1;

const found = { onnxruntime_web: ort.env.versions.web, models: {} };
for (const { name, file, shape, values } of JSON.parse(await readFile(batchFile, "utf8"))) {
  const session = await ort.InferenceSession.create(await readFile(file), { executionProviders: ["wasm"] });
  const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", Float32Array.from(values), shape) };
  const logits = (await session.run(feeds))[session.outputNames[0]];
  found.models[name] = { shape: logits.dims, logits: Array.from(logits.data) };
}
await writeFile(outFile, JSON.stringify(found));
