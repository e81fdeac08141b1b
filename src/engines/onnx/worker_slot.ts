// Worker slot: one worker at a time, started, given one run at a time, and replaced when it dies.
import { Fault } from "../../faults/fault.ts";
import { parseReport, REASON_CHARACTERS_MAX } from "./worker_messages.ts";

/** What a slot needs to know. */
export interface WorkerSlotSettings {
  /** For reasons: which worker this is. */
  readonly name: string;
  readonly startWorker: () => Worker;
  /** The first message; the worker answers it with its report. It is copied: a worker shares no memory with another. */
  readonly startOrder: unknown;
  /** How long a start may take, and how long a run, before the worker counts as dead. */
  readonly startMsMax: number;
  readonly runMsMax: number;
  /** The slot has changed between able and unable to take a run. */
  readonly onChange: () => void;
  /** A worker died, or could not start, and why. */
  readonly onFault: (fault: Fault) => void;
}

interface Run {
  /** Takes the worker's answer; false when it is malformed. */
  readonly accept: (data: unknown) => boolean;
  readonly reject: (fault: Fault) => void;
}

const RESTART_FIRST_MS = 250;
const RESTART_MS_MAX = 30_000;

/** A place in which one worker lives at a time. `down` is the time between a death and the replacement. */
export class WorkerSlot {
  readonly #settings: WorkerSlotSettings;
  #state: "starting" | "idle" | "busy" | "down" | "closed" = "starting";
  #worker: Worker | undefined;
  #run: Run | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #deathsInARow = 0;
  #started = 0;
  #startRefused = false;

  constructor(settings: WorkerSlotSettings) {
    this.#settings = settings;
  }

  /** Starts the worker; to be called once. */
  start(): void {
    this.#state = "starting";
    this.#started++;
    this.#expectAnswer(this.#settings.startMsMax);
    try {
      const worker = this.#settings.startWorker();
      this.#worker = worker;
      // What a worker says after it was given up must not touch its successor.
      worker.onmessage = ({ data }) => {
        if (worker === this.#worker) this.#hear(data);
      };
      worker.onmessageerror = () => {
        if (worker === this.#worker) this.#die("it sent what cannot be read");
      };
      worker.onerror = (event) => {
        event.preventDefault(); // else the worker's error ends this process
        if (worker === this.#worker) this.#die(event.message.slice(0, REASON_CHARACTERS_MAX));
      };
      worker.postMessage(this.#settings.startOrder);
    } catch (error) {
      this.#die(`it could not start: ${error}`);
    }
  }

  /** Whether it takes a run now. */
  idle(): boolean {
    return this.#state === "idle";
  }

  /** Whether its worker is warm, at work or not. */
  alive(): boolean {
    return this.#state === "idle" || this.#state === "busy";
  }

  /** Whether its first start is still going on. */
  undecided(): boolean {
    return this.#state === "starting" && this.#started <= 1;
  }

  /** Whether a worker said that it cannot use what it was started with, before any could. */
  useless(): boolean {
    return this.#startRefused;
  }

  /** How many workers took the place of one that died. */
  replacements(): number {
    return Math.max(0, this.#started - 1);
  }

  /**
   * Gives the idle worker a run.
   *
   * @param parse the answer, or undefined when the message is not a proper one
   * @throws Fault `unavailable` when the worker refuses the run or dies of it
   */
  run<Answer>(order: unknown, parse: (data: unknown) => Answer | undefined): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    if (this.#state !== "idle" || this.#worker === undefined) {
      reject(this.#fault(`Cannot run on ${this.#settings.name}: it is ${this.#state}`));
      return promise;
    }
    const accept = (data: unknown) => {
      const answer = parse(data);
      if (answer !== undefined) resolve(answer);
      return answer !== undefined;
    };
    this.#state = "busy";
    this.#run = { accept, reject };
    this.#expectAnswer(this.#settings.runMsMax);
    this.#worker.postMessage(order);
    return promise;
  }

  /** Ends the worker; its run, if any, is rejected. */
  close(): void {
    if (this.#state === "closed") return;
    this.#end("closed", `${this.#settings.name} was closed`);
  }

  #hear(data: unknown): void {
    clearTimeout(this.#timer);
    const report = parseReport(data);
    if (this.#state === "starting" && report?.kind === "started") {
      this.#state = "idle";
      this.#settings.onChange();
    } else if (this.#state === "starting" && report?.kind === "refused") {
      this.#startRefused = this.#started === 1;
      this.#die(`it could not start: ${report.reason}`);
    } else if (this.#state === "busy" && report?.kind === "refused") {
      this.#finishRun()?.reject(this.#fault(`${this.#settings.name} refused a run: ${report.reason}`));
      this.#settings.onChange();
    } else if (this.#state === "busy" && this.#run?.accept(data) === true) {
      this.#deathsInARow = 0;
      this.#finishRun();
      this.#settings.onChange();
    } else {
      this.#die("it sent something unexpected");
    }
  }

  #finishRun(): Run | undefined {
    const run = this.#run;
    this.#run = undefined;
    this.#state = "idle";
    return run;
  }

  #expectAnswer(msMax: number): void {
    this.#timer = setTimeout(() => this.#die(`no answer in ${msMax} ms`), msMax);
  }

  #die(why: string): void {
    const fault = this.#end("down", `${this.#settings.name} died: ${why}`);
    // The first replacement comes at once; one that dies again without a good run has to wait longer and longer.
    const delayMs = this.#deathsInARow === 0
      ? 0
      : Math.min(RESTART_MS_MAX, RESTART_FIRST_MS * 2 ** (this.#deathsInARow - 1));
    this.#deathsInARow++;
    this.#timer = setTimeout(() => this.start(), delayMs);
    this.#settings.onFault(fault);
    this.#settings.onChange(); // may close this slot
  }

  #end(state: "down" | "closed", reason: string): Fault {
    clearTimeout(this.#timer);
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#state = state;
    const fault = this.#fault(reason);
    this.#run?.reject(fault);
    this.#run = undefined;
    return fault;
  }

  #fault(reason: string): Fault {
    return new Fault("unavailable", reason, { retryAfterSeconds: 1 });
  }
}
