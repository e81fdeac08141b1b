// Read small file: the bytes of a file that somebody else may have put there; nothing but a regular file of a size that it may have.

/**
 * The file's bytes.
 *
 * @throws Deno.errors.NotFound · Error when it is no regular file (a pipe would be waited for, a link could lead anywhere) or larger
 * than it may be
 */
export function readSmallFile(path: string, bytesMax: number): Uint8Array<ArrayBuffer> {
  const { isFile, size } = Deno.lstatSync(path);
  if (!isFile) throw new Error("it is no regular file");
  if (size > bytesMax) throw new Error(`it is larger than ${bytesMax} bytes`);
  const bytes = Deno.readFileSync(path);
  if (bytes.length > bytesMax) throw new Error(`it is larger than ${bytesMax} bytes`);
  return bytes;
}
