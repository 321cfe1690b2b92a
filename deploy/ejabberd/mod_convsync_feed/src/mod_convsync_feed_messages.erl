%%% Which stanzas are a message to or from an account of the host, and that a one-to-one message is one event however
%%% many sessions see it (docs/feed.md §5.1). Refuses to know what a message means.
%%%
%%% Where the hooks sit (ejabberd 23.01): mod_mam archives at 88 and says so in the stanza's meta, strips the sender's
%%% stanza-id at 500; on the way to an account that is offline it archives at 49 and mod_offline, at 50 and behind us by its
%%% name, may end the hook.
-module(mod_convsync_feed_messages).

-export([hooks/0, again/2]).
%% Hooks.
-export([sent/1, received/1, offline/1, bounced/1, written/1, settled/1, settled/2, settled/3]).

-include("xmpp.hrl").
-include("convsync_feed.hrl").

-type c2s() :: ejabberd_c2s:state().

-spec hooks() -> [{atom(), atom(), integer()}].
hooks() ->
    [{user_send_packet, sent, 90}, {user_receive_packet, received, 90}, {offline_message_hook, offline, 50},
     {bounce_sm_packet, bounced, 50}, {user_send_packet, written, 5}, {c2s_filter_send, settled, 1}, {c2s_handle_call, settled, 10},
     {c2s_session_pending, settled, 10}, {c2s_terminated, settled, 5}].

