import type { LogPipeline } from "../definition.ts";

/** The parts of a definition that decide which changes become events, and of which topics. */
export interface DecodedPipeline extends Pick<LogPipeline, "name" | "topics"> {
  readonly source: {
    readonly tables: readonly string[];
    readonly exclude: readonly string[];
    readonly messages: readonly string[];
    readonly outbox?: LogPipeline["source"]["outbox"];
  };
}
