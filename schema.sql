-- Convsync's schema: the one truth. `convsync schema` installs it, migrations keep older databases equal to it, and a test
-- compares the two.
--
-- Every table of the state leads with the account in its primary key, so that it can be distributed by account. The named
-- exceptions: room, room_member, room_entry (they belong to a room), bootstrap of rooms and hosts, lease, feed_position, feed_stream, quarantine (to a host),
-- device_token (a token is unique over all accounts), provider_token (one per key) and what is scanned by time: push_job, call
-- deadlines, and whose turn it is to be trimmed.
--
-- Versions and ranks are microseconds since the epoch that only go up within an account, or within a room.

CREATE TABLE schema_version (
    version integer PRIMARY KEY,
    installed_at timestamptz NOT NULL DEFAULT now()
);

-- ---- the state -------------------------------------------------------------------------------------------------------

CREATE TABLE account (
    jid text PRIMARY KEY,
    epoch integer NOT NULL DEFAULT 1,
    version bigint NOT NULL,
    floor bigint NOT NULL,                        -- the oldest version that a client's token may name
    unread integer NOT NULL DEFAULT 0,
    mentions integer NOT NULL DEFAULT 0,
    unread_conversations integer NOT NULL DEFAULT 0,
    devices integer NOT NULL DEFAULT 0,           -- how many are registered: most accounts have none, and skip that read
    wakes_open boolean NOT NULL DEFAULT false,    -- a device was pushed and has not fetched yet
    quiet jsonb,                                  -- when it wants to be left alone; NULL = never
    trim_at timestamptz NOT NULL DEFAULT now() + interval '1 day',
    CONSTRAINT account_is_bare CHECK (jid <> '' AND strpos(jid, '/') = 0 AND octet_length(jid) <= 3071),
    CONSTRAINT account_epoch_counts CHECK (epoch >= 1),
    CONSTRAINT account_version_is_time CHECK (version >= 0 AND floor >= 0 AND floor <= version),
    CONSTRAINT account_counts CHECK (
        unread >= 0 AND mentions BETWEEN 0 AND unread AND unread_conversations BETWEEN 0 AND unread AND devices >= 0),
    CONSTRAINT account_quiet_is_named CHECK (jsonb_typeof(quiet) = 'object')
) WITH (fillfactor = 70);

CREATE INDEX account_to_trim ON account (trim_at);

