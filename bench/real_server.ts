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
    PORTCULLIS_DATA_DIR: dataDir,
    // One, as the bare worker is one, however many cores there are.
    PORTCULLIS_ENGINE_WORKERS: "1",
    ...settings,
  }, flags);
}

function flags(variables: Record<string, string>): string[] {
  const parsed = parseConfig({ variables, file: undefined, cores: 2, storeExists: () => true });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.mistakes));
  return permissionFlags(parsed.config, []);
}
