CREATE OR REPLACE FUNCTION {p}session_log_user() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $body$
BEGIN
    IF EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared) THEN
        -- The old id: it is the one that sessions refer to if the id itself was changed.
        INSERT INTO {p}session_log (user_id) VALUES (OLD.{id}::text);
    END IF;
    RETURN NULL;
END $body$;
DROP TRIGGER IF EXISTS {p}session_user_update ON {users};
CREATE TRIGGER {p}session_user_update AFTER UPDATE ON {users} FOR EACH ROW
    WHEN ({projected_changed}) EXECUTE FUNCTION {p}session_log_user();
