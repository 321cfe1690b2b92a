-- Rooms of this server, their members, and what happened in them until every member has it.

-- name: create_rooms
-- Make the rooms that are not known yet; their archives are to be read.
WITH made AS (
    INSERT INTO room (jid) SELECT jid FROM unnest($1::text[]) AS new(jid) ORDER BY jid
    ON CONFLICT (jid) DO NOTHING RETURNING jid
)
INSERT INTO bootstrap (account, since, due_at)
SELECT jid, $2::bigint, timestamptz 'epoch' + ($2::bigint + 2000000) * interval '1 microsecond' FROM made ORDER BY jid
ON CONFLICT (account) DO NOTHING;

-- name: write_rooms
-- Store rooms that are locked already.
UPDATE room SET version = new.version, fanned = new.fanned, private = new.private, destroyed = new.destroyed,
    listing = new.listing, called_at = new.called_at
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::boolean[], $6::bigint[], $7::timestamptz[])
    AS new(jid, version, fanned, private, destroyed, listing, called_at)
WHERE room.jid = new.jid;

-- name: write_members
-- Store members of rooms, new or changed.
INSERT INTO room_member (room, account, affiliation, present, since, until, nick, nick_key, occupant_id, listed)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
    $9::text[], $10::bigint[])
ON CONFLICT (room, account) DO UPDATE SET affiliation = excluded.affiliation, present = excluded.present,
    since = excluded.since, until = excluded.until, nick = excluded.nick, nick_key = excluded.nick_key,
    occupant_id = excluded.occupant_id, listed = excluded.listed;

-- name: end_unlisted
-- Members that a whole list did not name belong to the room no more.
UPDATE room_member SET until = gone.until
FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS gone(room, listing, until)
WHERE room_member.room = gone.room AND room_member.until IS NULL AND room_member.listed <> gone.listing;

-- name: write_entries
-- Add what happened in rooms.
INSERT INTO room_entry (room, rank, kind, at, "only", author, sender, message_id, archive_id, mentions,
    everybody, private, target_rank, target_id, target_counted, target_author, target_mentions, target_everybody, stanza,
    past, counted, step, media)
SELECT room, rank, kind, at, "only", author, sender, message_id, archive_id, string_to_array(mentions, ' '),
    everybody, private, target_rank, target_id, target_counted, target_author, string_to_array(target_mentions, ' '),
    target_everybody, stanza, past, counted, step, string_to_array(media, ' ')
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::boolean[], $12::boolean[], $13::bigint[], $14::text[],
    $15::boolean[], $16::text[], $17::text[], $18::boolean[], $19::text[], $20::boolean[], $21::boolean[],
    $22::text[], $23::text[])
    AS new(room, rank, kind, at, "only", author, sender, message_id, archive_id, mentions, everybody, private,
        target_rank, target_id, target_counted, target_author, target_mentions, target_everybody, stanza, past, counted, step,
        media);

-- name: pending_rooms
-- Rooms with entries that not every member has, those first that were served longest ago.
SELECT jid FROM room WHERE fanned < version ORDER BY fanned LIMIT $1;

-- name: room_entries
-- The entries of a room, oldest first.
SELECT * FROM room_entry WHERE room = $1 AND rank > $2 ORDER BY rank LIMIT $3;

-- name: room_members
-- Members of a room in order, and those that left it and may lack entries.
SELECT m.* FROM room r JOIN room_member m ON m.room = r.jid
WHERE r.jid = $1 AND m.account > $2 AND (m.until IS NULL OR m.until > r.fanned)
ORDER BY m.account LIMIT $3;

-- name: memberships
-- What an account is to some rooms.
SELECT * FROM room_member WHERE account = $1 AND room = ANY ($2::text[]);

-- name: fanned
-- Every member has the entries up to a rank: they go, and so do the members that left before it. The room is locked first.
WITH served AS (UPDATE room SET fanned = greatest(fanned, $2) WHERE jid = $1 RETURNING jid),
dropped AS (DELETE FROM room_entry USING served WHERE room_entry.room = served.jid AND room_entry.rank <= $2)
DELETE FROM room_member USING served WHERE room_member.room = served.jid AND room_member.until <= $2;
