-- What need not be held any longer: whose turn it is, what is too much of it, and that it goes. What is too much is found
-- without a lock, which holds as long as time goes forward: rows come at the new end only. It goes under the account's lock.
-- A statement takes the oldest rows of each conversation first, no more than its last parameter says.

-- name: account_to_trim
-- The account whose turn was first, unless somebody is busy with it.
SELECT jid FROM account WHERE trim_at <= $1 ORDER BY trim_at LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: room_to_trim
-- The room whose turn was first, likewise.
SELECT jid FROM room WHERE trim_at <= $1 ORDER BY trim_at LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: postpone_account
-- An account has its next turn then.
UPDATE account SET trim_at = $2 WHERE jid = $1;

-- name: postpone_room
-- A room has its next turn then.
UPDATE room SET trim_at = $2 WHERE jid = $1;

-- name: hold_accounts
-- Lock accounts.
SELECT jid FROM account WHERE jid = ANY ($1::text[]) ORDER BY jid FOR UPDATE;

-- name: hold_room
-- Lock a room.
SELECT jid FROM room WHERE jid = $1 FOR UPDATE;

-- name: too_much
-- An account's conversations in order, with what goes: messages and changes up to a rank, all of it, or its hold on a room.
SELECT c.peer, c.kind,
    CASE WHEN oldest.rank <= greatest(most.rank, least($5, kept.rank)) THEN greatest(most.rank, least($5, kept.rank)) END
        AS messages,
    CASE WHEN first.version <= greatest(log.version, $8) THEN greatest(log.version, $8) END AS changes,
    c.status = 'deleted' AND c.version <= $9 AS dead,
    c.taken > 0 AND c.unread > c.base_unread AND NOT EXISTS (
        SELECT FROM room_member WHERE (room_member.room, room_member.account) = (c.peer, c.account)) AS stranded
FROM (
    SELECT * FROM conversation WHERE account = $1 AND (peer, kind) > ($2, $3) ORDER BY peer, kind LIMIT $4
) AS c
LEFT JOIN LATERAL (
    SELECT m.rank FROM message m WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind)
    ORDER BY m.rank DESC OFFSET $6 LIMIT 1
) AS kept ON true
LEFT JOIN LATERAL (
    SELECT m.rank FROM message m WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind)
    ORDER BY m.rank DESC OFFSET $7 LIMIT 1
) AS most ON kept.rank IS NOT NULL
LEFT JOIN LATERAL (
    SELECT m.rank FROM message m WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind)
    ORDER BY m.rank LIMIT 1
) AS oldest ON kept.rank IS NOT NULL
LEFT JOIN LATERAL (
    SELECT h.version FROM change h WHERE (h.account, h.peer, h.kind) = (c.account, c.peer, c.kind)
    ORDER BY h.version LIMIT 1
) AS first ON true
LEFT JOIN LATERAL (
    SELECT h.version FROM change h WHERE (h.account, h.peer, h.kind) = (c.account, c.peer, c.kind)
    ORDER BY h.version DESC OFFSET $10 LIMIT 1
) AS log ON first.version IS NOT NULL
ORDER BY c.peer, c.kind;

