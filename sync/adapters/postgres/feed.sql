-- Streams of hosts, how far they are committed, what a loss does to clients, and who speaks for the component.

-- name: marks
-- The streams of a host.
SELECT stream, shard, committed, seen, good FROM feed_stream WHERE host = $1 ORDER BY seen, stream;

-- name: write_marks
-- Remember how far streams are committed and seen; neither goes back.
INSERT INTO feed_stream (host, stream, shard, committed, seen, good)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
ON CONFLICT (host, stream, shard) DO UPDATE SET
    committed = greatest(feed_stream.committed, excluded.committed), seen = greatest(feed_stream.seen, excluded.seen),
    good = greatest(feed_stream.good, excluded.good);

-- name: replace_marks
-- Remember what the module really has of its streams, though it be less than before.
INSERT INTO feed_stream (host, stream, shard, committed, seen, good)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
ON CONFLICT (host, stream, shard) DO UPDATE SET committed = excluded.committed, seen = excluded.seen,
    good = greatest(feed_stream.good, excluded.good);

-- name: forget_streams
-- Drop the marks of streams that the module has forgotten.
DELETE FROM feed_stream WHERE host = $1 AND stream = ANY ($2::text[]);

-- name: forget_positions
-- Drop the positions of streams that the module has forgotten.
DELETE FROM feed_position WHERE host = $1 AND stream = ANY ($2::text[]);

-- name: forget_other_streams
-- Drop the marks of all streams of a host but one.
DELETE FROM feed_stream WHERE host = $1 AND stream <> $2;

-- name: forget_other_positions
-- Drop the positions of all streams of a host but one.
DELETE FROM feed_position WHERE host = $1 AND stream <> $2;

-- name: raise_epochs
-- All accounts of a host, or members of a host's rooms, start over: a new epoch, and no token is valid any more.
UPDATE account SET epoch = epoch + 1, version = greatest(version + 1, $2), floor = greatest(version + 1, $2)
WHERE jid IN (
    SELECT jid FROM account WHERE split_part(jid, '@', -1) = $1
        OR jid IN (SELECT account FROM room_member WHERE split_part(room, '@', -1) = $1)
    ORDER BY jid FOR UPDATE);

-- name: raise_epochs_of_room
-- All members of a room start over.
UPDATE account SET epoch = epoch + 1, version = greatest(version + 1, $2), floor = greatest(version + 1, $2)
WHERE jid IN (
    SELECT jid FROM account WHERE jid IN (SELECT account FROM room_member WHERE room = $1) ORDER BY jid FOR UPDATE);

-- name: acquire_lease
-- Take or renew a lease; a holder whose database session is gone holds nothing. $4: the session is the holder's own, and no
-- pooler's, which may end while the holder lives, and live when the holder is dead.
INSERT INTO lease (name, holder, generation, expires_at, backend_pid, backend_started_at)
SELECT $1, $2, 1, now() + $3::interval, pid, backend_start
FROM (SELECT $4::boolean AS own) AS session LEFT JOIN pg_stat_activity ON own AND pid = pg_backend_pid()
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at,
    backend_pid = excluded.backend_pid, backend_started_at = excluded.backend_started_at,
    generation = lease.generation + (lease.holder <> excluded.holder)::integer
WHERE lease.holder = excluded.holder OR lease.expires_at < now() OR lease.backend_pid IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_stat_activity WHERE pid = lease.backend_pid AND backend_start = lease.backend_started_at)
RETURNING generation;

-- name: release_lease
-- Give a lease back.
DELETE FROM lease WHERE name = $1 AND holder = $2;