CREATE TABLE conversation (
    account text NOT NULL,
    peer text NOT NULL,
    kind text NOT NULL,
    version bigint NOT NULL,
    activity bigint NOT NULL,                     -- microseconds since the epoch, orders the list
    status text NOT NULL,
    pinned bigint NOT NULL DEFAULT 0,
    muted_until timestamptz,                      -- 'infinity' = for ever
    notify text,                                  -- NULL = the default of its kind
    read_rank bigint NOT NULL DEFAULT 0,
    read_id text,
    displayed_rank bigint NOT NULL DEFAULT 0,     -- how far the peer has displayed ours
    displayed_id text,
    delivered_rank bigint NOT NULL DEFAULT 0,
    delivered_id text,
    unread integer NOT NULL DEFAULT 0,            -- base_unread + the index behind read_rank and base_rank
    mentions integer NOT NULL DEFAULT 0,
    base_unread integer NOT NULL DEFAULT 0,       -- unread, and not in the index any more
    base_mentions integer NOT NULL DEFAULT 0,
    base_rank bigint NOT NULL DEFAULT 0,          -- up to which base_* count
    marked_unread boolean NOT NULL DEFAULT false,
    ringing integer NOT NULL DEFAULT 0,
    rewritten bigint NOT NULL DEFAULT 0,          -- version of the newest correction or retraction
    log_from bigint NOT NULL DEFAULT 0,           -- changes of this version and older ones may be gone
    written boolean NOT NULL DEFAULT false,       -- the owner has written to the peer, who is no stranger then
    requests_presence boolean NOT NULL DEFAULT false,
    request_told_at timestamptz,                  -- when a phone was last told of it
    invited_by text,
    private boolean,                              -- of rooms: members only; NULL = not known
    nick text,                                    -- of rooms: the owner's
    taken bigint NOT NULL DEFAULT 0,              -- of rooms of this server: the newest entry that is part of this row
    last_rank bigint,
    last_stanza text,
    last_message_id text,
    last_archive_id text,
    last_sent_at timestamptz,
    last_retracted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (account, peer, kind),
    CONSTRAINT conversation_peer_is_jid CHECK (peer <> '' AND octet_length(peer) <= 3071),
    CONSTRAINT conversation_kind CHECK (kind IN ('chat', 'group', 'omemo-2', 'omemo-1', 'axolotl')),
    CONSTRAINT conversation_status CHECK (status IN ('active', 'archived', 'deleted')),
    CONSTRAINT conversation_notify CHECK (notify IN ('never', 'on-mention', 'always')),
    CONSTRAINT conversation_counts CHECK (
        mentions BETWEEN 0 AND unread AND base_mentions BETWEEN 0 AND base_unread AND base_unread <= unread
        AND base_mentions <= mentions AND ringing >= 0 AND pinned >= 0),
    CONSTRAINT conversation_base_is_behind CHECK (base_unread = 0 OR read_rank < base_rank),
    CONSTRAINT conversation_rewritten_by_version CHECK (rewritten <= version AND log_from <= version),
    CONSTRAINT conversation_last_is_whole CHECK (
        (last_rank IS NULL) = (last_stanza IS NULL) AND (last_rank IS NULL) = (last_sent_at IS NULL))
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX conversation_by_version ON conversation (account, version);
CREATE INDEX conversation_in_order ON conversation (account, (ringing = 0), (-activity), peer, kind);
CREATE INDEX conversation_apart ON conversation (account) WHERE kind NOT IN ('chat', 'group');

-- The recent messages of a conversation, without their text: enough to count unread exactly and to find them by any id. Those
-- of a room of this server are kept once, with the room as account and as peer.
CREATE TABLE message (
    account text NOT NULL,
    peer text NOT NULL,
    kind text NOT NULL,
    rank bigint NOT NULL,
    outgoing boolean NOT NULL,
    counted boolean NOT NULL,                     -- makes the conversation unread until it is read
    mention boolean NOT NULL DEFAULT false,       -- means whom it counts for
    retracted bigint,                             -- rank of what took it back
    sent_at timestamptz NOT NULL,
    message_key text,                             -- ids longer than 128 bytes are kept as sha256:<hex>
    origin_key text,                              -- NULL where equal to message_key
    archive_key text,
    archive_id text,                              -- NULL where equal to archive_key
    about bigint,                                 -- rank of the message that this one changes
    author text,                                  -- in rooms
    mentions text[] NOT NULL DEFAULT '{}',        -- in a room's index: the accounts that it means
    PRIMARY KEY (account, peer, kind, rank),
    CONSTRAINT message_own_is_not_unread CHECK (NOT (outgoing AND counted)),
    CONSTRAINT message_mention_counts CHECK (counted OR NOT mention AND mentions = '{}'),
    CONSTRAINT message_keys_are_short CHECK (
        octet_length(message_key) <= 128 AND octet_length(origin_key) <= 128 AND octet_length(archive_key) <= 128)
);

CREATE INDEX message_by_message_key ON message (account, peer, message_key) WHERE message_key IS NOT NULL;
CREATE INDEX message_by_origin_key ON message (account, peer, origin_key) WHERE origin_key IS NOT NULL;
CREATE INDEX message_by_archive_key ON message (account, archive_key) WHERE archive_key IS NOT NULL;
CREATE INDEX message_mentioning ON message (account, peer, kind, rank) WHERE counted AND (mention OR mentions <> '{}');

-- What happened to messages after they had been sent.
CREATE TABLE change (
    account text NOT NULL,
    version bigint NOT NULL,
    peer text NOT NULL,
    kind text NOT NULL,
    what text NOT NULL,
    target_rank bigint NOT NULL,
    target_id text NOT NULL,
    author text,                                  -- who reacted, who moderated
    detail text,                                  -- how a call ended, the condition of an error
    stanza text,                                  -- a correction's or reaction's text, while it may be shown
    PRIMARY KEY (account, version),
    CONSTRAINT change_kind CHECK (kind IN ('chat', 'group', 'omemo-2', 'omemo-1', 'axolotl')),
    CONSTRAINT change_what CHECK (what IN ('corrected', 'retracted', 'moderated', 'reacted', 'failed', 'call-ended')),
    CONSTRAINT change_has_text CHECK (what IN ('corrected', 'reacted') OR stanza IS NULL)
);

CREATE INDEX change_of_conversation ON change (account, peer, kind, version);
CREATE INDEX change_rewriting ON change (account, version) WHERE what IN ('corrected', 'retracted', 'moderated');

CREATE INDEX change_by_target ON change (account, peer, kind, target_rank) WHERE stanza IS NOT NULL;

CREATE TABLE call (
    account text NOT NULL,
    peer text NOT NULL,
    sid text NOT NULL,
    session_id text NOT NULL,
    state text NOT NULL,
    version bigint NOT NULL,
    proposed_at timestamptz NOT NULL,
    rings_until timestamptz NOT NULL,
    caller text NOT NULL,
    media text[] NOT NULL DEFAULT '{}',
    answered_by text,
    continues text,                               -- the session id of the call that goes on in this one
    archive_id text,
    stanza text,
    kind text NOT NULL DEFAULT 'chat',            -- 'group': into a room, which is the peer
    PRIMARY KEY (account, peer, sid),
    CONSTRAINT call_kind CHECK (kind IN ('chat', 'group')),
    CONSTRAINT call_sid_is_short CHECK (octet_length(sid) <= 128),
    CONSTRAINT call_state CHECK (
        state IN ('ringing', 'outgoing', 'answered', 'rejected', 'missed', 'closed', 'ended', 'undeliverable')),
    CONSTRAINT call_ringing_has_propose CHECK (state <> 'ringing' OR stanza IS NOT NULL),
    CONSTRAINT call_rings_after_propose CHECK (rings_until >= proposed_at)
);

CREATE INDEX call_by_sid ON call (account, sid);
CREATE INDEX call_settled ON call (account, version) WHERE state NOT IN ('ringing', 'outgoing');
CREATE INDEX call_ringing ON call (account, peer) WHERE state = 'ringing';
CREATE INDEX call_deadline ON call (rings_until) WHERE state = 'ringing';
CREATE INDEX call_open ON call (account, peer) WHERE state IN ('ringing', 'outgoing', 'answered');
CREATE INDEX call_unfinished ON call (proposed_at) WHERE state IN ('outgoing', 'answered');

-- ---- the archive ------------------------------------------------------------------------------------------------------

-- How far the archive of an account, or of a room of this server, has become state. A row is made with its account or room. The
-- row of a host stands for the list of its accounts.
CREATE TABLE bootstrap (
    account text PRIMARY KEY,
    host text NOT NULL GENERATED ALWAYS AS (split_part(account, '@', -1)) STORED,
    state text NOT NULL DEFAULT 'waiting',
    since bigint NOT NULL,                        -- the first contact: what was archived before counts as read
    start bigint NOT NULL DEFAULT 0,              -- from which archive time on; 0 = as far back as configured
    after text,                                   -- the archive id of the newest item that was taken ...
    rank bigint NOT NULL DEFAULT 0,               -- ... and its rank
    seen integer NOT NULL DEFAULT 0,              -- items since start
    restored integer NOT NULL DEFAULT 0,          -- messages that were new, in all
    turn integer NOT NULL DEFAULT 1,              -- how often it was asked for
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    why text,                                     -- of a failure
    CONSTRAINT bootstrap_state CHECK (state IN ('waiting', 'done', 'failed')),
    CONSTRAINT bootstrap_counts CHECK (
        since >= 0 AND start >= 0 AND rank >= 0 AND seen >= 0 AND restored >= 0 AND turn >= 1 AND attempts >= 0),
    CONSTRAINT bootstrap_failed_has_reason CHECK (state <> 'failed' OR why IS NOT NULL)
) WITH (fillfactor = 70);

CREATE INDEX bootstrap_due ON bootstrap (host, due_at) WHERE state = 'waiting';
CREATE INDEX bootstrap_of_host ON bootstrap (host);

-- ---- rooms of this server ---------------------------------------------------------------------------------------------

-- What happens in a room is an entry; members' conversations take the entries one by one, absent members' too.
CREATE TABLE room (
    jid text PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0,            -- rank of the newest entry
    fanned bigint NOT NULL DEFAULT 0,             -- rank up to which every member has taken all entries
    private boolean NOT NULL DEFAULT false,
    destroyed boolean NOT NULL DEFAULT false,
    listing bigint,                               -- names the list of all members that has begun
    called_at timestamptz,                        -- when somebody last invited into a call
    trim_at timestamptz NOT NULL DEFAULT now() + interval '1 day',
    CONSTRAINT room_is_bare CHECK (jid <> '' AND strpos(jid, '/') = 0 AND octet_length(jid) <= 3071),
    CONSTRAINT room_fanned_what_is_there CHECK (fanned <= version)
) WITH (fillfactor = 50);

CREATE INDEX room_to_fan ON room (fanned) WHERE fanned < version;
CREATE INDEX room_to_trim ON room (trim_at);

CREATE TABLE room_member (
    room text NOT NULL,
    account text NOT NULL,
    affiliation text NOT NULL,
    present boolean NOT NULL,
    since bigint NOT NULL,                        -- takes entries behind this rank …
    until bigint,                                 -- … up to this one; NULL = still belongs
    nick text,
    nick_key text,                                -- as it is looked for in texts
    occupant_id text,
    listed bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (room, account),
    CONSTRAINT room_member_affiliation CHECK (affiliation IN ('owner', 'admin', 'member', 'none', 'outcast')),
    CONSTRAINT room_member_keys_are_short CHECK (octet_length(nick_key) <= 128 AND octet_length(occupant_id) <= 128)
);

CREATE INDEX room_member_by_nick ON room_member (room, nick_key) WHERE until IS NULL;
CREATE INDEX room_member_by_occupant ON room_member (room, occupant_id) WHERE occupant_id IS NOT NULL;
CREATE INDEX room_member_of_account ON room_member (account);

CREATE TABLE room_entry (
    room text NOT NULL,
    rank bigint NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    "only" text,                                  -- the one member that it concerns
    author text,
    sender text,
    message_id text,
    archive_id text,
    mentions text[] NOT NULL DEFAULT '{}',
    everybody boolean NOT NULL DEFAULT false,
    private boolean NOT NULL DEFAULT false,
    target_rank bigint,
    target_id text,
    target_counted boolean NOT NULL DEFAULT false,
    target_author text,
    target_mentions text[] NOT NULL DEFAULT '{}',
    target_everybody boolean NOT NULL DEFAULT false,
    stanza text,
    past boolean NOT NULL DEFAULT false,          -- out of the room's archive: nobody is woken for it
    counted boolean NOT NULL DEFAULT true,        -- a message that members have unread
    step text,                                    -- of a call
    media text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (room, rank),
    CONSTRAINT room_entry_kind CHECK (kind IN (
        'message', 'corrected', 'retracted', 'moderated', 'reacted', 'call', 'displayed', 'joined', 'left', 'gone',
        'destroyed')),
    CONSTRAINT room_entry_message_has_stanza CHECK (kind <> 'message' OR stanza IS NOT NULL),
    CONSTRAINT room_entry_call_has_step CHECK (
        kind <> 'call' OR (step IS NOT NULL AND target_id IS NOT NULL AND (step <> 'propose' OR stanza IS NOT NULL))),
    CONSTRAINT room_entry_change_has_target CHECK (
        kind NOT IN ('corrected', 'retracted', 'moderated', 'reacted', 'displayed')
        OR (target_rank IS NOT NULL AND target_id IS NOT NULL))
);

-- ---- live notices --------------------------------------------------------------------------------------------------

-- Sessions that are told of changes as they happen. They may have been told more than stands here: a restart tells it again.
CREATE TABLE watcher (
    account text NOT NULL,
    resource text NOT NULL,
    told bigint NOT NULL,
    log bigint NOT NULL,                          -- changes since then are told; before told while the session reads a list
    PRIMARY KEY (account, resource),
    CONSTRAINT watcher_resource_is_short CHECK (resource <> '' AND octet_length(resource) <= 1023),
    CONSTRAINT watcher_told_is_version CHECK (log BETWEEN 0 AND told)
) WITH (fillfactor = 50);

-- ---- devices and pushes ----------------------------------------------------------------------------------------------

-- Push tokens are sealed: only a process that has the key can read them.
CREATE TABLE device (
    account text NOT NULL,
    device_id text NOT NULL,
    route text NOT NULL DEFAULT 'apns',
    app text NOT NULL,                            -- of route publish: the app server's JID
    environment text NOT NULL,
    alert_token bytea NOT NULL,
    alert_digest bytea NOT NULL,
    voip_token bytea,
    voip_digest bytea,
    node text NOT NULL,
    secret_digest bytea NOT NULL,
    name text,
    enabled boolean NOT NULL DEFAULT false,
    wishes jsonb NOT NULL DEFAULT '{}',           -- what its enable asked for
    push_key bytea,                               -- sealed too: what payloads are encrypted with, where it asked for that
    bound_to text,
    registered_at timestamptz NOT NULL,
    woken_version bigint NOT NULL DEFAULT 0,
    woken_at timestamptz,
    woken_until timestamptz,                      -- how long the push service keeps what is unfetched
    chased smallint NOT NULL DEFAULT 0,           -- wakes of kind sync since the newest fetch
    fetched_version bigint NOT NULL DEFAULT 0,
    fetched_at timestamptz,
    failures integer NOT NULL DEFAULT 0,          -- an app server's refusals in a row
    failing_since timestamptz,
    PRIMARY KEY (account, device_id),
    CONSTRAINT device_route CHECK (route IN ('apns', 'publish')),
    CONSTRAINT device_failures_have_begun CHECK ((failures > 0) = (failing_since IS NOT NULL) AND failures >= 0),
    CONSTRAINT device_voip_is_whole CHECK ((voip_token IS NULL) = (voip_digest IS NULL)),
    CONSTRAINT device_wishes_are_named CHECK (jsonb_typeof(wishes) = 'object'),
    CONSTRAINT device_push_key_has_size CHECK ((push_key IS NULL) = (NOT wishes ? 'max_bytes')),
    CONSTRAINT device_environment CHECK (environment IN ('production', 'sandbox')),
    CONSTRAINT device_id_is_short CHECK (device_id <> '' AND octet_length(device_id) <= 1023)
);

CREATE UNIQUE INDEX device_by_node ON device (node, account);

-- A token belongs to one device: a new registration takes it over, so a reinstalled app does not ring twice.
CREATE TABLE device_token (
    app text NOT NULL,
    environment text NOT NULL,
    digest bytea NOT NULL,
    account text NOT NULL,
    device_id text NOT NULL,
    PRIMARY KEY (app, environment, digest),
    CONSTRAINT device_token_digest_is_sha256 CHECK (octet_length(digest) = 32)
);

CREATE INDEX device_token_of_device ON device_token (account, device_id);

-- Pushes: queued ones are due at not_before, attempted ones have left, done ones are the ledger.
CREATE TABLE push_job (
    account text NOT NULL,
    job_id uuid NOT NULL,
    device_id text NOT NULL,
    lane smallint NOT NULL,
    kind text NOT NULL,
    version bigint NOT NULL,
    peer text NOT NULL,
    about text NOT NULL DEFAULT 'chat',           -- the kind of the conversation with that peer
    sid text,
    voip boolean NOT NULL DEFAULT false,
    silent boolean NOT NULL DEFAULT false,
    collapse text,
    target_rank bigint,
    joined integer NOT NULL DEFAULT 0,            -- later events that it speaks for
    queue text NOT NULL DEFAULT '',               -- what it waits in: the way to its device
    created_at timestamptz NOT NULL,
    not_before timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'queued',
    attempts integer NOT NULL DEFAULT 0,
    repeat integer NOT NULL DEFAULT 0,
    attempted_at timestamptz,
    outcome text,
    status smallint,                              -- the vendor's, as is the reason
    reason text,
    done_at timestamptz,                          -- when the outcome was recorded
    PRIMARY KEY (account, job_id),
    CONSTRAINT push_job_lane CHECK (lane BETWEEN 1 AND 3),
    CONSTRAINT push_job_about CHECK (about IN ('chat', 'group', 'omemo-2', 'omemo-1', 'axolotl')),
    CONSTRAINT push_job_kind CHECK (
        kind IN ('message', 'call', 'call-fallback', 'callend', 'missed', 'corrected', 'withdraw', 'read', 'reacted',
            'invited', 'subscription', 'sync', 'removed', 'test')),
    CONSTRAINT push_job_state CHECK (state IN ('queued', 'attempted', 'done')),
    CONSTRAINT push_job_attempted_has_left CHECK ((state = 'queued') OR (state = 'done') OR attempted_at IS NOT NULL),
    CONSTRAINT push_job_done_has_outcome CHECK ((state = 'done') = (outcome IS NOT NULL)),
    CONSTRAINT push_job_voip_is_call CHECK (NOT voip OR kind = 'test' OR (kind = 'call' AND sid IS NOT NULL))
);

-- At most one VoIP push per call and device, whatever the code does (invariant 6).
CREATE UNIQUE INDEX push_job_voip_once ON push_job (account, device_id, peer, sid) WHERE voip;
CREATE INDEX push_job_due ON push_job (lane, not_before) WHERE state = 'queued';
CREATE INDEX push_job_due_in_queue ON push_job (queue, lane, not_before) WHERE state = 'queued';
CREATE INDEX push_job_under_way ON push_job (attempted_at) WHERE state = 'attempted';
CREATE INDEX push_job_open ON push_job (account) WHERE state <> 'done';
CREATE INDEX push_job_of_call ON push_job (account, sid) WHERE sid IS NOT NULL;

-- The APNs provider token, one for all processes (a team may renew it at most every 20 minutes).
CREATE TABLE provider_token (
    team_id text NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    minted_at timestamptz NOT NULL,
    PRIMARY KEY (team_id, key_id)
);

-- ---- the feed --------------------------------------------------------------------------------------------------------

-- Who may connect as a component JID. backend_* name the holder's database session: when it is gone, so is the holder.
CREATE TABLE lease (
    name text PRIMARY KEY,
    holder text NOT NULL,
    generation bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    backend_pid integer,                          -- the holder's session; NULL = a pooler is between
    backend_started_at timestamptz,
    CONSTRAINT lease_generation_counts CHECK (generation >= 1)
);

-- How far each lane has committed a stream; written in the transaction that commits the events.
CREATE TABLE feed_position (
    host text NOT NULL,
    stream text NOT NULL,
    shard text NOT NULL,
    lane smallint NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (host, stream, shard, lane),
    CONSTRAINT feed_position_lane CHECK (lane BETWEEN 0 AND 15),
    CONSTRAINT feed_position_counts CHECK (n >= 0)
) WITH (fillfactor = 50);

-- Below which n everything of a stream is committed; written before it is acknowledged.
CREATE TABLE feed_stream (
    host text NOT NULL,
    stream text NOT NULL,
    shard text NOT NULL,
    committed bigint NOT NULL,
    seen bigint NOT NULL,                         -- the newest n that the module is known to have given out
    good bigint NOT NULL DEFAULT 0,               -- server time of the newest event below which nothing is missing
    PRIMARY KEY (host, stream, shard),
    CONSTRAINT feed_stream_counts CHECK (committed >= 0 AND seen >= committed)
) WITH (fillfactor = 50);

-- Events that cannot be committed, with why, so that the stream goes on and an operator can look.
CREATE TABLE quarantine (
    host text NOT NULL,
    stream text NOT NULL,
    shard text NOT NULL,
    n bigint NOT NULL,
    account text NOT NULL,
    why text NOT NULL,
    event text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (host, stream, shard, n)
);
