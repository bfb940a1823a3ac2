// Pictures from a prompt: as JSON with addresses, and as the bytes of one picture.
// Settings: PROMPT, SEED, STEPS, OUT_DIR, and those of foxhound.ts. The same seed gives the same pictures.
import fs from "node:fs";
import { generateImage, generateImages, getImage } from "../../clients/typescript/src/index.js";
import { dataOf, number, setting } from "./foxhound.js";

const folder = setting("OUT_DIR", "generated");
fs.mkdirSync(folder, { recursive: true });
const body = {
  prompt: setting("PROMPT", "a watercolor painting of a red fox"),
  seed: number("SEED", 42),
  num_inference_steps: number("STEPS", 20),
};

// JSON: two pictures, which the service keeps. `labels` adds CLIP's opinion of each.
const made = dataOf(await generateImages({ body: { ...body, num_images_per_prompt: 2, labels: ["fox", "dog"] } }));
if (made.kind !== "generation") throw new Error("The answer is a job: `Prefer: respond-async` asks for one.");
for (const image of made.images) {
  await save(`${folder}/seed-${image.seed}.png`, dataOf(await getImage({ path: { image_id: image.id } })));
}

// Bytes: the answer is the picture itself.
await save(`${folder}/fox.webp`, dataOf(await generateImage({ body: { ...body, output_format: "webp" } })));

async function save(path: string, picture: Blob): Promise<void> {
  fs.writeFileSync(`${path}.part`, Buffer.from(await picture.arrayBuffer()));
  fs.renameSync(`${path}.part`, path);
  console.log(`saved ${path}: ${picture.size} bytes`);
}
