%%% Clients' questions that are with a component (XEP-0355) when its connection ends are answered at once: mod_delegation would
%%% wait for half a minute. Decides nothing about questions.
%%%
%%% A question is an entry of ejabberd_iq, on the node of who asked: it is taken out, so that a late answer is nobody's, and
%%% mod_delegation is told that there is no answer, as ejabberd_iq does when the time is up.
-module(mod_convsync_feed_questions).

%% A hook.
-export([gone/2]).
%% For the other nodes.
-export([give_up/2]).

-include("xmpp.hrl").

%% Before mod_delegation forgets what the component had.
-spec gone(binary(), term()) -> ok.
gone(Component, _Reason) ->
    Hosts = [Host || Host <- mod_convsync_feed_host:hosts(), mod_convsync_feed_host:server_host(Host) =:= Host,
                     lists:any(fun(#jid{lserver = Domain}) -> Domain =:= Component end, mod_convsync_feed:components(Host))],
    %% Another connection of the component may have been asked; then the server's own patience counts.
    _ = [mod_convsync_feed_guard:attempt_request(Host, fun() -> gone_from(Host, Component) end, ok)
         || Hosts =/= [], not ejabberd_router:is_my_route(Component), Host <- Hosts],
    ok.

-spec gone_from(binary(), binary()) -> ok.
gone_from(Host, Component) ->
    case mod_convsync_feed_queries:delegated(Host, Component) of
        [] -> ok;
        Namespaces ->
            _ = ejabberd_cluster:eval_everywhere(?MODULE, give_up, [gen_mod:get_module_proc(Host, mod_delegation), Namespaces]),
            ok
    end.

%% Those of this node, in these namespaces.
-spec give_up(atom(), [binary()]) -> ok.
give_up(Delegation, Namespaces) ->
    Asked = ets:match_object(ejabberd_iq, {'_', Delegation, '_'}),
    lists:foreach(fun({Key, _, Question}) -> give_up(Key, Question, Delegation, Namespaces) end, Asked).

-spec give_up(term(), term(), atom(), [binary()]) -> ok.
give_up(Key, #iq{sub_els = [El]} = Question, Delegation, Namespaces) ->
    case lists:member(xmpp:get_ns(El), Namespaces) andalso ets:take(ejabberd_iq, Key) of
        [_] ->
            Delegation ! {iq_reply, timeout, Question},
            ok;
        _ -> ok % not the component's, or answered in the meantime
    end;
give_up(_, _, _, _) ->
    ok.
