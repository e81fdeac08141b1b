// Phase: what a part of the bench is given and what it brings back.
import type { LoadGenerator } from "./load_generator.ts";
import type { TableRow } from "./table.ts";

/** How much is measured: all phases together take less than 10 minutes, or 4. */
export interface Effort {
  /** V8 goes on compiling for the gate's first 20,000 requests or so, in threads that count as the gate's. */
  readonly gate: RoundsEffort;
  readonly limiter: RoundsEffort;
  readonly model: RoundsEffort;
  readonly proxy: RoundsEffort;
  readonly heldStreams: HeldStreamsEffort;
  readonly starts: number;
  readonly signIn: RoundsEffort;
  readonly authentication: { readonly warmUpRounds: number; readonly rounds: number };
  /** Of one checkout beside another, which is measured alone. */
  readonly against: RoundsEffort;
}

/** Many short rounds rather than few long ones: the machine's own speed changes from second to second. */
export interface RoundsEffort {
  readonly warmUpMs: number;
  readonly rounds: number;
  readonly roundMs: number;
}

export interface HeldStreamsEffort {
  readonly streams: number;
  /** Until nothing grows any more. */
  readonly settleMs: number;
  readonly holdMs: number;
}

export interface PhaseMeans {
  readonly effort: Effort;
  /** A folder that is removed at the end. */
  readonly folder: string;
  readonly generator: LoadGenerator;
  progress(text: string): void;
}

export interface PhaseFindings {
  readonly rows: readonly TableRow[];
  /** What a reader must know to read the rows rightly. */
  readonly notes: readonly string[];
}
