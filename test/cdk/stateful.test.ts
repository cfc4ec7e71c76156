import { App, RemovalPolicy, Stack } from "aws-cdk-lib";
import { Match, Template } from "aws-cdk-lib/assertions";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as ecs from "aws-cdk-lib/aws-ecs";
import * as kms from "aws-cdk-lib/aws-kms";
import * as logs from "aws-cdk-lib/aws-logs";
import { describe, expect, test } from "vitest";
import { CdcPipeline, type CdcPipelineProps } from "../../cdk/constructs/cdc-pipeline.ts";
import { type PipelineInput, postgres } from "../../lib/definition/pipeline.ts";
import deployedBefore from "./fixtures/deployed-before.json" with { type: "json" };
import { effectOf, isStateful, type Resources } from "./replaced.ts";
import { basics, definition, findings, full, synthesize } from "./stacks.ts";

const ARN = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-00000000000";

type Props = (stack: Stack) => Partial<CdcPipelineProps>;

interface Made {
  readonly Resources: Resources;
  readonly Parameters: Readonly<Record<string, { readonly Default: string }>>;
  readonly Rules: Readonly<Record<string, { readonly Assertions: readonly Assertion[] }>>;
}

interface Assertion {
  readonly Assert: { readonly "Fn::Equals": readonly [{ readonly Ref: string }, string] };
  readonly AssertDescription: string;
}

/** The template of a pipeline that differs from the others in so much. */
function made(props: Props = () => ({}), over: Partial<PipelineInput> = {}): Made {
  const app = new App({ context: { "aws:cdk:bundling-stacks": [] } });
  const stack = new Stack(app, "Test", { env: { account: "123456789012", region: "eu-central-1" } });
  new CdcPipeline(stack, "Pipeline", { ...basics(stack), definition: definition(over), ...props(stack) });
  return Template.fromStack(stack).toJSON() as unknown as Made;
}

function resources(props?: Props, over?: Partial<PipelineInput>): Resources {
  return made(props, over).Resources;
}

const CONSUMERS = definition().consumers.map(({ name, entry, topics }) => ({ name, entry, topics }));
const [VIEW, NOTIFICATIONS] = CONSUMERS as [(typeof CONSUMERS)[0], (typeof CONSUMERS)[0]];
const base = resources();
/** Those that the pipeline makes: its VPC is a test's own. */
const ours = (of: Resources) => Object.entries(of).filter(([id]) => id.startsWith("Pipeline"));

/** Logical ids without their hash, of resources that hold data or feed a consumer. */
function named(ids: readonly string[], of: Resources): string[] {
  return ids
    .filter((id) => of[id] && (isStateful(of[id]) || of[id].Type === "AWS::Lambda::EventSourceMapping"))
    .map((id) => id.replace(/^Pipeline/, "").replace(/[0-9A-F]{8}$/, ""))
    .sort();
}

interface Change {
  readonly props?: Props;
  readonly definition?: Partial<PipelineInput>;
  /** Before the change, where that is not the smallest pipeline. */
  readonly from?: Change;
  readonly replaced?: readonly string[];
  readonly removed?: readonly string[];
}

const consumers = (...list: readonly object[]) => ({ consumers: list }) as Partial<PipelineInput>;
const image =
  (tag: string): Props =>
  () => ({ capture: { image: ecs.ContainerImage.fromRegistry(tag) } });

