import { CfnParameter, Duration, RemovalPolicy, Stack } from "aws-cdk-lib";
import * as dynamodb from "aws-cdk-lib/aws-dynamodb";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as kinesis from "aws-cdk-lib/aws-kinesis";
import * as kms from "aws-cdk-lib/aws-kms";
import * as s3 from "aws-cdk-lib/aws-s3";
import { beforeAll, describe, expect, test } from "vitest";
import { CdcPipeline } from "../../cdk/constructs/cdc-pipeline.ts";
import type { ExistingResources } from "../../cdk/constructs/existing-resources.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import {
  basics,
  definition,
  ENVIRONMENT,
  findings,
  newApp,
  resource,
  type Synthesized,
  synthesize,
} from "./stacks.ts";

const KEY = "arn:aws:kms:eu-central-1:123456789012:key/";
const keys = { stream: `${KEY}stream`, table: `${KEY}table`, bucket: `${KEY}bucket` };

function imported(stack: Stack): Required<ExistingResources> {
  const key = (name: keyof typeof keys) => kms.Key.fromKeyArn(stack, `${name}Key`, keys[name]);
  return {
    stream: kinesis.Stream.fromStreamAttributes(stack, "Stream", {
      streamArn: "arn:aws:kinesis:eu-central-1:123456789012:stream/theirs",
      encryptionKey: key("stream"),
    }),
    stateTable: dynamodb.Table.fromTableAttributes(stack, "Table", {
      tableArn: "arn:aws:dynamodb:eu-central-1:123456789012:table/theirs",
      encryptionKey: key("table"),
    }),
    claimBucket: s3.Bucket.fromBucketAttributes(stack, "Bucket", {
      bucketArn: "arn:aws:s3:::theirs",
      encryptionKey: key("bucket"),
    }),
  };
}

describe("resources that exist are used", () => {
  let made: Synthesized;
  beforeAll(() => {
    made = synthesize((stack) => ({
      definition: definition(),
      ...basics(stack),
      existing: imported(stack),
      capture: {
        securityGroups: ["sg-0123456789abcdef1", "sg-0123456789abcdef2"].map((id) =>
          ec2.SecurityGroup.fromSecurityGroupId(stack, id, id),
        ),
      },
      database: {
        host: "db.internal",
        securityGroup: ec2.SecurityGroup.fromSecurityGroupId(stack, "Database", "sg-0123456789abcdef0"),
      },
    }));
  });

  test("and none is made beside them", () => {
    const { template } = made;
    template.resourceCountIs("AWS::Kinesis::Stream", 0);
    template.resourceCountIs("AWS::DynamoDB::Table", 0);
    template.resourceCountIs("AWS::S3::Bucket", 0);
    // What verifies from no VPC has a way out of its own.
    expect(Object.keys(template.findResources("AWS::EC2::SecurityGroup"))).toEqual([
      expect.stringContaining("Verify"),
    ]);
    expect(findings(made)).toEqual([]);
  });

  test("by capture, consumers, mappings and outputs", () => {
    const { template } = made;
    const environment = JSON.stringify(resource(made, "AWS::ECS::TaskDefinition", "Capture").Properties);
    expect(environment).toContain('{"Name":"TRIBUTARY_STREAM","Value":"theirs"}');
    expect(environment).toContain('{"Name":"TRIBUTARY_STATE_TABLE","Value":"theirs"}');
    expect(environment).toContain("s3://theirs/changes");
    template.allResourcesProperties("AWS::Lambda::EventSourceMapping", {
      EventSourceArn: "arn:aws:kinesis:eu-central-1:123456789012:stream/theirs",
      DestinationConfig: { OnFailure: { Destination: "arn:aws:s3:::theirs" } },
    });
    const outputs = JSON.stringify(template.findOutputs("*"));
    expect(outputs).toContain('"Value":"s3://theirs/changes"');
  });

  test("each under its own key, and under no other", () => {
    const used = (part: string) => {
      const { PolicyDocument } = resource(made, "AWS::IAM::Policy", part).Properties as {
        PolicyDocument: { Statement: { Action: string | string[]; Resource: unknown }[] };
      };
      return PolicyDocument.Statement.filter(({ Action }) =>
        [Action].flat().every((one) => one.startsWith("kms:")),
      )
        .flatMap(({ Action, Resource }) =>
          [Resource]
            .flat()
            .map((of) => `${typeof of === "string" ? of.replace(KEY, "") : "own"}: ${[Action].flat()}`),
        )
        .toSorted();
    };
    const table =
      "table: kms:Decrypt,kms:DescribeKey,kms:Encrypt,kms:GenerateDataKey,kms:ReEncryptFrom,kms:ReEncryptTo";
    expect(used("CaptureTaskTaskRole")).toEqual([
      "bucket: kms:GenerateDataKey,kms:Decrypt",
      // Its dead-letter queue.
      expect.stringMatching(/^own: /),
      "stream: kms:Decrypt,kms:GenerateDataKey",
      table,
    ]);
    expect(used("Deployed")).toEqual(["table: kms:Decrypt,kms:Encrypt,kms:GenerateDataKey"]);
  });

  test("the task has the groups that are given, and the database lets them in", () => {
    made.template.hasResourceProperties("AWS::ECS::Service", {
      NetworkConfiguration: {
        AwsvpcConfiguration: { SecurityGroups: ["sg-0123456789abcdef1", "sg-0123456789abcdef2"] },
      },
    });
    const rules = Object.values(made.template.findResources("AWS::EC2::SecurityGroupIngress"));
    expect(
      rules.map(({ Properties }) => `${Properties.SourceSecurityGroupId} ${Properties.FromPort}`).toSorted(),
    ).toEqual(["sg-0123456789abcdef1 5432", "sg-0123456789abcdef2 5432"]);
  });
});

