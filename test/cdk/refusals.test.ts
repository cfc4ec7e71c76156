import { Duration, Stack } from "aws-cdk-lib";
import * as dynamodb from "aws-cdk-lib/aws-dynamodb";
import * as kms from "aws-cdk-lib/aws-kms";
import * as lambda from "aws-cdk-lib/aws-lambda";
import { expect, test } from "vitest";
import { CdcPipeline, type CdcPipelineProps } from "../../cdk/constructs/cdc-pipeline.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import type { PipelineInput } from "../../lib/definition/pipeline.ts";
import { basics, definition, ENVIRONMENT, newApp } from "./stacks.ts";

/*
 * Every prop, and every combination of props, that is refused at synth: what stands there, and what the error says of it.
 */

interface Refusal {
  readonly what: string;
  readonly definition?: Partial<PipelineInput>;
  readonly props: (stack: Stack) => Partial<Omit<CdcPipelineProps, "definition">>;
  /** What the error names: prop, value, and a word of the remedy. */
  readonly path: string;
  readonly value: unknown;
  readonly remedy: RegExp;
}

const provisioned: Partial<PipelineInput> = { stream: { mode: "provisioned", shards: 4 } };
const bundling = (given: NonNullable<CdcPipelineProps["consumerDefaults"]>["bundling"]) => () => ({
  consumers: { notifications: { bundling: given ?? {} } },
});

