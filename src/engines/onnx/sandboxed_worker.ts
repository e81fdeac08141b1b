// Sandboxed worker: a thread that may read, write, reach and start nothing; it lives on the messages it is sent.

/**
 * Starts a worker without any permission. Its static imports load; what it imports dynamically is its own attempt and
 * refused, as long as the process runs with `--cached-only --no-remote`.
 *
 * @param url the worker's entry file, which this thread must be allowed to read
 */
export function startSandboxedWorker(url: URL): Worker {
  return new Worker(url, { type: "module", deno: { permissions: "none" } });
}
