import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

/** Most tests wait for servers: one worker alone, Vitest's default on two processors, would leave them idle. */
const maxWorkers = Math.max(2, availableParallelism() - 1);

const minute = 60_000;

/** One project a kind of real part, so that `npm test -- --project unit` needs nothing but Node. */
export default defineConfig({
  test: {
    maxWorkers,
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/architecture.test.ts", "test/unit/**/*.test.ts"],
          testTimeout: minute / 2,
        },
      },
      {
        test: {
          name: "postgres",
          include: ["test/postgres/**/*.test.ts"],
          testTimeout: 2 * minute,
          hookTimeout: 2 * minute,
        },
      },
      {
        test: {
          name: "aws",
          include: ["test/aws/**/*.test.ts"],
          testTimeout: 2 * minute,
          hookTimeout: 2 * minute,
        },
      },
      {
        test: {
          name: "cdk",
          include: ["test/cdk/**/*.test.ts"],
          testTimeout: 3 * minute,
          hookTimeout: 3 * minute,
        },
      },
      {
        test: {
          name: "pipeline",
          include: ["test/pipeline/**/*.test.ts"],
          testTimeout: 5 * minute,
          hookTimeout: 2 * minute,
        },
      },
      {
        test: {
          name: "fault",
          include: ["test/fault/**/*.test.ts"],
          testTimeout: 5 * minute,
          hookTimeout: 2 * minute,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: "deploy",
          include: ["test/deploy/**/*.test.ts"],
          testTimeout: 5 * minute,
          hookTimeout: 4 * minute,
          fileParallelism: false,
        },
      },
    ],
  },
});
