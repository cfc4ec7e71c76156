import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Annotations, Match } from "aws-cdk-lib/assertions";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import { describe, expect, test } from "vitest";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { ASSUMPTIONS } from "../../lib/cost/assumptions.ts";
import { outbox, type PipelineInput, triggers } from "../../lib/definition/pipeline.ts";
import { entriesOf } from "../../lib/explain/catalogue.ts";
import { addSourceKind } from "../../lib/source/index.ts";
import {
  CAPTURE_METRIC,
  CONSUMER_METRIC,
  PAUSE_METRIC,
  REDRIVE_METRIC,
  STANDING_METRIC,
} from "../../lib/telemetry/metrics.ts";
import { toy, toyKind } from "../unit/source/toy/kind.ts";
import {
  basics,
  definition,
  findings,
  full,
  imported,
  minimal,
  resource,
  type Synthesized,
  synthesize,
} from "./stacks.ts";

const LIBRARY = fileURLToPath(new URL("../../lib/", import.meta.url));

const small = minimal();
const large = full();
const foreign = imported();
const each: [string, Synthesized][] = [
  ["minimal", small],
  ["full", large],
  ["imported", foreign],
];

interface Statement {
  readonly Effect: string;
  readonly Action: string | string[];
  readonly Resource: unknown;
  readonly Principal?: unknown;
}

/** Every statement of every policy that is attached to a role. */
function statements({ template }: Synthesized): { policy: string; statement: Statement }[] {
  return Object.entries(template.findResources("AWS::IAM::Policy")).flatMap(([policy, { Properties }]) =>
    (Properties.PolicyDocument.Statement as Statement[]).map((statement) => ({ policy, statement })),
  );
}

