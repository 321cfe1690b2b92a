-- What an operator asks of one account: to see it, to count it anew, to hand it over. Of a list $2 are given (NULL = all),
-- and `total` says how many there are.

-- name: held_on
-- Is the address a room of this server, and is anything held on it as an account.
SELECT EXISTS (SELECT FROM room WHERE jid = $1) AS room,
    EXISTS (SELECT FROM account WHERE jid = $1)
    OR EXISTS (SELECT FROM conversation WHERE account = $1)
    OR EXISTS (SELECT FROM message WHERE account = $1)
    OR EXISTS (SELECT FROM change WHERE account = $1)
    OR EXISTS (SELECT FROM call WHERE account = $1)
    OR EXISTS (SELECT FROM device WHERE account = $1)
    OR EXISTS (SELECT FROM device_token WHERE account = $1)
    OR EXISTS (SELECT FROM push_job WHERE account = $1)
    OR EXISTS (SELECT FROM room_member WHERE account = $1)
    OR EXISTS (SELECT FROM bootstrap WHERE account = $1)
    OR EXISTS (SELECT FROM watcher WHERE account = $1)
    OR EXISTS (SELECT FROM quarantine WHERE account = $1) AS known;

-- name: show_account
-- The account itself.
SELECT jid, epoch, version, floor, unread, mentions, unread_conversations, devices, wakes_open, quiet, trim_at
FROM account WHERE jid = $1;

-- name: show_conversations
-- Conversations without their texts, the newest first.
SELECT peer, kind, status, version, activity, unread, mentions, marked_unread, pinned, muted_until, notify, ringing,
    read_rank, read_id, displayed_rank, displayed_id, delivered_rank, delivered_id, base_unread, base_mentions, base_rank,
    taken, last_rank, last_sent_at, last_message_id, last_archive_id, last_retracted, count(*) OVER () AS total
FROM conversation WHERE account = $1 ORDER BY activity DESC, peer, kind LIMIT $2::bigint;

-- name: show_calls
-- Calls, those that are open first, then the newest.
SELECT peer, session_id, state, media, caller, answered_by, proposed_at, rings_until, version, count(*) OVER () AS total
FROM call WHERE account = $1
ORDER BY state NOT IN ('ringing', 'outgoing', 'answered'), proposed_at DESC, peer, sid LIMIT $2::bigint;

-- name: show_devices
-- Devices without their tokens.
SELECT device_id, name, app, environment, enabled, voip_token IS NOT NULL AS voip, bound_to, registered_at, woken_version,
    woken_at, fetched_version, fetched_at, count(*) OVER () AS total
FROM device WHERE account = $1 ORDER BY registered_at DESC, device_id LIMIT $2::bigint;

-- name: show_jobs
-- Pushes that are due or under way, in the order in which they are due.
SELECT kind, lane, device_id, peer, sid, voip, state, version, created_at, not_before, deadline, attempts, attempted_at,
    count(*) OVER () AS total
FROM push_job WHERE account = $1 AND state <> 'done' ORDER BY not_before, job_id LIMIT $2::bigint;

-- name: show_ledger
-- What became of pushes, the newest first.
SELECT kind, lane, device_id, peer, sid, voip, version, created_at, attempts, attempted_at, outcome, reason,
    count(*) OVER () AS total
FROM push_job WHERE account = $1 AND state = 'done'
ORDER BY coalesce(attempted_at, created_at) DESC, job_id LIMIT $2::bigint;

-- name: explain_devices
-- The account's devices, or one of them.
SELECT * FROM device WHERE account = $1 AND ($2::text IS NULL OR device_id = $2) ORDER BY registered_at DESC, device_id;

-- name: explain_quiet
-- When the account wants to be left alone.
SELECT quiet FROM account WHERE jid = $1;

-- name: explain_jobs
-- Pushes of the account, or of one of its devices, that are open or were made or done since an instant, the newest first.
SELECT job, count(*) OVER () AS total FROM push_job job
WHERE account = $1 AND ($2::text IS NULL OR device_id = $2)
    AND (state <> 'done' OR greatest(created_at, attempted_at, done_at) >= $3)
