%%% Forwards what accounts publish to and retract from those of their own PEP nodes that conversations depend on
%%% (docs/feed.md §5.2). Refuses to know what an item says.
%%%
%%% mod_pubsub has a hook for publishing only. A retraction, a purge and the removal of a node are seen in the session that
%%% asks: the node's items are held against those that are left when the answer comes back.
-module(mod_convsync_feed_pep).

-export([hooks/0, items/3, watch/2]).
%% Hooks.
-export([published/6]).

-include("xmpp.hrl").
-include("pubsub.hrl").
-include("convsync_feed.hrl").

-define(NODES, [<<"urn:xmpp:mds:displayed:0">>, <<"urn:xmpp:bookmarks:1">>]).

-spec hooks() -> [{atom(), atom(), integer()}].
hooks() ->
    [{pubsub_publish_item, published, 90}].

-spec published(binary(), binary(), jid(), jid(), binary(), [xmlel()]) -> ok.
published(Server, Node, Publisher, #jid{luser = User, lserver = Server} = Account, Item, Payload) when User =/= <<>> ->
    lists:member(Node, ?NODES) andalso
        mod_convsync_feed_guard:attempt(
          Server,
          fun() -> tell(Account, {Node, Item, <<"publish">>}, actor(Account, Publisher), [El || #xmlel{} = El <- Payload]) end),
    ok;
published(_, _, _, _, _, _) ->
    ok.

%% The account's own session, if it was one.
-spec actor(jid(), jid()) -> binary() | undefined.
actor(#jid{luser = User, lserver = Server}, #jid{luser = User, lserver = Server, lresource = Resource}) when Resource =/= <<>> ->
    Resource;
actor(_, _) ->
    undefined.

%% A request that may take items away: what is to be looked at when it has been answered.
-spec watch(iq(), jid()) -> none | fun(() -> ok).
watch(#iq{type = set, to = #jid{luser = User, lserver = Server}, sub_els = [El]}, #jid{luser = User, lserver = Server} = JID) ->
    Actions = [{Name, fxml:get_tag_attr_s(<<"node">>, Action)}
               || #xmlel{name = <<"pubsub">>, children = Children} <- [xmpp:encode(El)],
                  #xmlel{name = Name} = Action <- Children,
                  lists:member(Name, [<<"retract">>, <<"purge">>, <<"delete">>])],
    case [Node || {_, Node} <- Actions, lists:member(Node, ?NODES)] of
        [] -> none;
        [Node | _] ->
            Before = ids(User, Server, Node),
            fun() ->
                    Gone = Before -- ids(User, Server, Node),
                    Account = jid:remove_resource(JID),
                    lists:foreach(fun(Id) -> tell(Account, {Node, Id, <<"retract">>}, JID#jid.lresource, []) end, Gone)
            end
    end;
watch(_, _) ->
    none.

-spec ids(binary(), binary(), binary()) -> [binary()].
ids(User, Server, Node) ->
    [Id || #pubsub_item{itemid = {Id, _}} <- items(User, Server, Node)].

%% The items of an account's node; none where there is no such node, or no PEP.
-spec items(binary(), binary(), binary()) -> [#pubsub_item{}].
items(User, Server, Node) ->
    case gen_mod:is_loaded(Server, mod_pubsub) andalso mod_pubsub:get_items({User, Server, <<>>}, Node) of
        Items when is_list(Items) -> Items;
        _ -> []
    end.

-spec tell(jid(), {binary(), binary(), binary()}, binary() | undefined, [xmlel()]) -> ok.
tell(#jid{lserver = Server} = Account, {Node, Item, Action}, Resource, Payload) ->
    Attributes = [{<<"node">>, Node}, {<<"item">>, Item}, {<<"action">>, Action}, {<<"resource">>, Resource},
                  {<<"echo">>, mod_convsync_feed_displayed:is_echo()}],
    Event = mod_convsync_feed_event:new(<<"pep">>, mod_convsync_feed_event:address(Account), Attributes, Payload),
    _ = mod_convsync_feed_host:put(Server, Event),
    ok.