%% From a session. What the account's blocklist does not let out is no event.
-spec sent({stanza() | drop, c2s()}) -> {stanza() | drop, c2s()}.
sent({#message{to = #jid{luser = Peer}, meta = Meta} = Message, #{jid := #jid{lserver = Server} = JID} = State} = Acc)
  when Peer =/= <<>>, not is_map_key(carbon_copy, Meta) ->
    mod_convsync_feed_guard:attempt(
      Server,
      fun() ->
              To = Message#message.to,
              Wanted = not is_self(JID, To) andalso is_conversation(Message, To, Server)
                  andalso allow =:= ejabberd_hooks:run_fold(privacy_check_packet, Server, allow, [State, Message, out]),
              Put = case To of
                        #jid{lserver = Server} -> put_later;
                        _ -> put
                    end,
              Wanted andalso emit(Put, <<"out">>, Message#message{from = JID}, JID, To, JID#jid.lresource)
      end),
    Acc;
sent(Acc) ->
    Acc.

%% A message within the host goes on while its event is being written: the event of its arrival is written behind it, and what
%% its recipient sees comes after that. The sender is told nothing, and asks and hands over nothing, before it is on the disk.
-spec settled({T, c2s()} | c2s()) -> {T, c2s()} | c2s().
settled(Acc) ->
    ok = mod_convsync_feed_host:settle(),
    Acc.

-spec settled(c2s(), term()) -> c2s().
settled(State, _) ->
    settled(State).

-spec settled(c2s(), term(), term()) -> c2s().
settled(State, _, _) ->
    settled(State).

%% What a session sends that is no message goes out behind its messages' events.
-spec written({stanza() | drop, c2s()}) -> {stanza() | drop, c2s()}.
written({#message{}, _} = Acc) ->
    Acc;
written(Acc) ->
    settled(Acc).

%% To a session. `convsync_seen` marks what was told, so that stream management may route it again; `convsync_at` is the
%% event's time.
-spec received({stanza() | drop, c2s()}) -> {stanza() | drop, c2s()}.
received({#message{from = #jid{}, to = #jid{}} = Message, #{jid := #jid{lserver = Server} = JID} = State} = Acc) ->
    mod_convsync_feed_guard:attempt(
      Server,
      fun() ->
              case is_copy(Message, JID) of
                  true -> Acc;
                  false -> {into(Message, JID, resource_reached(Message, JID)), State}
              end
      end, Acc);
received(Acc) ->
    Acc.

%% To an account without a session that takes it.
-spec offline({term(), stanza()}) -> {term(), stanza()}.
offline({Action, #message{from = #jid{}, to = #jid{lserver = Server} = To} = Message} = Acc) ->
    mod_convsync_feed_guard:attempt(
      Server,
      fun() ->
              case is_seen(Message, To) orelse Message#message.type =:= groupchat of
                  true -> Acc;
                  false -> {Action, into(Message, To, resource(To))}
              end
      end, Acc);
offline(Acc) ->
    Acc.

%% An error that comes back when the session that sent the message has ended.
-spec bounced({term(), stanza()}) -> {term(), stanza()}.
bounced({Action, #message{type = error, from = #jid{}, to = #jid{luser = User, lserver = Server} = To} = Message} = Acc)
  when User =/= <<>> ->
    mod_convsync_feed_guard:attempt(
      Server,
      fun() ->
              case is_seen(Message, To) orelse not ejabberd_auth:user_exists(User, Server) of
                  true -> Acc;
                  false -> {Action, into(Message, To, resource(To))}
              end
      end, Acc);
bounced(Acc) ->
    Acc.

%% The events of what the account's archive has, as they were or should have been, with the archive's ids. A message to
%% oneself may be there twice, as sent and as it arrived: the event is of its arrival.
-spec again(jid(), [mod_convsync_feed_archive:archived()]) -> [{binary(), xmlel()}].
again(_, []) ->
    [];
again(#jid{lserver = Server} = Account, [{Id, At, _, #message{from = From, to = To} = Message} | Later]) ->
    {Direction, Peer, Own} = case is_self(Account, From) andalso not is_self(Account, To) of
                                 true -> {<<"out">>, To, From};
                                 false -> {<<"in">>, From, To}
                             end,
    Told = is_conversation(Message, Peer, Server)
        andalso (Direction =:= <<"in">> orelse is_let_out(Message, Account))
        andalso not (is_self(Account, Peer) andalso lists:any(fun(Other) -> is_same(Message, Other) end, Later)),
    [{Id, event(Direction, Message, Account, Peer, {resource(Own), Id, At})} || Told] ++ again(Account, Later).

-spec is_same(message(), mod_convsync_feed_archive:archived()) -> boolean().
is_same(#message{id = Id, from = From, to = To}, {_, _, _, #message{id = I, from = F, to = T}}) ->
    {Id, jid:tolower(From), jid:tolower(To)} =:= {I, jid:tolower(F), jid:tolower(T)}.

-spec is_let_out(message(), jid() | c2s()) -> boolean().
is_let_out(#message{from = #jid{lserver = Server}} = Message, Sender) ->
    allow =:= ejabberd_hooks:run_fold(privacy_check_packet, Server, allow, [Sender, Message, out]).

-spec into(message(), jid(), binary() | undefined) -> message().
into(#message{from = From} = Message, #jid{lserver = Server} = Account, Resource) ->
    case is_conversation(Message, From, Server) of
        true ->
            At = emit(put, <<"in">>, Message, Account, From, Resource),
            xmpp:put_meta(xmpp:put_meta(Message, convsync_seen, {Account#jid.luser, Server}), convsync_at, At);
        false ->
            Message
    end.

%% Groupchat is for the session that is in the room; anything else for the one that was addressed, if one was.
-spec resource_reached(message(), jid()) -> binary() | undefined.
resource_reached(#message{type = groupchat}, JID) -> JID#jid.lresource;
resource_reached(#message{to = To}, _) -> resource(To).

-spec resource(jid()) -> binary() | undefined.
resource(#jid{lresource = <<>>}) -> undefined;
resource(#jid{lresource = Resource}) -> Resource.

-spec is_copy(message(), jid()) -> boolean().
is_copy(#message{meta = #{sm_copy := true}}, _) -> true;
is_copy(#message{meta = #{carbon_copy := true}}, _) -> true;
is_copy(#message{meta = #{from_offline := true}}, _) -> true;
is_copy(#message{meta = #{convsync_own := true}}, _) -> true;
is_copy(#message{type = headline, to = #jid{lresource = <<>>}} = Message, JID) ->
    is_seen(Message, JID) orelse not is_first(JID);
is_copy(Message, JID) ->
    is_seen(Message, JID).

-spec is_seen(message(), jid()) -> boolean().
is_seen(#message{meta = Meta}, #jid{luser = User, lserver = Server}) ->
    maps:get(convsync_seen, Meta, none) =:= {User, Server}.

%% Headlines go to all sessions without a mark on the copies: the session of the highest priority tells, as for other types.
-spec is_first(jid()) -> boolean().
is_first(#jid{luser = User, lserver = Server, lresource = Resource}) ->
    case ejabberd_sm:get_user_present_resources(User, Server) of
        [] -> true;
        Present -> element(2, lists:max(Present)) =:= Resource
    end.

-spec is_self(jid(), jid()) -> boolean().
is_self(#jid{luser = User, lserver = Server}, #jid{luser = User, lserver = Server}) -> true;
is_self(_, _) -> false.

%% Whether a stanza between an account of the host and the peer is a message at all.
-spec is_conversation(message(), jid(), binary()) -> boolean().
is_conversation(#message{type = Type, body = Body} = Message, #jid{lserver = Domain} = Peer, Server) ->
    Covered = mod_convsync_feed_host:covered(Domain),
    not (is_component(Domain, Server)
         orelse (Covered andalso (Type =:= groupchat orelse is_notice(Message, Peer)))
         orelse is_marked(Message)
         orelse (Body =:= [] andalso (has(Message, <<"event">>, ?NS_PUBSUB_EVENT) orelse is_archived_result(Message)))).

-spec is_component(binary(), binary()) -> boolean().
is_component(Domain, Server) ->
    lists:any(fun(#jid{lserver = D}) -> D =:= Domain end, mod_convsync_feed:components(Server)).

%% A covered room tells its occupants of affiliations and of its configuration: `room-members` says so for all of them.
-spec is_notice(message(), jid()) -> boolean().
is_notice(#message{type = Type, body = []} = Message, #jid{lresource = <<>>}) when Type =/= error ->
    case xmpp:get_subtag(Message, #muc_user{}) of
        #muc_user{items = Items, status_codes = Codes} -> Items =/= [] orelse Codes =/= [];
        false -> false
    end;
is_notice(_, _) ->
    false.

%% What the component says in a user's name by XEP-0356 and marks as its own: only a privileged entity can send from the
%% bare address of an account of this server.
-spec is_marked(message()) -> boolean().
is_marked(#message{from = #jid{luser = User, lserver = Server, lresource = <<>>}} = Message) when User =/= <<>> ->
    has(Message, <<"convsync">>, ?NS_FEED) andalso ejabberd_router:is_my_host(Server);
is_marked(_) ->
    false.

-spec is_archived_result(message()) -> boolean().
is_archived_result(Message) ->
    lists:any(fun(El) ->
                      xmpp:get_name(El) =:= <<"result">> andalso
                          lists:member(xmpp:get_ns(El), [?NS_MAM_0, ?NS_MAM_1, ?NS_MAM_2])
              end, xmpp:get_els(Message)).

-spec has(message(), binary(), binary()) -> boolean().
has(Message, Name, Namespace) ->
    lists:any(fun(El) -> xmpp:get_name(El) =:= Name andalso xmpp:get_ns(El) =:= Namespace end, xmpp:get_els(Message)).

-spec emit(put | put_later, binary(), message(), jid(), jid(), binary() | undefined) -> integer().
emit(Put, Direction, Message, #jid{lserver = Server} = Account, Peer, Resource) ->
    At = mod_convsync_feed_event:clock(),
    Event = event(Direction, Message, Account, Peer, {Resource, archive_id(Message, Account), At}),
    _ = mod_convsync_feed_host:Put(Server, Event),
    At.

-spec event(binary(), message(), jid(), jid(), {binary() | undefined, binary() | undefined, integer()}) -> xmlel().
event(Direction, Message, #jid{luser = User, lserver = Server} = Account, Peer, {Resource, Id, At}) ->
    Attributes = [{<<"direction">>, Direction}, {<<"archive-id">>, Id}, {<<"resource">>, Resource},
                  {<<"known">>, is_known(User, Server, Peer)}, {<<"to-self">>, is_self(Account, Peer)}],
    Children = [mod_convsync_feed_sessions:summary(User, Server),
                mod_convsync_feed_event:message(Message, Message#message.to)],
    mod_convsync_feed_event:new(<<"message">>, mod_convsync_feed_event:address(Account), At, Attributes, Children).

%% What the sender's archive said of a message stays with it: the id is the account's where the stanza says so.
-spec archive_id(message(), jid()) -> binary() | undefined.
archive_id(#message{type = error}, _) -> undefined;
archive_id(#message{meta = #{mam_archived := true, stanza_id := Number}, sub_els = Els}, #jid{luser = User, lserver = Server}) ->
    Id = integer_to_binary(Number),
    case [own || #stanza_id{by = #jid{luser = U, lserver = S}, id = I} <- Els, U =:= User, S =:= Server, I =:= Id] of
        [] -> undefined;
        _ -> Id
    end;
archive_id(_, _) -> undefined.

-spec is_known(binary(), binary(), jid()) -> boolean().
is_known(User, Server, Peer) ->
    Info = ejabberd_hooks:run_fold(roster_get_jid_info, Server, {none, none, []}, [User, Server, Peer]),
    lists:member(element(1, Info), [both, from, to]).
