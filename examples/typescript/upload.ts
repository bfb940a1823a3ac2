// A dataset of pictures of your own: PICTURES has a folder for each class. Started again, it uploads what is missing:
// the service refuses a picture that it has. Settings: PICTURES, NAME, SPLIT, OUT, and those of foxhound.ts.
import fs from "node:fs";
import path from "node:path";
import { getDataset, uploadDatasetImages } from "../../clients/typescript/src/index.js";
import { dataOf, download, makeDataset, setting } from "./foxhound.js";

const AT_ONCE = 20; // files of a request, at most 100
const folder = setting("PICTURES", "photos");
const name = setting("NAME", "my-pictures");
const split = setting("SPLIT", "train");
if (split !== "train" && split !== "validation" && split !== "test") throw new Error(`There is no split ${split}.`);

const labels = fs.readdirSync(folder).filter((entry) => fs.statSync(path.join(folder, entry)).isDirectory()).sort();
// No images are generated, so the prompts are never used.
const classes = labels.map((label) => ({ name: label, prompts: [label] }));
const dataset = await makeDataset({ name, classes, train_per_class: 0, test_per_class: 0 });
console.log(`dataset ${dataset.id}`);

for (const label of labels) {
  const names = fs.readdirSync(path.join(folder, label)).sort();
  for (let start = 0; start < names.length; start += AT_ONCE) {
    const some = names.slice(start, start + AT_ONCE);
    const files = some.map((file) => new File([fs.readFileSync(path.join(folder, label, file))], file));
    const body = { files, class_name: label, split } as const;
    const { num_accepted, num_refused } = dataOf(
      await uploadDatasetImages({ path: { dataset_id: dataset.id }, body }),
    );
    console.log(`   ${label}: ${start + some.length} of ${names.length}, ${num_accepted} taken, ${num_refused} refused`);
  }
}
const read = dataOf(await getDataset({ path: { dataset_id: dataset.id } }));
console.log(`the dataset has ${read.num_images} images`);
await download(`/datasets/${dataset.id}/archive.zip`, setting("OUT", `${name}.zip`));
