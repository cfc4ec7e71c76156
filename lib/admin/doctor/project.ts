import { relative } from "node:path";
import type { Check } from "./check.ts";
import { ok, outcomeOf } from "./check.ts";
import { NodeVersionError } from "./doctor-errors.ts";
import type { Examination } from "./examination.ts";

/** The Node that Lambda runs handlers with, and that the command needs. */
const NEEDED_NODE = 24;

/** Node, and the pipeline definition. */
export function projectChecks({ subject }: Examination): readonly Check[] {
  const { node, definition } = subject;
  return [
    {
      name: "Node",
      look: async () => {
        const isOld = Number.parseInt(node, 10) < NEEDED_NODE;
        return outcomeOf(isOld ? [new NodeVersionError(node, NEEDED_NODE)] : [], node);
      },
    },
    {
      name: "definition",
      look: async () => {
        if ("error" in definition) throw definition.error;
        const { name, source, consumers } = definition.pipeline;
        return ok(
          `${relative(process.cwd(), definition.file) || definition.file}: pipeline ${name}, source ${source.kind}, ${counted(consumers.length, "consumer")}`,
        );
      },
    },
  ];
}

/** `1 consumer`, `2 consumers`. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}
