import { mkdir, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import * as z from "zod";
import type { CheckpointStore, ShardCheckpoint } from "../event-source-mapping/checkpoint.ts";
import { DevFileDamagedError } from "../local-errors.ts";
import { parsedLine } from "../parsed-line.ts";
import { writeWhole } from "./state-directory.ts";

const checkpoints = z.record(
  z.string(),
  z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("sequence"), sequenceNumber: z.string() }),
    z.object({ kind: z.literal("finished") }),
  ]),
);

/** Checkpoints of one consumer's mapping in a file. */
export class FileCheckpoints implements CheckpointStore {
  readonly #path: string;
  #all: Record<string, ShardCheckpoint> = {};
  #writing: Promise<void> = Promise.resolve();

  constructor(path: string) {
    this.#path = path;
  }

  async load(): Promise<ReadonlyMap<string, ShardCheckpoint>> {
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    const text = await readFile(this.#path, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
      return "{}";
    });
    const read = checkpoints.safeParse(parsedLine(text));
    if (!read.success) throw new DevFileDamagedError(this.#path);
    this.#all = read.data;
    return new Map(Object.entries(this.#all));
  }

  /** The file holds all shards: one is written at a time, each with the latest of the others. */
  save(shardId: string, checkpoint: ShardCheckpoint): Promise<void> {
    const saved = this.#writing.then(async () => {
      const all = { ...this.#all, [shardId]: checkpoint };
      await writeWhole(this.#path, JSON.stringify(all));
      this.#all = all;
    });
    this.#writing = saved.catch(() => {});
    return saved;
  }
}