const REFUSALS: readonly Refusal[] = [
  {
    what: "a stage that cannot stand in a metric",
    props: () => ({ stage: "a/b" }),
    path: "stage",
    value: "a/b",
    remedy: /letters, digits/,
  },
  {
    what: "the address of a runbook with an anchor of its own",
    props: () => ({ runbook: "https://wiki.example/tributary#alarms" }),
    path: "runbook",
    value: "https://wiki.example/tributary#alarms",
    remedy: /without a part behind #/,
  },
  {
    what: "settings of a consumer that there is not",
    props: () => ({ consumers: { notification: {} } }),
    path: "consumers.notification",
    value: "notification",
    remedy: /it has customer-view, notifications/,
  },
  {
    what: "a concurrency of 0",
    props: () => ({ consumers: { notifications: { reservedConcurrency: 0 } } }),
    path: "consumers.notifications.reservedConcurrency",
    value: 0,
    remedy: /tributary consumer pause/,
  },
  {
    what: "a concurrency below what shards and lanes need",
    definition: provisioned,
    props: () => ({ consumerDefaults: { reservedConcurrency: 3 } }),
    path: "consumers.customer-view.reservedConcurrency",
    value: 3,
    remedy: /4 shards and parallelization is 1, so Lambda invokes it 4 at once.*reserve 4 or more/,
  },
  {
    what: "a concurrency that is enough for shards, but not for their lanes",
    definition: {
      ...provisioned,
      consumers: [
        { name: "notifications", entry: "functions/notifications.ts", topics: ["*"], parallelization: 2 },
      ],
    },
    props: () => ({ consumers: { notifications: { reservedConcurrency: 5 } } }),
    path: "consumers.notifications.reservedConcurrency",
    value: 5,
    remedy: /reserve 8 or more/,
  },
  {
    what: "a concurrency below what a stream on demand begins with",
    props: () => ({ consumers: { notifications: { reservedConcurrency: 3 } } }),
    path: "consumers.notifications.reservedConcurrency",
    value: 3,
    remedy: /begins with 4 shards.*reserve 4 or more/,
  },
  {
    what: "storage that Lambda does not have",
    props: () => ({ consumerDefaults: { ephemeralStorageMiB: 20_000 } }),
    path: "consumers.customer-view.ephemeralStorageMiB",
    value: 20_000,
    remedy: /512 to 10240/,
  },
  {
    what: "six layers",
    props: (stack) => ({
      consumers: {
        notifications: {
          layers: Array.from({ length: 6 }, (_, i) =>
            lambda.LayerVersion.fromLayerVersionArn(
              stack,
              `Layer${i}`,
              `arn:aws:lambda:eu-central-1:123456789012:layer:l${i}:1`,
            ),
          ),
        },
      },
    }),
    path: "consumers.notifications.layers",
    value: "6 layers",
    remedy: /Lambda takes 5/,
  },
  {
    what: "the library left out of a bundle",
    props: bundling({ externalModules: ["tributary-cdc/sink"] }),
    path: "consumers.notifications.bundling.externalModules",
    value: "tributary-cdc/sink",
    remedy: /the library is bundled/,
  },
  {
    what: "everything left out of a bundle",
    props: bundling({ externalModules: ["*"] }),
    path: "consumers.notifications.bundling.externalModules",
    value: "*",
    remedy: /name packages/,
  },
  {
    what: "the library's own condition",
    props: bundling({ conditions: ["tributary-consumer"] }),
    path: "consumers.notifications.bundling.conditions",
    value: "tributary-consumer",
    remedy: /set by the stack/,
  },
  ...(
    [
      ["--conditions", "production", /bundling\.conditions/],
      ["--external:sharp", true, /bundling\.externalModules/],
      ["--minify-syntax", true, /bundling\.minify/],
      ["--format", "cjs", /one ES module/],
      ["--banner:js", "x", /one ES module/],
    ] as const
  ).map(([name, value, remedy]) => ({
    what: `${name} for esbuild`,
    props: bundling({ esbuildArgs: { [name]: value } }),
    path: "consumers.notifications.bundling.esbuildArgs",
    value: `${name}=${value}`,
    remedy,
  })),
  {
    what: "what is no argument of esbuild",
    props: bundling({ esbuildArgs: { jsx: "automatic" } }),
    path: "consumers.notifications.bundling.esbuildArgs",
    value: "jsx",
    remedy: /begin with "--"/,
  },
  {
    what: "an alias as the key of logs",
    props: (stack) => ({ logEncryptionKey: kms.Alias.fromAliasName(stack, "Alias", "alias/logs") }),
    path: "logEncryptionKey",
    value: "alias/logs",
    remedy: /name the key itself/,
  },
  ...(
    [
      ["a field that there is not", { lagByte: 5 }, "lagByte", "lagByte", /did you mean lagBytes\?/],
      ["a lag of 0 bytes", { lagBytes: 0 }, "lagBytes", 0, /above 0.*byName/],
      ["more than all of the WAL", { walBudgetPercent: 130 }, "walBudgetPercent", 130, /up to 100/],
      ["a number for a time", { freshness: 900 }, "freshness", 900, /Duration\.minutes/],
      [
        "a misspelt alarm",
        { byName: { SlotInactve: false } },
        "byName.SlotInactve",
        "SlotInactve",
        /SlotInactive\?/,
      ],
      [
        "a consumer that there is not",
        { byName: { "Late-notification": false } },
        "byName.Late-notification",
        "Late-notification",
        /did you mean Late-notifications/,
      ],
      [
        "what is near no alarm",
        { byName: { Everything: false } },
        "byName.Everything",
        "Everything",
        /it has .*Late/,
      ],
      ["true for an alarm", { byName: { Late: true } }, "byName.Late", true, /write false/],
      [
        "a field of an alarm that there is not",
        { byName: { Late: { treshold: 5 } } },
        "byName.Late.treshold",
        "treshold",
        /did you mean threshold\?/,
      ],
      [
        "a number for an alarm's time",
        { byName: { Late: { threshold: 5 } } },
        "byName.Late.threshold",
        5,
        /Duration/,
      ],
      [
        "a time for an alarm's number",
        { byName: { Errors: { threshold: Duration.minutes(5) } } },
        "byName.Errors.threshold",
        "Duration.minutes(5)",
        /number above 0/,
      ],
      ["half a period", { byName: { Errors: { periods: 0.5 } } }, "byName.Errors.periods", 0.5, /1 to 1440/],
      [
        "more than a day of starts",
        { byName: { CaptureRestarting: { periods: 97 } } },
        "byName.CaptureRestarting.periods",
        97,
        /1 to 96/,
      ],
      [
        "more periods than are looked at",
        { byName: { Unread: { periods: 13 } } },
        "byName.Unread.periods",
        13,
        /looks at 12/,
      ],
      [
        "a severity that there is not",
        { byName: { Late: { severity: "urgent" } } },
        "byName.Late.severity",
        "urgent",
        /"page" or "ticket"/,
      ],
    ] as const
  ).map(([what, alarms, path, value, remedy]) => ({
    what: `alarms: ${what}`,
    // As plain JavaScript gives it.
    props: () => ({ alarms: alarms as CdcPipelineProps["alarms"] & object }),
    path: `alarms.${path}`,
    value,
    remedy,
  })),
  ...(
    [
      ["streamMiBps", 0, /from 1 to 10240/],
      ["stateTableReadUnits", 11_999, /12000 units by itself/],
      ["stateTableWriteUnits", 4000.5, /4000 units by itself/],
    ] as const
  ).map(([field, value, remedy]) => ({
    what: `warm throughput: ${field} of ${value}`,
    props: () => ({ warmThroughput: { [field]: value } }),
    path: `warmThroughput.${field}`,
    value,
    remedy,
  })),
  {
    what: "warm throughput of a provisioned stream",
    definition: provisioned,
    props: () => ({ warmThroughput: { streamMiBps: 10 } }),
    path: "warmThroughput.streamMiBps",
    value: 10,
    remedy: /raise stream\.shards/,
  },
  {
    what: "warm throughput of a table that is there already",
    props: (stack) => ({
      existing: { stateTable: dynamodb.Table.fromTableName(stack, "Theirs", "theirs") },
      warmThroughput: { stateTableReadUnits: 20_000 },
    }),
    path: "warmThroughput.stateTableReadUnits",
    value: 20_000,
    remedy: /whoever made it warms it/,
  },
  {
    what: "a dashboard's name with a slash",
    props: () => ({ dashboardName: "shop/orders" }),
    path: "dashboardName",
    value: "shop/orders",
    remedy: /letters, digits, hyphens and underscores/,
  },
];

test.each(REFUSALS)("$what: refused, with prop, value and remedy", (refusal) => {
  const stack = new Stack(newApp(), "Test", { env: ENVIRONMENT });
  const build = () =>
    new CdcPipeline(stack, "Pipeline", {
      ...basics(stack),
      definition: definition(refusal.definition),
      ...refusal.props(stack),
    });
  const problem = problemsOf(build).find(({ path }) => path === refusal.path);
  expect(problem).toMatchObject({ path: refusal.path, value: refusal.value });
  expect(problem?.remedy).toMatch(refusal.remedy);
});

function problemsOf(build: () => unknown) {
  try {
    build();
  } catch (error) {
    if (!(error instanceof ConfigurationError)) throw error;
    // What is read: `path: remedy (got value)`.
    for (const { path, remedy } of error.problems)
      expect(error.message).toContain(`${path}: ${remedy} (got `);
    return error.problems;
  }
  throw new Error("nothing was refused");
}
