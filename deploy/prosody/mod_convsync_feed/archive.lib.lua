-- Pages of an account's archive, or of a room's, oldest first. Decides what one page and one look into the archive may
-- cost; refuses to know who has read how far.
--
-- Prosody 0.12's default storage reads an account's whole archive for every query, a database only what is asked for. So
-- a look takes what several pages need, more where looking is dear, and what it took is held for a minute: written as
-- XML, a few accounts at a time.

local cache = require "util.cache";
local jid = require "util.jid";
local monotonic = require "util.time".monotonic;
local accounts = module:require "accounts";
local xml = module:require "eventxml";

local host = module.host;
local has_rooms = module:get_host_type() == "component";
local xmlns_feed = "urn:convsync:feed:0";
local PAGE_ITEMS, PAGE_BYTES = 50, 256 * 1024;
local FEWEST, MOST, LOOK_BYTES = 100, 4000, 4 * 1024 * 1024; -- items and bytes that one look takes
local DEAR = 0.05; -- seconds
local HELD, HELD_SECONDS = 4, 60; -- looks that are held at a time, and how long

local store = module:open_store(has_rooms and "muc_log" or module:get_option_string("archive_store", "archive"), "archive");
local held = cache.new(HELD); -- account, start, end → look
local look_items = FEWEST;
local archive = {};

local function keeps_archive()
	local modules = prosody.hosts[host].modules;
	return modules[has_rooms and "muc_mam" or "mam"] ~= nil and store ~= nil and type(store.find) == "function";
end

-- Who wrote a room's message, where the room tells everybody: mod_muc_mam keeps it in that case only.
local function author_of(message)
	local x = message:get_child("x", "http://jabber.org/protocol/muc#user");
	local item = x and x:get_child("item");
	return item and item.attr.jid and jid.bare(item.attr.jid);
end

local function write(id, message, when, account)
	return "<item" .. xml.attribute("id", id) .. (" at='%.0f'"):format(when * 1e6)
		.. xml.attribute("author", has_rooms and author_of(message) or nil) .. ">"
		.. xml.message(message, not has_rooms and (message.attr.to or account) or nil) .. "</item>";
end

-- Takes as many at the next look as it needs to be worth its price: seconds that this one took to find and to write.
local function learn(finding, writing)
	if finding <= writing then
		look_items = FEWEST;
	elseif finding > DEAR then
		look_items = math.min(look_items * 4, MOST);
	end
end

-- Reads on from `after`. Returns a look: items { id, text }, `from` (the next to be given), `ended` (nothing is behind
-- these); or nil and the storage's error.
local function look_into(username, account, range, after)
	local began, limit = monotonic(), look_items;
	local find, err = store:find(username, {
		start = range.start, ["end"] = range["end"], after = after, limit = limit;
		with = has_rooms and "message<groupchat" or nil; -- a room's presence may be in there, too
	});
	if not find then return nil, err; end
	local found = monotonic();
	local look, bytes, seen = { items = {}, from = 1, ended = false }, 0, 0;
	while seen < limit and bytes < LOOK_BYTES do
		local ok, id, message, when = pcall(find);
		if ok and not id then
			look.ended = true;
			break;
		end
		seen = seen + 1;
		local text;
		if ok then ok, text = pcall(write, id, message, when, account); end
		if ok then
			table.insert(look.items, { id = id, text = text });
			bytes = bytes + #text;
		else
			module:log("warn", "An archived message of %s cannot be read and is left out", account);
		end
	end
	learn(found - began, monotonic() - found);
	return look;
end

-- What was held, if it goes on behind `after` and does not end within the page: what came to the archive since then
-- must not be missed.
local function held_look(key, after, max)
	local look = held:get(key);
	local passed = look and look.items[look.from - 1];
	if not passed or passed.id ~= after or not look.items[look.from] then return nil; end
	if look.ended and look.from + max > #look.items then return nil; end
	return look;
end

-- The next page of a look.
local function page_of(look, max)
	local parts, bytes = {}, 0;
	while #parts < max and look.items[look.from] do
		local text = look.items[look.from].text;
		if #parts > 0 and bytes + #text > PAGE_BYTES then break; end
		table.insert(parts, text);
		bytes, look.from = bytes + #text, look.from + 1;
	end
	return parts, look.ended and not look.items[look.from];
end

-- start, end: whole seconds, as storages have them, so rounded outwards.
local function parse(attr)
	local range, max = {}, PAGE_ITEMS;
	for name, round in pairs { start = math.floor, ["end"] = math.ceil } do
		if attr[name] then
			local time = accounts.number(attr[name], 16);
			if not time then return nil; end
			range[name] = round(time / 1e6);
		end
	end
	if attr.max then
		max = accounts.number(attr.max, 9);
		if not max or max < 1 then return nil; end
	end
	if attr.after == "" then return nil; end
	return range, math.min(max, PAGE_ITEMS);
end

local function hold(key, look)
	held:set(key, look);
	module:add_timer(HELD_SECONDS, function ()
		if held:get(key) == look then held:set(key, nil); end
	end);
end

-- <archive account= start= end= after= max=/>; exists(username): whether there is such an account, or room.
function archive.page(event, exists)
	local attr = event.stanza.tags[1].attr;
	local username, kind, condition = accounts.named(event.stanza.tags[1]);
	if not username then return accounts.refuse(event, kind, condition); end
	local range, max = parse(attr);
	if not range then return accounts.refuse(event, "modify", "bad-request"); end
	if not keeps_archive() then return accounts.refuse(event, "cancel", "feature-not-implemented"); end
	if not exists(username) then return accounts.refuse(event, "cancel", "item-not-found"); end
	local account = username .. "@" .. host;
	local key = ("%s %s %s"):format(account, range.start or "", range["end"] or "");
	local look = attr.after and held_look(key, attr.after, max);
	if not look then
		local err;
		look, err = look_into(username, account, range, attr.after);
		if not look then
			if err == "item-not-found" then return accounts.refuse(event, "cancel", err); end
			module:log("error", "The archive of %s cannot be read: %s", account, err);
			return accounts.refuse(event, "wait", "internal-server-error");
		end
		-- Without an item there would be nothing to go on behind.
		if not look.items[1] and not look.ended then return accounts.refuse(event, "wait", "internal-server-error"); end
		hold(key, look);
	end
	local parts, last = page_of(look, max);
	return xml.answer(event, ("<archive xmlns='%s'%s>%s</archive>")
		:format(xmlns_feed, xml.attribute("last", last), table.concat(parts)));
end

-- The messages of an account or room since then (seconds), oldest first: { id =, message = }.
function archive.since(username, start)
	local list = {};
	local find = store and type(store.find) == "function"
		and store:find(username, { start = start, with = has_rooms and "message<groupchat" or nil });
	for id, message in find or function () end do table.insert(list, { id = id, message = message }); end
	return list;
end

return archive;
