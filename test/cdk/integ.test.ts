import { App } from "aws-cdk-lib";
import { Template } from "aws-cdk-lib/assertions";
import { expect, test } from "vitest";
import { addAssertions, IntegStack } from "../../integ/integ-stack.ts";

/*
 * The test on AWS (`npm run integ`), as far as a machine without an account sees it: it synthesizes, waits for what it asserts, and leaves
 * nothing behind. That it passes is seen on AWS alone.
 */

const app = new App({ context: { "aws:cdk:bundling-stacks": [] } });
const stack = new IntegStack(app, "integ");
addAssertions(app, stack);
const assembly = app.synth();
const template = Template.fromStack(stack);
const assertions = Template.fromJSON(
  assembly.stacks.find(({ stackName }) => stackName !== "integ")?.template as object,
);

test("writes a row, then waits for it in the sink and for an empty dead-letter queue", () => {
  const [write, ...others] = Object.entries(
    assertions.findResources("Custom::DeployAssert@SdkCallLambdainvoke"),
  );
  expect(others).toEqual([]);
  const [arrived] = Object.entries(assertions.findResources("Custom::DeployAssert@SdkCallDynamoDBgetItem"));
  const [queue] = Object.entries(
    assertions.findResources("Custom::DeployAssert@SdkCallSQSgetQueueAttributes"),
  );
  expect(arrived?.[1].DependsOn).toEqual(expect.arrayContaining([write?.[0]]));
  expect(queue?.[1].DependsOn).toEqual(expect.arrayContaining([arrived?.[0]]));
  // Only one that waits fails the deploy.
  for (const call of [arrived, queue])
    expect(call?.[1]).toMatchObject({ Properties: { stateMachineArn: expect.anything() } });
});

test("capture starts when the database is prepared", () => {
  const [service] = Object.values(template.findResources("AWS::ECS::Service"));
  expect(service?.DependsOn).toEqual(expect.arrayContaining([expect.stringMatching(/^Prepared/)]));
});

test("nothing of it stays: what is kept by default is deleted with the stack", () => {
  const kept = Object.entries(template.toJSON().Resources as Record<string, { DeletionPolicy?: string }>)
    .filter(([, { DeletionPolicy }]) => DeletionPolicy !== undefined && DeletionPolicy !== "Delete")
    .map(([id]) => id);
  expect(kept).toEqual([]);
  const [instance] = Object.values(template.findResources("AWS::RDS::DBInstance"));
  expect(instance?.Properties).toMatchObject({ DeletionProtection: false });
});
