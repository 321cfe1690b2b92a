-module(mod_convsync_feed_archive).
-export([request/2]).
request(_,_) -> {error, xmpp:err_feature_not_implemented()}.
