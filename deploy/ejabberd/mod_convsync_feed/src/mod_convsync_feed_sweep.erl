%%% Lets every room of a host that lives on this node look at itself from time to time: administrators' commands and other
%%% programs change rooms without a word, and where nobody is in the room nothing else tells of it. A look at a room in which
%%% nothing happened costs some microseconds.

-module(mod_convsync_feed_sweep).
-behaviour(gen_server).

-export([start/1, stop/1, start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(INTERVAL, 10000). % ms

-spec start(binary()) -> ok.
start(MucHost) ->
    {ok, _} = supervisor:start_child(ejabberd_gen_mod_sup,
                                     #{id => id(MucHost), start => {?MODULE, start_link, [MucHost]}, restart => transient}),
    ok.

-spec stop(binary()) -> ok.
stop(MucHost) ->
    _ = supervisor:terminate_child(ejabberd_gen_mod_sup, id(MucHost)),
    _ = supervisor:delete_child(ejabberd_gen_mod_sup, id(MucHost)),
    ok.

-spec id(binary()) -> {module(), binary()}.
id(MucHost) -> {?MODULE, MucHost}.

-spec start_link(binary()) -> {ok, pid()}.
start_link(MucHost) ->
    gen_server:start_link(?MODULE, MucHost, []).

-spec init(binary()) -> {ok, binary()}.
init(MucHost) ->
    self() ! sweep,
    {ok, MucHost}.

-spec handle_info(term(), binary()) -> {noreply, binary()}.
handle_info(sweep, MucHost) ->
    erlang:send_after(?INTERVAL, self(), sweep),
    _ = mod_convsync_feed_guard:attempt(MucHost, fun() -> sweep(MucHost) end),
    {noreply, MucHost};
handle_info(_, MucHost) ->
    {noreply, MucHost}.

-spec sweep(binary()) -> ok.
sweep(MucHost) ->
    _ = [mod_convsync_feed_room:look_at(Process, jid:make(Name, MucHost))
         || {Name, _, Process} <- mod_muc:get_online_rooms(MucHost), node(Process) =:= node()],
    ok.

-spec handle_call(term(), gen_server:from(), binary()) -> {reply, ignored, binary()}.
handle_call(_, _, MucHost) -> {reply, ignored, MucHost}.

-spec handle_cast(term(), binary()) -> {noreply, binary()}.
handle_cast(_, MucHost) -> {noreply, MucHost}.
