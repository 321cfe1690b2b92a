-- Convsync's schema: the one truth. `convsync schema` installs it, migrations keep older databases equal to it, and a test
-- compares the two.
--
-- Every table of the state leads with the account in its primary key, so that it can be distributed by account. The named
-- exceptions: lease, feed_position, feed_stream, quarantine (they belong to a host), device_token (a token is unique over all
-- accounts), provider_token (one per key) and the two queues that are scanned by time: push_job and call deadlines.
--
-- Versions and ranks are microseconds since the epoch that only go up within an account.

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
    unread_conversations integer NOT NULL DEFAULT 0,
    devices integer NOT NULL DEFAULT 0,           -- how many are registered: most accounts have none, and skip that read
    wakes_open boolean NOT NULL DEFAULT false,    -- a device was pushed and has not fetched yet
    CONSTRAINT account_is_bare CHECK (jid <> '' AND strpos(jid, '/') = 0 AND octet_length(jid) <= 3071),
    CONSTRAINT account_epoch_counts CHECK (epoch >= 1),
    CONSTRAINT account_version_is_time CHECK (version >= 0 AND floor >= 0 AND floor <= version),
    CONSTRAINT account_counts CHECK (
        unread >= 0 AND unread_conversations >= 0 AND unread >= unread_conversations AND devices >= 0)
) WITH (fillfactor = 70);

CREATE TABLE conversation (
    account text NOT NULL,
    peer text NOT NULL,
    kind text NOT NULL,
    version bigint NOT NULL,
    activity bigint NOT NULL,                     -- microseconds since the epoch, orders the list
    status text NOT NULL,
    pinned bigint NOT NULL DEFAULT 0,
    muted_until timestamptz,                      -- 'infinity' = for ever
    read_rank bigint NOT NULL DEFAULT 0,
    read_id text,
    displayed_rank bigint NOT NULL DEFAULT 0,     -- how far the peer has displayed ours
    displayed_id text,
    unread integer NOT NULL DEFAULT 0,
    ringing integer NOT NULL DEFAULT 0,
    rewritten bigint NOT NULL DEFAULT 0,          -- version of the newest correction or retraction
    written boolean NOT NULL DEFAULT false,       -- the owner has written to the peer, who is no stranger then
    last_rank bigint,
    last_stanza text,
    last_message_id text,
    last_archive_id text,
    last_sent_at timestamptz,
    last_retracted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (account, peer, kind),
    CONSTRAINT conversation_peer_is_jid CHECK (peer <> '' AND octet_length(peer) <= 3071),
    CONSTRAINT conversation_kind CHECK (kind IN ('chat', 'group')),
    CONSTRAINT conversation_status CHECK (status IN ('active', 'archived', 'deleted')),
    CONSTRAINT conversation_counts CHECK (unread >= 0 AND ringing >= 0 AND pinned >= 0),
    CONSTRAINT conversation_rewritten_by_version CHECK (rewritten <= version),
    CONSTRAINT conversation_last_is_whole CHECK (
        (last_rank IS NULL) = (last_stanza IS NULL) AND (last_rank IS NULL) = (last_sent_at IS NULL))
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX conversation_by_version ON conversation (account, version);
CREATE INDEX conversation_in_order ON conversation (account, (ringing = 0), (-activity), peer, kind);

-- The recent messages of a conversation, without their text: enough to count unread exactly and to find them by any id.
CREATE TABLE message (
    account text NOT NULL,
    peer text NOT NULL,
    kind text NOT NULL,
    rank bigint NOT NULL,
    outgoing boolean NOT NULL,
    counted boolean NOT NULL,                     -- makes the conversation unread until it is read
    retracted boolean NOT NULL DEFAULT false,
    sent_at timestamptz NOT NULL,
    message_key text,                             -- ids longer than 128 bytes are kept as sha256:<hex>
    origin_key text,                              -- NULL where equal to message_key
    archive_key text,
    archive_id text,                              -- NULL where equal to archive_key
    PRIMARY KEY (account, peer, kind, rank),
    CONSTRAINT message_own_is_not_unread CHECK (NOT (outgoing AND counted)),
    CONSTRAINT message_keys_are_short CHECK (
        octet_length(message_key) <= 128 AND octet_length(origin_key) <= 128 AND octet_length(archive_key) <= 128)
);

CREATE INDEX message_by_message_key ON message (account, peer, message_key) WHERE message_key IS NOT NULL;
CREATE INDEX message_by_origin_key ON message (account, peer, origin_key) WHERE origin_key IS NOT NULL;
CREATE INDEX message_by_archive_key ON message (account, archive_key) WHERE archive_key IS NOT NULL;

-- What happened to messages after they had been sent.
CREATE TABLE change (
    account text NOT NULL,
    version bigint NOT NULL,
    peer text NOT NULL,
    kind text NOT NULL,
    what text NOT NULL,
    target_rank bigint NOT NULL,
    target_id text NOT NULL,
    stanza text,                                  -- a correction's text, while it may be shown
    PRIMARY KEY (account, version),
    CONSTRAINT change_kind CHECK (kind IN ('chat', 'group')),
    CONSTRAINT change_what CHECK (what IN ('corrected', 'retracted')),
    CONSTRAINT change_retraction_has_no_text CHECK (what <> 'retracted' OR stanza IS NULL)
);

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
    archive_id text,
    stanza text,
    PRIMARY KEY (account, peer, sid),
    CONSTRAINT call_sid_is_short CHECK (octet_length(sid) <= 128),
    CONSTRAINT call_state CHECK (
        state IN ('ringing', 'outgoing', 'answered', 'rejected', 'missed', 'closed', 'ended', 'undeliverable')),
    CONSTRAINT call_ringing_has_propose CHECK (state <> 'ringing' OR stanza IS NOT NULL),
    CONSTRAINT call_rings_after_propose CHECK (rings_until >= proposed_at)
);