-- name: trim_messages
-- Drop messages up to a rank, by conversation; what was unread among them moves into the base. The last message stays.
WITH doomed AS MATERIALIZED (
    SELECT c.peer, c.kind, m.place, m.rank, m.unread, m.unread AND m.mention AS mention
    FROM unnest($2::text[], $3::text[], $4::bigint[]) AS wanted(peer, kind, rank)
    JOIN conversation c ON (c.account, c.peer, c.kind) = ($1, wanted.peer, wanted.kind)
    CROSS JOIN LATERAL (
        SELECT m.ctid AS place, m.rank, m.mention,
            m.counted AND m.retracted IS NULL AND m.rank > greatest(c.read_rank, c.base_rank) AS unread
        FROM message m
        WHERE (m.account, m.peer, m.kind) = (c.account, c.peer, c.kind) AND m.rank <= wanted.rank
            -- what is behind the last message and does not count, as reactions, may go without it
            AND (c.last_rank IS NULL OR m.rank < c.last_rank OR m.rank > c.last_rank AND NOT m.counted)
        ORDER BY m.rank LIMIT $5
    ) AS m
),
gone AS (DELETE FROM message WHERE ctid = ANY (ARRAY(SELECT place FROM doomed))),
tally AS (
    SELECT peer, kind, count(*) AS rows, count(*) FILTER (WHERE unread) AS unread,
        count(*) FILTER (WHERE mention) AS mentions, max(rank) FILTER (WHERE unread) AS rank
    FROM doomed GROUP BY peer, kind
),
moved AS (
    UPDATE conversation c SET base_unread = c.base_unread + tally.unread, base_mentions = c.base_mentions + tally.mentions,
        base_rank = greatest(c.base_rank, tally.rank)
    FROM tally WHERE (c.account, c.peer, c.kind) = ($1, tally.peer, tally.kind) AND tally.unread > 0
)
SELECT peer, kind, rows FROM tally;

-- name: trim_changes
-- Drop entries of the change log up to a version, by conversation, and remember from where on it is whole.
WITH doomed AS MATERIALIZED (
    SELECT wanted.peer, wanted.kind, h.place, h.version
    FROM unnest($2::text[], $3::text[], $4::bigint[]) AS wanted(peer, kind, version)
    CROSS JOIN LATERAL (
        SELECT h.ctid AS place, h.version FROM change h
        WHERE (h.account, h.peer, h.kind) = ($1, wanted.peer, wanted.kind) AND h.version <= wanted.version
        ORDER BY h.version LIMIT $5
    ) AS h
),
gone AS (DELETE FROM change WHERE ctid = ANY (ARRAY(SELECT place FROM doomed))),
tally AS (SELECT peer, kind, count(*) AS rows, max(version) AS version FROM doomed GROUP BY peer, kind),
told AS (
    UPDATE conversation c SET log_from = greatest(c.log_from, tally.version)
    FROM tally WHERE (c.account, c.peer, c.kind) = ($1, tally.peer, tally.kind)
)
SELECT peer, kind, rows FROM tally;

-- name: bury
-- Drop tombstones with what belongs to them. Whoever has an older token starts over. Members of a room keep theirs: it
-- says what they had read.
WITH dead AS MATERIALIZED (
    SELECT c.account, c.peer, c.kind FROM unnest($2::text[], $3::text[]) AS wanted(peer, kind)
    JOIN conversation c ON (c.account, c.peer, c.kind) = ($1, wanted.peer, wanted.kind)
    WHERE c.status = 'deleted' AND c.version <= $4 AND c.unread = 0 AND c.ringing = 0 AND NOT EXISTS (
        SELECT FROM room_member WHERE (room_member.room, room_member.account) = (c.peer, c.account))
),
old_messages AS MATERIALIZED (
    SELECT dead.peer, dead.kind, m.place FROM dead CROSS JOIN LATERAL (
        SELECT m.ctid AS place FROM message m
        WHERE (m.account, m.peer, m.kind) = (dead.account, dead.peer, dead.kind) LIMIT $5
    ) AS m
),
old_changes AS MATERIALIZED (
    SELECT dead.peer, dead.kind, h.place FROM dead CROSS JOIN LATERAL (
        SELECT h.ctid AS place FROM change h
        WHERE (h.account, h.peer, h.kind) = (dead.account, dead.peer, dead.kind) LIMIT $5
    ) AS h
),
more AS MATERIALIZED (
    SELECT peer, kind FROM old_messages GROUP BY peer, kind HAVING count(*) = $5
    UNION ALL
    SELECT peer, kind FROM old_changes GROUP BY peer, kind HAVING count(*) = $5
),
gone_messages AS (DELETE FROM message WHERE ctid = ANY (ARRAY(SELECT place FROM old_messages)) RETURNING 1),
gone_changes AS (DELETE FROM change WHERE ctid = ANY (ARRAY(SELECT place FROM old_changes)) RETURNING 1),
gone AS (
    DELETE FROM conversation c USING dead
    WHERE (c.account, c.peer, c.kind) = (dead.account, dead.peer, dead.kind)
        AND NOT EXISTS (SELECT FROM more WHERE (more.peer, more.kind) = (dead.peer, dead.kind))
    RETURNING c.version
),
raised AS (
    UPDATE account SET floor = greatest(floor, (SELECT max(version) FROM gone))
    WHERE jid = $1 AND EXISTS (SELECT FROM gone)
)
SELECT (SELECT count(*) FROM gone_messages) AS message, (SELECT count(*) FROM gone_changes) AS change,
    (SELECT count(*) FROM gone) AS conversation, ARRAY(SELECT peer FROM more) AS peers, ARRAY(SELECT kind FROM more) AS kinds;

