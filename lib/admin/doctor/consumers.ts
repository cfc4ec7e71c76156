import type { EventSourceMappingConfiguration, FunctionConfiguration } from "@aws-sdk/client-lambda";
import { dynamodbClient, lambdaClient } from "../../aws/clients.ts";
import type { TributaryError } from "../../change/tributary-error.ts";
import type { ConsumerDefinition } from "../../definition/definition.ts";
import { OPERATE_VARIABLE } from "../../definition/remote-program.ts";
import { type Pause, pausedBy, resumeCommand } from "../../state/pause.ts";
import { readPause } from "../../state/pauses.ts";
import type { ConsumerResources } from "../resources.ts";
import { askAws } from "./ask-aws.ts";
import { type Check, NotChecked, outcomeOf } from "./check.ts";
import { ConsumerFunctionError, ConsumerMappingError } from "./doctor-errors.ts";
import type { Examination } from "./examination.ts";

const MISSING = ["ResourceNotFoundException"];

/** Each consumer's function and redrive function, and the event source mapping that feeds it. */
export function consumerChecks(examination: Examination): readonly Check[] {
  return (examination.pipeline?.consumers ?? []).flatMap((consumer) => {
    const parts = () => examination.requireResources().consumers[consumer.name];
    return [
      functionCheck(`function ${consumer.name}`, examination, () => parts()?.function, consumer),
      functionCheck(`redrive function ${consumer.name}`, examination, () => parts()?.redriveFunction),
      mappingCheck(consumer, examination, parts),
    ];
  });
}

/** False in the capture image, whose definition lacks the settings of consumers: see `captureDefinition`. */
function isWhole({ subject }: Examination): boolean {
  return subject.environment[OPERATE_VARIABLE] === undefined;
}

/** A function as Lambda has it. @throws NotChecked, ConsumerFunctionError */
export async function readFunction(
  examination: Examination,
  name: string,
  signal: AbortSignal,
): Promise<FunctionConfiguration> {
  const { GetFunctionConfigurationCommand } = await import("@aws-sdk/client-lambda");
  const client = await lambdaClient(examination.subject.environment);
  return await askAws(
    "lambda:GetFunctionConfiguration",
    () => client.send(new GetFunctionConfigurationCommand({ FunctionName: name }), { abortSignal: signal }),
    {
      names: MISSING,
      error: (cause) =>
        new ConsumerFunctionError({
          message: `there is no function ${name}`,
          remedy: "Deploy the stack again (cdk deploy).",
          cause,
        }),
    },
  ).finally(() => client.destroy());
}

function functionCheck(
  name: string,
  examination: Examination,
  nameOf: () => string | undefined,
  consumer?: ConsumerDefinition,
): Check {
  return {
    name,
    async look(signal) {
      const functionName = nameOf();
      const { place, stateTable } = examination.requireResources();
      if (functionName === undefined) throw new NotChecked(`${place} does not name it`);
      await examination.signedIn();
      const found = await readFunction(examination, functionName, signal);
      const errors: TributaryError[] = [];
      const wrong = (message: string, remedy: string) =>
        errors.push(
          new ConsumerFunctionError({ message: `the function ${functionName} ${message}`, remedy }),
        );
      // Inactive: nobody called it for weeks, the next call brings it back.
      if (found.State && !["Active", "Inactive"].includes(found.State))
        wrong(
          `is ${found.State}${found.StateReason ? `: ${found.StateReason}` : ""}`,
          "Wait for its deployment, or deploy the stack again.",
        );
      if (found.LastUpdateStatus === "Failed")
        wrong(
          `runs what it ran before: its last update failed${found.LastUpdateStatusReason ? `: ${found.LastUpdateStatusReason}` : ""}`,
          "Deploy the stack again.",
        );
      const variables = found.Environment?.Variables ?? {};
      const table = variables.TRIBUTARY_STATE_TABLE;
      if (table !== undefined && table !== stateTable)
        wrong(
          `uses the state table ${table}, and the pipeline ${stateTable}`,
          "Deploy the stack again: its checkpoints would stand apart.",
        );
      const notes: string[] = [];
      if (
        consumer &&
        isWhole(examination) &&
        found.Timeout !== undefined &&
        found.Timeout !== consumer.timeoutSeconds
      )
        notes.push(`its timeout is ${found.Timeout} s, and the definition says ${consumer.timeoutSeconds}`);
      return outcomeOf(errors, `${functionName}: ${found.State?.toLowerCase() ?? "there"}`, notes);
    },
  };
}

