// Follows a job by its events until it has ended: `node built/examples/typescript/follow.js [JOB_ID]`. Default: the
// newest job that has not ended. Settings: those of foxhound.ts.
import { listJobs } from "../../clients/typescript/src/index.js";
import { dataOf, follow } from "./foxhound.js";

const jobId = process.argv[2] ?? (await newest());
if (jobId === undefined) {
  console.log("0 of 0 jobs run or wait");
} else {
  console.log(`job ${jobId}`);
  const job = await follow(jobId);
  if (job.status !== "succeeded") throw new Error(`The job has ${job.status}: ${job.error?.detail}`);
}

async function newest(): Promise<string | undefined> {
  for (const status of ["running", "queued", "paused"] as const) {
    const [job] = dataOf(await listJobs({ query: { status, limit: 1 } })).items;
    if (job) return job.id;
  }
  return undefined;
}
