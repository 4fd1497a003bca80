-- Names the old id: it is the one that sessions refer to if the id itself was changed.
CREATE TRIGGER IF NOT EXISTS {p}session_user_update AFTER UPDATE OF {projected} ON {users}
WHEN ({projected_changed})
    AND EXISTS (SELECT 1 FROM {p}session_caches WHERE is_shared = 1)
BEGIN
    INSERT INTO {p}session_log (user_id) VALUES (CAST(OLD.{id} AS TEXT));
END;
