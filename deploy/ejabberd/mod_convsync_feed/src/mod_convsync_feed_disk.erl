%%% How the outbox's rows get to the disks of all nodes: what was answered `ok` is there. Refuses to know what is in them.
-module(mod_convsync_feed_disk).

-export([commit/2, write/1, flush/0]).

-include("convsync_feed.hrl").

%% Does what `Work` does with Mnesia's tables. Flush: and waits for the disk.
%%
%% With other nodes about, all of it gets there or nothing. Alone there is nobody to agree with, and each would cost rounds to the
%% processes that do: a killed node may have written the first of several rows, which nobody has been told of.
-spec commit(fun(() -> ok), boolean()) -> ok | {error, term()}.
commit(Work, Flush) ->
    try done(nodes(), Work) of
        {aborted, Reason} -> {error, Reason};
        _ when Flush -> flush();
        _ -> ok
    catch
        exit:Reason -> {error, Reason}
    end.

-spec done([node()], fun(() -> ok)) -> ok | {atomic, ok} | {aborted, term()}.
done([], Work) -> mnesia:sync_dirty(Work);
done(_, Work) -> mnesia:sync_transaction(Work).

%% Events, as a part of `Work`: one lock for all of them, for few hosts write here.
-spec write([#convsync_event{}]) -> ok.
write(Events) ->
    _ = mnesia:write_lock_table(convsync_event),
    lists:foreach(fun mnesia:write/1, Events).

%% As `mnesia:sync_log/0`, without keeping Mnesia's own process from its work meanwhile.
-spec flush() -> ok | {error, term()}.
flush() ->
    disk_log:sync(latest_log).
