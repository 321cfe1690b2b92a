%%% For tests only: lets a client tell ejabberd to stop and start a module, to change a room as an administrator does, to
%%% suspend a session's process or the outbox's; breaks a callback, and makes one slow.

-module(mod_convsync_control).
-behaviour(gen_mod).

-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_opt_type/1, mod_doc/0]).
-export([decode_iq_subel/1, process/1, break/3, mend/3, break/1, mend/1, slow/1]).
-export([kill_sent/1, kill_received/1, kill_offline/1, kill_room/3]).

-include("xmpp.hrl").
-include("mod_muc_room.hrl").

-define(NS, <<"urn:convsync:test">>).

-spec start(binary(), gen_mod:opts()) -> ok.
start(Host, _Opts) ->
    gen_iq_handler:add_iq_handler(ejabberd_local, Host, ?NS, ?MODULE, process),
    ejabberd_hooks:add(user_receive_packet, Host, ?MODULE, break, 89),
    ejabberd_hooks:add(user_receive_packet, Host, ?MODULE, mend, 91),
    ejabberd_hooks:add(user_receive_packet, Host, ?MODULE, slow, 89),
    ejabberd_hooks:add(user_send_packet, Host, ?MODULE, slow, 89),
    ejabberd_hooks:add(muc_filter_message, Host, ?MODULE, break, 949),
    ejabberd_hooks:add(muc_filter_message, Host, ?MODULE, mend, 951),
    [ejabberd_hooks:add(Hook, Host, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- between()],
    ok.

-spec stop(binary()) -> ok.
stop(Host) ->
    gen_iq_handler:remove_iq_handler(ejabberd_local, Host, ?NS),
    ejabberd_hooks:delete(user_receive_packet, Host, ?MODULE, break, 89),
    ejabberd_hooks:delete(user_receive_packet, Host, ?MODULE, mend, 91),
    ejabberd_hooks:delete(user_receive_packet, Host, ?MODULE, slow, 89),
    ejabberd_hooks:delete(user_send_packet, Host, ?MODULE, slow, 89),
    ejabberd_hooks:delete(muc_filter_message, Host, ?MODULE, break, 949),
    ejabberd_hooks:delete(muc_filter_message, Host, ?MODULE, mend, 951),
    [ejabberd_hooks:delete(Hook, Host, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- between()],
    ok.

%% Behind the archive and before the feed; of those at one place the one of the lower name comes first.
-spec between() -> [{atom(), atom(), integer()}].
between() ->
    [{user_send_packet, kill_sent, 89}, {user_receive_packet, kill_received, 89}, {offline_message_hook, kill_offline, 50},
     {muc_filter_message, kill_room, 949}].

%% As it came: nobody but this module knows the element.
-spec decode_iq_subel(xmlel()) -> xmlel().
decode_iq_subel(Element) -> Element.

-spec process(iq()) -> iq().
process(#iq{to = #jid{lserver = Host}, sub_els = [#xmlel{attrs = Attributes}]} = IQ) ->
    try act(fxml:get_attr_s(<<"do">>, Attributes), Host, fun(Name) -> fxml:get_attr_s(Name, Attributes) end) of
        #xmlel{} = El -> xmpp:make_iq_result(IQ, El);
        _ -> xmpp:make_iq_result(IQ)
    catch
        _:Reason ->
            Text = unicode:characters_to_binary(io_lib:format("~p", [Reason])),
            xmpp:make_error(IQ, xmpp:err_internal_server_error(Text, <<"en">>))
    end.

-spec act(binary(), binary(), fun((binary()) -> binary())) -> any().
act(<<"unload">>, Host, Attribute) ->
    ok = gen_mod:stop_module_keep_config(Host, module(Attribute));
act(<<"load">>, Host, Attribute) ->
    Module = module(Attribute),
    gen_mod:start_module(Host, Module);
act(<<"reload">>, Host, Attribute) ->
    act(<<"unload">>, Host, Attribute),
    act(<<"load">>, Host, Attribute);
act(<<"reload-config">>, _Host, _Attribute) ->
    ok = ejabberd_config:reload();
act(<<"suspend">>, _Host, Attribute) ->
    ok = sys:suspend(session(Attribute));
act(<<"suspend-owner">>, Host, _Attribute) ->
    ok = sys:suspend({global, mod_convsync_feed_host:name(Host)});
act(<<"resume-owner">>, Host, _Attribute) ->
    ok = sys:resume({global, mod_convsync_feed_host:name(Host)});
act(<<"kill-owner">>, Host, _Attribute) ->
    exit(global:whereis_name(mod_convsync_feed_host:name(Host)), kill);
act(<<"resume">>, _Host, Attribute) ->
    ok = sys:resume(session(Attribute));
%% What the admin command says of the feed.
act(<<"status">>, _Host, Attribute) ->
    Counters = ejabberd_commands:execute_command2(convsync_feed_status, [Attribute(<<"host">>)], #{caller_module => ejabberd_ctl}),
    #xmlel{name = <<"status">>, attrs = [{<<"xmlns">>, ?NS} | [{list_to_binary(N), integer_to_binary(V)} || {N, V} <- Counters]]};
%% An event's row is lost, as by a damaged disk.
act(<<"lose">>, Host, Attribute) ->
    N = binary_to_integer(Attribute(<<"n">>)),
    [Key] = [K || {H, _, M} = K <- mnesia:dirty_all_keys(convsync_event), H =:= Host, M =:= N],
    mnesia:dirty_delete(convsync_event, Key);
%% So many events of nobody's, one more, and how many rows are in the table then.
act(<<"fill">>, Host, Attribute) ->
    Account = <<"nobody@", Host/binary>>,
    Event = mod_convsync_feed_event:written(mod_convsync_feed_event:new(<<"account">>, Account, 1, [{<<"state">>, <<"created">>}], [])),
    Owner = {global, mod_convsync_feed_host:name(Host)},
    Batches = lists:duplicate(binary_to_integer(Attribute(<<"thousands">>)), lists:duplicate(1000, Event)) ++ [[Event]],
    [{ok, _} = gen_server:call(Owner, {put, any, Batch}, 60000) || Batch <- Batches],
    rows();
%% What was told and acknowledged is not known any more.
act(<<"forget-told">>, _Host, _Attribute) ->
    [mnesia:dirty_delete(convsync_event, K) || {_, told, _} = K <- mnesia:dirty_all_keys(convsync_event)],
    mnesia:sync_log();
%% How many events there are in the table.
act(<<"rows">>, _Host, _Attribute) ->
    rows();
%% m0 … m<count-1> become members of the room, without a notice each.
act(<<"affiliate">>, Host, Attribute) ->
    Members = [{{<<"m", (integer_to_binary(I))/binary>>, Host, <<>>}, {member, <<>>}}
               || I <- lists:seq(0, binary_to_integer(Attribute(<<"count">>)) - 1)],
    {Room, Service} = room(Attribute),
    {ok, Process} = mod_muc:find_online_room(Room, Service),
    {ok, #state{affiliations = Before}} = mod_muc_room:get_state(Process),
    p1_fsm:send_all_state_event(Process, {set_affiliations, maps:merge(maps:from_list(Members), Before)});
%% Returns when the room has done what it was sent, and what it sent itself about that.
act(<<"settle">>, _Host, Attribute) ->
    {Room, Service} = room(Attribute),
    case mod_muc:find_online_room(Room, Service) of
        {ok, Process} -> [mod_muc_room:get_info(Process) || _ <- [1, 2]];
        error -> ok
    end;
%% Returns when the room's process has ended and nobody thinks otherwise.
act(<<"asleep">>, _Host, Attribute) ->
    asleep(room(Attribute), 2000);
%% What an administrator's tools do.
act(<<"set-affiliation">>, _Host, Attribute) ->
    {Room, Service} = room(Attribute),
    ok = mod_muc_admin:set_room_affiliation(Room, Service, Attribute(<<"account">>), Attribute(<<"affiliation">>));
act(<<"set-option">>, _Host, Attribute) ->
    {Room, Service} = room(Attribute),
    ok = mod_muc_admin:change_room_option(Room, Service, Attribute(<<"option">>), Attribute(<<"value">>));
act(<<"destroy">>, _Host, Attribute) ->
    {Room, Service} = room(Attribute),
    ok = mod_muc_admin:destroy_room(Room, Service);
act(<<"announce">>, _Host, Attribute) ->
    {Room, Service} = room(Attribute),
    {ok, Process} = mod_muc:find_online_room(Room, Service),
    mod_muc_room:service_message(Process, Attribute(<<"text">>)).

-spec rows() -> xmlel().
rows() ->
    #xmlel{name = <<"rows">>, attrs = [{<<"xmlns">>, ?NS}, {<<"count">>, integer_to_binary(mnesia:table_info(convsync_event, size))}]}.

-spec asleep({binary(), binary()}, non_neg_integer()) -> ok.
asleep({Room, Service} = Name, Tries) when Tries > 0 ->
    case mod_muc:find_online_room(Room, Service) of
        {ok, _} -> timer:sleep(10), asleep(Name, Tries - 1);
        error -> ok
    end.

-spec session(fun((binary()) -> binary())) -> pid().
session(Attribute) ->
    #jid{luser = User, lserver = Server, lresource = Resource} = jid:decode(Attribute(<<"session">>)),
    ejabberd_sm:get_session_pid(User, Server, Resource).

-spec module(fun((binary()) -> binary())) -> module().
module(Attribute) -> binary_to_existing_atom(<<"mod_", (Attribute(<<"module">>))/binary>>, utf8).

-spec room(fun((binary()) -> binary())) -> {binary(), binary()}.
room(Attribute) ->
    #jid{luser = Room, lserver = Service} = jid:decode(Attribute(<<"room">>)),
    {Room, Service}.

%% A message that carries this element cannot be written as XML while the feed looks at it.
-spec break(drop | stanza(), #state{} | none, binary() | none) -> drop | stanza().
break(#message{sub_els = Elements} = Message, _State, _Nick) ->
    case lists:any(fun is_broken/1, Elements) of
        true -> Message#message{sub_els = [not_an_element | Elements]};
        false -> Message
    end;
break(Other, _State, _Nick) -> Other.

-spec mend(drop | stanza(), #state{} | none, binary() | none) -> drop | stanza().
mend(#message{sub_els = [not_an_element | Elements]} = Message, _State, _Nick) -> Message#message{sub_els = Elements};
mend(Other, _State, _Nick) -> Other.

%% The same on a message's way to an account.
-spec break({stanza() | drop, ejabberd_c2s:state()}) -> {stanza() | drop, ejabberd_c2s:state()}.
break({Stanza, State}) -> {break(Stanza, none, none), State}.

-spec mend({stanza() | drop, ejabberd_c2s:state()}) -> {stanza() | drop, ejabberd_c2s:state()}.
mend({Stanza, State}) -> {mend(Stanza, none, none), State}.

%% The session that tells of a message with this element takes its time, after the carbons have left and before the feed has
%% the event; those that get a copy do not.
-spec slow({stanza() | drop, ejabberd_c2s:state()}) -> {stanza() | drop, ejabberd_c2s:state()}.
slow({#message{sub_els = Elements, meta = Meta}, _} = Acc) when not is_map_key(sm_copy, Meta), not is_map_key(carbon_copy, Meta) ->
    [timer:sleep(binary_to_integer(fxml:get_attr_s(<<"ms">>, Attributes)))
     || #xmlel{name = <<"slow">>, attrs = Attributes} <- Elements],
    Acc;
slow(Acc) ->
    Acc.

%% A message with `<killed at='sent'/>` kills the server when its sender's archive has it and the feed does not yet, and so on.
-spec kill_sent({stanza() | drop, ejabberd_c2s:state()}) -> {stanza() | drop, ejabberd_c2s:state()}.
kill_sent({Stanza, _} = Acc) -> killed(<<"sent">>, Stanza), Acc.

-spec kill_received({stanza() | drop, ejabberd_c2s:state()}) -> {stanza() | drop, ejabberd_c2s:state()}.
kill_received({Stanza, _} = Acc) -> killed(<<"received">>, Stanza), Acc.

-spec kill_offline({term(), stanza()}) -> {term(), stanza()}.
kill_offline({_, Stanza} = Acc) -> killed(<<"offline">>, Stanza), Acc.

-spec kill_room(drop | stanza(), #state{}, binary()) -> drop | stanza().
kill_room(Stanza, _State, _Nick) -> killed(<<"room">>, Stanza), Stanza.

%% Mnesia's archive is not on the disk by itself for two seconds.
-spec killed(binary(), drop | stanza()) -> ok.
killed(Where, #message{sub_els = Elements}) ->
    case [El || #xmlel{name = <<"killed">>} = El <- Elements, fxml:get_tag_attr_s(<<"at">>, El) =:= Where] of
        [] -> ok;
        _ ->
            mnesia:sync_log(),
            os:cmd("kill -9 " ++ os:getpid()),
            timer:sleep(infinity)
    end;
killed(_, _) ->
    ok.

-spec is_broken(term()) -> boolean().
is_broken(#xmlel{name = <<"broken">>}) -> true;
is_broken(_) -> false.

-spec reload(binary(), gen_mod:opts(), gen_mod:opts()) -> ok.
reload(_Host, _New, _Old) -> ok.

-spec depends(binary(), gen_mod:opts()) -> [].
depends(_Host, _Opts) -> [].

-spec mod_opt_type(atom()) -> term().
mod_opt_type(_) -> econf:any().

-spec mod_options(binary()) -> [].
mod_options(_Host) -> [].

-spec mod_doc() -> map().
mod_doc() -> #{desc => "For tests only."}.