-- name: settle
-- Whoever left a room counts what was unread then, though its index go on without it.
WITH tally AS MATERIALIZED (
    SELECT c.peer, c.kind, coalesce(newest.rank, c.taken) AS rank
    FROM unnest($2::text[], $3::text[]) AS wanted(peer, kind)
    JOIN conversation c ON (c.account, c.peer, c.kind) = ($1, wanted.peer, wanted.kind)
    LEFT JOIN LATERAL (
        SELECT m.rank FROM message m
        WHERE (m.account, m.peer, m.kind) = (c.peer, c.peer, 'group')
            AND m.rank > greatest(c.read_rank, c.base_rank) AND m.rank <= c.taken
            AND m.counted AND (m.retracted IS NULL OR m.retracted > c.taken)
            AND m.author IS DISTINCT FROM c.account
        ORDER BY m.rank DESC LIMIT 1
    ) AS newest ON true
    WHERE c.taken > c.read_rank AND c.unread > c.base_unread AND NOT EXISTS (
        SELECT FROM room_member WHERE (room_member.room, room_member.account) = (c.peer, c.account))
)
UPDATE conversation c SET base_unread = c.unread, base_mentions = c.mentions,
    base_rank = greatest(c.base_rank, tally.rank)
FROM tally WHERE (c.account, c.peer, c.kind) = ($1, tally.peer, tally.kind);

-- name: anything_old
-- Whether an account has calls or pushes that are over since long ago.
SELECT EXISTS (
        SELECT FROM call WHERE account = $1 AND state <> ALL ($2::text[]) AND version <= $3
    ) OR EXISTS (
        SELECT FROM push_job WHERE account = $1 AND state = 'done' AND greatest(created_at, not_before, attempted_at) <= $4
    );

-- name: trim_calls
-- Drop calls that ended long ago. Whoever has an older token starts over.
WITH gone AS (
    DELETE FROM call WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM call WHERE account = $1 AND state <> ALL ($2::text[]) AND version <= $3 ORDER BY version LIMIT $4))
    RETURNING version
),
raised AS (
    UPDATE account SET floor = greatest(floor, (SELECT max(version) FROM gone))
    WHERE jid = $1 AND EXISTS (SELECT FROM gone)
)
SELECT count(*) FROM gone;

-- name: trim_jobs
-- Drop pushes that were done long ago.
WITH gone AS (
    DELETE FROM push_job WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM push_job
        WHERE account = $1 AND state = 'done' AND greatest(created_at, not_before, attempted_at) <= $2 LIMIT $3))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: too_much_of_room
