-- How attentive each session of an account is, in the words of docs/feed.md §5. Decides nothing about it.

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

-- Calls f(session, resource) for every session of an account.
local function each(account, f)
	local user = bare_sessions[account];
	if not user then return; end
	for resource, session in pairs(user.sessions) do
		f(session, resource);
	end
end

-- Every session of the host: { jid, state }. A host of rooms has none.
local function all()
	local list = {};
	for _, user in pairs(prosody.hosts[host].sessions or {}) do
		for _, session in pairs(user.sessions) do
			if session.full_jid then
				table.insert(list, { jid = session.full_jid, state = state_of(session) });
			end
		end
	end
	return list;
end

return { is_inactive = is_inactive, state_of = state_of, each = each, all = all };
