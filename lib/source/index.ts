import type { ChangeStream, SourcePlace } from "../change/change-stream.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { SourceDefinition } from "../definition/definition.ts";
import { outboxKind } from "./outbox/kind.ts";
import { pollingKind } from "./polling/kind.ts";
import { postgresKind } from "./postgres/kind.ts";
import type { SourceKind, SourceOptions } from "./source-kind.ts";
import { triggersKind } from "./triggers/kind.ts";

/** The only list of the kinds of source: a new one is a folder of its own, a line here, and a page of the docs. */
const KINDS: SourceKind[] = [postgresKind, triggersKind, pollingKind, outboxKind];

/**
 * Adds a kind to the list of this process, before a definition names it: for tests. The deployed capture task is bundled with the list as it
 * stands here.
 * @throws RangeError where there is one of that name.
 */
export function addSourceKind(kind: SourceKind): void {
  if (KINDS.some((known) => known.kind === kind.kind))
    throw new RangeError(`there is a kind of source "${kind.kind}"`);
  KINDS.push(kind);
}

/** All of them. */
export function sourceKinds(): readonly SourceKind[] {
  return KINDS;
}

/** The kind of a pipeline's source: who wants to know what it can do asks it. */
export function sourceKind({ kind }: Pick<SourceDefinition, "kind">): SourceKind {
  const found = KINDS.find((known) => known.kind === kind);
  if (found) return found;
  const remedy = `there is no such kind: write ${KINDS.map((known) => known.kind).join(", ")}`;
  throw new ConfigurationError("The pipeline definition", [{ path: "source.kind", value: kind, remedy }]);
}

/**
 * Opens the source of a pipeline that is read as one stream.
 * @throws TributaryError of every kind; each says what to do.
 */
export async function openSource(options: SourceOptions): Promise<ChangeStream<SourcePlace>> {
  const { reading, kind } = sourceKind(options.pipeline.source);
  if (reading.by === "stream") return await reading.open(options);
  const remedy = "several tasks share its lanes: it is no single stream";
  throw new ConfigurationError("The pipeline definition", [{ path: "source.kind", value: kind, remedy }]);
}
