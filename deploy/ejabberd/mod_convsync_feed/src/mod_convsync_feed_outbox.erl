%%% The durable outbox of one host: its streams and their events, in two Mnesia tables that every node of a cluster
%%% holds in RAM and on disk.
%%%
%%% Decides where an event lives, when it goes, what missing rows mean. Refuses to know what an event says and who reads
%%% it. Mnesia's log is kept in memory for up to 64 kB or 2 s, so a commit ends with a flush (mod_convsync_feed_disk): what was
%%% answered `ok` survives a kill -9, and a power cut too where the disk keeps its word. Where it does not, Mnesia mends its
%%% log in silence: a mark in the tables says whose machine they lived on. One process calls this for a host: the owner of the stream.
-module(mod_convsync_feed_outbox).

-export([tables/0, open/3, append/2, gap/2, give_up/3, ack/3, read/3, save/1, sweep/1, mark/1, replayed/1, close/1, find/2, current/1,
         full/1, unloaded/1, was_unloaded/1]).
-export([boot/0]). % for the other nodes
-export_type([outbox/0, stream/0]).

-include("logger.hrl").
-include("convsync_feed.hrl").

%% `low`: the lowest n whose row is still there; the rows up to `acked` go with the next save.
-type stream() :: #{order := pos_integer(), id := binary(), acked := non_neg_integer(), high := non_neg_integer(),
                    low := pos_integer()}.
-type options() :: #{max_bytes := pos_integer(), max_age := pos_integer() | infinity, sync := boolean()}.
%% `spent`: streams that were given up, by their order, and of which rows may be left. `since`: the outbox was not closed, and
%% what was archived from then on may not have been told, except what is known to be. `marked`: when it was last written down
%% that there is no such time.
-type outbox() :: #{host := binary(), options := options(), streams := [stream()], bytes := non_neg_integer(),
                    dirty := boolean(), spent := [pos_integer()], since := undefined | {pos_integer(), mod_convsync_feed_told:known()},
                    marked := integer()}.

-define(ROW_BYTES, 200). % what a row takes in RAM beside its text
-define(SAVED, 500).     % rows removed in one transaction
-define(SWEPT, 5000).    % rows of streams that were given up removed at a time: some 0.1 s
%% From the archive to here a message takes no longer, µs; and so often it is written down that all came.
-define(MARK, 10000000).
-define(BOOT_ID, "/proc/sys/kernel/random/boot_id"). % Linux: proc_sys_kernel(5)
-define(ANSWER, 5000).   % another node says within this time when its machine was started, ms

-spec tables() -> ok.
tables() ->
    {atomic, ok} = ejabberd_mnesia:create(?MODULE, convsync_stream,
                                          [{disc_copies, [node()]}, {attributes, record_info(fields, convsync_stream)}]),
    {atomic, ok} = ejabberd_mnesia:create(?MODULE, convsync_event,
                                          [{disc_copies, [node()]}, {type, ordered_set},
                                           {attributes, record_info(fields, convsync_event)}]),
    ok.

