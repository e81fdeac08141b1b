// Tests of the ban watch: what counts as what, when it leads to a ban, and what an address that is banned is told.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { memoryAuditTrail } from "../../../src/audit/memory_audit_trail.ts";
import { Fault, type FaultDetails, type FaultKind } from "../../../src/faults/fault.ts";
import { FAULT_TABLE } from "../../../src/faults/fault_table.ts";
import { openBanWatch, type SentRequest, triggerOf } from "../../../src/http/middleware/ban_watch.ts";
import { openMemoryStrikes } from "../../../src/limits/memory_strikes.ts";
import type { Strikes } from "../../../src/limits/strikes.ts";
import { DAY_SECONDS, openBanWorld } from "../../limits/bans_under_test.ts";

const ORIGIN = "http://127.0.0.1:8000";
const NETWORK = "2001:db8:0:1::/64";
const ADDRESS = "2001:db8:0:1:0:0:0:7";
const THRESHOLDS = {
  credentials: { count: 3, seconds: 60 },
  validation: { count: 5, seconds: 60 },
  probes: { count: 2, seconds: 60 },
};

const fault = (kind: FaultKind, details?: FaultDetails): Fault => new Fault(kind, "Cannot: a test", details);
let guessed = 0;
/** A wrong password that was not tried before. */
const guess = (): Fault => fault("sign_in_refused", { guess: `guess ${++guessed}` });
const sent = (url: string, site?: string): SentRequest => ({
  url,
  headers: new Headers(site === undefined ? {} : { "sec-fetch-site": site }),
});

async function openWatch(replace: { readonly strikes?: Strikes | null } = {}) {
  const world = await openBanWorld();
  const { bans } = await world.open({ exempt: ["127.0.0.0/8"] });
  const trail = memoryAuditTrail();
  const { strikes = openMemoryStrikes(world.clock, THRESHOLDS) } = replace;
  const watch = openBanWatch({
    bans,
    strikes: strikes ?? undefined,
    trail,
    labelAddress: (address) => `label of ${address}`,
    log: world.log,
    clock: world.clock,
  });
  return {
    ...world,
    bans,
    trail,
    watch,
    /** One refusal after the other. */
    async note(
      times: number,
      each: () => Fault,
      url = `${ORIGIN}/v1/models`,
      network = NETWORK,
      site?: string,
    ): Promise<void> {
      for (let at = 1; at <= times; at++) {
        await watch.note(each(), sent(url, site), network, ADDRESS, `req_${at}`);
      }
    },
    /** What the log has, without its times. */
    async logged(): Promise<Record<string, unknown>[]> {
      await world.log.flush();
      return world.lines.map(({ time: _, ...line }) => line);
    },
    /** What a request from there is told. */
    refusal(network = NETWORK): Fault | undefined {
      try {
        watch.require(network);
        return undefined;
      } catch (thrown) {
        ok(thrown instanceof Fault);
        return thrown;
      }
    },
  };
}

const TRIGGERS: Readonly<Record<string, ReadonlySet<FaultKind>>> = {
  validation: new Set(
    [
      "target_invalid",
      "request_invalid",
      "query_unknown",
      "fields_invalid",
      "media_type_unsupported",
      "body_too_large",
    ] as const,
  ),
};

Deno.test("each kind of fault counts as what it is, and most as nothing", () => {
  for (const kind of Object.keys(FAULT_TABLE) as FaultKind[]) {
    const expected = Object.keys(TRIGGERS).find((trigger) => TRIGGERS[trigger]?.has(kind));
    strictEqual(triggerOf(fault(kind), sent(`${ORIGIN}/v1/models`)), expected, kind);
  }
});

Deno.test("a credential that was refused counts where it was a guess, and not where an honest client may hold it", () => {
  for (const kind of ["sign_in_refused", "unauthenticated", "client_refused"] as const) {
    strictEqual(triggerOf(fault(kind, { guess: "x" }), sent(ORIGIN)), "credentials");
    strictEqual(triggerOf(fault(kind), sent(ORIGIN)), undefined);
  }
  // An expired refresh token is an honest client's on a Monday morning.
  strictEqual(triggerOf(fault("grant_refused", { guess: "x" }), sent(ORIGIN)), undefined);
});