describe.each(each)("%s", (_, of) => {
  test("cdk-nag finds nothing that is not answered", () => {
    expect(findings(of)).toEqual([]);
  });

  test("every answer to cdk-nag has a reason", () => {
    const answers = Object.values(of.template.toJSON().Resources as Record<string, { Metadata?: object }>)
      .map(
        ({ Metadata }) => Metadata as { cdk_nag?: { rules_to_suppress: { id: string; reason: string }[] } },
      )
      .flatMap((metadata) => metadata?.cdk_nag?.rules_to_suppress ?? []);
    expect(answers.length).toBeGreaterThan(3);
    for (const { id, reason } of answers) expect(reason.length, id).toBeGreaterThan(30);
  });

  test("no role may do something to everything, but for what AWS ties to no resource", () => {
    const wide = statements(of)
      .filter(({ statement }) => statement.Effect === "Allow")
      .flatMap(({ policy, statement }) => {
        const actions = [statement.Action].flat();
        const everywhere = [statement.Resource].flat().includes("*");
        return actions
          .filter((action) => everywhere || action.includes("*"))
          .map((action) => `${policy.replace(/[0-9A-F]{8}$/, "")}: ${action}`);
      });
    // https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerregistry.html
    // https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
    const interfaces = wide.filter((line) => line.includes(": ec2:"));
    expect(interfaces.length > 0).toBe(of === large);
    expect(wide.filter((line) => !interfaces.includes(line))).toEqual([
      "PipelineCaptureTaskExecutionRoleDefaultPolicy: ecr:GetAuthorizationToken",
    ]);
  });

  test("AWS's own policy is attached to CDK's provider alone", () => {
    const managed = Object.entries(of.template.findResources("AWS::IAM::Role")).flatMap(
      ([role, { Properties }]) =>
        ((Properties.ManagedPolicyArns ?? []) as unknown[]).map(
          (arn) =>
            `${role.replace(/[0-9A-F]{8}$/, "")}: ${JSON.stringify(arn).replace(/^.*\/|"\]\]\}$/g, "")}`,
        ),
    );
    expect(managed).toEqual(["AWS679f53fac002430cb0da5b7982bd2287ServiceRole: AWSLambdaBasicExecutionRole"]);
  });

  test("resources that end in a wildcard are objects of the bucket, or a secret's own suffix", () => {
    const ends = statements(of)
      .flatMap(({ statement }) => [statement.Resource].flat().map((arn) => JSON.stringify(arn)))
      .filter((arn) => /[*?]/.test(arn) && arn !== '"*"')
      .map((arn) => arn.replace(/^.*?(\/[a-z/-]+\*|-\?+)\W*$/, "$1"));
    const prefixes = ["/", "/parked/customer-view/", "/parked/notifications/"].map(
      (prefix) => `/changes/shop${prefix}*`,
    );
    for (const end of ends) expect([...prefixes, "/aws/lambda/*", "-??????"]).toContain(end);
  });

  test("each function reaches its own queue only, and its redrive does not read the stream", () => {
    for (const consumer of ["customerview", "notifications"]) {
      const queue = resource(of, "AWS::SQS::Queue", consumer).id;
      const others = Object.keys(of.template.findResources("AWS::SQS::Queue")).filter((id) => id !== queue);
      for (const part of ["HandlerRole", "RedriveHandlerRole"]) {
        const policy = resource(of, "AWS::IAM::Policy", `Consumer${consumer}${part}`);
        const text = JSON.stringify(policy.Properties);
        expect(text).toContain(queue);
        for (const other of others) expect(text).not.toContain(other);
        expect(text.includes("kinesis:GetRecords")).toBe(part === "HandlerRole");
      }
    }
  });

  test("only the capture task writes to the stream; it sends to its own dead letters, and can read none", () => {
    const { id: own } = resource(of, "AWS::SQS::Queue", "CaptureDeadLetters");
    const others = Object.keys(of.template.findResources("AWS::SQS::Queue")).filter((id) => id !== own);
    for (const [id, { Properties }] of Object.entries(of.template.findResources("AWS::IAM::Policy"))) {
      const text = JSON.stringify(Properties);
      expect(text.includes("kinesis:Put"), id).toBe(id.includes("CaptureTaskTaskRole"));
      if (id.includes("CaptureTaskTaskRole")) {
        expect(text.match(/sqs:\w+/g)).toEqual(["sqs:SendMessage"]);
        for (const other of others) expect(text).not.toContain(other);
      } else expect(text).not.toContain(own);
    }
  });

  test("no secret in template or environment", () => {
    const text = JSON.stringify(of.template.toJSON());
    expect(text).not.toMatch(/resolve:secretsmanager|PGPASSWORD|DATABASE_URL|SecretString/);
    expect(text).not.toContain('"Secrets":');
  });

  test("each alarm says what it means, what to do, and the command that explains it, for its stack", () => {
    const alarms = Object.values(of.template.findResources("AWS::CloudWatch::Alarm"));
    expect(alarms.length).toBeGreaterThan(15);
    for (const { Properties } of alarms) {
      const { AlarmDescription, AlarmName } = Properties;
      expect(AlarmDescription).toMatch(
        /^[A-Z].{20,} What to do: \S.{20,} More: npx tributary-cdc explain \w+$/,
      );
      expect(AlarmDescription.length).toBeLessThan(1024);
      const [, code = ""] = / explain (\w+)$/.exec(AlarmDescription) ?? [];
      const [alarm] = entriesOf(AlarmName);
      expect([AlarmName, alarm?.code]).toEqual([AlarmName, code]);
      const [stack] = AlarmName.split("/");
      for (const [command] of AlarmDescription.matchAll(
        /tributary(?:-cdc)? (?:backfill|capture|consumer|redrive|teardown)\b[^,.;:]*/g,
      ))
        expect(command).toMatch(new RegExp(`^tributary-cdc (?:\\S+ )?\\S+ --stack ${stack}\\b`));
    }
  });

  test("a dead capture task rings: it says nothing, and nothing is breaching", () => {
    expect(resource(of, "AWS::CloudWatch::Alarm", "SlotInactive").Properties.TreatMissingData).toBe(
      "breaching",
    );
    // What is not always known, and what comes with changes only, must not.
    for (const { Properties } of Object.values(of.template.findResources("AWS::CloudWatch::Alarm"))) {
      const { MetricName, Namespace, TreatMissingData } = Properties;
      const quiet = Namespace === "AWS/Lambda" || Namespace === "AWS/SQS" || /Wal|Gaps|Held/.test(MetricName);
      if (quiet) expect(TreatMissingData, MetricName).toBe("notBreaching");
    }
  });

  test("alarms and dashboard take names that are published", () => {
    const known = new Set<string>(
      [CAPTURE_METRIC, CONSUMER_METRIC, PAUSE_METRIC, STANDING_METRIC, REDRIVE_METRIC].flatMap((metrics) =>
        Object.values(metrics).map(({ name }) => name),
      ),
    );
    const alarmed = Object.values(of.template.findResources("AWS::CloudWatch::Alarm"))
      .filter(({ Properties }) => Properties.Namespace === "Tributary")
      .map(({ Properties }) => Properties.MetricName as string);
    expect(alarmed.filter((name) => !known.has(name))).toEqual(["CaptureStarts/Test/shop"]);
    const drawn = [...dashboardOf(of).matchAll(/\["Tributary","(\w+)"/g)].map(([, name]) => name);
    expect(drawn.length).toBeGreaterThan(15);
    expect(drawn.filter((name) => !known.has(name as string))).toEqual([]);
  });

  test("expressions ask metrics for their period, never what was searched", () => {
    const body = dashboardOf(of);
    const searched = [
      ...body.matchAll(/SEARCH\('\{Tributary,stage,pipeline,table\} ([^']*)', '(\w+)', 60\)( \/ 60)?/g),
    ];
    expect(searched.map(([, what, statistic, rate]) => [what, statistic, rate])).toEqual(
      [
        ["TableChanges", "Sum", " / 60"],
        ["TableBytes", "Sum", " / 60"],
        ["BackfillPercent", "Maximum", undefined],
        ["BackfillRows", "Sum", " / 60"],
      ].map(([name, ...rest]) => [`MetricName=\\"${name}\\" stage=\\"Test\\" pipeline=\\"shop\\"`, ...rest]),
    );
    expect(body.match(/PERIOD\([^)]*\)/g)?.every((text) => /^PERIOD\([a-z]\w*\)$/.test(text))).toBe(true);
  });

  test("the dashboard's rows follow the way of a change, and all alarms stand at its top", () => {
    const { widgets } = JSON.parse(dashboardOf(of)) as {
      widgets: { type: string; y: number; x: number; width: number; properties: Record<string, unknown> }[];
    };
    expect(widgets[0]).toMatchObject({ type: "alarm", x: 0, y: 0 });
    expect(widgets[0]?.properties.alarms).toHaveLength(
      Object.keys(of.template.findResources("AWS::CloudWatch::Alarm")).length,
    );
    const rows = widgets.filter(({ type }) => type === "text").sort((a, b) => a.y - b.y);
    expect(rows.map(({ properties }) => String(properties.markdown).replace(/[:,].*/s, ""))).toEqual([
      "**When an alarm rings**",
      "### 1. PostgreSQL",
      "### 2. Capture",
      "### 2. Capture",
      "### 3. Kinesis",
      "### 4. Consumer customer-view",
      "### 4. Consumer notifications",
      "### 5. What the consumers stand on",
      "### 6. What went wrong last?",
    ]);
    for (const { x, width } of widgets) expect(x + width).toBeLessThanOrEqual(24);
  });
});

