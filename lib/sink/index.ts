import { ConfigurationError } from "../change/tributary-error.ts";
import type { Sink, SinkKind } from "./sink.ts";

/** The only list of ready-made sinks: a new one is a folder of its own, a line here, and a page of the docs. */
const KINDS: SinkKind[] = [];

/** Adds a kind that this library does not have. @throws RangeError where there is one of that name. */
export function addSinkKind(kind: SinkKind): void {
  if (KINDS.some((known) => known.kind === kind.kind))
    throw new RangeError(`there is a kind of sink "${kind.kind}"`);
  KINDS.push(kind);
}

/**
 * Makes the sink that a configuration describes: its `kind`, and what that kind takes.
 * @throws ConfigurationError
 */
export function openSink({ kind, ...configuration }: { readonly kind: string }): Sink {
  const found = KINDS.find((known) => known.kind === kind);
  if (found) return found.open(configuration);
  const names = KINDS.map((known) => known.kind);
  const remedy = `there is no such kind${names.length > 0 ? `: write ${names.join(", ")}` : ""}`;
  throw new ConfigurationError("The sink", [{ path: "kind", value: kind, remedy }]);
}
