// Process figures: what Linux counts of a process. Deno reads /proc with --allow-all only, so cat does.

/** Processor time since the start of the process, milliseconds. The kernel counts in steps of 10. */
export interface CpuTime {
  /** All threads, those that ended included, in user and kernel mode. */
  readonly totalMs: number;
  /** The thread that runs the event loop. */
  readonly mainMs: number;
  /** The threads of its workers, and the one among them that has worked most. */
  readonly workersMs: number;
  readonly busiestWorkerMs: number;
}

/** Linux's USER_HZ is 100 on every platform that Deno runs on. */
const MS_PER_TICK = 10;

/** @throws Error when the process is gone */
export async function cpuTime(pid: number): Promise<CpuTime> {
  const [process = "", ...threads] = (await readProc(`/proc/${pid}/stat /proc/${pid}/task/*/stat`)).trim()
    .split("\n");
  const sum = (lines: readonly string[]) =>
    lines.reduce((total, line) => total + ticksOf(line), 0) * MS_PER_TICK;
  const workers = threads.filter((line) => line.includes(" (worker-"));
  return {
    totalMs: sum([process]),
    mainMs: sum(threads.filter((line) => line.startsWith(`${pid} `))),
    workersMs: sum(workers),
    busiestWorkerMs: Math.max(0, ...workers.map((line) => sum([line]))),
  };
}

/** Memory that is resident now, MiB; `anonymous` leaves out pages that are only a file's. */
export async function residentMemory(pid: number): Promise<{ totalMiB: number; anonymousMiB: number }> {
  const status = await readProc(`/proc/${pid}/status`);
  const mib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]) / 1024;
  return { totalMiB: mib("VmRSS"), anonymousMiB: mib("RssAnon") };
}

/** Of the last minute. */
export async function loadAverage(): Promise<string> {
  return (await readProc("/proc/loadavg")).split(" ")[0] ?? "";
}

/** proc_pid_stat(5): the name in brackets may hold anything; utime and stime are the 12th and 13th field behind it. */
function ticksOf(line: string): number {
  const fields = line.slice(line.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

async function readProc(paths: string): Promise<string> {
  // A thread may end between the listing and the reading: cat then fails for it and has read all others.
  const { stdout } = await new Deno.Command("sh", { args: ["-c", `cat ${paths} 2>/dev/null`] }).output();
  if (stdout.length === 0) throw new Error(`Cannot read ${paths}: the process is gone, or this is not Linux`);
  return new TextDecoder().decode(stdout);
}
