%%% What an account's subscription requests and its blocklist become (docs/feed.md §5.2). Decides what is a change: the
%%% account's own data is compared before and after the server's handlers, so a request that was refused, or was there
%%% already, is no event.
%%%
%%% The server has no hook behind a change of a blocklist or of PEP items: a session's request is watched from when it is
%%% sent (`user_send_packet`) to its answer (`user_receive_packet`), in the session's own process.
-module(mod_convsync_feed_contacts).

-export([hooks/0]).
%% Hooks.
-export([asking/2, asked/2, answering/1, answered/1, requested/1, replied/1]).

-include("xmpp.hrl").
-include("mod_privacy.hrl").
-include("convsync_feed.hrl").

-define(WATCHED, 20). % requests of a session that may be unanswered at a time; older ones are forgotten

-type c2s() :: ejabberd_c2s:state().
-type watch() :: fun(() -> ok).

-spec hooks() -> [{atom(), atom(), integer()}].
hooks() ->
    [{roster_in_subscription, asking, 45}, {roster_in_subscription, asked, 55},
     {roster_out_subscription, answering, 45}, {roster_out_subscription, answered, 55},
     {user_send_packet, requested, 91}, {user_receive_packet, replied, 91}].

%%% Requests to see the account's presence

%% Whether the peer's request waits for the user.
-spec is_waiting(binary(), binary(), jid()) -> boolean().
is_waiting(User, Server, Peer) ->
    Info = ejabberd_hooks:run_fold(roster_get_jid_info, Server, {none, none, []}, [User, Server, jid:remove_resource(Peer)]),
    tuple_size(Info) > 1 andalso lists:member(element(2, Info), [in, both]).

