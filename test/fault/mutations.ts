// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the breakages are source text
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

/*
 * npm run test:mutations [-- --only 4]
 *
 * Breaks what must not be broken, one deliberate breakage at a time, in a copy of the tree, and expects the tests
 * that guard it to fail. A breakage that no test sees is a hole in the tests: exit code 1.
 */

/** A deliberate breakage, and the tests that must see it. */
interface Mutation {
  readonly name: string;
  readonly file: string;
  /** Stands in the file exactly once. */
  readonly from: string;
  readonly to: string;
  readonly tests: readonly string[];
}

const MUTATIONS: readonly Mutation[] = [
  {
    name: "confirm the slot beyond a row that is to be read again and is not on record",
    file: "lib/source/postgres/postgres-change-stream.ts",
    from: "this.#backfills?.durable(stored) ?? stored;",
    to: "stored;",
    tests: ["test/postgres/reread.test.ts"],
  },
  {
    name: "forget a row that was asked for anew while it was read",
    file: "lib/source/postgres/reread/asked-rows.ts",
    from: "    if (this.#rows.get(id) !== row) return;\n",
    to: "",
    tests: ["test/unit/postgres/reread/asked-rows.test.ts"],
  },
  {
    name: "take over rows to be read again without writing them under the new lease",
    file: "lib/source/postgres/reread/rereads.ts",
    from: "    await rereads.#writeAll();\n",
    to: "",
    tests: ["test/postgres/reread.test.ts"],
  },
  {
    name: "count a backfill that began before its table's rows were asked for",
    file: "lib/source/postgres/reread/rereads.ts",
    from: '(progress?.startPosition ?? "") >= at',
    to: '(progress?.startPosition ?? "") !== at',
    tests: ["test/postgres/reread.test.ts"],
  },
  {
    name: "let an older capture task remove what is to be read again",
    file: "lib/state/rereads.ts",
    from: "generation <= :generation",
    to: "generation <> :generation",
    tests: ["test/aws/state/rereads.test.ts"],
  },
  {
    name: "drain a held topic's segment before its rows to be read again are on record",
    file: "lib/source/postgres/hold/held-topics.ts",
    from: "      await this.#options.asked();\n      await this.#options.record.write(topic.hold);",
    to: "      await this.#options.record.write(topic.hold);",
    tests: ["test/postgres/hold.test.ts"],
  },
  {
    name: "show a table's changes to its backfill alone while rows of it are read again",
    file: "lib/source/postgres/backfill/listeners.ts",
    from: "first && second ? new Both(first, second) : first",
    to: "first",
    tests: ["test/unit/postgres/backfill/listeners.test.ts"],
  },
  {
    name: "ask for no row that an update brings into the publication's filter",
    file: "lib/source/postgres/change-decoder.ts",
    from: "    if (!rows.isWhole) this.#incomplete(plan, transaction, ordinal, undefined);\n",
    to: "",
    tests: ["test/postgres/reread.test.ts"],
  },
  {
    name: "forget what expired first when a shard is left unread once more",
    file: "lib/consume/hold-run.ts",
    from: 'known.state === "open" || known.until >= until',
    to: "known.until >= until",
    tests: ["test/unit/consume/shards.test.ts"],
  },
  {
    name: "forget what expired the second time while a partition was held",
    file: "lib/consume/hold.ts",
    from: "return { ...hold, expired: [...known.slice(0, HOLES - 1), until] };",
    to: "return hold;",
    tests: ["test/unit/consume/shards.test.ts"],
  },
  {
    name: "accept what is missing beside an invocation at work",
    file: "lib/consume/fence.ts",
    from: "    if (isHeld(seen)) return undefined;\n",
    to: "",
    tests: ["test/unit/consume/hold-races.test.ts"],
  },
  {
    name: "redrive a hold under a lease that is another's since",
    file: "lib/consume/hold-redrive.ts",
    from: "if (!(await lease.confirm())) {",
    to: "if (deadline.end.aborted) {",
    tests: ["test/unit/consume/hold-races.test.ts"],
  },
  {
    name: "accept a gap under a lease that is another's since",
    file: "lib/admin/accept-gap.ts",
    from: "if (replay && !(await replay.renew())) {",
    to: "if (replay && signal.aborted) {",
    tests: ["test/unit/consume/hold-races.test.ts"],
  },
  {
    name: "accept a gap beside a replay of what its partition holds",
    file: "lib/admin/accept-gap.ts",
    from: "if (stored.hold && !replay) {",
    to: "if (stored.hold && token.hold === undefined) {",
    tests: ["test/unit/consume/hold-redrive.test.ts", "test/unit/consume/hold-races.test.ts"],
  },
  {
    name: "stand before a change whose object is gone although that was accepted",
    file: "lib/consume/claimed-event.ts",
    from: '  if (item.position <= explained) return "given up";\n',
    to: "",
    tests: ["test/unit/consume/lost-object.test.ts"],
  },
  {
    name: "let a late request set back how far a redrive has come",
    file: "lib/consume/parking-table.ts",
    from: "OR applied<${position})",
    to: "OR attribute_exists(applied))",
    tests: ["test/unit/consume/late-requests.test.ts"],
  },
  {
    name: "forget a table whose backfill has ended when another's ends at the same time",
    file: "lib/consume/missing-changes.ts",
    from: 'swept.length > 0 ? "swept=:was" : "attribute_exists(pk) AND attribute_not_exists(swept)"',
    to: 'swept.length > 0 ? "swept=:was" : "attribute_exists(pk)"',
    tests: ["test/unit/consume/late-requests.test.ts"],
  },
  {
    name: "keep a partition whose fence was altered while a redrive took it",
    file: "lib/consume/hold-redrive.ts",
    from: "      await fence.giveBack(place, partition, token, deadline.end);\n",
    to: "",
    tests: ["test/unit/consume/hold-faults.test.ts"],
  },
  {
    name: "let a replay that was overtaken while it was frozen call a handler",
    file: "lib/consume/replay-lease.ts",
    from: "      if (readToken(item, this.#lease.item.place.partition) !== this.#token.held) return false;\n",
    to: "",
    tests: ["test/unit/consume/hold-redrive.test.ts"],
  },
  {
    name: "replay a hold beside a redrive that is at work on it",
    file: "lib/consume/hold-run.ts",
    from: "const known = before.replay !== undefined;",
    to: "const known = false;",
    tests: ["test/unit/consume/hold-redrive.test.ts"],
  },
  {
    name: "forget what a redrive did whose partition was taken",
    file: "lib/consume/hold-redrive.ts",
    from: "    if (!isOurs) await fence.handOver(",
    to: "    if (overtaken.length < 0) await fence.handOver(",
    tests: ["test/unit/consume/hold-redrive.test.ts"],
  },
  {
    name: "hand a replay over to the first alone that took the partition from it",
    file: "lib/consume/fence.ts",
    from: "      refused = taker;\n",
    to: "      return;\n",
    tests: ["test/unit/consume/hold-races.test.ts"],
  },
  {
    name: "begin a replay although the partition was taken since",
    file: "lib/consume/hold-run.ts",
    from: "    if (await lease.confirm()) return lease;\n",
    to: "    return lease;\n",
    tests: ["test/unit/consume/hold-races.test.ts"],
  },
  {
    name: "take the partition from a replay to park a key no more",
    file: "lib/consume/redrive-lease.ts",
    from: " AND ${freeOf(REPLAY, place.partition)}`",
    to: "`",
    tests: ["test/unit/consume/hold-races.test.ts"],
  },
  {
    name: "take a partition for a redrive of a hold that has ended meanwhile",
    file: "lib/consume/hold-redrive.ts",
    from: "    if ((await leases.look(topic, partition, deadline.end)).hold?.id !== id)\n",
    to: "    if (deadline.work.aborted)\n",
    tests: ["test/unit/consume/hold-redrive.test.ts"],
  },
  {
    name: "take a lease of another who renews it",
    file: "lib/consume/partition-lease.ts",
    from: "${end}${partition}<:now)`",
    to: "${end}${partition}<:now OR ${end}${partition}>:now)`",
    tests: ["test/unit/consume/hold-redrive.test.ts"],
  },
  {
    name: "go on though the server skipped a place that the stream has",
    file: "lib/source/postgres/history-proof.ts",
    from: "    if (first && first.lsn < lsn)\n",
    to: "    if (first && first.lsn < lsn - 1_000_000n)\n",
    tests: ["test/unit/postgres/history-proof.test.ts"],
  },
  {
    name: "take another transaction at the same place of the log for the one that the stream has",
    file: "lib/source/postgres/history-proof.ts",
    from: "if (commit && (commit.xid !== found.xid || commit.timeMs !== timeMs(found.commitTime)))",
    to: "if (commit && commit.xid !== found.xid && commit.timeMs !== timeMs(found.commitTime))",
    tests: ["test/unit/postgres/history-proof.test.ts"],
  },
  {
    name: "call a commit lost because a keepalive came inside a transaction before it",
    file: "lib/source/postgres/history-pass.ts",
    from: "    if (!this.#inTransaction) this.#proof.passed(walEnd);\n",
    to: "    this.#proof.passed(walEnd);\n",
    tests: ["test/unit/postgres/history-proof.test.ts"],
  },
  {
    name: "give what one run of the server has shown from another one",
    file: "lib/source/postgres/postgres-change-stream.ts",
    from: "    if (passed === this.#proving) return undefined;\n",
    to: "    if (passed !== undefined) return undefined;\n",
    tests: ["test/postgres/forked-history.test.ts"],
  },
  {
    name: "look for no message that the server lost between two links",
    file: "lib/source/postgres/postgres-change-stream.ts",
    from: "      ...this.#messagePlaces.filter(({ lsn }) => lsn >= confirmedLsn && lsn > known),\n",
    to: "",
    tests: ["test/postgres/forked-history.test.ts"],
  },
  {
    name: "end in order without a note of what was given and not confirmed",
    file: "lib/source/postgres/postgres-change-stream.ts",
    from: "[...(commit ? [placeOfCommit(commit)] : []), ...this.#messagePlaces]",
    to: "this.#messagePlaces",
    tests: ["test/postgres/forked-history.test.ts"],
  },
  {
    name: "keep only the last place of those that were shown, whose transaction nobody knows",
    file: "lib/source/postgres/history-proof.ts",
    from: "[...(commit && commit !== last ? [commit] : []), ...(last ? [last] : [])]",
    to: "[...(last ? [last] : [])]",
    tests: ["test/unit/postgres/history-proof.test.ts"],
  },
  {
    name: "write since when the rest can be in the stream as it was at the start",
    file: "lib/source/postgres/confirmation.ts",
    from: "    if (sent) this.#state = { ...this.#state, sent: this.#sent(confirmedLsn, sent) };\n",
    to: "",
    tests: ["test/unit/postgres/confirmation.test.ts"],
  },
  {
    name: "begin without a note of who writes from here on",
    file: "lib/source/postgres/confirmation.ts",
    from: "{ places: [], ...this.#state.sent, writer }",
    to: "{ places: [], ...this.#state.sent }",
    tests: ["test/pipeline/forked-history.test.ts"],
  },
  {
    name: "forget what was held behind a release that stopped halfway, and the task that died",
    file: "lib/capture-tail.ts",
    from: "    by === undefined ? drained === START_OF_HISTORY : by === generation;\n",
    to: "    drained === START_OF_HISTORY && (by === undefined || by === generation);\n",
    tests: ["test/aws/capture-tail.test.ts"],
  },
  {
    name: "take another pipeline's records in the stream's end for one's own",
    file: "lib/stream/stream-tail.ts",
    from: " || !header.topic.startsWith(`${topicPrefix}.`)) return;",
    to: ") return;",
    tests: ["test/aws/stream-tail.test.ts"],
  },
  {
    name: "read the shards of the stream's end that were there at first",
    file: "lib/stream/stream-tail.ts",
    from: "        if (shards.length === 0) break;\n",
    to: "        if (shards.length === 0 || known.size > 0) break;\n",
    tests: ["test/aws/stream-tail.test.ts"],
  },
  {
    name: "call a stream missing because a closed shard of it has expired",
    file: "lib/stream/stream-tail.ts",
    from: " || (await this.#shards()).includes(shard)) throw error;",
    to: ") throw error;\n          throw error;",
    tests: ["test/aws/stream-tail.test.ts"],
  },
  {
    name: "read the stream's end only as far as its first page",
    file: "lib/stream/stream-tail.ts",
    from: "- (answer.MillisBehindLatest ?? 0) >= untilMs",
    to: "- (answer.MillisBehindLatest ?? 0) >= 0",
    tests: ["test/aws/stream-tail.test.ts"],
  },
  {
    name: "write on although another task may hold the lease",
    file: "lib/stream/stream-writer.ts",
    from: "    if (this.#leaseLeftMs > 0) return true;\n",
    to: "    if (this.#leaseLeftMs >= 0) return true;\n",
    tests: ["test/unit/stream/lease.test.ts"],
  },
  {
    name: "send a request that was signed while the lease ran out",
    file: "lib/stream/kinesis-sink.ts",
    from: "if (!mayWrite()) throw",
    to: "if (!mayWrite) throw",
    tests: ["test/unit/stream/lease.test.ts"],
  },
  {
    name: "wait for an answer beyond the lease",
    file: "lib/stream/stream-writer.ts",
    from: "Math.min(end - performance.now(), this.#leaseLeftMs)",
    to: "end - performance.now()",
    tests: ["test/unit/stream/lease.test.ts"],
  },
  {
    name: "call a sink equal that holds a row twice",
    file: "lib/verify/verify.ts",
    from: "if (ofSink && rows.has(keyText))",
    to: "if (!ofSink && rows.has(keyText))",
    tests: ["test/unit/verify/compare-table.test.ts"],
  },
  {
    name: "take a number in JSON for the text of its digits when a table is verified",
    file: "lib/verify/comparable.ts",
    from: "    return wideNumber ? wide(BigInt(inner)) : inner;",
    to: '    return wideNumber ? inner : typeof inner === "number" ? String(inner) : inner;',
    tests: ["test/unit/verify/comparable.test.ts"],
  },
  {
    name: "take in all rows of a page that verify reads, however large",
    file: "lib/verify/bounded-rows.ts",
    from: "    socket?.pause();\n",
    to: "",
    tests: ["test/postgres/verify-large-rows.test.ts"],
  },
  {
    name: "keep a chunk's row under the key that it left in the window",
    file: "lib/source/postgres/backfill/change-window.ts",
    from: "      if (oldKey !== key) this.#complete(oldKey);\n",
    to: "",
    tests: ["test/unit/postgres/change-window.test.ts"],
  },
  {
    name: "refuse the stream abort that PostgreSQL 18 sends in protocol 1",
    file: "lib/source/postgres/change-decoder.ts",
    from: "case 0x41:",
    to: "case 0x61:",
    tests: ["test/unit/pgoutput.test.ts"],
  },
  {
    name: "call a slot that somebody reads one that was advanced by others",
    file: "lib/source/postgres/slot.ts",
    from: "  if (slot.activePid !== undefined) throw slotInUse(slot.name, slot.activePid, slot.holder);\n",
    to: "",
    tests: ["test/unit/postgres/history.test.ts"],
  },
  {
    name: "keep a look-up session that does not answer",
    file: "lib/source/postgres/side-connection.ts",
    from: "    }, deadlineMs);",
    to: "    }, 2 ** 30);",
    tests: ["test/postgres/side-half-open.test.ts"],
  },
  {
    name: "take a JSON null for NULL",
    file: "lib/source/postgres/values/json-null.ts",
    from: "buffer[at] === LETTER_N ? WHOLE : NONE",
    to: "buffer[at] === LETTER_N ? NONE : NONE",
    tests: ["test/unit/values.test.ts"],
  },
  {
    name: "tell the old row's JSON nulls of the new row's key change",
    file: "lib/source/postgres/row-bytes.ts",
    from: "    this.#writeList(JSON_NULL_HEAD, this.#oldJsonNulls);\n    this.#oldJsonNulls.length = 0;\n",
    to: "    this.#writeList(JSON_NULL_HEAD, this.#oldJsonNulls);\n",
    tests: ["test/unit/decoder-differential.test.ts"],
  },
  {
    name: "let the server convert the log's text",
    file: "lib/source/postgres/connection.ts",
    from: "(replication && serverEncoding(encoding))",
    to: "(replication && serverEncoding(`${encoding}!`))",
    tests: ["test/postgres/encodings.test.ts"],
  },
  {
    name: "read messages of our own as UTF-8 whatever the database's encoding",
    file: "lib/source/postgres/logical-messages.ts",
    from: "if (decode === undefined || isAscii(content)) return message;",
    to: "if (decode === undefined || content !== undefined) return message;",
    tests: ["test/postgres/encodings.test.ts"],
  },
  {
    name: "read from an old primary that came back",
    file: "lib/source/postgres/hosts.ts",
    from: "if (timeline < this.#timeline)",
    to: "if (timeline < 0)",
    tests: ["test/postgres/hosts.test.ts"],
  },
  {
    name: "read a new timeline before it is in the record",
    file: "lib/source/postgres/confirmation.ts",
    from: "        this.#again();\n      });\n    await write;\n",
    to: "        this.#again();\n      });\n    void write;\n",
    tests: ["test/unit/postgres/confirmation.test.ts"],
  },
  {
    name: "give replayed commits again",
    file: "lib/source/postgres/change-decoder.ts",
    from: "    if (commit.commitLsn <= this.#lastCommit) return;\n",
    to: "",
    tests: ["test/unit/pgoutput.test.ts"],
  },
  {
    name: "confirm before ack",
    file: "lib/stream/acknowledgements.ts",
    from: "oldest === undefined || oldest.outstanding > 0 || oldest.lsn === undefined",
    to: "oldest === undefined || oldest.lsn === undefined",
    tests: ["test/unit/stream"],
  },
  {
    name: "two entries of a partition in a request",
    file: "lib/stream/ordered-writer.ts",
    from: '      queue.state = "inFlight";\n',
    to: "      if (entries.at(-1)?.queue !== queue) this.#makeReady(queue);\n",
    tests: ["test/unit/stream"],
  },
  {
    name: "read a moved table before its old slot has confirmed",
    file: "lib/source/postgres/slots/move.ts",
    from: "if (at !== undefined && at >= wanted) break;",
    to: "if (at !== undefined) break;",
    tests: ["test/pipeline/slots.test.ts"],
  },
  {
    name: "count generations by slot",
    file: "lib/state/capture-lease.ts",
    from: "Math.max(number(first?.newest) + 1, number(first?.generation) + 1, atLeast)",
    to: "atLeast",
    tests: ["test/aws/state"],
  },
  {
    name: "the SDK's retries on",
    file: "lib/aws.ts",
    from: "const once = { maxAttempts: 1 } as const;",
    to: "const once = { maxAttempts: 3 } as const;",
    tests: ["test/aws/clients.test.ts"],
  },
  {
    name: "a session that cannot be opened refuses the table's backfill",
    file: "lib/source/postgres/backfill/passing.ts",
    from: "  if (isOfConnecting(error)) return true;\n",
    to: "",
    tests: ["test/postgres/backfill-sessions.test.ts"],
  },
  {
    name: "a backfill waits for a secret that only a new start reads",
    file: "lib/source/postgres/backfill/table-run.ts",
    from: "        if (needsNewStart(error)) this.#options.restart(error);\n",
    to: "",
    tests: ["test/postgres/backfill-sessions.test.ts"],
  },
  {
    name: "a table that left stays read",
    file: "lib/source/postgres/backfill/backfills.ts",
    from: "if (!captured.has(backfill.table)) await this.#leave(backfill);",
    to: "if (!captured.has(backfill.table) && !hasEnded(backfill)) await this.#leave(backfill);",
    tests: ["test/postgres/backfill-again.test.ts"],
  },
  {
    name: "let what stands behind a change downstream before that one is recorded and in the queue",
    file: "lib/source/postgres/postgres-change-stream.ts",
    from: "if (this.#asides?.isPending && !(await this.#settle(this.#asides))) break;",
    to: "if (this.#asides?.isPending) void this.#settle(this.#asides);",
    tests: ["test/postgres/put-aside.test.ts"],
  },
  {
    name: "hold what tells of a change that was put aside before that one is on record",
    file: "lib/source/postgres/postgres-change-stream.ts",
    from: "if (this.#asides?.isPending && !(await this.#settle(this.#asides))) break;",
    to: "batch.splice(0, batch.length, ...this.#sift(batch));\n      if (this.#asides?.isPending && !(await this.#settle(this.#asides))) break;",
    tests: ["test/postgres/put-aside.test.ts"],
  },
  {
    name: "give a change that was put aside once it can be decoded",
    file: "lib/source/postgres/change-decoder.ts",
    from: "    if (transaction.aside?.has(asidePlace(plan.topic.name, last))) throw new PutAsideBefore();\n",
    to: "",
    tests: ["test/postgres/put-aside.test.ts"],
  },
  {
    name: "put a change aside that stands where a moved topic's change was put aside",
    file: "lib/source/postgres/aside/aside-record.ts",
    from: "return `${ordinal} ${topic}`;",
    to: "return String(ordinal);",
    tests: ["test/postgres/put-aside.test.ts"],
  },
  {
    name: "take a backfill that began before a change was put aside for a read behind it",
    file: "lib/source/postgres/aside/asides.ts",
    from: 'const startsBehind = (now?.progress?.startPosition ?? "") > last;',
    to: "const startsBehind = now !== undefined;",
    tests: ["test/postgres/put-aside.test.ts"],
  },
  {
    name: "take a backfill that was asked for and may have begun for a read behind a change that was put aside",
    file: "lib/source/postgres/aside/asides.ts",
    from: 'const startsBehind = (now?.progress?.startPosition ?? "") > last;',
    to: 'const startsBehind = now?.status === "requested" || (now?.progress?.startPosition ?? "") > last;',
    tests: ["test/unit/postgres/aside/asides.test.ts"],
  },
  {
    name: "let a topic's old slot forget that a table is to be read again",
    file: "lib/capture-slot.ts",
    from: "if (!hasLeft(aside.topic)) await record.remove(aside);",
    to: "await record.remove(aside);",
    tests: ["test/unit/slots/own-asides.test.ts"],
  },
  {
    name: "look for the rows of a filter without a bound",
    file: "lib/source/postgres/backfill/chunk-reader.ts",
    from: "const filtered = where !== undefined || shape.filter !== undefined;",
    to: "const filtered = false;",
    tests: ["test/postgres/backfill-where.test.ts"],
  },
  {
    name: "take a renamed label of an enum for the same order of pages",
    file: "lib/source/postgres/backfill/table-shape.ts",
    from: "      ...(labels === null ? [] : [labels]),\n",
    to: "",
    tests: ["test/postgres/backfill-where.test.ts"],
  },
  {
    name: "page by a key that may hold NULLs",
    file: "lib/source/postgres/preflight/table-facts.ts",
    from: "AND NOT nn.convalidated AND",
    to: "AND nn.convalidated IS NULL AND",
    tests: ["test/postgres/backfill-tables.test.ts"],
  },
  {
    name: "a refused backfill counts as whole",
    file: "lib/source/postgres/backfill/wanted-backfills.ts",
    from: '(status === "done" || status === "cancelled") && isWhole',
    to: "isWhole",
    tests: ["test/aws/state/backfills.test.ts"],
  },
  {
    name: "accept a gap without asking for a backfill that began behind it",
    file: "lib/admin/accept-gap.ts",
    from: "backfill.progress.startPosition >= upTo",
    to: "backfill.progress.startPosition !== upTo",
    tests: ["test/aws/consume/gaps.test.ts"],
  },
  {
    name: "count a backfill that began before the missing changes",
    file: "lib/consume/missing-changes.ts",
    from: "end.startPosition < upTo || ",
    to: "",
    tests: ["test/aws/consume/gaps.test.ts"],
  },
  {
    name: "accept a gap under the old generation",
    file: "lib/admin/accept-gap.ts",
    from: "checkpoint.explain(upTo, writer)",
    to: "checkpoint.explain(upTo, 0)",
    tests: ["test/aws/consume/gaps.test.ts"],
  },
  {
    name: "forget expired records once anything newer of their shard was read",
    file: "lib/consume/shards.ts",
    from: "return { ...state, lost: { from: arrived, until } };",
    to: "return state;",
    tests: ["test/unit/consume/shards.test.ts"],
  },
  {
    name: "take every quiet time for one in which nothing was written",
    file: "lib/consume/shards.ts",
    from: "last >= quietSince - BEAT_SLACK_MS",
    to: "last > 0",
    tests: ["test/unit/consume/shards.test.ts"],
  },
  {
    name: "let a new shard begin without what its parents lost",
    file: "lib/consume/shards.ts",
    from: "if (states.length === 0) return undefined;",
    to: "if (states.length >= 0) return undefined;",
    tests: ["test/unit/consume/shards.test.ts"],
  },
  {
    name: "let an unreadable record explain any gap behind it",
    file: "lib/consume/judge.ts",
    from: "after !== seen.explained",
    to: "seen.explained === undefined",
    tests: ["test/unit/consume/unreadable-record.test.ts"],
  },
  {
    name: "let an unreadable record explain a gap beside another mark",
    file: "lib/consume/fence-item.ts",
    from: "mark !== undefined && explained?.startsWith(mark)",
    to: "mark !== undefined && explained !== undefined",
    tests: ["test/unit/consume/unreadable-record.test.ts"],
  },
  {
    name: "forget an unreadable record with the invocation",
    file: "lib/consume/fence-item.ts",
    from: "    if (explained !== undefined) {\n",
    to: "    if (explained === null) {\n",
    tests: ["test/unit/consume/unreadable-record.test.ts"],
  },
  {
    name: "write the last position of the wrong record",
    file: "lib/stream/partition-queue.ts",
    from: "      if (this.#hasLast) this.#records.at(-1)?.endAt(this.#last);\n      const place",
    to: "      const place",
    tests: ["test/unit/stream"],
  },
  {
    name: "compare LSN without ordinal",
    file: "lib/consume/judge.ts",
    from: "if (position <= seen.mark)",
    to: "if (position.slice(0, 24) <= seen.mark.slice(0, 24))",
    tests: ["test/unit/consume"],
  },
  {
    name: "count relation messages",
    file: "lib/source/postgres/change-decoder.ts",
    from: "      case 0x52:\n",
    to: "      case 0x52:\n        if (this.#transaction) this.#transaction.ordinal++;\n",
    tests: ["test/unit/pgoutput.test.ts"],
  },
  {
    name: "fence before effect",
    file: "lib/consume/partition-run.ts",
    from: "    const passed = isForAnother(wire, consumer);\n",
    to: "    this.#partition.checkpoint.reach(position, record.writer);\n    const passed = isForAnother(wire, consumer);\n",
    tests: ["test/unit/consume"],
  },
  {
    name: "store a writer's generation when its record is judged",
    file: "lib/consume/partition-run.ts",
    from: "    const turn = this.#turn(record, position, wire.source.after);\n",
    to: "    this.#partition.checkpoint.reach(this.#partition.checkpoint.mark, record.writer);\n    const turn = this.#turn(record, position, wire.source.after);\n",
    tests: ["test/unit/consume"],
  },
  {
    name: "store a newer generation ahead of what waits in a call",
    file: "lib/consume/partition-run.ts",
    from: "    if (this.#chunk.length === 0) this.#partition.checkpoint.reach(position, writer);\n",
    to: "    this.#partition.checkpoint.reach(this.#chunk.length === 0 ? position : this.#partition.checkpoint.mark, writer);\n",
    tests: ["test/unit/consume/fence-model.test.ts"],
  },
  {
    name: "judge a record's writer by the checkpoint",
    file: "lib/consume/partition-run.ts",
    from: "if (isStaleWriter(this.#judged, record.writer)) {",
    to: "if (isStaleWriter(this.#partition.checkpoint, record.writer)) {",
    tests: ["test/unit/consume/fence-model.test.ts"],
  },
  {
    name: "take a successor's hold for all that came before its end",
    file: "lib/consume/checkpoint.ts",
    from: "hold && hold.holes.length === 0 ? hold.intake : stored",
    to: "hold ? hold.intake : stored",
    tests: ["test/unit/consume/checkpoint.test.ts"],
  },
  {
    name: "hold what came late behind the rest",
    file: "lib/consume/hold-intake.ts",
    from: "      runs.push([record]);\n      continue;\n",
    to: "      tail = [record];\n      runs.push(tail);\n      continue;\n",
    tests: ["test/unit/consume/fence-model.test.ts"],
  },
  {
    name: "remove held records before their effect is on record",
    file: "lib/consume/hold-replay.ts",
    from: "    await this.#note(this.#progress);\n    await holds",
    to: "    await holds",
    tests: ["test/unit/consume/fence-model.test.ts"],
  },
  {
    name: "let older libraries read a held partition",
    file: "lib/consume/fence-item.ts",
    from: 'return isHeld ? [...(parked ? [parked] : []), HELD].join(",") : parked;',
    to: "return parked;",
    tests: ["test/unit/consume/hold.test.ts"],
  },
  {
    name: "no token",
    file: "lib/consume/fence-item.ts",
    from: 'ConditionExpression: conditions.join(" AND "),',
    to: 'ConditionExpression: `attribute_exists(pk) OR ${conditions.join(" AND ")}`,',
    tests: ["test/aws/consume/fence.test.ts"],
  },
  {
    name: "a take that does not look at who has it",
    file: "lib/consume/fence-item.ts",
    from: "`NOT t${p}>:t`",
    to: "`NOT t${p}=:t`",
    tests: ["test/aws/consume/fence.test.ts"],
  },
  {
    name: "notes that share one token",
    file: "lib/consume/fence-token.ts",
    from: "return this.#text(++this.#issued);",
    to: "return this.#text(this.#issued);",
    tests: ["test/unit/consume"],
  },
  {
    name: "a redrive's lease that can be taken a second time by its own request",
    file: "lib/consume/partition-lease.ts",
    from: " AND (attribute_not_exists(${u}) OR ${u}<:u)`",
    to: " AND (attribute_not_exists(${u}) OR ${u}<:u OR ${u}>:now)`",
    tests: ["test/aws/consume/fence.test.ts"],
  },
  {
    name: "a topic that is given back starts anew, though it was never given up",
    file: "lib/consume/topic-spans.ts",
    from: "span.until >= since);",
    to: "span.until > since);",
    tests: ["test/unit/consume/start-position.test.ts"],
  },
  {
    name: "a released partition forgets its last position",
    file: "lib/stream/topic-queues.ts",
    from: "    queue.last?.copy(this.#last, queue.partition * POSITION_BYTES);\n",
    to: "",
    tests: ["test/unit/stream"],
  },
  {
    name: "a superseded task removes the settings that its successor wrote",
    file: "lib/state/capture-parts.ts",
    from: '"#generation <= :generation"',
    to: '"#generation >= :generation"',
    tests: ["test/aws/state"],
  },
  {
    name: "the list of parked keys that the fence names is removed before it names another",
    file: "lib/consume/fence.ts",
    from: "    const stored = await this.#lists.write({ topic, partition }, parked, signal);\n",
    to: "    await this.#lists.remove({ topic, partition }, list.stored, signal);\n    const stored = await this.#lists.write({ topic, partition }, parked, signal);\n",
    tests: ["test/unit/consume/parking-model.test.ts"],
  },
  {
    name: "a list of parked keys that is missing counts as empty",
    file: "lib/consume/parked-lists.ts",
    from: "    if (keys === undefined) throw new ParkedKeysMissingError(place, version);\n",
    to: "    if (keys === undefined) return undefined;\n",
    tests: ["test/aws/consume/parked-lists.test.ts"],
  },
  {
    name: "drop the in-flight limit",
    file: "lib/stream/ordered-writer.ts",
    from: "    this.#inFlight++;\n    this.#takenAt = now;\n",
    to: "    this.#inFlight++;\n    for (const { queue } of entries) this.#makeReady(queue);\n    this.#takenAt = now;\n",
    tests: ["test/unit/stream"],
  },
  {
    name: "forget the epoch",
    file: "lib/change/position.ts",
    from: "return hex(epoch, 8) + hex(commitLsn, 16);",
    to: "return hex(epoch * 0, 8) + hex(commitLsn, 16);",
    tests: ["test/unit/change"],
  },
  {
    name: "start from our record instead of the slot's",
    file: "lib/source/postgres/postgres-change-stream.ts",
    from: "    this.#replay = new ReplayCheck(this.#confirmation.knownCommits, slot.confirmedLsn);\n",
    to: "    await client.query(\n      `SELECT pg_replication_slot_advance('${state.slot}', greatest('${formatLsn(state.confirmedLsn)}'::pg_lsn, '${formatLsn(slot.confirmedLsn)}'::pg_lsn))`,\n    );\n    this.#replay = new ReplayCheck(this.#confirmation.knownCommits, slot.confirmedLsn);\n",
    tests: ["test/postgres/slot.test.ts", "test/postgres/stream.test.ts"],
  },
  {
    name: "sweep up to its event instead of its bound",
    file: "lib/consume/sweep.ts",
    from: "return end?.sweep ? end.startPosition : undefined;",
    to: "return end?.sweep ? position : undefined;",
    tests: ["test/aws/consume/backfill.test.ts"],
  },
  {
    name: "parked keys compared as they are printed",
    file: "lib/consume/parked-keys.ts",
    from: 'return /^-?\\d+\\.\\d+$/.test(text) ? withoutEnd(withoutEnd(text, "0"), ".") : text;',
    to: "return text;",
    tests: ["test/unit/consume/parked-keys.test.ts"],
  },
  {
    name: "a letter of characters that SQS refuses",
    file: "lib/consume/dead-letter.ts",
    from: "return json.replace(REFUSED, ",
    to: "return json.replace(/[\\0]/g, ",
    tests: ["test/unit/consume/dead-letter.test.ts"],
  },
  {
    name: "a parked change printed anew",
    file: "lib/change/event-texts.ts",
    from: "array.slice(valueStart, end);",
    to: "JSON.stringify(JSON.parse(array.slice(valueStart, end)));",
    tests: ["test/unit/consume/any-document.test.ts"],
  },
  {
    name: "a redrive that calls without asking for its lease",
    file: "lib/consume/redrive-chain.ts",
    from: "const mayCall = () => this.#lease.isOurs();",
    to: "const mayCall = async () => true;",
    tests: ["test/unit/consume/redrive.test.ts"],
  },
  {
    name: "a parked change deleted before it is noted as applied",
    file: "lib/consume/redrive-chain.ts",
    from: "    await parking.applied(this.#place, position, this.#signal);\n    await parking.deleteChange(this.#place, position, this.#signal);\n",
    to: "    await parking.deleteChange(this.#place, position, this.#signal);\n    await parking.applied(this.#place, position, this.#signal);\n",
    tests: ["test/unit/consume/redrive.test.ts"],
  },
  {
    name: "discard of what comes first, failed or not",
    file: "lib/consume/redrive-chain.ts",
    from: "if (failed === undefined) return false;",
    to: "if (failed === undefined) return first;",
    tests: ["test/unit/consume/redrive.test.ts"],
  },
  {
    name: "a parked change without a handler counts as redriven",
    file: "lib/consume/redrive-change.ts",
    from: "return isControlEvent(wire)",
    to: "return !isControlEvent(wire)",
    tests: ["test/unit/consume/redrive.test.ts"],
  },
  {
    name: "a limit that each partition has for itself",
    file: "lib/consume/redrive-chain.ts",
    from: "    this.#run.left--;\n    this.#begun = true;\n",
    to: "    await this.#lease.isOurs();\n    this.#run.left--;\n    this.#begun = true;\n",
    tests: ["test/unit/consume/redrive.test.ts"],
  },
  {
    name: "decompressed events that stay until the invocation's end",
    file: "lib/consume/partition-run.ts",
    from: "      record.close?.();\n",
    to: "",
    tests: ["test/unit/consume/compressed-records.test.ts"],
  },
  {
    name: "a compressed record that need not be as large as it says",
    file: "lib/change/record.ts",
    from: "if (events?.length !== uncompressedBytes(base64))",
    to: "if (events === undefined)",
    tests: ["test/unit/consume/compressed-records.test.ts"],
  },
  {
    name: "an outbox read by serial number",
    file: "lib/source/outbox/relay-database.ts",
    from: "WHERE o.lane = ready.lane AND o.published_at IS NULL ORDER BY",
    to: "WHERE o.lane = ready.lane AND o.published_at IS NULL AND o.seq > (SELECT COALESCE(max(k.seq), 0) FROM ${outbox} k WHERE k.published_at IS NOT NULL) ORDER BY",
    tests: ["test/postgres/outbox-relay.test.ts"],
  },
  {
    name: "changes of a batch that were decoded before a failure dropped",
    file: "lib/source/batches/batch-stream.ts",
    from: "          if (messages.length > 0) yield messages;\n          if (failure !== undefined) throw failure;\n",
    to: "          if (failure !== undefined) throw failure;\n          if (messages.length > 0) yield messages;\n",
    tests: ["test/postgres/batch-stream.test.ts"],
  },
  {
    name: "the command of a deleted row taken from a number that stands for two",
    file: "lib/source/trigger/audit-sql.ts",
    from: "ELSIF TG_OP = 'DELETE' AND NOT own THEN",
    to: "ELSIF TG_OP = 'DELETE' THEN",
    tests: ["test/postgres/triggers.test.ts"],
  },
  {
    name: "each of several row triggers of a table writes",
    file: "lib/source/trigger/audit-sql.ts",
    from: "IF TG_NAME <> writer THEN RETURN NULL; END IF;",
    to: "",
    tests: ["test/postgres/trigger-partitions.test.ts"],
  },
  {
    name: "a partition's truncate told of its whole table",
    file: "lib/source/trigger/audit-sql.ts",
    from: "IF covered THEN RETURN NULL; END IF;",
    to: "",
    tests: ["test/postgres/trigger-partitions.test.ts"],
  },
  {
    name: "a polled batch read at once, however large its rows",
    file: "lib/source/query/row-pages.ts",
    from: "reduce((sum, { bytes }) => sum + bytes, 0) <= PAGE_BYTES",
    to: "length > 0",
    tests: ["test/postgres/polling.test.ts"],
  },
  {
    name: "an outbox's batch forgotten by the next owner",
    file: "lib/source/outbox/relay-database.ts",
    from: "SET owner = $1, generation = $2 WHERE lane IN",
    to: "SET owner = $1, generation = $2, seqs = NULL WHERE lane IN",
    tests: ["test/postgres/outbox-relay.test.ts"],
  },
  {
    name: "an outbox's rows removed by who lost their lane",
    file: "lib/source/outbox/relay-database.ts",
    from: "WHERE lane = $1 AND owner = $2 AND generation = $3 AND batch = $4 AND seqs IS NOT NULL RETURNING lane",
    to: "WHERE lane = $1 AND $2::uuid IS NOT NULL AND $3::bigint + $4::bigint > 0 RETURNING lane",
    tests: ["test/postgres/outbox-relay.test.ts"],
  },
  {
    name: "release a claim while its handler still runs",
    file: "lib/consume/effects.ts",
    from: "if (!recorded && !running.has(this.#partition.lane)) {",
    to: "if (!recorded) {",
    tests: ["test/unit/consume/still-running.test.ts"],
  },
  {
    name: "give a change up while its handler still runs",
    file: "lib/consume/effects.ts",
    from: "      if (running.has(this.#partition.lane)) {",
    to: "      if (calls < configuration.attempts && running.has(this.#partition.lane)) {",
    tests: ["test/unit/consume/still-running.test.ts"],
  },
  {
    name: "call a schema without a note",
    file: "lib/consume/preparation.ts",
    from: "if (checkpoint.attempts || start.note) return this.#attempts(schema, given);",
    to: "if (checkpoint.attempts) return this.#attempts(schema, given);",
    tests: ["test/unit/consume/schema-call.test.ts"],
  },
  {
    name: "a call that ended counts only with the close",
    file: "lib/consume/partition-run.ts",
    from: "    await partition.start.note?.(progress).catch(() => false);\n",
    to: "",
    tests: ["test/unit/consume/died.test.ts"],
  },
  {
    name: "call again what took effect before a failure",
    file: "lib/consume/partition-run.ts",
    from: 'if (registration.kind === "batch" && this.#partition.checkpoint.isDone(item.position)) {',
    to: "if (false) {",
    tests: ["test/unit/consume/done-ahead.test.ts"],
  },
  {
    name: "go on while another process may run a handler",
    file: "lib/consume/running-calls.ts",
    from: "    return Date.now() >= known.until;",
    to: "    return true;",
    tests: ["test/unit/consume/still-running.test.ts"],
  },
  {
    name: "go on in a partition where an earlier call still runs",
    file: "lib/consume/partition.ts",
    from: "    if (!record || !(known || running.has(this.lane))) return undefined;",
    to: "    if (!record || !known) return undefined;",
    tests: ["test/unit/consume/still-running.test.ts"],
  },
  {
    name: "timers of the deadline that do not keep the process alive",
    file: "lib/consume/deadline.ts",
    from: "setTimeout(() => controller.abort(new HandlerTimeoutError()), at - now);",
    to: "setTimeout(() => controller.abort(new HandlerTimeoutError()), at - now).unref();",
    tests: ["test/unit/consume/deadline.test.ts"],
  },
  {
    name: "let a local Lambda's timers run behind its answer",
    file: "lib/local/lambda/child.ts",
    from: "    const frame = readFrameSync(PIPE);\n",
    to: "    await new Promise((resolve) => setTimeout(resolve, 50));\n    const frame = readFrameSync(PIPE);\n",
    tests: ["test/unit/local/lambda/host.test.ts"],
  },
  {
    name: "keep a local Lambda alive that waits for nothing",
    file: "lib/local/lambda/child.ts",
    from: "void main();",
    to: "void main();\nsetInterval(() => {}, 1000);",
    tests: ["test/unit/local/lambda/host.test.ts"],
  },
  {
    name: "send SQS what it refuses",
    file: "lib/local/aws-limits/sqs.ts",
    from: "uE000-\\uFFFD",
    to: "uE000-\\uFFFF",
    tests: ["test/aws/refused-calls.test.ts"],
  },
  {
    name: "forget that AWS refuses a call",
    file: "lib/local/emulators/limited.ts",
    from: "        report({ service: limits.service, operation, ...refusal });\n",
    to: "",
    tests: ["test/aws/refused-calls.test.ts"],
  },
  {
    name: "confirm what is held before it is stored",
    file: "lib/source/postgres/hold/held-topics.ts",
    from: "if (durable !== undefined && durable < least) least = durable;",
    to: "if (durable !== undefined && durable > least) least = durable;",
    tests: ["test/postgres/hold.test.ts"],
  },
  {
    name: "release a topic before what comes again of it was read",
    file: "lib/source/postgres/hold/held-topics.ts",
    from: "if (epoch < this.#options.epoch || commitLsn < received) return topic;",
    to: "if (received >= 0n) return topic;",
    tests: ["test/postgres/hold.test.ts"],
  },
  {
    name: "take what stood before a hold for stored",
    file: "lib/source/postgres/hold/held-topic.ts",
    from: 'if (position < this.hold.from) return "before";',
    to: 'if (position < this.hold.from) return "stored";',
    tests: ["test/postgres/hold.test.ts"],
  },
  {
    name: "take another table of a captured name for the one before",
    file: "lib/source/postgres/identity/table-identities.ts",
    from: "    if (here?.oid === current.oid) {",
    to: "    if (here) {",
    tests: ["test/postgres/table-names.test.ts"],
  },
  {
    name: "let the truncate of another table through under a captured name",
    file: "lib/source/postgres/change-decoder.ts",
    from: "        if (!this.#takeAside(plan, transaction, 1, truncateOf(oid), problem, out)) throw problem;\n        continue;\n",
    to: "",
    tests: ["test/postgres/table-names.test.ts"],
  },
  {
    name: "accept another table without reading it",
    file: "lib/source/postgres/postgres-change-stream.ts",
    from: "    if (isNew) await this.#backfills?.readAnew(table);\n",
    to: "",
    tests: ["test/postgres/table-names.test.ts"],
  },
  {
    name: "put what comes again where today's key says",
    file: "lib/source/postgres/identity/table-identities.ts",
    from: "span(i === 0 ? undefined : from, keyOf(key));",
    to: "span(i === 0 ? undefined : from, keyOf(current.key));",
    tests: ["test/unit/postgres/table-identities.test.ts"],
  },
  {
    name: "give an update under a key of which the log's identity lacks a column",
    file: "lib/source/postgres/change-decoder.ts",
    from: '    if (plan.unseen !== undefined && oldRow !== "full") throw plan.unseen;\n    plan.listener',
    to: "    plan.listener",
    tests: ["test/postgres/table-keys.test.ts"],
  },
  {
    name: "stop a release for good at changes of a key that was taken back",
    file: "lib/source/postgres/identity/table-identities.ts",
    from: "      return [{ ...known, swept: true }, ",
    to: "      return [{ ...known, swept: lenient }, ",
    tests: ["test/postgres/table-keys.test.ts"],
  },
  {
    name: "give what a partition had before its root took its name under a name that nobody captures",
    file: "lib/source/postgres/relations.ts",
    from: "view?.passedOver !== true && !hasLeft;",
    to: "view?.passedOver !== true;",
    tests: ["test/postgres/table-names.test.ts"],
  },
  {
    name: "read old log by the latest name of a key's column, where that was another one's",
    file: "lib/source/postgres/identity/known-tables.ts",
    from: "    return sure ?? places.at(-1) ?? -1;\n",
    to: "    return places.at(-1) ?? -1;\n",
    tests: ["test/postgres/table-keys.test.ts"],
  },
  {
    name: "give changes on under the old key when it is another one",
    file: "lib/source/postgres/identity/table-identities.ts",
    from: "spans.push(span(difference.from, current.key, difference.error));",
    to: "spans.push(span(difference.from, current.key));",
    tests: ["test/unit/postgres/table-identities.test.ts", "test/postgres/table-keys.test.ts"],
  },
  {
    name: "hold changes in two forms, of the old key and of the new one",
    file: "lib/source/postgres/change-decoder.ts",
    from: "      this.#options.identities?.isHeldFrom(table, from);\n",
    to: "",
    tests: ["test/postgres/table-keys.test.ts"],
  },
  {
    name: "release under a new key before consumers can tell that they have passed the old one",
    file: "lib/source/postgres/hold/held-topics.ts",
    from: "      if (barrier) barriers.push(barrier);\n",
    to: "",
    tests: ["test/postgres/table-keys.test.ts"],
  },
  {
    name: "release while a consumer still has changes of the old key before it",
    file: "lib/admin/hold-passage.ts",
    from: '(mark ?? "") < barrier && floor < barrier',
    to: "mark === undefined && floor < barrier",
    tests: ["test/aws/consume/hold-passage.test.ts"],
  },
  {
    name: "end a hold before its changes are stored in the stream",
    file: "lib/source/postgres/hold/held-topics.ts",
    from: "await Promise.race([stored.promise, aborted(signal)]);",
    to: "stored.resolve();",
    tests: ["test/postgres/hold.test.ts"],
  },
  {
    name: "compare what a publication says, and not who wrote it",
    file: "lib/source/postgres/contract/difference.ts",
    from: "if (now.xmin === before.xmin || isOwn(now.xmin, before))",
    to: "if (true)",
    tests: ["test/postgres/publication-contract.test.ts"],
  },
  {
    name: "take our own ALTER PUBLICATION for somebody's",
    file: "lib/source/postgres/contract/difference.ts",
    from: "return own !== undefined && xmin === own;",
    to: "return own !== undefined && xmin === `${own}0`;",
    tests: ["test/postgres/publication-contract.test.ts"],
  },
  {
    name: "call a table healed by a backfill that sweeps nothing",
    file: "lib/source/postgres/contract/unhealed-tables.ts",
    from: "    request.sweep &&\n",
    to: "",
    tests: ["test/postgres/publication-contract.test.ts"],
  },
  {
    name: "tell a truncate of the whole table as one of each partition",
    file: "lib/source/postgres/contract/partition-watch.ts",
    from: "if (rewritten && this.#options.received() < look.seen.lsn)",
    to: "if (rewritten && look.seen.lsn < 0n)",
    tests: ["test/postgres/partitions.test.ts"],
  },
  {
    name: "take a partition that was detached and attached again for one that stayed",
    file: "lib/source/postgres/contract/partition-watch.ts",
    from: "leaf.edges.join() !== old.edges.join()",
    to: "leaf.edges.length !== old.edges.length",
    tests: ["test/postgres/partitions.test.ts"],
  },
  {
    name: "take every partition for one that was born as such",
    file: "lib/source/postgres/contract/leaves.ts",
    from: "  const { xmin, command } = leaf.attached;",
    to: "  if (leaf.attached) return false;\n  const { xmin, command } = leaf.attached;",
    tests: ["test/postgres/partitions.test.ts"],
  },
  {
    name: "let tail change the publication that it follows",
    file: "lib/source/postgres/preflight/preflight.ts",
    from: "    follow && existing\n",
    to: "    follow && !existing\n",
    tests: ["test/pipeline/tail.test.ts"],
  },
];

