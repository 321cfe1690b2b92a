-- Statements of our own dialect beside its pages, which are made in delta.py.

-- name: newest_call
-- The newest call of a session id, with a peer where one is named.
SELECT * FROM call WHERE account = $1 AND sid = $2 AND ($3::text IS NULL OR peer = $3) ORDER BY version DESC LIMIT 1;
