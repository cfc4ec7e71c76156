import { BACKFILL } from "./backfill.ts";
import { BATCHES } from "./batches.ts";
import { CATALOG } from "./catalog.ts";
import { CONSUME } from "./consume.ts";
import { DEV } from "./dev.ts";
import { HOLDS } from "./holds.ts";
import { LOG } from "./log.ts";
import type { Mutation } from "./mutation.ts";
import { PROJECT } from "./project.ts";
import { STATE } from "./state.ts";
import { STREAM } from "./stream.ts";

/** All of them; `npm run test:mutations -- --only` counts from 1. */
export const MUTATIONS: readonly Mutation[] = [
  ...BACKFILL,
  ...BATCHES,
  ...CATALOG,
  ...CONSUME,
  ...DEV,
  ...HOLDS,
  ...LOG,
  ...PROJECT,
  ...STATE,
  ...STREAM,
];
