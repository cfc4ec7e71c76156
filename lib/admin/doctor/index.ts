export type { Finding, Outcome } from "./check.ts";
export type { DoctorSubject, FoundDefinition, HandlerInspection, LoadedHandler } from "./examination.ts";
export { type CheckResult, type Diagnosis, type ExamineOptions, examine } from "./examine.ts";
