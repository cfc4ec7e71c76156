import { readFileSync } from "node:fs";
import { Lazy } from "aws-cdk-lib";
import { describe, expect, test } from "vitest";
import { checkDescription, runbookAddress } from "../../cdk/constructs/runbook.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { postgres } from "../../lib/definition/pipeline.ts";
import { ALARMS } from "../../lib/explain/alarms.ts";
import { alarmAnchor } from "../../lib/telemetry/alarms.ts";
import { basics, definition, synthesize } from "./stacks.ts";
import { withReferences } from "./watched-metrics.ts";

const RUNBOOK = "https://wiki.example/tributary/11-operations";
const page = readFileSync(new URL("../../docs/11-operations.md", import.meta.url), "utf8");
const anchors = [...page.matchAll(/<a id="(alarm-[^"]+)"><\/a>/g)].map(([, anchor]) => anchor ?? "");

test("docs/11 has one anchor of each alarm, and no other", () => {
  expect(anchors.toSorted()).toEqual(ALARMS.entries.map(({ code }) => alarmAnchor(code)).toSorted());
});

describe("with the address of a runbook", () => {
  const { template } = synthesize((stack) => ({
    definition: definition({ source: postgres({ tables: ["public.*"], slots: 2 }) }),
    ...basics(stack),
    runbook: RUNBOOK,
  }));

  test("each alarm's description ends with the address of its entry", () => {
    const alarms = ["Alarm", "CompositeAlarm"].flatMap((type) =>
      Object.values(template.findResources(`AWS::CloudWatch::${type}`)),
    );
    expect(alarms.length).toBeGreaterThan(40);
    for (const { Properties } of alarms) {
      const [, kind = ""] = /: (\w+)(?:-.*)?$/.exec(Properties.AlarmName) ?? [];
      const entry = `${RUNBOOK}#${alarmAnchor(kind)}`;
      expect(Properties.AlarmDescription.split(" More: ")[1], Properties.AlarmName).toBe(entry);
      expect(anchors, Properties.AlarmName).toContain(alarmAnchor(kind));
    }
  });

  test("the dashboard links to the entry of each alarm that is made", () => {
    const [dashboard] = Object.values(template.findResources("AWS::CloudWatch::Dashboard"));
    const { widgets } = JSON.parse(withReferences(dashboard?.Properties.DashboardBody)) as {
      widgets: { readonly type: string; readonly properties: { readonly markdown?: string } }[];
    };
    const markdown = String(widgets.find(({ type }) => type === "text")?.properties.markdown);
    const links = [...markdown.matchAll(/\[(\w+)\]\(([^)]+)\)/g)].map(([, text, to]) => [text, to]);
    expect(links).toEqual(
      expect.arrayContaining(
        ["SlotInactive", "PutAside", "Late", "HoldFull"].map((kind) => [
          kind,
          `${RUNBOOK}#${alarmAnchor(kind)}`,
        ]),
      ),
    );
    expect(links.map(([text]) => text)).not.toContain("SourceDisconnected");
    for (const [, to = ""] of links.filter(([text]) => text !== "runbook"))
      expect(anchors).toContain(to.replace(`${RUNBOOK}#`, ""));
    expect(markdown).toContain("npx tributary-cdc status --stack Test");
  });
});

describe("an address that cannot be a runbook's", () => {
  test.each([
    "",
    "wiki.example/tributary",
    "ftp://wiki.example/tributary",
    "javascript:alert(1)",
    "https://wiki.example/tributary#alarms",
    "https://ada:secret@wiki.example/tributary",
    "https://wiki.example/trib utary",
    "https://wiki.example/Operations_(Tributary)",
    "https://wiki.example/[x]",
  ])("%j is refused, with what to write", (runbook) => {
    const made = () => synthesize((stack) => ({ definition: definition(), ...basics(stack), runbook }));
    expect(made).toThrow(ConfigurationError);
    expect(made).toThrow(/runbook.*write the address of your copy of the page 11-operations\.md/s);
  });

  test("one with a query, of another port, or that is known at deployment is not", () => {
    for (const given of [
      "http://wiki:8080/pages?id=11",
      Lazy.string({ produce: () => "https://wiki.example" }),
    ])
      expect(runbookAddress(given)).toBe(given);
    expect(runbookAddress(undefined)).toBeUndefined();
  });

  test("one so long that CloudWatch would not take a description is refused, with the alarm", () => {
    const runbook = `https://wiki.example/${"x".repeat(900)}`;
    expect(() => synthesize((stack) => ({ definition: definition(), ...basics(stack), runbook }))).toThrow(
      /runbook.*the description of alarm \w+ would have 1\d{3} characters, and CloudWatch takes 1024: write a shorter address/s,
    );
    expect(() => checkDescription("x".repeat(2_000), "Late", undefined)).not.toThrow();
  });
});
