-- The hooks of a MUC component: messages of its rooms, who belongs to them, their end. Decides what the current stream
-- already knows of a room, and so when the room is listed; refuses to know what a message means.
--
-- A change is found by comparing: whatever the server says happened, the account's state now is held against what was
-- told last. Hooks (Prosody 0.12): muc-broadcast-presence comes after each change of an occupant, with its status codes;
-- muc-set-affiliation also for the absent; at muc-broadcast-message −10 muc_mam has added the stanza-id.

local cache = require "util.cache";
local jid = require "util.jid";
local xml = module:require "eventxml";
local members = module:require "members";

local mod_muc = module:depends("muc");
local persistent_rooms = module:open_store("persistent"); -- mod_muc's
local PAGE = 200; -- members in one event
local MAX_ROOMS = 4096; -- remembered at a time; another room is listed again before its next event

local status = { ["301"] = "banned", ["307"] = "kicked", ["321"] = "removed", ["322"] = "removed" };
-- What surrounds a chat state that comes without anything else.
local beside_typing = { ["urn:xmpp:hints"] = true, ["urn:xmpp:sid:0"] = true, ["urn:xmpp:occupant-id:0"] = true };

local feed;
local told = cache.new(MAX_ROOMS); -- room → { stream, private, members: account → signature }
local rooms = {};

local function is_private(room)
	return room:get_members_only() and true or false;
end

local function emit_members(room, children, first, last, begin, finish)
	feed.emit(xml.head("room-members", room.jid, table.pack("private", is_private(room), "begin", begin, "end", finish))
		.. ">" .. table.concat(children, "", first, last) .. "</event>");
end

-- Names everybody who belongs to the room, in the stream given. False when another stream began meanwhile.
local function list(room, stream)
	local entry, children = { stream = stream, private = is_private(room), members = {} }, {};
	members.each(room, function (m)
		entry.members[m.jid] = members.sign(m);
		table.insert(children, members.write(room, m));
	end);
	local first = 1;
	repeat
		if feed.ready() ~= stream then return false; end
		local last = math.min(first + PAGE - 1, #children);
		emit_members(room, children, first, last, first == 1, last == #children);
		first = last + 1;
	until first > #children;
	told:set(room.jid, entry);
	return true;
end

-- What the current stream has been told of the room, after a listing where that was nothing (then the second value is
-- true); nil for the host's own room and while nothing can be written.
local function known(room)
	if not jid.node(room.jid) then return nil; end
	local listed = false;
	for _ = 1, 3 do
		local stream = feed.ready();
		if not stream then return nil; end
		local entry = told:get(room.jid);
		if entry and entry.stream == stream then
			told:set(room.jid, entry); -- the rooms that are quiet the longest are forgotten first
			return entry, listed;
		end
		listed = list(room, stream);
	end
	error("the outbox is too small for the members of " .. room.jid);
end

-- Something happened to an account: tells what is different now. why: what the room's own notice says.
local function compare(room, account, why)
	if room.destroying or not members.is_account(account) then return; end
	local entry, listed = known(room);
	if not entry then return; end
	local m, before = members.describe(room, account), entry.members[account];
	local after = members.belongs(m) and members.sign(m) or nil;
	-- Who was thrown out is not in a listing made afterwards, so that must be said besides.
	if before == after and not (listed and why and not after) then return; end
	entry.members[account], entry.private = after, is_private(room);
	emit_members(room, { members.write(room, m, members.reason(before, m, why)) }, 1, 1);
end

local function on_presence(event)
	-- The old name leaves before the new one is there: the notice about the new one follows.
	if event.nick then return; end
	local why;
	for code in event.x:childtags("status") do why = status[code.attr.code] or why; end
	compare(event.room, event.occupant.bare_jid, why);
end

local function on_affiliation(event)
	-- A room in the making gives its owner an affiliation before it is certain that it comes to be.
	if mod_muc.get_room_from_jid(event.room.jid) ~= event.room then return; end
	compare(event.room, event.jid);
end

local function on_configuration(event)
	local room = event.room;
	local entry = known(room);
	if not entry or entry.private == is_private(room) then return; end
	entry.private = is_private(room);
	emit_members(room, {}, 1, 0);
end

local function is_only_typing(stanza)
	local typing = false;
	for _, child in ipairs(stanza.tags) do
		if child.attr.xmlns == "http://jabber.org/protocol/chatstates" then
			typing = true;
		elseif child.name ~= "thread" and not beside_typing[child.attr.xmlns] then
			return false;
		end
	end
	return typing;
end

local function emit_message(room, stanza, id, author)
	local private = is_private(room);
	xml.begin("room-message", room.jid);
	xml.put("archive-id", id);
	xml.put("author", author);
	xml.put("private", private);
	xml.add(">");
	xml.stanza(stanza);
	xml.add("</event>");
	feed.emit(xml.text());
end

local function author_of(room, stanza)
	local occupant = room:get_occupant_by_nick(stanza.attr.from);
	return occupant and occupant.bare_jid;
end

-- Before mod_muc_mam sees it.
local function before_message(event)
	local room, stanza = event.room, event.stanza;
	if jid.node(room.jid) and stanza.name == "message" then feed.expect(room.jid, author_of(room, stanza)); end
end

local function on_message(event)
	local room, stanza = event.room, event.stanza;
	if stanza.name ~= "message" or is_only_typing(stanza) or not known(room) then return; end
	-- mod_muc_mam removes what a client says in the room's name; without it that would still be there.
	local id = prosody.hosts[module.host].modules.muc_mam
		and stanza:get_child_with_attr("stanza-id", "urn:xmpp:sid:0", "by", room.jid);
	emit_message(room, stanza, id and id.attr.id, author_of(room, stanza));
end

local function on_destroyed(event)
	local room = event.room;
	if room._data.destroyed or not known(room) then return; end -- a tombstone was told when it became one
	feed.emit(xml.head("room", room.jid, table.pack("state", "destroyed")) .. "/>");
	told:set(room.jid, nil);
end

-- feed: emit (takes an event's XML from after its n), ready (→ the stream that the next event will be of), expect (takes
-- the room whose message may be archived next, and its author), guarded.
function rooms.start(a_feed)
	feed = a_feed;
	local function hook(name, f, priority) module:hook(name, feed.guarded(f), priority); end
	hook("muc-broadcast-presence", on_presence, 10);
	hook("muc-set-affiliation", on_affiliation);
	hook("muc-set-affiliation-data/reserved_nickname", function (event) compare(event.room, event.jid); end);
	hook("muc-config-submitted/muc#roomconfig_membersonly", on_configuration, -10);
	hook("muc-broadcast-message", before_message, 0.5);
	hook("muc-broadcast-message", on_message, -10);
	hook("muc-room-destroyed", on_destroyed, 10);
end

function rooms.stop() end

-- An archived message that had no event yet when the server was killed.
function rooms.replay(address, id, stanza, author)
	local room = mod_muc.get_room_from_jid(address);
	if room and known(room) and not is_only_typing(stanza) then emit_message(room, stanza, id, author); end
end

-- The rooms that are in memory and those that would be restored: without restoring them.
function rooms.names()
	local names, seen = {}, {};
	local function add(address)
		if seen[address] or not jid.node(address) then return; end
		seen[address] = true;
		table.insert(names, address);
	end
	for room in mod_muc.live_rooms() do
		if not room._data.destroyed then add(room.jid); end
	end
	for address in pairs(persistent_rooms:get(nil) or {}) do add(address); end
	return names;
end

function rooms.exists(username)
	return mod_muc.get_room_from_jid(username .. "@" .. module.host) ~= nil;
end

return rooms;
