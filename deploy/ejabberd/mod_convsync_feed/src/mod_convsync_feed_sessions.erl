%%% How attentive each session of an account is, and the events that say so (docs/feed.md §5).
%%%
%%% Only a session's own process knows that it is inactive or hibernated. It writes that into the server's session
%%% table, where every node can read it: `convsync_state` is `inactive` or `{hibernated, µs}`, else the priority tells.
-module(mod_convsync_feed_sessions).

-export([hooks/0, summary/2, all/1, of_account/2, look/1]).
%% Hooks.
-export([opened/1, presence/1, pending/1, resumed/1, csi/2, removed/3, cast/2]).
-export_type([state/0]).

-include("xmpp.hrl").
-include("convsync_feed.hrl").

-type state() :: bound | active | inactive | {hibernated, integer()}.
-type c2s() :: ejabberd_c2s:state().

-define(KEY, convsync_state).
-define(MARGIN, 1000000). % µs by which an event may be older than what another session's process passed on of it

-spec hooks() -> [{atom(), atom(), integer()}].
hooks() ->
    [{c2s_session_opened, opened, 90}, {c2s_self_presence, presence, 90}, {c2s_session_pending, pending, 90},
     {c2s_session_resumed, resumed, 90}, {csi_activity, csi, 90}, {sm_remove_connection_hook, removed, 90},
     {c2s_handle_cast, cast, 40}].

%%% What is

%% The sessions of an account: resource, its process, its state. Those of nodes that are gone are left out.
-spec of_account(binary(), binary()) -> [{binary(), pid(), state()}].
of_account(User, Server) ->
    Nodes = [node() | nodes()],
    [{Resource, proplists:get_value(pid, Info), state(Info)}
     || {Resource, Info} <- lists:ukeysort(1, ejabberd_sm:get_user_info(User, Server)),
        lists:member(proplists:get_value(node, Info), Nodes)].

-spec state([{atom(), term()}]) -> state().
state(Info) ->
    case {proplists:get_value(?KEY, Info), proplists:get_value(priority, Info)} of
        {{hibernated, _} = Hibernated, _} -> Hibernated;
        {_, Priority} when not is_integer(Priority) -> bound;
        {inactive, _} -> inactive;
        _ -> active
    end.

%% The child `<sessions>` of a message event.
-spec summary(binary(), binary()) -> xmlel().
summary(User, Server) ->
    #xmlel{name = <<"sessions">>,
           children = [#xmlel{name = <<"s">>, attrs = [{<<"r">>, Resource} | written(State)]}
                       || {Resource, _, State} <- of_account(User, Server)]}.

%% `<session>` for every session of the host.
-spec all(binary()) -> [xmlel()].
all(Server) ->
    [#xmlel{name = <<"session">>, attrs = [{<<"jid">>, jid:encode(jid:make(User, Server, Resource))} | written(State)]}
     || User <- lists:usort([U || {U, _, _} <- ejabberd_sm:get_vh_session_list(Server)]),
        {Resource, _, State} <- of_account(User, Server)].

-spec written(state()) -> [{binary(), binary()}].
written({hibernated, Acked}) -> [{<<"state">>, <<"hibernated">>}, {<<"acked">>, integer_to_binary(Acked)}];
written(State) -> [{<<"state">>, atom_to_binary(State, latin1)}].

%% Sessions that are older than the module write down what they are.
-spec look(binary()) -> ok.
look(Server) ->
    [gen_server:cast(proplists:get_value(pid, Info), {?MODULE, look})
     || {User, _, _} <- ejabberd_sm:get_vh_session_list(Server),
        {_, Info} <- ejabberd_sm:get_user_info(User, Server), proplists:get_value(node, Info) =:= node()],
    ok.

%%% What happens: all in the session's own process

-spec opened(c2s()) -> c2s().
opened(State) ->
    tell(State, bound, []),
    State.

