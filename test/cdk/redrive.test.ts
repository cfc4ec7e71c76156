import { Duration } from "aws-cdk-lib";
import { beforeAll, describe, expect, test } from "vitest";
import { basics, definition, findings, minimal, resource, type Synthesized, synthesize } from "./stacks.ts";

interface Statement {
  readonly Action: string | string[];
  readonly Resource: unknown;
}

/** What the role of a construct may do: its actions, and on what. */
function permitted(of: Synthesized, part: string): { actions: string[]; resource: string }[] {
  const { PolicyDocument } = resource(of, "AWS::IAM::Policy", part).Properties as {
    PolicyDocument: { Statement: Statement[] };
  };
  return PolicyDocument.Statement.map(({ Action, Resource }) => ({
    actions: [Action].flat(),
    resource: JSON.stringify(Resource),
  }));
}

describe("as it comes", () => {
  let made: Synthesized;
  beforeAll(() => {
    made = minimal();
  });

  test("each consumer has a redrive function with its handler, its rights and all of Lambda's time", () => {
    for (const consumer of ["customerview", "notifications"]) {
      const redrive = resource(made, "AWS::Lambda::Function", `Consumer${consumer}RedriveHandler`).Properties;
      const handler = resource(made, "AWS::Lambda::Function", `Consumer${consumer}Handler`).Properties;
      expect(redrive).toMatchObject({
        Timeout: 900,
        Handler: handler.Handler,
        Environment: handler.Environment,
      });
      // The consumer's own code lacks what redrives.
      expect(redrive?.Code).not.toEqual(handler.Code);
      const allowed = permitted(made, `Consumer${consumer}RedriveHandlerRole`);
      // State table, its dead letters, what was too large for the table, its log and the key: no stream.
      expect(
        [...new Set(allowed.flatMap(({ actions }) => actions.map((one) => one.split(":")[0])))].sort(),
      ).toEqual(["dynamodb", "kms", "logs", "s3", "sqs"].sort());
      for (const { resource: on } of allowed) expect(on).not.toBe('"*"');
    }
  });

  test("nothing but people invokes it, and they find its name among the outputs", () => {
    for (const { Properties } of Object.values(
      made.template.findResources("AWS::Lambda::EventSourceMapping"),
    ))
      expect(JSON.stringify(Properties.FunctionName)).not.toContain("Redrive");
    made.template.resourceCountIs("AWS::Events::Rule", 0);
    made.template.resourceCountIs("AWS::Lambda::Permission", 0);
    const names = Object.keys(made.template.findOutputs("*")).filter((name) =>
      name.endsWith("RedriveFunction"),
    );
    expect(names).toEqual([
      "TributaryShopConsumerCustomerViewRedriveFunction",
      "TributaryShopConsumerNotificationsRedriveFunction",
    ]);
  });
});

describe("with a queue and by the clock", () => {
  let made: Synthesized;
  beforeAll(() => {
    made = synthesize((stack) => ({
      definition: definition(),
      ...basics(stack),
      consumers: { notifications: { redrive: { queue: true, every: Duration.hours(1) } } },
    }));
  });

  test("cdk-nag finds nothing", () => {
    expect(findings(made)).toEqual([]);
  });

  test("a function of its own asks the consumer's redrive function, and may do nothing else", () => {
    const asks = resource(made, "AWS::Lambda::Function", "AutomaticRedrive");
    const redrive = resource(made, "AWS::Lambda::Function", "ConsumernotificationsRedriveHandler").id;
    expect(asks.Properties).toMatchObject({
      Timeout: 900,
      Runtime: "nodejs24.x",
      Architectures: ["arm64"],
      Environment: { Variables: { TRIBUTARY_REDRIVE_FUNCTION: { Ref: redrive } } },
    });
    const allowed = permitted(made, "AutomaticRedriveRole");
    expect(allowed.flatMap(({ actions }) => actions).sort()).toEqual(
      [
        ...["kms:Decrypt", "lambda:InvokeFunction", "logs:CreateLogStream", "logs:PutLogEvents"],
        ...["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"],
      ].sort(),
    );
    const invokes = allowed.find(({ actions }) => actions.includes("lambda:InvokeFunction"));
    expect(JSON.parse(invokes?.resource ?? "")).toEqual({ "Fn::GetAtt": [redrive, "Arn"] });
    const reads = allowed.find(({ actions }) => actions.includes("sqs:ReceiveMessage"));
    expect(reads?.resource).toContain("AutomaticRedriveQueue");
  });

  test("letter by letter; one that cannot be redriven goes back to the dead ones", () => {
    const queue = resource(made, "AWS::SQS::Queue", "AutomaticRedrive");
    const dead = resource(made, "AWS::SQS::Queue", "ConsumernotificationsDeadLetters").id;
    expect(queue.Properties).toMatchObject({
      KmsMasterKeyId: expect.anything(),
      MaximumMessageSize: 1024 * 1024,
      // SQS asks for no less than the function's own.
      VisibilityTimeout: 900,
      RedrivePolicy: { deadLetterTargetArn: { "Fn::GetAtt": [dead, "Arn"] }, maxReceiveCount: 3 },
    });
    expect(resource(made, "AWS::Lambda::EventSourceMapping", "AutomaticRedrive").Properties).toMatchObject({
      BatchSize: 1,
      FunctionResponseTypes: ["ReportBatchItemFailures"],
      ScalingConfig: { MaximumConcurrency: 2 },
      EventSourceArn: { "Fn::GetAtt": [queue.id, "Arn"] },
    });
    const policies = Object.values(made.template.findResources("AWS::SQS::QueuePolicy"));
    // Two consumers' queues, the redrive queue, and capture's.
    expect(policies).toHaveLength(4);
    for (const { Properties } of policies)
      expect(JSON.stringify(Properties)).toContain('"aws:SecureTransport":"false"');
  });

  test("by the clock, without tries of EventBridge's own", () => {
    const { ScheduleExpression, Targets } = resource(made, "AWS::Events::Rule").Properties as {
      ScheduleExpression: string;
      Targets: { RetryPolicy: object }[];
    };
    expect(ScheduleExpression).toBe("rate(1 hour)");
    expect(Targets).toMatchObject([{ RetryPolicy: { MaximumRetryAttempts: 0 } }]);
  });
});