Deno.test("a target that nothing serves counts as a probe where it looks like one, however it was written", () => {
  const probes = ["/.env", "/x?id=1%27%20or%201=1", "/?q=../../etc/passwd", "/v1/models?x=%3Cscript%3E"];
  for (const target of probes) {
    for (const kind of ["not_found", "target_invalid", "query_unknown"] as const) {
      strictEqual(triggerOf(fault(kind), sent(`${ORIGIN}${target}`)), "probes", `${kind} ${target}`);
    }
  }
  // What no URL parser takes.
  strictEqual(triggerOf(fault("target_invalid"), sent("http://a b/../../etc/passwd")), "probes");
  strictEqual(triggerOf(fault("target_invalid"), sent("*")), "validation");
  strictEqual(triggerOf(fault("target_invalid"), sent("http://")), "validation");
  strictEqual(triggerOf(fault("target_invalid"), sent("")), "validation");
  strictEqual(triggerOf(fault("not_found"), sent(`${ORIGIN}/favicon.ico`)), undefined);
});

Deno.test("a model may be called as it likes, and a caller who is not allowed something is no attacker", () => {
  for (const kind of ["model_not_found", "forbidden", "unauthenticated", "method_not_allowed"] as const) {
    strictEqual(triggerOf(fault(kind), sent(`${ORIGIN}/v1/models/..%2f..%2findex.php`)), undefined, kind);
  }
});

Deno.test("the last straw bans the network: durable in the trail first, told in words without the reason", async () => {
  const { note, watch, bans, trail, clock, refusal, logged } = await openWatch();
  await note(2, guess);
  strictEqual(refusal(), undefined);
  const startedMs = clock.now();
  await watch.note(guess(), sent(ORIGIN), NETWORK, ADDRESS, "req_last");
  const ban = bans.find(NETWORK);
  deepStrictEqual(trail.events, [{
    type: "address.banned",
    ban: ban?.id,
    address: `label of ${ADDRESS}`,
    trigger: "credentials",
    request: "req_last",
    untilSeconds: startedMs / 1000 + DAY_SECONDS,
  }]);
  const refused = refusal();
  deepStrictEqual([refused?.kind, refused?.details], ["banned", {
    detail: "This address is banned until 2025-06-16T15:06:40Z.",
    retryAfterSeconds: DAY_SECONDS,
  }]);
  strictEqual(refusal("2001:db8:0:2::/64"), undefined);
  clock.advance(1);
  deepStrictEqual(refusal()?.details.retryAfterSeconds, DAY_SECONDS);
  clock.advance(DAY_SECONDS * 1000 - 1);
  strictEqual(refusal(), undefined);
  const strike = { level: "info", event: "address.strike", trigger: "credentials", address: ADDRESS };
  deepStrictEqual(await logged(), [
    { ...strike, request: "req_1" },
    { ...strike, request: "req_2" },
    { ...strike, request: "req_last" },
    {
      level: "warn",
      event: "address.banned",
      request: "req_last",
      trigger: "credentials",
      address: ADDRESS,
      ban: ban?.id,
      count: 1,
      until: "2025-06-16T15:06:40.000Z",
    },
  ]);
});

Deno.test("a ban for good is said to be one, and names no moment to come back", async () => {
  const { bans, refusal } = await openWatch();
  await bans.ban({ network: NETWORK, note: "", actor: "issuer usr_1", seconds: null });
  const refused = refusal();
  deepStrictEqual([refused?.kind, refused?.details], ["banned", {
    detail: "This address is banned for good.",
  }]);
});

Deno.test("triggers are counted apart, and what is banned already is not recorded again", async () => {
  const { note, bans, trail, logged } = await openWatch();
  await note(2, guess);
  await note(4, () => fault("fields_invalid"));
  await note(1, () => fault("not_found"), `${ORIGIN}/.env`);
  await note(9, () => fault("not_found"), `${ORIGIN}/favicon.ico`);
  strictEqual(bans.find(NETWORK), undefined);
  await note(9, () => fault("not_found"), `${ORIGIN}/.git/config`);
  strictEqual(bans.find(NETWORK)?.reason, "probes");
  strictEqual(bans.find(NETWORK)?.actor, null);
  strictEqual(trail.events.length, 1);
  await logged();
});

Deno.test("an exempt address collects no strikes, and none is logged", async () => {
  const { note, bans, trail, logged } = await openWatch();
  await note(20, guess, ORIGIN, "127.0.0.1");
  strictEqual(bans.find("127.0.0.1"), undefined);
  deepStrictEqual([trail.events, await logged()], [[], []]);
});

Deno.test("where the server bans nobody by itself, strikes are logged and what admins ban is refused", async () => {
  const { note, bans, trail, logged, refusal } = await openWatch({ strikes: null });
  await note(20, guess);
  strictEqual(refusal(), undefined);
  strictEqual((await logged()).length, 20);
  deepStrictEqual(trail.events, []);
  await bans.ban({ network: NETWORK, note: "", actor: "issuer usr_1", seconds: 60 });
  strictEqual(refusal()?.kind, "banned");
});

