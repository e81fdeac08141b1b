// Mounted disks: real small file systems that a test can fill, freeze, break and take away. For root on Linux only.

/** Whether this machine lets us mount: else tests that need it are ignored, and say so. */
export const canMount: boolean = tryMount();
/** Of such a test, in its name. */
export const WHY_NO_MOUNT = "gives no right to mount";

/** A file system in memory, at a folder that exists. */
export interface MemoryDisk extends AsyncDisposable {
  /** Leaves no byte free. */
  fill(): void;
  /** Gives back what `fill` took. */
  empty(): void;
}

/** A file system on a block device of its own. */
export interface BlockDisk extends AsyncDisposable {
  /** From now on whoever writes waits, and nobody can end that wait but `thaw`. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  /** Makes the kernel find an error, after which it serves the file system for reading only. */
  breakDown(): Promise<void>;
  /** Takes it away as soon as nobody has a file of it open, checks it and brings it back, writable. */
  mend(): Promise<void>;
}

/** @param bytes how large it is */
export async function mountMemoryDisk(folder: string, bytes: number): Promise<MemoryDisk> {
  await run("mount", "-t", "tmpfs", "-o", `size=${bytes},mode=0700`, "tmpfs", folder);
  const ballast = `${folder}/ballast`;
  return {
    fill() {
      using file = Deno.openSync(ballast, { write: true, create: true });
      for (const size of [4096, 1]) {
        try {
          for (;;) file.writeSync(new Uint8Array(size));
        } catch (error) {
          if (!(error instanceof Error) || !/no space/i.test(error.message)) throw error;
        }
      }
    },
    empty: () => Deno.removeSync(ballast),
    async [Symbol.asyncDispose]() {
      await run("umount", "-l", folder);
    },
  };
}

/** An ext4 of 16 MiB in a file. */
export async function mountBlockDisk(folder: string): Promise<BlockDisk> {
  const image = await Deno.makeTempFile({ prefix: "portcullis-disk-" });
  await Deno.truncate(image, 16 * 1024 * 1024);
  await run("mkfs.ext4", "-q", image);
  const mount = () => run("mount", "-o", "loop,errors=remount-ro", image, folder);
  await mount();
  await Deno.remove(`${folder}/lost+found`);
  await Deno.chmod(folder, 0o700);
  let frozen = false;
  const thaw = async (): Promise<void> => {
    if (frozen) await run("fsfreeze", "-u", folder);
    frozen = false;
  };
  return {
    async freeze() {
      await run("fsfreeze", "-f", folder);
      frozen = true;
    },
    thaw,
    async breakDown() {
      const device = (await run("losetup", "-j", image)).split(":")[0]?.replace("/dev/", "");
      // The runtime itself writes there for nobody.
      await run("sh", "-c", `echo 1 > /sys/fs/ext4/${device}/trigger_fs_error`);
    },
    async mend() {
      await persist(() => run("umount", folder));
      // 1: errors were there and are mended.
      await run("sh", "-c", `e2fsck -fy ${image} >/dev/null 2>&1; [ $? -le 1 ]`);
      await mount();
    },
    async [Symbol.asyncDispose]() {
      await thaw();
      await run("umount", "-l", folder);
      await Deno.remove(image);
    },
  };
}

/** Until it works: whoever is in the way goes by itself. */
async function persist(act: () => Promise<unknown>): Promise<void> {
  for (let tries = 0;; tries++) {
    try {
      await act();
      return;
    } catch (error) {
      if (tries === 600) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function run(program: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args }).output();
  const said = new TextDecoder();
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: ${said.decode(stderr)}`);
  return said.decode(stdout);
}

function tryMount(): boolean {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  const folder = Deno.makeTempDirSync({ prefix: "portcullis-mount-" });
  try {
    const mounted = new Deno.Command("mount", { args: ["-t", "tmpfs", "tmpfs", folder], stderr: "null" })
      .outputSync();
    if (!mounted.success) return false;
    return new Deno.Command("umount", { args: [folder] }).outputSync().success;
  } catch {
    return false;
  } finally {
    Deno.removeSync(folder);
  }
}
