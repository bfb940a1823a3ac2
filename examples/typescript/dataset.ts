// A dataset from prompts: ask how long it takes, make it, follow its job by events, download it. It may be killed, or
// the service restarted, at any point: started again, it goes on with the same dataset and the same download.
// Settings: NAME, TRAIN_PER_CLASS, TEST_PER_CLASS, STEPS, SEED, OUT, and those of foxhound.ts. With more images per
// class this is the example of a night: nothing in it depends on how long the job takes.
import { createDataset } from "../../clients/typescript/src/index.js";
import { download, follow, makeDataset, number, setting } from "./foxhound.js";

const name = setting("NAME", "fox-dog-prompts");
const recipe = {
  name,
  seed: number("SEED", 7),
  classes: [
    { name: "fox", prompts: ["a {style} of a red fox"] },
    { name: "dog", prompts: ["a {style} of a golden retriever"] },
  ],
  variables: { style: ["watercolor painting", "pencil sketch"] },
  train_per_class: number("TRAIN_PER_CLASS", 25),
  test_per_class: number("TEST_PER_CLASS", 5),
  generation: { num_inference_steps: number("STEPS", 20) },
};

// A question only: a dataset of this name that is there already (409) is no reason to stop.
const plan = await createDataset({ body: recipe, query: { dry_run: true } });
if (plan.error && plan.error.code !== "dataset_name_taken") throw new Error(plan.error.detail);
if (plan.data?.kind === "plan") console.log(`${plan.data.num_images} images, about ${plan.data.estimated_seconds} s`);

const dataset = await makeDataset(recipe);
if (!dataset.job_id) throw new Error(`The dataset ${name} has no job: its images are uploaded.`);
console.log(`dataset ${dataset.id}, job ${dataset.job_id}`);
const job = await follow(dataset.job_id);
if (job.status !== "succeeded") throw new Error(`The job has ${job.status}: ${job.error?.detail}`);
await download(`/datasets/${dataset.id}/archive.zip`, setting("OUT", `${name}.zip`));
