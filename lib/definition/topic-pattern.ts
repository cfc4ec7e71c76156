/** Tells whether a topic's name matches: `*` stands for any characters, all else for itself. */
export function topicPattern(pattern: string): (topic: string) => boolean {
  const source = pattern.split("*").map((part) => part.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  const expression = new RegExp(`^${source.join(".*")}$`, "su");
  return (topic) => expression.test(topic);
}
