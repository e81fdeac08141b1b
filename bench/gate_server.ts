// Gate server: src/main.ts as far as requests go, with real keys, store, tokens and trail on disk, and the stub engine.
import { assemble } from "../src/assemble.ts";
import { readEnvironment } from "../src/config/environment.ts";
import { openListener } from "../src/listener.ts";
import { createEngineTable } from "../src/engines/engine_table.ts";
import { stubEngine } from "./stub_model.ts";

const settings = readEnvironment();
if (!settings.ok) throw new Error(JSON.stringify(settings.mistakes));
const { config } = settings;
const { app } = await assemble(config, { engines: createEngineTable([stubEngine]) });
await openListener({
  hostname: config.host,
  port: config.port,
  app,
  headersTimeoutMs: config.headTimeoutMs,
  idleTimeoutMs: config.idleTimeoutMs,
  connectionsMax: config.connectionsMax,
});
