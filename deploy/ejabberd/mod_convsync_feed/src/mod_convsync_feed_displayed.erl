%%% Publishes how far an account has read a conversation, as one of its own items (docs/feed.md §8.3, XEP-0490). Decides whether
%%% the node may be used; refuses to know what was read.
-module(mod_convsync_feed_displayed).

-export([publish/2, is_echo/0]).

-include("xmpp.hrl").
-include("convsync_feed.hrl").

-define(NODE, <<"urn:xmpp:mds:displayed:0">>).

%% As the user would with the publish-options of XEP-0490 §4.2. The account's clients may have made the node otherwise: it is used
%% as it is, as long as it keeps what is in it and shows it to nobody else.
-define(MUST, [{access_model, whitelist}, {persist_items, true}]).
-define(SHOULD, [{max_items, max}, {send_last_published_item, never} | ?MUST]).

%% Is work for the storage: not for the connection's process.
-spec publish(binary(), xmlel()) -> empty | {error, stanza_error()}.
publish(Host, Request) ->
    Account = mod_convsync_feed_deliver:account(fxml:get_tag_attr_s(<<"account">>, Request)),
    Chat = address(fxml:get_tag_attr_s(<<"jid">>, Request)),
    By = address(fxml:get_tag_attr_s(<<"by">>, Request)),
    Id = fxml:get_tag_attr_s(<<"id">>, Request),
    case Account of
        error -> {error, xmpp:err_bad_request()};
        #jid{lserver = Server} when Server =/= Host -> {error, xmpp:err_item_not_found()};
        _ when Chat =:= error; By =:= error; Id =:= <<>> -> {error, xmpp:err_bad_request()};
        #jid{luser = User} ->
            case {is_giver(By, Account, Chat), has_pep(Host), ejabberd_auth:user_exists(User, Host)} of
                {false, _, _} -> {error, xmpp:err_bad_request()};
                {_, false, _} -> {error, xmpp:err_feature_not_implemented()};
                {_, _, false} -> {error, xmpp:err_item_not_found()};
                _ -> publish(Account, jid:encode(Chat), payload(By, Id))
            end
    end.

-spec address(binary()) -> jid() | error.
address(Text) ->
    try jid:decode(Text) of
        JID -> jid:make(jid:tolower(JID))
    catch
        error:{bad_jid, _} -> error
    end.

%% The id is one that the account's own archive gave, or a room.
-spec is_giver(jid(), jid(), jid()) -> boolean().
is_giver(#jid{luser = User, lserver = Server, lresource = <<>>}, #jid{luser = User, lserver = Server}, _) -> true;
is_giver(#jid{lresource = <<>>} = Chat, _, Chat) -> true;
is_giver(_, _, _) -> false.

-spec has_pep(binary()) -> boolean().
has_pep(Host) ->
    gen_mod:is_loaded(Host, mod_pubsub)
        andalso lists:member(<<"pep">>, gen_mod:get_module_opt(Host, mod_pubsub, plugins)).

-spec payload(jid(), binary()) -> xmlel().
payload(By, Id) ->
    StanzaId = #xmlel{name = <<"stanza-id">>,
                      attrs = [{<<"xmlns">>, <<"urn:xmpp:sid:0">>}, {<<"by">>, jid:encode(By)}, {<<"id">>, Id}]},
    #xmlel{name = <<"displayed">>, attrs = [{<<"xmlns">>, ?NODE}], children = [StanzaId]}.

-spec publish(jid(), binary(), xmlel()) -> empty | {error, stanza_error()}.
publish(Account, Item, Payload) ->
    put(?MODULE, true),
    %% Twice: mod_pubsub says that there is no such node when another process has just made it.
    try lists:foldl(fun(Options, Before) -> attempt(Before, Account, {Item, Payload}, Options) end,
                    undefined, [?SHOULD, ?SHOULD, ?MUST]) of
        done -> empty;
        conflict -> {error, xmpp:err_conflict()};
        Reason -> error({not_published, Reason})
    after
        erase(?MODULE)
    end.

%% What became of it; Before: what became of it before.
-spec attempt(atom(), jid(), {binary(), xmlel()}, [{atom(), atom()}]) -> atom().
attempt(done, _, _, _) ->
    done;
attempt(_, #jid{luser = User, lserver = Host} = Account, {Item, Payload}, Options) ->
    Access = gen_mod:get_module_opt(Host, mod_pubsub, access_createnode),
    case mod_pubsub:publish_item({User, Host, <<>>}, Host, ?NODE, Account, Item, [Payload], Options, Access) of
        {result, _} -> done;
        {error, #stanza_error{reason = Reason}} -> Reason
    end.

%% True while the item is being published: what the hooks of the same process are told then is known to the component.
-spec is_echo() -> boolean().
is_echo() ->
    get(?MODULE) =:= true.