-spec presence({presence(), c2s()}) -> {presence(), c2s()}.
presence({#presence{type = Type}, State} = Acc) ->
    case {Type, maps:is_key(pres_last, State)} of
        {available, false} -> tell(State, available, []);
        {unavailable, true} -> tell(State, unavailable, []);
        _ -> ok
    end,
    Acc.

-spec pending(c2s()) -> c2s().
pending(State) ->
    guarded(State, fun() ->
                           Acked = acked(State),
                           write(State, {hibernated, Acked}),
                           emit(State, hibernated, [{<<"acked">>, integer_to_binary(Acked)}])
                   end),
    State.

%% Up to when what was sent is known to have arrived: just before the event of the oldest message that the client has
%% not acknowledged; where that stanza has no event of its own, a second before it was sent; now, where there is none.
-spec acked(c2s()) -> integer().
acked(#{mgmt_queue := Queue}) ->
    case p1_queue:out(Queue) of
        {{value, {_, _, #message{meta = #{convsync_at := At}}}}, _} -> At - 1;
        {{value, {_, Time, _}}, _} -> sent(Time) - ?MARGIN;
        {empty, _} -> mod_convsync_feed_event:clock()
    end;
acked(_) ->
    mod_convsync_feed_event:clock().

-spec sent(erlang:timestamp()) -> integer().
sent({Mega, Seconds, Micro}) ->
    (Mega * 1000000 + Seconds) * 1000000 + Micro.

-spec resumed(c2s()) -> c2s().
resumed(State) ->
    tell(State, resumed, []),
    case State of
        #{csi_state := inactive} -> csi(State, inactive);
        _ -> State
    end.

-spec csi(c2s(), active | inactive) -> c2s().
csi(State, Activity) ->
    guarded(State, fun() ->
                           write(State, Activity),
                           emit(State, Activity, [])
                   end),
    State.

%% A session that was replaced or resumed goes on under the same resource.
-spec removed(term(), jid(), term()) -> ok.
removed(_SID, #jid{luser = User, lserver = Server, lresource = Resource} = JID, _Info) ->
    mod_convsync_feed_guard:attempt(
      Server,
      fun() ->
              case ejabberd_sm:get_session_pid(User, Server, Resource) of
                  none -> emit(#{jid => JID}, unbound, []);
                  _ -> ok
              end
      end),
    ok.

-spec cast(c2s(), term()) -> c2s() | {stop, c2s()}.
cast(State, {?MODULE, look}) ->
    guarded(State, fun() ->
                           case State of
                               #{mgmt_state := pending} -> write(State, {hibernated, acked(State)});
                               #{csi_state := inactive} -> write(State, inactive);
                               _ -> ok
                           end
                   end),
    {stop, State};
cast(State, _) ->
    State.

-spec write(c2s(), state()) -> ok.
write(#{jid := #jid{luser = User, lserver = Server, lresource = Resource}}, Known) ->
    _ = ejabberd_sm:set_user_info(User, Server, Resource, ?KEY, Known),
    ok.

-spec tell(c2s(), atom(), [{binary(), binary()}]) -> ok.
tell(State, What, More) ->
    guarded(State, fun() -> emit(State, What, More) end).

-spec guarded(c2s(), fun(() -> term())) -> ok.
guarded(#{jid := #jid{lserver = Server}}, Work) ->
    _ = mod_convsync_feed_guard:attempt(Server, Work),
    ok;
guarded(_, _) ->
    ok.

-spec emit(#{jid := jid(), _ => _}, atom(), [{binary(), binary()}]) -> ok.
emit(#{jid := #jid{lserver = Server} = JID}, What, More) ->
    Account = mod_convsync_feed_event:address(JID),
    Attributes = [{<<"resource">>, JID#jid.lresource}, {<<"state">>, atom_to_binary(What, latin1)} | More],
    _ = mod_convsync_feed_host:put(Server, mod_convsync_feed_event:new(<<"session">>, Account, Attributes, [])),
    ok.
