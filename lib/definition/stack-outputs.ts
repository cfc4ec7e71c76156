/*
 * The outputs of a stack that name the resources of a pipeline. Their keys are stable and can be told from names alone; their descriptions
 * tell the names exactly, whatever else a stack holds: several pipelines may share one.
 */

/** Outputs of a pipeline as a whole: resource, and the word for it in key and description. */
export const PIPELINE_OUTPUTS = {
  stream: "stream",
  stateTable: "state table",
  claimStore: "claim store",
  encryptionKey: "encryption key",
  captureDeadLetters: "capture dead letters",
  cluster: "cluster",
} as const;

/** Outputs of one consumer. */
export const CONSUMER_OUTPUTS = {
  function: "function",
  mapping: "mapping",
  redriveFunction: "redrive function",
  deadLetterQueue: "dead letters",
  redriveQueue: "redrive queue",
  verifyTask: "verify task",
} as const;

/** The service that reads one slot. */
const SERVICE = "service";

/** A resource that an output names. */
export type StackOutput =
  | { readonly pipeline: string; readonly resource: keyof typeof PIPELINE_OUTPUTS }
  | {
      readonly pipeline: string;
      readonly consumer: string;
      readonly resource: keyof typeof CONSUMER_OUTPUTS;
    }
  | { readonly pipeline: string; readonly slot: number; readonly resource: "service" };

const DESCRIPTION = /^Tributary pipeline ([a-z0-9-]+)(?:, consumer ([a-z0-9-]+)|, slot (\d+))?: ([a-z ]+)$/;

/**
 * Returns the key of an output: letters and digits, as CloudFormation wants it.
 *
 * @example
 * outputKey({ pipeline: "shop", resource: "stateTable" }); // TributaryShopStateTable
 * outputKey({ pipeline: "shop", consumer: "order-summary", resource: "redriveFunction" }); // TributaryShopConsumerOrderSummaryRedriveFunction
 * outputKey({ pipeline: "shop", slot: 1, resource: "service" }); // TributaryShopService1
 */
export function outputKey(output: StackOutput): string {
  const word = capitalized(wordOf(output).replaceAll(" ", "-"));
  const of = "consumer" in output ? `Consumer${capitalized(output.consumer)}` : "";
  return `Tributary${capitalized(output.pipeline)}${of}${word}${"slot" in output ? output.slot : ""}`;
}

/** Returns the description of an output, which `parseOutput` reads. */
export function outputDescription(output: StackOutput): string {
  const consumer = "consumer" in output ? `, consumer ${output.consumer}` : "";
  const slot = "slot" in output ? `, slot ${output.slot}` : "";
  return `Tributary pipeline ${output.pipeline}${consumer}${slot}: ${wordOf(output)}`;
}

/** Returns the resource that an output with this description names; undefined where it is not ours, or of a version that knows more. */
export function parseOutput(description: string): StackOutput | undefined {
  const [, pipeline, consumer, slot, word] = DESCRIPTION.exec(description) ?? [];
  if (pipeline === undefined || word === undefined) return undefined;
  if (slot !== undefined)
    return word === SERVICE ? { pipeline, slot: Number(slot), resource: SERVICE } : undefined;
  if (consumer !== undefined) {
    const resource = keyOf(CONSUMER_OUTPUTS, word);
    return resource && { pipeline, consumer, resource };
  }
  const resource = keyOf(PIPELINE_OUTPUTS, word);
  return resource && { pipeline, resource };
}

function wordOf(output: StackOutput): string {
  if ("slot" in output) return SERVICE;
  return "consumer" in output ? CONSUMER_OUTPUTS[output.resource] : PIPELINE_OUTPUTS[output.resource];
}

function keyOf<T extends object>(words: T, word: string): keyof T | undefined {
  return (Object.keys(words) as (keyof T)[]).find((key) => words[key] === word);
}

/**
 * A name without its hyphens. Names have no capitals: one stands for a hyphen and its letter, and a Z for a hyphen before anything else
 * (or before a z), so that no two names become the same.
 */
function capitalized(name: string): string {
  const marked = name.replaceAll(/-([a-y])?/g, (_, letter?: string) => letter?.toUpperCase() ?? "Z");
  return `${marked.charAt(0).toUpperCase()}${marked.slice(1)}`;
}
