// Sink options: what the worker is told of each sink, checked settings with their secrets.
import type { RedisSettings } from "../../store/redis/find_redis.ts";
import type { EventClass } from "../audit_event.ts";

/** Whom a sink over HTTP calls. */
export interface HttpTarget {
  /** In normal form, without query and fragment. */
  readonly url: string;
  /** Further header fields; nothing secret. */
  readonly headers: Readonly<Record<string, string>>;
  /** The user whose password `secret` is (RFC 7617); undefined: a bearer token (RFC 6750). */
  readonly username: string | undefined;
  readonly secret: string | undefined;
  /** PEM; undefined: those that the machine trusts. */
  readonly caCertificates: string | undefined;
}

interface Common {
  readonly name: string;
  /** Where it begins when it has never shipped anything: at the trail's first entry, or with the next one. */
  readonly from: "start" | "now";
}

interface OfEntries extends Common {
  /** Which entries it gets; undefined: all. */
  readonly classes: readonly EventClass[] | undefined;
}

/** A receiver of RFC 5424. */
export interface SyslogOptions extends OfEntries {
  readonly kind: "syslog";
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
  readonly caCertificates: string | undefined;
  readonly facility: number;
  /** The HOSTNAME of its messages. */
  readonly sender: string;
}

/** A stream in a Redis. */
export interface RedisStreamOptions extends OfEntries {
  readonly kind: "redis_stream";
  readonly stream: string;
  /** About so many entries are kept there. */
  readonly entriesMax: number;
  readonly address: RedisSettings["address"];
  readonly caCertificates: string | undefined;
}

/** A receiver of OTLP. */
export interface OtlpOptions extends OfEntries, HttpTarget {
  readonly kind: "otlp";
}

/** A receiver of Loki's push. */
export interface LokiOptions extends OfEntries, HttpTarget {
  readonly kind: "loki";
  readonly tenant: string | undefined;
}

/** One that keeps signed checkpoints. */
export interface WitnessOptions extends Common, HttpTarget {
  readonly kind: "witness";
}

/** Standard output. */
export interface StdoutOptions extends OfEntries {
  readonly kind: "stdout";
}

/** One sink. */
export type SinkOptions =
  | StdoutOptions
  | OtlpOptions
  | LokiOptions
  | SyslogOptions
  | RedisStreamOptions
  | WitnessOptions;
