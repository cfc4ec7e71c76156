import { once } from "node:events";
import { createServer } from "node:http";

/** A call as it came, in AWS's query protocol or as JSON. */
export interface AwsCall {
  /** `DescribeStacks`. */
  readonly action: string;
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** The answer to a call: the result's XML (or JSON), an error of that name, or a connection that breaks. */
export type AwsAnswer =
  | { readonly result: string }
  | { readonly json: object }
  | "no answer"
  | { readonly error: string; readonly message?: string; readonly status?: number };

/** A server that real clients speak to, and what they asked. */
export interface AwsServer {
  readonly url: string;
  readonly calls: AwsCall[];
  close(): Promise<void>;
}

/** Starts a server that answers AWS's calls as a test says: the query protocol (CloudFormation, STS, IAM), and JSON (ECS, logs). */
export async function answerAws(answer: (call: AwsCall) => AwsAnswer): Promise<AwsServer> {
  const calls: AwsCall[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks).toString();
      const target = request.headers["x-amz-target"];
      const isJson = typeof target === "string";
      const form = isJson ? {} : Object.fromEntries(new URLSearchParams(body));
      const call: AwsCall = isJson
        ? { action: target.split(".").at(-1) ?? "", parameters: JSON.parse(body) as Record<string, unknown> }
        : { action: String(form.Action), parameters: form };
      calls.push(call);
      const given = answer(call);
      if (given === "no answer") return void request.socket.destroy();
      response.setHeader("content-type", isJson ? "application/x-amz-json-1.1" : "text/xml");
      if ("error" in given) {
        const { error, message = error, status = 400 } = given;
        response.statusCode = status;
        response.end(
          isJson
            ? JSON.stringify({ __type: error, message })
            : `<ErrorResponse><Error><Type>Sender</Type><Code>${error}</Code><Message>${message}</Message></Error><RequestId>1</RequestId></ErrorResponse>`,
        );
      } else if ("json" in given) response.end(JSON.stringify(given.json));
      else
        response.end(
          `<${call.action}Response><${call.action}Result>${given.result}</${call.action}Result></${call.action}Response>`,
        );
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}`,
    calls,
    close: async () => {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** Writes a stack as DescribeStacks answers it. */
export function stackXml(
  name: string,
  outputs: readonly { readonly key: string; readonly value: string; readonly description?: string }[],
  status = "UPDATE_COMPLETE",
): string {
  const members = outputs.map(
    ({ key, value, description }) =>
      `<member><OutputKey>${key}</OutputKey><OutputValue>${value}</OutputValue>${description ? `<Description>${description}</Description>` : ""}</member>`,
  );
  return `<Stacks><member><StackName>${name}</StackName><StackStatus>${status}</StackStatus><CreationTime>2026-11-30T00:00:00Z</CreationTime><Outputs>${members.join("")}</Outputs></member></Stacks>`;
}
