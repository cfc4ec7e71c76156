/**
 * The remedy of an error that consumers can raise. Bundles of deployed consumers leave these texts out (package.json's imports,
 * condition `tributary-consumer`): their errors name `tributary explain CODE` instead, which says what to do, and more.
 */
export function remedyText(text: string): string {
  return text;
}
