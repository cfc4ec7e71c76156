import { Annotations } from "aws-cdk-lib";
import type * as lambda from "aws-cdk-lib/aws-lambda";
import type * as nodejs from "aws-cdk-lib/aws-lambda-nodejs";
import type { Construct } from "constructs";
import { ConfigurationError, type ConfigurationProblem } from "../../lib/change/tributary-error.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";

/** Settings of one consumer's functions, or defaults for those of all consumers. */
export interface FunctionSettings {
  /**
   * Concurrency reserved for the consumer's function, which is also its maximum. It does not apply to the redrive function. A value below
   * shards × parallelization is refused. Default: the account's unreserved concurrency.
   */
  readonly reservedConcurrency?: number;
  /** Size of `/tmp` in MiB, 512 to 10240. Default 512. */
  readonly ephemeralStorageMiB?: number;
  /** Lambda layers of the consumer's function and its redrive function, at most five. Default none. */
  readonly layers?: readonly lambda.ILayerVersion[];
  /** How the consumer's code is bundled. Default: one minified file with all imports, and a source map. */
  readonly bundling?: ConsumerBundling;
}

/** Bundling options of a consumer's code. The others are ours, since the library is in the bundle. */
export interface ConsumerBundling {
  /**
   * Packages to leave out because a layer or Lambda's runtime provides them. Not `tributary-cdc`. A consumer that sets this has no task
   * for `tributary verify --remote`. Default none.
   */
  readonly externalModules?: readonly string[];
  /** esbuild loaders by file extension, such as `{ ".sql": "text" }`. */
  readonly loader?: Readonly<Record<string, string>>;
  /** Expressions that esbuild replaces, such as `{ "process.env.STAGE": '"production"' }`. */
  readonly define?: Readonly<Record<string, string>>;
  /** More conditions for `exports` and `imports` in package.json, added to ours. */
  readonly conditions?: readonly string[];
  /** Minify the bundle. Default true. */
  readonly minify?: boolean;
  /** Include a source map, so that stack traces show source files and lines. Default true. */
  readonly sourceMap?: boolean;
  /** Path of a tsconfig.json for this bundle. */
  readonly tsconfig?: string;
  /**
   * More arguments for esbuild, such as `{ "--alias:lodash": "lodash-es" }`. Arguments that change the kind of the output file are refused. A
   * consumer that sets this has no task for `tributary verify --remote`.
   */
  readonly esbuildArgs?: Readonly<Record<string, string | boolean>>;
}

/** Chooses `lib/consume/dead-letter/redrive-elsewhere.ts` (package.json's imports). */
const CONSUMER_CONDITION = "tributary-consumer";
/** esbuild's own choice, where no others are given. */
const MODULE_CONDITION = "module";
/** A fresh stream that is on demand: https://docs.aws.amazon.com/streams/latest/dev/how-do-i-size-a-stream.html */
const FIRST_SHARDS = 4;
/** https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html */
const MAX_LAYERS = 5;
const STORAGE_MIB = { least: 512, most: 10_240 } as const;

/** Arguments of esbuild that are ours, and what to use instead. */
const OUR_ARGUMENTS: Readonly<Record<string, string>> = {
  "--conditions": "name yours in bundling.conditions, which are added to ours",
  "--external": "use bundling.externalModules",
  "--loader": "use bundling.loader",
  "--define": "use bundling.define",
  "--sourcemap": "use bundling.sourceMap",
  "--minify": "use bundling.minify",
  "--tsconfig": "use bundling.tsconfig",
  ...Object.fromEntries(
    [
      ...[
        "--bundle",
        "--platform",
        "--target",
        "--format",
        "--main-fields",
        "--outfile",
        "--outdir",
        "--splitting",
      ],
      ...["--banner", "--keep-names", "--packages", "--entry-names", "--out-extension", "--allow-overwrite"],
    ].map((name) => [
      name,
      "leave it out: the function is one ES module of the library's own kind, and would not start otherwise",
    ]),
  ),
};

/** Returns the conditions that a function's code is bundled under; `redrives`: with the code for that. */
export function conditions(bundling: ConsumerBundling = {}, redrives = false): string[] {
  const ours = redrives ? [] : [CONSUMER_CONDITION];
  const all = [...ours, ...(bundling.conditions ?? [])];
  return all.length > 0 ? [MODULE_CONDITION, ...all] : [];
}

/** Returns what of CDK's bundling options a consumer chooses. */
export function chosenBundling(bundling: ConsumerBundling = {}, redrives = false): nodejs.BundlingOptions {
  const { externalModules = [], loader, define, minify, sourceMap = true, tsconfig, esbuildArgs } = bundling;
  const chosen = conditions(bundling, redrives);
  return {
    sourceMap,
    // Node needs places alone: with the sources the map would be larger than all the code.
    ...(sourceMap && { sourcesContent: false }),
    externalModules: ["pg-native", ...externalModules],
    ...(loader && { loader: { ...loader } }),
    ...(define && { define: { ...define } }),
    ...(minify !== undefined && { minify }),
    ...(tsconfig && { tsconfig }),
    ...((chosen.length > 0 || esbuildArgs) && {
      esbuildArgs: { ...esbuildArgs, ...(chosen.length > 0 && { "--conditions": chosen.join(",") }) },
    }),
  };
}

