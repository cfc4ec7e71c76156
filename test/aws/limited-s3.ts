import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AwsRefusal } from "../../lib/aws/refusal.ts";
import { s3Refusal } from "../../lib/local/aws-limits/s3.ts";

/** Puts S3's limits before an emulator: what S3 refuses is answered as there, and given to `onRefused`. */
export function limitedS3(server: Server, onRefused: (refusal: AwsRefusal) => void): void {
  const listeners = server.listeners("request") as ((request: unknown, response: unknown) => void)[];
  server.removeAllListeners("request");
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    const { method = "GET", url = "/", headers } = request;
    const refusal = s3Refusal(method, url, headers);
    if (!refusal) {
      for (const listener of listeners) listener.call(server, request, response);
      return;
    }
    onRefused(refusal);
    request.resume();
    const body = `<Error><Code>${refusal.code}</Code><Message>${refusal.message}</Message></Error>`;
    response.writeHead(400, { "content-type": "application/xml" }).end(body);
  });
}
