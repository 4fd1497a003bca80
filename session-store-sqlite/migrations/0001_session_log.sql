CREATE TRIGGER IF NOT EXISTS {p}session_log_delete AFTER DELETE ON {p}sessions
WHEN OLD.revoked_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM {p}session_control WHERE sweeping = 1)
    AND EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared = 1)
BEGIN
    INSERT INTO {p}session_log (session_id) VALUES (OLD.id);
END;
-- All but what a touch changes: when the session was last seen, and a deadline that moves away.
CREATE TRIGGER IF NOT EXISTS {p}session_log_update
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
