%%% A client's request to the component sees what its account's other sessions were handed before it (docs/feed.md §7).
%%%
%%% Of a message to several sessions one session's process archives and tells it; the others get copies, which a client may
%%% see, and ask about, sooner than that. So the request waits until a mark has gone through the mailboxes of the other
%%% sessions: what was routed to them before is an event then. Only the request waits, never the process: it goes on with its
%%% own mailbox, so sessions that ask at the same time do not wait for each other. Decides how long a session is waited for.
-module(mod_convsync_feed_queries).

-export([hooks/0, delegated/2]).
%% Hooks.
-export([followed/1, asked/1, heard/2, ended/2]).

-include("xmpp.hrl").
-include("convsync_feed.hrl").

-type c2s() :: ejabberd_c2s:state().
%% `open` and `silent`: who has not passed the mark yet, and who did not in time. Nobody waits for these again until they have.
-record(queries, {round = [] :: [iq()],                 % wait for the marks that are out; oldest first
                  later = [] :: [iq()],                 % came since, and wait for the next marks; newest first
                  open = [] :: [{reference(), pid()}],
                  silent = [] :: [{reference(), pid()}],
                  timer :: undefined | reference()}).
-type queries() :: #queries{}.

-define(KEY, convsync_queries).
-define(PATIENCE, 1000). % ms that a request waits for the other sessions

%% Behind all who look at what a client sends; before anybody does; before mod_stream_mgmt.
-spec hooks() -> [{atom(), atom(), integer()}].
hooks() ->
    [{user_send_packet, followed, 10}, {user_send_packet, asked, 900}, {c2s_handle_info, heard, 40},
     {c2s_terminated, ended, 10}].

%%% All in the session's own process

