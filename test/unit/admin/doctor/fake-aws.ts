import { once } from "node:events";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

/** The answer to one action; left out: 200, and JSON. */
export interface Answer {
  readonly status?: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** The name of an error as AWS answers it. */
export function refusal(code: string, status = 400): Answer {
  return {
    status,
    body: { __type: code, message: `${code} by the test` },
    headers: { "x-amzn-errortype": code },
  };
}

/** AWS at HTTP level, for the real SDK: it answers what a test says, and keeps which actions were asked for. */
export class FakeAws {
  /** `dynamodb:DescribeTable`, in the order they came. */
  readonly asked: string[] = [];
  /** Answers by action; a function gets the parameters. */
  readonly answers = new Map<string, Answer | ((input: Record<string, unknown>) => Answer)>();
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<FakeAws> {
    const server = createServer();
    const aws = new FakeAws(server);
    server.on("request", (request, response) => {
      void aws.#answer(request).then(({ status = 200, body, headers = {} }) => {
        const text = typeof body === "string" ? body : JSON.stringify(body);
        response.writeHead(status, { "content-type": "application/json", ...headers }).end(text);
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return aws;
  }

  get environment(): Record<string, string> {
    const { port } = this.#server.address() as AddressInfo;
    return {
      AWS_ENDPOINT_URL: `http://127.0.0.1:${port}`,
      AWS_REGION: "eu-west-1",
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
    };
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    const text = (await buffer(request)).toString("utf8");
    const { action, input } = actionOf(request, text);
    this.asked.push(action);
    const answer = this.answers.get(action);
    const said = typeof answer === "function" ? answer(input) : answer;
    const given = said ?? refusal("AccessDeniedException");
    const isXml = /^(sts|iam|s3):/.test(action);
    return isXml && typeof given.body !== "string" ? { ...given, ...xml(action, given) } : given;
  }
}

/** Services say their actions in three ways: a header, a form, a path. */
function actionOf(
  request: IncomingMessage,
  text: string,
): { action: string; input: Record<string, unknown> } {
  const target = request.headers["x-amz-target"];
  const service =
    /Credential=[^/]+\/\d+\/[^/]+\/([a-z0-9-]+)\//.exec(request.headers.authorization ?? "")?.[1] ?? "";
  if (typeof target === "string")
    return {
      action: `${service}:${target.split(".").at(-1)}`,
      input: JSON.parse(text) as Record<string, unknown>,
    };
  if (text.startsWith("Action=") || text.includes("&Action=")) {
    const form = Object.fromEntries(new URLSearchParams(text));
    return { action: `${service}:${form.Action}`, input: form };
  }
  const path = request.url ?? "";
  const name = /event-source-mappings\/([^/?]+)/.exec(path)?.[1];
  if (name) return { action: "lambda:GetEventSourceMapping", input: { UUID: decodeURIComponent(name) } };
  const called = /functions\/([^/?]+)\/configuration/.exec(path)?.[1];
  if (called)
    return { action: "lambda:GetFunctionConfiguration", input: { FunctionName: decodeURIComponent(called) } };
  return { action: `${service}:${request.method} ${path.split("?")[0]}`, input: {} };
}

/** Query services answer in XML. */
function xml(action: string, { status = 200, body, headers: given }: Answer): Answer {
  const [, name] = action.split(":");
  const headers = { ...given, "content-type": "text/xml" };
  if (status >= 400) {
    const { __type: code } = body as { __type: string };
    return {
      status,
      headers,
      body: `<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>by the test</Message></Error></ErrorResponse>`,
    };
  }
  return {
    status,
    headers,
    body: `<${name}Response><${name}Result>${elements(body)}</${name}Result></${name}Response>`,
  };
}

function elements(value: unknown): string {
  if (Array.isArray(value)) return value.map((one) => `<member>${elements(one)}</member>`).join("");
  if (typeof value === "object" && value !== null)
    return Object.entries(value)
      .map(([name, member]) => `<${name}>${elements(member)}</${name}>`)
      .join("");
  return String(value);
}