const { values } = parseArgs({ options: { only: { type: "string" } } });
const chosen = MUTATIONS.filter((_, i) => !values.only || values.only.split(",").includes(String(i + 1)));

const root = resolve(import.meta.dirname, "../..");
const copy = await mkdtemp(join(tmpdir(), "tributary-mutations-"));
let survived = 0;
try {
  await copyTree();
  const unbroken = new Set<string>();
  for (const mutation of chosen) {
    if (!unbroken.has(mutation.tests.join())) {
      const whole = await runTests(mutation.tests);
      if (whole.failed !== 0 || whole.passed === 0) {
        throw new Error(
          `${mutation.tests}: must pass before anything is broken:\n${whole.failures.join("\n")}`,
        );
      }
      unbroken.add(mutation.tests.join());
    }
    const outcome = await broken(mutation, () => runTests(mutation.tests));
    if (outcome === undefined) {
      survived++;
      console.log(
        `${mutation.name.padEnd(46)} its text is no longer in ${mutation.file}: bring it up to date`,
      );
      continue;
    }
    const { failed, failures } = outcome;
    const verdict = failed > 0 ? `red` : "SURVIVED";
    if (failed === 0) survived++;
    console.log(`${mutation.name.padEnd(46)} ${verdict}`);
    for (const failure of failures.slice(0, 3)) console.log(`    ${failure}`);
  }
} finally {
  await rm(copy, { recursive: true, force: true });
}
process.exit(survived > 0 ? 1 : 0);

