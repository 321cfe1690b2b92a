-- What the component may read of the host's accounts before it knows them: their names, roster and PEP items. Decides
-- how much of it one answer holds; refuses to know what it is for. A host of rooms has rooms for accounts.

local st = require "util.stanza";
local jid = require "util.jid";
local rostermanager = require "core.rostermanager";
local usermanager = require "core.usermanager";
local xml = module:require "eventxml";

local host = module.host;
local xmlns_feed = "urn:convsync:feed:0";
local NODES = { "urn:xmpp:mds:displayed:0", "urn:xmpp:bookmarks:1" };
local MAX_NAMES, DEFAULT_NAMES = 1000, 500;
local MAX_CONTACTS, MAX_ITEMS = 5000, 1000;
local NAMES_SECONDS = 60; -- the server lists names without any order: the sorted list serves the pages of this long

local accounts = {};
local listed; -- array of bare JIDs, sorted

-- A whole number written in at most `digits` digits, or nil.
function accounts.number(text, digits)
	return text and #text <= digits and text:match("^%d+$") and tonumber(text) or nil;
end

-- The user part of the account that a request names, or nil and the error that it is answered with.
function accounts.named(request)
	local username, domain, resource = jid.prepped_split(request.attr.account);
	if not username or resource then return nil, "modify", "bad-request"; end
	if domain ~= host then return nil, "cancel", "item-not-found"; end
	return username;
end

function accounts.refuse(event, kind, condition)
	return event.origin.send(st.error_reply(event.stanza, kind, condition));
end

-- names(): an array of the host's bare JIDs in any order, or nil where the server cannot tell.
local function sorted(names)
	if listed then return listed; end
	local all = names();
	if not all then return nil; end
	table.sort(all);
	listed = all;
	module:add_timer(NAMES_SECONDS, function ()
		if listed == all then listed = nil; end
	end);
	return all;
end

-- The index of the first that sorts behind `after`.
local function first_behind(list, after)
	local low, high = 1, #list + 1;
	while low < high do
		local middle = math.floor((low + high) / 2);
		if list[middle] > after then high = middle; else low = middle + 1; end
	end
	return low;
end

-- <accounts after= max=/>; names as for `sorted`.
function accounts.list(event, names)
	local request = event.stanza.tags[1];
	local max = DEFAULT_NAMES;
	if request.attr.max then
		max = accounts.number(request.attr.max, 9);
		if not max or max < 1 then return accounts.refuse(event, "modify", "bad-request"); end
	end
	local list = sorted(names);
	if not list then return accounts.refuse(event, "cancel", "feature-not-implemented"); end
	local first = request.attr.after and first_behind(list, request.attr.after) or 1;
	local last = math.min(first + math.min(max, MAX_NAMES) - 1, #list);
	local parts = {};
	for i = first, last do table.insert(parts, "<account" .. xml.attribute("jid", list[i]) .. "/>"); end
	return xml.answer(event, ("<accounts xmlns='%s'%s>%s</accounts>")
		:format(xmlns_feed, xml.attribute("last", last >= #list), table.concat(parts)));
end

-- The users of a VirtualHost. Nil with an authentication provider that cannot list them.
function accounts.users()
	local each, state, first = usermanager.users(host);
	if type(each) ~= "function" then return nil; end
	local names = {};
	for username in each, state, first do table.insert(names, username .. "@" .. host); end
	return names;
end

function accounts.user_exists(username)
	return usermanager.user_exists(username, host);
end

local function contacts_of(username, parts)
	local count = 0;
	for contact, item in pairs(rostermanager.load_roster(username, host) or {}) do
		if contact and item.subscription and item.subscription ~= "none" then -- [false] is the roster's own
			count = count + 1;
			if count > MAX_CONTACTS then return; end
			table.insert(parts, "<contact" .. xml.attribute("jid", contact) .. "/>");
		end
	end
end

local function items_of(username, node, parts)
	local mod_pep = prosody.hosts[host].modules.pep;
	if not mod_pep then return; end
	local ok, items = mod_pep.get_pep_service(username):get_items(node, true, nil, { max = MAX_ITEMS });
	for _, id in ipairs(ok and items or {}) do -- newest first
		local payload = items[id].tags[1];
		if payload then
			table.insert(parts, "<pep" .. xml.attribute("node", node) .. xml.attribute("item", id) .. ">"
				.. tostring(payload) .. "</pep>");
		end
	end
end

-- <account account=/>: whom the account knows, and the items of its own that conversations depend on.
function accounts.describe(event)
	local username, kind, condition = accounts.named(event.stanza.tags[1]);
	if not username then return accounts.refuse(event, kind, condition); end
	if not accounts.user_exists(username) then return accounts.refuse(event, "cancel", "item-not-found"); end
	local parts = { ("<account xmlns='%s'%s>"):format(xmlns_feed, xml.attribute("jid", username .. "@" .. host)) };
	contacts_of(username, parts);
	for _, node in ipairs(NODES) do items_of(username, node, parts); end
	table.insert(parts, "</account>");
	return xml.answer(event, table.concat(parts));
end

return accounts;
