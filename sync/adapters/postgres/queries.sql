-- The state of accounts: each statement has a name, one line of English, the text. All are PREPAREd in a test.
-- Batches come as parallel arrays, one for each column.

-- name: create_accounts
-- Make the accounts that do not exist yet; their archives are to be read. Tokens of an earlier account of that name are too
-- old for them.
WITH made AS (
    INSERT INTO account (jid, version, floor)
    SELECT jid, $2, $2 FROM unnest($1::text[]) AS new(jid) ORDER BY jid
    ON CONFLICT (jid) DO NOTHING RETURNING jid, version
)
INSERT INTO bootstrap (account, since, due_at)
SELECT jid, version, timestamptz 'epoch' + (version + 2000000) * interval '1 microsecond' FROM made ORDER BY jid
ON CONFLICT (account) DO NOTHING RETURNING account;

-- name: lock
-- Lock the lanes' positions, then rooms, then accounts: the one order that every writer keeps, in one round trip. A row for
-- each that is locked.
WITH positions AS MATERIALIZED (
    SELECT 1 AS held FROM feed_position
    WHERE (host, stream, shard, lane) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[]))
    ORDER BY host, stream, shard, lane FOR UPDATE
),
rooms AS MATERIALIZED (SELECT 1 AS held FROM room WHERE jid = ANY ($5::text[]) ORDER BY jid FOR UPDATE),
accounts AS MATERIALIZED (SELECT 1 AS held FROM account WHERE jid = ANY ($6::text[]) ORDER BY jid FOR UPDATE)
SELECT held FROM positions UNION ALL SELECT held FROM rooms UNION ALL SELECT held FROM accounts;

-- name: read_rows
-- Everything that a transaction reads after its locks, in one round trip: an array of rows for each table.
WITH locked AS MATERIALIZED (SELECT account FROM account WHERE jid = ANY ($28::text[])),
-- whose devices and jobs are read: of all, or of those that have devices
owners AS MATERIALIZED (
    SELECT ARRAY(
        SELECT (account).jid FROM locked WHERE $14 = 'all' OR $14 = 'some' AND (account).devices > 0
    ) AS jids
),
-- the calls by account and session id, and those with these peers that are open
sought AS MATERIALIZED (
    SELECT account, sid FROM unnest($4::text[], $5::text[]) AS named(account, sid)
    UNION
    SELECT call.account, call.sid FROM unnest($21::text[], $22::text[]) AS line(account, peer)
    JOIN call USING (account, peer) WHERE call.state IN ('ringing', 'outgoing', 'answered')
)
SELECT
    -- what is locked
    ARRAY(
        SELECT feed_position FROM feed_position
        WHERE (host, stream, shard, lane)
            IN (SELECT * FROM unnest($23::text[], $24::text[], $25::text[], $26::smallint[]))
    ) AS positions,
    ARRAY(SELECT room FROM room WHERE jid = ANY ($27::text[])) AS rooms,
    ARRAY(SELECT account FROM locked) AS accounts,
    -- the conversations by key, and those of the calls
    ARRAY(
        SELECT c FROM (
            SELECT account, peer, kind FROM unnest($1::text[], $2::text[], $3::text[]) AS named(account, peer, kind)
            UNION
            SELECT call.account, call.peer, call.kind FROM sought JOIN call USING (account, sid)
        ) AS wanted JOIN conversation c USING (account, peer, kind)
    ) AS conversations,
    ARRAY(SELECT call FROM sought JOIN call USING (account, sid)) AS calls,
    -- messages by any of their ids, and by archive id alone, with those that they are about; one may come more than once
    ARRAY(
        WITH found AS (
            SELECT m FROM unnest($6::text[], $7::text[], $8::text[], $9::text[]) AS wanted(account, peer, kind, key)
            JOIN message m
            ON (m.account, m.peer, m.kind, m.message_key) = (wanted.account, wanted.peer, wanted.kind, wanted.key)
            UNION ALL
            SELECT m FROM unnest($6::text[], $7::text[], $8::text[], $9::text[]) AS wanted(account, peer, kind, key)
            JOIN message m
            ON (m.account, m.peer, m.kind, m.origin_key) = (wanted.account, wanted.peer, wanted.kind, wanted.key)
            UNION ALL
            SELECT m FROM (
                SELECT * FROM unnest($6::text[], $7::text[], $8::text[], $9::text[])
                UNION ALL
                SELECT * FROM unnest($10::text[], $11::text[], $12::text[], $13::text[])
            ) AS wanted(account, peer, kind, key)
            JOIN message m ON (m.account, m.archive_key) = (wanted.account, wanted.key)
            WHERE (m.peer, m.kind) = (wanted.peer, wanted.kind)
        )
        SELECT m FROM found
        UNION ALL
        SELECT original FROM found JOIN message original
        ON (original.account, original.peer, original.kind, original.rank)
            = ((m).account, (m).peer, (m).kind, (m).about)
        WHERE (m).about IS NOT NULL
    ) AS messages,
    -- the accounts' devices
    ARRAY(SELECT device FROM device WHERE account = ANY ((SELECT jids FROM owners)::text[])) AS devices,
    -- the accounts' open jobs, and all jobs of the calls; likewise
    ARRAY(
        SELECT job FROM push_job job WHERE account = ANY ((SELECT jids FROM owners)::text[]) AND state <> 'done'
        UNION ALL
        SELECT job FROM sought JOIN push_job job USING (account, sid)
        WHERE job.sid IS NOT NULL AND job.state = 'done' AND account = ANY ((SELECT jids FROM owners)::text[])
    ) AS jobs,
    -- members of rooms by account, by the nickname of those who still belong, and by occupant id; likewise
    ARRAY(
        SELECT m FROM unnest($15::text[], $16::text[]) AS wanted(room, account) JOIN room_member m USING (room, account)
        UNION ALL
        SELECT m FROM unnest($17::text[], $18::text[]) AS wanted(room, nick_key)
        JOIN room_member m USING (room, nick_key) WHERE m.until IS NULL
        UNION ALL
        SELECT m FROM unnest($19::text[], $20::text[]) AS wanted(room, occupant_id)
        JOIN room_member m USING (room, occupant_id) WHERE m.occupant_id IS NOT NULL
    ) AS members;

