/** Stands for `remedyText` in the bundle of a deployed consumer: esbuild removes the calls of an empty function, and the texts with them. */
export function remedyText(_text: string): void {}
