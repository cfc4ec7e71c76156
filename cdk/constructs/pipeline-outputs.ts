import { CfnOutput } from "aws-cdk-lib";
import type * as kms from "aws-cdk-lib/aws-kms";
import type { Construct } from "constructs";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { outputDescription, outputKey, type StackOutput } from "../../lib/definition/stack-outputs.ts";
import type { CaptureService } from "./capture-service.ts";
import type { ChangeStream } from "./change-stream.ts";
import type { ClaimBucket } from "./claim-bucket.ts";
import type { Consumer } from "./consumer.ts";
import type { DeadLetterQueue } from "./dead-letter-queue.ts";
import type { StateTable } from "./state-table.ts";
import type { VerifyTasks } from "./verify-tasks.ts";

/** The resources of a pipeline that the command works on. */
export interface NamedResources {
  readonly definition: Pipeline;
  readonly changeStream: ChangeStream;
  readonly stateTable: StateTable;
  readonly claimBucket: ClaimBucket;
  readonly encryptionKey: kms.IKey;
  readonly capture: CaptureService;
  readonly captures: readonly CaptureService[];
  readonly captureDeadLetters: DeadLetterQueue | undefined;
  readonly consumers: readonly Consumer[];
  readonly verifyTasks: VerifyTasks;
}

/** Has outputs of the stack name what the command works on: `tributary <verb> --stack <name>`. */
export function nameResources(scope: Construct, made: NamedResources): void {
  const { name: pipeline } = made.definition;
  const output = (of: StackOutput, value: string) => {
    const key = outputKey(of);
    new CfnOutput(scope, key, { value, description: outputDescription(of) }).overrideLogicalId(key);
  };
  output({ pipeline, resource: "stream" }, made.changeStream.stream.streamName);
  output({ pipeline, resource: "stateTable" }, made.stateTable.table.tableName);
  output({ pipeline, resource: "claimStore" }, made.claimBucket.url);
  output({ pipeline, resource: "encryptionKey" }, made.encryptionKey.keyArn);
  if (made.captureDeadLetters)
    output({ pipeline, resource: "captureDeadLetters" }, made.captureDeadLetters.queue.queueUrl);
  output({ pipeline, resource: "cluster" }, made.capture.service.cluster.clusterName);
  for (const { service, slot } of made.captures)
    output({ pipeline, slot, resource: "service" }, service.serviceName);
  for (const { name: consumer, ...of } of made.consumers) {
    output({ pipeline, consumer, resource: "function" }, of.function.functionName);
    output({ pipeline, consumer, resource: "mapping" }, of.mapping.eventSourceMappingId);
    output({ pipeline, consumer, resource: "redriveFunction" }, of.redrive.function.functionName);
    output({ pipeline, consumer, resource: "deadLetterQueue" }, of.deadLetterQueue.queue.queueUrl);
    const queue = of.automaticRedrive?.queue;
    if (queue) output({ pipeline, consumer, resource: "redriveQueue" }, queue.queueArn);
    const verifyTask = made.verifyTasks.taskDefinitions.get(consumer);
    if (verifyTask) output({ pipeline, consumer, resource: "verifyTask" }, verifyTask.taskDefinitionArn);
  }
}