async function copyTree(): Promise<void> {
  for (const part of [
    "lib",
    "functions",
    "cdk",
    "test",
    "package.json",
    "tsconfig.json",
    "vitest.config.ts",
  ]) {
    await cp(join(root, part), join(copy, part), { recursive: true });
  }
  await symlink(join(root, "node_modules"), join(copy, "node_modules"));
}

/** Runs something while the breakage is in the copy; undefined: the text to break is not there, or not once. */
async function broken<T>({ file, from, to }: Mutation, run: () => Promise<T>): Promise<T | undefined> {
  const path = join(copy, file);
  const text = await readFile(path, "utf8");
  const count = text.split(from).length - 1;
  if (count !== 1) return undefined;
  await writeFile(
    path,
    text.replace(from, () => to),
  );
  try {
    return await run();
  } finally {
    await writeFile(path, text);
  }
}

/** What we read of vitest's JSON report. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

/** Failed tests alone count: a file that cannot be loaded says nothing about a promise. */
async function runTests(
  files: readonly string[],
): Promise<{ passed: number; failed: number; failures: readonly string[] }> {
  const report = join(copy, "report.json");
  await rm(report, { force: true });
  const child = spawn(
    // By this Node: the one on the PATH may be older.
    process.execPath,
    [
      join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      "--bail=1",
      "--reporter=json",
      `--outputFile=${report}`,
      ...files,
    ],
    { cwd: copy, stdio: ["ignore", "pipe", "pipe"], timeout: 900_000 },
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  await once(child, "exit");
  const text = await readFile(report, "utf8").catch(() => undefined);
  if (text === undefined) throw new Error(`the tests did not run:\n${output.slice(-3000)}`);
  const { numPassedTests, numFailedTests, testResults } = JSON.parse(text) as Report;
  const failures = testResults.flatMap(({ name, message, assertionResults }) => [
    ...(message ? [`${name}: ${message}`] : []),
    ...assertionResults
      .filter(({ status }) => status === "failed")
      .map(({ fullName, failureMessages }) => `${fullName}: ${failureMessages[0]?.slice(0, 120)}`),
  ]);
  return { passed: numPassedTests, failed: numFailedTests, failures };
}
