/** Runs `work` on every item in order, so many at a time. The first error is thrown when all that began have ended. */
export async function runSideBySide<T>(
  items: readonly T[],
  sideBySide: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const rest = items.values();
  const worker = async () => {
    for (const item of rest) await work(item);
  };
  const ended = await Promise.allSettled(
    Array.from({ length: Math.min(sideBySide, items.length) }, () => worker()),
  );
  const failed = ended.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}
