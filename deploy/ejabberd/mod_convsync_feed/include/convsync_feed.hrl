%% What the module's files share: names, limits of docs/feed.md, and the rows of the outbox.

-define(NS_FEED, <<"urn:convsync:feed:0">>).
-define(FEED_VERSION, <<"0.2.0">>).

%% docs/feed.md §3: what may be in one batch, and what may be on its way unacknowledged.
-define(BATCH_EVENTS, 50).
-define(BATCH_BYTES, 65536).
-define(WINDOW_EVENTS, 2000).
-define(WINDOW_BYTES, 8388608).

%% A stream: `order` tells which is older; `high` is the newest n written, `acked` the newest n acknowledged.
-record(convsync_stream, {key :: {Host :: binary(), Order :: pos_integer()},
                          id :: binary(),
                          acked = 0 :: non_neg_integer(),
                          reason = none :: none | open | closed}).

%% An event, as the text that follows `<event n='…'`.
-record(convsync_event, {key :: {Host :: binary(), Order :: pos_integer(), N :: pos_integer()},
                         xml :: binary()}).