/** What an owner changes in the life of a pipeline, and all that it takes with it. */
const changes: Readonly<Record<string, Change>> = {
  "a further table": {
    from: { definition: { source: postgres({ tables: ["public.customers"] }) } },
    definition: { source: postgres({ tables: ["public.customers", "public.orders"] }) },
  },
  "a further consumer": {
    definition: consumers(VIEW, NOTIFICATIONS, { ...VIEW, name: "search" }),
  },
  "a renamed consumer": {
    definition: consumers(VIEW, { ...NOTIFICATIONS, name: "letters" }),
    removed: [
      "ConsumernotificationsDeadLettersQueue",
      "ConsumernotificationsHandlerLogs",
      "ConsumernotificationsMapping",
      "ConsumernotificationsRedriveHandlerLogs",
    ],
  },
  "a key of one's own": {
    props: (stack) => ({
      encryptionKey: kms.Key.fromKeyArn(stack, "Own", `${ARN}1`),
      previousKeys: [kms.Key.fromKeyArn(stack, "Former", `${ARN}2`)],
    }),
    removed: ["Key"],
  },
  "fan-out switched on": {
    props: () => ({ consumers: { notifications: { enhancedFanOut: true } } }),
    replaced: ["ConsumernotificationsMapping"],
  },
  "a longer retention": { definition: { stream: { retentionHours: 336 } } },
  "larger records": { definition: { stream: { maxRecordBytes: 4 * 1024 * 1024 } } },
  "from on-demand to provisioned": { definition: { stream: { mode: "provisioned", shards: 4 } } },
  "another batch size": { definition: consumers(VIEW, { ...NOTIFICATIONS, batchSize: 50 }) },
  "other topics": { definition: consumers(VIEW, { ...NOTIFICATIONS, topics: ["*.public.letters"] }) },
  "more memory": {
    props: () => ({ capture: { memoryMiB: 4096, cpu: 2048 } }),
    definition: consumers(VIEW, { ...NOTIFICATIONS, memoryMB: 2048 }),
  },
  "another stage": { props: () => ({ stage: "staging" }) },
  "another threshold": { props: () => ({ alarms: { lagBytes: 5 * 1024 ** 3, walBudgetPercent: 50 } }) },
  "a newer image of capture": { from: { props: image("capture:1") }, props: image("capture:2") },
  "other subnets": { props: () => ({ vpcSubnets: { subnetType: ec2.SubnetType.PUBLIC } }) },
  "a further slot": { definition: { source: postgres({ tables: ["public.*"], slots: 2 }) } },
  "logs for longer": { props: () => ({ logRetention: logs.RetentionDays.ONE_YEAR }) },
  "a schedule of redrive": { props: () => ({ consumers: { notifications: { redrive: { queue: true } } } }) },
  "data that goes with the stack": { props: () => ({ removalPolicy: RemovalPolicy.DESTROY }) },
};

describe("a deploy replaces and takes away nothing that holds data", () => {
  test.each(Object.entries(changes))("%s", (_, change) => {
    const before = change.from ? resources(change.from.props, change.from.definition) : base;
    const { replaced, removed } = effectOf(before, resources(change.props, change.definition));
    expect(named(replaced, before)).toEqual(change.replaced ?? []);
    expect(named(removed, before)).toEqual(change.removed ?? []);
    // What leaves the stack with its consumer, or its key, stays in the account.
    for (const id of removed.filter((one) => before[one] && isStateful(before[one])))
      expect([id, before[id]?.DeletionPolicy]).toEqual([id, "RetainExceptOnCreate"]);
  });

  /** Stacks stand that an earlier version deployed (8af3cb9, the definition `full`): their logical ids are a format, like what is stored. */
  test("a stack of an earlier version keeps all that holds data or feeds a consumer, each in its place", () => {
    const before = deployedBefore as Resources;
    const now = full().template.toJSON().Resources as Resources;
    expect(effectOf(before, now)).toEqual({ replaced: [], removed: [] });
    for (const id of Object.keys(before))
      expect([id, now[id]?.DeletionPolicy]).toEqual([id, before[id]?.DeletionPolicy]);
  });

  test("the comparison sees a replacement, and what follows from it", () => {
    const [table = ""] = Object.keys(base).filter((id) => base[id]?.Type === "AWS::DynamoDB::Table");
    const { replaced } = effectOf(base, {
      ...base,
      [table]: { Type: "AWS::DynamoDB::Table", Properties: { TableName: "named" } },
    });
    expect(named(replaced, base)).toEqual(["StateTable"]);
    const stream = Object.keys(base).find((id) => base[id]?.Type === "AWS::Kinesis::Stream") ?? "";
    const moved = effectOf(base, {
      ...base,
      [stream]: { Type: "AWS::Kinesis::Stream", Properties: { Name: "n" } },
    });
    expect(named(moved.replaced, base)).toEqual([
      ...["ChangeStream", "ConsumercustomerviewMapping", "ConsumernotificationsMapping"],
    ]);
  });
});

describe("a first deploy that fails", () => {
  test("leaves nothing: CloudFormation may delete what it made, also what it keeps later", () => {
    expect(JSON.stringify(ours(base))).not.toMatch(/DeletionProtection|TerminationProtection/);
    const policies = ours(base).map(([id, { DeletionPolicy = "Delete" }]) => [id, DeletionPolicy]);
    expect(policies.filter(([, policy]) => policy === "Retain" || policy === "Snapshot")).toEqual([]);
  });

  test("nothing that is kept has a name of ours: what an operator left behind is in nobody's way", () => {
    const kept = Object.values(base).filter(
      ({ DeletionPolicy }) => DeletionPolicy === "RetainExceptOnCreate",
    );
    expect(new Set(kept.map(({ Type }) => Type))).toEqual(
      new Set(
        ["DynamoDB::Table", "KMS::Key", "Kinesis::Stream", "Logs::LogGroup", "S3::Bucket", "SQS::Queue"].map(
          (type) => `AWS::${type}`,
        ),
      ),
    );
    for (const { Properties = {} } of kept)
      for (const name of ["BucketName", "LogGroupName", "Name", "QueueName", "TableName"])
        expect(Properties).not.toHaveProperty(name);
  });

  test("functions make no log group of their own, which would stay behind", () => {
    expect(JSON.stringify(ours(base))).not.toContain("logs:CreateLogGroup");
    for (const [, { Type, Properties }] of ours(base))
      if (Type === "AWS::Lambda::Function" && String(Properties?.Description).startsWith("Tributary"))
        expect(Properties).toHaveProperty("LoggingConfig.LogGroup");
  });
});

