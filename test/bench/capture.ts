import { availableParallelism, loadavg } from "node:os";
import { type Backlog, makeBacklog } from "./capture/backlog.ts";
import { type Client, Endpoints, Peers, pgRecvlogical, type Reading } from "./capture/clients.ts";
import { installDebezium, JAVA_OPTIONS } from "./capture/debezium/installation.ts";
import { DEBEZIUM_EMBEDDED, DEBEZIUM_SERVER, debeziumEmbedded, debeziumServer } from "./capture/debezium.ts";
import { withWalsender } from "./capture/walsender.ts";
import type { Bench, BenchValues } from "./main.ts";

const CHANGES = 1_000_000;
const RUNS = 3;
/** The round trip to Kinesis that is injected, in milliseconds. */
const ROUND_TRIP_MS = 20;

/** A change a record takes one round trip for 64: the whole backlog would take half an hour. */
const UNPACKED = 50_000;

/** One retained backlog through PostgreSQL's own client, a peer and the real capture program, side by side. */
export const capture: Bench = {
  about: `Capture on ${availableParallelism()} cores: one backlog, drained again and again through each client.`,
  options: {
    changes: { type: "string" },
    runs: { type: "string" },
    /** Only clients whose name holds one of these. */
    only: { type: "string", multiple: true },
    /** Debezium beside it, embedded and as a server, where Java and Maven are. */
    debezium: { type: "boolean" },
    /** A folder with another checkout, installed: its program in turn with this one's. */
    beside: { type: "string" },
    "java-options": { type: "string", default: JAVA_OPTIONS },
    "cpu-prof": { type: "string" },
  },
  async run(say, values) {
    const changes = count(values, "changes", CHANGES);
    const runs = count(values, "runs", RUNS);
    const only = (values.only ?? []) as string[];
    const chosen = ({ name }: Client) => only.length === 0 || only.some((part) => name.includes(part));
    const beside = typeof values.beside === "string" ? values.beside : undefined;
    const profile = values["cpu-prof"];
    const nodeArguments = profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`];

    await using endpoints = await Endpoints.start(beside);
    await using peers = await Peers.install();
    const javaOptions = values.debezium === true ? String(values["java-options"]) : undefined;
    const debezium = await debeziumClients(endpoints, javaOptions, say);
    const clients = [
      pgRecvlogical,
      peers.client(false),
      peers.client(true),
      ...[0, ROUND_TRIP_MS].flatMap((delayMs) =>
        (["batch", "gzip", "none"] as const).flatMap((packing) => {
          const how = { packing, delayMs, nodeArguments, ...(packing === "none" ? { upTo: UNPACKED } : {}) };
          const ours = endpoints.tributary(how);
          return beside === undefined ? [ours] : [ours, endpoints.tributary({ ...how, beside: true })];
        }),
      ),
      ...debezium.clients,
    ].filter(chosen);

    say(`writing ${changes} changes …`);
    await using backlog = await makeBacklog(changes);
    say(
      `  ${backlog.commits} commits, ${Math.round(backlog.walBytes / 1e6)} MB of log, PostgreSQL ${backlog.server.version}`,
    );
    const readings = await alternate(clients, backlog, runs, say);
    return { ...summary(readings, { changes, runs, load: loadavg()[0] ?? 0 }, say), ...debezium.note };
  },
};

/** None where it is not asked for. What is missing is said, and stands in the closing line. */
async function debeziumClients(
  endpoints: Endpoints,
  javaOptions: string | undefined,
  say: (line: string) => void,
): Promise<{ readonly clients: readonly Client[]; readonly note: object }> {
  if (javaOptions === undefined) return { clients: [], note: {} };
  say("installing Debezium …");
  const found = await installDebezium(javaOptions);
  if (typeof found === "string") {
    say(`  SKIPPED: Debezium: ${found}`);
    return { clients: [], note: { debeziumSkipped: found } };
  }
  const { about, embedded, server } = found;
  say(`  ${about}`);
  if (typeof server === "string") {
    say(`  SKIPPED: ${server}`);
    return {
      clients: [debeziumEmbedded(embedded)],
      note: { debezium: about, debeziumServerSkipped: server },
    };
  }
  return {
    clients: [debeziumEmbedded(embedded), debeziumServer(server, endpoints)],
    note: { debezium: about },
  };
}

type Measured = Reading & { readonly walsenderSeconds: number };
type Readings = ReadonlyMap<string, readonly Measured[]>;

/** Every client once, then every client again: what disturbs the machine for a while disturbs them all. */
async function alternate(
  clients: readonly Client[],
  backlog: Backlog,
  runs: number,
  say: (line: string) => void,
): Promise<Readings> {
  const readings = new Map<string, Measured[]>();
  for (let round = 1; round <= runs; round++) {
    for (const client of clients) {
      const slot = `bench_${round}_${clients.indexOf(client)}`;
      const reading = await backlog.withSlot(slot, () =>
        withWalsender(backlog, slot, () => client.read(backlog, slot)),
      );
      readings.set(client.name, [...(readings.get(client.name) ?? []), reading]);
      say(`  ${describe(client.name, reading)}  (load ${(loadavg()[0] ?? 0).toFixed(1)})`);
    }
  }
  return readings;
}

function describe(name: string, reading: Measured): string {
  const { changes, seconds, peakMB, cpuSeconds, walsenderSeconds, endpoint } = reading;
  const rate = `${Math.round(changes / seconds)}/s`;
  const sent = endpoint
    ? `; ${endpoint.requests} requests, ${Math.round(endpoint.bytes / 1e6)} MB, endpoint ${endpoint.cpuSeconds.toFixed(1)} s CPU`
    : "";
  const perChange = (cpu: number) => ((cpu * 1e6) / changes).toFixed(1);
  return `${name.padEnd(36)} ${rate.padStart(9)}  ${Math.round(peakMB)} MB, CPU a change ${perChange(cpuSeconds)} µs, walsender ${perChange(walsenderSeconds)} µs${sent}`;
}

function summary(
  readings: Readings,
  { changes, runs, load }: { changes: number; runs: number; load: number },
  say: (line: string) => void,
) {
  const rates = new Map(
    [...readings].map(([name, of]) => [
      name,
      Math.round(median(of.map(({ changes, seconds }) => changes / seconds))),
    ]),
  );
  say(`medians of ${runs}:`);
  for (const [name, rate] of rates) say(`  ${name.padEnd(36)} ${String(rate).padStart(8)}/s`);
  const ratio = (name: string, to: string) => {
    const [above, below] = [rates.get(name), rates.get(to)];
    return above === undefined || below === undefined ? undefined : Number((above / below).toFixed(2));
  };
  const besides = [...rates.keys()].filter((name) => name.startsWith("beside, "));
  const ours = (name: string) => name.replace("beside", "Tributary");
  const packed = "Tributary, packed";
  const peak = Math.max(
    ...[...readings].flatMap(([name, of]) => (name.startsWith(packed) ? of : [])).map(({ peakMB }) => peakMB),
  );
  return {
    ratioToPgRecvlogical: ratio(packed, pgRecvlogical.name),
    ratioToPgLogicalReplication: ratio(packed, "pg-logical-replication, JSON"),
    ratioToDebeziumEmbedded: ratio(packed, DEBEZIUM_EMBEDDED),
    ratioToDebeziumServer: ratio(packed, DEBEZIUM_SERVER),
    peakMemoryMB: Number.isFinite(peak) ? Math.round(peak) : undefined,
    ratioToPgRecvlogicalWithRoundTrip: ratio(`${packed}, ${ROUND_TRIP_MS} ms`, pgRecvlogical.name),
    ...(besides.length > 0
      ? { ratioToBeside: Object.fromEntries(besides.map((name) => [ours(name), ratio(ours(name), name)])) }
      : {}),
    changes,
    runs,
    load: Number(load.toFixed(2)),
    changesPerSecond: Object.fromEntries(rates),
    peakMemoryMBOf: Object.fromEntries(
      [...readings].map(([name, of]) => [name, Math.round(Math.max(...of.map(({ peakMB }) => peakMB)))]),
    ),
  };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

function count(values: BenchValues, name: string, otherwise: number): number {
  const value = values[name];
  if (value === undefined) return otherwise;
  if (typeof value !== "string" || !/^[1-9]\d*$/.test(value)) {
    throw new RangeError(`--${name} ${value}: write a whole number from 1 up`);
  }
  return Number(value);
}