function mappingCheck(
  consumer: ConsumerDefinition,
  examination: Examination,
  parts: () => ConsumerResources | undefined,
): Check {
  return {
    name: `mapping ${consumer.name}`,
    async look(signal) {
      const uuid = parts()?.mapping;
      const { place, stream } = examination.requireResources();
      if (uuid === undefined) throw new NotChecked(`${place} does not name it`);
      await examination.signedIn();
      const { GetEventSourceMappingCommand } = await import("@aws-sdk/client-lambda");
      const client = await lambdaClient(examination.subject.environment);
      const found = await askAws(
        "lambda:GetEventSourceMapping",
        () => client.send(new GetEventSourceMappingCommand({ UUID: uuid }), { abortSignal: signal }),
        {
          names: MISSING,
          error: (cause) =>
            new ConsumerMappingError({
              message: `there is no event source mapping ${uuid}: nothing feeds the consumer ${consumer.name}`,
              remedy: "Deploy the stack again (cdk deploy).",
              cause,
            }),
        },
      ).finally(() => client.destroy());
      const pause = /^Disabl/.test(found.State ?? "")
        ? await pauseOf(examination, consumer.name, signal)
        : undefined;
      const errors = mappingErrors(consumer.name, uuid, found, stream, pause !== undefined);
      const last = found.LastProcessingResult;
      if (last?.startsWith("PROBLEM")) {
        const log = parts()?.function;
        errors.push(
          new ConsumerMappingError({
            message: `the event source mapping of ${consumer.name} last said "${last}": its records are tried again`,
            remedy: log
              ? `Read the function's log: aws logs tail /aws/lambda/${log} --since 10m`
              : "Read the function's log.",
          }),
        );
      }
      const notes = pause
        ? [`paused ${pausedBy(pause)}: ${resumeCommand({ consumer: consumer.name })} ends it`]
        : [];
      if (isWhole(examination) && found.BatchSize !== consumer.batchSize)
        notes.push(`its batch size is ${found.BatchSize}, and the definition says ${consumer.batchSize}`);
      return outcomeOf(errors, `${uuid}: ${found.State?.toLowerCase()}${last ? `, ${last}` : ""}`, notes);
    },
  };
}

/** The pause of a consumer, under which its mapping is to be disabled; one that cannot be read is none. */
async function pauseOf(
  examination: Examination,
  consumer: string,
  signal: AbortSignal,
): Promise<Pause | undefined> {
  const dynamodb = dynamodbClient(examination.subject.environment);
  const { stateTable: table, pipeline } = examination.requireResources();
  return await readPause({ dynamodb, table, pipeline, signal }, { consumer })
    .catch(() => undefined)
    .finally(() => dynamodb.destroy());
}

/** Only the library gives up, event by event (rule 13): what a mapping discards by itself is missing for good. */
function mappingErrors(
  consumer: string,
  uuid: string,
  found: EventSourceMappingConfiguration,
  stream: string | undefined,
  isPaused: boolean,
): TributaryError[] {
  const errors: TributaryError[] = [];
  const wrong = (message: string, remedy: string) =>
    errors.push(
      new ConsumerMappingError({ message: `the event source mapping of ${consumer} ${message}`, remedy }),
    );
  const update = `aws lambda update-event-source-mapping --uuid ${uuid}`;
  const { State: state = "unknown" } = found;
  if (/^Disabl/.test(state)) {
    if (!isPaused)
      wrong(
        `is ${state}: the consumer stands still`,
        `Nobody has paused it by a command: ${update} --enabled`,
      );
  } else if (!["Enabled", "Enabling", "Updating"].includes(state))
    wrong(
      `is ${state}${found.StateTransitionReason ? ` (${found.StateTransitionReason})` : ""}`,
      "Deploy the stack again.",
    );
  if (!found.FunctionResponseTypes?.includes("ReportBatchItemFailures"))
    wrong(
      "does not report batch item failures: a batch with one failure would count as done",
      `${update} --function-response-types ReportBatchItemFailures`,
    );
  if ((found.MaximumRetryAttempts ?? -1) !== -1)
    wrong(
      `gives a batch up after ${found.MaximumRetryAttempts} tries: its changes would be missing`,
      `${update} --maximum-retry-attempts -1`,
    );
  if ((found.MaximumRecordAgeInSeconds ?? -1) !== -1)
    wrong(
      `gives records up that are ${found.MaximumRecordAgeInSeconds} s old: their changes would be missing`,
      `${update} --maximum-record-age-in-seconds -1`,
    );
  const source = found.EventSourceArn ?? "";
  if (stream !== undefined && source !== "" && !new RegExp(`:stream/${escaped(stream)}(/|$)`).test(source))
    wrong(`reads ${source}, and the pipeline writes ${stream}`, "Deploy the stack again.");
  return errors;
}

function escaped(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
