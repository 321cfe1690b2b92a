-- Which archives are still to be read, and how far.

-- name: due_bootstraps
-- Rows of these hosts that wait and are due, the longest due first. None waits for an hour: what is due later than that was
-- written before the clock was set back.
SELECT due.* FROM unnest($1::text[]) AS wanted(host)
CROSS JOIN LATERAL (
    SELECT * FROM bootstrap b WHERE b.host = wanted.host AND b.state = 'waiting'
        AND (b.due_at <= $2 OR b.due_at > $2 + interval '1 hour')
    ORDER BY b.due_at LIMIT $3
) AS due
ORDER BY due.due_at LIMIT $3;

-- name: move_bootstraps
-- Store rows, but for those that were asked for anew. An index that has grown by much has its turn to be trimmed.
WITH new AS (
    SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::integer[],
        $8::integer[], $9::integer[], $10::timestamptz[], $11::text[])
        AS new(account, turn, state, start, after, rank, seen, restored, attempts, due_at, why)
),
grown AS (
    UPDATE account SET trim_at = least(trim_at, now()) FROM new JOIN bootstrap old USING (account)
    WHERE account.jid = new.account AND new.restored / 2000 > old.restored / 2000
)
UPDATE bootstrap b SET state = new.state, start = new.start, after = new.after, rank = new.rank, seen = new.seen,
    restored = new.restored, attempts = new.attempts, due_at = new.due_at, why = new.why
FROM new WHERE b.account = new.account AND b.turn = new.turn;

-- name: ask_bootstraps
-- Read these archives from the beginning.
UPDATE bootstrap SET state = 'waiting', start = 0, after = NULL, rank = 0, seen = 0, turn = turn + 1, attempts = 0,
    due_at = $2, why = NULL
WHERE account = ANY ($1::text[]) RETURNING account;

-- name: ask_hosts
-- List the accounts of these hosts.
INSERT INTO bootstrap (account, since, due_at)
SELECT host, $2::bigint, $3::timestamptz FROM unnest($1::text[]) AS new(host)
ON CONFLICT (account) DO UPDATE SET state = 'waiting', start = 0, after = NULL, rank = 0, seen = 0, restored = 0,
    turn = bootstrap.turn + 1, attempts = 0, due_at = excluded.due_at, why = NULL
RETURNING account;

-- name: read_again
-- A host has lost events, or a room: the archives of its accounts and rooms are read again, from the last time that is good,
-- with five minutes to spare. Those under way, and those that failed, go on where they were if that is further back.
UPDATE bootstrap b SET state = 'waiting', after = NULL, rank = 0, seen = 0, turn = turn + 1, attempts = 0, why = NULL,
    due_at = timestamptz 'epoch' + ($2::bigint + 2000000) * interval '1 microsecond',
    start = least(
        CASE WHEN b.state <> 'done' THEN CASE WHEN b.rank > 0 THEN b.rank ELSE b.start END END,
        greatest(coalesce(nullif(good.at, 0), b.since) - 300000000, 1))
FROM (SELECT max(good) AS at FROM feed_stream WHERE host = split_part($1, '@', -1)) AS good
WHERE b.host = split_part($1, '@', -1)
    AND (b.account = $1 OR strpos($1, '@') = 0 AND strpos(b.account, '@') > 0);

-- name: count_bootstraps
-- How many archives of these hosts there are in each state.
SELECT state, count(*) AS rows FROM bootstrap WHERE host = ANY ($1::text[]) AND account <> host GROUP BY state;

-- name: watch_bootstraps
-- The archives that were asked for, or all of some hosts, as they stand: those that wait or failed first.
SELECT * FROM bootstrap WHERE account = ANY ($1::text[]) OR host = ANY ($2::text[])
ORDER BY state = 'done', state, account LIMIT $3;

-- name: count_bootstraps_of
-- Of those: how many in each state, and how many messages were new.
SELECT state, count(*) AS rows, sum(restored) AS restored FROM bootstrap
WHERE account = ANY ($1::text[]) OR host = ANY ($2::text[]) GROUP BY state;
