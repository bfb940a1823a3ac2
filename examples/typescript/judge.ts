// What CLIP and the classifier say about a picture of yours: a file is uploaded, nothing is stored.
// Settings: PICTURE (default: one that is generated first), LABELS (separated by commas), MODEL (the name of a trained
// model; default: the pretrained classifier), and those of foxhound.ts.
import fs from "node:fs";
import path from "node:path";
import { classifyImageFiles, generateImage, scoreImageFiles } from "../../clients/typescript/src/index.js";
import { dataOf, setting } from "./foxhound.js";

const image = await picture(setting("PICTURE", ""));
const labels = setting("LABELS", "fox,dog,car").split(",");

const scored = dataOf(await scoreImageFiles({ body: { image, labels } }));
if (scored.kind === "single") {
  console.log(`CLIP, of ${labels.length} labels:`);
  for (const score of scored.scores) console.log(`   ${score.label} ${score.probability}`);
}

const model = setting("MODEL", "");
const classified = dataOf(await classifyImageFiles({ body: { image, top_k: 3, ...(model ? { model } : {}) } }));
if (classified.kind === "single") {
  const [best] = classified.predictions;
  console.log(`classifier: ${best?.label} ${best?.probability}`);
}

async function picture(name: string): Promise<File> {
  if (name) return new File([fs.readFileSync(name)], path.basename(name));
  const body = { prompt: "a watercolor painting of a red fox", seed: 42, num_inference_steps: 10 };
  return new File([dataOf(await generateImage({ body }))], "fox.png");
}
