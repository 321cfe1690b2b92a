%%% What events look like (docs/feed.md §5). Decides how values are written; refuses to know what they mean.
-module(mod_convsync_feed_event).

-export([new/4, new/5, message/2, address/1, text/1, readable/1, element/2, clock/0]).
-export_type([attribute/0]).
-compile({no_auto_import, [element/2]}).

-include("xmpp.hrl").
-include("convsync_feed.hrl").

-type attribute() :: {binary(), binary() | boolean() | undefined}.

%% An `<event>` without its n. Attributes that are undefined or false are left out.
-spec new(binary(), binary(), [attribute()], [xmlel()]) -> xmlel().
new(Kind, Account, Attributes, Children) ->
    new(Kind, Account, clock(), Attributes, Children).

%% The same of another time.
-spec new(binary(), binary(), integer(), [attribute()], [xmlel()]) -> xmlel().
new(Kind, Account, At, Attributes, Children) ->
    Head = [{<<"kind">>, Kind}, {<<"account">>, Account}, {<<"at">>, integer_to_binary(At)}],
    #xmlel{name = <<"event">>, attrs = Head ++ lists:flatmap(fun attribute/1, Attributes), children = Children}.

-spec attribute(attribute()) -> [{binary(), binary()}].
attribute({_, undefined}) -> [];
attribute({_, false}) -> [];
attribute({Name, true}) -> [{Name, <<"true">>}];
attribute({Name, Value}) -> [{Name, Value}].

%% The stanza in its own namespace, addressed as told (undefined: to nobody). Clients write addresses in any case.
-spec message(stanza(), jid() | undefined) -> xmlel().
message(Stanza, To) ->
    Addressed = xmpp:set_from_to(Stanza, prepared(xmpp:get_from(Stanza)), prepared(To)),
    fxml:replace_tag_attr(<<"xmlns">>, ?NS_CLIENT, xmpp:encode(Addressed, ?NS_CLIENT)).

-spec prepared(jid() | undefined) -> jid() | undefined.
prepared(undefined) -> undefined;
prepared(#jid{} = JID) -> jid:make(jid:tolower(JID)).

%% The bare JID, as everybody writes it.
-spec address(jid()) -> binary().
address(JID) ->
    jid:encode(jid:remove_resource(jid:tolower(JID))).

%% The text that follows `<event n='…'`: what the outbox keeps. It can be read back.
-spec text(xmlel()) -> binary().
text(#xmlel{name = <<"event">>} = Event) ->
    Text = encoded(Event),
    case element(1, Text) of
        #xmlel{} -> Text;
        {error, _} ->
            Readable = encoded(readable(Event)),
            #xmlel{} = element(1, Readable),
            Readable
    end.

-spec encoded(xmlel()) -> binary().
encoded(Event) ->
    <<"<event", Rest/binary>> = fxml:element_to_binary(Event),
    Rest.

%% Without what would not be XML by itself: a prefix that was declared around the children of a stanza (ejabberd forgets
%% the declaration), and characters that only programs on the server can write.
-spec readable(xmlel()) -> xmlel().
readable(El) ->
    readable(El, [<<"xml">>]).

-spec readable(xmlel(), [binary()]) -> xmlel().
readable(#xmlel{attrs = Attributes, children = Children} = El, Around) ->
    Declared = [Prefix || {<<"xmlns:", Prefix/binary>>, _} <- Attributes] ++ Around,
    El#xmlel{attrs = [{Name, characters(Value)} || {Name, Value} <- Attributes, is_bound(Name, Declared)],
             children = lists:flatmap(fun(Child) -> readable_child(Child, Declared) end, Children)}.

-spec readable_child(xmlel() | {xmlcdata, iodata()}, [binary()]) -> [xmlel() | {xmlcdata, binary()}].
readable_child({xmlcdata, Text}, _) ->
    [{xmlcdata, characters(iolist_to_binary(Text))}];
readable_child(#xmlel{name = Name, attrs = Attributes} = El, Declared) ->
    Own = [Prefix || {<<"xmlns:", Prefix/binary>>, _} <- Attributes],
    [readable(El, Declared) || is_bound(Name, Own ++ Declared)].

-spec is_bound(binary(), [binary()]) -> boolean().
is_bound(Name, Declared) ->
    case binary:split(Name, <<":">>) of
        [_] -> true;
        [<<"xmlns">>, _] -> true;
        [Prefix, _] -> lists:member(Prefix, Declared)
    end.

-spec characters(binary()) -> binary().
characters(Text) ->
    << <<C/utf8>> || <<C/utf8>> <= Text, C >= 32 orelse C =:= $\t orelse C =:= $\n orelse C =:= $\r, C < 16#FFFE orelse C > 16#FFFF >>.

%% The event of a kept text, with its n.
-spec element(pos_integer(), binary()) -> xmlel() | {error, term()}.
element(N, Text) ->
    fxml_stream:parse_element(<<"<event n='", (integer_to_binary(N))/binary, "'", Text/binary>>).

%% Server time in µs since the epoch.
-spec clock() -> integer().
clock() ->
    erlang:system_time(microsecond).