describe("a change of the encryption key", () => {
  const key = (stack: Stack, number: number) =>
    (stack.node.tryFindChild(`Key${number}`) as kms.IKey | undefined) ??
    kms.Key.fromKeyArn(stack, `Key${number}`, `${ARN}${number}`);
  /** Undefined: the pipeline's own. */
  const keyed =
    (number?: number, ...previous: number[]): Props =>
    (stack) => ({
      ...(number === undefined ? {} : { encryptionKey: key(stack, number) }),
      previousKeys: previous.map((one) => key(stack, one)),
    });
  const templates = new Map<string, Made>();
  /** The template with these keys, synthesized once. */
  const withKeys = (...keys: (number | undefined)[]): Made => {
    const known = templates.get(keys.join()) ?? made(keyed(...(keys as number[])));
    templates.set(keys.join(), known);
    return known;
  };

  /** Deploys one after another as `cdk deploy` does, which hands on a parameter's value; returns what refuses the last one. */
  function refusal(...deploys: readonly Made[]): string | undefined {
    let values: Readonly<Record<string, string>> = {};
    let refused: string | undefined;
    for (const { Parameters, Rules } of deploys) {
      const had = values;
      values = Object.fromEntries(
        Object.entries(Parameters).map(([id, { Default }]) => [id, had[id] ?? Default]),
      );
      refused = Object.entries(Rules)
        .filter(([id]) => id.startsWith("Tributary"))
        .flatMap(([, { Assertions }]) => Assertions)
        .find(
          ({
            Assert: {
              "Fn::Equals": [{ Ref }, wanted],
            },
          }) => values[Ref] !== wanted,
        )?.AssertDescription;
    }
    return refused;
  }

  test("is refused before anything is touched, with the way to do it", () => {
    const words = refusal(withKeys(1), withKeys(2));
    expect(words).toMatch(/TributaryShopEncryptionKey .*previousKeys of CdcPipeline.*Nothing was touched/);
    expect(refusal(withKeys(), withKeys(1))).toBe(words?.replaceAll(`${ARN}2`, `${ARN}1`));
    expect(refusal(withKeys(1), withKeys())).toContain("previousKeys");
    expect(words?.length).toBeLessThan(1024);
  });

  test("is let through where the former key is named, and then a second change is refused again", () => {
    expect(refusal(withKeys(1), withKeys(2, 1))).toBeUndefined();
    expect(refusal(withKeys(), withKeys(2, 1), withKeys(2, 1), withKeys(3, 1))).toContain("previousKeys");
    expect(refusal(withKeys(), withKeys(2, 1), withKeys(3, 1, 2))).toBeUndefined();
    expect(refusal(withKeys(1), withKeys(2, 1), withKeys(2))).toBeUndefined();
  });

  test("may be prepared by a deploy under which the new key is read already: a rollback comes back to it", () => {
    expect(refusal(withKeys(1), withKeys(1, 2), withKeys(2, 1))).toBeUndefined();
    const readers = (of: Made) =>
      Object.values(of.Resources).filter(
        ({ Type, Properties }) =>
          Type === "AWS::IAM::Policy" &&
          JSON.stringify(Properties).includes(`"kms:Decrypt","Effect":"Allow","Resource":"${ARN}2"`),
      );
    expect(readers(withKeys(1, 2)).length).toBe(6);
  });

  test("a deploy that changes something else is none", () => {
    expect(
      refusal(
        withKeys(),
        made(() => ({ alarms: { lagBytes: 1 } })),
        withKeys(),
      ),
    ).toBeUndefined();
    const own = made((stack) => ({ encryptionKey: new kms.Key(stack, "Owners") }));
    expect(refusal(own, own)).toBeUndefined();
    expect(refusal(own, withKeys(1))).toContain("previousKeys");
  });

  test("whoever reads under the key reads under the previous ones too, and nobody stores under them", () => {
    const policies = Object.entries(withKeys(2, 1).Resources).filter(
      ([, { Type }]) => Type === "AWS::IAM::Policy",
    );
    const actions = (properties: object, arn: string) =>
      (
        properties as { PolicyDocument: { Statement: { Action: string | string[]; Resource: unknown }[] } }
      ).PolicyDocument.Statement.filter(({ Resource }) => JSON.stringify(Resource).includes(arn)).flatMap(
        ({ Action }) => Action,
      );
    const readers = policies.flatMap(([id, { Properties = {} }]) => {
      const [now, before] = [actions(Properties, `${ARN}2`), actions(Properties, `${ARN}1`)];
      expect([id, before]).toEqual([
        id,
        now.includes("kms:Decrypt") && id.startsWith("Pipeline") && !id.includes("Deployed")
          ? ["kms:Decrypt"]
          : [],
      ]);
      return before.length > 0 ? [id.replace(/^Pipeline|RoleDefaultPolicy.*$/g, "")] : [];
    });
    expect(readers.sort()).toEqual([
      "CaptureTaskTask",
      ...["customerview", "notifications"].flatMap((name) => [
        `Consumer${name}Handler`,
        `Consumer${name}RedriveHandler`,
      ]),
      "Verifycustomerview",
    ]);
  });

  test.each<[string, Props, RegExp]>([
    [
      "an alias",
      (stack) => ({ encryptionKey: kms.Alias.fromAliasName(stack, "A", "alias/a") }),
      /encryptionKey: name the key itself.*got/s,
    ],
    ["the key itself", keyed(1, 1), /previousKeys\[0\]: leave it out: encryptionKey is the same key.*got/s],
    ["no key twice", keyed(1, 2, 3), /no error/],
    [
      "a key twice",
      (stack) => ({ previousKeys: [key(stack, 1), kms.Key.fromKeyArn(stack, "Twin", `${ARN}1`)] }),
      /previousKeys\[1\]: leave it out: previousKeys\[0\] is the same key/,
    ],
  ])("%s among the keys is told at synth", (_, props, words) => {
    let said = "no error";
    try {
      made(props);
    } catch (error) {
      said = String(error);
    }
    expect(said).toMatch(words);
  });
});

