// What a frontend does with the client that @hey-api/openapi-ts generates: `node walk_hey_api.js BASE_URL IMAGE...`.
// Prints one JSON object; the test compares it. No cast, no `any`: what does not compile is a fault of the contract.
import fs from "node:fs";
import path from "node:path";
import {
  classifyImageFiles,
  createDataset,
  createTrainJob,
  followJob,
  generateEvents,
  generateImage,
  generateImages,
  getJob,
  getModel,
  scoreImageFiles,
  uploadDatasetImages,
  type JobSummary,
} from "./client/index.js";
import { client } from "./client/client.gen.js";

const [baseUrl, ...names] = process.argv.slice(2);
if (!baseUrl) throw new Error("Give the node's URL.");
client.setConfig({ baseUrl, throwOnError: true });

const files = names.map((name) => new File([fs.readFileSync(name)], path.basename(name), { type: "image/png" }));
const prompt = { prompt: "a watercolor painting of a red fox", num_inference_steps: 4, seed: 1 };
const told: Record<string, string | number | boolean | null | string[]> = {};

async function ended(jobId: string): Promise<JobSummary> {
  const { stream } = await followJob({ path: { job_id: jobId } });
  let last: JobSummary | undefined;
  for await (const event of stream) last = event ?? last; // a 204 has no event: the job ended with the last one
  if (!last) throw new Error("There was no event.");
  return last;
}

const made = (await generateImages({ body: prompt, throwOnError: true })).data;
if (made.kind !== "generation") throw new Error("The answer is a job.");
told.generated = made.images[0]?.format ?? null;

const bytes = (await generateImage({ body: { ...prompt, output_format: "webp" }, throwOnError: true })).data;
told.bytes = Buffer.from(await bytes.arrayBuffer()).subarray(8, 12).toString();

const events = await generateEvents({ body: prompt });
const kinds: string[] = [];
for await (const event of events.stream) {
  kinds.push(event.kind);
  if (event.kind === "progress" && event.step > event.steps) throw new Error("There are more steps than there are.");
}
told.events = [...new Set(kinds)];

const queued = await generateImages({ body: prompt, headers: { prefer: "respond-async" }, throwOnError: true });
if (queued.data.kind !== "generate") throw new Error("The answer is no job.");
told.job = (await ended(queued.data.id)).status;
const job = (await getJob({ path: { job_id: queued.data.id }, throwOnError: true })).data;
if (job.kind !== "generate") throw new Error("The job is of another kind.");
told.spec = job.spec.prompt;
told.has_result = job.result !== null && job.result.generation_id.length > 0;

const image = files[0];
if (!image) throw new Error("Give image files.");
const labels = ["fox", "dog", "car"];
const scored = (await scoreImageFiles({ body: { image, labels }, throwOnError: true })).data;
told.scored = scored.kind === "single" ? scored.scores.map((score) => score.label) : null;
const several = (await scoreImageFiles({ body: { images: files, labels }, throwOnError: true })).data;
told.scored_files = several.kind === "batch" ? several.results.length : null;

const generation = { num_inference_steps: 4, guidance_scale: { min: 2, max: 3 } };
const classes = [
  { name: "fox", prompts: ["a {style} of a fox"] },
  { name: "dog", prompts: ["a {style} of a dog"] },
];
const variables = { style: ["watercolor painting", "pencil sketch"] };
const recipe = { name: "hey-api", classes, variables, generation, train_per_class: 4, test_per_class: 2 };
const planned = (await createDataset({ body: recipe, query: { dry_run: true }, throwOnError: true })).data;
told.planned = planned.kind === "plan" ? planned.num_images : null;
const dataset = (await createDataset({ body: recipe, throwOnError: true })).data;
if (dataset.kind !== "dataset" || !dataset.job_id) throw new Error("The dataset has no job.");
const filled = await ended(dataset.job_id);
told.dataset = filled.kind === "dataset" ? (filled.result?.num_images ?? null) : null;

const upload = { files, class_name: "fox", split: "train" } as const;
const uploaded = await uploadDatasetImages({ path: { dataset_id: dataset.id }, body: upload, throwOnError: true });
told.uploaded = uploaded.data.num_accepted;

const training = await createTrainJob({
  body: { dataset_id: dataset.id, name: "hey-api-model", backbone: "resnet18", epochs: 2 },
  throwOnError: true,
});
const trained = await ended(training.data.id);
if (trained.kind !== "train" || !trained.result) throw new Error(JSON.stringify(trained));
const model = (await getModel({ path: { model_id: trained.result.model_id }, throwOnError: true })).data;
told.classes = model.classes;
told.solver = model.lineage.training?.chosen?.solver ?? null;

const classified = await classifyImageFiles({ body: { image, model: model.name, top_k: 2 }, throwOnError: true });
told.predictions = classified.data.kind === "single" ? classified.data.predictions.length : null;

const refused = await getModel({ path: { model_id: "none" }, throwOnError: false });
told.refused = refused.error?.code ?? null;
console.log(JSON.stringify(told));
