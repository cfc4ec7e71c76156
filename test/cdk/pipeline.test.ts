import { Match } from "aws-cdk-lib/assertions";
import { describe, expect, test } from "vitest";
import { SHARD_TOPIC } from "../../lib/change/shard-beat.ts";
import { postgres } from "../../lib/definition/pipeline.ts";
import { compileFilters } from "../../lib/local/event-source-mapping/filter.ts";
import {
  basics,
  definition,
  full,
  imported,
  minimal,
  resource,
  type Synthesized,
  synthesize,
} from "./stacks.ts";

const small = minimal();
const large = full();
const foreign = imported();
const each: [string, Synthesized][] = [
  ["minimal", small],
  ["full", large],
  ["imported", foreign],
];

/** What the container of the capture task is told. */
function captureEnvironment(of: Synthesized): Record<string, unknown> {
  const [container] = resource(of, "AWS::ECS::TaskDefinition").Properties.ContainerDefinitions as {
    Environment: { Name: string; Value: unknown }[];
  }[];
  return Object.fromEntries((container?.Environment ?? []).map(({ Name, Value }) => [Name, Value]));
}

describe.each(each)("%s", (_, of) => {
  test("one capture task at most, which drains, without root or anything to write to", () => {
    of.template.hasResourceProperties("AWS::ECS::Service", {
      DesiredCount: 1,
      LaunchType: "FARGATE",
      DeploymentConfiguration: {
        MinimumHealthyPercent: 0,
        MaximumPercent: 100,
        DeploymentCircuitBreaker: { Enable: true, Rollback: true },
      },
    });
    of.template.hasResourceProperties("AWS::ECS::TaskDefinition", {
      RuntimePlatform: { CpuArchitecture: "ARM64", OperatingSystemFamily: "LINUX" },
      ContainerDefinitions: [
        Match.objectLike({
          ReadonlyRootFilesystem: true,
          User: "1000:1000",
          StopTimeout: 120,
          LinuxParameters: { Capabilities: { Drop: ["ALL"] }, InitProcessEnabled: true },
          HealthCheck: Match.objectLike({ Command: ["CMD", "node", "/app/health.mjs"] }),
        }),
      ],
    });
  });

  test("the one place to write to is the health file's volume", () => {
    const { ContainerDefinitions, Volumes } = resource(of, "AWS::ECS::TaskDefinition").Properties;
    const [container] = ContainerDefinitions as { MountPoints: unknown }[];
    expect(Volumes).toEqual([{ Name: "health" }]);
    expect(container?.MountPoints).toEqual([
      { ContainerPath: "/run/tributary", ReadOnly: false, SourceVolume: "health" },
    ]);
    expect(captureEnvironment(of).TRIBUTARY_HEALTH_FILE).toBe("/run/tributary/alive");
  });

  test("only the library gives changes up (rule 13)", () => {
    const mappings = Object.values(of.template.findResources("AWS::Lambda::EventSourceMapping"));
    expect(mappings).toHaveLength(2);
    for (const { Properties } of mappings) {
      expect(Properties).toMatchObject({
        StartingPosition: "TRIM_HORIZON",
        MaximumRetryAttempts: -1,
        MaximumRecordAgeInSeconds: -1,
        BisectBatchOnFunctionError: true,
        FunctionResponseTypes: ["ReportBatchItemFailures"],
        DestinationConfig: {
          OnFailure: { Destination: { "Fn::GetAtt": [resource(of, "AWS::S3::Bucket").id, "Arn"] } },
        },
      });
    }
  });

  test("every function runs on the current Node and ARM64", () => {
    const functions = of.template.findResources("AWS::Lambda::Function", {
      Properties: { Description: Match.stringLikeRegexp("^Tributary: ") },
    });
    // Two consumers, and the redrive of each.
    expect(Object.values(functions)).toHaveLength(4);
    for (const { Properties } of Object.values(functions)) {
      expect(Properties).toMatchObject({ Runtime: "nodejs24.x", Architectures: ["arm64"] });
      expect(Properties.Environment.Variables).toMatchObject({ TRIBUTARY_PIPELINE_NAME: "shop" });
      expect(Object.keys(Properties.Environment.Variables)).toEqual(
        expect.arrayContaining([
          "TRIBUTARY_STATE_TABLE",
          "TRIBUTARY_DEAD_LETTER_QUEUE_URL",
          "TRIBUTARY_CLAIM_BUCKET",
          "TRIBUTARY_TOPICS",
        ]),
      );
    }
  });

  test("queues, bucket, table and stream are encrypted with the pipeline's key, and reached by TLS only", () => {
    const queues = Object.values(of.template.findResources("AWS::SQS::Queue"));
    // One for each consumer, and capture's.
    expect(queues).toHaveLength(3);
    for (const { Properties } of queues) {
      expect(Properties).toMatchObject({
        KmsMasterKeyId: expect.anything(),
        MessageRetentionPeriod: 14 * 24 * 3600,
        MaximumMessageSize: 1024 * 1024,
      });
    }
    of.template.hasResourceProperties("AWS::Kinesis::Stream", {
      StreamEncryption: { EncryptionType: "KMS", KeyId: Match.anyValue() },
    });
    of.template.hasResourceProperties("AWS::DynamoDB::Table", {
      BillingMode: "PAY_PER_REQUEST",
      KeySchema: [
        { AttributeName: "pk", KeyType: "HASH" },
        { AttributeName: "sk", KeyType: "RANGE" },
      ],
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
      TimeToLiveSpecification: { AttributeName: "expiresAt", Enabled: true },
      SSESpecification: { SSEEnabled: true, SSEType: "KMS" },
    });
    of.template.hasResourceProperties("AWS::S3::Bucket", {
      PublicAccessBlockConfiguration: {
        BlockPublicAcls: true,
        BlockPublicPolicy: true,
        IgnorePublicAcls: true,
        RestrictPublicBuckets: true,
      },
      BucketEncryption: {
        ServerSideEncryptionConfiguration: [
          Match.objectLike({ ServerSideEncryptionByDefault: Match.objectLike({ SSEAlgorithm: "aws:kms" }) }),
        ],
      },
    });
    // One for each queue, and the bucket's.
    of.template.resourceCountIs("AWS::SQS::QueuePolicy", queues.length);
    of.template.resourceCountIs("AWS::S3::BucketPolicy", 1);
    for (const type of ["AWS::SQS::QueuePolicy", "AWS::S3::BucketPolicy"]) {
      for (const { Properties } of Object.values(of.template.findResources(type))) {
        expect(JSON.stringify(Properties.PolicyDocument)).toContain(
          '"Condition":{"Bool":{"aws:SecureTransport":"false"}}',
        );
      }
    }
  });

  test("what holds data outlives the stack, but not a first deploy that fails", () => {
    for (const type of [
      "AWS::Kinesis::Stream",
      "AWS::DynamoDB::Table",
      "AWS::S3::Bucket",
      "AWS::SQS::Queue",
    ]) {
      for (const found of Object.values(of.template.findResources(type))) {
        expect(found, type).toMatchObject({ DeletionPolicy: "RetainExceptOnCreate" });
      }
    }
  });

  test("claims outlive stream, dead letters and parking together", () => {
    const { LifecycleConfiguration } = resource(of, "AWS::S3::Bucket").Properties as {
      LifecycleConfiguration: { Rules: { ExpirationInDays: number }[] };
    };
    const { RetentionPeriodHours } = resource(of, "AWS::Kinesis::Stream").Properties;
    const days = LifecycleConfiguration.Rules.map((rule) => rule.ExpirationInDays);
    expect(Math.min(...days)).toBeGreaterThanOrEqual(Number(RetentionPeriodHours) / 24 + 14 + 60);
  });

  test("the slot is made last: the mark that the capture task waits for depends on everything", () => {
    expect(captureEnvironment(of).TRIBUTARY_AWAIT_DEPLOYMENT).toBe("true");
    const mark = resource(of, "Custom::AWS");
    expect(JSON.stringify(mark.Properties.Create)).toContain("shop#capture");
    const before = new Set(mark.DependsOn as string[]);
    const ours = Object.keys(of.template.toJSON().Resources as object).filter(
      // The mark's own parts (its log group) stand where they are used, not before it.
      (id) =>
        id.startsWith("Pipeline") && !id.startsWith("PipelineDeployed") && !id.startsWith("PipelineKey"),
    );
    expect(ours.filter((id) => !before.has(id))).toEqual([]);
    // And the task itself comes after its consumers.
    const service = resource(of, "AWS::ECS::Service");
    const mappings = Object.keys(of.template.findResources("AWS::Lambda::EventSourceMapping"));
    expect(service.DependsOn).toEqual(expect.arrayContaining(mappings));
  });

  test("alarms that take no data for a dead task come after the task", () => {
    const services = Object.keys(of.template.findResources("AWS::ECS::Service"));
    const dead = Object.entries(of.template.findResources("AWS::CloudWatch::Alarm")).filter(
      ([id, { Properties }]) =>
        Properties.TreatMissingData === "breaching" && /SlotInactive|SourceDisconnected/.test(id),
    );
    expect(dead).toHaveLength(services.length);
    for (const [id, { DependsOn = [] }] of dead)
      expect([DependsOn].flat(), id).toEqual(expect.arrayContaining(services));
  });

  test("logs end some time", () => {
    for (const { Properties } of Object.values(of.template.findResources("AWS::Logs::LogGroup"))) {
      if (JSON.stringify(Properties).includes("RetentionInDays")) {
        expect(Properties.RetentionInDays).toBeLessThanOrEqual(731);
      }
    }
    expect(resource(of, "AWS::Logs::LogGroup", "CaptureLogs").Properties.RetentionInDays).toBe(14);
  });

  test("the template is of the size that CloudFormation takes", () => {
    expect(Object.keys(of.template.toJSON().Resources as object).length).toBeLessThan(300);
    expect(JSON.stringify(of.template.toJSON()).length).toBeLessThan(1_000_000);
  });
});

