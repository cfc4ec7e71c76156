import type * as z from "zod";
import { type Cloud, cloudEnvironment } from "./cloud.ts";

/*
 * Calls of an emulated AWS for which the project has no SDK client. Emulators read service and region from the scope of
 * the signature, and check no more of it.
 */

const DEADLINE_MS = 30_000;

/** A call of a service that speaks JSON 1.1, such as ECS. */
export function callJson<T>(
  cloud: Cloud,
  call: { service: string; target: string; body: unknown },
  answer: z.ZodType<T>,
): Promise<T> {
  const { service, target, body } = call;
  return request(cloud, service, "/", answer, {
    method: "POST",
    headers: { "content-type": "application/x-amz-json-1.1", "x-amz-target": target },
    body: JSON.stringify(body),
  });
}

/** A reading call of a service that speaks REST, such as Lambda. */
export function callRest<T>(
  cloud: Cloud,
  { service, path }: { service: string; path: string },
  answer: z.ZodType<T>,
): Promise<T> {
  return request(cloud, service, path, answer, {});
}

async function request<T>(
  cloud: Cloud,
  service: string,
  path: string,
  answer: z.ZodType<T>,
  { headers, ...init }: RequestInit,
): Promise<T> {
  const { AWS_REGION, AWS_ACCESS_KEY_ID } = cloudEnvironment(cloud);
  const day = new Date().toISOString().slice(0, 10).replaceAll("-", "");
  const response = await fetch(new URL(path, cloud.endpoint), {
    ...init,
    headers: {
      ...headers,
      authorization: `AWS4-HMAC-SHA256 Credential=${AWS_ACCESS_KEY_ID}/${day}/${AWS_REGION}/${service}/aws4_request, SignedHeaders=host, Signature=0`,
    },
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${service} ${path}: ${response.status} ${text}`);
  return answer.parse(JSON.parse(text));
}
