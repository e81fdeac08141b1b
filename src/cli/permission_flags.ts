// Permission flags: exactly what the server needs under given settings, as Deno's command-line flags.
import { type Config, hostAndPort, localAddress, outgoingHosts } from "../config/config.ts";
import { PROXY_VARIABLES } from "../config/environment.ts";

/** Flags that close what Deno leaves open: prompts, downloads, changes of the lock file. */
const FIXED_FLAGS = ["--no-prompt", "--cached-only", "--frozen", "--no-remote"] as const;
/** Workers load their modules from `src` at run time; the ONNX runtime's machine code is read and handed to them. */
const CODE_PATHS = ["src", "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"] as const;

/**
 * The flags of the commands that add models and take them out: they read what they are pointed to, wherever it is, and write the models
 * folder, which the server does not.
 */
export function modelsFlags(config: Config): string[] {
  const net = outgoingHosts(config);
  return [
    ...FIXED_FLAGS,
    ...(net.length === 0 ? [] : [`--allow-net=${net.join(",")}`]),
    "--allow-read",
    `--allow-write=${config.dataDir},${config.modelsDir}`,
    `--allow-env=${["PORTCULLIS_*", ...PROXY_VARIABLES].join(",")}`,
    "--ignore-env",
  ];
}

/** The flags of the command that does what a server would do, or asks the one that runs here. */
export function vaultFlags(config: Config, files: readonly string[]): string[] {
  return permissionFlags(config, files).map((flag) =>
    flag.startsWith("--allow-net=") ? `${flag},${localAddress(config)}` : flag
  );
}

/**
 * The flags of `deno run … src/main.ts`.
 *
 * @param files settings and secret files that were read
 */
export function permissionFlags(config: Config, files: readonly string[]): string[] {
  const certificates = [...config.upstreams, ...config.issuers, ...config.auditSinks].flatMap((each) =>
    "caFile" in each ? each.caFile ?? [] : []
  );
  const read = [
    config.dataDir,
    config.modelsDir,
    "portcullis.json",
    ...CODE_PATHS,
    ...files,
    ...certificates,
    ...(config.redisCaFile === undefined ? [] : [config.redisCaFile]),
    ...(config.keyServiceCaFile === undefined ? [] : [config.keyServiceCaFile]),
  ];
  const net = [hostAndPort(config.host, config.port), ...outgoingHosts(config)];
  return [
    ...FIXED_FLAGS,
    `--allow-net=${[...new Set(net)].join(",")}`,
    `--allow-read=${[...new Set(read)].join(",")}`,
    `--allow-write=${config.dataDir}`,
    `--allow-env=${["PORTCULLIS_*", ...PROXY_VARIABLES].join(",")}`,
    "--ignore-env",
  ];
}
