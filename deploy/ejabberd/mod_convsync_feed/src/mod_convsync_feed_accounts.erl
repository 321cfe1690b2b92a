%%% Which accounts (or rooms) a host has, and what an account keeps: its contacts, its displayed markers and bookmarks
%%% (docs/feed.md §8). Decides how much is read at a time; refuses to know what it is for.
%%%
%%% No storage of accounts pages by name. The names are read once, at the first page, and the pages come from that; it is
%%% thrown away after an hour.
-module(mod_convsync_feed_accounts).

-export([open/1, page/2, one/2, max/3]).

-include("xmpp.hrl").
-include("mod_roster.hrl").
-include("pubsub.hrl").
-include("convsync_feed.hrl").

-define(HELD, 3600).  % s
-define(NODES, [<<"urn:xmpp:mds:displayed:0">>, <<"urn:xmpp:bookmarks:1">>]).
-define(CONTACTS, 5000).
-define(ITEMS, 1000).

%% The table of names; it lives as long as the process that opens it.
-spec open(binary()) -> ok.
open(Host) ->
    _ = ets:new(table(Host), [named_table, public, ordered_set]),
    ok.

-spec table(binary()) -> atom().
table(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

-spec page(binary(), xmlel()) -> xmlel() | {error, stanza_error()}.
page(Host, Request) ->
    After = fxml:get_tag_attr_s(<<"after">>, Request),
    case {max(Request, 500, 1000), mod_convsync_feed_host:covered(Host)} of
        {error, _} -> {error, xmpp:err_bad_request()};
        {Max, true} -> listed(mod_convsync_feed_rooms:accounts(Host, After, Max));
        {Max, false} ->
            case is_listable(Host) of
                true -> listed(global:trans({{?MODULE, Host}, self()}, fun() -> users(Host, After, Max) end, [node()]));
                false -> {error, xmpp:err_feature_not_implemented()}
            end
    end.

-spec is_listable(binary()) -> boolean().
is_listable(Host) ->
    lists:any(fun(M) -> code:ensure_loaded(M), erlang:function_exported(M, get_users, 2) end,
              ejabberd_auth:auth_modules(Host)).

-spec listed({[binary()], boolean()}) -> xmlel().
listed({Names, Last}) ->
    #xmlel{name = <<"accounts">>, attrs = [{<<"xmlns">>, ?NS_FEED} | [{<<"last">>, <<"true">>} || Last]],
           children = [#xmlel{name = <<"account">>, attrs = [{<<"jid">>, Name}]} || Name <- Names]}.

-spec users(binary(), binary(), pos_integer()) -> {[binary()], boolean()}.
users(Host, After, Max) ->
    Table = table(Host),
    Now = erlang:monotonic_time(second),
    case ets:lookup(Table, read) of
        [{_, Since}] when After =/= <<>>, Now - Since < ?HELD -> ok;
        _ ->
            ets:delete_all_objects(Table),
            ets:insert(Table, [{jid:encode(jid:make(User, Server))} || {User, Server} <- ejabberd_auth:get_users(Host)]),
            ets:insert(Table, {read, Now})
    end,
    take(Table, ets:next(Table, After), Max, []).

-spec take(atom(), term(), non_neg_integer(), [binary()]) -> {[binary()], boolean()}.
take(_, Name, 0, Names) when is_binary(Name) -> {lists:reverse(Names), false};
take(Table, Name, Max, Names) when is_binary(Name) -> take(Table, ets:next(Table, Name), Max - 1, [Name | Names]);
take(_, _, _, Names) -> {lists:reverse(Names), true}.

%% What one account keeps.
-spec one(binary(), xmlel()) -> xmlel() | {error, stanza_error()}.
one(Host, Request) ->
    case mod_convsync_feed_deliver:account(fxml:get_tag_attr_s(<<"account">>, Request)) of
        error -> {error, xmpp:err_bad_request()};
        #jid{lserver = Server} when Server =/= Host -> {error, xmpp:err_item_not_found()};
        #jid{luser = User} = Account ->
            case ejabberd_auth:user_exists(User, Host) of
                false -> {error, xmpp:err_item_not_found()};
                true ->
                    #xmlel{name = <<"account">>, attrs = [{<<"xmlns">>, ?NS_FEED}, {<<"jid">>, mod_convsync_feed_event:address(Account)}],
                           children = contacts(User, Host) ++ lists:append([items(User, Host, Node) || Node <- ?NODES])}
            end
    end.

-spec contacts(binary(), binary()) -> [xmlel()].
contacts(User, Host) ->
    Roster = ejabberd_hooks:run_fold(roster_get, Host, [], [{User, Host}]),
    Names = lists:append([contact(Item) || Item <- Roster]),
    [#xmlel{name = <<"contact">>, attrs = [{<<"jid">>, Name}]} || Name <- lists:sublist(Names, ?CONTACTS)].

%% Newer versions of ejabberd have the other record here.
-spec contact(#roster{} | #roster_item{}) -> [binary()].
contact(#roster{jid = JID, subscription = S}) when S =:= both; S =:= from; S =:= to -> [jid:encode(JID)];
contact(#roster_item{jid = JID, subscription = S}) when S =:= both; S =:= from; S =:= to -> [jid:encode(JID)];
contact(_) -> [].

-spec items(binary(), binary(), binary()) -> [xmlel()].
items(User, Host, Node) ->
    [#xmlel{name = <<"pep">>, attrs = [{<<"node">>, Node}, {<<"item">>, Id}], children = payload(Payload)}
     || #pubsub_item{itemid = {Id, _}, payload = Payload} <- newest(mod_convsync_feed_pep:items(User, Host, Node))].

-spec newest([#pubsub_item{}]) -> [#pubsub_item{}].
newest(Items) ->
    lists:sublist(lists:reverse(lists:keysort(#pubsub_item.modification, Items)), ?ITEMS).

-spec payload([xmlel()]) -> [xmlel()].
payload(Payload) ->
    lists:sublist([mod_convsync_feed_event:readable(El) || #xmlel{} = El <- Payload], 1).

%% The attribute `max`: the default where there is none, no more than the most.
-spec max(xmlel(), pos_integer(), pos_integer()) -> pos_integer() | error.
max(Request, Default, Most) ->
    case fxml:get_tag_attr(<<"max">>, Request) of
        false -> Default;
        {value, Text} ->
            case re:run(Text, "^[0-9]{1,9}$", [{capture, none}, dollar_endonly]) of
                match when Text =/= <<"0">> -> clamp(binary_to_integer(Text), Most);
                _ -> error
            end
    end.

-spec clamp(non_neg_integer(), pos_integer()) -> pos_integer() | error.
clamp(0, _) -> error;
clamp(N, Most) when N > Most -> Most;
clamp(N, _) -> N.
