%%% The hooks of the rooms of a host of mod_muc: which of the server's hooks mean what for a room. Also which rooms there are.
%%% Refuses to know what a room has been told (mod_convsync_feed_room) and who belongs to it (mod_convsync_feed_members).
%%%
%%% All of these hooks but none other run in a room's process: start_room, join_room, leave_room, room_destroyed,
%%% muc_filter_message, muc_filter_presence, muc_process_iq; filter_packet and multicast_route do for what a room sends.

-module(mod_convsync_feed_rooms).

-export([start/2, stop/2, accounts/3, exists/2, again/2]).
-export([start_room/3, join_room/4, leave_room/4, room_destroyed/3, filter_message/3, filter_presence/3, process_iq/2,
         filter_packet/1, multicast_route/1]).

-include("xmpp.hrl").
-include("mod_muc.hrl").
-include("mod_muc_room.hrl").
-include("convsync_feed.hrl").

-define(STARTED, {?MODULE, started}). % persistent_term: [{ServerHost, MucHost}]
%% What surrounds a chat state that comes without anything else.
-define(BESIDE_TYPING, [<<"urn:xmpp:hints">>, <<"urn:xmpp:sid:0">>, <<"urn:xmpp:occupant-id:0">>]).
%% In muc_filter_message mod_mam archives at 50; whoever drops messages has done so.
-define(LAST, 950).

%%% ---- starting and stopping ------------------------------------------------------------------------------------

-spec start(binary(), binary()) -> ok.
start(ServerHost, MucHost) ->
    each_hook(fun ejabberd_hooks:add/5, fun ejabberd_hooks:add/4, ServerHost),
    started([{ServerHost, MucHost} | started()]),
    mod_convsync_feed_sweep:start(MucHost).

%% The last host of a server host takes the hooks away.
-spec stop(binary(), binary()) -> ok.
stop(ServerHost, MucHost) ->
    mod_convsync_feed_sweep:stop(MucHost),
    Others = lists:delete({ServerHost, MucHost}, started()),
    started(Others),
    OfHost = case lists:keymember(ServerHost, 1, Others) of
                 true -> fun(_, _, _, _, _) -> ok end;
                 false -> fun ejabberd_hooks:delete/5
             end,
    Global = case Others of
                 [] -> fun ejabberd_hooks:delete/4;
                 _ -> fun(_, _, _, _) -> ok end
             end,
    each_hook(OfHost, Global, ServerHost).

-spec each_hook(fun((atom(), binary(), module(), atom(), integer()) -> any()),
                fun((atom(), module(), atom(), integer()) -> any()), binary()) -> ok.
each_hook(OfHost, Global, ServerHost) ->
    _ = [OfHost(Hook, ServerHost, ?MODULE, Function, Order)
         || {Hook, Function, Order} <- [{start_room, start_room, 50},
                                        {join_room, join_room, 50},
                                        {leave_room, leave_room, 50},
                                        {room_destroyed, room_destroyed, 50},
                                        {muc_filter_message, filter_message, ?LAST},
                                        {muc_filter_presence, filter_presence, ?LAST},
                                        {muc_process_iq, process_iq, 1},
                                        {multicast_route, multicast_route, ?LAST}]],
    Global(filter_packet, ?MODULE, filter_packet, ?LAST),
    ok.

-spec started() -> [{binary(), binary()}].
started() -> persistent_term:get(?STARTED, []).

-spec started([{binary(), binary()}]) -> ok.
started(Hosts) -> persistent_term:put(?STARTED, Hosts).

%%% ---- which rooms there are ------------------------------------------------------------------------------------

%% Sorted bare JIDs behind After; whether none is behind these.
-spec accounts(binary(), binary(), pos_integer()) -> {[binary()], boolean()}.
accounts(MucHost, After, Max) ->
    Live = [Name || {Name, _, _} <- mod_muc:get_online_rooms(MucHost)],
    All = lists:usort([<<Name/binary, "@", MucHost/binary>> || Name <- Live ++ persistent(MucHost)]),
    Behind = lists:dropwhile(fun(Jid) -> Jid =< After end, All),
    {lists:sublist(Behind, Max), length(Behind) =< Max}.

