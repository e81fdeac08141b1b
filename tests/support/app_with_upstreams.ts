// App with upstreams: the app under test with its real upstream engines, in front of servers that a test brings along.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Clock } from "../../src/time/clock.ts";
import { type AppUnderTest, openAppUnderTest } from "./app_under_test.ts";
import type { GateSettings } from "./gate_journey.ts";

/**
 * Opens an app, lets `run` use it, and checks what must hold at the end: each intent in the trail has its one outcome, and no
 * upstream's secret is in trail or log.
 *
 * @param clock instead of the system's
 */
export async function withUpstreams(
  { upstreams, models, variables }: Omit<GateSettings, "localModels">,
  run: (app: AppUnderTest) => Promise<void>,
  clock?: Clock,
): Promise<void> {
  const noModels = await Deno.makeTempDir({ prefix: "portcullis-no-models-" });
  const keys = upstreams.flatMap(({ name, key }): [string, string][] =>
    key === undefined ? [] : [[`PORTCULLIS_UPSTREAM_${name.replaceAll("-", "_").toUpperCase()}_KEY`, key]]
  );
  const app = await openAppUnderTest(
    {
      PORTCULLIS_MODELS_DIR: noModels,
      PORTCULLIS_UPSTREAMS: JSON.stringify(upstreams.map(({ key: _, ...upstream }) => upstream)),
      PORTCULLIS_UPSTREAM_MODELS: JSON.stringify(models),
      ...Object.fromEntries(keys),
      ...variables,
    },
    // No stub: the engines that the settings name.
    { engines: undefined as never, ...(clock === undefined ? {} : { clock }) },
  );
  try {
    await run(app);
    const requestsWith = (wanted: string): unknown[] =>
      app.auditEvents().filter(({ type }) => type === wanted).map(({ request }) => request).sort();
    const started = requestsWith("inference.started");
    strictEqual(new Set(started).size, started.length, "two intents of one request");
    deepStrictEqual(requestsWith("inference.finished"), started);
    await app.portcullis.log.flush();
    const written = JSON.stringify([app.auditEvents(), app.logLines()]);
    ok(!keys.some(([, key]) => written.includes(key)), "an upstream's secret is in the trail or the log");
  } finally {
    await app.close();
    await Deno.remove(noModels);
  }
}

/** What the trail says of one answer's request, once its outcome is there. */
export async function recordsOf(
  app: Pick<AppUnderTest, "auditEvents">,
  response: Response,
): Promise<Record<string, unknown>[]> {
  const id = response.headers.get("x-request-id");
  for (let tries = 0; tries < 400; tries++) {
    const records = app.auditEvents().filter(({ request }) => request === id);
    if (records.some(({ type }) => type === "inference.finished" || type === "request.refused")) {
      return records;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`no outcome of ${id} is on record`);
}

/** Waits until something holds; throws with `what` after some seconds. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`it did not come about that ${what}`);
}