ORDER BY created_at DESC, version DESC, not_before DESC, job_id LIMIT $4::bigint;

-- name: explain_calls
-- Calls that were proposed since an instant, the newest first.
SELECT call FROM call WHERE account = $1 AND proposed_at >= $2 ORDER BY proposed_at DESC, peer, sid LIMIT $3::bigint;

-- name: explain_messages
-- One-to-one messages that came in since a rank and count, the newest first.
SELECT * FROM message WHERE account = $1 AND kind <> 'group' AND rank >= $2 AND NOT outgoing AND counted
ORDER BY rank DESC LIMIT $3::bigint;

-- name: explain_conversations
-- Conversations in which something happened since an instant in microseconds.
SELECT * FROM conversation WHERE account = $1 AND (version >= $2 OR activity >= $2)
ORDER BY activity DESC, peer, kind LIMIT $3::bigint;

-- name: show_rooms
-- Rooms of this server that it belongs to, and those that it left a moment ago.
SELECT m.room, m.affiliation, m.present, m.nick, m.since, m.until,
    (SELECT r.destroyed FROM room r WHERE r.jid = m.room) AS destroyed, count(*) OVER () AS total
FROM room_member m WHERE m.account = $1 ORDER BY m.room LIMIT $2::bigint;

-- name: show_quarantine
-- Events of the account that were kept aside, without the events.
SELECT host, stream, shard, n, why, quarantined_at, count(*) OVER () AS total
FROM quarantine WHERE account = $1 ORDER BY quarantined_at DESC, n DESC LIMIT $2::bigint;

-- name: show_positions
-- How far the account's lane is in the streams of its host.
SELECT p.stream, p.shard, p.lane, p.n, s.committed, s.seen, count(*) OVER () AS total
FROM feed_position p LEFT JOIN feed_stream s USING (host, stream, shard)
WHERE p.host = $1 AND p.lane = $3::smallint ORDER BY s.seen DESC NULLS LAST, p.stream, p.shard LIMIT $2::bigint;

-- name: lock_account
-- Lock one account and read it.
SELECT jid, epoch, version, floor, unread, mentions, unread_conversations, devices, wakes_open, quiet
FROM account WHERE jid = $1 FOR UPDATE;

-- name: recount_devices
-- How many devices an account has.
SELECT count(*) FROM device WHERE account = $1;

-- name: recount
-- The counters of an account's conversations as stored, and as the index, the base and the calls make them. A room commits a
-- retraction before its members have it: for them such a message still counts.
SELECT c.peer, c.kind, c.version, c.unread, c.mentions, c.ringing,
    c.base_unread + found.unread AS unread_counted, c.base_mentions + found.mentions AS mentions_counted,
    (
        -- `|| ''` keeps the planner from the index of everything that rings
        SELECT count(*) FROM call WHERE (call.account, call.peer) = (c.account, c.peer) AND call.state || '' = 'ringing'
            AND call.kind = c.kind
    ) AS ringing_counted
FROM conversation c
CROSS JOIN LATERAL (
    SELECT count(*) AS unread, count(*) FILTER (WHERE counted.mention) AS mentions
    FROM (
        SELECT m.mention FROM message m
        WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind)
            AND m.rank > greatest(c.read_rank, c.base_rank) AND m.counted AND m.retracted IS NULL
        UNION ALL
        SELECT m.mention OR c.account = ANY (m.mentions) FROM message m
        WHERE c.kind = 'group' AND (m.account, m.peer, m.kind) = (c.peer, c.peer, 'group')
            AND m.rank > greatest(c.read_rank, c.base_rank) AND m.rank <= c.taken
            AND m.counted AND (m.retracted IS NULL OR m.retracted > c.taken)
            AND m.author IS DISTINCT FROM c.account
    ) AS counted
) AS found
WHERE c.account = $1 ORDER BY c.peer, c.kind;

-- name: repair_account
-- Store totals that were counted anew; the account is locked.
UPDATE account SET version = $2, unread = $3, mentions = $4, unread_conversations = $5, devices = $6 WHERE jid = $1;

