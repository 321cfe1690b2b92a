-- Clients' questions that are with the component (XEP-0355). Sees to it that each is answered: mod_delegation waits for the
-- component's answer as long as it takes, also when the component is gone. Decides nothing about questions.
--
-- The answer that is given in the component's place goes through mod_delegation like any of the component's, so it takes an
-- answer once: what the component says of the same question later is nobody's.

local st = require "util.stanza";
local cache = require "util.cache";
local monotonic = require "util.time".monotonic;

local host = module.host;
local MOST = 10000; -- questions that are looked after; the oldest gives way, answered
local PATIENCE_SECONDS = 30; -- the component answers each within 20 (docs/feed.md §7)

local questions = {};

-- Error to a client that asked: the component's own word for what it has not got round to, type `wait`.
local function answer(id, question)
	local reply = st.error_reply(question.iq, "wait", "internal-server-error", "The question was not answered");
	reply.attr.xmlns = "jabber:client";
	local result = st.iq({ type = "result", id = id, from = question.component, to = host })
		:tag("delegation", { xmlns = question.xmlns }):tag("forwarded", { xmlns = "urn:xmpp:forward:0" }):add_child(reply);
	module:fire_event("iq-result/host/" .. id, { origin = prosody.hosts[question.component], stanza = result });
end

-- The connection that a component has now.
local function session_of(component)
	local loaded = prosody.hosts[component].modules.component;
	return loaded and loaded.connected and loaded.session or nil;
end

-- A stanza on its way to a component of ours: is it a question of a client?
local function asked(event, component)
	local stanza = event.stanza;
	local delegation = stanza.tags[1];
	if stanza.attr.type ~= "set" or stanza.attr.from ~= host or not delegation or delegation.name ~= "delegation" then return; end
	local forwarded = delegation.tags[1];
	local iq, session = forwarded and forwarded.tags[1], session_of(component);
	if not iq or not session then return; end -- without a connection Prosody answers itself
	questions.open:set(stanza.attr.id, {
		iq = iq, component = component, session = session, xmlns = delegation.attr.xmlns, at = monotonic();
	});
end

-- A stanza to this host: is it the component's answer?
local function answered(event)
	local attr = event.stanza.attr;
	if attr.type ~= "result" and attr.type ~= "error" then return; end
	local question = questions.open:get(attr.id);
	if question and question.component == attr.from then questions.open:set(attr.id, nil); end
end

-- A connection has ended: nothing that was asked there will be answered.
local function disconnected(event)
	local left = {};
	for id, question in questions.open:items() do
		if question.session == event.session then left[id] = question; end
	end
	for id, question in pairs(left) do
		questions.open:set(id, nil);
		answer(id, question);
	end
end

-- Answers what the component has left lying. To be called now and then.
function questions.expire()
	local id, question = questions.open:tail();
	while question and monotonic() - question.at > PATIENCE_SECONDS do
		questions.open:set(id, nil);
		answer(id, question);
		id, question = questions.open:tail();
	end
end

-- components: set of JIDs; guarded: as for hooks.
function questions.start(components, guarded)
	questions.open = cache.new(MOST, guarded(answer));
	local function watch(name)
		local component = prosody.hosts[name];
		if not component or not components:contains(name) then return; end
		module:hook_object_event(component.events, "iq/host", guarded(function (event) asked(event, name); end), 10);
		module:hook_object_event(component.events, "component-disconnected", guarded(disconnected));
	end
	for name in components:items() do watch(name); end
	module:hook_global("host-activated", guarded(watch));
	module:hook("iq/host", guarded(answered), 2 ^ 32 + 1); -- before mod_delegation
end

return questions;
