// What the examples share: settings, a `fetch` that waits for the service, jobs and downloads.
//
// Settings are environment variables: FOXHOUND_URL (http://127.0.0.1:8000), FOXHOUND_API_KEY (if the service needs a
// key), PATIENCE_S (how long to wait for a service that does not answer, default 600).
import { createHash } from "node:crypto";
import fs from "node:fs";
import { client } from "../../clients/typescript/src/client.gen.js";
import {
  createDataset,
  followJob,
  getDataset,
  getJob,
  listDatasets,
  type DatasetCreate,
  type DatasetRead,
  type JobRead,
} from "../../clients/typescript/src/index.js";

const url = (process.env.FOXHOUND_URL ?? "http://127.0.0.1:8000").replace(/\/$/, "");
const key = process.env.FOXHOUND_API_KEY;
const patienceMs = 1000 * Number(process.env.PATIENCE_S ?? 600);
const headers: Record<string, string> = key ? { Authorization: `Bearer ${key}` } : {};

export const setting = (name: string, otherwise: string): string => process.env[name] || otherwise;
export const number = (name: string, otherwise: number): number => Number(setting(name, String(otherwise)));
export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks again while the service is away, busy or starting; `Retry-After` says how long to wait. */
const patiently: typeof fetch = async (input, init) => {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    let waitMs = 1000;
    try {
      const answer = await fetch(input instanceof Request ? input.clone() : input, init);
      if (![429, 502, 503, 504].includes(answer.status) || Date.now() > deadline) return answer;
      waitMs = 1000 * Number(answer.headers.get("Retry-After") ?? 1);
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    await pause(Math.min(waitMs, 30_000));
  }
};
client.setConfig({ baseUrl: url, headers, fetch: patiently });

/** A key that follows from the work: the same work sent again is answered again and not done again. */
export function idempotencyKey(work: object): string {
  return `example-${createHash("sha256").update(JSON.stringify(work)).digest("hex").slice(0, 32)}`;
}

/** Returns the data of an answer; a problem becomes an error whose message says what to do. */
export function dataOf<Data>(answer: { data?: Data; error?: { detail: string; code: string } }): Data {
  if (answer.error) throw new Error(`${answer.error.detail} (${answer.error.code})`);
  if (answer.data === undefined) throw new Error("There was no answer.");
  return answer.data;
}

/** Returns the dataset of this name; names are unique. */
export async function findDataset(name: string): Promise<DatasetRead | undefined> {
  return dataOf(await listDatasets({ query: { name } })).items[0];
}

/** Makes a dataset, or goes on with the one of that name. */
export async function makeDataset(body: DatasetCreate): Promise<DatasetRead> {
  const made = await createDataset({ body, headers: { "idempotency-key": idempotencyKey(body) } });
  if (made.error?.code === "dataset_name_taken") {
    const found = await findDataset(body.name);
    if (!found) throw new Error(`The dataset ${body.name} is gone. Start this again to make it anew.`);
    console.log(`a dataset ${body.name} is there already; going on with it`);
    return found;
  }
  const dataset = dataOf(made);
  if (dataset.kind !== "dataset") throw new Error("The answer is a plan.");
  // The answer to a key is kept for a day, even where the dataset has been deleted since.
  const read = await getDataset({ path: { dataset_id: dataset.id } });
  if (read.response?.status !== 404) return dataOf(read);
  const anew = dataOf(await createDataset({ body }));
  if (anew.kind !== "dataset") throw new Error("The answer is a plan.");
  return anew;
}

/** Prints a line for each event of a job until it has ended, over restarts of the service; returns the job. */
export async function follow(jobId: string): Promise<JobRead> {
  let last: string | undefined;
  let shown = "";
  for (;;) {
    const job = dataOf(await getJob({ path: { job_id: jobId } }));
    if (["succeeded", "failed", "cancelled"].includes(job.status)) {
      console.log(`   ${job.status}`);
      return job;
    }
    const { stream } = await followJob({
      path: { job_id: jobId },
      headers: last ? { "last-event-id": last } : {},
      sseMaxRetryAttempts: 1,
    });
    for await (const event of stream) {
      if (!event) continue; // 204 has none: the job ended with the last event
      last = String(event.version);
      const now = `${event.status}: ${event.progress.done} of ${event.progress.total} ${event.progress.unit}`;
      if (now !== shown) console.log(`   ${now}`);
      shown = now;
    }
    await pause(200); // the stream has ended: with the job, or because the service is away
  }
}

/** Downloads into `out`, by way of `out.part`, which the next run goes on with if the service has the same bytes. */
export async function download(path: string, out: string): Promise<void> {
  const head = await patiently(`${url}${path}`, { headers: { ...headers, Range: "bytes=0-0" } });
  const etag = head.headers.get("ETag") ?? "";
  const bytes = Number(head.headers.get("Content-Range")?.split("/")[1]);
  if (head.status !== 206) throw new Error(`${path} answered ${head.status}: ${await head.text()}`);
  const [part, known] = [`${out}.part`, `${out}.etag`];
  const isSame = fs.existsSync(known) && fs.readFileSync(known, "utf8") === etag;
  if (isSame && fs.existsSync(out)) {
    console.log(`${out} is there already: ${bytes} bytes`);
    return;
  }
  if (!isSame) fs.rmSync(part, { force: true });
  fs.writeFileSync(known, etag);
  const deadline = Date.now() + patienceMs;
  for (let start = size(part); start < bytes; start = size(part)) {
    if (Date.now() > deadline) throw new Error(`${path} does not come. ${part} is kept.`);
    const range = { Range: `bytes=${start}-`, "If-Range": etag };
    const answer = await patiently(`${url}${path}`, { headers: { ...headers, ...range } });
    const file = fs.openSync(part, answer.status === 206 ? "a" : "w"); // 200: all bytes from the first one
    try {
      for await (const chunk of answer.body ?? []) fs.writeSync(file, chunk);
    } catch {
      await pause(1000); // the connection broke
    } finally {
      fs.closeSync(file);
    }
  }
  if (size(part) !== bytes) throw new Error(`${part} is longer than it should be. Delete it and start again.`);
  fs.renameSync(part, out);
  console.log(`saved ${out}: ${bytes} bytes`);
}

function size(path: string): number {
  return fs.existsSync(path) ? fs.statSync(path).size : 0;
}