-- name: repair_conversations
-- Store counters that were counted anew.
UPDATE conversation SET version = new.version, unread = new.unread, mentions = new.mentions, ringing = new.ringing
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::integer[], $6::integer[], $7::integer[])
    AS new(peer, kind, version, unread, mentions, ringing)
WHERE (conversation.account, conversation.peer, conversation.kind) = ($1, new.peer, new.kind);

-- name: export_account
-- The account itself, as JSON; likewise all that follow.
SELECT row_to_json(a)::text FROM account a WHERE jid = $1;

-- name: export_conversations
-- Conversations with the stanzas of their last messages.
SELECT row_to_json(c)::text FROM conversation c WHERE account = $1 ORDER BY peer, kind;

-- name: export_messages
-- The message index.
SELECT row_to_json(m)::text FROM message m WHERE account = $1 ORDER BY peer, kind, rank;

-- name: export_changes
-- The change log with its stanzas.
SELECT row_to_json(c)::text FROM change c WHERE account = $1 ORDER BY version;

-- name: export_calls
-- Calls with their proposals.
SELECT row_to_json(c)::text FROM call c WHERE account = $1 ORDER BY peer, sid;

-- name: export_devices
-- Devices; of what is secret only that it is there. A column that is not named here does not leave.
SELECT row_to_json(d)::text FROM (
    SELECT account, device_id, route, app, environment, 'sealed' AS alert_token, 'withheld' AS alert_digest,
        CASE WHEN voip_token IS NOT NULL THEN 'sealed' END AS voip_token,
        CASE WHEN voip_digest IS NOT NULL THEN 'withheld' END AS voip_digest,
        node, 'withheld' AS secret_digest, name, enabled, wishes, CASE WHEN push_key IS NOT NULL THEN 'sealed' END AS push_key,
        bound_to, registered_at, woken_version, woken_at, woken_until, chased, fetched_version, fetched_at, failures,
        failing_since
    FROM device WHERE account = $1 ORDER BY device_id
) AS d;

-- name: export_device_tokens
-- Which tokens are held by which device, without what the tokens are.
SELECT row_to_json(t)::text FROM (
    SELECT app, environment, 'withheld' AS digest, account, device_id FROM device_token WHERE account = $1
    ORDER BY device_id, app, environment
) AS t;

-- name: export_pushes
-- Pushes that are due, under way, or done.
SELECT row_to_json(j)::text FROM push_job j WHERE account = $1 ORDER BY job_id;

-- name: export_room_memberships
-- What it is to rooms of this server.
SELECT row_to_json(m)::text FROM room_member m WHERE account = $1 ORDER BY room;

-- name: export_room_messages
-- Its own messages in the index of rooms that it knows.
SELECT row_to_json(m)::text
FROM (
    SELECT room FROM room_member WHERE account = $1
    UNION SELECT peer FROM conversation WHERE account = $1 AND kind = 'group'
) AS known
JOIN message m ON (m.account, m.peer, m.kind) = (known.room, known.room, 'group')
WHERE m.author = $1 ORDER BY m.account, m.rank;

-- name: export_room_entries
-- What it did in those rooms, or what concerns it alone, while not every member has it.
SELECT row_to_json(e)::text FROM room_entry e
WHERE e.room = ANY (ARRAY(
    SELECT room FROM room_member WHERE account = $1
    UNION SELECT peer FROM conversation WHERE account = $1 AND kind = 'group'
)) AND (e.author = $1 OR e."only" = $1) ORDER BY e.room, e.rank;

-- name: export_bootstraps
-- How far its archive was read.
SELECT row_to_json(b)::text FROM bootstrap b WHERE account = $1;

-- name: export_watchers
-- Its sessions that are told of changes.
SELECT row_to_json(w)::text FROM watcher w WHERE account = $1 ORDER BY resource;

-- name: export_quarantine
-- Events of the account that were kept aside.
SELECT row_to_json(q)::text FROM quarantine q WHERE account = $1 ORDER BY quarantined_at, stream, n;