/**
 * Checks the settings of a consumer's function, and says from how many shards on a reserved concurrency is too little.
 * @throws ConfigurationError
 */
export function checkFunctionSettings(
  scope: Construct,
  stream: Pipeline["stream"],
  consumer: Pipeline["consumers"][number],
  settings: FunctionSettings,
): void {
  const path = (field: string) => `consumers.${consumer.name}.${field}`;
  const problems: ConfigurationProblem[] = [
    ...concurrencyProblems(path("reservedConcurrency"), stream, consumer, settings),
    ...bundlingProblems(path("bundling"), settings.bundling ?? {}),
  ];
  const { ephemeralStorageMiB: storage, layers = [], reservedConcurrency } = settings;
  if (
    storage !== undefined &&
    !(Number.isInteger(storage) && storage >= STORAGE_MIB.least && storage <= STORAGE_MIB.most)
  )
    problems.push({
      path: path("ephemeralStorageMiB"),
      value: storage,
      remedy: `Lambda has ${STORAGE_MIB.least} to ${STORAGE_MIB.most} MiB: write a whole number between them, or leave it out for ${STORAGE_MIB.least}`,
    });
  if (layers.length > MAX_LAYERS)
    problems.push({
      path: path("layers"),
      value: `${layers.length} layers`,
      remedy: `Lambda takes ${MAX_LAYERS}: put what they hold into fewer, or into the bundle`,
    });
  if (problems.length > 0) throw new ConfigurationError("CdcPipeline", problems);
  if (reservedConcurrency !== undefined && stream.mode === "on-demand")
    Annotations.of(scope).addInfoV2(
      `tributary:reserved-concurrency-${consumer.name}`,
      `${path("reservedConcurrency")} of ${reservedConcurrency} is enough for ${Math.floor(reservedConcurrency / consumer.parallelization)} shards (parallelization ${consumer.parallelization}). The stream is on demand and grows by itself: above that Lambda throttles the consumer (alarm FunctionThrottled) and it lags behind, nothing is lost.`,
    );
}

function concurrencyProblems(
  path: string,
  stream: Pipeline["stream"],
  { name, parallelization }: Pipeline["consumers"][number],
  { reservedConcurrency: reserved }: FunctionSettings,
): ConfigurationProblem[] {
  if (reserved === undefined) return [];
  if (!Number.isInteger(reserved) || reserved < 1)
    return [
      {
        path,
        value: reserved,
        remedy: `write a whole number from 1 on, or leave it out for the account's concurrency: with 0 no change would take effect (to stop a consumer: tributary consumer pause --consumer ${name})`,
      },
    ];
  const shards = stream.mode === "provisioned" ? (stream.shards ?? 1) : FIRST_SHARDS;
  const needed = shards * parallelization;
  if (reserved >= needed) return [];
  const of = stream.mode === "provisioned" ? "the stream has" : "a stream that is on demand begins with";
  return [
    {
      path,
      value: reserved,
      remedy: `${of} ${shards} shards and parallelization is ${parallelization}, so Lambda invokes it ${needed} at once and would throttle the rest: reserve ${needed} or more, or lower parallelization`,
    },
  ];
}

function bundlingProblems(path: string, bundling: ConsumerBundling): ConfigurationProblem[] {
  const external = (bundling.externalModules ?? [])
    .filter((name) => /^(tributary-cdc($|\/)|[*.])/.test(name))
    .map((value) => ({
      path: `${path}.externalModules`,
      value,
      remedy:
        "name packages, and not tributary-cdc: the library is bundled, as the version that the stack is made for",
    }));
  const ours = (bundling.conditions ?? [])
    .filter((name) => name === CONSUMER_CONDITION || !/^[\w:-]+$/.test(name))
    .map((value) => ({
      path: `${path}.conditions`,
      value,
      remedy: `name conditions one by one, in letters, digits and hyphens; ${CONSUMER_CONDITION} is set by the stack where it belongs`,
    }));
  const args = Object.entries(bundling.esbuildArgs ?? {}).flatMap(([name, value]) => {
    const base = name.replace(/[:=].*$/, "");
    // --minify-syntax is a part of --minify.
    const whose = Object.keys(OUR_ARGUMENTS).find((own) => base === own || base.startsWith(`${own}-`));
    const remedy = whose && OUR_ARGUMENTS[whose];
    if (remedy !== undefined) return [{ path: `${path}.esbuildArgs`, value: `${name}=${value}`, remedy }];
    if (name.startsWith("--")) return [];
    return [
      {
        path: `${path}.esbuildArgs`,
        value: name,
        remedy: 'write arguments of esbuild, which begin with "--"',
      },
    ];
  });
  return [...external, ...ours, ...args];
}