test("what the library asks of AWS is permitted, and the capture task is permitted no more of Kinesis", async () => {
  const asked = new Set<string>();
  for (const file of await readdir(LIBRARY, { recursive: true })) {
    // Of laptops and operators.
    if (!file.endsWith(".ts") || /^(local|testing|cli|admin)\//.test(file)) continue;
    const code = await readFile(join(LIBRARY, file), "utf8");
    for (const [, names = "", service = ""] of code.matchAll(
      /import \{([^}]*)\} from "@aws-sdk\/client-([a-z0-9-]+)"/g,
    )) {
      for (const [, command] of names.matchAll(/\b([A-Z]\w+)Command\b/g))
        asked.add(`${service.replace("-", "")}:${command}`);
    }
  }
  // Of redrive, for whoever asks for it.
  asked.delete("lambda:Invoke");
  expect(asked.size).toBeGreaterThan(8);
  const permitted = new Set(statements(small).flatMap(({ statement }) => [statement.Action].flat()));
  expect([...asked].filter((action) => !permitted.has(action))).toEqual([]);
  const capture = statements(small).filter(({ policy }) => policy.includes("CaptureTaskTaskRole"));
  const ofKinesis = capture.flatMap(({ statement }) => [statement.Action].flat());
  expect(ofKinesis.filter((action) => action.startsWith("kinesis:"))).toEqual([
    "kinesis:DescribeStreamSummary",
    "kinesis:GetRecords",
    "kinesis:GetShardIterator",
    "kinesis:ListShards",
    "kinesis:PutRecords",
  ]);
});

test("starts of the capture task are counted from its first line", () => {
  small.template.hasResourceProperties("AWS::Logs::MetricFilter", {
    FilterPattern: '{ $.message = "the capture task starts" }',
    MetricTransformations: [
      {
        MetricName: "CaptureStarts/Test/shop",
        MetricNamespace: "Tributary",
        MetricValue: "1",
        DefaultValue: 0,
      },
    ],
  });
});

test("iterator age rings at a quarter of the retention, or where it is told to", () => {
  const threshold = (of: Synthesized) =>
    resource(of, "AWS::CloudWatch::Alarm", "IteratorAgecustomer").Properties.Threshold;
  expect(threshold(small)).toBe((168 * 3600_000) / 4);
  expect(threshold(large)).toBe(3600_000);
});