-- Up to which rank the messages of a room go: what every member has taken, and not its last message. NULL = none.
SELECT CASE WHEN oldest.rank <= upto.rank THEN upto.rank END AS rank, coalesce(last.rank, upto.rank + 1) AS last
FROM room
LEFT JOIN LATERAL (
    SELECT m.rank FROM message m WHERE (m.account, m.peer, m.kind) = (room.jid, room.jid, 'group')
    ORDER BY m.rank DESC OFFSET $3 LIMIT 1
) AS kept ON true
LEFT JOIN LATERAL (
    SELECT m.rank FROM message m WHERE (m.account, m.peer, m.kind) = (room.jid, room.jid, 'group')
    ORDER BY m.rank DESC OFFSET $4 LIMIT 1
) AS most ON true
LEFT JOIN LATERAL (
    SELECT m.rank FROM message m WHERE (m.account, m.peer, m.kind) = (room.jid, room.jid, 'group')
    ORDER BY m.rank LIMIT 1
) AS oldest ON true
LEFT JOIN LATERAL (
    SELECT m.rank FROM message m WHERE (m.account, m.peer, m.kind) = (room.jid, room.jid, 'group')
    ORDER BY m.rank OFFSET $5 LIMIT 1
) AS enough ON true
LEFT JOIN LATERAL (
    SELECT m.rank FROM message m WHERE (m.account, m.peer, m.kind) = (room.jid, room.jid, 'group') AND m.counted
    ORDER BY m.rank DESC LIMIT 1
) AS last ON true
CROSS JOIN LATERAL (
    SELECT CASE WHEN kept.rank IS NOT NULL
        THEN least(greatest(most.rank, least($2, kept.rank)), enough.rank, room.fanned) END AS rank
) AS upto
WHERE room.jid = $1;

-- name: members_behind
-- Members of a room in order who have unread messages up to a rank that are not in their base yet.
SELECT m.account FROM room_member m
CROSS JOIN LATERAL (
    -- LIMIT keeps the planner from looking for the room among all accounts' conversations
    SELECT * FROM conversation
    WHERE (conversation.account, conversation.peer, conversation.kind) = (m.account, m.room, 'group') LIMIT 1
) AS c
WHERE m.room = $1 AND m.account > $2 AND greatest(c.read_rank, c.base_rank) < $3 AND c.unread > c.base_unread
ORDER BY m.account LIMIT $4;

-- name: move_into_base
-- What these members have unread of a room up to a rank moves into their base; not while anything that happened to those
-- messages is on its way to the members.
WITH on_its_way AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM room_entry WHERE room = $1 AND target_rank <= $2) AS anything
),
tally AS MATERIALIZED (
    SELECT c.account, c.peer, c.kind, found.* FROM on_its_way
    CROSS JOIN unnest($3::text[]) AS wanted(account)
    CROSS JOIN LATERAL (
        SELECT * FROM conversation
        WHERE (conversation.account, conversation.peer, conversation.kind) = (wanted.account, $1, 'group') LIMIT 1
    ) AS c
    CROSS JOIN LATERAL (
        SELECT count(*) AS unread, count(*) FILTER (WHERE m.mention OR c.account = ANY (m.mentions)) AS mentions,
            max(m.rank) AS rank
        FROM message m
        WHERE (m.account, m.peer, m.kind) = ($1, $1, 'group')
            AND m.rank > greatest(c.read_rank, c.base_rank) AND m.rank <= least($2, c.taken)
            AND m.counted AND (m.retracted IS NULL OR m.retracted > c.taken)
            AND m.author IS DISTINCT FROM c.account
    ) AS found
    WHERE NOT on_its_way.anything AND found.unread > 0
),
moved AS (
    UPDATE conversation c SET base_unread = c.base_unread + tally.unread, base_mentions = c.base_mentions + tally.mentions,
        base_rank = tally.rank
    FROM tally WHERE (c.account, c.peer, c.kind) = (tally.account, tally.peer, tally.kind)
)
SELECT anything FROM on_its_way;

-- name: trim_room
-- Drop messages of a room up to a rank, but for its last one, once no member's count needs them.
WITH gone AS (
    DELETE FROM message m WHERE (m.account, m.peer, m.kind) = ($1, $1, 'group') AND m.rank <= $2
        AND (m.rank < $3 OR m.rank > $3 AND NOT m.counted)
    RETURNING 1
)
SELECT count(*) FROM gone;
