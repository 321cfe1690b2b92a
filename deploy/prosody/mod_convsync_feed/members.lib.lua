-- Who belongs to a room, as docs/feed.md §5 has it: accounts of this server's VirtualHosts that have an affiliation or
-- are present. Decides who that is and how it is written; refuses to know who has been told what.

local jid = require "util.jid";
local xml = module:require "eventxml";
local presence = module:require "presence";

local rank = { outcast = -1, none = 0, member = 1, admin = 2, owner = 3 };
local offers_occupant_id = module:get_option_boolean("muc_occupant_id", true);

-- Rooms know people of other servers, too, and whole domains that are banned.
local function is_account(address)
	local username, domain, resource = jid.split(address);
	local host = username and not resource and prosody.hosts[domain];
	return host and host.type == "local" or false;
end

-- The nick that the account is in the room under (the first by name if there are several), or nil. The sessions count:
-- a room that was restored from disk may have occupants whose sessions have long ended.
local function present_nick(room, account)
	local first;
	presence.each(account, function (session)
		local occupant = session.full_jid and room:get_occupant_jid(session.full_jid);
		local nick = occupant and jid.resource(occupant);
		if nick and (not first or nick < first) then first = nick; end
	end);
	return first;
end

local function describe(room, account)
	local nick = present_nick(room, account);
	return {
		-- Not room:get_affiliation(): for that the server's admins own every room, without belonging to any.
		jid = account, affiliation = room._affiliations[account] or "none";
		present = nick ~= nil, nick = nick or room:get_registered_nick(account);
	};
end

local function belongs(m)
	return rank[m.affiliation] > 0 or m.present and m.affiliation ~= "outcast";
end

-- Calls f with the description of everybody who belongs to the room.
local function each(room, f)
	local seen = {};
	local function look(account)
		if seen[account] or not is_account(account) then return; end
		seen[account] = true;
		local m = describe(room, account);
		if belongs(m) then f(m); end
	end
	for account in room:each_affiliation() do look(account); end
	for _, occupant in room:each_occupant() do look(occupant.bare_jid); end
end

-- Two descriptions that sign alike need not be told twice.
local function sign(m)
	return ("%s %s %s"):format(m.affiliation, m.present and "in" or "out", m.nick or "");
end

-- Why an account is no longer what `before` (a signature, or nil) says, or nil where it still is. told: the word that the
-- room's own notice gives.
local function reason(before, m, told)
	if m.present then return nil; end
	if m.affiliation == "outcast" then return "banned"; end
	if told then return told; end
	local affiliation, where = (before or ""):match("^(%a+) (%a+) ");
	if rank[m.affiliation] < 1 and rank[affiliation or "none"] > 0 then return "removed"; end
	return where == "in" and "left" or nil;
end

local function write(room, m, why)
	local id;
	if offers_occupant_id and room.get_occupant_id then
		id = room:get_occupant_id({ bare_jid = m.jid });
	end
	return "<m" .. xml.attribute("jid", m.jid) .. xml.attribute("affiliation", m.affiliation)
		.. xml.attribute("present", m.present) .. xml.attribute("nick", m.nick) .. xml.attribute("occupant-id", id)
		.. xml.attribute("why", why) .. "/>";
end

return {
	is_account = is_account, describe = describe, belongs = belongs, each = each;
	sign = sign, reason = reason, write = write;
};