-- name: read_behind
-- What is unread behind a rank: the counters, less the base and the index rows up to there. The rows behind it, as many as
-- they may be, are not looked at. A room's own index counts for its members, but for their own messages.
SELECT wanted.account, wanted.peer, wanted.kind, wanted.rank,
    c.unread - CASE WHEN wanted.rank >= c.base_rank THEN c.base_unread ELSE 0 END - newly.unread AS unread,
    c.mentions - CASE WHEN wanted.rank >= c.base_rank THEN c.base_mentions ELSE 0 END - newly.mentions AS mentions,
    newly.first
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS wanted(account, peer, kind, rank)
JOIN conversation c USING (account, peer, kind)
CROSS JOIN LATERAL (
    SELECT count(*) AS unread, count(*) FILTER (WHERE found.mention) AS mentions, min(found.rank) AS first
    FROM (
        SELECT m.rank, m.mention FROM message m
        WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind)
            AND m.rank > greatest(c.read_rank, c.base_rank) AND m.rank <= wanted.rank AND m.counted AND m.retracted IS NULL
        UNION ALL
        SELECT m.rank, m.mention OR c.account = ANY (m.mentions) FROM message m
        WHERE c.kind = 'group' AND (m.account, m.peer, m.kind) = (c.peer, c.peer, 'group')
            AND m.rank > greatest(c.read_rank, c.base_rank) AND m.rank <= least(wanted.rank, c.taken)
            AND m.counted AND (m.retracted IS NULL OR m.retracted > c.taken)
            AND m.author IS DISTINCT FROM c.account
    ) AS found
) AS newly;

-- name: read_places
-- Messages by their ranks.
SELECT m.* FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS wanted(account, peer, kind, rank)
JOIN message m USING (account, peer, kind, rank);

-- name: were_apart
-- Whether any account has encrypted chats apart from plain ones.
SELECT EXISTS (SELECT FROM conversation WHERE kind NOT IN ('chat', 'group'));

-- name: write_accounts
-- Store accounts that are locked already.
UPDATE account SET epoch = new.epoch, version = new.version, floor = new.floor, unread = new.unread,
    mentions = new.mentions, unread_conversations = new.unread_conversations, devices = new.devices,
    wakes_open = new.wakes_open, quiet = new.quiet
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::integer[], $6::integer[], $7::integer[],
    $8::integer[], $9::boolean[], $10::jsonb[])
    AS new(jid, epoch, version, floor, unread, mentions, unread_conversations, devices, wakes_open, quiet)
