%%% One component's subscription: which events it has been sent, which it has acked, what it may be sent next.
%%%
%%% Decides the window, the batches, which acks count, who has lost memory. Refuses to know where events are kept (the
%%% outbox) and what they say. It is state and arithmetic: the owner of the stream sends what comes out.
-module(mod_convsync_feed_window).

-export([new/4, connection/1, monitor/1, component/1, ack/4, pump/3, hello/3]).
-export_type([window/0]).

-include("xmpp.hrl").
-include("convsync_feed.hrl").

%% marks: by a stream's order, the last n sent and {n, bytes} of what is on its way.
-type mark() :: {non_neg_integer(), queue:queue({pos_integer(), pos_integer()})}.
-type window() :: #{connection := pid(), monitor := reference(), component := jid(), regressed := [binary()],
                    marks := #{pos_integer() => mark()}}.
-type outbox() :: mod_convsync_feed_outbox:outbox().
-type batch() :: {binary(), xmlel()}.
%% By a stream's order and n: events that were written a moment ago and need not be read.
-type fresh() :: #{{pos_integer(), pos_integer()} => mod_convsync_feed_event:written()}.

%% told: stream id → the last n that the component has committed. What it claims is an ack.
-spec new(outbox(), pid(), jid(), #{binary() => non_neg_integer()}) -> {window(), outbox()}.
new(#{streams := Streams} = Outbox, Connection, Component, Told) ->
    Window = #{connection => Connection, monitor => erlang:monitor(process, Connection), component => Component,
               regressed => [Id || #{id := Id, acked := Acked} <- Streams, maps:get(Id, Told, 0) < Acked], marks => #{}},
    Acked = lists:foldl(fun(#{id := Id, high := High}, O) ->
                                mod_convsync_feed_outbox:ack(O, Id, min(maps:get(Id, Told, 0), High))
                        end, Outbox, Streams),
    {Window, Acked}.

-spec connection(window()) -> pid().
connection(#{connection := Pid}) -> Pid.

-spec monitor(window()) -> reference().
monitor(#{monitor := Ref}) -> Ref.

-spec component(window()) -> jid().
component(#{component := Component}) -> Component.

-spec mark(window(), mod_convsync_feed_outbox:stream()) -> mark().
mark(#{marks := Marks}, #{order := Order, acked := Acked}) ->
    maps:get(Order, Marks, {Acked, queue:new()}).

%% An ack that counts moves the outbox; any other is an error with its reason.
-spec ack(window(), outbox(), binary(), binary()) -> {ok, window(), outbox()} | {error, string()}.
ack(#{marks := Marks} = Window, Outbox, Id, Text) ->
    case {number(Text), mod_convsync_feed_outbox:find(Outbox, Id)} of
        {error, _} -> {error, "not a number"};
        {_, undefined} -> {error, "unknown stream"};
        {N, #{order := Order} = Stream} ->
            case mark(Window, Stream) of
                {Sent, _} when N > Sent -> {error, "never sent"};
                {Sent, Flight} ->
                    Left = settle(N, Flight),
                    {ok, Window#{marks := Marks#{Order => {Sent, Left}}}, mod_convsync_feed_outbox:ack(Outbox, Id, N)}
            end
    end.

-spec number(binary()) -> non_neg_integer() | error.
number(Text) when byte_size(Text) > 0, byte_size(Text) =< 15 ->
    case lists:all(fun(C) -> C >= $0 andalso C =< $9 end, binary_to_list(Text)) of
        true -> binary_to_integer(Text);
        false -> error
    end;
number(_) ->
    error.

-spec settle(non_neg_integer(), queue:queue()) -> queue:queue().
settle(N, Flight) ->
    case queue:peek(Flight) of
        {value, {M, _}} when M =< N -> settle(N, queue:drop(Flight));
        _ -> Flight
    end.

%% What the window allows now, the oldest stream first. `unreadable`: an event's row has gone; the rest waits.
%% Newest: the last events of the current stream.
-spec pump(window(), outbox(), [mod_convsync_feed_event:written()]) ->
          {ok | {unreadable, binary(), pos_integer()}, [batch()], window()}.
pump(#{marks := Marks} = Window, #{streams := Streams} = Outbox, Newest) ->
    Alive = maps:with([Order || #{order := Order} <- Streams], Marks), % streams that were given up take their marks along
    Flying = lists:foldl(fun({_, Flight}, Sum) -> queue:fold(fun add/2, Sum, Flight) end, {0, 0}, maps:values(Alive)),
    pump(Streams, Window#{marks := Alive}, {Outbox, fresh(Outbox, Newest)}, Flying, []).

-spec fresh(outbox(), [mod_convsync_feed_event:written()]) -> fresh().
fresh(_, []) ->
    #{};
fresh(Outbox, Newest) ->
    #{order := Order, high := High} = mod_convsync_feed_outbox:current(Outbox),
    maps:from_list(lists:zip([{Order, N} || N <- lists:seq(High - length(Newest) + 1, High)], Newest)).

-spec add({pos_integer(), pos_integer()}, {non_neg_integer(), non_neg_integer()}) -> {pos_integer(), pos_integer()}.
add({_, Size}, {Count, Bytes}) ->
    {Count + 1, Bytes + Size}.

-spec pump([mod_convsync_feed_outbox:stream()], window(), {outbox(), fresh()}, {non_neg_integer(), non_neg_integer()}, [batch()]) ->
          {ok | {unreadable, binary(), pos_integer()}, [batch()], window()}.
pump([], Window, _, _, Batches) ->
    {ok, lists:reverse(Batches), Window};
pump([#{order := Order, id := Id, high := High} = Stream | Later] = Streams, #{marks := Marks} = Window, Source, Flying, Batches) ->
    case mark(Window, Stream) of
        {Sent, _} when Sent >= High ->
            pump(Later, Window, Source, Flying, Batches);
        {Sent, Flight} ->
            case collect(Source, Stream, Sent + 1, Flying, Flight, 0, 0, []) of
                {error, N} ->
                    {{unreadable, Id, N}, lists:reverse(Batches), Window};
                {[], _, _, _} ->
                    {ok, lists:reverse(Batches), Window};
                {Events, Last, Flying1, Flight1} ->
                    Window1 = Window#{marks := Marks#{Order => {Last, Flight1}}},
                    Batch = feed(Stream, Events, Last, behind(Window1, element(1, Source))),
                    pump(Streams, Window1, Source, Flying1, [Batch | Batches])
            end
    end.

%% The events of one batch, from n on.
-spec collect({outbox(), fresh()}, mod_convsync_feed_outbox:stream(), pos_integer(), {non_neg_integer(), non_neg_integer()},
              queue:queue(), non_neg_integer(), non_neg_integer(), [xmlel()]) ->
          {[xmlel()], non_neg_integer(), {non_neg_integer(), non_neg_integer()}, queue:queue()} | {error, pos_integer()}.
collect(_, #{high := High}, N, {Count, Flown} = Flying, Flight, Taken, Bytes, Events)
  when N > High; Taken >= ?BATCH_EVENTS; Bytes >= ?BATCH_BYTES; Count >= ?WINDOW_EVENTS; Flown >= ?WINDOW_BYTES ->
    {lists:reverse(Events), N - 1, Flying, Flight};
collect(Source, Stream, N, {Count, Flown} = Flying, Flight, Taken, Bytes, Events) ->
    case read(Source, Stream, N) of
        {Size, _} when Taken > 0, Bytes + Size > ?BATCH_BYTES ->
            {lists:reverse(Events), N - 1, Flying, Flight};
        {Size, #xmlel{} = Event} ->
            collect(Source, Stream, N + 1, {Count + 1, Flown + Size}, queue:in({N, Size}, Flight), Taken + 1,
                    Bytes + Size, [Event | Events]);
        _ ->
            {error, N}
    end.

%% An event and how long its text is.
-spec read({outbox(), fresh()}, mod_convsync_feed_outbox:stream(), pos_integer()) ->
          {pos_integer(), xmlel() | {error, term()}} | error.
read({#{host := Host}, Fresh}, #{order := Order}, N) ->
    case Fresh of
        #{{Order, N} := {Text, Event}} ->
            {byte_size(Text), mod_convsync_feed_event:numbered(N, Event)};
        _ ->
            case mod_convsync_feed_outbox:read(Host, Order, N) of
                {ok, Text} -> {byte_size(Text), mod_convsync_feed_event:element(N, Text)};
                error -> error
            end
    end.

%% Events of all streams that have not been sent.
-spec behind(window(), outbox()) -> non_neg_integer().
behind(Window, #{streams := Streams}) ->
    lists:sum([max(0, High - element(1, mark(Window, S))) || #{high := High} = S <- Streams]).

-spec feed(mod_convsync_feed_outbox:stream(), [xmlel()], pos_integer(), non_neg_integer()) -> batch().
feed(#{id := Id, high := High}, Events, Last, Behind) ->
    Attributes = [{<<"xmlns">>, ?NS_FEED}, {<<"stream">>, Id}, {<<"shard">>, <<"0">>},
                  {<<"last">>, integer_to_binary(Last)}, {<<"head">>, integer_to_binary(High)},
                  {<<"behind">>, integer_to_binary(Behind)}],
    {Id, #xmlel{name = <<"feed">>, attrs = Attributes, children = Events}}.

%% `sessions`: children of the hello; `more`: attributes beside the usual ones.
-spec hello(window(), outbox(), {[{binary(), binary()}], [xmlel()]}) -> xmlel().
hello(#{regressed := Regressed}, #{host := Host, streams := Streams}, {More, Sessions}) ->
    Attributes = [{<<"xmlns">>, ?NS_FEED}, {<<"version">>, <<"1">>}, {<<"server">>, <<"ejabberd">>},
                  {<<"server-version">>, ejabberd_option:version()}, {<<"module-version">>, ?FEED_VERSION},
                  {<<"host">>, Host}, {<<"shard">>, <<"0">>}, {<<"ordered-archive">>, <<"false">>} | More],
    Current = lists:last(Streams),
    Listed = [stream(S, S =:= Current) || S <- Streams],
    Lost = [#xmlel{name = <<"regressed">>, attrs = [{<<"stream">>, Id}]} || Id <- Regressed],
    #xmlel{name = <<"hello">>, attrs = Attributes, children = Listed ++ Lost ++ Sessions}.

-spec stream(mod_convsync_feed_outbox:stream(), boolean()) -> xmlel().
stream(#{id := Id, acked := Acked, high := High}, IsCurrent) ->
    Attributes = [{<<"id">>, Id}, {<<"low">>, integer_to_binary(Acked + 1)}, {<<"high">>, integer_to_binary(High)},
                  {<<"acked">>, integer_to_binary(Acked)}],
    #xmlel{name = <<"stream">>, attrs = Attributes ++ [{<<"current">>, <<"true">>} || IsCurrent]}.
