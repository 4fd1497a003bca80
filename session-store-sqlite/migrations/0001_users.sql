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
