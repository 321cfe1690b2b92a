-- What the component asks of the module besides the feed: deliver a stanza to sessions, list the sessions.
-- Refuses to know why. Whether the asker may ask is checked before.

local st = require "util.stanza";
local jid = require "util.jid";
local presence = module:require "presence";
local xml = module:require "eventxml";

local host = module.host;
local xmlns_feed = "urn:convsync:feed:0";
local requests = {};

-- Inside Prosody client stanzas carry no namespace; other modules look for their children without one.
local function strip_client_namespace(element)
	if element.attr.xmlns ~= "jabber:client" then return; end
	element.attr.xmlns = nil;
	for child in element:childtags() do strip_client_namespace(child); end
end

local function takes_deliveries(session, named)
	-- A hibernated session would queue it and wake the server's own push. A session that is named has asked for
	-- something, perhaps before its first presence, as clients do that sync first; others must be available.
	return session.full_jid and (named or session.presence) and not session.hibernating;
end

-- ignore: told of each stanza before it is written, so that it makes no event.
function requests.deliver(event, ignore)
	local origin, stanza = event.origin, event.stanza;
	local deliver = stanza.tags[1];
	local inner = deliver.tags[1];
	local username, domain, resource = jid.prepped_split(deliver.attr.account);
	if not username or resource or #deliver.tags ~= 1 or inner.attr.xmlns ~= "jabber:client"
		or not (inner.name == "message" or inner.name == "iq" or inner.name == "presence") then
		return origin.send(st.error_reply(stanza, "modify", "bad-request"));
	end
	if domain ~= host then
		return origin.send(st.error_reply(stanza, "cancel", "item-not-found", "Not an account of this host"));
	end
	local account = username .. "@" .. domain;
	local from = jid.prep(inner.attr.from);
	if not from or not (from == host or jid.bare(from) == account or jid.host(from) == jid.host(stanza.attr.from)) then
		return origin.send(st.error_reply(stanza, "auth", "forbidden", "Not a sender that you may speak for"));
	end
	local targets = {};
	presence.each(account, function (session, name)
		local named = deliver.attr.resource == name;
		if (named or not deliver.attr.resource) and takes_deliveries(session, named) then
			table.insert(targets, session);
		end
	end);
	local count = 0;
	for _, session in ipairs(targets) do
		local copy = st.clone(inner);
		strip_client_namespace(copy);
		copy.attr.from, copy.attr.to = from, session.full_jid;
		ignore(copy);
		if session.send(copy) then count = count + 1; end
	end
	return origin.send(st.reply(stanza):tag("delivered", { xmlns = xmlns_feed, sessions = ("%d"):format(count) }));
end

function requests.sessions(event)
	return xml.answer(event, ("<sessions xmlns='%s'>%s</sessions>"):format(xmlns_feed, presence.all()));
end

return requests;
