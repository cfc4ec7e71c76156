import { BATCH_KIND, newEpochOfBatches } from "../batch/batch-kind.ts";
import { nothingToRemove } from "../nothing-to-remove.ts";
import type { SourceKind } from "../source-kind.ts";
import { type PollingSource, pollingSource } from "./definition.ts";

/** Tables that are asked for what is newer: docs, "Triggers and polling". */
export const pollingKind: SourceKind<PollingSource> = {
  kind: "polling",
  definition: { schema: pollingSource },
  async check(options) {
    const { checkPolling } = await import("./polling-source.ts");
    return await checkPolling(options);
  },
  reading: {
    by: "stream",
    async open(options) {
      const { openPollingSource } = await import("./polling-source.ts");
      return await openPollingSource(options);
    },
  },
  ...BATCH_KIND,
  async prepare({ source }) {
    const { polledColumnsSql } = await import("./column-sql.ts");
    return polledColumnsSql(source);
  },
  operate: {
    teardown: nothingToRemove("Polling leaves nothing at the server but the columns that it reads."),
    newEpoch: newEpochOfBatches,
  },
};
