-- Forwards what accounts publish to and retract from those of their own PEP nodes that conversations depend on, and
-- publishes how far the component says that they have read. Refuses to know what an item says.

local st = require "util.stanza";
local jid = require "util.jid";
local xml = module:require "eventxml";
local accounts = module:require "accounts";

local xmlns_pubsub = "http://jabber.org/protocol/pubsub";
local xmlns_owner = xmlns_pubsub .. "#owner";
local xmlns_displayed = "urn:xmpp:mds:displayed:0";
local watched = { [xmlns_displayed] = true, ["urn:xmpp:bookmarks:1"] = true };

local feed;
local echo = false; -- while an item is published that the component asked for
local pep = {};

local function tell(account, node, item, action, actor, payload)
	-- The actor is a session's JID, the bare JID (a privileged component), or true for the server itself.
	local resource = type(actor) == "string" and jid.bare(actor) == account and jid.resource(actor) or nil;
	local head = xml.head("pep", account,
		table.pack("node", node, "item", item, "action", action, "resource", resource, "echo", echo));
	feed.emit(payload and head .. ">" .. tostring(payload) .. "</event>" or head .. "/>");
end

local function published(event)
	if not watched[event.node] then return; end
	tell(event.service.config.jid, event.node, event.id, "publish", event.actor, event.item and event.item.tags[1]);
end

local function retracted(event)
	if not watched[event.node] then return; end
	tell(event.service.config.jid, event.node, event.id, "retract", event.actor);
end

local function loaded()
	return prosody.hosts[module.host].modules.pep;
end

local function items_of(account, node)
	local mod_pep = loaded();
	if not mod_pep then return {}; end
	local ok, items = mod_pep.get_pep_service(jid.node(account)):get_items(node, true);
	return ok and items or {};
end

-- A node that is purged or deleted takes its items along, and the service does not say which.
local function clearing(event)
	local stanza, origin = event.stanza, event.origin;
	local action = stanza.tags[1] and stanza.tags[1].tags[1];
	local account = stanza.attr.to and jid.bare(stanza.attr.to) or origin.username and origin.username .. "@" .. module.host;
	if stanza.attr.type ~= "set" or not account or not action or not watched[action.attr.node]
		or not (action.name == "purge" or action.name == "delete") then
		return nil;
	end
	return { account = account, node = action.attr.node, items = { table.unpack(items_of(account, action.attr.node)) } };
end

local function cleared(known, event)
	local left = items_of(known.account, known.node);
	for _, item in ipairs(known.items) do
		if not left[item] then tell(known.account, known.node, item, "retract", event.stanza.attr.from); end
	end
end

-- As the user would with these publish-options (XEP-0490 §4.2). The account's clients may have made the node otherwise: it
-- is used as it is, as long as it keeps what is in it and shows it to nobody else.
local function publish(username, id, item)
	local service = loaded().get_pep_service(username);
	local must = { persist_items = true, access_model = "whitelist" };
	local should = { persist_items = true, access_model = "whitelist", max_items = "max", send_last_published_item = "never" };
	local condition;
	for _, options in ipairs { should, must } do
		local ok, err = service:publish(xmlns_displayed, service.config.jid, id, item, options);
		if ok then return nil; end
		condition = type(err) == "table" and err.condition or err;
		if condition ~= "conflict" then break; end
	end
	return condition;
end

-- <displayed account= jid= id= by=/>
function pep.displayed(event)
	local request = event.stanza.tags[1];
	local username, kind, condition = accounts.named(request);
	if not username then return accounts.refuse(event, kind, condition); end
	local account, chat = username .. "@" .. module.host, jid.prep(request.attr.jid);
	local id, by = request.attr.id, jid.prep(request.attr.by);
	if not chat or not id or id == "" or not (by == account or by == chat and by == jid.bare(chat)) then
		return accounts.refuse(event, "modify", "bad-request");
	end
	if not loaded() then return accounts.refuse(event, "cancel", "feature-not-implemented"); end
	if not accounts.user_exists(username) then return accounts.refuse(event, "cancel", "item-not-found"); end
	local item = st.stanza("item", { xmlns = xmlns_pubsub, id = chat, publisher = account })
		:tag("displayed", { xmlns = xmlns_displayed }):tag("stanza-id", { xmlns = "urn:xmpp:sid:0", by = by, id = id }):reset();
	echo = true;
	local ok, failure = pcall(publish, username, chat, item);
	echo = false;
	if not ok then error(failure, 0); end
	if failure == "conflict" then return accounts.refuse(event, "cancel", "conflict"); end
	if failure then error("the item was not published: " .. tostring(failure), 0); end
	return event.origin.send(st.reply(event.stanza));
end

function pep.start(a_feed)
	feed = a_feed;
	-- A service's own events have no guard: an error in here would leave the user's publish unanswered.
	local on_published, on_retracted = feed.guarded(published), feed.guarded(retracted);
	module:handle_items("pep-service", function (event)
		local service = event.item.service;
		module:hook_object_event(service.events, "item-published", on_published);
		module:hook_object_event(service.events, "item-retracted", on_retracted);
	end, function (event)
		local service = event.item.service;
		module:unhook_object_event(service.events, "item-published", on_published);
		module:unhook_object_event(service.events, "item-retracted", on_retracted);
	end, true);
	feed.around("iq/bare/" .. xmlns_owner .. ":pubsub", clearing, cleared);
end

return pep;