%% Names only: what else is stored of a room is large, and in SQL it takes more queries for each.
-spec persistent(binary()) -> [binary()].
persistent(MucHost) ->
    ServerHost = mod_convsync_feed_host:server_host(MucHost),
    case gen_mod:db_mod(ServerHost, mod_muc) of
        mod_muc_mnesia ->
            mnesia:dirty_select(muc_room, [{{muc_room, {'$1', MucHost}, '_'}, [], ['$1']}]);
        mod_muc_sql ->
            Query = [<<"select name from muc_room where host='">>, ejabberd_sql:escape(MucHost), <<"'">>],
            {selected, _, Rows} = ejabberd_sql:sql_query(ServerHost, Query),
            lists:append(Rows);
        Other ->
            [Name || #muc_room{name_host = {Name, _}} <- Other:get_rooms(ServerHost, MucHost)]
    end.

-spec exists(binary(), binary()) -> boolean().
exists(MucHost, Name) ->
    mod_muc:find_online_room(Name, MucHost) =/= error
        orelse mod_muc:restore_room(mod_convsync_feed_host:server_host(MucHost), MucHost, Name) =/= error.

%% Lets a room tell what its archive has. How many messages it will tell; a room that is no more tells nothing.
-spec again(jid(), [mod_convsync_feed_archive:archived()]) -> non_neg_integer().
again(#jid{luser = Name, lserver = MucHost} = Room, Archived) ->
    Said = [One || {_, _, _, #message{type = groupchat} = Message} = One <- Archived, not is_only_typing(Message)],
    case Said =/= [] andalso mod_muc:unhibernate_room(mod_convsync_feed_host:server_host(MucHost), MucHost, Name) of
        {ok, Process} ->
            ok = mod_convsync_feed_room:again(Process, Room, Said),
            length(Said);
        _ ->
            0
    end.

%%% ---- the rooms' hooks -----------------------------------------------------------------------------------------

-spec start_room(binary(), binary(), binary()) -> ok.
start_room(_ServerHost, Name, MucHost) ->
    in(MucHost, fun() -> mod_convsync_feed_room:begins(Name, MucHost) end).

-spec join_room(binary(), binary(), binary(), jid()) -> ok.
join_room(_ServerHost, _Name, MucHost, _Jid) ->
    in(MucHost, fun mod_convsync_feed_room:hint/0).

-spec leave_room(binary(), binary(), binary(), jid()) -> ok.
leave_room(_ServerHost, _Name, MucHost, Jid) ->
    in(MucHost, fun() -> mod_convsync_feed_room:gone(Jid) end).

-spec room_destroyed(binary(), binary(), binary()) -> ok.
room_destroyed(_ServerHost, _Name, MucHost) ->
    in(MucHost, fun mod_convsync_feed_room:ended/0).

-spec filter_message(drop | stanza(), #state{}, binary()) -> drop | stanza().
filter_message(#message{type = groupchat} = Message, #state{host = MucHost, jid = Jid} = State, Nick) ->
    in(MucHost, fun() ->
                        case is_only_typing(Message) of
                            true -> ok;
                            false -> mod_convsync_feed_room:said(Message, jid:replace_resource(Jid, Nick), State)
                        end
                end),
    Message;
filter_message(Other, _State, _Nick) ->
    Other.

-spec filter_presence(drop | stanza(), #state{}, binary()) -> drop | stanza().
filter_presence(Presence, #state{host = MucHost}, _Nick) ->
    in(MucHost, fun mod_convsync_feed_room:hint/0),
    Presence.

-spec process_iq(ignore | iq(), #state{}) -> ignore | iq() | {stop, ignore}.
process_iq(#iq{meta = #{mod_convsync_feed_room := Request}}, #state{host = MucHost} = State) ->
    in(MucHost, fun() -> mod_convsync_feed_room:asked(Request, State) end),
    {stop, ignore};
process_iq(#iq{type = set} = IQ, #state{host = MucHost}) ->
    in(MucHost, fun mod_convsync_feed_room:hint/0),
    IQ;
process_iq(IQ, _State) ->
    IQ.

%%% ---- what a room sends ----------------------------------------------------------------------------------------

%% Presences of occupants say that something changed, and why.
-spec filter_packet(drop | stanza()) -> drop | stanza().
filter_packet(#presence{from = #jid{lserver = MucHost}} = Presence) ->
    case mod_convsync_feed_room:is_known() of
        true -> in(MucHost, fun() -> noticed(Presence) end);
        false -> ok
    end,
    Presence;
filter_packet(Stanza) ->
    Stanza.

-spec noticed(presence()) -> ok.
noticed(#presence{type = unavailable} = Presence) ->
    case xmpp:get_subtag(Presence, #muc_user{}) of
        #muc_user{status_codes = Codes} ->
            _ = [mod_convsync_feed_room:reason(Why) || Code <- Codes, Why <- meaning(Code)],
            mod_convsync_feed_room:hint();
        _ -> ok
    end;
noticed(_) ->
    mod_convsync_feed_room:hint().

-spec meaning(integer()) -> [mod_convsync_feed_members:why()].
meaning(301) -> [banned];
meaning(307) -> [kicked];
meaning(321) -> [removed];
meaning(322) -> [removed];
meaning(_) -> [].

%% What goes to all of a room: what occupants say was seen in filter_message; the room itself speaks without a nick.
-spec multicast_route({jid(), binary(), [jid()], stanza(), boolean()}) -> {jid(), binary(), [jid()], stanza(), boolean()}.
multicast_route({#jid{lserver = MucHost, lresource = <<>>} = From, _, _, #message{} = Message, false} = Route) ->
    case mod_convsync_feed_room:is_known() of
        true -> in(MucHost, fun() -> spoken(xmpp:set_from(Message, From)) end);
        false -> ok
    end,
    Route;
multicast_route(Route) ->
    Route.

%% A notice of affiliations or of the configuration is not something said.
-spec spoken(message()) -> ok.
spoken(#message{type = groupchat, body = Body} = Message) ->
    case Body =/= [] orelse lists:any(fun(Element) -> not is_notice(Element) end, xmpp:get_els(Message)) of
        true -> mod_convsync_feed_room:announce(Message);
        false -> mod_convsync_feed_room:hint()
    end;
spoken(_) ->
    mod_convsync_feed_room:hint().

-spec is_notice(xmpp_element() | xmlel()) -> boolean().
is_notice(Element) -> xmpp:get_ns(Element) =:= ?NS_MUC_USER.

-spec is_only_typing(message()) -> boolean().
is_only_typing(#message{body = [], subject = []} = Message) ->
    Names = [xmpp:get_ns(Element) || Element <- xmpp:get_els(Message)],
    lists:member(?NS_CHATSTATES, Names)
        andalso lists:all(fun(Name) -> lists:member(Name, [?NS_CHATSTATES | ?BESIDE_TYPING]) end, Names);
is_only_typing(_) ->
    false.

%% A callback must not harm the room, and concerns only hosts that the feed covers.
-spec in(binary(), fun(() -> any())) -> ok.
in(MucHost, Callback) ->
    case mod_convsync_feed_host:covered(MucHost) of
        true -> _ = mod_convsync_feed_guard:attempt(MucHost, Callback), ok;
        false -> ok
    end.
