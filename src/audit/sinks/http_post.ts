// HTTP post: one POST to a receiver within bounds, as the same caller each time, with its failures in plain words.
import { encodeUtf8 } from "../../encoding/utf8.ts";
import type { HttpTarget } from "./sink_options.ts";
import { SinkFault } from "./sink.ts";

/** What a receiver answered with a good status. */
export interface PostAnswer {
  readonly status: number;
  /** The body's beginning. */
  readonly text: string;
}

/** Posts to one address. */
export interface HttpPost {
  /**
   * @param body is sent as it is
   * @param items how many items are in it, for a reason
   * @throws SinkFault when no good answer came in time
   */
  send(body: string, items: number): Promise<PostAnswer>;
  close(): void;
}

const TIMEOUT_MS = 15_000;
const ANSWER_BYTES_MAX = 64 * 1024;
/** The receiver found something wrong with what is in the body: bad, too large, not understood. */
const REFUSALS: readonly number[] = [400, 413, 422];

/**
 * Opens nothing yet: connections come with the first call and are kept.
 *
 * @throws TypeError when certificates, secret or header fields cannot be used; it may quote them
 */
export function openHttpPost(
  target: HttpTarget,
  url: string,
  headers: Readonly<Record<string, string>>,
): HttpPost {
  const { caCertificates, secret } = target;
  const fields = new Headers({
    ...target.headers,
    ...headers,
    "user-agent": "portcullis",
    "accept-encoding": "identity",
  });
  if (secret !== undefined) fields.set("authorization", credentials(target.username, secret));
  const client = Deno.createHttpClient(caCertificates === undefined ? {} : { caCerts: [caCertificates] });
  return {
    async send(body, items) {
      const controller = new AbortController();
      const timer = setTimeout(() => controller.abort(), TIMEOUT_MS);
      try {
        const response = await fetch(url, {
          method: "POST",
          headers: fields,
          body,
          // A redirect would lead entries and secret to wherever the receiver likes.
          redirect: "manual",
          signal: controller.signal,
          client,
        });
        const text = await beginning(response);
        if (response.ok) return { status: response.status, text };
        const what = items === 1 ? "this one item" : `these ${items} items`;
        const isRefusal = REFUSALS.includes(response.status);
        throw new SinkFault(
          isRefusal ? `it answers ${response.status} to ${what}` : `it answers ${response.status}`,
          { isRefusal, retryAfterMs: retryAfterMs(response.headers) },
        );
      } catch (thrown) {
        if (thrown instanceof SinkFault) throw thrown;
        throw new SinkFault(
          controller.signal.aborted ? `no answer within ${TIMEOUT_MS} ms` : plainWords(thrown),
        );
      } finally {
        clearTimeout(timer);
      }
    },
    close: () => client.close(),
  };
}

/** RFC 6750 §2.1, or RFC 7617 §2 in UTF-8. */
function credentials(username: string | undefined, secret: string): string {
  return username === undefined
    ? `Bearer ${secret}`
    : `Basic ${encodeUtf8(`${username}:${secret}`).toBase64()}`;
}

async function beginning(response: Response): Promise<string> {
  if (response.body === null) return "";
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (let bytes = 0; bytes <= ANSWER_BYTES_MAX;) {
    const { done, value } = await reader.read();
    if (done) return text;
    bytes += value.length;
    text += decoder.decode(value, { stream: true });
  }
  await reader.cancel();
  return text;
}

/** RFC 9110 §10.2.3, in seconds; a date is as good as nothing. */
function retryAfterMs(headers: Headers): number {
  const seconds = headers.get("retry-after") ?? "";
  return /^\d{1,6}$/.test(seconds) ? Number(seconds) * 1000 : 0;
}

const WORDS: readonly (readonly [sign: string, words: string])[] = [
  ["Connection refused", "it refuses connections"],
  ["dns error", "its name is not known"],
  ["certificate", "its certificate is not trusted"],
  ["NotCapable", "this process may not connect to it"],
  ["Connection reset", "it reset the connection"],
  ["connection closed", "it closed the connection"],
];

/** An error's own text stays here: it may quote the address and what was sent. */
function plainWords(thrown: unknown): string {
  const cause = thrown instanceof Error ? thrown.cause : undefined;
  const text = [thrown, cause].map((error) => error instanceof Error ? `${error.name} ${error.message}` : "")
    .join(
      " ",
    );
  return WORDS.find(([sign]) => text.includes(sign))?.[1] ?? "it could not be reached";
}
