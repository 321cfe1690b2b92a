-- How attentive each session of an account is, in the words of docs/feed.md §5, and up to when what was sent to it is known
-- to have arrived. Decides nothing about it.
--
-- mod_smacks knows how many stanzas a client has acknowledged and not when they were sent. So the time is taken here, with
-- each <a/>: all of it acknowledged, that is now; a part of it, and the moment of an earlier <a/> is the answer once all
-- that had been sent by then is acknowledged. So it may be too early and never too late.

local now = require "util.time".now;
local xml = module:require "eventxml";

local bare_sessions = prosody.bare_sessions;
local host = module.host;

-- XEP-0352, set by mod_csi. mod_csi_simple says "flushing" for a moment whenever something important goes out to an
-- inactive client, which does not make its user attentive.
local function is_inactive(session)
	return session.state == "inactive" or session.state == "flushing";
end

local function state_of(session)
	if session.hibernating then return "hibernated"; end
	if not session.presence then return "bound"; end
	if is_inactive(session) then return "inactive"; end
	return "active";
end

-- At bind: nothing has been sent yet. The fields stay with the session when the module is reloaded.
local function bound(session)
	session.convsync_acked = now();
end

-- An <a/> has come, mod_smacks has not seen it yet.
local function acknowledged(session, stanza)
	local queue, h = session.outgoing_stanza_queue, tonumber(stanza.attr.h);
	if not session.smacks or not h or type(queue) ~= "table" or not queue.count_acked then return; end
	local sent = queue:count_acked() + queue:count_unacked();
	local open = (sent - h) % 0x100000000; -- h starts over at 2^32
	local mark = session.convsync_mark;
	if open == 0 then
		session.convsync_acked, session.convsync_mark = now(), nil;
	elseif not mark or open <= sent - mark.sent then
		if mark then session.convsync_acked = mark.at; end
		session.convsync_mark = { sent = sent, at = now() };
	end
end

-- As an attribute ` acked='µs'` of a hibernated session, else nothing; nothing, too, for a session that is older than
-- the module.
local function acked(session)
	local at = session.hibernating and session.convsync_acked;
	return at and xml.attribute("acked", ("%.0f"):format(at * 1e6)) or "";
end

-- Calls f(session, resource) for every session of an account.
local function each(account, f)
	local user = bare_sessions[account];
	if not user then return; end
	for resource, session in pairs(user.sessions) do
		f(session, resource);
	end
end

-- The elements <session/> of all the host's sessions. A host of rooms has none.
local function all()
	local list = {};
	for _, user in pairs(prosody.hosts[host].sessions or {}) do
		for _, session in pairs(user.sessions) do
			if session.full_jid then
				table.insert(list, "<session" .. xml.attribute("jid", session.full_jid)
					.. xml.attribute("state", state_of(session)) .. acked(session) .. "/>");
			end
		end
	end
	return table.concat(list);
end

-- Appends the element <sessions/> of an account to the event that is being written by `to`: what it says of them.
local function put_summary(to, account)
	local user = bare_sessions[account];
	to.add("<sessions>");
	for resource, session in pairs(user and user.sessions or {}) do
		to.add("<s");
		to.put("r", resource);
		to.put("state", state_of(session));
		to.add(acked(session));
		to.add("/>");
	end
	to.add("</sessions>");
end

return {
	bound = bound, acknowledged = acknowledged, acked = acked;
	is_inactive = is_inactive, state_of = state_of, each = each, all = all, put_summary = put_summary;
};