test("a kind of source that the constructs have never heard of is deployed by what it says of itself", () => {
  addSourceKind(toyKind);
  const of = (source: PipelineInput["source"]) =>
    synthesize((stack) => ({ definition: definition({ source }), ...basics(stack) }));
  const [made, known] = [of(toy({ tables: ["public.*"] })), of(triggers({ tables: ["public.*"] }))];
  expect(findings(made)).toEqual([]);
  const alarms = ({ template }: Synthesized) => Object.keys(template.findResources("AWS::CloudWatch::Alarm"));
  expect(alarms(made)).toEqual(alarms(known));
  made.template.hasResourceProperties("AWS::ECS::Service", { DesiredCount: 1 });
});

test("a source that reads tables has no slot: nothing rings for one, and what rings is its own", () => {
  const made = synthesize((stack) => ({
    definition: definition({ source: triggers({ tables: ["public.*"] }) }),
    ...basics(stack),
  }));
  expect(findings(made)).toEqual([]);
  const alarms = Object.keys(made.template.findResources("AWS::CloudWatch::Alarm")).join();
  expect(alarms).not.toMatch(/Slot|Wal|ReplicationLag/);
  expect(resource(made, "AWS::CloudWatch::Alarm", "SourceDisconnected").Properties.TreatMissingData).toBe(
    "breaching",
  );
  expect(resource(made, "AWS::CloudWatch::Alarm", "CaptureLag").Properties.Threshold).toBe(600_000);
  expect(dashboardOf(made)).toContain("are its tables read?");
  expect(dashboardOf(made)).not.toContain("SlotActive");
});

test("relays of an outbox are two, and one goes on while the other is replaced; whatever has a slot is one", () => {
  const service = (of: Synthesized) => {
    const { Properties } = resource(of, "AWS::ECS::Service", "Service");
    const deployment = Properties.DeploymentConfiguration as Record<string, unknown>;
    return [Properties.DesiredCount, deployment.MinimumHealthyPercent, deployment.MaximumPercent];
  };
  const relays = synthesize((stack) => ({ definition: definition({ source: outbox() }), ...basics(stack) }));
  expect(service(relays)).toEqual([2, 50, 100]);
  expect(service(small)).toEqual([1, 0, 100]);
  expect(findings(relays)).toEqual([]);
});

test("the estimate of costs counts the alarms by their metrics, the composite ones, the dashboard, the endpoints and the bucket's days", () => {
  const metrics = Object.values(foreign.template.findResources("AWS::CloudWatch::Alarm")).flatMap(
    ({ Properties: { Metrics = [{ MetricStat: {} }] } }) =>
      (Metrics as readonly { readonly MetricStat?: object }[]).filter(({ MetricStat }) => MetricStat),
  );
  expect(metrics).toHaveLength(ASSUMPTIONS.captureAlarmMetrics + 2 * ASSUMPTIONS.consumerAlarmMetrics);
  foreign.template.resourceCountIs(
    "AWS::CloudWatch::CompositeAlarm",
    ASSUMPTIONS.captureCompositeAlarms + 2 * ASSUMPTIONS.consumerCompositeAlarms,
  );
  const retentionDays = foreign.pipeline.changeStream.retention.toDays();
  foreign.template.hasResourceProperties("AWS::S3::Bucket", {
    LifecycleConfiguration: {
      Rules: [Match.objectLike({ ExpirationInDays: retentionDays + ASSUMPTIONS.oversizeDays })],
    },
  });
  foreign.template.resourceCountIs("AWS::CloudWatch::Dashboard", 1);
  const endpoints = Object.values(large.template.findResources("AWS::EC2::VPCEndpoint")).filter(
    ({ Properties }) => Properties.VpcEndpointType === "Interface",
  );
  expect(endpoints).toHaveLength(ASSUMPTIONS.endpoints);
});

test("RDS itself rings where the database is one of RDS; only then", () => {
  expect(resource(foreign, "AWS::CloudWatch::Alarm", "OldestReplicationSlotLag").Properties).toMatchObject({
    Namespace: "AWS/RDS",
    Dimensions: [{ Name: "DBInstanceIdentifier", Value: "shop-db" }],
    TreatMissingData: "breaching",
    Threshold: 1024 ** 3,
  });
  const { template } = small;
  expect(Object.keys(template.findResources("AWS::CloudWatch::Alarm")).join()).not.toContain("OldestRep");
});

