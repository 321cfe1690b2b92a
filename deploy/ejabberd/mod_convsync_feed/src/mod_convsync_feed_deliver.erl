%%% Writes a stanza of the component to sessions of an account (docs/feed.md §8). It goes to the sessions' processes as
%%% their own stanzas do, through stream management, and past every hook: no archive, no carbon, no event.
-module(mod_convsync_feed_deliver).

-export([deliver/3, account/1]).

-include("xmpp.hrl").
-include("convsync_feed.hrl").

-spec deliver(binary(), jid(), xmlel()) -> xmlel() | {error, stanza_error()}.
deliver(Host, Component, #xmlel{children = Children} = Deliver) ->
    Inner = [El || #xmlel{} = El <- Children],
    case {account(fxml:get_tag_attr_s(<<"account">>, Deliver)), stanza(Inner)} of
        {error, _} -> {error, xmpp:err_bad_request()};
        {_, error} -> {error, xmpp:err_bad_request()};
        {#jid{lserver = Server}, _} when Server =/= Host -> {error, xmpp:err_item_not_found()};
        {Account, Stanza} ->
            case is_sender(xmpp:get_from(Stanza), Account, Component) of
                true -> send(Account, fxml:get_tag_attr_s(<<"resource">>, Deliver), Stanza);
                false -> {error, xmpp:err_forbidden()}
            end
    end.

-spec account(binary()) -> jid() | error.
account(Text) ->
    try jid:decode(Text) of
        #jid{luser = User, lresource = <<>>} = JID when User =/= <<>> -> JID;
        _ -> error
    catch
        error:{bad_jid, _} -> error
    end.

%% Exactly one message, iq or presence of a client's namespace. One without a valid sender is for `is_sender` to refuse.
-spec stanza([xmlel()]) -> stanza() | error.
stanza([#xmlel{name = Name} = El]) when Name =:= <<"message">>; Name =:= <<"iq">>; Name =:= <<"presence">> ->
    case fxml:get_tag_attr_s(<<"xmlns">>, El) of
        ?NS_CLIENT ->
            Sendable = case fxml:get_tag_attr_s(<<"from">>, El) of
                           <<>> -> El#xmlel{attrs = lists:keydelete(<<"from">>, 1, El#xmlel.attrs)};
                           _ -> El
                       end,
            try xmpp:decode(Sendable, ?NS_CLIENT, [ignore_els])
            catch _:{xmpp_codec, _} -> error
            end;
        _ -> error
    end;
stanza(_) ->
    error.

-spec is_sender(jid() | undefined, jid(), jid()) -> boolean().
is_sender(#jid{luser = User, lserver = Server}, #jid{luser = User, lserver = Server}, _) -> true;
is_sender(#jid{luser = <<>>, lserver = Server, lresource = <<>>}, #jid{lserver = Server}, _) -> true;
is_sender(#jid{lserver = Domain}, _, #jid{lserver = Domain}) -> true;
is_sender(_, _, _) -> false.

%% A hibernated session would queue it and wake the server's own push. A session that is named has asked for something,
%% perhaps before its first presence, as clients do that sync first; others must be available.
-spec send(jid(), binary(), stanza()) -> xmlel().
send(#jid{luser = User, lserver = Server} = Account, Named, Stanza) ->
    Sessions = [{Resource, Pid} || {Resource, Pid, State} <- mod_convsync_feed_sessions:of_account(User, Server),
                                   takes(State, Resource, Named)],
    Own = xmpp:put_meta(xmpp:put_meta(Stanza, convsync_own, true), carbon_copy, true),
    [ejabberd_c2s:send(Pid, xmpp:set_to(Own, jid:replace_resource(Account, Resource))) || {Resource, Pid} <- Sessions],
    #xmlel{name = <<"delivered">>,
           attrs = [{<<"xmlns">>, ?NS_FEED}, {<<"sessions">>, integer_to_binary(length(Sessions))}]}.

-spec takes(mod_convsync_feed_sessions:state(), binary(), binary()) -> boolean().
takes({hibernated, _}, _, _) -> false;
takes(bound, _, <<>>) -> false;
takes(_, _, <<>>) -> true;
takes(_, Resource, Named) -> Resource =:= Named.
