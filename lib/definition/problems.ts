import type * as z from "zod";
import type { ConfigurationProblem } from "../change/tributary-error.ts";

/*
 * Describes the problems of a definition for its author: the field, what stands there, what to write instead.
 */

const KINDS: Readonly<Record<string, string>> = {
  string: "a text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list: […]",
  object: "an object: {…}",
  record: "an object: {…}",
};

/** Remedies for fields whose schema does not say itself what to write. */
export const remedyOf: z.core.$ZodErrorMap = (issue) => {
  if (issue.code === "invalid_type")
    return issue.expected === "never" ? "leave it out" : `write ${KINDS[issue.expected] ?? issue.expected}`;
  if (issue.code === "invalid_value")
    return `write ${issue.values.map((value) => JSON.stringify(value)).join(" or ")}`;
  if (issue.code === "too_big") return `write at most ${issue.maximum}`;
  if (issue.code !== "too_small") return undefined;
  if (issue.origin === "string") return "write something: it is empty";
  return issue.origin === "array" ? "name at least one, or leave it out" : `write at least ${issue.minimum}`;
};

/** All that a schema found wrong with a definition. */
export function definitionProblems(error: z.core.$ZodError, definition: unknown): ConfigurationProblem[] {
  return error.issues.flatMap((issue): ConfigurationProblem[] => {
    const { path } = issue;
    if (issue.code === "unrecognized_keys") {
      const kind = path[0] === "source" && path.length === 1 ? at(["source", "kind"], definition) : undefined;
      const where = typeof kind === "string" ? `no such field of a ${kind} source` : "no such field";
      return issue.keys.map((key) => ({
        path: show([...path, key]),
        value: at([...path, key], definition),
        remedy: `${where}: remove it or correct its name`,
      }));
    }
    if (issue.code === "invalid_key") {
      // The key itself is wrong, not what stands under it.
      return issue.issues.map(({ message }) => ({ path: show(path), value: path.at(-1), remedy: message }));
    }
    return [{ path: show(path) || "(definition)", value: at(path, definition), remedy: issue.message }];
  });
}

function at(path: readonly PropertyKey[], definition: unknown): unknown {
  return path.reduce<unknown>(
    (value, key) => (value as Record<PropertyKey, unknown> | null | undefined)?.[key],
    definition,
  );
}

/** A path as code writes it: `consumers[0].topics`, `source.where["public.orders"]`. */
function show(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`;
    const name = String(key);
    if (!/^[\w$]+$/.test(name)) return `${text}[${JSON.stringify(name)}]`;
    return text ? `${text}.${name}` : name;
  }, "");
}
