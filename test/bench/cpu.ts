import { readdirSync, readFileSync } from "node:fs";

/** CPU seconds used so far, by part of the local host. */
export type CpuSeconds = ReadonlyMap<string, number>;

/** Ticks a second of /proc: 100 on every Linux that Node runs on. */
const TICKS = 100;
const PAGE_BYTES = 4096;

/**
 * What this process and all below it have used, from /proc; empty on systems without.
 * https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
 */
export function cpuSeconds(): CpuSeconds {
  return totals(({ seconds }) => seconds);
}

/** Resident memory in bytes of this process and all below it, by part; empty on systems without /proc. */
export function residentBytes(): ReadonlyMap<string, number> {
  return totals(({ residentBytes }) => residentBytes);
}

interface ProcessFigures {
  readonly parent: number;
  readonly seconds: number;
  readonly residentBytes: number;
  readonly command: string;
}

function totals(figure: (process: ProcessFigures) => number): Map<string, number> {
  const processes = new Map<number, ProcessFigures>();
  for (const name of listProc()) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      // The second field is a name in brackets that may hold anything.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      const command = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ");
      const seconds = (Number(fields[11]) + Number(fields[12])) / TICKS;
      const residentBytes = Number(fields[21]) * PAGE_BYTES;
      processes.set(Number(name), { parent: Number(fields[1]), seconds, residentBytes, command });
    } catch {
      // It has just ended.
    }
  }
  const found = new Map<string, number>();
  for (const [pid, process] of processes) {
    if (!isBelow(pid, processes)) continue;
    const part = partOf(pid, process.command);
    found.set(part, (found.get(part) ?? 0) + figure(process));
  }
  return found;
}

/** What was used between two moments, most first. */
export function usedBetween(before: CpuSeconds, after: CpuSeconds): [part: string, seconds: number][] {
  return [...after]
    .map(([part, seconds]): [string, number] => [part, seconds - (before.get(part) ?? 0)])
    .sort((a, b) => b[1] - a[1]);
}

function listProc(): string[] {
  try {
    return readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  } catch {
    return [];
  }
}

function isBelow(pid: number, processes: ReadonlyMap<number, { parent: number }>): boolean {
  for (let at = pid; at > 1; at = processes.get(at)?.parent ?? 0) if (at === process.pid) return true;
  return false;
}

function partOf(pid: number, command: string): string {
  if (pid === process.pid) return "host (event source mapping, workload)";
  if (/walsender/.test(command)) return "PostgreSQL walsender";
  if (/postgres/.test(command)) return "PostgreSQL";
  if (/capture\/main/.test(command)) return "capture";
  const emulator = /emulators\/(\w+)\.ts/.exec(command)?.[1];
  if (emulator) return `${emulator} emulator`;
  return /([\w-]+)\.ts handler/.exec(command)?.[1] ?? "other";
}
