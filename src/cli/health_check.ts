// Health check: exits 0 where a server answers, else 1. For a container, which has no curl.

/** Below the time that the container engine gives the whole process. */
const TIMEOUT_MS = 3000;

/** Whether a URL answers in time, and with a status of success. */
export async function isHealthy(url: string): Promise<boolean> {
  try {
    const answer = await fetch(url, { redirect: "error", signal: AbortSignal.timeout(TIMEOUT_MS) });
    await answer.body?.cancel();
    return answer.ok;
  } catch {
    return false;
  }
}

if (import.meta.main) Deno.exit(await isHealthy(Deno.args[0] ?? "") ? 0 : 1);
