CREATE TABLE {p}users (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    email TEXT,
    email_normalized TEXT UNIQUE,
    password_hash TEXT,
    is_verified BOOLEAN NOT NULL,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_login_at BIGINT,
    claims TEXT NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX {p}users_by_time ON {p}users (created_at, id);
