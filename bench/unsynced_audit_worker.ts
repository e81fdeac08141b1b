// Unsynced audit worker: the server's own, on a disk that answers each fsync at once: what durability costs is the difference.
import "./no_sync.ts";
import "../src/audit/trail/audit_worker.ts";
