%%% What was archived without an event: a server that is killed between the two leaves such messages. Decides which of what was
%%% archived shortly before that end were not told, and has them told now. Refuses to know what makes a message an event
%%% (mod_convsync_feed_messages, mod_convsync_feed_room) and which ends were not orderly (mod_convsync_feed_outbox).
%%%
%%% It asks the storage of mod_mam for all that was archived in that time, whosever it is; mod_mam has no such function.
-module(mod_convsync_feed_replay).

-export([tell/3]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_mam.hrl").
-include("ejabberd_sql_pt.hrl").

-define(MOST, 10000).   % messages not told; whoever has more is better off to start over
-define(SEEN, 200000).  % messages archived in that time: the clock was wrong where there are more
-define(TOGETHER, 50).  % events that are written together
-define(CHUNK, 500).    % rows of Mnesia's archive that are looked at in one go

-type times() :: {integer(), integer()}. % from, to, µs
%% By the name of an account or a room: how many messages were archived, and the ids of those that were not told.
-type archives() :: #{binary() => {pos_integer(), [binary()]}}.

%% Tells what the archives of the host's accounts, or rooms, have of that time and is not known to be told.
-spec tell(binary(), times(), mod_convsync_feed_told:known()) -> ok.
tell(Host, Times, Known) ->
    mod_convsync_feed_guard:attempt_request(Host, fun() -> look(Host, Times, Known) end, ok).

-spec look(binary(), times(), mod_convsync_feed_told:known()) -> ok.
look(Host, Times, Known) ->
    ServerHost = mod_convsync_feed_host:server_host(Host),
    case gen_mod:is_loaded(ServerHost, mod_mam) andalso archived(gen_mod:db_mod(ServerHost, mod_mam), ServerHost, Host, Times) of
        false -> ok;
        {ok, Rows} -> untold(Host, ServerHost, Times, untold(Host, Rows, Known));
        too_many -> too_many(Host);
        {error, Reason} -> ?ERROR_MSG("What was archived before ~ts was killed cannot be looked at: ~p", [Host, Reason])
    end.

-spec too_many(binary()) -> ok.
too_many(Host) ->
    ?ERROR_MSG("More was archived before ~ts was killed than can be told now", [Host]),
    mod_convsync_feed_host:fail(Host).

-spec untold(binary(), [{binary(), binary()}], mod_convsync_feed_told:known()) -> archives().
untold(Host, Rows, Known) ->
    All = lists:foldl(fun({Name, Id}, Found) ->
                              {Many, Ids} = maps:get(Name, Found, {0, []}),
                              Account = <<Name/binary, $@, Host/binary>>,
                              IsTold = is_map_key(mod_convsync_feed_told:key(Account, Id), Known),
                              Found#{Name => {Many + 1, [Id || not IsTold] ++ Ids}}
                      end, #{}, Rows),
    maps:filter(fun(_, {_, Ids}) -> Ids =/= [] end, All).

-spec untold(binary(), binary(), times(), archives()) -> ok.
untold(Host, ServerHost, Times, Archives) ->
    case lists:sum([length(Ids) || {_, Ids} <- maps:values(Archives)]) > ?MOST of
        true -> too_many(Host);
        false ->
            Told = [told(jid:make(Name, Host), ServerHost, Times, One) || {Name, One} <- maps:to_list(Archives)],
            ?INFO_MSG("~ts was killed: ~b messages that had been archived are told now, ~b archives cannot be read",
                      [Host, lists:sum([Many || Many <- Told, Many =/= error]), length([error || error <- Told])])
    end.

-spec told(jid(), binary(), times(), {pos_integer(), [binary()]}) -> non_neg_integer() | error.
told(#jid{luser = User, lserver = Host} = Account, ServerHost, Times, {Many, Ids}) ->
    case mod_convsync_feed_archive:between(ServerHost, Account, Times, Many) of
        {ok, Archived} ->
            case mod_convsync_feed_host:covered(Host) of
                true -> mod_convsync_feed_rooms:again(Account, [One || One <- Archived, lists:member(element(1, One), Ids)]);
                false ->
                    Events = [Event || ejabberd_auth:user_exists(User, Host),
                                       {Id, Event} <- mod_convsync_feed_messages:again(Account, Archived), lists:member(Id, Ids)],
                    put_all(Host, Events)
            end;
        error -> error
    end.

-spec put_all(binary(), [xmlel()]) -> non_neg_integer().
put_all(_, []) ->
    0;
put_all(Host, Events) ->
    {Now, Later} = lists:split(min(?TOGETHER, length(Events)), Events),
    {ok, _} = mod_convsync_feed_host:put_all(Host, Now),
    length(Now) + put_all(Host, Later).

%%% What the storages of mod_mam have of that time

%% Names of accounts or rooms of the host, and archive ids.
-spec archived(module(), binary(), binary(), times()) -> {ok, [{binary(), binary()}]} | too_many | {error, term()}.
archived(mod_mam_sql, ServerHost, Host, {Start, End}) ->
    Kind = kind(Host),
    case ejabberd_sql:sql_query(
           ServerHost,
           ?SQL("select @(count(*))d from archive"
                " where timestamp >= %(Start)d and timestamp <= %(End)d and kind=%(Kind)s and %(ServerHost)H")) of
        {selected, [{Many}]} when Many > ?SEEN -> too_many;
        {selected, [{_}]} -> rows(ServerHost, Host, {Start, End}, Kind);
        Other -> {error, Other}
    end;
archived(mod_mam_mnesia, _, Host, {Start, End}) ->
    Type = binary_to_atom(kind(Host), utf8),
    Pattern = #archive_msg{us = {'$1', Host}, id = '$2', timestamp = '$3', type = Type, _ = '_'},
    Range = [{'>=', '$3', {misc:usec_to_now(Start)}}, {'=<', '$3', {misc:usec_to_now(End)}}],
    mnesia:activity(async_dirty,
                    fun() -> collect(mnesia:select(archive_msg, [{Pattern, Range, [{{'$1', '$2'}}]}], ?CHUNK, read), []) end);
archived(Storage, _, _, _) ->
    {error, {unknown_storage, Storage}}.

%% In SQL an account's archive bears its name, a room's its address.
-spec rows(binary(), binary(), times(), binary()) -> {ok, [{binary(), binary()}]} | {error, term()}.
rows(ServerHost, Host, {Start, End}, Kind) ->
    case ejabberd_sql:sql_query(
           ServerHost,
           ?SQL("select @(username)s, @(timestamp)d from archive"
                " where timestamp >= %(Start)d and timestamp <= %(End)d and kind=%(Kind)s and %(ServerHost)H")) of
        {selected, Rows} -> {ok, [{Name, integer_to_binary(Id)} || {User, Id} <- Rows, Name <- name(Kind, User, Host)]};
        Other -> {error, Other}
    end.

-spec kind(binary()) -> binary().
kind(Host) ->
    case mod_convsync_feed_host:covered(Host) of
        true -> <<"groupchat">>;
        false -> <<"chat">>
    end.

-spec name(binary(), binary(), binary()) -> [binary()].
name(<<"chat">>, User, _) ->
    [User];
name(<<"groupchat">>, Address, Host) ->
    case catch jid:decode(Address) of
        #jid{luser = Room, lserver = Host} -> [Room];
        _ -> []
    end.

-spec collect('$end_of_table' | {[{binary(), binary()}], term()}, [{binary(), binary()}]) ->
          {ok, [{binary(), binary()}]} | too_many.
collect('$end_of_table', Found) ->
    {ok, Found};
collect({Rows, _}, Found) when length(Rows) + length(Found) > ?SEEN ->
    too_many;
collect({Rows, Continuation}, Found) ->
    collect(mnesia:select(Continuation), Rows ++ Found).
