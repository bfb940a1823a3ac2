// From prompts to a classifier in one request, and what it says about a new picture: the job makes the dataset first.
// With DATASET, the classifier of a dataset that is there. Started again, it goes on with the same job or model.
// Settings: DATASET, NAME, TRAIN_PER_CLASS, TEST_PER_CLASS, STEPS, EPOCHS, OUT, and those of foxhound.ts.
import { classifyImageFiles, createTrainJob, generateImage } from "../../clients/typescript/src/index.js";
import { dataOf, download, findDataset, follow, idempotencyKey, number, setting } from "./foxhound.js";

const known = process.env.DATASET;
const name = setting("NAME", known ?? "fox-dog-one-call");
const training = { name, epochs: number("EPOCHS", 10), ...(known ? await existing(known) : { dataset: recipe() }) };

const made = await createTrainJob({ body: training, headers: { "idempotency-key": idempotencyKey(training) } });
if (made.error?.code === "dataset_name_taken" || made.error?.code === "model_name_taken") {
  console.log(`a dataset or a model ${name} is there already, or being made by another request`);
} else {
  const { id } = dataOf(made);
  console.log(`train job ${id}`);
  const job = await follow(id);
  if (job.status !== "succeeded") throw new Error(`The job has ${job.status}: ${job.error?.detail}`);
}

const body = { prompt: "a watercolor painting of a red fox", seed: 1001, num_inference_steps: 20 };
const image = new File([dataOf(await generateImage({ body }))], "fox.png");
const classified = dataOf(await classifyImageFiles({ body: { image, model: name, top_k: 2 } }));
if (classified.kind !== "single") throw new Error("One picture has one answer.");
console.log(`${name} says ${classified.predictions[0]?.label} ${classified.predictions[0]?.probability}`);
await download(`/models/${classified.model.id}/weights`, setting("OUT", `${name}.safetensors`));

async function existing(dataset: string): Promise<{ dataset_id: string }> {
  const found = await findDataset(dataset);
  if (!found) throw new Error(`There is no dataset ${dataset}.`);
  return { dataset_id: found.id };
}

function recipe() {
  return {
    name,
    seed: 7,
    classes: [
      { name: "fox", prompts: ["a watercolor painting of a red fox"] },
      { name: "dog", prompts: ["a watercolor painting of a golden retriever"] },
    ],
    train_per_class: number("TRAIN_PER_CLASS", 25),
    test_per_class: number("TEST_PER_CLASS", 5),
    generation: { num_inference_steps: number("STEPS", 20) },
  };
}