describe("minimal", () => {
  test("an on-demand stream of records of 1 MiB, kept a week", () => {
    const { Properties } = resource(small, "AWS::Kinesis::Stream");
    expect(Properties).toMatchObject({
      StreamModeDetails: { StreamMode: "ON_DEMAND" },
      RetentionPeriodHours: 168,
    });
    expect(Properties).not.toHaveProperty("ShardCount");
    expect(Properties).not.toHaveProperty("MaxRecordSizeInKiB");
  });

  test("a server by its address: the system's authorities, a secret that the program reads itself", () => {
    const environment = captureEnvironment(small);
    expect(environment).toMatchObject({
      PGHOST: "db.internal",
      PGPORT: "5432",
      PGDATABASE: "shop",
      TRIBUTARY_TLS: "verify-full",
      TRIBUTARY_DATABASE_SECRET_ARN: "arn:aws:secretsmanager:eu-central-1:123456789012:secret:capture-AbCdEf",
    });
    expect(environment).not.toHaveProperty("TRIBUTARY_TLS_CA_FILE");
    // The program refuses both.
    expect(environment).not.toHaveProperty("PGUSER");
  });

  test("a consumer is invoked for its own topics", () => {
    const { FilterCriteria } = resource(small, "AWS::Lambda::EventSourceMapping", "notifications")
      .Properties as {
      FilterCriteria: { Filters: { Pattern: string }[] };
    };
    const matches = compileFilters(
      FilterCriteria.Filters.map(({ Pattern }) => JSON.parse(Pattern) as object as Record<string, unknown>),
    );
    const passes = (topic: string) => matches(Buffer.from(JSON.stringify({ v: 1, topic, events: [] })));
    expect([passes("shop.public.cancellations"), passes("shop.public.orders")]).toEqual([true, false]);
    // However idle its topics: a beat of each shard, every hour.
    expect(passes(SHARD_TOPIC)).toBe(true);
  });

  test("many topics are one filter or a few, until Lambda takes no more: then the library filters", () => {
    const filtersOf = (topics: string[]) => {
      const made = synthesize((stack) => ({
        definition: definition({
          consumers: [{ name: "many", entry: "functions/customer-view.ts", topics }],
        }),
        ...basics(stack),
      }));
      return { made, ...resource(made, "AWS::Lambda::EventSourceMapping").Properties } as {
        made: Synthesized;
        FilterCriteria?: { Filters: { Pattern: string }[] };
      };
    };
    // Lambda takes five filters.
    const nine = filtersOf(Array.from({ length: 9 }, (_, i) => `shop.public.table_${i}`)).FilterCriteria;
    expect(nine?.Filters).toHaveLength(1);
    expect(JSON.parse(nine?.Filters[0]?.Pattern ?? "").data.topic).toHaveLength(9 + 1);
    const many = Array.from({ length: 1000 }, (_, i) => `shop.public.table_${i}`);
    expect(filtersOf(many.slice(0, 300)).FilterCriteria?.Filters).toHaveLength(2);
    const { made, FilterCriteria } = filtersOf(many);
    expect(FilterCriteria).toBeUndefined();
    made.annotations.hasInfo("*", Match.stringLikeRegexp("many is invoked for every record"));
  });

  test("no alarm has an action where no topic is given", () => {
    for (const { Properties } of Object.values(small.template.findResources("AWS::CloudWatch::Alarm"))) {
      expect(Properties).not.toHaveProperty("AlarmActions");
    }
  });
});

