-- What an account's subscription requests and its blocklist become. Decides what is a change: the account's own data is
-- compared before and after the server's handlers, so a request that was refused, or was there already, is no event.

local jid = require "util.jid";
local rostermanager = require "core.rostermanager";
local xml = module:require "eventxml";

local host = module.host;
local xmlns_blocking = "urn:xmpp:blocking";
local blocklists = module:open_store("blocklist"); -- mod_blocklist's

local feed, exists;
local contacts = {};

-- Whether the peer's request to see the account's presence waits for the user.
local function is_waiting(username, peer)
	local roster = rostermanager.load_roster(username, host);
	return roster ~= nil and roster[false] ~= nil and roster[false].pending[peer] ~= nil;
end

local function tell(username, peer, state)
	feed.emit(xml.head("subscription", username .. "@" .. host, table.pack("peer", peer, "state", state)) .. "/>");
end

local asked = { subscribe = true, unsubscribe = true };
local function before_request(event)
	local attr = event.stanza.attr;
	if not asked[attr.type] or not attr.to or not attr.from then return nil; end
	local username, peer = jid.node(attr.to), jid.bare(attr.from);
	if not username or not exists(username, username .. "@" .. host) then return nil; end
	return { username = username, peer = peer, waiting = is_waiting(username, peer) };
end

local function after_request(known)
	local waiting = is_waiting(known.username, known.peer);
	if waiting ~= known.waiting then tell(known.username, known.peer, waiting and "requested" or "withdrawn"); end
end

local answered = { subscribed = true, unsubscribed = true };
local function before_answer(event)
	local attr, username = event.stanza.attr, event.origin.username;
	-- The server itself answers for a contact that was approved beforehand: that request never waited for the user.
	if not answered[attr.type] or not attr.to or not username then return nil; end
	local peer = jid.bare(attr.to);
	if not is_waiting(username, peer) then return nil; end
	return { username = username, peer = peer };
end

local function after_answer(known)
	if not is_waiting(known.username, known.peer) then tell(known.username, known.peer, "settled"); end
end

local function blocked(username)
	local list = {};
	for item in pairs(blocklists:get(username) or {}) do
		if item then list[item] = true; end -- [false] is mod_blocklist's own
	end
	return list;
end

local function before_blocking(event)
	local username = event.origin.username;
	if not username then return nil; end
	local waiting = {}; -- blocking a peer refuses its request
	for item in event.stanza.tags[1]:childtags("item") do
		local peer = jid.prep(item.attr.jid);
		if peer and is_waiting(username, peer) then waiting[peer] = true; end
	end
	return { username = username, waiting = waiting, blocked = blocked(username) };
end

local function after_blocking(known, event)
	local username, action = known.username, event.stanza.tags[1];
	local now, children = blocked(username), {};
	local function add(name, list, other)
		for item in pairs(list) do
			if not other[item] then table.insert(children, ("<%s%s/>"):format(name, xml.attribute("jid", item))); end
		end
	end
	if next(now) == nil and next(known.blocked) ~= nil and action.name == "unblock" and #action.tags == 0 then
		table.insert(children, "<unblock/>");
	else
		add("block", now, known.blocked);
		add("unblock", known.blocked, now);
	end
	if #children > 0 then
		feed.emit(xml.head("blocklist", username .. "@" .. host) .. ">" .. table.concat(children) .. "</event>");
	end
	for peer in pairs(known.waiting) do
		if not is_waiting(username, peer) then tell(username, peer, "settled"); end
	end
end

-- account_exists: (username, account) → boolean.
function contacts.start(a_feed, account_exists)
	feed, exists = a_feed, account_exists;
	for _, kind in ipairs { "bare", "full" } do
		feed.around("presence/" .. kind, before_request, after_request);
		feed.around("pre-presence/" .. kind, before_answer, after_answer);
	end
	for _, action in ipairs { "block", "unblock" } do
		feed.around(("iq-set/self/%s:%s"):format(xmlns_blocking, action), before_blocking, after_blocking);
	end
end

return contacts;
