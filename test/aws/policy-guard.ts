import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll } from "vitest";
import { allows, type Request, type Statement } from "../cdk/policies.ts";

/*
 * A role's policy before an emulator: each call is asked of an evaluator of IAM's rules, and refused where it is not permitted.
 */

/** A call that has come by, as IAM sees it. */
export type Call = Request & { readonly allowed: boolean };

/** Reads a call as IAM sees it. Names of what is called are those of the template. */
export type ReadCall = (call: { method: string; path: string; operation: string; body: Buffer }) => Request;

/** Starts a proxy that lets through to `target` what a role may, and notes every call. Gives the proxy's URL. */
export type PolicyGuard = (
  target: string,
  role: readonly Statement[],
  calls: Call[],
  read: ReadCall,
) => Promise<string>;

/** Guards for a test file: call it once at the top. They are closed at the end. */
export function policyGuards(): PolicyGuard {
  const servers: Server[] = [];
  afterAll(async () => {
    for (const server of servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  });
  return async (target, role, calls, read) => {
    const server = createServer((incoming, response) => {
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.on("end", () => {
        const body = Buffer.concat(chunks);
        const { method = "", url: path = "/", headers } = incoming;
        const [, operation = ""] = String(headers["x-amz-target"] ?? "").split(".");
        const asked = read({ method, path, operation, body });
        const allowed = allows(role, asked);
        calls.push({ ...asked, allowed });
        if (!allowed) {
          const refusal = { __type: "AccessDeniedException", message: asked.action };
          response
            .writeHead(400, { "content-type": "application/x-amz-json-1.0" })
            .end(JSON.stringify(refusal));
          return;
        }
        const onward = request(new URL(path, target), { method, headers }, (answer) => {
          response.writeHead(answer.statusCode ?? 502, answer.headers);
          answer.pipe(response);
        });
        onward.on("error", () => response.destroy());
        onward.end(body);
      });
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  };
}

/** https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html: the partition keys of what is called. */
export const dynamodbCall: ReadCall = ({ operation, body }) => {
  const { Key, Item, ExpressionAttributeValues, KeyConditionExpression } = JSON.parse(body.toString()) as {
    Key?: { pk: { S: string } };
    Item?: { pk: { S: string } };
    KeyConditionExpression?: string;
    ExpressionAttributeValues?: Record<string, { S: string }>;
  };
  const queried = KeyConditionExpression?.startsWith("pk = :pk")
    ? ExpressionAttributeValues?.[":pk"]
    : undefined;
  const key = (Key ?? Item)?.pk ?? queried;
  return {
    action: `dynamodb:${operation}`,
    resource: "PipelineStateTable",
    ...(key && { context: { "dynamodb:LeadingKeys": [key.S] } }),
  };
};

/** Calls to the stream. */
export const kinesisCall: ReadCall = ({ operation }) => ({
  action: `kinesis:${operation}`,
  resource: "PipelineChangeStream",
});

/** Calls to one queue. */
export function sqsCallTo(queue: string): ReadCall {
  return ({ operation }) => ({ action: `sqs:${operation}`, resource: queue });
}

/** By path: `/bucket/key`. HeadBucket is the right to list: https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html */
export const s3Call: ReadCall = ({ method, path }) => {
  const key = decodeURIComponent(path.replace(/\?.*$/, ""))
    .split("/")
    .slice(2)
    .filter((part, i) => part !== "" || i > 0);
  const action =
    { GET: "GetObject", PUT: "PutObject", HEAD: key[0] ? "GetObject" : "ListBucket" }[method] ?? method;
  return { action: `s3:${action}`, resource: ["PipelineClaimsBucket", ...key].join("/") };
};

/** The calls that were not permitted. */
export function refusedOf(calls: readonly Call[]): Call[] {
  return calls.filter(({ allowed }) => !allowed);
}

/** The rights that no call has used, among those of services that `of` names. KMS and logs are called for a role by AWS. */
export function unusedOf(
  role: readonly Statement[],
  calls: readonly Call[],
  of = /^(dynamodb|s3|sqs):/,
): string[] {
  const each = role.flatMap(({ actions, resources, ...statement }) =>
    actions.flatMap((action) =>
      resources.map((resource): Statement => ({ ...statement, actions: [action], resources: [resource] })),
    ),
  );
  return each
    .filter(({ actions }) => of.test(actions.join()))
    .filter((right) => !calls.some((call) => allows([right], call)))
    .map(({ actions, resources }) => `${actions} on ${resources}`)
    .sort();
}
