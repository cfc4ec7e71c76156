import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";

/** Requests to DynamoDB, each try of one counted. */
export interface Requests {
  writes: number;
  reads: number;
}

const READS = new Set(["GetItemCommand", "QueryCommand", "ScanCommand", "BatchGetItemCommand"]);

/** Counts what a client sends, whichever copy of the AWS SDK it is of. */
export function countRequests(client: Pick<DynamoDBClient, "middlewareStack">): Requests {
  const requests = { writes: 0, reads: 0 };
  client.middlewareStack.add(
    (next, context) => (args) => {
      if (READS.has(String(context.commandName))) requests.reads++;
      else requests.writes++;
      return next(args);
    },
    // Behind the SDK's own retries.
    { step: "finalizeRequest", priority: "low", name: "countRequests" },
  );
  return requests;
}