describe("full", () => {
  test("a provisioned stream, with records as large as the definition says", () => {
    expect(resource(large, "AWS::Kinesis::Stream").Properties).toMatchObject({
      StreamModeDetails: { StreamMode: "PROVISIONED" },
      ShardCount: 4,
      RetentionPeriodHours: 48,
      MaxRecordSizeInKiB: 4096,
    });
  });

  test("Lambda and its mapping as the definition says", () => {
    expect(resource(large, "AWS::Lambda::EventSourceMapping", "customerview").Properties).toMatchObject({
      BatchSize: 500,
      MaximumBatchingWindowInSeconds: 2,
      ParallelizationFactor: 4,
    });
    const handler = resource(large, "AWS::Lambda::Function", "customerviewHandler").Properties;
    expect(handler).toMatchObject({
      Timeout: 120,
      MemorySize: 1024,
      Environment: {
        Variables: {
          TRIBUTARY_ATTEMPTS: "5",
          TRIBUTARY_POISON: "stop",
          TRIBUTARY_LOG_ERRORS: "true",
          TRIBUTARY_TOPICS: "shop.public.customers,shop.audit.*",
          CUSTOMER_TABLE: "customers",
        },
      },
      VpcConfig: { SubnetIds: expect.anything(), SecurityGroupIds: expect.anything() },
    });
    const redrive = resource(large, "AWS::Lambda::Function", "customerviewRedrive").Properties;
    expect(redrive).toMatchObject({
      Timeout: 900,
      Environment: handler.Environment,
      VpcConfig: { SubnetIds: expect.anything() },
    });
  });

  test("a fan-out of its own where asked for, and read through it", () => {
    const { id } = resource(large, "AWS::Kinesis::StreamConsumer");
    expect(
      resource(large, "AWS::Lambda::EventSourceMapping", "customerview").Properties.EventSourceArn,
    ).toEqual({ "Fn::GetAtt": [id, "ConsumerARN"] });
    expect(
      resource(large, "AWS::Lambda::EventSourceMapping", "notifications").Properties.EventSourceArn,
    ).toEqual({ "Fn::GetAtt": [resource(large, "AWS::Kinesis::Stream").id, "Arn"] });
  });

  test("unpacked events are filtered by the topic in their source; what no filter can say is not filtered", () => {
    const { FilterCriteria } = resource(large, "AWS::Lambda::EventSourceMapping", "customerview").Properties;
    expect(JSON.stringify(FilterCriteria)).toContain("source");
    expect(resource(large, "AWS::Lambda::EventSourceMapping", "notifications").Properties).not.toHaveProperty(
      "FilterCriteria",
    );
    large.annotations.hasInfo("*", Match.stringLikeRegexp("notifications is invoked for every record"));
  });

  test("IAM tokens: no secret, the role's name, RDS's authorities", () => {
    const environment = captureEnvironment(large);
    expect(environment).toMatchObject({
      PGPORT: "5433",
      PGUSER: "capture",
      TRIBUTARY_DATABASE_AUTH: "iam",
      TRIBUTARY_TLS_CA_FILE: "/app/authorities/rds-global-bundle.pem",
      TRIBUTARY_LEASE_MS: "20000",
    });
    expect(environment).not.toHaveProperty("TRIBUTARY_DATABASE_SECRET_ARN");
    const policy = JSON.stringify(resource(large, "AWS::IAM::Policy", "CaptureTaskTaskRole").Properties);
    expect(policy).toContain(":rds-db:eu-central-1:123456789012:dbuser:db-ABC/capture");
    expect(policy).not.toContain("secretsmanager");
  });

  test("a size of its own for the capture task, whose heap is less than its memory", () => {
    expect(resource(large, "AWS::ECS::TaskDefinition").Properties).toMatchObject({
      Cpu: "512",
      Memory: "4096",
    });
    const [, heap] = /--max-old-space-size=(\d+)/.exec(String(captureEnvironment(large).NODE_OPTIONS)) ?? [];
    expect(Number(heap)).toBeLessThan(4096 * 0.8);
    expect(Number(heap)).toBeGreaterThan(1024);
  });
});

