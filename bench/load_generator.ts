// Load generator: keeps a server busy from a thread of its own.
import type { LoadOrder, LoadReport } from "./load_worker.ts";

/** What to send: one of `bodies` after the other, or GET without. */
export interface LoadTarget {
  readonly port: number;
  readonly path: string;
  readonly token?: string;
  readonly bodies?: readonly string[];
}

export class LoadGenerator {
  readonly #worker = new Worker(new URL("./load_worker.ts", import.meta.url), { type: "module" });

  /**
   * Sends over `connections` keep-alive connections, one request at a time on each, for `durationMs`.
   *
   * @throws Error when any answer is not 200, a stream ends without its mark, or a connection breaks
   */
  async run(target: LoadTarget, connections: number, durationMs: number): Promise<LoadReport> {
    const { promise, resolve, reject } = Promise.withResolvers<LoadReport>();
    this.#worker.onmessage = ({ data }: MessageEvent<LoadReport>) => resolve(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(`Cannot put load on ${target.path}: ${event.message}`));
    };
    const order: LoadOrder = { port: target.port, requests: encodeRequests(target), connections, durationMs };
    this.#worker.postMessage(order);
    const report = await promise;
    if (report.refusals.length > 0) {
      throw new Error(
        `Cannot trust a round on ${target.path}: ${report.refusals.length} of ${report.answers} answers were not 200 ` +
          `but ${[...new Set(report.refusals)].join(", ")}`,
      );
    }
    return report;
  }

  close(): void {
    this.#worker.terminate();
  }
}

/** As bytes, one for each body. */
export function encodeRequests({ port, path, token, bodies }: LoadTarget): Uint8Array[] {
  const encoder = new TextEncoder();
  const authorization = token === undefined ? "" : `Authorization: Bearer ${token}\r\n`;
  const head = (method: string, rest: string) =>
    `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${authorization}${rest}\r\n`;
  return bodies?.map((body) =>
    encoder.encode(
      head("POST", `Content-Type: application/json\r\nContent-Length: ${encoder.encode(body).length}\r\n`) +
        body,
    )
  ) ?? [encoder.encode(head("GET", ""))];
}