CREATE INDEX call_by_sid ON call (account, sid);
CREATE INDEX call_ringing ON call (account, peer) WHERE state = 'ringing';
CREATE INDEX call_deadline ON call (rings_until) WHERE state = 'ringing';

-- ---- devices and pushes ----------------------------------------------------------------------------------------------

-- Push tokens are sealed: only a process that has the key can read them.
CREATE TABLE device (
    account text NOT NULL,
    device_id text NOT NULL,
    app text NOT NULL,
    environment text NOT NULL,
    alert_token bytea NOT NULL,
    alert_digest bytea NOT NULL,
    voip_token bytea,
    voip_digest bytea,
    node text NOT NULL,
    secret_digest bytea NOT NULL,
    name text,
    enabled boolean NOT NULL DEFAULT false,
    bound_to text,
    registered_at timestamptz NOT NULL,
    woken_version bigint NOT NULL DEFAULT 0,
    woken_at timestamptz,
    fetched_version bigint NOT NULL DEFAULT 0,
    fetched_at timestamptz,
    PRIMARY KEY (account, device_id),
    CONSTRAINT device_voip_is_whole CHECK ((voip_token IS NULL) = (voip_digest IS NULL)),
    CONSTRAINT device_environment CHECK (environment IN ('production', 'sandbox')),
    CONSTRAINT device_id_is_short CHECK (device_id <> '' AND octet_length(device_id) <= 1023)
);

CREATE UNIQUE INDEX device_by_node ON device (account, node);

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
    sid text,
    voip boolean NOT NULL DEFAULT false,
    silent boolean NOT NULL DEFAULT false,
    collapse text,
    target_rank bigint,
    created_at timestamptz NOT NULL,
    not_before timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'queued',
    attempts integer NOT NULL DEFAULT 0,
    repeat integer NOT NULL DEFAULT 0,
    attempted_at timestamptz,
    outcome text,
    reason text,
    PRIMARY KEY (account, job_id),
    CONSTRAINT push_job_lane CHECK (lane BETWEEN 1 AND 3),
    CONSTRAINT push_job_kind CHECK (
        kind IN ('message', 'call', 'call-fallback', 'callend', 'missed', 'corrected', 'withdraw', 'read')),
    CONSTRAINT push_job_state CHECK (state IN ('queued', 'attempted', 'done')),
    CONSTRAINT push_job_attempted_has_left CHECK ((state = 'queued') OR (state = 'done') OR attempted_at IS NOT NULL),
    CONSTRAINT push_job_done_has_outcome CHECK ((state = 'done') = (outcome IS NOT NULL)),
    CONSTRAINT push_job_voip_is_call CHECK (NOT voip OR (kind = 'call' AND sid IS NOT NULL))
);

-- At most one VoIP push per call and device, whatever the code does (invariant 6).
CREATE UNIQUE INDEX push_job_voip_once ON push_job (account, device_id, peer, sid) WHERE voip;
CREATE INDEX push_job_due ON push_job (lane, not_before) WHERE state = 'queued';
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
    backend_pid integer NOT NULL,
    backend_started_at timestamptz NOT NULL,
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
