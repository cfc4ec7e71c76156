import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ConsumerDefinition } from "../../../../lib/definition/definition.ts";
import { type Bundle, Bundler } from "../../../../lib/local/dev/bundler.ts";
import { HandlerReloader } from "../../../../lib/local/dev/reloader.ts";
import { eventually } from "../../../eventually.ts";

const bundle = (number: number): Bundle => ({
  consumer: "orders",
  file: `/build/orders/${number}/orders.mjs`,
  hash: `hash ${number}`,
});
const never = () => new Promise<never>(() => {});

/** A reloader whose parts say what was asked of them; `loads` and `redrives` are what the handler does then. */
async function running({ loads = async () => {}, redrives = async () => undefined as string | undefined }) {
  const asked: string[] = [];
  const stopping = new AbortController();
  const state = {
    version: 1 as const,
    id: "a1b2c3",
    ready: true,
    slotDropped: false,
    code: { orders: "hash 1" },
  };
  let save = (_: Bundle) => {};
  const reloader = new HandlerReloader({
    host: {
      consumers: [
        {
          name: "orders",
          reload: async (file) => {
            asked.push(`load ${file}`);
            await loads();
          },
        },
      ],
      tellMisfits: async () => {},
    },
    bundles: new Map([["orders", bundle(1)]]),
    directory: {
      state,
      update: async ({ code }) => {
        Object.assign(state, { code });
      },
    },
    redrive: async () => {
      asked.push("redrive");
      return await redrives();
    },
    display: { log: () => {} },
    signal: stopping.signal,
    write: async () => {},
  });
  await reloader.start({
    watch: async (onBundle) => {
      save = onBundle;
    },
    runs: async ({ file }) => void asked.push(`keep ${file}`),
  });
  return { asked, state, reloader, stopping, save: (number: number) => save(bundle(number)) };
}

describe("handlers that are reloaded", () => {
  it("have the build that runs until another one does, however many are made meanwhile", async () => {
    const project = await mkdtemp(join(tmpdir(), "tributary-builds-"));
    const entry = join(project, "orders.ts");
    await writeFile(entry, "export const handler = 0;");
    const definition = [{ name: "orders", entry: "orders.ts" } as ConsumerDefinition];
    const output = join(project, "build");
    const { bundler, bundles } = await Bundler.start(definition, { project, output });
    try {
      const built: Bundle[] = [];
      await bundler.watch(
        (bundle) => void built.push(bundle),
        (_, text) => void expect(text).toBe(""),
      );
      for (let number = 1; number <= 4; number++) {
        await writeFile(entry, `export const handler = ${number};`);
        await eventually(() => built.length === number, { what: `build ${number}` });
      }
      const [first] = bundles.values();
      expect(await readdir(join(output, "orders"))).toHaveLength(5);
      expect(existsSync(first?.file ?? "")).toBe(true);
      await bundler.runs(built.at(-1) as Bundle);
      expect((await readdir(join(output, "orders"))).sort()).toEqual(["3", "4", "5"]);
    } finally {
      await bundler.stop();
      await rm(project, { recursive: true });
    }
  });

  it("run the first and the last of many saves", async () => {
    const loaded = Promise.withResolvers<void>();
    const { asked, state, save } = await running({ loads: () => loaded.promise });
    save(2);
    await eventually(() => asked.length > 0, { what: "a reload" });
    for (let number = 3; number <= 11; number++) save(number);
    loaded.resolve();
    await eventually(() => state.code.orders === "hash 11", { what: () => asked.join(", ") });
    expect(asked.filter((what) => what.startsWith("load"))).toEqual([
      "load /build/orders/2/orders.mjs",
      "load /build/orders/11/orders.mjs",
    ]);
  });

  it("run mended code while a dead letter that is tried again hangs, and end at once", async () => {
    const { asked, save, reloader, stopping } = await running({ redrives: never });
    save(2);
    await eventually(() => asked.includes("redrive"), { what: () => asked.join(", ") });
    save(3);
    await eventually(() => asked.includes("load /build/orders/3/orders.mjs"), {
      what: () => asked.join(", "),
    });
    stopping.abort();
    await reloader.stop();
  });

  it("end at once while new code does not finish loading", async () => {
    const { asked, state, save, reloader, stopping } = await running({ loads: never });
    save(2);
    await eventually(() => asked.length > 0, { what: "a reload" });
    stopping.abort();
    await reloader.stop();
    expect(state.code.orders).toBe("hash 1");
  });
});
