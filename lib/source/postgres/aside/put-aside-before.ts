/** A change comes again that was put aside: it is not decoded, whatever is known by now. Never leaves the source. */
export class PutAsideBefore extends Error {}
