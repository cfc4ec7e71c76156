/*
 * Writes the tables of the props of CdcPipeline into 10-deploy.md, between the comments that name them, from the doc comments of their interfaces:
 *
 *   npx node docs/props-tables.ts
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const PAGE = fileURLToPath(new URL("10-deploy.md", import.meta.url));

/** The interfaces by what stands before their fields in a stack, as the page says it, and their files. */
const INTERFACES = [
  ["`new CdcPipeline(…, { … })`", "CdcPipelineProps", "cdc-pipeline"],
  ["`consumers: { <name>: { … } }`", "ConsumerSettings", "consumer-function"],
  ["the same, and for all consumers `consumerDefaults: { … }`", "FunctionSettings", "function-settings"],
  ["`bundling: { … }` of these", "ConsumerBundling", "function-settings"],
  ["`consumers: { <name>: { redrive: { … } } }`", "AutomaticRedriveSettings", "automatic-redrive-settings"],
  ["`capture: { … }`", "CaptureSettings", "capture-service"],
  ["`alarms: { … }`", "AlarmThresholds", "alarm-settings"],
  ["`alarms: { byName: { <alarm>: { … } } }`", "AlarmSetting", "alarm-settings"],
  ["`existing: { … }`", "ExistingResources", "existing-resources"],
  ["`warmThroughput: { … }`", "WarmThroughput", "warm-throughput"],
] as const;

/** One field of an interface. */
export interface Prop {
  readonly name: string;
  readonly optional: boolean;
  readonly type: string;
  /** Its doc comment in one line; empty where it has none. */
  readonly meaning: string;
}

/** Returns the fields of an interface in a source text, in their order. @throws Error where it is not there. */
export function propsOf(source: string, name: string): Prop[] {
  const body = new RegExp(`export interface ${name}\\b[^{]*\\{\\n(.*?)\\n\\}`, "s").exec(source)?.[1];
  if (body === undefined) throw new Error(`no interface ${name}`);
  return [
    ...body.matchAll(/(?:^ {2}\/\*\*((?:(?!\*\/).)*)\*\/\n)?^ {2}readonly (\w+)(\??):\s*([^;]*);/gms),
  ].map(([, comment = "", field = "", optional, type = ""]) => ({
    name: field,
    optional: optional === "?",
    type: type.replace(/\s+/g, " "),
    meaning: comment
      .replace(/^\s*\*? ?/gm, "")
      .replace(/\s+/g, " ")
      .trim(),
  }));
}

/** Returns all props, by what stands before them. */
export function allProps(): (Prop & { readonly before: string; readonly of: string })[] {
  return INTERFACES.flatMap(([before, of, file]) => {
    const source = readFileSync(new URL(`../cdk/constructs/${file}.ts`, import.meta.url), "utf8");
    return propsOf(source, of).map((prop) => ({ ...prop, before, of }));
  });
}

/** Gives the page with its table as it should be. @throws Error where it has no place for it. */
export function withProps(page: string): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  const code = (text: string) => (text.includes("`") ? `\`\` ${text} \`\`` : `\`${text}\``);
  const tables = INTERFACES.map(([before, of]) => {
    const rows = allProps()
      .filter((prop) => prop.of === of)
      .map(
        ({ name, optional, type, meaning }) =>
          `| \`${name}\`${optional ? "" : " (needed)"} | ${code(cell(type))} | ${cell(meaning)} |\n`,
      );
    return `${before}\n\n| prop | type | |\n|---|---|---|\n${rows.join("")}`;
  });
  const marks = /<!-- props -->\n.*<!-- end of props -->\n/s;
  if (!marks.test(page)) throw new Error("10-deploy.md has no place for the props");
  return page.replace(marks, () => `<!-- props -->\n${tables.join("\n")}<!-- end of props -->\n`);
}

if (import.meta.main) writeFileSync(PAGE, withProps(readFileSync(PAGE, "utf8")));
