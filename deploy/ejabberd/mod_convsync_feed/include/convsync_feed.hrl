%% What the module's files share: names, limits of docs/feed.md, and the rows of the outbox.

-define(NS_FEED, <<"urn:convsync:feed:0">>).
-define(FEED_VERSION, <<"0.3.0">>).

%% docs/feed.md §3: what may be in one batch, and what may be on its way unacknowledged.
-define(BATCH_EVENTS, 50).
-define(BATCH_BYTES, 65536).
-define(WINDOW_EVENTS, 2000).
-define(WINDOW_BYTES, 8388608).

%% A stream. `order` tells which is older; `high` is the newest n when the row was written, `acked` the newest n
%% acknowledged. A key {Host, {unloaded, Node}} is no stream: an operator unloaded the module on that node. Nor is
%% {Host, {running, Node}}: that node has the outbox open, `id` is the start of its machine, and `acked` the time
%% (µs) up to which all that was archived is told; 0: nobody knows.
-record(convsync_stream, {key :: {binary(), pos_integer() | {unloaded | running, node()}},
                          id = <<>> :: binary(),
                          acked = 0 :: non_neg_integer(),
                          high = 0 :: non_neg_integer()}).

%% An event: `xml` is the text that follows `<event n='…'`, `at` its time in µs. A key {Host, told, _} is no event, but a note of
%% what was told and is gone (mod_convsync_feed_told).
-record(convsync_event, {key :: {binary(), pos_integer(), pos_integer()} | {binary(), told, {integer(), integer()}},
                         at :: integer(),
                         xml :: binary()}).
