%%% Pages of an account's archive, or of a room's, oldest first (docs/feed.md §8). mod_mam's own `select/7` reads them, so
%%% every storage of its serves. Decides what one page may hold; refuses to know who has read how far.
%%%
%%% An archive id is the time of archiving in µs: what is behind `after` is a range, and a page costs the same wherever it
%%% begins (in SQL; the Mnesia storage reads the account's whole archive for each).
-module(mod_convsync_feed_archive).

-export([request/2, between/4]).
-export_type([archived/0]).

-include("xmpp.hrl").
-include("mod_muc_room.hrl").
-include("convsync_feed.hrl").

-define(PAGE_ITEMS, 50).
-define(PAGE_BYTES, 262144).
-define(MOST, 5000).          % messages that are looked at for one page

-type entry() :: {binary(), integer(), #forwarded{}}.
-type archived() :: {binary(), integer(), binary() | undefined, message()}.
-type query() :: #{account := jid(), start := integer() | undefined, 'end' := integer() | undefined,
                   'after' := binary() | undefined, max := pos_integer()}.

%% The three requests that read what the server has kept.
-spec request(binary(), xmlel()) -> xmlel() | {error, stanza_error()}.
request(Host, #xmlel{name = <<"archive">>} = Request) -> page(Host, parse(Request));
request(Host, #xmlel{name = <<"accounts">>} = Request) -> mod_convsync_feed_accounts:page(Host, Request);
request(Host, #xmlel{name = <<"account">>} = Request) -> mod_convsync_feed_accounts:one(Host, Request).

%% What was archived from the one time to the other (µs), oldest first, up to so many: id, time, a room's author, message.
-spec between(binary(), jid(), {integer(), integer()}, pos_integer()) -> {ok, [archived()]} | error.
between(ServerHost, #jid{lserver = Host} = Account, {Start, End}, Max) ->
    IsRoom = mod_convsync_feed_host:covered(Host),
    case select(ServerHost, IsRoom, #{account => Account, start => Start, 'end' => End, 'after' => undefined, max => Max}) of
        {error, _} -> error;
        {[], false, _} -> error;
        {Entries, _, _} -> {ok, [archived(IsRoom, Entry) || Entry <- Entries]}
    end.

-spec archived(boolean(), entry()) -> archived().
archived(true, {Id, At, #forwarded{sub_els = [Archived]}}) ->
    {Author, Message} = author(Archived),
    {Id, At, proplists:get_value(<<"author">>, Author), Message};
archived(false, {Id, At, #forwarded{sub_els = [Message]}}) ->
    {Id, At, undefined, Message}.

-spec page(binary(), {ok, query()} | error) -> xmlel() | {error, stanza_error()}.
page(_, error) ->
    {error, xmpp:err_bad_request()};
page(Host, {ok, #{account := #jid{lserver = Server}}}) when Server =/= Host ->
    {error, xmpp:err_item_not_found()};
page(Host, {ok, Query}) ->
    ServerHost = mod_convsync_feed_host:server_host(Host),
    IsRoom = mod_convsync_feed_host:covered(Host),
    case gen_mod:is_loaded(ServerHost, mod_mam) of
        false -> {error, xmpp:err_feature_not_implemented()};
        true ->
            case exists(IsRoom, Query) andalso is_there(ServerHost, IsRoom, Query) of
                true -> answer(IsRoom, look(ServerHost, IsRoom, Query, maps:get(max, Query)));
                false -> {error, xmpp:err_item_not_found()};
                failed -> failed()
            end
    end.

-spec exists(boolean(), query()) -> boolean().
exists(true, #{account := #jid{luser = Room, lserver = Host}}) -> mod_convsync_feed_rooms:exists(Host, Room);
exists(false, #{account := #jid{luser = User, lserver = Host}}) -> ejabberd_auth:user_exists(User, Host).

%% Whether the item to go on from still is in the archive.
-spec is_there(binary(), boolean(), query()) -> boolean() | failed.
is_there(_, _, #{'after' := undefined}) ->
    true;
is_there(ServerHost, IsRoom, #{'after' := After} = Query) ->
    case number(After) of
        error -> false;
        undefined -> false;
        At ->
            case select(ServerHost, IsRoom, Query#{start := At, 'end' := At, 'after' := undefined, max := 1}) of
                {[], false, _} -> failed;
                {Found, _, _} -> lists:keymember(After, 1, Found);
                {error, _} -> failed
            end
    end.

%% A message that its archive cannot read is left out there. Where all of a page are, more are looked at, within bounds.
-spec look(binary(), boolean(), query(), pos_integer()) -> {[entry()], boolean(), term()} | {error, term()}.
look(ServerHost, IsRoom, #{max := Max} = Query, Wanted) ->
    case select(ServerHost, IsRoom, Query) of
        {[], false, _} when Max < ?MOST -> look(ServerHost, IsRoom, Query#{max := min(Max * 10, ?MOST)}, Wanted);
        {Entries, IsComplete, Count} -> {lists:sublist(Entries, Wanted), IsComplete andalso length(Entries) =< Wanted, Count};
        Error -> Error
    end.

-spec select(binary(), boolean(), query()) -> {[entry()], boolean(), term()} | {error, term()}.
select(ServerHost, IsRoom, #{account := Account, start := Start, 'end' := End, 'after' := After, max := Max}) ->
    Query = [{Name, misc:usec_to_now(Time)} || {Name, Time} <- [{start, Start}, {'end', End}], Time =/= undefined],
    Kind = case IsRoom of
               true -> {groupchat, moderator, #state{config = #config{mam = true}}}; % shows who wrote
               false -> chat
           end,
    mod_mam:select(ServerHost, Account, Account, Query, #rsm_set{max = Max, 'after' = After}, Kind, only_messages).

%% A storage that fails answers with nothing and more to come.
-spec answer(boolean(), {[entry()], boolean(), term()} | {error, term()}) -> xmlel() | {error, stanza_error()}.
answer(_, {error, _}) ->
    failed();
answer(_, {[], false, _}) ->
    failed();
answer(IsRoom, {Entries, IsComplete, _}) ->
    {Items, IsCut} = take(IsRoom, Entries, 0, []),
    Last = [{<<"last">>, <<"true">>} || IsComplete, not IsCut],
    #xmlel{name = <<"archive">>, attrs = [{<<"xmlns">>, ?NS_FEED} | Last], children = Items}.

-spec failed() -> {error, stanza_error()}.
failed() ->
    {error, (xmpp:err_internal_server_error())#stanza_error{type = wait}}.

%% At least one item, and no more bytes than a page may have; whether some were left.
-spec take(boolean(), [entry()], non_neg_integer(), [xmlel()]) -> {[xmlel()], boolean()}.
take(_, [], _, Items) ->
    {lists:reverse(Items), false};
take(IsRoom, [Entry | Rest], Bytes, Items) ->
    Item = item(IsRoom, Entry),
    Size = byte_size(fxml:element_to_binary(Item)),
    case Items =/= [] andalso Bytes + Size > ?PAGE_BYTES of
        true -> {lists:reverse(Items), true};
        false -> take(IsRoom, Rest, Bytes + Size, [Item | Items])
    end.

-spec item(boolean(), entry()) -> xmlel().
item(IsRoom, {Id, At, #forwarded{sub_els = [Archived]}}) ->
    {Author, Message} = case IsRoom of
                            true -> author(Archived);
                            false -> {[], Archived}
                        end,
    #xmlel{name = <<"item">>, attrs = [{<<"id">>, Id}, {<<"at">>, integer_to_binary(At)} | Author],
           children = [mod_convsync_feed_event:readable(mod_convsync_feed_event:message(Message, Message#message.to))]}.

%% mod_mam puts the author in front of what a room broadcast; it is no part of that.
-spec author(message()) -> {[{binary(), binary()}], message()}.
author(#message{sub_els = [#muc_user{items = [#muc_item{jid = Author}]} | Els]} = Message) when Author =/= undefined ->
    {[{<<"author">>, mod_convsync_feed_event:address(Author)}], Message#message{sub_els = Els}};
author(Message) ->
    {[], Message}.

-spec parse(xmlel()) -> {ok, query()} | error.
parse(Request) ->
    Account = mod_convsync_feed_deliver:account(fxml:get_tag_attr_s(<<"account">>, Request)),
    Start = time(<<"start">>, Request),
    End = time(<<"end">>, Request),
    After = fxml:get_tag_attr(<<"after">>, Request),
    Max = mod_convsync_feed_accounts:max(Request, ?PAGE_ITEMS, ?PAGE_ITEMS),
    case lists:member(error, [Account, Start, End, Max]) orelse After =:= {value, <<>>} of
        true -> error;
        false -> {ok, #{account => Account, start => Start, 'end' => End, max => Max,
                        'after' => case After of {value, Id} -> Id; false -> undefined end}}
    end.

-spec time(binary(), xmlel()) -> integer() | undefined | error.
time(Name, Request) ->
    case fxml:get_tag_attr(Name, Request) of
        {value, Text} -> number(Text);
        false -> undefined
    end.

-spec number(binary()) -> non_neg_integer() | error.
number(Text) ->
    case re:run(Text, "^[0-9]{1,16}$", [{capture, none}, dollar_endonly]) of
        match -> binary_to_integer(Text);
        nomatch -> error
    end.