WHERE account.jid = new.jid;

-- name: write_conversations
-- Store conversations, new or changed.
INSERT INTO conversation (account, peer, kind, version, activity, status, pinned, muted_until, notify, read_rank,
    read_id, displayed_rank, displayed_id, delivered_rank, delivered_id, unread, mentions, base_unread, base_mentions,
    base_rank, marked_unread, ringing, rewritten, log_from, written, requests_presence, request_told_at, invited_by,
    private, nick, taken, last_rank, last_stanza, last_message_id, last_archive_id, last_sent_at, last_retracted)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[],
    $8::timestamptz[], $9::text[], $10::bigint[], $11::text[], $12::bigint[], $13::text[], $14::bigint[], $15::text[],
    $16::integer[], $17::integer[], $18::integer[], $19::integer[], $20::bigint[], $21::boolean[], $22::integer[],
    $23::bigint[], $24::bigint[], $25::boolean[], $26::boolean[], $27::timestamptz[], $28::text[], $29::boolean[],
    $30::text[], $31::bigint[], $32::bigint[], $33::text[], $34::text[], $35::text[], $36::timestamptz[], $37::boolean[])
ON CONFLICT (account, peer, kind) DO UPDATE SET version = excluded.version, activity = excluded.activity,
    status = excluded.status, pinned = excluded.pinned, muted_until = excluded.muted_until, notify = excluded.notify,
    read_rank = excluded.read_rank, read_id = excluded.read_id, displayed_rank = excluded.displayed_rank,
    displayed_id = excluded.displayed_id, delivered_rank = excluded.delivered_rank,
    delivered_id = excluded.delivered_id, unread = excluded.unread, mentions = excluded.mentions,
    base_unread = excluded.base_unread, base_mentions = excluded.base_mentions, base_rank = excluded.base_rank,
    marked_unread = excluded.marked_unread, ringing = excluded.ringing, rewritten = excluded.rewritten,
    log_from = excluded.log_from, written = excluded.written, requests_presence = excluded.requests_presence,
    request_told_at = excluded.request_told_at, invited_by = excluded.invited_by, private = excluded.private,
    nick = excluded.nick, taken = excluded.taken, last_rank = excluded.last_rank, last_stanza = excluded.last_stanza,
    last_message_id = excluded.last_message_id, last_archive_id = excluded.last_archive_id,
    last_sent_at = excluded.last_sent_at, last_retracted = excluded.last_retracted;

-- name: write_messages
-- Store entries of the message index; of a known one only `retracted` can have changed.
INSERT INTO message (account, peer, kind, rank, outgoing, counted, mention, retracted, sent_at, message_key, origin_key,
    archive_key, archive_id, about, author, mentions)
SELECT account, peer, kind, rank, outgoing, counted, mention, retracted, sent_at, message_key, origin_key,
    archive_key, archive_id, about, author, string_to_array(mentions, ' ')
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::boolean[], $6::boolean[], $7::boolean[],
    $8::bigint[], $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::text[],
    $16::text[])
    AS new(account, peer, kind, rank, outgoing, counted, mention, retracted, sent_at, message_key, origin_key,
        archive_key, archive_id, about, author, mentions)
ON CONFLICT (account, peer, kind, rank) DO UPDATE SET retracted = excluded.retracted;

-- name: write_changes
-- Add to the change log.
INSERT INTO change (account, version, peer, kind, what, target_rank, target_id, author, detail, stanza)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[],
    $9::text[], $10::text[]);

-- name: erase_changes
-- Forget the texts of corrections whose message was retracted.
UPDATE change SET stanza = NULL
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS gone(account, peer, kind, target_rank)
WHERE (change.account, change.peer, change.kind, change.target_rank)
    = (gone.account, gone.peer, gone.kind, gone.target_rank) AND change.stanza IS NOT NULL;

-- name: write_calls
-- Store calls, new or changed.
INSERT INTO call (account, peer, sid, session_id, state, version, proposed_at, rings_until, caller, media, answered_by,
    continues, archive_id, stanza, kind)
