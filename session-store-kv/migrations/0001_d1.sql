-- Tables, indexes and triggers of session-store on D1. Ids and hashes are lowercase hexadecimal, times
-- milliseconds. A blank line ends a statement.

CREATE TABLE {p}users (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT,
    email_normalized TEXT UNIQUE,
    password_hash TEXT,
    is_verified INTEGER NOT NULL,
    role TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_login_at INTEGER,
    claims TEXT NOT NULL,
    version INTEGER NOT NULL
) STRICT;

CREATE INDEX {p}users_by_time ON {p}users (created_at, id);

CREATE TABLE {p}session_users (
    user_id TEXT NOT NULL PRIMARY KEY,
    credential_epoch INTEGER NOT NULL,
    deleted_until INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE {p}sessions (
    id TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    user_id TEXT REFERENCES {p}users (id) ON DELETE CASCADE,
    secret_hash TEXT NOT NULL CHECK (length(secret_hash) = 64),
    previous_hash TEXT,
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
    session_id TEXT,
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

-- One row. `sweeping` is set inside the batch of a sweep only: the death of what is dead already
-- concerns no cache.
CREATE TABLE {p}session_control (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    sweeping INTEGER NOT NULL
) STRICT;

INSERT INTO {p}session_control (one, sweeping) VALUES (1, 0);

-- Always empty. A batch that must not go on puts its reason here, and the name of the constraint that
-- aborts it says which.
CREATE TABLE {p}session_guard (
    reason INTEGER NOT NULL,
    CONSTRAINT guard_taken CHECK (reason <> 1),
    CONSTRAINT guard_unknown_user CHECK (reason <> 2),
    CONSTRAINT guard_stale_credentials CHECK (reason <> 3),
    CONSTRAINT guard_too_many CHECK (reason <> 4),
    CONSTRAINT guard_changed CHECK (reason <> 5)
) STRICT;

CREATE TABLE {p}session_schema (version INTEGER NOT NULL) STRICT;

INSERT INTO {p}session_schema (version) VALUES (1);

CREATE TRIGGER {p}session_log_delete AFTER DELETE ON {p}sessions
WHEN OLD.revoked_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM {p}session_control WHERE sweeping = 1)
    AND EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared = 1)
BEGIN
    INSERT INTO {p}session_log (session_id) VALUES (OLD.id);
END;

-- All but what a touch changes: when the session was last seen, and a deadline that moves away.
CREATE TRIGGER {p}session_log_update
AFTER UPDATE OF version, expires_at, id, user_id, secret_hash, previous_hash, previous_until,
    created_at, authenticated_at, absolute_expires_at, idle_timeout, rotated_at, ip, user_agent,
    device, remember, aal, amr, external_sid, credential_epoch, revoked_at, revoked_reason, data
ON {p}sessions
WHEN (NEW.version IS NOT OLD.version OR NEW.expires_at < OLD.expires_at OR NEW.id IS NOT OLD.id
        OR NEW.user_id IS NOT OLD.user_id OR NEW.secret_hash IS NOT OLD.secret_hash
        OR NEW.previous_hash IS NOT OLD.previous_hash
        OR NEW.previous_until IS NOT OLD.previous_until OR NEW.created_at IS NOT OLD.created_at
        OR NEW.authenticated_at IS NOT OLD.authenticated_at
        OR NEW.absolute_expires_at IS NOT OLD.absolute_expires_at
        OR NEW.idle_timeout IS NOT OLD.idle_timeout OR NEW.rotated_at IS NOT OLD.rotated_at
        OR NEW.ip IS NOT OLD.ip OR NEW.user_agent IS NOT OLD.user_agent
        OR NEW.device IS NOT OLD.device OR NEW.remember IS NOT OLD.remember
        OR NEW.aal IS NOT OLD.aal OR NEW.amr IS NOT OLD.amr
        OR NEW.external_sid IS NOT OLD.external_sid
        OR NEW.credential_epoch IS NOT OLD.credential_epoch
        OR NEW.revoked_at IS NOT OLD.revoked_at OR NEW.revoked_reason IS NOT OLD.revoked_reason
        OR NEW.data IS NOT OLD.data)
    AND EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared = 1)
BEGIN
    INSERT INTO {p}session_log (session_id) VALUES (OLD.id);
END;

-- Deletes the sessions itself, so that their deaths are logged whatever a cascade does.
CREATE TRIGGER {p}session_user_delete BEFORE DELETE ON {p}users
BEGIN
    DELETE FROM {p}sessions WHERE user_id = OLD.id;
END;

-- Names the old id: it is the one that sessions refer to if the id itself was changed.
CREATE TRIGGER {p}session_user_update AFTER UPDATE OF id, email, is_verified, role, claims ON {p}users
WHEN (NEW.id IS NOT OLD.id OR NEW.email IS NOT OLD.email
        OR NEW.is_verified IS NOT OLD.is_verified OR NEW.role IS NOT OLD.role
        OR NEW.claims IS NOT OLD.claims)
    AND EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared = 1)
BEGIN
    INSERT INTO {p}session_log (user_id) VALUES (OLD.id);
END;
