/**
 * The remedy of an error that consumers meet. Deployed consumers' bundles have none of these texts (package.json's imports,
 * condition `tributary-consumer`): their errors name `tributary explain CODE` instead, which has what to do, and more.
 */
export function remedyText(text: string): string {
  return text;
}