SELECT account, peer, sid, session_id, state, version, proposed_at, rings_until, caller, string_to_array(media, ' '),
    answered_by, continues, archive_id, stanza, kind
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[],
    $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
    $15::text[])
    AS new(account, peer, sid, session_id, state, version, proposed_at, rings_until, caller, media, answered_by,
        continues, archive_id, stanza, kind)
ON CONFLICT (account, peer, sid) DO UPDATE SET state = excluded.state, version = excluded.version,
    answered_by = excluded.answered_by, continues = excluded.continues;

-- name: write_devices
-- Store devices, new or changed.
INSERT INTO device (account, device_id, app, environment, alert_token, alert_digest, voip_token, voip_digest, node,
    secret_digest, name, enabled, bound_to, registered_at, woken_version, woken_at, fetched_version, fetched_at, wishes,
    push_key, route, failures, failing_since, woken_until, chased)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[],
    $9::text[], $10::bytea[], $11::text[], $12::boolean[], $13::text[], $14::timestamptz[], $15::bigint[],
    $16::timestamptz[], $17::bigint[], $18::timestamptz[], $19::jsonb[], $20::bytea[],
    $21::text[], $22::integer[], $23::timestamptz[], $24::timestamptz[], $25::smallint[])
ON CONFLICT (account, device_id) DO UPDATE SET app = excluded.app, environment = excluded.environment,
    alert_token = excluded.alert_token, alert_digest = excluded.alert_digest, voip_token = excluded.voip_token,
    voip_digest = excluded.voip_digest, node = excluded.node, secret_digest = excluded.secret_digest,
    name = excluded.name, enabled = excluded.enabled, bound_to = excluded.bound_to,
    registered_at = excluded.registered_at, woken_version = excluded.woken_version, woken_at = excluded.woken_at,
    fetched_version = excluded.fetched_version, fetched_at = excluded.fetched_at, wishes = excluded.wishes,
    push_key = excluded.push_key, route = excluded.route, failures = excluded.failures,
    failing_since = excluded.failing_since, woken_until = excluded.woken_until, chased = excluded.chased;

-- name: touch_devices
-- What a push or a fetch leaves at devices.
UPDATE device SET bound_to = new.bound_to, woken_version = new.woken_version, woken_at = new.woken_at,
    woken_until = new.woken_until, chased = new.chased, fetched_version = new.fetched_version,
    fetched_at = new.fetched_at, failures = new.failures, failing_since = new.failing_since
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[], $7::smallint[],
    $8::bigint[], $9::timestamptz[], $10::integer[], $11::timestamptz[])
    AS new(account, device_id, bound_to, woken_version, woken_at, woken_until, chased, fetched_version, fetched_at,
        failures, failing_since)
WHERE (device.account, device.device_id) = (new.account, new.device_id);

-- name: drop_tokens
-- Forget which tokens these devices hold.
DELETE FROM device_token USING unnest($1::text[], $2::text[]) AS gone(account, device_id)
WHERE (device_token.account, device_token.device_id) = (gone.account, gone.device_id);

-- name: claim_tokens
-- The tokens belong to these devices from now on, but for those that somebody else holds.
INSERT INTO device_token (app, environment, digest, account, device_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[])
ON CONFLICT (app, environment, digest) DO NOTHING RETURNING digest;

-- name: delete_devices
-- Remove devices.
DELETE FROM device USING unnest($1::text[], $2::text[]) AS gone(account, device_id)
WHERE (device.account, device.device_id) = (gone.account, gone.device_id);

-- name: write_jobs
-- Store push jobs, new or changed.
INSERT INTO push_job (account, job_id, device_id, lane, kind, version, peer, about, sid, voip, silent, collapse,
    target_rank, created_at, not_before, deadline, state, attempts, repeat, attempted_at, outcome, reason, joined, status,
    done_at, queue)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::smallint[], $5::text[], $6::bigint[], $7::text[],
    $8::text[], $9::text[], $10::boolean[], $11::boolean[], $12::text[], $13::bigint[], $14::timestamptz[],
    $15::timestamptz[], $16::timestamptz[], $17::text[], $18::integer[], $19::integer[], $20::timestamptz[],
    $21::text[], $22::text[], $23::integer[], $24::smallint[], $25::timestamptz[], $26::text[])
