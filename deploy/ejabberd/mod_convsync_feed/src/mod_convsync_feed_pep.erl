-module(mod_convsync_feed_pep).
-export([hooks/0]).
-spec hooks() -> [].
hooks() -> [].