test("what has no key of its own needs none", () => {
  const made = synthesize((stack) => ({
    definition: definition(),
    ...basics(stack),
    existing: {
      stateTable: dynamodb.Table.fromTableName(stack, "Table", "theirs"),
      stream: kinesis.Stream.fromStreamArn(
        stack,
        "Stream",
        "arn:aws:kinesis:eu-central-1:123456789012:stream/theirs",
      ),
    },
  }));
  expect(findings(made)).toEqual([]);
  const { PolicyDocument } = resource(made, "AWS::IAM::Policy", "Deployed").Properties as {
    PolicyDocument: { Statement: unknown[] };
  };
  expect(PolicyDocument.Statement).toHaveLength(1);
  made.template.resourceCountIs("AWS::S3::Bucket", 1);
});

test("what the app makes as it must be is taken, with the keys of a table of the second kind", () => {
  const app = newApp();
  const stack = new Stack(app, "Data", { env: ENVIRONMENT });
  const existing = theirs(stack);
  new CdcPipeline(new Stack(app, "Test", { env: ENVIRONMENT }), "Pipeline", {
    definition: definition({ stream: { mode: "provisioned", shards: 2, retentionHours: 48 } }),
    ...basics(stack),
    existing,
  });
});

/** Good for a definition of two provisioned shards and 48 hours. */
function theirs(scope: Stack): Required<ExistingResources> {
  return {
    stream: new kinesis.Stream(scope, "Theirs", {
      shardCount: 2,
      streamMode: kinesis.StreamMode.PROVISIONED,
      retentionPeriod: Duration.hours(48),
    }),
    stateTable: new dynamodb.TableV2(scope, "TheirTable", {
      partitionKey: { name: "pk", type: dynamodb.AttributeType.STRING },
      sortKey: { name: "sk", type: dynamodb.AttributeType.STRING },
      timeToLiveAttribute: "expiresAt",
    }),
    claimBucket: new s3.Bucket(scope, "TheirBucket", {
      lifecycleRules: [
        { prefix: "logs/", expiration: Duration.days(1) },
        { prefix: "changes/", expiration: Duration.days(92) },
        { expiration: Duration.days(7), enabled: false },
      ],
    }),
  };
}

