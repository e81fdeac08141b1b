// Real server: src/main.ts with exactly the flags that its settings need, as an operator starts it.
import { permissionFlags } from "../src/cli/permission_flags.ts";
import { parseConfig } from "../src/config/config.ts";
import { type ChildServer, startChildServer } from "./child_server.ts";

/** @param settings variables by their whole names; without any, the server has the models of the repository */
export function startRealServer(
  dataDir: string,
  settings: Readonly<Record<string, string>> = {},
): ChildServer {
  return startChildServer("src/main.ts", {
    // As `deno task start`, `serve` and the image have it: with an arena a thread, what is freed is not given back.
    MALLOC_ARENA_MAX: "1",
    PORTCULLIS_DATA_DIR: dataDir,
    // One, as the bare worker is one, however many cores there are.
    PORTCULLIS_ENGINE_WORKERS: "1",
    ...settings,
  }, flags);
}

function flags(variables: Record<string, string>): string[] {
  const { MALLOC_ARENA_MAX: _, ...settings } = variables;
  const parsed = parseConfig({ variables: settings, file: undefined, cores: 2, storeExists: () => true });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.mistakes));
  return permissionFlags(parsed.config, []);
}
