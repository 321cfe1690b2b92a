-- Turns what the server does into events. Decides only which stanzas are a one-to-one message to or from an account of
-- this host, and that it is one event however many sessions see it; refuses to know what a message means.
--
-- Where the hooks sit (Prosody 0.12): mod_blocklist stops at 100, mod_mam archives at 0 and adds the stanza-id, so at
-- -0.5 the id is there iff the message was archived; mod_mam strips the sender's at -1, mod_message delivers at -1.
-- Carbons, archive results, offline messages handed out at login and stream management's resending write to the
-- session and never pass here.

local st = require "util.stanza";
local jid = require "util.jid";
local now = require "util.time".now;
local cache = require "util.cache";
local rostermanager = require "core.rostermanager";
local usermanager = require "core.usermanager";
local presence = module:require "presence";

local host = module.host;
local xml_escape = st.xml_escape;
local xmlns_feed = "urn:convsync:feed:0";
local subscribed = { both = true, from = true, to = true };

local events = {};
-- Messages that were looked at: a bounce that came by routing must not come again when it is written to the session.
local seen = setmetatable({}, { __mode = "k" });
local existing = cache.new(4096);

-- components: set of JIDs that are never a peer; emit: takes an event's XML from after its n.
function events.start(components, emit)
	events.components, events.emit = components, emit;
end

local function head(kind, account)
	return (" kind='%s' account='%s' at='%.0f'"):format(kind, xml_escape(account), now() * 1e6);
end

local function exists(username, account)
	if prosody.bare_sessions[account] or existing:get(username) then return true; end
	if not usermanager.user_exists(username, host) then return false; end
	existing:set(username, true);
	return true;
end

local function is_known(username, peer)
	local roster = rostermanager.load_roster(username, host);
	local item = roster and roster[peer];
	return item ~= nil and subscribed[item.subscription] == true;
end

local function sessions_summary(account)
	local list = {};
	presence.each(account, function (session, resource)
		table.insert(list, ("<s r='%s' state='%s'/>"):format(xml_escape(resource), presence.state_of(session)));
	end);
	return "<sessions>" .. table.concat(list) .. "</sessions>";
end

-- The stanza in its own namespace, addressed even where routing took `to` away (a message to oneself).
local function serialize(stanza, to)
	local attr = stanza.attr;
	local old_xmlns, old_to = attr.xmlns, attr.to;
	attr.xmlns, attr.to = "jabber:client", old_to or to;
	local ok, text = pcall(tostring, stanza);
	attr.xmlns, attr.to = old_xmlns, old_to;
	if not ok then error(text, 0); end
	return text;
end

local function is_conversation(stanza, peer)
	local kind = stanza.attr.type;
	if kind == "groupchat" then return false; end
	if events.components:contains(jid.host(peer)) then return false; end -- the component's own
	-- PEP notifications are addressed to each session and are no messages of anybody.
	if stanza:get_child("event", "http://jabber.org/protocol/pubsub#event") and not stanza:get_child("body") then
		return false;
	end
	return true;
end

-- What the component says in a user's name by XEP-0356 and marks as its own. Only mod_privilege has an origin that is
-- a client without a full JID: a client that copies the mark hides nothing.
local function is_marked(event)
	return event.origin.type == "c2s" and not event.origin.full_jid
		and event.stanza:get_child("convsync", xmlns_feed) ~= nil;
end

local function emit_message(event, direction, username, peer_jid, resource)
	local stanza, account = event.stanza, username .. "@" .. host;
	local peer = jid.bare(peer_jid);
	local to_self = peer == account;
	if to_self and direction == "out" then return; end
	if is_marked(event) or not is_conversation(stanza, peer) then return; end
	if direction == "in" and not exists(username, account) then return; end
	local id = stanza:get_child_with_attr("stanza-id", "urn:xmpp:sid:0", "by", account);
	local parts = { head("message", account), (" direction='%s'"):format(direction) };
	local function attribute(name, value)
		if value then table.insert(parts, (" %s='%s'"):format(name, xml_escape(value))); end
	end
	attribute("archive-id", id and id.attr.id);
	attribute("resource", resource);
	attribute("known", is_known(username, peer) and "true" or nil);
	attribute("to-self", to_self and "true" or nil);
	table.insert(parts, ">");
	table.insert(parts, sessions_summary(account));
	table.insert(parts, serialize(stanza, account));
	table.insert(parts, "</event>");
	events.emit(table.concat(parts));
end

-- message/bare, message/full: to an account of this host.
function events.message_in(event)
	local stanza, origin = event.stanza, event.origin;
	seen[stanza] = true;
	local username, _, resource = jid.split(stanza.attr.to);
	username = username or origin.username;
	local from = stanza.attr.from;
	if username and from then emit_message(event, "in", username, from, resource); end
end

-- pre-message/bare, pre-message/full: from a session of this host.
function events.message_out(event)
	local origin, to = event.origin, event.stanza.attr.to;
	if origin.username and to then emit_message(event, "out", origin.username, to, origin.resource); end
end

-- An error that this server itself answers goes straight to the sender's session, past every hook.
function events.bounce(stanza, session)
	if stanza.name ~= "message" or stanza.attr.type ~= "error" or seen[stanza] then return; end
	if session.host ~= host or not session.full_jid or session.resending_unacked then return; end
	local from = stanza.attr.from;
	if not from or stanza:get_child("received", "urn:xmpp:carbons:2") or stanza:get_child("sent", "urn:xmpp:carbons:2") then
		return;
	end
	if jid.bare(from) == session.username .. "@" .. host then return; end
	local error = stanza:get_child("error");
	-- The account blocks the peer: this error is about a message that never left, and its `out` was no event either.
	if error and error:get_child("blocked", "urn:xmpp:blocking:errors") then return; end
	seen[stanza] = true;
	emit_message({ stanza = stanza, origin = session }, "in", session.username, from, session.resource);
end

-- The component's deliveries are no events, errors among them.
function events.ignore(stanza)
	seen[stanza] = true;
end

function events.session(session, state)
	if not session.full_jid then return; end
	local account, resource = session.username .. "@" .. session.host, session.resource;
	events.emit(("%s resource='%s' state='%s'/>"):format(head("session", account), xml_escape(resource), state));
end

function events.account(username, state)
	existing:set(username, state == "created" or nil);
	events.emit(("%s state='%s'/>"):format(head("account", username .. "@" .. host), state));
end

return events;
