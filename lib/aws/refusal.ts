/** Why AWS refuses a call: the error its clients see, and the page of AWS's documentation that says so. */
export interface AwsRefusal {
  readonly code: string;
  readonly message: string;
  /** Absent where an emulator refused by itself. */
  readonly page?: string | undefined;
}

/** Returns the refusal of the first check that refuses. */
export function firstRefusal(checks: Iterable<() => AwsRefusal | undefined>): AwsRefusal | undefined {
  for (const check of checks) {
    const refusal = check();
    if (refusal) return refusal;
  }
  return undefined;
}

/** Length of a text in UTF-8. */
export function utf8Bytes(text: string): number {
  return Buffer.byteLength(text, "utf8");
}

/** Length of a binary value: bytes as the SDK takes them, or base64 as they travel in JSON. */
export function binaryBytes(value: unknown): number {
  if (value instanceof Uint8Array) return value.byteLength;
  return typeof value === "string" ? Buffer.byteLength(value, "base64") : 0;
}
