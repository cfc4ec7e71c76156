import { brotliCompressSync, brotliDecompressSync, constants } from "node:zlib";

/*
 * A consumer's topic patterns in its environment. All variables of a Lambda function together have 4 KB, so a list of many
 * patterns goes there compressed.
 */
export const TOPICS_VARIABLE = "TRIBUTARY_TOPICS";
/** A name of its own: a library that does not know it finds no list, and takes no other topic for one to pass over. */
export const PACKED_TOPICS_VARIABLE = "TRIBUTARY_TOPICS_PACKED";

/** Longest list that is written as it is: people read it in the console. */
const READABLE_BYTES = 1024;
/** Bytes left of Lambda's 4 KB of variables beside the others that a consumer needs. */
export const MAX_TOPICS_BYTES = 3072;
/** Bound of an unpacked list, should the variable hold something else. */
const MAX_UNPACKED_BYTES = 1024 * 1024;

/** The variables that say which topics are a consumer's. */
export function topicVariables(topics: readonly string[]): Record<string, string> {
  const list = topics.join(",");
  return Buffer.byteLength(list) <= READABLE_BYTES
    ? { [TOPICS_VARIABLE]: list }
    : { [PACKED_TOPICS_VARIABLE]: packed(list) };
}

/** Bytes that a consumer's topics take in its environment. */
export function topicBytes(topics: readonly string[]): number {
  return Object.values(topicVariables(topics)).reduce((bytes, value) => bytes + Buffer.byteLength(value), 0);
}

/**
 * Reads a packed list of patterns.
 * @throws Error where it is none.
 */
export function unpackTopics(text: string): string[] {
  const bytes = Buffer.from(text, "base64");
  return brotliDecompressSync(bytes, { maxOutputLength: MAX_UNPACKED_BYTES }).toString("utf8").split(",");
}

function packed(list: string): string {
  return brotliCompressSync(Buffer.from(list, "utf8"), {
    params: {
      [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_SIZE_HINT]: Buffer.byteLength(list),
    },
  }).toString("base64");
}
