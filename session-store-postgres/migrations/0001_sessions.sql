CREATE TABLE {p}session_users (
    user_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    credential_epoch BIGINT NOT NULL,
    deleted_until BIGINT
);
CREATE TABLE {p}sessions (
    id BYTEA NOT NULL PRIMARY KEY CHECK (octet_length(id) = 16),
    user_id {id_type} REFERENCES {users} ({id}) ON DELETE CASCADE,
    secret_hash BYTEA NOT NULL CHECK (octet_length(secret_hash) = 32),
    previous_hash BYTEA,
    previous_until BIGINT,
    created_at BIGINT NOT NULL,
    authenticated_at BIGINT,
    last_seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    absolute_expires_at BIGINT,
    idle_timeout BIGINT NOT NULL,
    rotated_at BIGINT NOT NULL,
    ip TEXT,
    user_agent TEXT,
    device TEXT,
    remember BOOLEAN NOT NULL,
    aal SMALLINT,
    amr TEXT NOT NULL,
    external_sid TEXT,
    data TEXT NOT NULL,
    version BIGINT NOT NULL,
    credential_epoch BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_reason TEXT
);
CREATE INDEX {p}sessions_by_user ON {p}sessions (user_id, created_at, id) WHERE user_id IS NOT NULL;
CREATE INDEX {p}sessions_by_deadline ON {p}sessions (expires_at, id);
CREATE INDEX {p}sessions_by_revocation ON {p}sessions (revoked_at, id) WHERE revoked_at IS NOT NULL;
CREATE INDEX {p}sessions_by_sid ON {p}sessions (external_sid) WHERE external_sid IS NOT NULL;
CREATE TABLE {p}session_caches (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    is_shared BOOLEAN NOT NULL,
    ttl BIGINT NOT NULL
);
CREATE TABLE {p}session_log (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id BYTEA,
    user_id TEXT,
    -- For people to read.
    logged_at BIGINT NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    -- When a sweep first saw it: not before its transaction was committed, however long that took.
    seen_at BIGINT
);
CREATE INDEX {p}session_log_by_sight ON {p}session_log (seen_at, seq);
CREATE TABLE {p}session_log_acks (
    seq BIGINT NOT NULL,
    cache TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (seq, cache)
);
CREATE TABLE {p}session_schema (version BIGINT NOT NULL);
INSERT INTO {p}session_schema (version) VALUES (1);