test("enhanced fan-out says at synth what it has read again, and by what it begins", () => {
  const { template, annotations } = synthesize((stack) => ({
    ...basics(stack),
    definition: definition(),
    consumers: { notifications: { enhancedFanOut: true } },
  }));
  annotations.hasInfo("*", Match.stringLikeRegexp("enhancedFanOut of notifications: .*reads again .*168 h"));
  for (const { Properties } of Object.values(template.findResources("AWS::Lambda::EventSourceMapping"))) {
    expect(Properties.StartingPosition).toBe("TRIM_HORIZON");
    expect(Properties).not.toHaveProperty("StartingPositionTimestamp");
  }
});

test("a key that may be deleted by the change of keys is warned of, nothing else is", () => {
  const key = (stack: Stack, id: string) => kms.Key.fromKeyArn(stack, id, `${ARN}${id.length}`);
  const of = (removalPolicy: RemovalPolicy, ...previous: string[]) =>
    findings(
      synthesize((stack) => ({
        ...{ ...basics(stack), definition: definition(), removalPolicy },
        ...{ encryptionKey: key(stack, "New"), previousKeys: previous.map((id) => key(stack, id)) },
      })),
    ).join();
  expect(of(RemovalPolicy.DESTROY, "Former")).toMatch(
    /former key.*RETAIN_ON_UPDATE_OR_DELETE.*cancel-key-deletion/,
  );
  expect(of(RemovalPolicy.DESTROY)).toBe("");
  expect(of(RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE, "Former")).toBe("");
});

test("data that goes with the stack: the bucket is emptied, and nothing is kept", () => {
  const gone = synthesize((stack) => ({
    ...basics(stack),
    definition: definition(),
    removalPolicy: RemovalPolicy.DESTROY,
  }));
  expect(findings(gone)).toEqual([]);
  const all = gone.template.toJSON().Resources as Resources;
  for (const [id, found] of ours(all))
    if (isStateful(found)) expect([id, found.DeletionPolicy]).toEqual([id, "Delete"]);
  const [bucket] = Object.keys(gone.template.findResources("AWS::S3::Bucket"));
  gone.template.hasResourceProperties("Custom::S3AutoDeleteObjects", { BucketName: { Ref: bucket } });
  expect(Object.values(base).map(({ Type }) => Type)).not.toContain("Custom::S3AutoDeleteObjects");
});
