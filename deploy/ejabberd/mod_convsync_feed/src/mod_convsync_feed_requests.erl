%%% What the component asks, on a users' host and on a rooms' host (docs/feed.md §2, §4, §8). Decides who may ask and what a
%%% well-formed request is; refuses to know why it is asked.
%%%
%%% A component is believed on its own connection only: `component_send_packet` runs there, and notes the connection in the
%%% stanza's meta when the sender is an address that the connection was opened for.
-module(mod_convsync_feed_requests).

-export([open/1, close/1]).
%% Handlers and hooks.
-export([decode_iq_subel/1, process_iq/1, component_sent/1, stray/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("translate.hrl").
-include("convsync_feed.hrl").

-type answer() :: xmlel() | empty | {error, stanza_error()}.

-spec open(binary()) -> ok.
open(Host) ->
    gen_iq_handler:add_iq_handler(ejabberd_local, Host, ?NS_FEED, ?MODULE, process_iq).

-spec close(binary()) -> ok.
close(Host) ->
    gen_iq_handler:remove_iq_handler(ejabberd_local, Host, ?NS_FEED).

-spec decode_iq_subel(xmpp_element() | xmlel()) -> xmpp_element() | xmlel().
decode_iq_subel(El) ->
    El.

%%% Who asks

%% Acks end here; requests go on with a note of the connection that they came by.
-spec component_sent({stanza() | drop, map()}) -> {stanza() | drop, map()}.
component_sent({Stanza, #{routes := Routes} = State} = Acc) when Stanza =/= drop ->
    #jid{luser = User, lserver = Domain, lresource = Resource} = xmpp:get_from(Stanza),
    #jid{luser = Local, lserver = Host} = xmpp:get_to(Stanza),
    case {User, Resource, Local} =:= {<<>>, <<>>, <<>>} andalso lists:member(Domain, Routes)
        andalso mod_convsync_feed_host:server_host(Host) of
        false -> Acc;
        undefined -> Acc;
        _ ->
            Noted = xmpp:put_meta(Stanza, convsync_connection, self()),
            case acks(Noted) of
                [] -> {Noted, State};
                [Ack | _] -> {mod_convsync_feed_guard:attempt(Host, fun() -> ack(Host, Noted, Ack) end, drop), State}
            end
    end;
component_sent(Acc) ->
    Acc.

-spec acks(stanza()) -> [xmlel()].
acks(#message{sub_els = Els}) ->
    [El || #xmlel{name = <<"ack">>} = El <- Els, xmpp:get_ns(El) =:= ?NS_FEED];
acks(_) ->
    [].

-spec ack(binary(), message(), xmlel()) -> drop.
ack(Host, Message, Ack) ->
    case allowed(Host, Message) of
        {true, Connection} ->
            mod_convsync_feed_host:ack(Host, Connection, attribute(<<"stream">>, Ack), attribute(<<"n">>, Ack));
        false ->
            refuse(Message)
    end,
    drop.

%% An ack of somebody who is no component at all.
-spec stray(stanza()) -> ok.
stray(#message{to = #jid{lserver = Host}} = Message) ->
    case acks(Message) of
        [] -> ok;
        _ ->
            mod_convsync_feed_guard:attempt(Host, fun() -> refused(Host, Message) end),
            refuse(Message)
    end;
stray(_) ->
    ok.

-spec refuse(stanza()) -> ok.
refuse(Stanza) ->
    ejabberd_router:route_error(Stanza, xmpp:err_forbidden()).

%% A configured component on its own connection.
-spec allowed(binary(), stanza()) -> {true, pid()} | false.
allowed(Host, Stanza) ->
    #jid{lserver = Domain} = xmpp:get_from(Stanza),
    Configured = [C || #jid{luser = <<>>, lserver = D, lresource = <<>>} = C
                           <- mod_convsync_feed:components(mod_convsync_feed_host:server_host(Host)), D =:= Domain],
    case xmpp:get_meta(Stanza, convsync_connection, none) of
        Connection when is_pid(Connection), Configured =/= [] -> {true, Connection};
        _ -> refused(Host, Stanza)
    end.

-spec refused(binary(), stanza()) -> false.
refused(Host, Stanza) ->
    mod_convsync_feed_guard:count(Host, refused),
    ?WARNING_MSG("Refused a request of ~ts to ~ts", [jid:encode(xmpp:get_from(Stanza)), Host]),
    false.

%%% What is asked

-spec process_iq(iq()) -> iq() | ignore.
process_iq(#iq{to = #jid{lserver = Host}} = IQ) ->
    case allowed(Host, IQ) of
        {true, Connection} ->
            Answer = mod_convsync_feed_guard:attempt_request(Host, fun() -> handle(Host, Connection, IQ) end, failed()),
            answer(Connection, IQ, Answer),
            ignore;
        false ->
            xmpp:make_error(IQ, xmpp:err_forbidden())
    end.

-spec failed() -> {error, stanza_error()}.
failed() ->
    {error, (xmpp:err_internal_server_error())#stanza_error{type = wait}}.

%% To the connection itself: another one of the same address did not ask.
-spec answer(pid(), iq(), answer() | later) -> ok.
answer(_, _, later) -> ok;
answer(Connection, IQ, empty) -> mod_convsync_feed_host:send(Connection, xmpp:make_iq_result(IQ));
answer(Connection, IQ, {error, Error}) -> mod_convsync_feed_host:send(Connection, xmpp:make_error(IQ, Error));
answer(Connection, IQ, El) -> mod_convsync_feed_host:send(Connection, xmpp:make_iq_result(IQ, El)).

-spec handle(binary(), pid(), iq()) -> xmlel() | {error, stanza_error()} | later.
handle(Host, Connection, #iq{type = Type, sub_els = [#xmlel{name = Name} = Request]} = IQ) ->
    HasRooms = mod_convsync_feed_host:covered(Host),
    case {Type, Name, HasRooms} of
        {set, <<"subscribe">>, _} ->
            subscribe(Host, Connection, IQ, Request, HasRooms);
        {get, <<"sessions">>, _} ->
            Listed = #xmlel{name = <<"sessions">>, attrs = [{<<"xmlns">>, ?NS_FEED}], children = sessions(Host, HasRooms)},
            mod_convsync_feed_host:reply(Host, Connection, xmpp:make_iq_result(IQ, Listed)),
            later;
        {set, <<"deliver">>, false} ->
            mod_convsync_feed_deliver:deliver(Host, xmpp:get_from(IQ), Request);
        {set, <<"displayed">>, false} ->
            Publish = fun() -> mod_convsync_feed_displayed:publish(Host, Request) end,
            beside(Host, Connection, IQ, {displayed, Publish});
        {get, <<"account">>, true} ->
            {error, xmpp:err_service_unavailable()};
        {get, _, _} when Name =:= <<"accounts">>; Name =:= <<"account">>; Name =:= <<"archive">> ->
            beside(Host, Connection, IQ, {archive, fun() -> mod_convsync_feed_archive:request(Host, Request) end});
        _ ->
            {error, xmpp:err_service_unavailable()}
    end.

%% What takes time is done beside the connection, on which events and answers go on meanwhile; if the operator allows it.
-spec beside(binary(), pid(), iq(), {archive | displayed, fun(() -> answer())}) -> later | {error, stanza_error()}.
beside(Host, Connection, IQ, {Option, Work}) ->
    case mod_convsync_feed:offers(mod_convsync_feed_host:server_host(Host), Option) of
        false ->
            {error, xmpp:err_forbidden()};
        true ->
            spawn(fun() -> answer(Connection, IQ, mod_convsync_feed_guard:attempt_request(Host, Work, failed())) end),
            later
    end.

-spec sessions(binary(), boolean()) -> [xmlel()].
sessions(_, true) -> [];
sessions(Host, false) -> mod_convsync_feed_sessions:all(Host).

-spec subscribe(binary(), pid(), iq(), xmlel(), boolean()) -> later | {error, stanza_error()}.
subscribe(Host, Connection, IQ, Request, HasRooms) ->
    case parse(Request) of
        {ok, Told} ->
            More = [{<<"rooms">>, <<"true">>} || HasRooms],
            case mod_convsync_feed_host:subscribe(Host, IQ, Connection, {Told, {More, sessions(Host, HasRooms)}}) of
                ok -> later;
                {error, _} -> {error, xmpp:err_resource_constraint()}
            end;
        {error, Error} ->
            mod_convsync_feed_guard:count(Host, refused),
            {error, Error}
    end.

%% Stream id → the last n that is committed.
-spec parse(xmlel()) -> {ok, #{binary() => non_neg_integer()}} | {error, stanza_error()}.
parse(#xmlel{children = Children} = Subscribe) ->
    Streams = [{attribute(<<"id">>, S), attribute(<<"n">>, S)} || #xmlel{name = <<"stream">>} = S <- Children],
    Ids = [Id || {Id, _} <- Streams],
    Numbers = [number(N) || {_, N} <- Streams],
    Versions = re:split(attribute(<<"versions">>, Subscribe), "[\\s,]+"),
    Buckets = attribute(<<"buckets">>, Subscribe),
    Malformed = Versions =:= [<<>>] orelse Buckets =:= <<>> orelse lists:member(<<>>, Ids)
        orelse lists:member(error, Numbers) orelse length(lists:usort(Ids)) < length(Ids),
    case {Malformed, lists:member(<<"1">>, Versions), Buckets} of
        {true, _, _} -> {error, xmpp:err_bad_request()};
        {_, false, _} ->
            ?ERROR_MSG("The component speaks version ~0p of the feed, this module version 1: update the older one",
                       [lists:sublist(Versions, 8)]),
            {error, unsupported_version()};
        {_, _, <<"0-255">>} -> {ok, maps:from_list(lists:zip(Ids, Numbers))};
        _ -> {error, xmpp:err_feature_not_implemented()}
    end.

-spec unsupported_version() -> stanza_error().
unsupported_version() ->
    Spoken = #xmlel{name = <<"unsupported-version">>, attrs = [{<<"xmlns">>, ?NS_FEED}, {<<"versions">>, <<"1">>}]},
    Error = xmpp:err_not_acceptable(),
    Error#stanza_error{type = cancel, sub_els = [Spoken]}.

-spec number(binary()) -> non_neg_integer() | error.
number(Text) ->
    case re:run(Text, "^[0-9]{1,15}$", [{capture, none}, dollar_endonly]) of
        match -> binary_to_integer(Text);
        nomatch -> error
    end.

-spec attribute(binary(), xmlel()) -> binary().
attribute(Name, El) ->
    fxml:get_tag_attr_s(Name, El).
