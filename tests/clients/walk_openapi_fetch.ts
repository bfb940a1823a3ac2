// What a frontend does with openapi-fetch and the types of openapi-typescript: `node walk_openapi_fetch.js BASE_URL
// IMAGE...`. Prints one JSON object; the test compares it. No cast, no `any`.
import fs from "node:fs";
import path from "node:path";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type JobSummary = components["schemas"]["JobSummary"];

const [baseUrl, ...names] = process.argv.slice(2);
// The second parameter is openapi-fetch's: of answers in several media types, the types to read.
const client = createClient<paths, "application/json" | "application/problem+json">({ baseUrl });
const files = names.map((name) => new File([fs.readFileSync(name)], path.basename(name), { type: "image/png" }));
const prompt = { prompt: "a watercolor painting of a red fox", num_inference_steps: 4, seed: 2 };
const told: Record<string, string | number | boolean | null | string[]> = {};

// The one function that openapi-fetch leaves to its users: a list is a repeated field.
function form(body: Record<string, string | number | boolean | Blob | (string | Blob)[] | undefined>): FormData {
  const fields = new FormData();
  for (const [name, value] of Object.entries(body))
    for (const one of Array.isArray(value) ? value : [value])
      if (one !== undefined) fields.append(name, one instanceof Blob ? one : String(one));
  return fields;
}

function have<T>(answer: { data?: T; error?: { code: string; detail: string } }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

async function* events<T>(stream: ReadableStream<Uint8Array> | null | undefined, read: (data: string) => T) {
  const decoder = new TextDecoder();
  let text = "";
  for await (const part of stream ?? new ReadableStream<Uint8Array>()) {
    text += decoder.decode(part, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield read(data.slice(6));
    }
  }
}

async function ended(jobId: string): Promise<JobSummary> {
  const params = { path: { job_id: jobId } };
  const { response } = await client.GET("/jobs/{job_id}/events", { params, parseAs: "stream" });
  let last: JobSummary | undefined;
  for await (const event of events<JobSummary>(response.body, JSON.parse)) last = event;
  if (!last) throw new Error("There was no event.");
  return last;
}

const made = have(await client.POST("/generate", { body: prompt }));
if (made.kind !== "generation") throw new Error("The answer is a job.");
told.generated = made.images[0]?.format ?? null;

const wanted = { ...prompt, output_format: "jpeg" } as const;
const jpeg = await client.POST("/generate/image", { body: wanted, parseAs: "blob" });
told.bytes = Buffer.from(await (jpeg.data ?? new Blob()).arrayBuffer()).subarray(0, 3).toString("hex");

const progress = await client.POST("/generate/events", { body: prompt, parseAs: "stream" });
const kinds: string[] = [];
type GenerationEvent = components["schemas"]["GenerationEvent"];
for await (const event of events<GenerationEvent>(progress.response.body, JSON.parse)) kinds.push(event.kind);
told.events = [...new Set(kinds)];

const header = { prefer: "respond-async" };
const queued = have(await client.POST("/generate", { body: prompt, params: { header } }));
if (queued.kind !== "generate") throw new Error("The answer is no job.");
told.job = (await ended(queued.id)).status;

const image = files[0];
if (!image) throw new Error("Give image files.");
const labels = ["fox", "dog", "car"];
const scored = have(await client.POST("/clip-score/files", { body: { image, labels }, bodySerializer: form }));
told.scored = scored.kind === "single" ? scored.scores.map((score) => score.label) : null;

const classes = ["fox", "dog"].map((name) => ({ name, prompts: [`a drawing of a ${name}`] }));
const generation = { num_inference_steps: { min: 4, max: 5 } };
const recipe = { name: "openapi-fetch", classes, generation, train_per_class: 4, test_per_class: 2 };
const dataset = have(await client.POST("/datasets", { body: recipe }));
if (dataset.kind !== "dataset" || !dataset.job_id) throw new Error("The dataset has no job.");
const filled = await ended(dataset.job_id);
told.dataset = filled.kind === "dataset" ? (filled.result?.num_images ?? null) : null;

const uploaded = await client.POST("/datasets/{dataset_id}/images", {
  params: { path: { dataset_id: dataset.id } },
  body: { files, class_name: "fox", split: "train" },
  bodySerializer: form,
});
told.uploaded = have(uploaded).num_accepted;

const body = { dataset_id: dataset.id, name: "openapi-fetch-model", backbone: "resnet18", epochs: 2 };
const training = have(await client.POST("/train-jobs", { body }));
const trained = await ended(training.id);
if (trained.kind !== "train" || !trained.result) throw new Error(JSON.stringify(trained));
const params = { path: { model_id: trained.result.model_id } };
const model = have(await client.GET("/models/{model_id}", { params }));
told.classes = model.classes;

const classify = { image, model: model.name, top_k: 2 };
const classified = have(await client.POST("/classify/files", { body: classify, bodySerializer: form }));
told.predictions = classified.kind === "single" ? classified.predictions.length : null;

const refused = await client.GET("/models/{model_id}", { params: { path: { model_id: "none" } } });
told.refused = refused.error?.code ?? null;
console.log(JSON.stringify(told));
