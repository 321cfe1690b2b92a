%%% What events look like (docs/feed.md §5). Decides how values are written; refuses to know what they mean.
-module(mod_convsync_feed_event).

-export([new/4, new/5, message/2, address/1, written/1, readable/1, element/2, numbered/2, clock/0]).
-export_type([attribute/0, written/0]).
-compile({no_auto_import, [element/2]}).

-include("xmpp.hrl").
-include("convsync_feed.hrl").

-type attribute() :: {binary(), binary() | boolean() | undefined}.
%% The text that follows `<event n='…'`, which is what the outbox keeps, and the event itself, but for its n.
-type written() :: {binary(), xmlel()}.

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

%% Can be read back, whatever the event holds. To see that most can costs less than to read them.
-spec written(xmlel()) -> written().
written(#xmlel{name = <<"event">>} = Event) ->
    <<"<event", Rest/binary>> = Text = fxml:element_to_binary(Event),
    case (is_text(Rest) andalso is_without_prefixes(Event)) orelse fxml_stream:parse_element(Text) of
        {error, _} ->
            Readable = readable(Event),
            <<"<event", Kept/binary>> = Whole = fxml:element_to_binary(Readable),
            #xmlel{} = fxml_stream:parse_element(Whole),
            {Kept, Readable};
        _ ->
            {Rest, Event}
    end.

%% UTF-8 without what XML cannot hold.
-spec is_text(binary()) -> boolean().
is_text(<<C, Rest/binary>>) when C >= 32, C < 128 -> is_text(Rest);
is_text(<<C/utf8, Rest/binary>>) when C >= 128, C =/= 16#FFFE, C =/= 16#FFFF -> is_text(Rest);
is_text(<<C, Rest/binary>>) when C =:= $\t; C =:= $\n; C =:= $\r -> is_text(Rest);
is_text(Rest) -> Rest =:= <<>>.

-spec is_without_prefixes(xmlel() | {xmlcdata, iodata()}) -> boolean().
is_without_prefixes(#xmlel{name = Name, attrs = Attributes, children = Children}) ->
    not has_prefix(Name) andalso not lists:any(fun({<<"xml:lang">>, _}) -> false; ({N, _}) -> has_prefix(N) end, Attributes)
        andalso lists:all(fun is_without_prefixes/1, Children);
is_without_prefixes(_) ->
    true.

-spec has_prefix(binary()) -> boolean().
has_prefix(<<$:, _/binary>>) -> true;
has_prefix(<<_, Rest/binary>>) -> has_prefix(Rest);
has_prefix(<<>>) -> false.

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

%% The same of an event that was written a moment ago.
-spec numbered(pos_integer(), xmlel()) -> xmlel().
numbered(N, #xmlel{attrs = Attributes} = Event) ->
    Event#xmlel{attrs = [{<<"n">>, integer_to_binary(N)} | Attributes]}.

%% Server time in µs since the epoch.
-spec clock() -> integer().
clock() ->
    erlang:system_time(microsecond).
