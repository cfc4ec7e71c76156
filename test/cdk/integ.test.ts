import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
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

test.each([
  ["has failed", "exit 1"],
  // As the terminal does it: to the command and to what it has started.
  ["was interrupted by Ctrl-C", "kill -INT $PPID; exit 130"],
])("what stands in the account is removed after a deploy that %s", (_how, deploy) => {
  const directory = mkdtempSync(join(tmpdir(), "tributary-integ-"));
  try {
    const log = join(directory, "calls");
    const cdk = `#!/bin/sh\necho "$1" >> ${log}\nif [ "$1" = deploy ]; then ${deploy}; fi\n`;
    writeFileSync(join(directory, "cdk"), cdk, { mode: 0o755 });
    const { status, stderr } = spawnSync(process.execPath, ["integ/main.ts"], {
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
      encoding: "utf8",
      env: { ...process.env, PATH: [directory, process.env.PATH].join(delimiter) },
      timeout: 30_000,
    });
    expect(readFileSync(log, "utf8")).toBe("deploy\ndestroy\n");
    expect(stderr).toContain("NOT SEEN");
    expect(status).toBe(1);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

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
