import { DescribeTableCommand, type TableDescription } from "@aws-sdk/client-dynamodb";
import { dynamodbClient, type Environment } from "../../aws/clients.ts";
import { describeStreamSummary } from "../../aws/describe-stream.ts";
import { StateTableError } from "../../state/state-errors.ts";
import { askAws } from "./ask-aws.ts";
import { StreamSettingsError } from "./doctor-errors.ts";

/** The state table as DynamoDB describes it. @throws StateTableError where there is no such table, NotChecked */
export async function describeTable(
  environment: Environment,
  name: string,
  signal: AbortSignal,
): Promise<TableDescription> {
  const client = dynamodbClient(environment);
  const { Table } = await askAws(
    "dynamodb:DescribeTable",
    () => client.send(new DescribeTableCommand({ TableName: name }), { abortSignal: signal }),
    {
      names: ["ResourceNotFoundException"],
      error: (cause) =>
        new StateTableError({
          message: `the state table "${name}" does not exist`,
          remedy:
            "Deploy the stack first, or set TRIBUTARY_STATE_TABLE to the table it made; see account and region too.",
          cause,
        }),
    },
  ).finally(() => client.destroy());
  return Table ?? {};
}

/** A stream as Kinesis describes it. */
export type DescribedStream = NonNullable<Awaited<ReturnType<typeof describeStreamSummary>>>;

/** The stream as Kinesis describes it. @throws StreamSettingsError where there is no such stream, NotChecked */
export async function describeStream(
  environment: Environment,
  name: string,
  signal: AbortSignal,
): Promise<Partial<DescribedStream>> {
  const found = await askAws(
    "kinesis:DescribeStreamSummary",
    () => describeStreamSummary(environment, name, signal),
    {
      names: ["ResourceNotFoundException"],
      error: (cause) =>
        new StreamSettingsError({
          message: `the Kinesis stream ${name} does not exist in this account and region`,
          remedy: "Deploy the stack (cdk deploy), or correct TRIBUTARY_STREAM, the region or the account.",
          cause,
        }),
    },
  );
  return found ?? {};
}
