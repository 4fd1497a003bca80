CREATE TRIGGER IF NOT EXISTS {p}session_log_delete AFTER DELETE ON {p}sessions
WHEN OLD.revoked_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM {p}session_control WHERE sweeping = 1)
    AND EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared = 1)
BEGIN
    INSERT INTO {p}session_log (session_id) VALUES (OLD.id);
END;
-- A deadline that comes nearer is typed by hand: a touch only moves it away, and is not logged.
CREATE TRIGGER IF NOT EXISTS {p}session_log_update
AFTER UPDATE OF version, revoked_at, secret_hash, user_id, data, expires_at, absolute_expires_at
ON {p}sessions
WHEN (NEW.version IS NOT OLD.version OR NEW.revoked_at IS NOT OLD.revoked_at
        OR NEW.secret_hash IS NOT OLD.secret_hash OR NEW.user_id IS NOT OLD.user_id
        OR NEW.data IS NOT OLD.data OR NEW.expires_at < OLD.expires_at
        OR NEW.absolute_expires_at IS NOT OLD.absolute_expires_at)
    AND EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared = 1)
BEGIN
    INSERT INTO {p}session_log (session_id) VALUES (OLD.id);
END;
