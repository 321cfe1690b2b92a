%%% What stands between a mistake in this module and the server's users: whatever fails in a callback is logged,
%%% counted and made a gap of the feed, and the stanza goes on as if the module were not there. Keeps the counters.
-module(mod_convsync_feed_guard).

-export([attempt/2, attempt/3, attempt_request/3, count/2, counters/1, open/1]).
-export_type([counter/0]).

-include("logger.hrl").

-type counter() :: events | errors | gaps | refused | bad_acks | lost.

-define(COUNTERS, [events, errors, gaps, refused, bad_acks, lost]).

%% Makes the host's counters, unless they are there: they live as long as the server runs.
-spec open(binary()) -> ok.
open(Host) ->
    case persistent_term:get({?MODULE, Host}, undefined) of
        undefined -> persistent_term:put({?MODULE, Host}, counters:new(length(?COUNTERS), []));
        _ -> ok
    end.

-spec count(binary(), counter()) -> ok.
count(Host, Name) ->
    case persistent_term:get({?MODULE, Host}, undefined) of
        undefined -> ok;
        Counters -> counters:add(Counters, place(Name, ?COUNTERS, 1), 1)
    end.

-spec place(counter(), [counter()], pos_integer()) -> pos_integer().
place(Name, [Name | _], N) -> N;
place(Name, [_ | Rest], N) -> place(Name, Rest, N + 1).

-spec counters(binary()) -> [{counter(), non_neg_integer()}].
counters(Host) ->
    case persistent_term:get({?MODULE, Host}, undefined) of
        undefined -> [];
        Counters -> [{Name, counters:get(Counters, place(Name, ?COUNTERS, 1))} || Name <- ?COUNTERS]
    end.

%% Runs a callback's work; `failed` when it failed.
-spec attempt(binary(), fun(() -> T)) -> T | failed.
attempt(Host, Work) ->
    attempt(Host, Work, failed).

%% As attempt/2, with what a failure returns.
-spec attempt(binary(), fun(() -> T), T) -> T.
attempt(Host, Work, Otherwise) ->
    try Work()
    catch
        Class:Reason:Stack ->
            failed(Host, "A callback failed, an event may be missing", {Class, Reason, Stack}),
            catch mod_convsync_feed_host:fail(Host),
            Otherwise
    end.

%% The work of a request: no event is lost when it fails.
-spec attempt_request(binary(), fun(() -> T), T) -> T.
attempt_request(Host, Work, Otherwise) ->
    try Work()
    catch
        Class:Reason:Stack ->
            failed(Host, "A request failed", {Class, Reason, Stack}),
            Otherwise
    end.

%% The reason is logged without its terms: they may hold what users wrote.
-spec failed(binary(), string(), {atom(), term(), [term()]}) -> ok.
failed(Host, What, {Class, Reason, Stack}) ->
    count(Host, errors),
    ?ERROR_MSG("~ts (convsync_feed, ~ts): ~ts", [What, Host, describe(Class, Reason, Stack)]).

-spec describe(atom(), term(), [term()]) -> iolist().
describe(Class, Reason, Stack) ->
    Kind = case Reason of
               _ when is_atom(Reason) -> Reason;
               _ when is_tuple(Reason), is_atom(element(1, Reason)) -> element(1, Reason);
               _ -> other
           end,
    io_lib:format("~p:~p in ~p", [Class, Kind, [frame(F) || F <- lists:sublist(Stack, 6)]]).

-spec frame(term()) -> term().
frame({M, F, A, Where}) when is_list(A) -> {M, F, length(A), proplists:get_value(line, Where)};
frame({M, F, A, Where}) -> {M, F, A, proplists:get_value(line, Where)};
frame(_) -> unknown.