describe("what could not work is refused, with prop, value and remedy", () => {
  const table = (over: Partial<dynamodb.TableProps>) => (stack: Stack) => ({
    stateTable: new dynamodb.Table(stack, "Table", {
      partitionKey: { name: "pk", type: dynamodb.AttributeType.STRING },
      sortKey: { name: "sk", type: dynamodb.AttributeType.STRING },
      timeToLiveAttribute: "expiresAt",
      ...over,
    }),
  });
  const bucket =
    (...lifecycleRules: s3.LifecycleRule[]) =>
    (stack: Stack) => ({
      claimBucket: new s3.Bucket(stack, "Bucket", { lifecycleRules }),
    });
  const stream = (props: kinesis.StreamProps) => (stack: Stack) => ({
    stream: new kinesis.Stream(stack, "Stream", props),
  });
  const PROVISIONED = {
    streamMode: kinesis.StreamMode.PROVISIONED,
    shardCount: 1,
    retentionPeriod: Duration.hours(168),
  };
  const cases: [string, (stack: Stack) => ExistingResources, string, RegExp, RegExp][] = [
    ["a mode that differs", stream(PROVISIONED), "stream", /^provisioned$/, /write the stream's mode/],
    [
      "a shorter retention",
      stream({ streamMode: kinesis.StreamMode.ON_DEMAND, retentionPeriod: Duration.hours(30) }),
      "stream",
      /^30 hours/,
      /retentionHours of the definition is 168: raise/,
    ],
    ["other keys", table({ sortKey: undefined }), "stateTable", /^pk S HASH$/, /pk S HASH, sk S RANGE/],
    [
      "a key of another type",
      table({ sortKey: { name: "sk", type: dynamodb.AttributeType.NUMBER } }),
      "stateTable",
      /sk N RANGE/,
      /pk S HASH, sk S RANGE/,
    ],
    [
      "no time to live",
      table({ timeToLiveAttribute: undefined }),
      "stateTable",
      /^no time to live$/,
      /"expiresAt"/,
    ],
    ["another time to live", table({ timeToLiveAttribute: "ttl" }), "stateTable", /^ttl$/, /"expiresAt"/],
    [
      "a rule that removes claims",
      bucket({ id: "all", expiration: Duration.days(90) }),
      "claimBucket",
      /^rule all: 90 days/,
      /97 days/,
    ],
    [
      "one below our prefix",
      bucket({ prefix: "changes/shop/", expiration: Duration.days(1) }),
      "claimBucket",
      /1 days/,
      /97 days/,
    ],
    [
      "one by date",
      bucket({ expirationDate: new Date("2027-01-01T00:00:00Z") }),
      "claimBucket",
      /2027-01-01/,
      /another prefix/,
    ],
    [
      "a stream of another region",
      (stack) => ({
        stream: kinesis.Stream.fromStreamArn(
          stack,
          "Stream",
          "arn:aws:kinesis:us-east-1:123456789012:stream/theirs",
        ),
      }),
      "stream",
      /us-east-1/,
      /123456789012, eu-central-1/,
    ],
    [
      "a table of another account",
      (stack) => ({
        stateTable: dynamodb.Table.fromTableArn(
          stack,
          "Table",
          "arn:aws:dynamodb:eu-central-1:999999999999:table/theirs",
        ),
      }),
      "stateTable",
      /999999999999/,
      /123456789012, eu-central-1/,
    ],
  ];
  test.each(cases)("%s", (_, existing, prop, value, remedy) => {
    const problems = refusal((stack) => ({ existing: existing(stack) }));
    expect(problems).toEqual([
      {
        path: `existing.${prop}`,
        value: expect.stringMatching(value),
        remedy: expect.stringMatching(remedy),
      },
    ]);
  });

  test("records larger than the stream takes", () => {
    const problems = refusal((stack) => ({
      definition: definition({ stream: { maxRecordBytes: 4 * 1024 ** 2 } }),
      existing: stream({ streamMode: kinesis.StreamMode.ON_DEMAND, retentionPeriod: Duration.hours(168) })(
        stack,
      ),
    }));
    expect(problems).toEqual([
      {
        path: "existing.stream",
        value: "records of 1024 KiB",
        remedy: expect.stringContaining("to 4096, or lower"),
      },
    ]);
  });

  test.each([0, 6])("%d security groups", (count) => {
    const problems = refusal((stack) => ({
      capture: {
        securityGroups: Array.from({ length: count }, (_, i) =>
          ec2.SecurityGroup.fromSecurityGroupId(stack, `Group${i}`, `sg-0123456789abcdef${i}`),
        ),
      },
    }));
    expect(problems).toEqual([
      {
        path: "capture.securityGroups",
        value: `${count} groups`,
        remedy: expect.stringContaining("one to 5"),
      },
    ]);
  });

  test("a stream that another pipeline of the app has, and a table and a bucket that one of the same name has", () => {
    const app = newApp();
    const data = new Stack(app, "Data", { env: ENVIRONMENT });
    const shared = basics(data);
    const existing = theirs(data);
    const build = (stage: string, name: string, given: ExistingResources) =>
      new CdcPipeline(new Stack(app, stage, { env: ENVIRONMENT }), "Pipeline", {
        definition: definition({ name, stream: { mode: "provisioned", shards: 2, retentionHours: 48 } }),
        ...shared,
        existing: given,
      });
    build("Production", "shop", existing);
    const { stream, stateTable, claimBucket } = existing;
    expect(() => build("Other", "audit", { stream })).toThrow(
      /existing\.stream: Production\/Pipeline uses this stream/,
    );
    expect(() => build("Staging", "shop", { stateTable, claimBucket })).toThrow(
      /existing\.stateTable: Production\/Pipeline, a pipeline of the same name[\s\S]*existing\.claimBucket: Production/,
    );
    build("Audit", "audit", { stateTable, claimBucket });
    const twice = (stage: string) =>
      build(stage, "twice", {
        stateTable: dynamodb.Table.fromTableName(
          app.node.findChild("Data") as Stack,
          `Imported${stage}`,
          "one",
        ),
      });
    twice("First");
    expect(() => twice("Second")).toThrow(/existing\.stateTable: First\/Pipeline/);
  });
});

test("what is known at deploy only is let through", () => {
  synthesize((stack) => {
    const retention = new CfnParameter(stack, "Hours", { type: "Number", default: 168 }).valueAsNumber;
    const stream = new kinesis.Stream(stack, "Stream", {
      streamMode: kinesis.StreamMode.ON_DEMAND,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    (stream.node.defaultChild as kinesis.CfnStream).retentionPeriodHours = retention;
    return { definition: definition(), ...basics(stack), existing: { stream } };
  });
});

function refusal(props: (stack: Stack) => Partial<ConstructorParameters<typeof CdcPipeline>[2]>) {
  try {
    synthesize((stack) => ({ definition: definition(), ...basics(stack), ...props(stack) }));
  } catch (error) {
    if (error instanceof ConfigurationError) return error.problems;
    throw error;
  }
  throw new Error("it was not refused");
}
