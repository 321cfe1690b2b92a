%%% Who belongs to a room, as docs/feed.md §5.3 has it: accounts of this server's own hosts that have an affiliation or are
%%% present. Decides who that is, what is different between two views of a room, and how it is written. Pure but for the
%%% list of the server's hosts; refuses to know who has been told what.

-module(mod_convsync_feed_members).

-export([view/2, is_same/2, listing/2, changes/4, thrown_out/3]).
-export_type([view/0, account/0, why/0]).

-include("xmpp.hrl").
-include("mod_muc_room.hrl").
-include("convsync_feed.hrl").

-define(PAGE, 200). % members in one event

-type account() :: {LUser :: binary(), LServer :: binary()}.
-type why() :: kicked | banned | left | removed.

%% What a room's state says of its members. The maps are the state's own: to hold a view costs no copy of them.
-record(view, {private :: boolean(),
               affiliations :: map(),
               subscribers :: map(),
               users :: map(),
               present :: #{account() => Nick :: binary()}}).
-opaque view() :: #view{}.

-record(member, {account :: account(),
                 affiliation :: atom(),
                 present :: boolean(),
                 nick :: binary() | undefined}).

%% The second argument is an earlier view of the room, if there is one: what did not change is not looked at again.
-spec view(#state{}, view() | undefined) -> view().
view(#state{users = Users, affiliations = Affiliations, config = Config, muc_subscribers = Subscriptions}, Before) ->
    Present = case Before of
                  #view{users = Users, present = Known} -> Known;
                  _ -> present(Users)
              end,
    #view{private = Config#config.members_only, affiliations = Affiliations, users = Users, present = Present,
          subscribers = Subscriptions#muc_subscribers.subscribers}.

%% Cheap where nothing happened: terms that are the same are not compared any further.
-spec is_same(view(), view()) -> boolean().
is_same(A, B) ->
    A#view.private =:= B#view.private andalso changed(A, B) =:= [].

%% The events of a listing: everybody who belongs to the room.
-spec listing(binary(), view()) -> [xmlel(), ...].
listing(Room, #view{affiliations = Affiliations, present = Present} = View) ->
    Known = [{U, S} || {U, S, _} <- maps:keys(Affiliations)],
    Accounts = lists:usort(accounts(Known) ++ maps:keys(Present)),
    Members = [write(Member, undefined)
               || Account <- Accounts, Member <- [describe(Account, View)], belongs(Member)],
    Pages = pages(Members),
    Count = length(Pages),
    [event(Room, View, [{<<"begin">>, N =:= 1}, {<<"end">>, N =:= Count}], Page)
     || {N, Page} <- lists:zip(lists:seq(1, Count), Pages)].

%% The events that turn who is told the first view into one who is told the second. Said: what the room's own notices say
%% of those who had to go.
-spec changes(binary(), view(), view(), #{account() => why()}) -> [xmlel()].
changes(Room, Before, After, Said) ->
    case [write(New, why(Old, New, maps:get(New#member.account, Said, undefined)))
          || {Old, New} <- changed(Before, After)] of
        [] when Before#view.private =:= After#view.private -> [];
        Members -> [event(Room, After, [], Page) || Page <- pages(Members)]
    end.

%% Who was thrown out is not in a listing that is made afterwards, so that must be said besides.
-spec thrown_out(binary(), view(), #{account() => why()}) -> [xmlel()].
thrown_out(Room, View, Said) ->
    Gone = [write(Member, why(Member, Member, Why))
            || {Account, Why} <- maps:to_list(Said), Member <- [describe(Account, View)], not belongs(Member)],
    [event(Room, View, [], Gone) || Gone =/= []].

%% Who is different now. One who does not belong to the room in either view is nobody.
-spec changed(view(), view()) -> [{#member{}, #member{}}].
changed(Before, After) ->
    Moved = moved(Before#view.affiliations, After#view.affiliations)
        ++ moved(Before#view.subscribers, After#view.subscribers),
    Accounts = lists:usort(accounts([{U, S} || {U, S, _} <- Moved])
                           ++ moved(Before#view.present, After#view.present)),
    [{Old, New} || Account <- Accounts, Old <- [describe(Account, Before)], New <- [describe(Account, After)],
                   Old =/= New, belongs(Old) orelse belongs(New)].

-spec moved(#{K => V}, #{K => V}) -> [K].
moved(Same, Same) -> [];
moved(Before, After) ->
    [K || {K, V} <- maps:to_list(After), maps:get(K, Before, undefined) =/= V]
        ++ [K || K <- maps:keys(Before), not is_map_key(K, After)].

-spec describe(account(), view()) -> #member{}.
describe({U, S} = Account, #view{affiliations = Affiliations, subscribers = Subscribers, present = Present}) ->
    Affiliation = case maps:get({U, S, <<>>}, Affiliations, none) of
                      {Known, _Reason} -> Known;
                      Known -> Known
                  end,
    {IsPresent, Nick} = case {Present, Subscribers} of
                            {#{Account := Own}, _} -> {true, Own};
                            {_, #{{U, S, <<>>} := #subscriber{nick = Reserved}}} -> {false, Reserved};
                            _ -> {false, undefined}
                        end,
    #member{account = Account, affiliation = Affiliation, present = IsPresent, nick = Nick}.

-spec belongs(#member{}) -> boolean().
belongs(#member{affiliation = outcast}) -> false;
belongs(#member{affiliation = none, present = Present}) -> Present;
belongs(#member{}) -> true.

-spec why(#member{}, #member{}, why() | undefined) -> why() | undefined.
why(_, #member{present = true}, _) -> undefined;
why(_, #member{affiliation = outcast}, _) -> banned;
why(_, _, Said) when Said =/= undefined -> Said;
why(#member{affiliation = Before}, #member{affiliation = none}, _) when Before =/= none, Before =/= outcast -> removed;
why(#member{present = true}, _, _) -> left;
why(_, _, _) -> undefined.

%% Who has a session in the room, under the first nick by name where there are several.
-spec present(map()) -> #{account() => binary()}.
present(Users) ->
    Hosts = ejabberd_option:hosts(),
    maps:fold(
      fun({U, S, _}, #user{nick = Nick}, Present) ->
              case {lists:member(S, Hosts), Present} of
                  {false, _} -> Present;
                  {true, #{{U, S} := First}} when First =< Nick -> Present;
                  {true, _} -> Present#{{U, S} => Nick}
              end
      end, #{}, Users).

%% Rooms know people of other servers, too, and whole domains that are banned.
-spec accounts([account()]) -> [account()].
accounts(Known) ->
    Hosts = ejabberd_option:hosts(),
    [Account || {U, S} = Account <- Known, U =/= <<>>, lists:member(S, Hosts)].

-spec pages([xmlel()]) -> [[xmlel()], ...].
pages(Members) when length(Members) =< ?PAGE -> [Members];
pages(Members) ->
    {Page, Rest} = lists:split(?PAGE, Members),
    [Page | pages(Rest)].

-spec event(binary(), view(), [{binary(), boolean()}], [xmlel()]) -> xmlel().
event(Room, #view{private = Private}, Attributes, Members) ->
    mod_convsync_feed_event:new(<<"room-members">>, Room, [{<<"private">>, Private} | Attributes], Members).

-spec write(#member{}, why() | undefined) -> xmlel().
write(#member{account = {U, S}, affiliation = Affiliation, present = Present, nick = Nick}, Why) ->
    #xmlel{name = <<"m">>,
           attrs = [{<<"jid">>, jid:encode({U, S, <<>>})}, {<<"affiliation">>, atom_to_binary(Affiliation, utf8)}]
               ++ [{<<"present">>, <<"true">>} || Present]
               ++ [{<<"nick">>, Nick} || is_binary(Nick), Nick =/= <<>>]
               ++ [{<<"why">>, atom_to_binary(Why, utf8)} || Why =/= undefined]}.
