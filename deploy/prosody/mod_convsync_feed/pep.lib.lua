-- Forwards what accounts publish to and retract from those of their own PEP nodes that conversations depend on.
-- Refuses to know what an item says.

local jid = require "util.jid";
local xml = module:require "eventxml";

local xmlns_owner = "http://jabber.org/protocol/pubsub#owner";
local watched = { ["urn:xmpp:mds:displayed:0"] = true, ["urn:xmpp:bookmarks:1"] = true };

local feed;
local pep = {};

local function tell(account, node, item, action, actor, payload)
	-- The actor is a session's JID, the bare JID (a privileged component), or true for the server itself.
	local resource = type(actor) == "string" and jid.bare(actor) == account and jid.resource(actor) or nil;
	local head = xml.head("pep", account, table.pack("node", node, "item", item, "action", action, "resource", resource));
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

local function items_of(account, node)
	local mod_pep = prosody.hosts[module.host].modules.pep;
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
