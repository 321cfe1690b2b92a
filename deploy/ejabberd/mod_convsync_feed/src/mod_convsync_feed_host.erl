%%% A host's feed, as hooks and requests use it: whoever has an event waits until it is written.
%%%
%%% Decides how long anybody waits for the owner of the stream (mod_convsync_feed_owner), which may be on another node or be
%%% moving; refuses to know what an event says.
-module(mod_convsync_feed_host).

-export([put/2, put_all/2, put_in/3, put_later/2, settle/0, stream/1, fail/1, covered/1, server_host/1, hosts/0, subscribe/4, ack/4, reply/3, send/2, status/1,
         owner/1]).
%% For the owner.
-export([name/1, local/1, open/3, close/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("convsync_feed.hrl").

-define(PATIENCE, 3000).       % an event waits this long to be written, ms
-define(BREAK, 10000).         % after that nobody waits for this long, ms
-define(LATER, 50).            % events that a process may have on their way without waiting

%% In a process's dictionary: it goes with the process and not with a session's state, which hooks copy, drop and hand on.
-type later() :: {binary(), pid(), [mod_convsync_feed_event:written()]}. % newest first

%% Durable when it returns ok. A failure is counted and becomes a gap.
-spec put(binary(), xmlel()) -> {ok, binary()} | {error, term()}.
put(Host, Event) ->
    put_all(Host, [Event]).

%% One behind the other.
-spec put_all(binary(), [xmlel()]) -> {ok, binary()} | {error, term()}.
put_all(Host, Events) ->
    written(Host, put_behind(erase(?MODULE), Host, [mod_convsync_feed_event:written(E) || E <- Events])).

%% Durable when `settle/0` has returned, or the next put of this process; in order with those.
-spec put_later(binary(), xmlel()) -> ok.
put_later(Host, Event) ->
    Later = erlang:get(?MODULE),
    case global:whereis_name(name(Host)) of
        Pid when is_pid(Pid), Later =:= undefined orelse element(2, Later) =:= Pid ->
            Written = mod_convsync_feed_event:written(Event),
            gen_server:cast(Pid, {put, [Written]}),
            Events = [Written | earlier(Later)],
            erlang:put(?MODULE, {Host, Pid, Events}),
            length(Events) >= ?LATER andalso settle(),
            ok;
        _ ->
            _ = put_all(Host, [Event]),
            ok
    end.

%% Waits for what this process has put and not waited for.
-spec settle() -> ok.
settle() ->
    case erlang:get(?MODULE) of
        undefined -> ok;
        {Host, _, Events} ->
            _ = put_all(Host, []),
            lists:foreach(fun(_) -> mod_convsync_feed_guard:count(Host, events) end, tl(Events))
    end.

-spec earlier(undefined | later()) -> [mod_convsync_feed_event:written()].
earlier(undefined) -> [];
earlier({_, _, Events}) -> Events.

%% What went to an owner that is no more, or is one no more, is put again: the component takes a message once.
-spec put_behind(undefined | later(), binary(), [mod_convsync_feed_event:written()]) -> {ok, binary()} | {error, term()}.
put_behind(undefined, Host, Events) ->
    ask(Host, {put, any, Events});
put_behind({_, Pid, Earlier}, Host, Events) ->
    case is_given_up(Host) of
        true -> {error, unavailable};
        false -> put_behind(Pid, lists:reverse(Earlier, Events), Host, Events)
    end.

-spec put_behind(pid(), Events, binary(), Events) -> {ok, binary()} | {error, term()} when Events :: [mod_convsync_feed_event:written()].
put_behind(Pid, All, Host, Events) ->
    try gen_server:call(Pid, {put, any, Events}, ?PATIENCE) of
        {error, Reason} when Reason =:= 'not-owner'; Reason =:= deposed -> ask(Host, {put, any, All});
        Answer -> Answer
    catch
        exit:{timeout, _} ->
            {_, _, Broken} = persistent_term:get({?MODULE, Host}),
            give_up(Broken, timeout);
        exit:_ -> ask(Host, {put, any, All})
    end.

-spec is_given_up(binary()) -> boolean().
is_given_up(Host) ->
    case persistent_term:get({?MODULE, Host}, undefined) of
        undefined -> true;
        {_, _, Broken} -> atomics:get(Broken, 1) > erlang:monotonic_time(millisecond)
    end.

%% All of them, one behind the other, in that stream, or none: `other` when another stream has begun.
-spec put_in(binary(), binary(), [xmlel()]) -> ok | {other, binary()} | {error, term()}.
put_in(Host, Stream, Events) ->
    case written(Host, ask(Host, {put, Stream, [mod_convsync_feed_event:written(E) || E <- Events]})) of
        {ok, Stream} -> ok;
        Other -> Other
    end.

%% The stream that the next event will be of.
-spec stream(binary()) -> {ok, binary()} | {error, term()}.
stream(Host) ->
    ask(Host, stream).

-spec written(binary(), T) -> T.
written(Host, {error, Reason} = Error) ->
    ?ERROR_MSG("An event of ~ts was lost, the outbox cannot be written: ~p", [Host, Reason]),
    mod_convsync_feed_guard:count(Host, lost),
    fail(Host),
    Error;
written(Host, {ok, _} = Result) ->
    mod_convsync_feed_guard:count(Host, events),
    Result;
written(_, Result) ->
    Result.

%% Asks the owner, wherever it is. While the owner moves the caller waits; when it does not come, nobody waits for a while.
-spec ask(binary(), term()) -> term() | {error, term()}.
ask(Host, Request) ->
    Now = erlang:monotonic_time(millisecond),
    case is_given_up(Host) orelse persistent_term:get({?MODULE, Host}, undefined) of
        {_, _, Broken} -> ask(Host, Request, Broken, Now + ?PATIENCE);
        _ -> {error, unavailable}
    end.

-spec ask(binary(), term(), atomics:atomics_ref(), integer()) -> term() | {error, term()}.
ask(Host, Request, Broken, Deadline) ->
    Left = Deadline - erlang:monotonic_time(millisecond),
    try gen_server:call({global, name(Host)}, Request, max(1, Left)) of
        {error, 'not-owner'} when Left > 0 -> again(Host, Request, Broken, Deadline);
        Answer -> Answer
    catch
        exit:{timeout, _} -> give_up(Broken, timeout);
        exit:{_, _} when Left =< 0 -> give_up(Broken, 'no-owner');
        exit:_ -> again(Host, Request, Broken, Deadline)
    end.

-spec again(binary(), term(), atomics:atomics_ref(), integer()) -> term() | {error, term()}.
again(Host, Request, Broken, Deadline) ->
    timer:sleep(10),
    ask(Host, Request, Broken, Deadline).

-spec give_up(atomics:atomics_ref(), atom()) -> {error, atom()}.
give_up(Broken, Reason) ->
    atomics:put(Broken, 1, erlang:monotonic_time(millisecond) + ?BREAK),
    {error, Reason}.

%% An event may be missing: the owner is told, now or when there is one.
-spec fail(binary()) -> ok.
fail(Host) ->
    gen_server:cast(local(Host), {fail, 'write-failed'}).

%% Whether a domain is a rooms' host with a feed of its own.
-spec covered(binary()) -> boolean().
covered(Domain) ->
    case persistent_term:get({?MODULE, Domain}, undefined) of
        {rooms, _, _} -> true;
        _ -> false
    end.

%% The VirtualHost that a host with a feed belongs to.
-spec server_host(binary()) -> binary() | undefined.
server_host(Host) ->
    case persistent_term:get({?MODULE, Host}, undefined) of
        {_, ServerHost, _} -> ServerHost;
        undefined -> undefined
    end.

-spec hosts() -> [binary()].
hosts() ->
    lists:sort([Host || {{?MODULE, Host}, _} <- persistent_term:get()]).

%% A component on its connection subscribes; the answer and what follows come from the owner, in order.
-spec subscribe(binary(), iq(), pid(), {#{binary() => non_neg_integer()}, {[{binary(), binary()}], [xmlel()]}}) ->
          ok | {error, term()}.
subscribe(Host, IQ, Connection, Subscription) ->
    ask(Host, {subscribe, IQ, Connection, Subscription}).

-spec ack(binary(), pid(), binary(), binary()) -> ok.
ack(Host, Connection, Stream, N) ->
    gen_server:cast({global, name(Host)}, {ack, Connection, Stream, N}).

%% An answer that comes behind everything that was sent before.
-spec reply(binary(), pid(), stanza()) -> ok.
reply(Host, Connection, Answer) ->
    case ask(Host, {reply, Connection, Answer}) of
        ok -> ok;
        {error, _} -> send(Connection, Answer)
    end.

-spec status(binary()) -> [{atom(), integer()}].
status(Host) ->
    case ask(Host, status) of
        {error, _} -> [];
        Status -> Status
    end.

%% The node that writes the host's feed.
-spec owner(binary()) -> node() | undefined.
owner(Host) ->
    case global:whereis_name(name(Host)) of
        undefined -> undefined;
        Pid -> node(Pid)
    end.

%% To the connection itself, not to the component's address: with two connections of one address order would be lost.
-spec send(pid(), stanza()) -> ok.
send(Connection, Stanza) ->
    _ = ejabberd_cluster:send(Connection, {route, Stanza}),
    ok.

%%% For the owner

%% The owner's name in the cluster, and that of the process on this node.
-spec name(binary()) -> term().
name(Host) ->
    {?MODULE, Host}.

-spec local(binary()) -> atom().
local(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%% From now on the host has a feed.
-spec open(users | rooms, binary(), binary()) -> ok.
open(Kind, Host, ServerHost) ->
    Broken = atomics:new(1, []),
    atomics:put(Broken, 1, erlang:monotonic_time(millisecond)),
    persistent_term:put({?MODULE, Host}, {Kind, ServerHost, Broken}).

-spec close(binary()) -> ok.
close(Host) ->
    _ = persistent_term:erase({?MODULE, Host}),
    ok.
