import { readFile, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import { nearestPackage } from "../../definition/find-definition.ts";
import { isAlive, processIdentity } from "../process-identity.ts";

/** Name of the file, in the state directory, in which a run of `tributary dev` says how to speak to it. */
export const DEV_FILE = "dev.json";
/** Name of the directory that `tributary dev` keeps of a project, in it. */
export const STATE_DIRECTORY = ".tributary";

const devFile = processIdentity.extend({
  project: z.string(),
  pipeline: z.string(),
  database: z.object({
    /** Without its password. */
    url: z.string(),
    /** File with the password of an embedded server. */
    passwordFile: z.string().optional(),
    /** True where the URL had one that is nowhere else. */
    needsPassword: z.boolean(),
  }),
  /** Variables for the verbs. */
  environment: z.record(z.string(), z.string()),
  consumers: z.record(z.string(), z.object({ entry: z.string(), deadLetterQueue: z.string() })),
});

/** The description that a run of `tributary dev` leaves for the verbs. */
export type DevFile = z.infer<typeof devFile>;

/**
 * Returns what the run says that lives in this folder or above it, up to the project that the folder belongs to: a verb in another
 * project is meant for that one. Undefined where none does.
 */
export async function findDevRun(folder: string): Promise<DevFile | undefined> {
  const project = nearestPackage(folder);
  for (let at = folder; ; at = dirname(at)) {
    const text = await readFile(join(at, STATE_DIRECTORY, DEV_FILE), "utf8").catch(() => undefined);
    const run = text === undefined ? undefined : devFile.safeParse(parse(text)).data;
    // A folder that was copied with this file in it has no run.
    if (run && isAlive(run) && (await isSame(run.project, at))) return run;
    if (at === dirname(at) || at === project) return undefined;
  }
}

async function isSame(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([a, b].map((path) => realpath(path).catch(() => undefined)));
  return one !== undefined && one === other;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
