%%% One host's feed: a process on every node, of which one in the cluster owns the stream.
%%%
%%% The owner (a global name) numbers the events of all nodes, writes them down, sends them and takes the acks; the others
%%% wait to take over. When it moves, a new stream begins, and what the outbox holds of the old one is still sent. Events
%%% that come together are written together. Refuses to know what an event says.
-module(mod_convsync_feed_owner).
-behaviour(gen_server).

-export([start_link/3, reload/2, replay/1, unload/1, resolve/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("convsync_feed.hrl").

-define(SAVE, 1000).           % acks are written down this long after they came, ms
-define(GROUP, 500).           % requests that are written together
-define(PAUSE, 5).             % and no two writes follow each other sooner than the first took, up to this, ms
-define(LINGER, 5).            % events for which nobody waits are written this long after they came, ms, if not with others
-define(FAILURES, 600000).     % a gap because of a failed callback comes at most this often, ms

-type request() :: {gen_server:from() | nobody, any | binary(), [mod_convsync_feed_event:written()]}.
-record(state, {host :: binary(),
                options :: map(),
                owner = none :: owner | {pid(), reference()} | none,
                outbox :: undefined | mod_convsync_feed_outbox:outbox(),
                window :: undefined | mod_convsync_feed_window:window(),
                waiting = [] :: [request()],
                due = never :: never | later | now, % when these are written
                pause = erlang:monotonic_time(microsecond) :: integer(), % until when no write is due
                replay = none :: none | reference(), % tells what was archived and may not have been told
                failed = none :: none | 'write-failed' | unloaded,
                failure = none :: none | integer(),  % when the last gap of a failed callback came, ms
                deferred = false :: boolean()}).     % one more is to come

%% options: those of the outbox and `components` (JIDs).
-spec start_link(users | rooms, {binary(), binary()}, map()) -> {ok, pid()} | {error, term()}.
start_link(Kind, {Host, ServerHost}, Options) ->
    gen_server:start_link({local, mod_convsync_feed_host:local(Host)}, ?MODULE, {Kind, Host, ServerHost, Options}, []).

-spec reload(binary(), map()) -> ok.
reload(Host, Options) ->
    gen_server:cast(mod_convsync_feed_host:local(Host), {options, Options}).

%% Everything is there that telling what was archived before needs; does nothing where nothing can be untold.
-spec replay(binary()) -> ok.
replay(Host) ->
    gen_server:cast(mod_convsync_feed_host:local(Host), replay).

%% The module stops while the server runs on.
-spec unload(binary()) -> ok.
unload(Host) ->
    mod_convsync_feed_host:close(Host),
    mod_convsync_feed_outbox:unloaded(Host).

%% Two owners after a partition or a join: the one on the lower node stays.
-spec resolve(term(), pid(), pid()) -> pid().
resolve(_, One, Other) ->
    {Stays, Goes} = case node(One) < node(Other) of
                        true -> {One, Other};
                        false -> {Other, One}
                    end,
    Goes ! deposed,
    Stays.

-spec init({users | rooms, binary(), binary(), map()}) -> {ok, #state{}}.
init({Kind, Host, ServerHost, Options}) ->
    process_flag(trap_exit, true),
    mod_convsync_feed_guard:open(Host),
    mod_convsync_feed_host:open(Kind, Host, ServerHost),
    mnesia:subscribe(system),
    net_kernel:monitor_nodes(true),
    erlang:send_after(?SAVE, self(), save),
    global:sync(),
    {ok, claim(#state{host = Host, options = Options})}.

%% Becomes the owner, or watches the one there is.
-spec claim(#state{}) -> #state{}.
claim(#state{host = Host} = State) ->
    Name = mod_convsync_feed_host:name(Host),
    case global:register_name(Name, self(), fun ?MODULE:resolve/3) of
        yes ->
            own(State#state{owner = owner});
        no ->
            case global:whereis_name(Name) of
                undefined -> claim(State);
                Pid ->
                    persistent_term:put({?MODULE, Host}, live),
                    forward(missed(State#state{owner = {Pid, erlang:monitor(process, Pid)}}))
            end
    end.

%% The module was unloaded on this node while another one went on.
-spec missed(#state{}) -> #state{}.
missed(#state{host = Host} = State) ->
    case mod_convsync_feed_outbox:was_unloaded(Host) of
        true -> State#state{failed = unloaded};
        false -> State
    end.

-spec own(#state{}) -> #state{}.
own(#state{host = Host, options = Options} = State) ->
    From = persistent_term:get({?MODULE, Host}, disk),
    Outbox = mod_convsync_feed_outbox:open(Host, Options, From),
    From =:= live andalso replay(Host), % else the module has yet to start
    persistent_term:put({?MODULE, Host}, live),
    ?INFO_MSG("The feed of ~ts is written on this node", [Host]),
    [ejabberd_router:route(started(Host, Component))
     || Component <- maps:get(components, Options), ejabberd_router:is_my_route(Component#jid.lserver)],
    State#state{outbox = Outbox}.

-spec started(binary(), jid()) -> message().
started(Host, Component) ->
    Started = #xmlel{name = <<"started">>, attrs = [{<<"xmlns">>, ?NS_FEED}]},
    #message{from = jid:make(Host), to = Component, sub_els = [Started]}.

%% A failure that happened here while somebody else was, or became, the owner.
-spec forward(#state{}) -> #state{}.
forward(#state{failed = none} = State) ->
    State;
forward(#state{failed = Reason, owner = {Pid, _}} = State) ->
    gen_server:cast(Pid, {fail, Reason}),
    State#state{failed = none}.

%%% Callbacks. None may take the process down: it would take the subscription along.

-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}} | {noreply, #state{}}.
handle_call(_, _, #state{owner = Owner} = State) when Owner =/= owner ->
    {reply, {error, 'not-owner'}, State};
handle_call({put, Stream, Events}, From, State) ->
    {noreply, queue({From, Stream, Events}, State)};
handle_call(stream, _, State) ->
    Ready = ready(commit(State)),
    #{id := Id} = mod_convsync_feed_outbox:current(Ready#state.outbox),
    {reply, {ok, Id}, pump(Ready)};
handle_call({subscribe, #iq{from = From} = IQ, Connection, {Told, Answer}}, _, State) ->
    Ready = ready(commit(State)),
    forget(Ready#state.window),
    {Window, Outbox} = mod_convsync_feed_window:new(Ready#state.outbox, Connection, From, Told),
    [?WARNING_MSG("~ts has lost memory of stream ~ts of ~ts: was its database restored?",
                  [jid:encode(From), Id, Ready#state.host]) || Id <- maps:get(regressed, Window)],
    Hello = mod_convsync_feed_window:hello(Window, Outbox, Answer),
    mod_convsync_feed_host:send(Connection, xmpp:make_iq_result(IQ, Hello)),
    {reply, ok, pump(Ready#state{window = Window, outbox = Outbox})};
handle_call({reply, Connection, Answer}, _, State) ->
    Done = commit(State),
    mod_convsync_feed_host:send(Connection, Answer),
    {reply, ok, Done};
handle_call(status, _, #state{outbox = #{bytes := Bytes, streams := Streams}, window = Window} = State) ->
    Held = lists:sum([High - Acked || #{high := High, acked := Acked} <- Streams]),
    Subscribed = case Window of undefined -> 0; _ -> 1 end,
    {reply, [{outbox_bytes, Bytes}, {outbox_events, Held}, {subscribed, Subscribed}], State};
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({put, Events}, #state{owner = owner} = State) ->
    {noreply, queue({nobody, any, Events}, State)};
handle_cast({fail, Reason}, #state{owner = owner, failure = Last} = State) ->
    Now = erlang:monotonic_time(millisecond),
    case Last of
        _ when is_integer(Last), Now - Last < ?FAILURES -> {noreply, defer(Last + ?FAILURES, Reason, State)};
        _ -> {noreply, State#state{failed = Reason, failure = Now}}
    end;
handle_cast({fail, Reason}, #state{owner = {_, _}} = State) ->
    {noreply, forward(State#state{failed = Reason})};
handle_cast({fail, Reason}, State) ->
    {noreply, State#state{failed = Reason}};
handle_cast({ack, Connection, Stream, N}, #state{owner = owner} = State) ->
    {noreply, take_ack(Connection, Stream, N, State)};
handle_cast(replay, #state{owner = owner, replay = none, host = Host, outbox = #{since := {Since, Known}}} = State) ->
    Now = mod_convsync_feed_event:clock(),
    {_, Ref} = spawn_monitor(mod_convsync_feed_replay, tell, [Host, {Since, Now}, Known]),
    {noreply, State#state{replay = Ref}};
handle_cast({options, Options}, #state{outbox = undefined} = State) ->
    {noreply, State#state{options = Options}};
handle_cast({options, Options}, #state{outbox = Outbox} = State) ->
    {noreply, State#state{options = Options, outbox = Outbox#{options := Options}}};
handle_cast(_, State) ->
    {noreply, State}.

-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
%% Who is about to bring an event does so first, as long as more come: a write costs the same for all of them.
handle_info({commit, Known}, #state{waiting = Waiting} = State) ->
    case length(Waiting) of
        Many when Many > Known ->
            erlang:yield(),
            self() ! {commit, Many},
            {noreply, State};
        _ ->
            {noreply, commit(State)}
    end;
handle_info({deferred, Reason}, State) ->
    handle_cast({fail, Reason}, State#state{deferred = false});
handle_info(save, #state{owner = owner, outbox = Outbox} = State) ->
    erlang:send_after(?SAVE, self(), save),
    Saved = mod_convsync_feed_outbox:mark(mod_convsync_feed_outbox:save(Outbox)),
    {noreply, State#state{outbox = mod_convsync_feed_outbox:sweep(Saved)}};
handle_info(save, State) ->
    erlang:send_after(?SAVE, self(), save),
    {noreply, State};
handle_info({'DOWN', Ref, process, Pid, _}, #state{owner = {Pid, Ref}} = State) ->
    {noreply, claim(State#state{owner = none})};
handle_info({'DOWN', Ref, process, _, _}, #state{replay = Ref, owner = owner, outbox = Outbox} = State) ->
    {noreply, State#state{replay = none, outbox = mod_convsync_feed_outbox:replayed(Outbox)}};
handle_info({'DOWN', Ref, process, _, _}, #state{replay = Ref} = State) ->
    {noreply, State#state{replay = none}};
handle_info({'DOWN', Ref, process, _, _}, #state{window = #{monitor := Ref}} = State) ->
    {noreply, State#state{window = undefined}};
%% Sessions of a node that is gone end without an event: the component asks anew what there is.
handle_info({nodedown, _}, #state{owner = owner, host = Host, window = #{connection := Connection} = Window} = State) ->
    mod_convsync_feed_host:send(Connection, started(Host, mod_convsync_feed_window:component(Window))),
    forget(Window),
    {noreply, State#state{window = undefined}};
handle_info(deposed, #state{owner = owner} = State) ->
    [reply(From, {error, deposed}) || {From, _, _} <- State#state.waiting],
    forget(State#state.window),
    Failed = case lists:keymember(nobody, 1, State#state.waiting) of
                 true -> 'write-failed';
                 false -> State#state.failed
             end,
    {noreply, claim(State#state{owner = none, outbox = undefined, window = undefined, waiting = [], due = never, failed = Failed})};
handle_info({mnesia_system_event, {inconsistent_database, _, Node}}, #state{owner = owner, host = Host} = State) ->
    ?ERROR_MSG("The cluster was parted from ~ts: events of ~ts may be missing", [Node, Host]),
    {noreply, State#state{failed = 'write-failed'}};
handle_info(_, State) ->
    {noreply, State}.

-spec terminate(term(), #state{}) -> ok.
terminate(shutdown, #state{owner = owner} = State) ->
    Said = case State of
               #state{deferred = true} -> State#state{failed = 'write-failed'};
               _ -> State
           end,
    catch mod_convsync_feed_outbox:close((ready(commit(Said)))#state.outbox),
    ok;
terminate(_, #state{owner = owner, outbox = Outbox} = State) ->
    catch commit(State),
    catch mod_convsync_feed_outbox:save(Outbox),
    ok;
terminate(_, _) ->
    ok.

-spec code_change(term(), #state{}, term()) -> {ok, #state{}}.
code_change(_, State, _) ->
    {ok, State}.

%%% The owner's work

%% A gap that comes too early after the last one comes later: what was lost must not stay unsaid.
-spec defer(integer(), atom(), #state{}) -> #state{}.
defer(_, _, #state{deferred = true} = State) ->
    State;
defer(At, Reason, State) ->
    erlang:send_after(At, self(), {deferred, Reason}, [{abs, true}]),
    State#state{deferred = true}.

%% Begins the stream that is due after events were lost or given up.
-spec ready(#state{}) -> #state{}.
ready(#state{failed = none, outbox = Outbox} = State) ->
    case mod_convsync_feed_outbox:full(Outbox) of
        true -> State#state{outbox = mod_convsync_feed_outbox:gap(Outbox, full)};
        false -> State
    end;
ready(#state{failed = Reason, outbox = Outbox} = State) ->
    ready(State#state{failed = none, outbox = mod_convsync_feed_outbox:gap(Outbox, Reason)}).

-spec queue(request(), #state{}) -> #state{}.
queue(Request, #state{waiting = Waiting} = State) ->
    Queued = hurry(element(1, Request), State#state{waiting = [Request | Waiting]}),
    case length(Queued#state.waiting) >= ?GROUP of
        true -> commit(Queued);
        false -> Queued
    end.

-spec hurry(gen_server:from() | nobody, #state{}) -> #state{}.
hurry(nobody, #state{due = never} = State) ->
    erlang:send_after(?LINGER, self(), {commit, ?GROUP}),
    State#state{due = later};
hurry(From, #state{due = Due, pause = Pause} = State) when From =/= nobody, Due =/= now ->
    case (Pause - erlang:monotonic_time(microsecond)) div 1000 of
        Left when Left > 0 -> erlang:send_after(Left, self(), {commit, 0});
        _ -> self() ! {commit, 0}
    end,
    State#state{due = now};
hurry(_, State) ->
    State.

-spec reply(gen_server:from() | nobody, term()) -> ok.
reply(nobody, _) -> ok;
reply(From, Answer) -> gen_server:reply(From, Answer).

%% Writes what waits, sends what may be sent, and then tells those who wait.
-spec commit(#state{}) -> #state{}.
commit(#state{waiting = []} = State) ->
    State;
commit(#state{waiting = Waiting} = State) ->
    Ready = ready(State#state{waiting = [], due = never}),
    #{id := Id} = mod_convsync_feed_outbox:current(Ready#state.outbox),
    {Mine, Others} = lists:partition(fun({_, S, _}) -> S =:= any orelse S =:= Id end, lists:reverse(Waiting)),
    [reply(From, {other, Id}) || {From, _, _} <- Others],
    Events = lists:append([E || {_, _, E} <- Mine]),
    Began = erlang:monotonic_time(microsecond),
    case Events =/= [] andalso mod_convsync_feed_outbox:append(Ready#state.outbox, [Text || {Text, _} <- Events]) of
        false -> % what those who wait put before is there, or there is a gap
            [reply(From, {ok, Id}) || {From, _, _} <- Mine],
            pump(Ready);
        {ok, Outbox} ->
            Ended = erlang:monotonic_time(microsecond),
            Pause = Ended + min(Ended - Began, ?PAUSE * 1000),
            Sent = pump(Ready#state{outbox = Outbox, pause = Pause}, Events),
            [reply(From, {ok, Id}) || {From, _, _} <- Mine],
            Sent;
        {error, _} = Error ->
            [reply(From, Error) || {From, _, _} <- Mine],
            Ready#state{failed = 'write-failed'}
    end.

-spec pump(#state{}) -> #state{}.
pump(State) ->
    pump(State, []).

%% Newest: the last events of the current stream, which need not be read.
-spec pump(#state{}, [mod_convsync_feed_event:written()]) -> #state{}.
pump(#state{window = undefined} = State, _) ->
    State;
pump(#state{host = Host, window = Window, outbox = Outbox} = State, Newest) ->
    {Result, Batches, Sent} = mod_convsync_feed_window:pump(Window, Outbox, Newest),
    Message = #message{from = jid:make(Host), to = mod_convsync_feed_window:component(Sent)},
    lists:foreach(fun({_, Feed}) ->
                          mod_convsync_feed_host:send(mod_convsync_feed_window:connection(Sent), Message#message{sub_els = [Feed]})
                  end, Batches),
    case Result of
        ok ->
            State#state{window = Sent};
        {unreadable, Id, N} ->
            ?ERROR_MSG("Event ~b of stream ~ts of ~ts cannot be read", [N, Id, Host]),
            pump(State#state{window = Sent, outbox = mod_convsync_feed_outbox:give_up(Outbox, Id, N)})
    end.

-spec take_ack(pid(), binary(), binary(), #state{}) -> #state{}.
take_ack(Connection, Stream, N, #state{host = Host, window = #{connection := Connection} = Window, outbox = Outbox} = State) ->
    case mod_convsync_feed_window:ack(Window, Outbox, Stream, N) of
        {ok, Window1, Outbox1} ->
            pump(State#state{window = Window1, outbox = Outbox1});
        {error, Why} ->
            bad_ack(Host, Stream, N, Why),
            State
    end;
take_ack(_, Stream, N, #state{host = Host} = State) ->
    bad_ack(Host, Stream, N, "no subscription"),
    State.

-spec bad_ack(binary(), binary(), binary(), string()) -> ok.
bad_ack(Host, Stream, N, Why) ->
    mod_convsync_feed_guard:count(Host, bad_acks),
    ?WARNING_MSG("Ignored an ack for ~ts (stream ~ts, n ~ts): ~ts", [Host, short(Stream), short(N), Why]).

-spec short(binary()) -> binary().
short(Text) ->
    binary:part(Text, 0, min(byte_size(Text), 40)).

-spec forget(undefined | mod_convsync_feed_window:window()) -> true.
forget(undefined) -> true;
forget(Window) -> erlang:demonitor(mod_convsync_feed_window:monitor(Window), [flush]).
