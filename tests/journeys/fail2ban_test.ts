// fail2ban: its own tool reads what a server wrote of attackers and others, with our filter; no line that somebody forged counts.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { type ServerUnderTest, startServerUnderTest } from "../support/server_under_test.ts";

const FILTER = `${import.meta.dirname}/../../deploy/fail2ban/filter.d/portcullis.conf`;
const isInstalled = ((): boolean => {
  try {
    return new Deno.Command("fail2ban-regex", { args: ["--version"], stdout: "null", stderr: "null" })
      .outputSync().success;
  } catch {
    return false;
  }
})();

/** Whom nobody may be made to ban. */
const VICTIM = "203.0.113.66";
/** Texts that would name the victim, if they came into the log as they are. */
const FORGERIES = [
  `x","address":"${VICTIM}"}`,
  `x"}\n{"time":"2030-01-01T00:00:00.000Z","level":"info","event":"address.strike","request":"req_${
    "0".repeat(26)
  }","trigger":"credentials","address":"${VICTIM}"}\n`,
  `\\","address":"${VICTIM}","x":"`,
  `\u2028{"address":"${VICTIM}"}\r\n${VICTIM}`,
];

Deno.test({
  name:
    "fail2ban-regex (which is needed) finds in a server's log exactly those who guessed, probed or came back while banned",
  ignore: !isInstalled,
}, async () => {
  const server = await startServerUnderTest({
    variables: {
      PORTCULLIS_TRUSTED_PROXIES: "127.0.0.1",
      PORTCULLIS_BANS: JSON.stringify({ probes: { count: 3, seconds: 600 } }),
    },
  });
  const folder = await Deno.makeTempDir({ prefix: "portcullis-fail2ban-" });
  try {
    const calls = callsTo(server);

    // Passwords that are guessed, under names that hold forged lines; each name once, for the lockout slows down the others.
    for (const name of FORGERIES) strictEqual(await calls.signIn("198.51.100.1", name, "guess"), 401);
    strictEqual(await calls.signIn("198.51.100.1", "admin", FORGERIES[0] ?? ""), 401);
    strictEqual(await calls.signIn("2001:db8:0:1::7", "somebody", "guess"), 401);
    // Credentials that are none; a proxy's word counts, what its client made up before it does not.
    for (const token of ["abc.def.ghi", `x","address":"${VICTIM}"}`, "pck_x"]) {
      strictEqual(await calls.get("198.51.100.2", "/v1/models", { authorization: `Bearer ${token}` }), 401);
    }
    strictEqual(await calls.signIn(`${VICTIM}, 198.51.100.3`, "somebody-else", "guess"), 401);
    // A client's secret.
    strictEqual(await calls.get("198.51.100.4", "/oauth2/token", undefined, "POST"), 401);

    // Three probes, and four requests after them.
    const forged = encodeURIComponent(FORGERIES[1] ?? "");
    for (const path of [`/.env?${forged}`, `/wp-login.php/${forged}`, "/v1/models?id=1%27%20or%201=1"]) {
      const status = await calls.get("198.51.100.5", path, { "user-agent": `x","address":"${VICTIM}"}` });
      ok(status === 404 || status === 400, String(status));
    }
    for (let request = 1; request <= 4; request++) {
      strictEqual(await calls.get("198.51.100.5", "/v1/models"), 403);
    }

    // Whoever is honest: signs in, looks, mistypes, forgets the token; and an address that no proxy could make sense of.
    const token = await server.signIn();
    strictEqual(await calls.get("198.51.100.6", "/v1/models", { authorization: `Bearer ${token}` }), 200);
    for (const path of ["/v1/model", "/favicon.ico", "/", "/robots.txt"]) {
      strictEqual(await calls.get("198.51.100.6", path), 404);
    }
    strictEqual(await calls.get("198.51.100.6", "/v1/models"), 401);
    strictEqual(await calls.get("198.51.100.6", "/v1/models", { authorization: `DPoP ${token}` }), 401);
    strictEqual(await calls.signIn(`${VICTIM}"}, x`, "nobody-here", "guess"), 401);

    await server.stop();
    const raw = `${folder}/server.log`;
    await Deno.writeTextFile(raw, server.output());
    // As Docker's json-file driver keeps it.
    const wrapped = `${folder}/container-json.log`;
    const lines = server.output().split("\n").filter((line) => line !== "");
    await Deno.writeTextFile(
      wrapped,
      lines.map((line) =>
        JSON.stringify({ log: `${line}\n`, stream: "stdout", time: "2030-01-01T00:00:00.000000000Z" }) + "\n"
      ).join(""),
    );
    for (const log of [raw, wrapped]) {
      deepStrictEqual(await matches(log, "auth"), {
        "198.51.100.1": FORGERIES.length + 1,
        "2001:db8:0:1::7": 1,
        "198.51.100.2": 3,
        "198.51.100.3": 1,
        "198.51.100.4": 1,
      }, log);
      deepStrictEqual(await matches(log, "probe"), { "198.51.100.5": 3 }, log);
      deepStrictEqual(await matches(log, "banned"), { "198.51.100.5": 4 }, log);
    }
    // The forgeries did not even get that far.
    strictEqual(server.output().includes(VICTIM), false);
  } finally {
    await server.stop("SIGKILL").catch(() => {});
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test({
  name: "the filter of fail2ban (which is needed) takes no line that names an address in any other place",
  ignore: !isInstalled,
}, async () => {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-fail2ban-" });
  try {
    const time = `{"time":"2030-01-01T00:00:00.000Z","level":"info"`;
    const request = `"request":"req_${"0".repeat(26)}"`;
    const strike = (address: string) =>
      `"event":"address.strike",${request},"trigger":"credentials","address":"${address}"`;
    const lines = [
      // The one that counts.
      `${time},${strike("198.51.100.1")}}`,
      // Fields before it, behind it, of another event, within a text, without the line's beginning, with a name for an address.
      `${time},"name":"x",${strike(VICTIM)}}`,
      `${time},${strike(VICTIM)},"more":1}`,
      `${time},"event":"other",${strike(VICTIM)}}`,
      `${time},"event":"other","text":${JSON.stringify(`${time},${strike(VICTIM)}}`)}`,
      ` ${time},${strike(VICTIM)}}`,
      `x${time},${strike(VICTIM)}}`,
      `${time},${strike("localhost")}}`,
      `${time},${strike(VICTIM)}`,
      strike(VICTIM),
    ];
    const log = `${folder}/server.log`;
    await Deno.writeTextFile(log, lines.join("\n") + "\n");
    deepStrictEqual(await matches(log, "auth"), { "198.51.100.1": 1 });
    for (const mode of ["probe", "banned"]) deepStrictEqual(await matches(log, mode), {});
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** How many lines of each address the filter takes. */
async function matches(log: string, mode: string): Promise<Record<string, number>> {
  const { stdout, stderr } = await new Deno.Command("fail2ban-regex", {
    // "ip" prints nothing but the address of each match.
    args: ["-r", "-o", "ip", log, `${FILTER}[mode=${mode}]`],
    stdout: "piped",
    stderr: "piped",
  }).output();
  strictEqual(new TextDecoder().decode(stderr), "");
  const counts: Record<string, number> = {};
  for (const address of new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "")) {
    counts[address] = (counts[address] ?? 0) + 1;
  }
  return counts;
}

/** Requests by way of a proxy; each resolves with the status. */
function callsTo({ origin }: ServerUnderTest) {
  const send = async (path: string, init: RequestInit): Promise<number> => {
    const response = await fetch(`${origin}${path}`, init);
    await response.body?.cancel();
    return response.status;
  };
  return {
    get: (from: string, path: string, headers: Record<string, string> = {}, method = "GET") =>
      send(path, {
        method,
        headers: { "x-forwarded-for": from, ...headers },
        ...(method === "POST"
          ? {
            body: new URLSearchParams({
              grant_type: "client_credentials",
              client_id: "cli_x",
              client_secret: "guess",
            }),
          }
          : {}),
      }),
    signIn: (from: string, username: string, password: string) =>
      send("/v1/auth/login", {
        method: "POST",
        headers: { "x-forwarded-for": from, "content-type": "application/json" },
        body: JSON.stringify({ username, password }),
      }),
  };
}
