import { quoteIdentifier } from "../../change/sql-identifier.ts";
import { outboxTableName } from "../../definition/outbox-table.ts";
import { relayOutboxPlan } from "../../publish/install.ts";
import { rolePart, type ScriptPart, type SetUpOptions } from "../postgres/set-up/script.ts";
import type { OutboxSource } from "./definition.ts";

/** Writes what an administrator runs so that a role can relay an outbox. */
export async function outboxSetUp({
  pipeline,
  role,
}: Omit<SetUpOptions<OutboxSource>, "client" | "server">): Promise<readonly ScriptPart[]> {
  const { source, topics } = pipeline;
  const { install, grants } = relayOutboxPlan(source.table, topics.partitions);
  const { schema } = outboxTableName(source.table);
  const name = quoteIdentifier(role);
  const ours = grants.filter((grant) => grant.endsWith("TO tributary;"));
  const ofApplications = grants.filter((grant) => !ours.includes(grant));
  return [
    rolePart(role),
    {
      comments: ["The outbox that applications write to, and what relays agree by."],
      statements: install.map(withoutSemicolon),
    },
    {
      comments: [
        "The relays read it. Each role that publishes needs:",
        ...ofApplications.map((grant) => `  ${grant}`),
      ],
      statements: [
        `GRANT USAGE ON SCHEMA ${quoteIdentifier(schema)} TO ${name}`,
        ...ours.map((grant) => withoutSemicolon(grant).replace(/TO tributary$/, `TO ${name}`)),
      ],
    },
  ];
}

function withoutSemicolon(statement: string): string {
  return statement.replace(/;\s*$/, "");
}
