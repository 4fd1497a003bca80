CREATE TABLE {p}session_users (
    user_id TEXT NOT NULL PRIMARY KEY,
    credential_epoch INTEGER NOT NULL,
    deleted_until INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE {p}sessions (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    user_id {id_type} REFERENCES {users} ({id}) ON DELETE CASCADE,
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    previous_hash BLOB,
    previous_until INTEGER,
    created_at INTEGER NOT NULL,
    authenticated_at INTEGER,
    last_seen_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    absolute_expires_at INTEGER,
    idle_timeout INTEGER NOT NULL,
    rotated_at INTEGER NOT NULL,
    ip TEXT,
    user_agent TEXT,
    device TEXT,
    remember INTEGER NOT NULL,
    aal INTEGER,
    amr TEXT NOT NULL,
    external_sid TEXT,
    data TEXT NOT NULL,
    version INTEGER NOT NULL,
    credential_epoch INTEGER NOT NULL,
    revoked_at INTEGER,
    revoked_reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX {p}sessions_by_user ON {p}sessions (user_id, created_at, id);
CREATE INDEX {p}sessions_by_deadline ON {p}sessions (expires_at, id);
CREATE INDEX {p}sessions_by_revocation ON {p}sessions (revoked_at, id) WHERE revoked_at IS NOT NULL;
CREATE INDEX {p}sessions_by_sid ON {p}sessions (external_sid) WHERE external_sid IS NOT NULL;
CREATE TABLE {p}session_caches (
    name TEXT NOT NULL PRIMARY KEY,
    is_shared INTEGER NOT NULL,
    ttl INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE {p}session_log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id BLOB,
    user_id TEXT,
    -- For people to read.
    logged_at INTEGER NOT NULL DEFAULT (unixepoch() * 1000),
    -- When a sweep first saw it.
    seen_at INTEGER
) STRICT;
CREATE INDEX {p}session_log_by_sight ON {p}session_log (seen_at, seq);
CREATE TABLE {p}session_log_acks (
    seq INTEGER NOT NULL,
    cache TEXT NOT NULL,
    PRIMARY KEY (seq, cache)
) STRICT, WITHOUT ROWID;
-- One row. `sweeping` is set inside the transaction of a sweep only: the death of what is dead
-- already concerns no cache.
CREATE TABLE {p}session_control (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    sweeping INTEGER NOT NULL
) STRICT;
INSERT INTO {p}session_control (one, sweeping) VALUES (1, 0);
CREATE TABLE {p}session_schema (version INTEGER NOT NULL) STRICT;
INSERT INTO {p}session_schema (version) VALUES (1);
