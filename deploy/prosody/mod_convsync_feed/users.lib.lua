-- The hooks of a VirtualHost: which of the server's events become which of ours. Decides nothing else.

local filters = require "util.filters";
local events = module:require "events";
local presence = module:require "presence";
local contacts = module:require "contacts";
local pep = module:require "pep";
local accounts = module:require "accounts";

local host = module.host;
local xmlns_synchronization = "https://xabber.com/protocol/synchronization";
local users = {
	ignore = events.ignore, replay = events.replay, names = accounts.users, exists = accounts.user_exists;
	displayed = pep.displayed;
};

local function each_session(f)
	for _, user in pairs(prosody.hosts[host].sessions) do
		for _, session in pairs(user.sessions) do f(session); end
	end
end

local function hook_messages(guarded)
	for _, kind in ipairs { "bare", "full" } do
		module:hook("message/" .. kind, guarded(events.expect_in), 0.5);
		module:hook("pre-message/" .. kind, guarded(events.expect_out), 0.5);
		module:hook("message/" .. kind, guarded(events.message_in), -0.4);
		module:hook("pre-message/" .. kind, guarded(events.message_out), -0.4);
	end
end

-- Events of a message wait until something is written to a client or something is asked: then all that wait are written
-- and sent together. Nobody is told before that a message was taken.
local function hook_writes(feed)
	local settle = feed.guarded(feed.settle);
	module:hook("c2s-pre-ondrain", function (event)
		event.session.convsync_drains = true; -- what is written to this session is announced here
		if feed.waiting() then settle(); end
	end, 1000);
	for _, kind in ipairs { "bare", "full", "host" } do
		module:hook("pre-iq/" .. kind, function ()
			if feed.waiting() then settle(); end
		end, 1000);
	end
end

local function hook_sessions(guarded)
	local function on(name, state, pick)
		module:hook(name, guarded(function (event) events.session(pick and pick(event) or event.origin, state); end));
	end
	on("resource-bind", "bound", function (event)
		presence.bound(event.session);
		return event.session;
	end);
	for _, version in ipairs { "urn:xmpp:sm:3", "urn:xmpp:sm:2" } do
		module:hook_tag(version, "a", guarded(presence.acknowledged), 10); -- mod_smacks ends the event at 0
	end
	on("resource-unbind", "unbound", function (event) return event.session; end);
	on("presence/initial", "available");
	on("csi-client-active", "active");
	on("csi-client-inactive", "inactive");
	on("smacks-hibernation-start", "hibernated");
	module:hook("smacks-hibernation-end", guarded(function (event)
		local session = event.resumed or event.origin;
		events.session(session, "resumed");
		if presence.is_inactive(session) then events.session(session, "inactive"); end -- mod_csi keeps it across resumption
	end));
	module:hook("pre-presence/bare", guarded(function (event)
		local session = event.origin;
		-- Not when a session ends: that is `unbound`.
		if event.stanza.attr.to == nil and event.stanza.attr.type == "unavailable"
			and session.presence and not session.destroyed then
			events.session(session, "unavailable");
		end
	end), -100);
end

local function hook_accounts(guarded)
	module:hook("user-registered", guarded(function (event)
		if event.host == host then events.account(event.username, "created"); end
	end));
	module:hook_global("user-deleted", guarded(function (event)
		if event.host == host then events.account(event.username, "deleted"); end
	end));
end

-- An error that this server answers itself is written to the sender's session and passes no hook.
local function watch_bounces(guarded)
	local bounce = guarded(events.bounce);
	local function filter(stanza, session)
		if stanza.name == "message" and stanza.attr.type == "error" then bounce(stanza, session); end
		return stanza;
	end
	local function watch(session)
		if (session.type or ""):sub(1, 3) == "c2s" then filters.add_filter(session, "stanzas/out", filter, 100); end
	end
	filters.add_filter_hook(watch);
	each_session(watch);
	function users.stop()
		filters.remove_filter_hook(watch);
		each_session(function (session) filters.remove_filter(session, "stanzas/out", filter); end);
	end
end

-- feed: what events.start takes, guarded, around, settle (writes and sends what waits), waiting (whether anything does).
function users.start(feed)
	events.start(feed);
	hook_messages(feed.guarded);
	hook_writes(feed);
	hook_sessions(feed.guarded);
	hook_accounts(feed.guarded);
	watch_bounces(feed.guarded);
	contacts.start(feed, events.exists);
	pep.start(feed);
	module:hook("stream-features", function (event)
		-- Xabber's clients look here and nowhere else (docs/feed.md §9).
		if event.origin.type ~= "c2s_unauthed" and event.origin.username then
			event.features:tag("synchronization", { xmlns = xmlns_synchronization }):up();
		end
	end);
end

return users;
