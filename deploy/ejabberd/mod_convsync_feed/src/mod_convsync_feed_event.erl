%%% What events look like (docs/feed.md §5). Decides how values are written; refuses to know what they mean.
-module(mod_convsync_feed_event).

-export([new/4, message/2, text/1, element/2, clock/0]).
-export_type([attribute/0]).

-include("xmpp.hrl").
-include("convsync_feed.hrl").

-type attribute() :: {binary(), binary() | boolean() | undefined}.

%% An `<event>` without its n. Attributes that are undefined or false are left out.
-spec new(binary(), binary(), [attribute()], [xmlel()]) -> xmlel().
new(Kind, Account, Attributes, Children) ->
    Head = [{<<"kind">>, Kind}, {<<"account">>, Account}, {<<"at">>, integer_to_binary(clock())}],
    #xmlel{name = <<"event">>, attrs = Head ++ lists:flatmap(fun attribute/1, Attributes), children = Children}.

-spec attribute(attribute()) -> [{binary(), binary()}].
attribute({_, undefined}) -> [];
attribute({_, false}) -> [];
attribute({Name, true}) -> [{Name, <<"true">>}];
attribute({Name, Value}) -> [{Name, Value}].

%% The stanza in its own namespace, addressed as told (undefined: to nobody).
-spec message(stanza(), jid() | undefined) -> xmlel().
message(Stanza, To) ->
    fxml:replace_tag_attr(<<"xmlns">>, ?NS_CLIENT, xmpp:encode(xmpp:set_to(Stanza, To), ?NS_CLIENT)).

%% The text that follows `<event n='…'`: what the outbox keeps.
-spec text(xmlel()) -> binary().
text(#xmlel{name = <<"event">>} = Event) ->
    <<"<event", Rest/binary>> = fxml:element_to_binary(Event),
    Rest.

%% The event of a kept text, with its n.
-spec element(pos_integer(), binary()) -> xmlel() | {error, term()}.
element(N, Text) ->
    fxml_stream:parse_element(<<"<event n='", (integer_to_binary(N))/binary, "'", Text/binary>>).

%% Server time in µs since the epoch.
-spec clock() -> integer().
clock() ->
    erlang:system_time(microsecond).
