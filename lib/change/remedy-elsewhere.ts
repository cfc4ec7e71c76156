/** Replaces `remedyText` in the bundle of a deployed consumer: esbuild removes calls of an empty function, and their texts with them. */
export function remedyText(_text: string): void {}
