import { batchKind } from "../batch/batch-kind.ts";
import { type PollingSource, pollingSource } from "./definition.ts";

/** Tables that are asked for what is newer: docs, "Triggers and polling". */
export const pollingKind = batchKind<PollingSource>({
  kind: "polling",
  schema: pollingSource,
  load: async () => (await import("./polling-source.ts")).pollingReads,
  prepare: async ({ source }) => (await import("./column-sql.ts")).polledColumnsSql(source),
  setUp: async (options) => (await import("./set-up.ts")).pollingSetUp(options),
  remains: "Polling leaves nothing at the server but the columns that it reads.",
});
