import { dirname, resolve, sep } from "node:path";
import { Stack, Token } from "aws-cdk-lib";
import type * as kms from "aws-cdk-lib/aws-kms";
import type { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { nearestPackage } from "../../lib/definition/find-definition.ts";
import type { ConsumerSettings } from "./consumer-function.ts";
import type { FunctionSettings } from "./function-settings.ts";

/*
 * Defaults and checks of single props of a pipeline.
 */

/** Returns the stage of a pipeline. @throws ConfigurationError where it cannot stand in a dimension, a search and a metric's name. */
export function stageOf(scope: Construct, given: string | undefined): string {
  if (given === undefined) return Stack.of(scope).stackName;
  if (Token.isUnresolved(given) || /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(given)) return given;
  const remedy =
    "write up to 128 letters, digits, dots, underscores and hyphens, beginning with a letter or digit, or leave it out for the stack's name";
  throw new ConfigurationError("CdcPipeline", [{ path: "stage", value: given, remedy }]);
}

/** Returns the keys that encrypt logs, by the props that name them. */
export function logKeys(
  { consumers }: Pipeline,
  settingsOf: (name: string) => ConsumerSettings,
  ofAll: kms.IKey | undefined,
): ReadonlyMap<string, kms.IKey> {
  const ofConsumers = consumers.flatMap(({ name }) => {
    const key = settingsOf(name).logEncryptionKey;
    return key ? [[`consumers.${name}.logEncryptionKey`, key] as const] : [];
  });
  return new Map([...(ofAll ? [["logEncryptionKey", ofAll] as const] : []), ...ofConsumers]);
}

/** @throws ConfigurationError where CloudWatch takes no dashboard of that name. */
export function checkDashboardName(name: string | undefined): void {
  if (name === undefined || Token.isUnresolved(name) || /^[A-Za-z0-9_-]{1,255}$/.test(name)) return;
  const remedy =
    "write up to 255 letters, digits, hyphens and underscores, or leave it out for the names of stack, pipeline and region";
  throw new ConfigurationError("CdcPipeline", [{ path: "dashboardName", value: name, remedy }]);
}

/** Returns the folder that entries are relative to: `dev` and the commands take that of the definition's file, mostly the same one. */
export function projectOfApp(): string {
  const main = process.argv[1];
  const isApp = main !== undefined && !main.split(sep).includes("node_modules");
  return (isApp ? nearestPackage(dirname(resolve(main))) : nearestPackage(process.cwd())) ?? process.cwd();
}

/** Returns the settings of a consumer, with what is said for all. @throws ConfigurationError when settings are given for a consumer that the definition does not have. */
export function consumerSettings(
  definition: Pipeline,
  given: Readonly<Record<string, ConsumerSettings>>,
  defaults: FunctionSettings = {},
) {
  const names = definition.consumers.map(({ name }) => name);
  const unknown = Object.keys(given).filter((name) => !names.includes(name));
  if (unknown.length > 0) {
    throw new ConfigurationError(
      "CdcPipeline",
      unknown.map((name) => ({
        path: `consumers.${name}`,
        value: name,
        remedy: `no such consumer in the definition; it has ${names.join(", ") || "none"}`,
      })),
    );
  }
  return (name: string): ConsumerSettings => {
    const own = given[name] ?? {};
    const bundling =
      defaults.bundling || own.bundling ? { ...defaults.bundling, ...own.bundling } : undefined;
    return { ...defaults, ...own, ...(bundling && { bundling }) };
  };
}
