import { definePipeline, outbox, type PipelineInput, postgres } from "../../../definition/pipeline.ts";

/** The ways in which events of applications are caught. */
export const OUTBOX_FORMS = ["table", "message", "relay"] as const;
/** One of them. */
export type OutboxForm = (typeof OUTBOX_FORMS)[number];

/** Names the form for the capture task's process. */
export const OUTBOX_FORM_VARIABLE = "CHECKER_OUTBOX_FORM";

/** The pipeline of a form. */
export function outboxPipeline(form: OutboxForm) {
  const log = (caught: { table?: string; messages?: boolean }): PipelineInput["source"] =>
    postgres({ tables: [], outbox: caught, acceptUnboundedWal: true });
  const sources: Record<OutboxForm, PipelineInput["source"]> = {
    table: log({ table: "public.outbox" }),
    message: log({ messages: true }),
    // Small batches, so that a kill meets many of them.
    relay: outbox({ intervalMs: 20, batchRows: 20 }),
  };
  return definePipeline({
    name: "checked",
    source: sources[form],
    topics: { partitions: 32 },
    stream: { mode: "provisioned", shards: 2 },
    consumers: [{ name: "audit", entry: "-", topics: ["checked.outbox.order"], poison: "stop" }],
  });
}

export default outboxPipeline((process.env[OUTBOX_FORM_VARIABLE] ?? "relay") as OutboxForm);