Deno.test("where the trail fails there is no ban, and the answer stays what it is", async () => {
  const { note, trail, refusal, memory, logged } = await openWatch();
  trail.setFailing(true);
  await note(3, guess);
  strictEqual(refusal(), undefined);
  deepStrictEqual(await memory.list("bans", { limit: 9 }), []);
  strictEqual((await logged()).filter(({ event }) => event === "address.strike_not_counted").length, 1);
  trail.setFailing(false);
  await note(3, guess);
  strictEqual(refusal()?.kind, "banned");
  await logged();
});

Deno.test("strikes that cannot be counted change no answer, and are told of once a minute", async () => {
  for (
    const add of [
      () => Promise.reject(new Fault("unavailable", "Cannot reach Redis: told to fail")),
      (): boolean => {
        throw new Fault("unavailable", "Cannot reach Redis: told to fail");
      },
    ]
  ) {
    const { note, clock, logged } = await openWatch({ strikes: { add } });
    const failures = async () =>
      (await logged()).filter(({ event }) => event === "address.strike_not_counted");
    await note(10, guess);
    deepStrictEqual(await failures(), [{
      level: "error",
      event: "address.strike_not_counted",
      reason: "Cannot reach Redis: told to fail",
    }]);
    clock.advance(59_999);
    await note(1, guess);
    strictEqual((await failures()).length, 1);
    clock.advance(1);
    await note(1, guess);
    strictEqual((await failures()).length, 2);
  }
});

Deno.test("one and the same credential of a network is one strike a day, without a line more in the log", async () => {
  const { note, watch, clock, refusal, logged, bans } = await openWatch();
  const stale = fault("unauthenticated", { guess: "stale" });
  // All at once, and then one after the other.
  await Promise.all(
    Array.from({ length: 9 }, () => watch.note(stale, sent(ORIGIN), NETWORK, ADDRESS, "req_1")),
  );
  await note(9, () => stale);
  strictEqual((await logged()).length, 1);
  // Of another network it is another guess.
  await note(1, () => stale, ORIGIN, "198.51.100.7");
  strictEqual((await logged()).length, 2);
  for (let day = 1; day <= 3; day++) {
    clock.advance(DAY_SECONDS * 1000 - 1);
    await note(9, () => stale);
    strictEqual((await logged()).length, 1 + day);
    clock.advance(1);
    await note(9, () => stale);
    strictEqual((await logged()).length, 2 + day);
  }
  strictEqual(refusal(), undefined);
  // Two others are what is left to the threshold.
  await note(2, guess);
  strictEqual(refusal()?.kind, "banned");
  strictEqual(bans.find("198.51.100.7"), undefined);
  await logged();
});

Deno.test("what a page of another origin has its reader's browser send is no strike of the reader", async () => {
  const { note, refusal, logged } = await openWatch();
  for (const site of ["cross-site", "same-site"]) {
    await note(9, () => fault("not_found"), `${ORIGIN}/.env`, NETWORK, site);
    await note(9, () => fault("target_invalid"), `${ORIGIN}/../../etc/passwd`, NETWORK, site);
    await note(9, () => fault("media_type_unsupported"), `${ORIGIN}/v1/chat/completions`, NETWORK, site);
    // A form can be sent from anywhere.
    await note(
      9,
      () => fault("client_refused", { guess: `${++guessed}` }),
      `${ORIGIN}/oauth2/token`,
      NETWORK,
      site,
    );
  }
  deepStrictEqual([refusal(), await logged()], [undefined, []]);
  // Tokens and passwords cannot: whoever sends these is no browser in somebody else's hands.
  for (const kind of ["sign_in_refused", "unauthenticated"] as const) {
    strictEqual(triggerOf(fault(kind, { guess: "x" }), sent(ORIGIN, "cross-site")), "credentials");
  }
  for (const site of ["none", "same-origin", "Cross-Site", ""]) {
    strictEqual(triggerOf(fault("not_found"), sent(`${ORIGIN}/.env`, site)), "probes", site);
  }
});

Deno.test("a Host that is not served here is no strike, whatever the target", () => {
  for (const target of ["/v1/models", "/.env", "/../../etc/passwd"]) {
    const url = `http://other.example${target}`;
    strictEqual(triggerOf(fault("target_invalid", { isHostRefused: true }), sent(url)), undefined, target);
  }
});
