import { App, Stack } from "aws-cdk-lib";
import { Template } from "aws-cdk-lib/assertions";
import { expect, test } from "vitest";
import { CdcPipeline } from "../../cdk/constructs/cdc-pipeline.ts";
import { postgres } from "../../lib/definition/pipeline.ts";
import { outputKey, parseOutput } from "../../lib/definition/stack-outputs.ts";
import { basics, definition, minimal, type Synthesized, synthesize } from "./stacks.ts";

interface Output {
  readonly Value: unknown;
  readonly Description?: string;
}

function outputsOf({ template }: Pick<Synthesized, "template">): Record<string, Output> {
  return template.findOutputs("*") as unknown as Record<string, Output>;
}

/** The types of the resources that an output's value refers to. */
function typesIn(template: Template, value: unknown): string[] {
  const resources = template.toJSON().Resources as Record<string, { readonly Type: string }>;
  return [...JSON.stringify(value).matchAll(/"(?:Ref|Fn::GetAtt)":\[?"(\w+)"/g)].map(
    ([, id = ""]) => resources[id]?.Type ?? id,
  );
}

test("every resource that an operator's command works on has an output, with a key that names alone make", () => {
  const made = minimal();
  const outputs = outputsOf(made);
  const found = Object.fromEntries(
    Object.entries(outputs).map(([key, { Value }]) => [key, typesIn(made.template, Value)]),
  );
  const ofConsumer = (name: string) => ({
    [`TributaryShopConsumer${name}Function`]: ["AWS::Lambda::Function"],
    [`TributaryShopConsumer${name}Mapping`]: ["AWS::Lambda::EventSourceMapping"],
    [`TributaryShopConsumer${name}RedriveFunction`]: ["AWS::Lambda::Function"],
    [`TributaryShopConsumer${name}DeadLetters`]: ["AWS::SQS::Queue"],
  });
  expect(found).toEqual({
    TributaryShopStream: ["AWS::Kinesis::Stream"],
    TributaryShopStateTable: ["AWS::DynamoDB::Table"],
    TributaryShopClaimStore: ["AWS::S3::Bucket"],
    TributaryShopEncryptionKey: ["AWS::KMS::Key"],
    TributaryShopCaptureDeadLetters: ["AWS::SQS::Queue"],
    TributaryShopCluster: ["AWS::ECS::Cluster"],
    TributaryShopService1: ["AWS::ECS::Service"],
    ...ofConsumer("CustomerView"),
    TributaryShopConsumerCustomerViewVerifyTask: ["AWS::ECS::TaskDefinition"],
    ...ofConsumer("Notifications"),
  });
  const function_ = outputs.TributaryShopConsumerCustomerViewFunction?.Value;
  const redrive = outputs.TributaryShopConsumerCustomerViewRedriveFunction?.Value;
  expect(JSON.stringify(redrive)).toContain("Redrive");
  expect(JSON.stringify(function_)).not.toContain("Redrive");
  // The command reads the descriptions: names come back as they are.
  for (const [key, { Description = "" }] of Object.entries(outputs)) {
    const output = parseOutput(Description);
    expect(output?.pipeline).toBe("shop");
    expect(output && outputKey(output)).toBe(key);
  }
  expect(parseOutput(outputs.TributaryShopConsumerCustomerViewMapping?.Description ?? "")).toEqual({
    ...{ pipeline: "shop", consumer: "customer-view", resource: "mapping" },
  });
});

test("each slot has its service, and a source without a log has no dead letters of capture", () => {
  const slots = synthesize((stack) => ({
    ...basics(stack),
    definition: definition({ source: postgres({ tables: ["public.*"], slots: 3 }) }),
  }));
  const services = Object.entries(outputsOf(slots)).filter(([key]) => key.includes("Service"));
  expect(services.map(([key]) => key)).toEqual([1, 2, 3].map((slot) => `TributaryShopService${slot}`));
  expect(new Set(services.map(([, { Value }]) => JSON.stringify(Value))).size).toBe(3);
});

/** Two pipelines in one stack. */
function together(one: string, other: string): Template {
  const app = new App({ context: { "aws:cdk:bundling-stacks": [] } });
  const stack = new Stack(app, "Both", { env: { account: "123456789012", region: "eu-central-1" } });
  const shared = basics(stack);
  for (const [id, name] of [
    ["One", one],
    ["Other", other],
  ] as const)
    new CdcPipeline(stack, id, { ...shared, definition: definition({ name }) });
  return Template.fromStack(stack);
}

test("pipelines share a stack under names of their own", () => {
  const outputs = outputsOf({ template: together("shop", "shop-audit") });
  const pipelines = Object.values(outputs).map(({ Description = "" }) => parseOutput(Description)?.pipeline);
  expect(pipelines.filter((name) => name === "shop")).toHaveLength(16);
  expect(pipelines.filter((name) => name === "shop-audit")).toHaveLength(16);
  expect(() => together("shop", "shop")).toThrow(/definition\.name: Both\/One has that name.*got "shop"/s);
});

test("deployed code knows the name of its stack", () => {
  const { template } = minimal();
  const functions = Object.values(template.findResources("AWS::Lambda::Function"));
  const named = functions.filter(
    ({ Properties }) => Properties.Environment?.Variables?.TRIBUTARY_STACK_NAME === "Test",
  );
  // Each consumer's, and its redrive.
  expect(named).toHaveLength(4);
  const [task] = Object.values(template.findResources("AWS::ECS::TaskDefinition"));
  expect(task?.Properties.ContainerDefinitions[0].Environment).toContainEqual({
    Name: "TRIBUTARY_STACK_NAME",
    Value: "Test",
  });
});
