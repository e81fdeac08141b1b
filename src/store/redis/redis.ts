// Redis: the port to one Redis, however it is reached: every command in bounded time, and a breaker that spares a sick server.

/** A Lua script, run by its digest. */
export interface RedisScript {
  readonly lua: string;
}

/** What Redis answers: integers, simple texts, bytes, lists of these, and nothing. */
export type RedisReply = number | string | Uint8Array<ArrayBuffer> | null | readonly RedisReply[];

/** A command's words. */
export type RedisArgument = string | Uint8Array<ArrayBuffer>;

/** One Redis. */
export interface Redis {
  /**
   * The name of a key. All of an installation's keys share one hash tag, so that scripts and lists of them work in a cluster;
   * one cluster's node carries them all.
   */
  key(name: string): string;
  /**
   * Runs a script. All of it happens or none of it; after a Fault nobody knows which, unless that says `notSent`.
   *
   * @param keys whole names, as `key` gives them
   * @throws Fault `unavailable` when Redis is out of reach, too slow, out of memory, read-only or answers any error
   */
  run(script: RedisScript, keys: readonly string[], args: readonly RedisArgument[]): Promise<RedisReply>;
  /** One plain command; its first key says where it goes. Throws as `run` does. */
  call(key: string, command: readonly RedisArgument[]): Promise<RedisReply>;
  close(): Promise<void>;
}
