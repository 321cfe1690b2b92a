%%% What the feed has been told of one room. All of it runs in that room's own process and lives in its dictionary, so a room
%%% is told in its own order, nothing is asked of another process but the outbox, and it is forgotten with the room.
%%%
%%% ejabberd has no hook for most changes of members, and in those it has the state is the one before. So whatever hints
%%% at a change lets the process send itself a *look*: an IQ that nobody else can send, which comes back to us through
%%% muc_process_iq with the state as it is then. A look compares that with what was told last.

-module(mod_convsync_feed_room).

-export([begins/2, asked/2, look_at/2, again/3, hint/0, gone/1, reason/1, announce/1, said/3, ended/0, is_known/0]).

-include("xmpp.hrl").
-include("mod_muc_room.hrl").
-include("convsync_feed.hrl").

-define(ROOM, {?MODULE, room}).
-define(TRIES, 3).
-define(TOGETHER, 50). % archived messages that are told together
-define(PATIENCE, 20000). % a room answers within this time, ms

-type request() :: look | {again, [mod_convsync_feed_archive:archived()], {pid(), reference()}}.
-record(room, {jid :: jid(),
               stream :: binary() | undefined, % in which the view was told; none: it was only seen
               view :: mod_convsync_feed_members:view() | undefined,
               born = false :: boolean(), % seen from its beginning: nobody else knows of it
               looking = false :: boolean(), % a look is on its way
               gone :: mod_convsync_feed_members:account() | undefined, % who left last
               reasons = #{} :: #{mod_convsync_feed_members:account() => mod_convsync_feed_members:why()},
               announced = [] :: [message()]}). % what the room itself said since the last look, newest first

