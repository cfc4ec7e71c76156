import { expect, test } from "vitest";
import type { SourceMessage } from "../../../lib/change/change-stream.ts";
import {
  MalformedMessageError,
  NameEncodingError,
} from "../../../lib/source/postgres/decode/decode-errors.ts";
import type { HeldMessage } from "../../../lib/source/postgres/hold/held-change.ts";
import { recordedCatalog, stillDecoder } from "../fixtures/hostile-stream.ts";

const text = (value: string) => Buffer.concat([Buffer.from(value, "latin1"), Buffer.from([0])]);
const int32 = (value: number) => Buffer.from([0, 0, 0, 0].map((_, i) => (value >> (8 * (3 - i))) & 0xff));
const int64 = (value: bigint) => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigInt64BE(value);
  return buffer;
};

const BEGIN = Buffer.concat([Buffer.from("B"), int64(500n), int64(0n), int32(812)]);
const relation = (schema: string, table: string, column: string) =>
  Buffer.concat([
    ...[Buffer.from("R"), int32(7), text(schema), text(table), Buffer.from("d"), Buffer.from([0, 1])],
    ...[Buffer.from([1]), text(column), int32(25), int32(-1)],
  ]);
const insert = (value: string, length = value.length) =>
  Buffer.concat([
    ...[Buffer.from("I"), int32(7), Buffer.from("N"), Buffer.from([0, 1])],
    ...[Buffer.from("t"), int32(length), Buffer.from(value)],
  ]);

/** Feeds messages; gives what came, and what was taken aside. */
async function decoded(...messages: readonly Buffer[]) {
  const taken: { readonly change: HeldMessage; readonly error: Error }[] = [];
  const out: SourceMessage[] = [];
  const decoder = stillDecoder(recordedCatalog(), {
    takeAside: (change, error) => taken.push({ change, error }) > 0,
  });
  for (const message of messages) await decoder.decode(message, 400n, out);
  const changes = out.filter((message) => message.kind === "change");
  return { taken, positions: changes.map(({ position }) => position.slice(-3)) };
}

test("takes a row aside whose bytes are not of the protocol, since its table is known", async () => {
  const cut = insert("abc", 4);
  const { taken, positions } = await decoded(
    BEGIN,
    relation("public", "t", "id"),
    insert("a"),
    cut,
    insert("b"),
  );
  expect(positions).toEqual(["001", "003"]);
  expect(taken).toMatchObject([{ change: { table: "public.t", ordinal: 1, payload: cut } }]);
  expect(taken[0]?.error).toBeInstanceOf(MalformedMessageError);
});

test("takes no message aside that does not say of which table it is", async () => {
  const open = [BEGIN, relation("public", "t", "id")];
  for (const message of [Buffer.from("I"), Buffer.from("I\0\0"), Buffer.from("R\0\0"), Buffer.from("C\0")])
    await expect(decoded(...open, message)).rejects.toBeInstanceOf(MalformedMessageError);
});

test("takes the changes of a table aside that has a column whose name is no text; the others go on", async () => {
  const { taken, positions } = await decoded(
    ...[BEGIN, relation("public", "t", "i\xe9"), insert("a")],
    ...[relation("public", "t", "id"), insert("b")],
  );
  expect(positions).toEqual(["002"]);
  expect(taken).toMatchObject([{ change: { table: "public.t", relation: { noName: { shown: "i\\xe9" } } } }]);
  expect(taken[0]?.error).toBeInstanceOf(NameEncodingError);
});

test("stops at a table whose own name is no text, and says why", async () => {
  const failure = decoded(BEGIN, relation("public", "t\xe9", "id"));
  await expect(failure).rejects.toBeInstanceOf(NameEncodingError);
  await expect(failure).rejects.toThrow(/OID 7 .*no topic can be held for it/);
});