describe("imported", () => {
  test("makes no VPC, cluster, key or topic of its own", () => {
    for (const type of ["AWS::EC2::VPC", "AWS::ECS::Cluster", "AWS::KMS::Key", "AWS::SNS::Topic"]) {
      foreign.template.resourceCountIs(type, 0);
    }
    foreign.template.hasResourceProperties("AWS::ECS::Service", { Cluster: "shared" });
  });

  test("opens the database's security group to the capture task, in this stack", () => {
    const group = resource(foreign, "AWS::EC2::SecurityGroup").id;
    foreign.template.hasResourceProperties("AWS::EC2::SecurityGroupIngress", {
      GroupId: "sg-0123456789abcdef0",
      SourceSecurityGroupId: { "Fn::GetAtt": [group, "GroupId"] },
      FromPort: 5432,
      ToPort: 5432,
    });
    // And the task reaches nothing else but AWS's services and that port.
    foreign.template.resourceCountIs("AWS::EC2::SecurityGroupEgress", 1);
    expect(resource(foreign, "AWS::EC2::SecurityGroup").Properties.SecurityGroupEgress).toEqual([
      expect.objectContaining({ CidrIp: "0.0.0.0/0", FromPort: 443, ToPort: 443 }),
    ]);
  });

  test("reads the instance's address, and trusts RDS's authorities", () => {
    expect(captureEnvironment(foreign)).toMatchObject({
      PGHOST: "shop-db.abc.eu-central-1.rds.amazonaws.com",
      PGPORT: "5432",
      TRIBUTARY_TLS: "verify-full",
      TRIBUTARY_TLS_CA_FILE: "/app/authorities/rds-global-bundle.pem",
    });
  });

  test("alarms go to the topic, when they ring and when they end", () => {
    const topic = ["arn:aws:sns:eu-central-1:123456789012:alarms"];
    // One that another explains does so by a composite alarm: alarms.test.ts.
    const alone = Object.values(foreign.template.findResources("AWS::CloudWatch::CompositeAlarm")).map(
      ({ Properties }) => Properties.AlarmName,
    );
    for (const { Properties } of Object.values(foreign.template.findResources("AWS::CloudWatch::Alarm"))) {
      if (alone.includes(`${Properties.AlarmName}-alone`))
        expect(Properties).not.toHaveProperty("AlarmActions");
      else expect(Properties).toMatchObject({ AlarmActions: topic, OKActions: topic });
    }
  });
});