ON CONFLICT (account, job_id) DO UPDATE SET version = excluded.version, peer = excluded.peer,
    about = excluded.about, silent = excluded.silent, collapse = excluded.collapse,
    target_rank = excluded.target_rank, not_before = excluded.not_before, deadline = excluded.deadline,
    state = excluded.state, attempts = excluded.attempts, repeat = excluded.repeat,
    attempted_at = excluded.attempted_at, outcome = excluded.outcome, reason = excluded.reason,
    joined = excluded.joined, status = excluded.status, done_at = excluded.done_at, created_at = excluded.created_at;

-- name: write_positions
-- Move the lanes' positions.
INSERT INTO feed_position (host, stream, shard, lane, n)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::bigint[])
ON CONFLICT (host, stream, shard, lane) DO UPDATE SET n = greatest(feed_position.n, excluded.n);

-- name: create_positions
-- Begin lanes at zero: a row that is not there cannot be locked.
INSERT INTO feed_position (host, stream, shard, lane, n)
SELECT *, 0 FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[]) AS new(host, stream, shard, lane)
ORDER BY host, stream, shard, lane ON CONFLICT DO NOTHING;

-- name: write_quarantine
-- Keep events aside that cannot be committed.
INSERT INTO quarantine (host, stream, shard, n, account, why, event)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[])
ON CONFLICT (host, stream, shard, n) DO NOTHING;

-- name: read_accounts
-- Accounts by primary key: those that several questions are about.
SELECT a.* FROM unnest($1::text[]) AS wanted(jid) JOIN account a USING (jid);

-- name: rewrites
-- Corrections and retractions since a version, oldest first, with the account's newest version.
SELECT a.version AS newest, EXISTS (
        SELECT FROM conversation c
        WHERE c.account = a.jid AND c.version > $2 AND c.rewritten > $2 AND c.log_from > $2
    ) AS torn, found.*
FROM account a
LEFT JOIN LATERAL (
    SELECT * FROM change
    WHERE change.account = a.jid AND change.version > $2 AND change.what IN ('corrected', 'retracted', 'moderated')
    ORDER BY change.version LIMIT $3
) AS found ON true
WHERE a.jid = $1 ORDER BY found.version;

-- name: torn_conversations
-- The conversations with corrections and retractions since a version of which the log may not have all any more.
SELECT peer, kind, rewritten AS version
FROM conversation WHERE account = $1 AND version > $2 AND rewritten > $2 AND log_from > $2 ORDER BY rewritten;

-- name: rewritten_conversations
-- The conversations with corrections and retractions since a version, with the newest of them.
SELECT peer, kind, max(version) AS version
FROM change
WHERE account = $1 AND version > $2 AND version <= $3 AND what IN ('corrected', 'retracted', 'moderated')
GROUP BY peer, kind ORDER BY max(version);

-- name: changes
-- The change log of one conversation since a version, oldest first, with the version from which on it is whole. Where its
-- texts are more than an answer takes none is brought.
SELECT c.version AS newest, c.log_from, found.account, found.peer, found.kind, found.version, found.what,
    found.target_rank, found.target_id, found.author, found.detail,
    CASE WHEN found.size <= $6::bigint THEN found.stanza END AS stanza, found.size > $6::bigint AS large
FROM conversation c
LEFT JOIN LATERAL (
    SELECT log.*, sum(octet_length(log.stanza)) OVER () AS size FROM (
        SELECT * FROM change
        WHERE (change.account, change.peer, change.kind) = (c.account, c.peer, c.kind) AND change.version > $4
        ORDER BY change.version LIMIT $5
    ) AS log
) AS found ON true
WHERE (c.account, c.peer, c.kind) = ($1, $2, $3) ORDER BY found.version;

-- name: expired_calls
-- Calls that still count as ringing after their deadline, and those of which nobody has said for so long that they are over.
SELECT account, peer, sid FROM (
    (SELECT account, peer, sid, rings_until AS over_at FROM call
    WHERE state = 'ringing' AND rings_until <= $1::timestamptz ORDER BY rings_until LIMIT $2::bigint)
    UNION ALL
    (SELECT account, peer, sid, proposed_at + $3::interval FROM call
    WHERE state IN ('outgoing', 'answered') AND proposed_at <= $1 - $3 ORDER BY proposed_at LIMIT $2)
) AS due ORDER BY over_at LIMIT $2;
