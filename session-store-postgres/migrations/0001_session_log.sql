-- The functions keep the search path under which they were made: whoever types SQL has another one.
CREATE OR REPLACE FUNCTION {p}session_log_row() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $body$
BEGIN
    IF TG_OP = 'DELETE' AND (OLD.revoked_at IS NOT NULL
            OR current_setting('session_store.sweeping', true) IS NOT DISTINCT FROM 'on') THEN
        -- A sweep of what is dead concerns no cache.
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared) THEN
        INSERT INTO {p}session_log (session_id) VALUES (OLD.id);
    END IF;
    RETURN NULL;
END $body$;
CREATE OR REPLACE FUNCTION {p}session_log_all() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $body$
BEGIN
    IF EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared) THEN
        INSERT INTO {p}session_log (session_id)
            SELECT id FROM {p}sessions WHERE revoked_at IS NULL;
    END IF;
    RETURN NULL;
END $body$;
DROP TRIGGER IF EXISTS {p}session_log_delete ON {p}sessions;
CREATE TRIGGER {p}session_log_delete AFTER DELETE ON {p}sessions
    FOR EACH ROW EXECUTE FUNCTION {p}session_log_row();
DROP TRIGGER IF EXISTS {p}session_log_truncate ON {p}sessions;
CREATE TRIGGER {p}session_log_truncate BEFORE TRUNCATE ON {p}sessions
    FOR EACH STATEMENT EXECUTE FUNCTION {p}session_log_all();
-- All but what a touch changes: when the session was last seen, and a deadline that moves away. First
-- what every change of the library's own changes, last what is long.
DROP TRIGGER IF EXISTS {p}session_log_update ON {p}sessions;
CREATE TRIGGER {p}session_log_update AFTER UPDATE ON {p}sessions FOR EACH ROW
    WHEN (NEW.version IS DISTINCT FROM OLD.version OR NEW.expires_at < OLD.expires_at
        OR NEW.id IS DISTINCT FROM OLD.id OR NEW.user_id IS DISTINCT FROM OLD.user_id
        OR NEW.secret_hash IS DISTINCT FROM OLD.secret_hash
        OR NEW.previous_hash IS DISTINCT FROM OLD.previous_hash
        OR NEW.previous_until IS DISTINCT FROM OLD.previous_until
        OR NEW.created_at IS DISTINCT FROM OLD.created_at
        OR NEW.authenticated_at IS DISTINCT FROM OLD.authenticated_at
        OR NEW.absolute_expires_at IS DISTINCT FROM OLD.absolute_expires_at
        OR NEW.idle_timeout IS DISTINCT FROM OLD.idle_timeout
        OR NEW.rotated_at IS DISTINCT FROM OLD.rotated_at OR NEW.ip IS DISTINCT FROM OLD.ip
        OR NEW.user_agent IS DISTINCT FROM OLD.user_agent
        OR NEW.device IS DISTINCT FROM OLD.device OR NEW.remember IS DISTINCT FROM OLD.remember
        OR NEW.aal IS DISTINCT FROM OLD.aal OR NEW.amr IS DISTINCT FROM OLD.amr
        OR NEW.external_sid IS DISTINCT FROM OLD.external_sid
        OR NEW.credential_epoch IS DISTINCT FROM OLD.credential_epoch
        OR NEW.revoked_at IS DISTINCT FROM OLD.revoked_at
        OR NEW.revoked_reason IS DISTINCT FROM OLD.revoked_reason
        OR NEW.data IS DISTINCT FROM OLD.data)
    EXECUTE FUNCTION {p}session_log_row();