%% Takes what the tables hold of the host into account and begins a new stream; a gap where events were lost. `live`: the
%% tables have been in this node's memory since before the last owner went, so that its end cost them nothing; `disk`: not so.
-spec open(binary(), options(), live | disk) -> outbox().
open(Host, Options, From) ->
    Rows = lists:keysort(#convsync_stream.key, rows(Host)),
    Streams = [R || #convsync_stream{key = {_, Order}} = R <- Rows, is_integer(Order)],
    Outbox = #{host => Host, options => Options, streams => [], bytes => 0, dirty => false, since => undefined,
               marked => 0, spent => spent(Host, [Order || #convsync_stream{key = {_, Order}} <- Streams], 0)},
    {Found, Lost} = lists:foldl(fun(Row, {O, L}) -> recover(Row, O, L) end, {Outbox, false}, Streams),
    Doubtful = From =:= disk andalso [Id || #convsync_stream{key = {_, {running, N}}, id = Id} <- Rows, doubtful(N, Id)] =/= [],
    Doubtful andalso
        ?ERROR_MSG("The outbox of ~ts was not closed before its machine was started anew: events may be missing", [Host]),
    Unloaded = [K || #convsync_stream{key = {_, {unloaded, _}} = K} <- Rows],
    Running = [K || #convsync_stream{key = {_, {running, N}} = K} <- Rows, N =/= node()],
    Opened = if Lost; Doubtful -> gap(Found, torn);
                Unloaded =/= [] -> gap(Found, unloaded);
                true -> begin_stream(Found#{since := since(Host, Rows)}, [])
             end,
    lists:foreach(fun(K) -> mnesia:dirty_delete(convsync_stream, K) end, Unloaded ++ Running),
    forget(Opened).

%% Whether events may be missing without a trace in tables that were not closed. What the owner wrote outlives the node, not
%% the machine; the other nodes' copies of it may be two seconds behind on their disks.
-spec doubtful(node(), binary()) -> boolean().
doubtful(Owner, Boot) ->
    Boot =:= <<>> orelse mnesia:table_info(convsync_event, load_node) =/= Owner
        orelse rpc:call(Owner, ?MODULE, boot, [], ?ANSWER) =/= Boot.

-spec since(binary(), [#convsync_stream{}]) -> undefined | {pos_integer(), mod_convsync_feed_told:known()}.
since(Host, Rows) ->
    case [At || #convsync_stream{key = {_, {running, _}}, acked = At} <- Rows, At > 0] of
        [] -> undefined;
        Marks ->
            From = lists:min(Marks),
            {From, mod_convsync_feed_told:known(Host, From)}
    end.

%% This start of the machine; empty where the system does not tell.
-spec boot() -> binary().
boot() ->
    case file:read_file(?BOOT_ID) of
        {ok, Text} -> string:trim(Text);
        {error, _} -> <<>>
    end.

%% Streams of which there is nothing but events: they were given up, and the node was stopped before all was removed.
-spec spent(binary(), [pos_integer()], non_neg_integer()) -> [pos_integer()].
spent(Host, Known, After) ->
    case mnesia:dirty_next(convsync_event, {Host, After, last}) of % an atom is behind every number
        {Host, Order, _} when is_integer(Order) -> [Order || not lists:member(Order, Known)] ++ spent(Host, Known, Order);
        _ -> []
    end.

-spec rows(binary()) -> [#convsync_stream{}].
rows(Host) ->
    mnesia:dirty_select(convsync_stream, [{#convsync_stream{key = {Host, '_'}, _ = '_'}, [], ['$_']}]).

%% One stream of before. What follows a hole is dropped: n has no gaps.
-spec recover(#convsync_stream{}, outbox(), boolean()) -> {outbox(), boolean()}.
recover(#convsync_stream{key = {Host, Order}, id = Id, acked = Acked, high = Claimed}, Outbox, Lost) ->
    {High, Bytes, Stray} = walk(Host, Order, Acked, 0, mnesia:dirty_next(convsync_event, {Host, Order, Acked})),
    lists:foreach(fun(K) -> mnesia:dirty_delete(convsync_event, K) end, Stray),
    Stray =/= [] andalso
        ?ERROR_MSG("Dropped ~b events of stream ~ts of ~ts: they follow a hole", [length(Stray), Id, Host]),
    Stream = #{order => Order, id => Id, acked => Acked, high => High, low => lowest(Host, Order, Acked)},
    {Outbox#{streams := maps:get(streams, Outbox) ++ [Stream], bytes := maps:get(bytes, Outbox) + Bytes},
     Lost orelse Stray =/= [] orelse High < Claimed}.

%% From n on: the last n without a hole before it, the bytes up to there, and the keys behind.
-spec walk(binary(), pos_integer(), non_neg_integer(), non_neg_integer(), term()) ->
          {non_neg_integer(), non_neg_integer(), [term()]}.
walk(Host, Order, N, Bytes, {Host, Order, Next} = Key) when Next =:= N + 1 ->
    walk(Host, Order, Next, Bytes + bytes(Key), mnesia:dirty_next(convsync_event, Key));
walk(Host, Order, N, Bytes, {Host, Order, _} = Key) ->
    {N, Bytes, stray(Host, Order, Key)};
walk(_, _, N, Bytes, _) ->
    {N, Bytes, []}.

-spec stray(binary(), pos_integer(), term()) -> [term()].
stray(Host, Order, {Host, Order, _} = Key) -> [Key | stray(Host, Order, mnesia:dirty_next(convsync_event, Key))];
stray(_, _, _) -> [].

%% Rows of before a mark that was written but whose removal was not: they go with the next save.
-spec lowest(binary(), pos_integer(), non_neg_integer()) -> pos_integer().
lowest(Host, Order, Acked) ->
    case mnesia:dirty_next(convsync_event, {Host, Order, 0}) of
        {Host, Order, N} when N =< Acked -> N;
        _ -> Acked + 1
    end.

-spec bytes(term()) -> non_neg_integer().
bytes(Key) ->
    case mnesia:dirty_read(convsync_event, Key) of
        [#convsync_event{xml = Text}] -> byte_size(Text) + ?ROW_BYTES;
        [] -> 0
    end.

-spec current(outbox()) -> stream().
current(#{streams := Streams}) ->
    lists:last(Streams).

-spec find(outbox(), binary()) -> stream() | undefined.
find(#{streams := Streams}, Id) ->
    case [S || #{id := I} = S <- Streams, I =:= Id] of
        [Stream] -> Stream;
        [] -> undefined
    end.

%% Writes events, given as their texts, at the end of the current stream: all of them or none.
-spec append(outbox(), [binary()]) -> {ok, outbox()} | {error, term()}.
append(#{host := Host, streams := Streams, bytes := Bytes, options := #{sync := Sync}} = Outbox, Texts) ->
    #{order := Order, high := High} = Stream = lists:last(Streams),
    Events = events(Host, Order, High, Texts),
    case mod_convsync_feed_disk:commit(fun() -> mod_convsync_feed_disk:write(Events) end, Sync) of
        ok ->
            Grown = Stream#{high := High + length(Texts)},
            Added = lists:sum([byte_size(T) + ?ROW_BYTES || T <- Texts]),
            {ok, Outbox#{streams := lists:droplast(Streams) ++ [Grown], bytes := Bytes + Added, dirty := true}};
        Error ->
            Error
    end.

-spec events(binary(), pos_integer(), non_neg_integer(), [binary()]) -> [#convsync_event{}].
events(Host, Order, High, Texts) ->
    At = mod_convsync_feed_event:clock(),
    [#convsync_event{key = {Host, Order, N}, at = At, xml = Text}
     || {N, Text} <- lists:zip(lists:seq(High + 1, High + length(Texts)), Texts)].

%% A new stream whose first event says that events were lost before it. With `full` all that is held is given up first:
%% whoever has to start over reads the archive anyway, and the newest events count.
-spec gap(outbox(), atom()) -> outbox().
gap(#{host := Host, streams := Streams} = Outbox, Reason) ->
    ?ERROR_MSG("The feed of ~ts has a gap (~ts): a new stream begins and the component starts over", [Host, Reason]),
    mod_convsync_feed_guard:count(Host, gaps),
    Emptied = case Reason of
                  full ->
                      Orders = [Order || #{order := Order} <- Streams],
                      lists:foreach(fun(Order) -> mnesia:dirty_delete(convsync_stream, {Host, Order}) end, Orders),
                      Outbox#{streams := [], bytes := 0, spent := maps:get(spent, Outbox) ++ Orders};
                  _ ->
                      save(Outbox)
              end,
    Gap = mod_convsync_feed_event:new(<<"gap">>, Host, [{<<"reason">>, atom_to_binary(Reason, utf8)}], []),
    {Text, _} = mod_convsync_feed_event:written(Gap),
    forget(begin_stream(Emptied, [Text])).

%% Event n of the stream turned out to be unreadable: what comes from there on is lost.
-spec give_up(outbox(), binary(), pos_integer()) -> outbox().
give_up(#{host := Host, streams := Streams} = Outbox, Id, N) ->
    Cut = fun(#{id := I, order := Order, acked := Acked} = S) when I =:= Id ->
                  lists:foreach(fun(K) -> mnesia:dirty_delete(convsync_event, K) end,
                                stray(Host, Order, mnesia:dirty_next(convsync_event, {Host, Order, N - 1}))),
                  S#{high := max(Acked, N - 1)};
             (S) -> S
          end,
    gap(Outbox#{streams := lists:map(Cut, Streams), dirty := true}, unreadable).

-spec begin_stream(outbox(), [binary()]) -> outbox().
begin_stream(#{host := Host, streams := Streams, options := #{sync := Sync}} = Outbox, Texts) ->
    Latest = case Streams of
                 [] -> 0;
                 _ -> maps:get(order, lists:last(Streams))
             end,
    Order = max(Latest + 1, mod_convsync_feed_event:clock()), % the clock may have gone back; the order of streams must not
    Id = base64url:encode(crypto:strong_rand_bytes(12)),
    Row = #convsync_stream{key = {Host, Order}, id = Id, high = length(Texts)},
    Boot = case Sync of
               true -> boot();
               false -> <<>> % a killed node loses events, too
           end,
    Now = mod_convsync_feed_event:clock(),
    Since = case Outbox of
                #{since := undefined} -> Now;
                #{since := {From, _}} -> From
            end,
    Running = #convsync_stream{key = {Host, {running, node()}}, id = Boot, acked = Since},
    Rows = [Running, Row | events(Host, Order, 0, Texts)],
    ok = mod_convsync_feed_disk:commit(fun() -> lists:foreach(fun mnesia:write/1, Rows) end, Sync),
    mod_convsync_feed_disk:flush(),
    Stream = #{order => Order, id => Id, acked => 0, high => length(Texts), low => 1},
    Bytes = lists:sum([byte_size(T) + ?ROW_BYTES || T <- Texts]),
    Outbox#{streams := Streams ++ [Stream], bytes := maps:get(bytes, Outbox) + Bytes, marked := Now}.

%% Everything of the stream up to n is committed elsewhere. Written down with the next save.
-spec ack(outbox(), binary(), non_neg_integer()) -> outbox().
ack(#{streams := Streams} = Outbox, Id, N) ->
    Acked = [case S of
                 #{id := Id, acked := A} when N > A -> S#{acked := N};
                 _ -> S
             end || S <- Streams],
    Marked = Outbox#{streams := Acked, dirty := true},
    case [S || #{id := I, low := Low} = S <- Acked, I =:= Id, N - Low >= ?SAVED] of
        [] -> Marked;
        _ -> save(Marked)
    end.

%% Writes the acks down and removes what they cover.
-spec save(outbox()) -> outbox().
save(#{dirty := false} = Outbox) ->
    Outbox;
save(#{streams := Streams} = Outbox) ->
    {Saved, Freed} = lists:mapfoldl(fun(S, Bytes) -> save_stream(Outbox, S, Bytes) end, 0, Streams),
    forget(Outbox#{streams := Saved, bytes := max(0, maps:get(bytes, Outbox) - Freed), dirty := false}).

-spec save_stream(outbox(), stream(), non_neg_integer()) -> {stream(), non_neg_integer()}.
save_stream(#{host := Host} = Outbox, #{order := Order, id := Id, acked := Acked, high := High, low := Low} = Stream, Freed) ->
    Upto = min(Acked, Low + ?SAVED - 1),
    Keys = [{Host, Order, N} || N <- lists:seq(Low, Upto)],
    Texts = [Text || K <- Keys, #convsync_event{xml = Text} <- mnesia:dirty_read(convsync_event, K)],
    Bytes = lists:sum([byte_size(T) + ?ROW_BYTES || T <- Texts]),
    Notes = mod_convsync_feed_told:notes(Host, Texts),
    Row = #convsync_stream{key = {Host, Order}, id = Id, acked = Acked, high = High},
    Work = fun() ->
                   mnesia:write(Row),
                   mod_convsync_feed_disk:write(Notes),
                   lists:foreach(fun(K) -> mnesia:delete({convsync_event, K}) end, Keys)
           end,
    case mnesia:transaction(Work) of
        {atomic, _} when Upto < Acked -> save_stream(Outbox, Stream#{low := Upto + 1}, Freed + Bytes);
        {atomic, _} -> {Stream#{low := Upto + 1}, Freed + Bytes};
        {aborted, Reason} ->
            ?ERROR_MSG("The feed's acks of ~ts cannot be written, events may be sent twice: ~p", [Host, Reason]),
            {Stream, Freed}
    end.

%% Removes some of what was given up. All of it at once would take longer than those wait who have an event.
-spec sweep(outbox()) -> outbox().
sweep(#{spent := []} = Outbox) ->
    Outbox;
sweep(#{host := Host, spent := [Order | Later]} = Outbox) ->
    case sweep(Host, Order, mnesia:dirty_next(convsync_event, {Host, Order, 0}), ?SWEPT) of
        done -> Outbox#{spent := Later};
        more -> Outbox
    end.

-spec sweep(binary(), pos_integer(), term(), non_neg_integer()) -> done | more.
sweep(_, _, _, 0) ->
    more;
sweep(Host, Order, {Host, Order, _} = Key, Left) ->
    Next = mnesia:dirty_next(convsync_event, Key),
    mnesia:dirty_delete(convsync_event, Key),
    sweep(Host, Order, Next, Left - 1);
sweep(_, _, _, _) ->
    done.

%% Writes down, every now and then and without a flush, up to when what was archived is told.
-spec mark(outbox()) -> outbox().
mark(#{since := undefined, marked := Marked, host := Host} = Outbox) ->
    Now = mod_convsync_feed_event:clock(),
    case abs(Now - Marked) >= ?MARK andalso mnesia:dirty_read(convsync_stream, {Host, {running, node()}}) of
        [Running] ->
            mnesia:dirty_write(Running#convsync_stream{acked = told(Running, Now)}),
            mod_convsync_feed_told:forget(Host),
            Outbox#{marked := Now};
        _ ->
            Outbox
    end;
mark(Outbox) ->
    Outbox.

%% What was archived before the outbox was opened is told, or a gap.
-spec told(#convsync_stream{}, integer()) -> integer().
told(#convsync_stream{acked = Before}, Now) when Before > Now -> Now - ?MARK; % the clock was set back
told(#convsync_stream{acked = Before}, Now) -> max(Before, Now - ?MARK).

%% What had been archived since then is told.
-spec replayed(outbox()) -> outbox().
replayed(Outbox) ->
    mark(Outbox#{since := undefined, marked := 0}).

%% The orderly end: nothing is missing, whatever machine opens the outbox next.
-spec close(outbox()) -> ok.
close(#{host := Host, since := Since} = Outbox) ->
    save(Outbox),
    [mnesia:dirty_delete(convsync_stream, K) || #convsync_stream{key = {_, {running, _}} = K} <- rows(Host), Since =:= undefined],
    mod_convsync_feed_disk:flush(),
    ok.

%% A finished stream is forgotten, except the newest one that has an ack: it is the mark by which a component whose
%% database was restored to before that stream is found out.
-spec forget(outbox()) -> outbox().
forget(#{streams := []} = Outbox) ->
    Outbox;
forget(#{host := Host, streams := Streams} = Outbox) ->
    [Current | Older] = lists:reverse(Streams),
    {Kept, _} = lists:foldl(
                  fun(#{acked := A, high := H} = S, {Keep, Marked}) ->
                          Mark = A > 0 andalso not Marked,
                          case H > A orelse Mark of
                              true -> {[S | Keep], Marked orelse Mark};
                              false -> remove(Host, S), {Keep, Marked}
                          end
                  end, {[], maps:get(acked, Current) > 0}, Older),
    Outbox#{streams := Kept ++ [Current]}.

-spec remove(binary(), stream()) -> ok.
remove(Host, #{order := Order}) ->
    mnesia:dirty_delete(convsync_stream, {Host, Order}),
    lists:foreach(fun(K) -> mnesia:dirty_delete(convsync_event, K) end,
                  stray(Host, Order, mnesia:dirty_next(convsync_event, {Host, Order, 0}))).

-spec read(binary(), pos_integer(), pos_integer()) -> {ok, binary()} | error.
read(Host, Order, N) ->
    case mnesia:dirty_read(convsync_event, {Host, Order, N}) of
        [#convsync_event{xml = Text}] -> {ok, Text};
        [] -> error
    end.

%% Whether what is held is more, or older, than it may be.
-spec full(outbox()) -> boolean().
full(#{bytes := Bytes, options := #{max_bytes := Max}}) when Bytes > Max ->
    true;
full(#{options := #{max_age := infinity}}) ->
    false;
full(#{host := Host, streams := Streams, options := #{max_age := Age}}) ->
    case [S || #{acked := A, high := H} = S <- Streams, H > A] of
        [#{order := Order, acked := Acked} | _] ->
            case mnesia:dirty_read(convsync_event, {Host, Order, Acked + 1}) of
                [#convsync_event{at = At}] -> mod_convsync_feed_event:clock() - At > Age * 1000;
                [] -> false
            end;
        [] ->
            false
    end.

%% An operator unloads the module on this node while the server runs on: what it misses is a gap, once it is back.
-spec unloaded(binary()) -> ok.
unloaded(Host) ->
    mnesia:dirty_write(#convsync_stream{key = {Host, {unloaded, node()}}}),
    mod_convsync_feed_disk:flush(),
    ok.

%% Whether that was so on this node and nobody has said so yet; says it once.
-spec was_unloaded(binary()) -> boolean().
was_unloaded(Host) ->
    Key = {Host, {unloaded, node()}},
    Is = mnesia:dirty_read(convsync_stream, Key) =/= [],
    mnesia:dirty_delete(convsync_stream, Key),
    Is.
