// HTTP receiver: what tests post to in the place of a collector, a Loki or a witness. It keeps all that it took and answers as told.

/** What came. */
export interface Received {
  readonly path: string;
  readonly headers: Headers;
  readonly body: string;
  /** What it was answered. */
  readonly status: number;
}

/** What is answered to a request, by its body; undefined: nothing, ever. */
export type Answering = (body: string, path: string) => Response | undefined;

/** A receiver on 127.0.0.1. */
export interface HttpReceiver extends AsyncDisposable {
  readonly port: number;
  readonly origin: string;
  readonly received: Received[];
  answer: Answering;
  /** Those that were answered with a good status. */
  taken(): readonly Received[];
}

/** Starts one; a good status is all it answers until it is told otherwise. */
export function startHttpReceiver(
  options: { readonly port?: number; readonly tls?: { readonly cert: string; readonly key: string } } = {},
): HttpReceiver {
  const received: Received[] = [];
  const controller = new AbortController();
  const server = Deno.serve({
    hostname: "127.0.0.1",
    port: options.port ?? 0,
    signal: controller.signal,
    onListen() {},
    ...options.tls,
  }, async (request) => {
    const { pathname } = new URL(request.url);
    const body = await request.text();
    const response = receiver.answer(body, pathname);
    if (response === undefined) {
      return await new Promise<Response>((resolve) => held.push(() => resolve(new Response())));
    }
    received.push({ path: pathname, headers: request.headers, body, status: response.status });
    return response;
  });
  const held: (() => void)[] = [];
  const { port } = server.addr;
  const receiver: HttpReceiver = {
    port,
    origin: `${options.tls === undefined ? "http" : "https"}://${
      options.tls === undefined ? "127.0.0.1" : "localhost"
    }:${port}`,
    received,
    answer: () => new Response("{}"),
    taken: () => received.filter(({ status }) => status < 300),
    async [Symbol.asyncDispose]() {
      for (const release of held) release();
      controller.abort();
      await server.finished;
    },
  };
  return receiver;
}