describe("at synth", () => {
  const problemsOf = (build: Parameters<typeof synthesize>[0]): string => {
    try {
      synthesize(build);
    } catch (error) {
      if (error instanceof ConfigurationError) return error.message;
      throw error;
    }
    return "no error";
  };
  test("variables of a consumer above Lambda's 4 KB, whatever else it is given", () => {
    const problems = (bytes: number) =>
      problemsOf((stack) => ({
        ...basics(stack),
        definition: definition(),
        consumers: { notifications: { environment: { MORE: "x".repeat(bytes) } } },
      }));
    expect(problems(2_000)).toBe("no error");
    expect(problems(3_500)).toMatch(/consumers\.notifications\.environment.*4096 bytes/s);
  });

  const isolated = (stack: Parameters<typeof basics>[0]) =>
    new ec2.Vpc(stack, "Isolated", {
      maxAzs: 2,
      natGateways: 0,
      subnetConfiguration: [{ name: "data", subnetType: ec2.SubnetType.PRIVATE_ISOLATED }],
    });

  test("isolated subnets without a way to AWS's services are refused", () => {
    expect(
      problemsOf((stack) => ({ definition: definition(), ...basics(stack), vpc: isolated(stack) })),
    ).toMatch(/capture\.vpcSubnets: isolated subnets .* endpoints: "create"/);
    expect(
      problemsOf((stack) => ({
        definition: definition(),
        ...basics(stack),
        consumers: { notifications: { vpc: isolated(stack) } },
      })),
    ).toMatch(/consumers\.notifications\.vpcSubnets/);
  });

  test("isolated subnets whose VPC has its endpoints are taken, and none is made", () => {
    const { template } = synthesize((stack) => ({
      definition: definition(),
      ...basics(stack),
      vpc: isolated(stack),
      endpoints: "existing",
    }));
    template.resourceCountIs("AWS::EC2::VPCEndpoint", 0);
  });

  test("endpoints that are made are those that capture task and consumers need, for them alone", () => {
    const services = Object.values(large.template.findResources("AWS::EC2::VPCEndpoint")).map(
      ({ Properties }) =>
        JSON.stringify(Properties.ServiceName)
          .replace(/^.*?([a-z0-9.-]+)"\]*\}*$/, "$1")
          .split("eu-central-1.")
          .at(-1),
    );
    expect(services.map((name) => name?.replace(/^\./, "")).sort()).toEqual(
      ["dynamodb", "ecr.api", "ecr.dkr", "kinesis-streams", "logs", "s3", "secretsmanager", "sqs"].sort(),
    );
    const group = resource(large, "AWS::EC2::SecurityGroup", "Endpoints");
    expect(group.Properties).not.toHaveProperty("SecurityGroupIngress");
    const clients = Object.values(large.template.findResources("AWS::EC2::SecurityGroupIngress")).map(
      ({ Properties }) => JSON.stringify(Properties.SourceSecurityGroupId),
    );
    // Capture task, the consumer in the VPC, and its redrive.
    expect(clients).toHaveLength(3);
  });

  test("sign-in that cannot work is refused", () => {
    expect(
      problemsOf((stack) => ({ definition: definition(), ...basics(stack), authentication: "iam" })),
    ).toMatch(/database: give its resource id/);
    expect(
      problemsOf((stack) => {
        const { secret: _none, ...rest } = basics(stack);
        return { definition: definition(), ...rest };
      }),
    ).toMatch(/secret: give the secret/);
  });

  test("settings for a consumer that does not exist are refused", () => {
    expect(
      problemsOf((stack) => ({ definition: definition(), ...basics(stack), consumers: { customers: {} } })),
    ).toMatch(/consumers\.customers: no such consumer .* customer-view, notifications/);
  });

  test("more than two consumers without a fan-out of their own: a warning, at synth", () => {
    const three = definition({
      consumers: ["a", "b", "c"].map((name) => ({
        name,
        entry: "functions/customer-view.ts",
        topics: ["*.public.customers"],
      })),
    });
    const warned = synthesize((stack) => ({ definition: three, ...basics(stack) }));
    Annotations.fromStack(warned.stack).hasWarning(
      "*",
      Match.stringLikeRegexp("^3 consumers share .* a, b, c"),
    );
    const quiet = synthesize((stack) => ({
      definition: three,
      ...basics(stack),
      consumers: { b: { enhancedFanOut: true } },
    }));
    expect(findings(quiet)).toEqual([]);
  });
});

/** The dashboard's body, with a word for each reference. */
function dashboardOf(of: Synthesized): string {
  const { DashboardBody } = resource(of, "AWS::CloudWatch::Dashboard").Properties as {
    DashboardBody: string | { "Fn::Join": [string, unknown[]] };
  };
  if (typeof DashboardBody === "string") return DashboardBody;
  return DashboardBody["Fn::Join"][1].map((part) => (typeof part === "string" ? part : "reference")).join("");
}
