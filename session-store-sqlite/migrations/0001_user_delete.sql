-- Deletes the sessions itself, so that it works with foreign keys off, as in the sqlite3 shell.
CREATE TRIGGER IF NOT EXISTS {p}session_user_delete BEFORE DELETE ON {users}
BEGIN
    DELETE FROM {p}sessions WHERE user_id = OLD.{id};
END;
