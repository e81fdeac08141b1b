// Gate server: src/main.ts as far as requests go, with real keys, store, tokens and trail (or the one that its second
// argument names), and the stub engine.
import { assemble } from "../src/assemble.ts";
import { readEnvironment } from "../src/config/environment.ts";
import { openListener } from "../src/listener.ts";
import { createEngineTable } from "../src/engines/engine_table.ts";
import { BENCH_TRAILS, benchTrailOpener } from "./bench_trail.ts";
import { stubEngine } from "./stub_model.ts";

const settings = readEnvironment();
if (!settings.ok) throw new Error(JSON.stringify(settings.mistakes));
const { config } = settings;
const trail = BENCH_TRAILS.find((each) => each === Deno.args[1]) ?? "durable";
const { app } = await assemble(config, {
  engines: createEngineTable([stubEngine]),
  openTrail: benchTrailOpener(trail),
});
await openListener({
  hostname: config.host,
  port: config.port,
  app,
  headersTimeoutMs: config.headTimeoutMs,
  idleTimeoutMs: config.idleTimeoutMs,
  connectionsMax: config.connectionsMax,
});
