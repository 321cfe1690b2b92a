%%% Convsync's feed: forwards what happens to the accounts of a VirtualHost and in the rooms of its MUC service to an
%%% external component, and loses nothing.
%%%
%%% docs/feed.md is the protocol. Whatever goes wrong in here is logged and counted and never touches a user's stanza. The
%%% module decides nothing about conversations.
%%%
%%%   messages, sessions, accounts, pep, contacts ┐
%%%   rooms ─▶ members                            ┴─▶ host ─▶ outbox (Mnesia), window ─▶ component     requests, archive, displayed
%%%   queries: what holds a client's request to the component back until the other sessions have told theirs
%%%   questions: that it is answered when the component is gone
-module(mod_convsync_feed).
-behaviour(gen_mod).
-behaviour(supervisor).

-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).
-export([components/1, offers/2, features/2, registered/2, removed/2, server_started/0, commands/0, status/1]).
-export([start_link/2, init/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("translate.hrl").
-include("ejabberd_commands.hrl").
-include("convsync_feed.hrl").

-define(NS_SYNCHRONIZATION, <<"https://xabber.com/protocol/synchronization">>).
-define(MEGABYTE, 1048576).

%%% The module

-spec start(binary(), gen_mod:opts()) -> ok.
start(Host, Opts) ->
    case gen_mod:get_opt(components, Opts) of
        [] -> ?ERROR_MSG("mod_convsync_feed of ~ts has no components: events are kept and nobody may fetch them", [Host]);
        _ -> ok
    end,
    mod_convsync_feed_outbox:tables(),
    Child = #{id => supervisor_name(Host), start => {?MODULE, start_link, [Host, Opts]}, restart => temporary, type => supervisor},
    {ok, _} = supervisor:start_child(ejabberd_gen_mod_sup, Child),
    [ejabberd_hooks:add(Hook, Host, Module, Function, Seq) || {Hook, Module, Function, Seq} <- hooks()],
    ejabberd_hooks:add(component_send_packet, mod_convsync_feed_requests, component_sent, 50),
    ejabberd_hooks:add(component_disconnected, mod_convsync_feed_questions, gone, 40),
    lists:foreach(fun mod_convsync_feed_requests:open/1, [Host | rooms(Host, Opts)]),
    with_rooms(start, Host, Opts),
    ejabberd_commands:register_commands(commands()),
    ejabberd_hooks:add(ejabberd_started, ?MODULE, server_started, 50),
    whereis(ejabberd_auth) =/= undefined andalso server_started(), % the module alone was started
    mod_convsync_feed_sessions:look(Host).

-spec stop(binary()) -> ok.
stop(Host) ->
    Hosts = [H || H <- mod_convsync_feed_host:hosts(), mod_convsync_feed_host:server_host(H) =:= Host],
    [mod_convsync_feed_rooms:stop(Host, H) || H <- Hosts, H =/= Host],
    lists:foreach(fun mod_convsync_feed_requests:close/1, Hosts),
    [ejabberd_hooks:delete(Hook, Host, Module, Function, Seq) || {Hook, Module, Function, Seq} <- hooks()],
    case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
        false ->
            ejabberd_hooks:delete(ejabberd_started, ?MODULE, server_started, 50),
            ejabberd_hooks:delete(component_send_packet, mod_convsync_feed_requests, component_sent, 50),
            ejabberd_hooks:delete(component_disconnected, mod_convsync_feed_questions, gone, 40),
            ejabberd_commands:unregister_commands(commands());
        true ->
            ok
    end,
    %% The listeners go first when the whole server stops; nothing can be missed then.
    whereis(ejabberd_listener) =/= undefined andalso lists:foreach(fun mod_convsync_feed_owner:unload/1, Hosts),
    _ = supervisor:terminate_child(ejabberd_gen_mod_sup, supervisor_name(Host)),
    ok.

-spec reload(binary(), gen_mod:opts(), gen_mod:opts()) -> ok.
reload(Host, New, _Old) ->
    Options = host_options(New),
    [mod_convsync_feed_owner:reload(H, Options)
     || H <- mod_convsync_feed_host:hosts(), mod_convsync_feed_host:server_host(H) =:= Host],
    ok.

-spec depends(binary(), gen_mod:opts()) -> [{module(), hard | soft}].
depends(_Host, _Opts) ->
    [{mod_muc, soft}, {mod_mam, soft}, {mod_stream_mgmt, soft}, {mod_client_state, soft}, {mod_roster, soft}].

-spec hooks() -> [{atom(), module(), atom(), integer()}].
hooks() ->
    Topics = [mod_convsync_feed_messages, mod_convsync_feed_sessions, mod_convsync_feed_pep, mod_convsync_feed_contacts,
              mod_convsync_feed_queries],
    [{Hook, Module, Function, Seq} || Module <- Topics, {Hook, Function, Seq} <- Module:hooks()]
        ++ [{c2s_post_auth_features, ?MODULE, features, 50}, {register_user, ?MODULE, registered, 90},
            {remove_user, ?MODULE, removed, 90}, {local_send_to_resource_hook, mod_convsync_feed_requests, stray, 50}].

%%% Processes: one for the host, one for each host of rooms; a failure of theirs goes no further than this supervisor.

-spec start_link(binary(), gen_mod:opts()) -> {ok, pid()} | {error, term()}.
start_link(Host, Opts) ->
    supervisor:start_link({local, supervisor_name(Host)}, ?MODULE, {Host, Opts}).

-spec init({binary(), gen_mod:opts()}) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init({Host, Opts}) ->
    mod_convsync_feed_accounts:open(Host),
    Options = host_options(Opts),
    Kinds = [{users, Host} | [{rooms, H} || H <- rooms(Host, Opts)]],
    {ok, {#{strategy => one_for_one, intensity => 20, period => 60},
          [#{id => H, start => {mod_convsync_feed_owner, start_link, [Kind, {H, Host}, Options]}} || {Kind, H} <- Kinds]}}.

-spec supervisor_name(binary()) -> atom().
supervisor_name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%% The hosts of rooms that have a feed.
-spec rooms(binary(), gen_mod:opts()) -> [binary()].
rooms(Host, Opts) ->
    case gen_mod:get_opt(rooms, Opts) andalso gen_mod:is_loaded(Host, mod_muc)
        andalso code:ensure_loaded(mod_convsync_feed_rooms) of
        {module, _} -> gen_mod:get_module_opt_hosts(Host, mod_muc);
        _ -> []
    end.

-spec with_rooms(start, binary(), gen_mod:opts()) -> ok.
with_rooms(start, Host, Opts) ->
    lists:foreach(fun(H) -> mod_convsync_feed_rooms:start(Host, H) end, rooms(Host, Opts)).

%%% Hooks of the host itself

%% Xabber's clients look for synchronization among the stream features and nowhere else (docs/feed.md §9).
-spec features([xmpp_element() | xmlel()], binary()) -> [xmpp_element() | xmlel()].
features(Features, _Host) ->
    [#xmlel{name = <<"synchronization">>, attrs = [{<<"xmlns">>, ?NS_SYNCHRONIZATION}]} | Features].

-spec registered(binary(), binary()) -> ok.
registered(User, Server) ->
    account(User, Server, <<"created">>).

-spec removed(binary(), binary()) -> ok.
removed(User, Server) ->
    account(User, Server, <<"deleted">>).

%% Everything is up and nobody has been let in yet.
-spec server_started() -> ok.
server_started() ->
    lists:foreach(fun mod_convsync_feed_owner:replay/1, mod_convsync_feed_host:hosts()).

-spec account(binary(), binary(), binary()) -> ok.
account(User, Server, State) ->
    mod_convsync_feed_guard:attempt(
      Server,
      fun() ->
              Account = jid:encode(jid:make(User, Server)),
              Event = mod_convsync_feed_event:new(<<"account">>, Account, [{<<"state">>, State}], []),
              mod_convsync_feed_host:put(jid:nameprep(Server), Event)
      end),
    ok.

%%% Options

-spec components(binary()) -> [jid()].
components(Host) ->
    gen_mod:get_module_opt(Host, ?MODULE, components).

-spec offers(binary(), archive | displayed) -> boolean().
offers(Host, Option) ->
    gen_mod:get_module_opt(Host, ?MODULE, Option).

-spec host_options(gen_mod:opts()) -> map().
host_options(Opts) ->
    #{components => gen_mod:get_opt(components, Opts),
      max_bytes => gen_mod:get_opt(outbox_max, Opts) * ?MEGABYTE,
      max_age => gen_mod:get_opt(outbox_age, Opts),
      sync => gen_mod:get_opt(outbox_sync, Opts)}.

-spec mod_opt_type(atom()) -> econf:validator().
mod_opt_type(components) -> econf:list(econf:jid());
mod_opt_type(outbox_max) -> econf:pos_int();
mod_opt_type(outbox_age) -> econf:timeout(second, infinity);
mod_opt_type(outbox_sync) -> econf:bool();
mod_opt_type(rooms) -> econf:bool();
mod_opt_type(archive) -> econf:bool();
mod_opt_type(displayed) -> econf:bool().

-spec mod_options(binary()) -> [{atom(), term()}].
mod_options(_Host) ->
    [{components, []}, {outbox_max, 256}, {outbox_age, timer:hours(24 * 7)}, {outbox_sync, true}, {rooms, true},
     {archive, true}, {displayed, true}].

-spec mod_doc() -> map().
mod_doc() ->
    #{desc => ?T("Forwards what happens to accounts and in rooms to the Convsync component and loses nothing."),
      opts => [{components, #{value => "[JID, ...]", desc => ?T("The components that may fetch the feed.")}},
               {outbox_max, #{value => "Number", desc => ?T("MB that the events kept for one host may take.")}},
               {outbox_age, #{value => "timeout()", desc => ?T("How long an event is kept for a component that is away.")}},
               {outbox_sync, #{value => "true | false", desc => ?T("Flush each event to the disk before it counts.")}},
               {rooms, #{value => "true | false", desc => ?T("Whether the rooms of this host's mod_muc have a feed.")}},
               {archive, #{value => "true | false", desc => ?T("Whether the component may read accounts and archives.")}},
               {displayed, #{value => "true | false", desc => ?T("Whether the component may publish what users have read.")}}]}.

%%% The admin's view

-spec commands() -> [#ejabberd_commands{}].
commands() ->
    [#ejabberd_commands{name = convsync_feed_status, tags = [server],
                        desc = "Counters and state of Convsync's feed, for each host",
                        module = ?MODULE, function = status, args = [{host, binary}],
                        args_example = [<<"example.org">>], args_desc = ["A host with a feed, or its MUC host"],
                        result = {status, {list, {counter, {tuple, [{name, string}, {value, integer}]}}}},
                        result_example = [{"events", 12}], result_desc = "Name and value"}].

-spec status(binary()) -> [{string(), integer()}].
status(Host) ->
    [{atom_to_list(Name), Value}
     || {Name, Value} <- mod_convsync_feed_guard:counters(Host) ++ mod_convsync_feed_host:status(Host)].
