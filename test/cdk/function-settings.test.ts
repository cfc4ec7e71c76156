import { Annotations, Match } from "aws-cdk-lib/assertions";
import { expect, test } from "vitest";
import { chosenBundling, conditions } from "../../cdk/constructs/function-settings.ts";
import { basics, definition, full, minimal, resource, synthesize } from "./stacks.ts";

const properties = (part: string) => resource(full(), "AWS::Lambda::Function", part).Properties;

test("a consumer's own settings count before those of all, and its redrive has all but the concurrency", () => {
  for (const part of ["customerviewHandler", "customerviewRedrive", "notificationsHandler"]) {
    expect(properties(part), part).toMatchObject({
      EphemeralStorage: { Size: 1024 },
      Layers: ["arn:aws:lambda:eu-central-1:123456789012:layer:certificates:3"],
    });
  }
  expect(properties("customerviewHandler").ReservedConcurrentExecutions).toBe(20);
  expect(properties("customerviewRedrive")).not.toHaveProperty("ReservedConcurrentExecutions");
  expect(properties("notificationsHandler")).not.toHaveProperty("ReservedConcurrentExecutions");
});

test("without settings a function is what it was", () => {
  const { Properties } = resource(minimal(), "AWS::Lambda::Function", "customerviewHandler");
  for (const name of ["EphemeralStorage", "Layers", "ReservedConcurrentExecutions"])
    expect(Properties).not.toHaveProperty(name);
});

test("the library's condition stays beside those of a consumer, and redrive is bundled without it", () => {
  expect(chosenBundling()).toEqual({
    sourceMap: true,
    sourcesContent: false,
    externalModules: ["pg-native"],
    esbuildArgs: { "--conditions": "module,tributary-consumer" },
  });
  expect(chosenBundling({}, true)).not.toHaveProperty("esbuildArgs");
  const bundling = {
    ...{ conditions: ["production"], externalModules: ["sharp"], sourceMap: false, minify: false },
    ...{ loader: { ".sql": "text" }, define: { A: "1" }, esbuildArgs: { "--alias:a": "b" } },
  };
  expect(chosenBundling(bundling)).toEqual({
    sourceMap: false,
    minify: false,
    externalModules: ["pg-native", "sharp"],
    loader: { ".sql": "text" },
    define: { A: "1" },
    esbuildArgs: { "--alias:a": "b", "--conditions": "module,tributary-consumer,production" },
  });
  expect(chosenBundling(bundling, true).esbuildArgs).toEqual({
    "--alias:a": "b",
    "--conditions": "module,production",
  });
  expect(conditions({ conditions: ["production"] })).toContain("tributary-consumer");
});

test("reserved concurrency on a stream that grows by itself: said how many shards it is enough for", () => {
  const { stack } = synthesize((of) => ({
    ...basics(of),
    definition: definition(),
    consumers: { notifications: { reservedConcurrency: 9 } },
  }));
  Annotations.fromStack(stack).hasInfo("*", Match.stringLikeRegexp("of 9 is enough for 9 shards"));
});

test("a dashboard's name has the region, since an account's dashboards have none", () => {
  const name = (of: Parameters<typeof resource>[0]) =>
    resource(of, "AWS::CloudWatch::Dashboard").Properties.DashboardName;
  expect(name(minimal())).toBe("Test-shop-eu-central-1");
  expect(name(full())).toBe("shop-in-full");
});