describe("several slots", () => {
  const source = postgres({ tables: ["public.*"], slots: 3 });
  const several = synthesize((stack) => ({ definition: definition({ source }), ...basics(stack) }));
  const tasks = Object.entries(several.template.findResources("AWS::ECS::TaskDefinition"))
    .filter(([id]) => !id.includes("Verify"))
    .map(([, task]) => task);
  const environments = tasks.map(({ Properties }) =>
    Object.fromEntries(
      Properties.ContainerDefinitions[0].Environment.map(
        ({ Name, Value }: { Name: string; Value: unknown }) => [Name, Value],
      ),
    ),
  );

  test("each has a service of its own, by the number of its slot; roles, ways and image are shared", () => {
    several.template.resourceCountIs("AWS::ECS::Service", 3);
    several.template.resourceCountIs("AWS::ECS::Cluster", 1);
    expect(resource(several, "AWS::EC2::SecurityGroup").id).toContain("Capture");
    expect(environments.map(({ TRIBUTARY_SLOT }) => TRIBUTARY_SLOT)).toEqual([undefined, "2", "3"]);
    for (const part of ["TaskRoleArn", "ExecutionRoleArn"])
      expect(new Set(tasks.map(({ Properties }) => JSON.stringify(Properties[part]))).size).toBe(1);
    const images = tasks.map(({ Properties }) => JSON.stringify(Properties.ContainerDefinitions[0].Image));
    expect(new Set(images).size).toBe(1);
    expect(several.annotations.findError("*", Match.anyValue())).toEqual([]);
  });

  test("the first slot's resources are those of a pipeline without others", () => {
    const ids = (of: Synthesized) => Object.keys(of.template.toJSON().Resources);
    expect(ids(several)).toEqual(expect.arrayContaining(ids(small)));
    const alarms = (of: Synthesized) =>
      Object.values(of.template.findResources("AWS::CloudWatch::Alarm")).map(
        ({ Properties }) => Properties.AlarmName,
      );
    expect(alarms(several)).toEqual(expect.arrayContaining(alarms(small)));
  });

  test("a slot that nobody reads rings, whichever it is", () => {
    for (const slot of ["2", "3"]) {
      several.template.hasResourceProperties("AWS::CloudWatch::Alarm", {
        AlarmName: `Test/shop: SlotInactive-slot${slot}`,
        MetricName: "SlotActive",
        Dimensions: Match.arrayWith([{ Name: "slot", Value: slot }]),
        TreatMissingData: "breaching",
      });
      several.template.hasResourceProperties("AWS::CloudWatch::Alarm", {
        AlarmName: `Test/shop: CaptureRestarting-slot${slot}`,
        MetricName: `CaptureStarts/Test/shop/slot${slot}`,
      });
    }
  });
});
