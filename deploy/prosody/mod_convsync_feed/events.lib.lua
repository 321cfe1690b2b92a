-- Turns what happens to the accounts of a VirtualHost into events. Decides only which stanzas are a message to or from an
-- account, and that a one-to-one message is one event however many sessions see it; refuses to know what it means.
--
-- Where the hooks sit (Prosody 0.12): mod_blocklist stops at 100, mod_mam archives at 0 and adds the stanza-id, so at
-- -0.4 the id is there iff the message was archived; mod_carbons copies at -0.5, and nobody may have the copy before there is
-- an event; mod_mam strips the sender's stanza-id at -1, mod_message delivers at -1.
-- Carbons, archive results, offline messages handed out at login and stream management's resending write to the
-- session and never pass here.

local jid = require "util.jid";
local cache = require "util.cache";
local rostermanager = require "core.rostermanager";
local usermanager = require "core.usermanager";
local presence = module:require "presence";
local xml = module:require "eventxml";

local host = module.host;
local xmlns_feed = "urn:convsync:feed:0";
local subscribed = { both = true, from = true, to = true };

local events = {};
-- Messages that were looked at: a bounce that came by routing must not come again when it is written to the session.
local seen = setmetatable({}, { __mode = "k" });
local existing = cache.new(4096);

-- feed: components (set of JIDs that are never a peer), emit (takes an event's XML from after its n, and the session whose
-- message it is), expect (takes the account whose message may be archived next).
function events.start(feed)
	events.components, events.emit, events.expect = feed.components, feed.emit, feed.expect;
end

function events.exists(username, account)
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

-- Rooms of a host that runs this module have a stream of their own: what their occupants' sessions see is known already.
local function is_covered(domain)
	local found = prosody.hosts[domain];
	return found ~= nil and found.type == "component" and found.modules.muc ~= nil and found.modules.convsync_feed ~= nil;
end

-- A covered room tells its occupants of affiliations and of its configuration: `room-members` says so for all of them.
local function is_notice(stanza, peer)
	if stanza.attr.from ~= peer or stanza.attr.type == "error" or stanza:get_child("body") then return false; end
	local x = stanza:get_child("x", "http://jabber.org/protocol/muc#user");
	return x ~= nil and (x:get_child("item") or x:get_child("status")) ~= nil;
end

local function is_conversation(stanza, peer)
	local domain = jid.host(peer);
	if events.components:contains(domain) then return false; end -- the component's own
	if is_covered(domain) and (stanza.attr.type == "groupchat" or is_notice(stanza, peer)) then return false; end
	-- PEP notifications are addressed to each session and are no messages of anybody.
	if stanza:get_child("event", "http://jabber.org/protocol/pubsub#event") and not stanza:get_child("body") then
		return false;
	end
	return true;
end

-- A room writes to sessions. Groupchat to anything else is bounced and seen by nobody.
local function is_lost_groupchat(stanza, account, resource)
	if stanza.attr.type ~= "groupchat" then return false; end
	local user = prosody.bare_sessions[account];
	return not (user and resource and user.sessions[resource]);
end

-- What the component says in a user's name by XEP-0356 and marks as its own. Only mod_privilege has an origin that is
-- a client without a full JID: a client that copies the mark hides nothing.
local function is_marked(event)
	return event.origin.type == "c2s" and not event.origin.full_jid
		and event.stanza:get_child("convsync", xmlns_feed) ~= nil;
end

local function archive_id(stanza, account)
	for _, tag in ipairs(stanza.tags) do
		if tag.name == "stanza-id" and tag.attr.by == account and tag.attr.xmlns == "urn:xmpp:sid:0" then return tag.attr.id; end
	end
end

-- The event of a message. id: the archive's, for this account; resource: of this account.
local function write(username, direction, peer, stanza, id, resource)
	local account = username .. "@" .. host;
	local known = is_known(username, peer);
	xml.begin("message", account);
	xml.put("direction", direction);
	xml.put("archive-id", id);
	xml.put("resource", resource);
	xml.put("known", known);
	xml.put("to-self", peer == account);
	xml.add(">");
	presence.put_summary(xml, account);
	xml.stanza(stanza, stanza.attr.to or account);
	xml.add("</event>");
	return xml.text();
end

local function emit_message(event, direction, username, peer_jid, resource)
	local stanza, account = event.stanza, username .. "@" .. host;
	local peer = jid.bare(peer_jid);
	if peer == account and direction == "out" then return; end
	if is_marked(event) or not is_conversation(stanza, peer) then return; end
	if direction == "in" and (not events.exists(username, account) or is_lost_groupchat(stanza, account, resource)) then
		return;
	end
	events.emit(write(username, direction, peer, stanza, archive_id(stanza, account), resource), event.origin);
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

-- Before mod_mam sees either.
function events.expect_in(event)
	local username = jid.node(event.stanza.attr.to) or event.origin.username;
	if username then events.expect(username .. "@" .. host); end
end

function events.expect_out(event)
	if event.origin.username then events.expect(event.origin.username .. "@" .. host); end
end

-- An archived message that had no event yet when the server was killed.
function events.replay(account, id, stanza)
	local username, from, to = jid.node(account), stanza.attr.from, stanza.attr.to or account;
	local direction = jid.bare(from) == account and jid.bare(to) ~= account and "out" or "in";
	local peer = jid.bare(direction == "out" and to or from);
	if stanza:get_child("convsync", xmlns_feed) or not is_conversation(stanza, peer) then return; end
	events.emit(write(username, direction, peer, stanza, id, jid.resource(direction == "out" and from or to)));
end

-- An error that this server itself answers goes straight to the sender's session, past every hook. stanza: a message of
-- type error.
function events.bounce(stanza, session)
	if seen[stanza] then return; end
	if session.host ~= host or not session.full_jid then return; end
	local from, account = stanza.attr.from, session.username .. "@" .. host;
	-- mod_smacks stamps what it keeps for resending in the account's name.
	local delay = stanza:get_child("delay", "urn:xmpp:delay");
	if delay and delay.attr.from == account then return; end
	if not from or stanza:get_child("received", "urn:xmpp:carbons:2") or stanza:get_child("sent", "urn:xmpp:carbons:2") then
		return;
	end
	if jid.bare(from) == account then return; end
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
	local account = session.username .. "@" .. session.host;
	events.emit(xml.head("session", account, table.pack("resource", session.resource, "state", state))
		.. presence.acked(session) .. "/>");
end

function events.account(username, state)
	existing:set(username, state == "created" or nil);
	events.emit(xml.head("account", username .. "@" .. host, table.pack("state", state)) .. "/>");
end

return events;