-spec asking(boolean(), presence()) -> boolean().
asking(Acc, #presence{type = Type, from = Peer, to = #jid{luser = User, lserver = Server}}) when Type =:= subscribe; Type =:= unsubscribe ->
    mod_convsync_feed_guard:attempt(Server, fun() -> put(?MODULE, {User, Server, is_waiting(User, Server, Peer)}) end),
    Acc;
asking(Acc, _) ->
    Acc.

-spec asked(boolean(), presence()) -> boolean().
asked(Acc, #presence{type = Type, from = Peer, to = #jid{luser = User, lserver = Server} = To}) when Type =:= subscribe; Type =:= unsubscribe ->
    mod_convsync_feed_guard:attempt(
      Server,
      fun() ->
              case {erase(?MODULE), is_waiting(User, Server, Peer)} of
                  {{User, Server, false}, true} -> tell(To, Peer, <<"requested">>);
                  {{User, Server, true}, false} -> tell(To, Peer, <<"withdrawn">>);
                  _ -> ok
              end
      end),
    Acc;
asked(Acc, _) ->
    Acc.

-spec answering(presence()) -> ok.
answering(#presence{type = Type, from = #jid{luser = User, lserver = Server}, to = Peer}) when Type =:= subscribed; Type =:= unsubscribed ->
    mod_convsync_feed_guard:attempt(Server, fun() -> put(?MODULE, {User, Server, is_waiting(User, Server, Peer)}) end),
    ok;
answering(_) ->
    ok.

-spec answered(presence()) -> ok.
answered(#presence{type = Type, from = #jid{luser = User, lserver = Server} = From, to = Peer}) when Type =:= subscribed; Type =:= unsubscribed ->
    mod_convsync_feed_guard:attempt(
      Server,
      fun() ->
              case {erase(?MODULE), is_waiting(User, Server, Peer)} of
                  {{User, Server, true}, false} -> tell(From, Peer, <<"settled">>);
                  _ -> ok
              end
      end),
    ok;
answered(_) ->
    ok.

-spec tell(jid(), jid(), binary()) -> ok.
tell(#jid{lserver = Server} = Account, Peer, State) ->
    emit(Server, <<"subscription">>, Account, [{<<"peer">>, bare(Peer)}, {<<"state">>, State}], []).

%%% Requests of a session that are looked at when they have been answered

-spec requested({stanza() | drop, c2s()}) -> {stanza() | drop, c2s()}.
requested({#iq{type = set, id = Id, sub_els = [_]} = IQ, #{jid := #jid{lserver = Server} = JID} = State} = Acc) ->
    mod_convsync_feed_guard:attempt(
      Server,
      fun() ->
              case watch(IQ, JID) of
                  none -> Acc;
                  Watch -> {IQ, State#{convsync_watched => lists:sublist([{Id, Watch} | watched(State)], ?WATCHED)}}
              end
      end, Acc);
requested(Acc) ->
    Acc.

-spec replied({stanza() | drop, c2s()}) -> {stanza() | drop, c2s()}.
replied({#iq{type = Type, id = Id} = IQ, #{jid := #jid{lserver = Server}, convsync_watched := Watched} = State} = Acc)
  when Type =:= result; Type =:= error ->
    case lists:keytake(Id, 1, Watched) of
        {value, {_, Watch}, Rest} ->
            mod_convsync_feed_guard:attempt(Server, Watch),
            {IQ, State#{convsync_watched := Rest}};
        false ->
            Acc
    end;
replied(Acc) ->
    Acc.

-spec watched(c2s()) -> [{binary(), watch()}].
watched(#{convsync_watched := Watched}) -> Watched;
watched(_) -> [].

-spec watch(iq(), jid()) -> none | watch().
watch(#iq{sub_els = [El]} = IQ, JID) ->
    case xmpp:get_ns(El) of
        ?NS_BLOCKING -> blocking(El, JID);
        ?NS_PRIVACY -> blocking(El, JID);
        ?NS_PUBSUB -> mod_convsync_feed_pep:watch(IQ, JID);
        ?NS_PUBSUB_OWNER -> mod_convsync_feed_pep:watch(IQ, JID);
        _ -> none
    end.

%%% The blocklist: what the default privacy list denies altogether, as mod_blocking has it

-spec blocking(xmpp_element() | xmlel(), jid()) -> watch().
blocking(El, #jid{luser = User, lserver = Server} = JID) ->
    Before = blocked(User, Server),
    Asked = [Peer || #xmlel{name = <<"block">>, children = Items} <- [xmpp:encode(El)],
                     #xmlel{name = <<"item">>} = Item <- Items,
                     Peer <- peers(fxml:get_tag_attr_s(<<"jid">>, Item)), is_waiting(User, Server, Peer)],
    All = [all || #xmlel{name = <<"unblock">>, children = Items} <- [xmpp:encode(El)], [I || #xmlel{} = I <- Items] =:= []],
    fun() ->
            Now = blocked(User, Server),
            Changes = case {Now, Before, All} of
                          {[], [_ | _], [all]} -> [#xmlel{name = <<"unblock">>}];
                          _ -> changes(<<"block">>, Now -- Before) ++ changes(<<"unblock">>, Before -- Now)
                      end,
            Changes =/= [] andalso emit(Server, <<"blocklist">>, JID, [], Changes),
            %% Who is blocked asks no more: the user has refused.
            [tell(JID, Peer, <<"settled">>) || Peer <- Asked, lists:member(bare(Peer), Now)],
            ok
    end.

-spec peers(binary()) -> [jid()].
peers(Text) ->
    try [jid:decode(Text)]
    catch error:{bad_jid, _} -> []
    end.

-spec changes(binary(), [binary()]) -> [xmlel()].
changes(Name, Peers) ->
    [#xmlel{name = Name, attrs = [{<<"jid">>, Peer}]} || Peer <- Peers].

-spec blocked(binary(), binary()) -> [binary()].
blocked(User, Server) ->
    case gen_mod:is_loaded(Server, mod_privacy) andalso mod_privacy:get_user_list(User, Server, default) of
        {ok, {_, Items}} ->
            lists:usort([jid:encode(JID) || #listitem{type = jid, action = deny, value = JID} = Item <- Items, is_whole(Item)]);
        _ ->
            []
    end.

%% An item that denies messages, whatever else it denies.
-spec is_whole(#listitem{}) -> boolean().
is_whole(#listitem{match_all = All, match_message = Message}) ->
    All orelse Message.

-spec bare(jid()) -> binary().
bare(JID) ->
    mod_convsync_feed_event:address(JID).

-spec emit(binary(), binary(), jid(), [mod_convsync_feed_event:attribute()], [xmlel()]) -> ok.
emit(Server, Kind, Account, Attributes, Children) ->
    _ = mod_convsync_feed_host:put(Server, mod_convsync_feed_event:new(Kind, bare(Account), Attributes, Children)),
    ok.
