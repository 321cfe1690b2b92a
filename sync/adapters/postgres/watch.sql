-- Sessions that are told of changes as they happen.

-- name: watchers
-- Those behind an account and resource, in their order.
SELECT account, resource, told, log FROM watcher WHERE (account, resource) > ($1, $2) ORDER BY account, resource LIMIT $3;

-- name: put_watcher
-- Store one.
INSERT INTO watcher (account, resource, told, log) VALUES ($1, $2, $3, $4)
ON CONFLICT (account, resource) DO UPDATE SET told = excluded.told, log = excluded.log;

-- name: move_watchers
-- They were told more. In one order, as for all that write several of these rows.
UPDATE watcher w SET told = new.told, log = new.log
FROM (
    SELECT old.account, old.resource, moved.told, moved.log
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS moved(account, resource, told, log)
    JOIN watcher old USING (account, resource)
    ORDER BY old.account, old.resource FOR UPDATE OF old
) AS new
WHERE (w.account, w.resource) = (new.account, new.resource);

-- name: drop_watchers
-- Forget them.
DELETE FROM watcher w USING unnest($1::text[], $2::text[]) AS gone(account, resource)
WHERE (w.account, w.resource) = (gone.account, gone.resource);

-- name: versions
-- The versions of accounts.
SELECT jid, version FROM account WHERE jid = ANY ($1::text[]);
