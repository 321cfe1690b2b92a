-module(mod_convsync_feed_contacts).
-export([hooks/0]).
-spec hooks() -> [].
hooks() -> [].
