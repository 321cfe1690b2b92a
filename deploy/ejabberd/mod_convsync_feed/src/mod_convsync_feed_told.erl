%%% Which archived messages were told lately, in events that the outbox holds or held a moment ago. What was archived and is not
%%% among them was not told: the server was killed between the two. Decides what is kept for that; refuses to know the archive.
%%%
%%% An event that is acknowledged leaves its archive id behind, for a while: one row for all that go at a time.
-module(mod_convsync_feed_told).

-export([notes/2, forget/1, known/2, key/2]).
-export_type([known/0]).

-include("convsync_feed.hrl").

-define(KEPT, 60000000). % µs; the replay asks for less

%% Of `key/2`.
-type known() :: #{binary() => told}.

-spec key(binary(), binary()) -> binary().
key(Account, Id) ->
    <<Account/binary, $\s, Id/binary>>.

%% What is to be written when these events go.
-spec notes(binary(), [binary()]) -> [#convsync_event{}].
notes(Host, Texts) ->
    case lists:flatmap(fun archived/1, Texts) of
        [] -> [];
        Keys ->
            At = mod_convsync_feed_event:clock(),
            Key = {Host, told, {At, erlang:unique_integer()}},
            [#convsync_event{key = Key, at = At, xml = iolist_to_binary(lists:join($\n, Keys))}]
    end.

%% Removes notes that nobody will ask for.
-spec forget(binary()) -> ok.
forget(Host) ->
    Until = mod_convsync_feed_event:clock() - ?KEPT,
    Notes = #convsync_event{key = {Host, told, '$1'}, at = '$2', _ = '_'},
    Old = mnesia:dirty_select(convsync_event, [{Notes, [{'<', '$2', Until}], ['$1']}]),
    lists:foreach(fun(At) -> mnesia:dirty_delete(convsync_event, {Host, told, At}) end, Old).

%% What was told from then on (µs).
-spec known(binary(), integer()) -> known().
known(Host, From) ->
    Events = #convsync_event{key = {Host, '$1', '_'}, at = '$2', xml = '$3'},
    Rows = mnesia:dirty_select(convsync_event, [{Events, [{'>=', '$2', From}], [{{'$1', '$3'}}]}]),
    maps:from_list([{Key, told} || Row <- Rows, Key <- keys(Row)]).

-spec keys({pos_integer() | told, binary()}) -> [binary()].
keys({told, Keys}) -> binary:split(Keys, <<"\n">>, [global]);
keys({_, Text}) -> archived(Text).

%% Of an event's text; names of accounts have nothing that would have to be escaped.
-spec archived(binary()) -> [binary()].
archived(Text) ->
    {End, _} = binary:match(Text, <<">">>),
    Head = binary:part(Text, 0, End),
    case {value(<<" account='">>, Head), value(<<" archive-id='">>, Head)} of
        {Account, Id} when is_binary(Account), is_binary(Id) -> [key(Account, Id)];
        _ -> []
    end.

-spec value(binary(), binary()) -> binary() | none.
value(Name, Head) ->
    case binary:match(Head, Name) of
        {At, Length} ->
            [Value | _] = binary:split(binary:part(Head, At + Length, byte_size(Head) - At - Length), <<"'">>),
            Value;
        nomatch -> none
    end.