%% A room's process has begun.
-spec begins(binary(), binary()) -> ok.
begins(Name, Host) ->
    keep(#room{jid = jid:make(Name, Host)}),
    hint().

-spec is_known() -> boolean().
is_known() -> get(?ROOM) =/= undefined.

%% Something may be different when the process is done with what it does now.
-spec hint() -> ok.
hint() ->
    case get(?ROOM) of
        #room{looking = false, jid = Jid} = Room ->
            keep(Room#room{looking = true}),
            look_at(self(), Jid);
        _ -> ok
    end.

%% Lets a room's process look at itself.
-spec look_at(pid(), jid()) -> ok.
look_at(Process, Jid) ->
    ask(Process, Jid, look).

%% Lets a room's process tell what its archive has. Returns when that is done.
-spec again(pid(), jid(), [mod_convsync_feed_archive:archived()]) -> ok | timeout.
again(Process, Jid, Archived) ->
    Ref = make_ref(),
    ask(Process, Jid, {again, Archived, {self(), Ref}}),
    receive
        {Ref, told} -> ok
    after ?PATIENCE -> timeout
    end.

-spec ask(pid(), jid(), request()) -> ok.
ask(Process, Jid, Request) ->
    Look = #iq{type = get, id = <<"look">>, from = Jid, to = Jid, meta = #{?MODULE => Request},
               sub_els = [#xmlel{name = <<"look">>, attrs = [{<<"xmlns">>, ?NS_FEED}]}]},
    mod_muc_room:route(Process, Look).

%% A session left the room; the room may say why in a moment. Why it did so before does not count any more.
-spec gone(jid()) -> ok.
gone(#jid{luser = U, lserver = S}) ->
    change(fun(#room{reasons = Reasons} = Room) -> Room#room{gone = {U, S}, reasons = maps:remove({U, S}, Reasons)} end),
    hint().

-spec reason(mod_convsync_feed_members:why()) -> ok.
reason(Why) ->
    change(fun(#room{gone = undefined} = Room) -> Room;
              (#room{gone = Account, reasons = Reasons} = Room) ->
                   Room#room{gone = undefined, reasons = Reasons#{Account => Why}}
           end).

%% The room itself speaks to everybody.
-spec announce(message()) -> ok.
announce(Message) ->
    change(fun(#room{announced = Announced} = Room) -> Room#room{announced = [Message | Announced]} end),
    hint().

%% What the process was asked, with the state as it is.
-spec asked(request(), #state{}) -> ok.
asked(look, State) ->
    look(State);
asked({again, Archived, {Process, Ref}}, State) ->
    retell(Archived, State),
    Process ! {Ref, told},
    ok.

-spec retell([mod_convsync_feed_archive:archived()], #state{}) -> ok.
retell([], _) ->
    ok;
retell(Archived, State) ->
    {Now, Later} = lists:split(min(?TOGETHER, length(Archived)), Archived),
    Room = room(State),
    View = mod_convsync_feed_members:view(State, Room#room.view),
    Events = [event(State, xmpp:remove_subtag(Message, #nick{}), {Id, At, Author}) || {Id, At, Author, Message} <- Now],
    tell(Room, View, Events, ?TRIES),
    retell(Later, State).

%% The room as it is now. Tells what is different, if anything is.
-spec look(#state{}) -> ok.
look(State) ->
    Room = room(State),
    View = mod_convsync_feed_members:view(State, Room#room.view),
    Announced = [event(State, Message, now_by(Message, undefined)) || Message <- lists:reverse(Room#room.announced)],
    Looked = Room#room{looking = false, gone = undefined, announced = []},
    case State#state.just_created of
        true -> keep(Looked#room{view = View, born = true}); % it is not certain that it comes to be
        _ when Room#room.view =:= undefined, Announced =:= [] -> keep(Looked#room{view = View});
        _ -> tell(Looked, View, Announced, ?TRIES)
    end.

%% Somebody says something to everybody. From: as what; State: as it is while that happens.
-spec said(message(), jid(), #state{}) -> ok.
said(#message{from = Author} = Message, From, State) ->
    Room = room(State),
    View = mod_convsync_feed_members:view(State, Room#room.view),
    Sent = xmpp:set_from(xmpp:remove_subtag(Message, #nick{}), From),
    tell(Room, View, [event(State, Sent, now_by(Message, Author))], ?TRIES).

%% The room is no more, or not in this process; a room that was not told of never was.
-spec ended() -> ok.
ended() ->
    case erase(?ROOM) of
        #room{view = View, stream = Stream, born = Born} = Room when View =/= undefined, not (Born and (Stream =:= undefined)) ->
            End = mod_convsync_feed_event:new(<<"room">>, name(Room), [{<<"state">>, <<"destroyed">>}], []),
            tell(Room, View, [End], ?TRIES),
            erase(?ROOM),
            ok;
        _ -> ok
    end.

%% Tells what is different in View, and then Events. In a stream that knows nothing of the room everybody is listed first,
%% if there is anything to tell.
-spec tell(#room{}, mod_convsync_feed_members:view(), [xmlel()], non_neg_integer()) -> ok.
tell(_, _, _, 0) ->
    error(outbox_too_small);
tell(#room{stream = undefined} = Room, View, Events, Tries) ->
    case Events =:= [] andalso mod_convsync_feed_members:is_same(Room#room.view, View) of
        true -> keep(Room#room{view = View, reasons = #{}});
        false ->
            {ok, Stream} = mod_convsync_feed_host:stream(host(Room)),
            list(Room, Stream, View, Events, Tries)
    end;
tell(#room{stream = Stream, reasons = Reasons} = Room, View, Events, Tries) ->
    Changes = mod_convsync_feed_members:changes(name(Room), Room#room.view, View, Reasons),
    put_in(Room, Stream, View, Changes ++ Events, Events, Tries).

-spec list(#room{}, binary(), mod_convsync_feed_members:view(), [xmlel()], pos_integer()) -> ok.
list(#room{reasons = Reasons} = Room, Stream, View, Events, Tries) ->
    Listing = mod_convsync_feed_members:listing(name(Room), View)
        ++ mod_convsync_feed_members:thrown_out(name(Room), View, Reasons),
    put_in(Room, Stream, View, Listing ++ Events, Events, Tries).

-spec put_in(#room{}, binary(), mod_convsync_feed_members:view(), [xmlel()], [xmlel()], pos_integer()) -> ok.
put_in(Room, Stream, View, [], _, _) ->
    keep(Room#room{stream = Stream, view = View, reasons = #{}});
put_in(Room, Stream, View, All, Events, Tries) ->
    case mod_convsync_feed_host:put_in(host(Room), Stream, All) of
        ok -> keep(Room#room{stream = Stream, view = View, reasons = #{}});
        {other, Other} when Tries > 1 -> list(Room, Other, View, Events, Tries - 1);
        {other, _} -> error(outbox_too_small);
        {error, Reason} -> error({not_written, Reason})
    end.

%% Archive id, time, author (undefined where the room itself speaks).
-type said() :: {binary() | undefined, integer(), binary() | undefined}.

-spec now_by(message(), jid() | undefined) -> said().
now_by(Message, Author) ->
    Id = case Message of
             #message{meta = #{mam_archived := true, stanza_id := Number}} -> integer_to_binary(Number);
             _ -> undefined
         end,
    Bare = case Author of
               undefined -> undefined;
               _ -> mod_convsync_feed_event:address(Author)
           end,
    {Id, mod_convsync_feed_event:clock(), Bare}.

-spec event(#state{}, message(), said()) -> xmlel().
event(#state{jid = Jid, config = Config}, Message, {Id, At, Author}) ->
    Own = jid:remove_resource(Jid),
    Attributes = [{<<"archive-id">>, Id}, {<<"author">>, Author}, {<<"private">>, Config#config.members_only}],
    mod_convsync_feed_event:new(<<"room-message">>, jid:encode(Own), At, Attributes,
                                [mod_convsync_feed_event:message(Message, undefined)]).

-spec room(#state{}) -> #room{}.
room(#state{jid = Jid}) ->
    case get(?ROOM) of
        undefined -> #room{jid = jid:remove_resource(Jid)};
        Room -> Room
    end.

-spec keep(#room{}) -> ok.
keep(Room) ->
    put(?ROOM, Room),
    ok.

-spec change(fun((#room{}) -> #room{})) -> ok.
change(Change) ->
    case get(?ROOM) of
        undefined -> ok;
        Room -> keep(Change(Room))
    end.

-spec name(#room{}) -> binary().
name(#room{jid = Jid}) -> jid:encode(Jid).

-spec host(#room{}) -> binary().
host(#room{jid = #jid{lserver = Host}}) -> Host.