%% What a client says behind a change that it asked for must not overtake that.
-spec followed({stanza() | drop, c2s()}) -> {stanza() | drop, c2s()}.
followed({#iq{type = Type}, _} = Acc) when Type =/= set ->
    Acc;
followed({Stanza, #{?KEY := #queries{round = [_ | _] = Round, later = Later}} = State} = Acc) ->
    guarded(State, fun() ->
                           case lists:keymember(set, #iq.type, Round ++ Later) andalso not is_query(Stanza, State) of
                               true -> {Stanza, let_go(State)};
                               false -> Acc
                           end
                   end, Acc);
followed(Acc) ->
    Acc.

-spec asked({stanza() | drop, c2s()}) -> {stanza() | drop, c2s()}.
asked({#iq{} = IQ, #{sid := _} = State} = Acc) ->
    guarded(State, fun() ->
                           case is_query(IQ, State) andalso is_allowed(IQ, State) of
                               true -> hold(IQ, State);
                               false -> Acc
                           end
                   end, Acc);
asked(Acc) ->
    Acc.

-spec hold(iq(), c2s()) -> {iq() | drop, c2s()}.
hold(IQ, State) ->
    case queries(State) of
        #queries{round = [_ | _], later = Later} = Queries ->
            {drop, State#{?KEY => Queries#queries{later = [IQ | Later]}}};
        Queries ->
            case mark(Queries, State) of
                #queries{open = []} -> {IQ, State};
                Marked -> {drop, State#{?KEY => Marked#queries{round = [IQ]}}}
            end
    end.

-spec heard(c2s(), term()) -> c2s() | {stop, c2s()}.
heard(State, {?MODULE, mark, Asker, Ref}) ->
    ok = mod_convsync_feed_host:settle(),
    _ = ejabberd_cluster:send(Asker, {?MODULE, passed, Ref}),
    {stop, State};
heard(State, {?MODULE, passed, Ref}) ->
    {stop, guarded(State, fun() -> passed(Ref, State) end, State)};
heard(State, {?MODULE, expired, Timer}) ->
    {stop, guarded(State, fun() -> expired(Timer, State) end, State)};
heard(#{?KEY := #queries{open = Open, silent = Silent}} = State, {'DOWN', Ref, process, _, _}) ->
    case lists:keymember(Ref, 1, Open ++ Silent) of
        true -> {stop, guarded(State, fun() -> passed(Ref, State) end, State)};
        false -> State
    end;
heard(State, _) ->
    State.

%% A request that was taken is not lost with its session.
-spec ended(c2s(), term()) -> c2s().
ended(#{?KEY := _} = State, _) ->
    guarded(State, fun() -> let_go(State) end, State);
ended(State, _) ->
    State.

%%% Marks

%% Sends a mark to every other session that is not known to be silent.
-spec mark(queries(), c2s()) -> queries().
mark(#queries{silent = Silent} = Queries, State) ->
    case [Pid || Pid <- others(State), not lists:keymember(Pid, 2, Silent)] of
        [] ->
            Queries;
        Others ->
            Timer = make_ref(),
            erlang:send_after(?PATIENCE, self(), {?MODULE, expired, Timer}),
            Queries#queries{open = [mark_one(Pid) || Pid <- Others], timer = Timer}
    end.

-spec mark_one(pid()) -> {reference(), pid()}.
mark_one(Pid) ->
    Ref = erlang:monitor(process, Pid),
    _ = ejabberd_cluster:send(Pid, {?MODULE, mark, self(), Ref}),
    {Ref, Pid}.

%% Also those that were replaced and still have something in their mailboxes. Not on nodes that are gone.
-spec others(c2s()) -> [pid()].
others(#{jid := #jid{luser = User, lserver = Server}}) ->
    Nodes = [node() | nodes()],
    [Pid || {_, Pid} <- ejabberd_sm:get_session_sids(User, Server), Pid =/= self(), lists:member(node(Pid), Nodes)].

-spec passed(reference(), c2s()) -> c2s().
passed(Ref, State) ->
    erlang:demonitor(Ref, [flush]),
    case queries(State) of
        #queries{open = [{Ref, _}]} = Queries ->
            next(State#{?KEY => Queries#queries{open = []}});
        #queries{open = Open, silent = Silent} = Queries ->
            State#{?KEY => Queries#queries{open = lists:keydelete(Ref, 1, Open), silent = lists:keydelete(Ref, 1, Silent)}}
    end.

-spec expired(reference(), c2s()) -> c2s().
expired(Timer, State) ->
    case queries(State) of
        #queries{timer = Timer, open = [_ | _] = Open, silent = Silent} = Queries ->
            next(State#{?KEY => Queries#queries{open = [], silent = Open ++ Silent}});
        _ ->
            State
    end.

%% Those that waited go; those that came meanwhile wait for marks of their own.
-spec next(c2s()) -> c2s().
next(State) ->
    #queries{round = Round, later = Later} = Queries = queries(State),
    lists:foreach(fun ejabberd_router:route/1, Round),
    Idle = Queries#queries{round = [], later = [], timer = undefined},
    case Later =/= [] andalso mark(Idle, State) of
        #queries{open = [_ | _]} = Marked ->
            State#{?KEY => Marked#queries{round = lists:reverse(Later)}};
        _ ->
            lists:foreach(fun ejabberd_router:route/1, lists:reverse(Later)),
            State#{?KEY => Idle}
    end.

%% All of them, at once.
-spec let_go(c2s()) -> c2s().
let_go(State) ->
    #queries{round = Round, later = Later, open = Open} = Queries = queries(State),
    [erlang:demonitor(Ref, [flush]) || {Ref, _} <- Open],
    lists:foreach(fun ejabberd_router:route/1, Round ++ lists:reverse(Later)),
    State#{?KEY => Queries#queries{round = [], later = [], open = [], timer = undefined}}.

-spec queries(c2s()) -> queries().
queries(State) ->
    maps:get(?KEY, State, #queries{}).

%%% Which requests

%% To the account itself, in a namespace that is delegated to a component of ours.
-spec is_query(stanza(), c2s()) -> boolean().
is_query(#iq{type = Type, to = #jid{luser = User, lserver = Server, lresource = <<>>}, sub_els = [El]},
         #{jid := #jid{luser = User, lserver = Server}}) when Type =:= get; Type =:= set ->
    is_delegated(Server, xmpp:get_ns(El));
is_query(_, _) ->
    false.

-spec is_delegated(binary(), binary()) -> boolean().
is_delegated(Server, Namespace) ->
    case ets:whereis(mod_delegation) =/= undefined andalso ets:lookup(mod_delegation, Server) of
        [{_, #{{Namespace, ejabberd_sm} := {Component, _}}}] ->
            lists:any(fun(#jid{lserver = Domain}) -> Domain =:= Component end, mod_convsync_feed:components(Server));
        _ ->
            false
    end.

%% The namespaces of the accounts that the component has.
-spec delegated(binary(), binary()) -> [binary()].
delegated(Server, Domain) ->
    case ets:whereis(mod_delegation) =/= undefined andalso ets:lookup(mod_delegation, Server) of
        [{_, Given}] -> [Namespace || {{Namespace, ejabberd_sm}, {Component, _}} <- maps:to_list(Given), Component =:= Domain];
        _ -> []
    end.

%% What the user's own privacy list holds back is refused at once, by the session.
-spec is_allowed(iq(), c2s()) -> boolean().
is_allowed(IQ, #{jid := #jid{lserver = Server}} = State) ->
    allow =:= ejabberd_hooks:run_fold(privacy_check_packet, Server, allow, [State, IQ, out]).

-spec guarded(c2s(), fun(() -> T), T) -> T.
guarded(#{lserver := Server}, Work, Otherwise) ->
    mod_convsync_feed_guard:attempt_request(Server, Work, Otherwise).
