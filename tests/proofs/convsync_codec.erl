%% What Debian's erlang-p1-xmpp, ejabberd's own codec, makes of our XML.
%%
%% Reads lines of Base64 from standard input, each an element with its own xmlns; answers each with a line:
%%   ok KNOWN BASE64      the element decoded and encoded again; KNOWN says how many elements in it the codec has a
%%                        specification of
%%   error BASE64         which element cannot be decoded, and why
%% What the codec does not know is kept as it is, and what it knows below that goes through it, too: stanzas in our own
%% elements are decoded as strictly as those around them. Decides nothing about what may differ.
-module(convsync_codec).
-export([main/0]).

-record(xmlel, {name = <<>> :: binary(), attrs = [] :: [{binary(), binary()}], children = [] :: [node_()]}).  % fast_xml's
-define(CONDITIONS, <<"urn:ietf:params:xml:ns:xmpp-stanzas">>).  % parts of <error/>
-type xmlel() :: #xmlel{}.
-type node_() :: xmlel() | {xmlcdata, binary()}.

-spec main() -> no_return().
main() ->
    ok = io:setopts([binary, {encoding, latin1}]),
    {ok, _} = application:ensure_all_started(fast_xml),
    {ok, _} = application:ensure_all_started(xmpp),
    loop().

-spec loop() -> no_return().
loop() ->
    case io:get_line("") of
        Line when is_binary(Line) ->
            io:put_chars([answer(base64:decode(string:trim(Line))), $\n]),
            loop();
        eof -> halt(0)
    end.

-spec answer(binary()) -> iodata().
answer(Text) ->
    try
        #xmlel{} = Element = fxml_stream:parse_element(Text),
        put(known, 0),
        Back = fxml:element_to_binary(through(Element, <<>>)),
        [<<"ok ">>, integer_to_binary(get(known)), <<" ">>, base64:encode(Back)]
    catch
        throw:{refused, Name, Reason} -> [<<"error ">>, one_line("~s: ~s", [Name, Reason])];
        Class:Reason:Stack -> [<<"error ">>, one_line("~p ~0p ~0p", [Class, Reason, hd(Stack)])]
    end.

-spec one_line(string(), list()) -> binary().
one_line(Form, Values) -> base64:encode(unicode:characters_to_binary(io_lib:format(Form, Values))).

%% The element as the codec would write it, and then what is below it: it leaves what is forwarded as it is, and what it
%% does not know. An element in its parent's namespace is part of that (as <count/> of a result set), and has been read
%% with it. Outer is the namespace around it.
-spec through(node_(), binary()) -> node_().
through(#xmlel{name = Name} = Element, Outer) ->
    Space = space(Element, Outer),
    #xmlel{children = Children} = Same =
        case Space =/= Outer andalso Space =/= ?CONDITIONS andalso xmpp_codec:get_mod(Name, Space) of
            Part when Part =:= false; Part =:= undefined -> Element;
            _ -> put(known, get(known) + 1), again(Element, Space)
        end,
    Same#xmlel{children = [through(Child, Space) || Child <- Children]};
through(Text, _) -> Text.

-spec again(xmlel(), binary()) -> xmlel().
again(#xmlel{name = Name} = Element, Space) ->
    try
        #xmlel{attrs = Attributes} = Encoded = xmpp:encode(xmpp:decode(Element, Space, []), Space),
        %% It leaves out a namespace that is the one around it: here nothing is around it.
        Encoded#xmlel{attrs = lists:keystore(<<"xmlns">>, 1, Attributes, {<<"xmlns">>, Space})}
    catch
        error:{xmpp_codec, Why} -> throw({refused, Name, xmpp:format_error(Why)});
        error:Why -> throw({refused, Name, io_lib:format("~0p", [Why])})
    end.

-spec space(xmlel(), binary()) -> binary().
space(Element, Outer) ->
    case fxml:get_tag_attr_s(<<"xmlns">>, Element) of
        <<>> -> Outer;
        Own -> Own
    end.
