import { readDefinition } from "../../definition/file.ts";
import { definePipeline, type Pipeline } from "../../definition/pipeline.ts";
import { sourceKind } from "../../source/index.ts";
import { DEFINITION_VARIABLE, NAME_VARIABLE, SNAPSHOT_VARIABLE, UNBOUNDED_VARIABLE } from "./variables.ts";

/*
 * The user's definition as `tributary dev` runs it: with a slot of its own, and without the existing rows where nobody asked
 * for them. The host, the capture task and the verbs, each in its own process, read it with the same variables.
 */

export default inDevelopment(await readDefinition(process.env[DEFINITION_VARIABLE] ?? ""));

function inDevelopment(definition: Pipeline): Pipeline {
  const log = sourceKind(definition.source).throughSlots?.(definition);
  if (!log) return definition;
  const name = process.env[NAME_VARIABLE] ?? "";
  const { snapshot } = log.source;
  const asked = snapshot === "never" ? "when-needed" : snapshot;
  return definePipeline({
    ...log,
    source: {
      ...log.source,
      slot: name,
      publication: name,
      snapshot: process.env[SNAPSHOT_VARIABLE] === "1" ? asked : "never",
      acceptUnboundedWal: process.env[UNBOUNDED_VARIABLE] === "1",
    },
  });
}
