import {
  DescribeContinuousBackupsCommand,
  DescribeTimeToLiveCommand,
  type TableDescription,
} from "@aws-sdk/client-dynamodb";
import { dynamodbClient } from "../../aws/clients.ts";
import { TributaryError } from "../../change/tributary-error.ts";
import { sourceKind } from "../../source/index.ts";
import { readCaptureRecord } from "../../state/capture-record.ts";
import { StateTableError, StateTableUnavailableError } from "../../state/state-errors.ts";
import { checkStateFormat } from "../../state/state-format.ts";
import { askAws } from "./ask-aws.ts";
import { isEmulated } from "./aws-caller.ts";
import { type Check, NotChecked, ok, outcomeOf } from "./check.ts";
import { type Examination, needed } from "./examination.ts";

/** Key of the state table: its name and kind. */
const KEY = ["pk HASH S", "sk RANGE S"];
/** The attribute by which DynamoDB removes items that nobody needs any more. */
const EXPIRES = "expiresAt";

/** The state table: its key, what the construct sets, and what capture has stored. */
export function stateTableChecks(examination: Examination): readonly Check[] {
  const { environment } = examination.subject;
  const ofTable = async (): Promise<string> => {
    await needed(examination.table(), "needs the table: see state table");
    return examination.requireResources().stateTable;
  };
  return [
    {
      name: "state table",
      async look() {
        const table = await examination.table();
        const { TableName: name = "", TableStatus: status = "unknown" } = table;
        const errors: TributaryError[] = [];
        if (keyOf(table).join() !== KEY.join())
          errors.push(
            new StateTableError({
              message: `the state table "${name}" has the key ${keyOf(table).join(", ") || "of no attribute"}, and must have ${KEY.join(", ")}`,
              remedy:
                'Name the table that the stack made: it has the partition key "pk" and the sort key "sk", both strings. A table\'s key cannot be changed.',
            }),
          );
        if (!["ACTIVE", "UPDATING"].includes(status))
          errors.push(
            new StateTableError({
              message: `the state table "${name}" is ${status}`,
              remedy: "Wait until it is ACTIVE; one that is being deleted is to be restored from its backup.",
            }),
          );
        return outcomeOf(errors, `${name}: ${status.toLowerCase()}`);
      },
    },
    {
      name: "state table, expiry",
      async look(signal) {
        const name = await ofTable();
        if (isEmulated(environment)) throw new NotChecked("the emulator has no expiry");
        const client = dynamodbClient(environment);
        const { TimeToLiveDescription: found } = await askAws("dynamodb:DescribeTimeToLive", () =>
          client.send(new DescribeTimeToLiveCommand({ TableName: name }), { abortSignal: signal }),
        ).finally(() => client.destroy());
        const { TimeToLiveStatus: status = "DISABLED", AttributeName: attribute } = found ?? {};
        const isOn = /^ENABL/.test(status) && attribute === EXPIRES;
        const error = new StateTableError({
          message: `the state table "${name}" does not remove what has expired (${status}${attribute ? ` on ${attribute}` : ""}): it grows for ever`,
          remedy: `Deploy the stack again, or: aws dynamodb update-time-to-live --table-name ${name} --time-to-live-specification Enabled=true,AttributeName=${EXPIRES}`,
        });
        return outcomeOf(isOn ? [] : [error], `by ${EXPIRES}`);
      },
    },
    {
      name: "state table, backup",
      async look(signal) {
        const name = await ofTable();
        if (isEmulated(environment)) throw new NotChecked("the emulator has no backups");
        const client = dynamodbClient(environment);
        const { ContinuousBackupsDescription: found } = await askAws(
          "dynamodb:DescribeContinuousBackups",
          () =>
            client.send(new DescribeContinuousBackupsCommand({ TableName: name }), { abortSignal: signal }),
        ).finally(() => client.destroy());
        const status = found?.PointInTimeRecoveryDescription?.PointInTimeRecoveryStatus ?? "DISABLED";
        const error = new StateTableError({
          message: `the state table "${name}" cannot be restored to a point in time (${status}): who loses it loses what took effect`,
          remedy: `Deploy the stack again, or: aws dynamodb update-continuous-backups --table-name ${name} --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true`,
        });
        return outcomeOf(status === "ENABLED" ? [] : [error], "to a point in time");
      },
    },
    {
      name: "state table, capture's record",
      async look(signal) {
        const pipeline = examination.requirePipeline();
        const table = await ofTable();
        const dynamodb = dynamodbClient(environment);
        const place = { dynamodb, table, pipeline: pipeline.name, signal };
        try {
          await checkStateFormat(place);
          const record = await readCaptureRecord(place);
          if (!record.slot && !record.reading) return ok("none yet: capture has not started");
          const { epoch, confirmed } = sourceKind(pipeline.source).operate.status(pipeline.source, record);
          return ok(
            `epoch ${String(epoch)}${confirmed === undefined ? "" : `, confirmed ${String(confirmed)}`}`,
          );
        } catch (error) {
          throw signal.aborted ? signal.reason : unreadable(error, table, pipeline.name);
        } finally {
          dynamodb.destroy();
        }
      },
    },
  ];
}

function keyOf({ KeySchema = [], AttributeDefinitions = [] }: TableDescription): string[] {
  return KeySchema.map(({ AttributeName: name, KeyType: kind }) => {
    const type = AttributeDefinitions.find((attribute) => attribute.AttributeName === name)?.AttributeType;
    return `${name} ${kind} ${type}`;
  });
}

function unreadable(error: unknown, table: string, pipeline: string): Error {
  // That we may not read says nothing of the pipeline.
  if (error instanceof StateTableUnavailableError || error instanceof StateTableError)
    return new NotChecked(`dynamodb:GetItem: ${error.message}`);
  if (error instanceof TributaryError) return error;
  return new StateTableError({
    message: `what the state table "${table}" holds of the pipeline "${pipeline}" cannot be read: a newer version wrote it, or it was altered`,
    remedy:
      "Run doctor, and the verbs, in the version that the capture task runs (npm ls tributary-cdc; npm install tributary-cdc@latest).",
    cause: error,
  });
}
