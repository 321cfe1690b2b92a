-- For tests only: lets a client tell Prosody to unload, load or reload a module, to fill a room with members, to flood an
-- account with messages, breaks a callback, and kills the server at the worst moment.
local modulemanager = require "core.modulemanager";
local st = require "util.stanza";
local jid = require "util.jid";

local actions = {};
for _, name in ipairs { "load", "unload", "reload" } do
	actions[name] = function (attr) return modulemanager[name](attr.host, attr.module); end
end

-- m0 … m<count-1> become members of the room, without a notice each.
function actions.affiliate(attr)
	local room = prosody.hosts[jid.host(attr.room)].modules.muc.get_room_from_jid(attr.room);
	for i = 0, tonumber(attr.count) - 1 do
		room._affiliations[("m%d@%s"):format(i, module.host)] = "member";
	end
	return true;
end

-- Whoever is answered here has had what was sent before.
function actions.settle() return true; end

-- Messages from another server to an account, that nobody archives, `count` of them; answers when the last is through.
function actions.flood(attr, done)
	local sent = 0;
	module:add_timer(0, function ()
		for _ = 1, math.min(500, attr.count - sent) do
			sent = sent + 1;
			module:send(st.message({ from = "x@elsewhere.example/y", to = attr.to, type = "headline", id = "flood" .. sent })
				:tag("body"):text("what somebody writes who has a little to say, number " .. sent):up());
		end
		if sent < tonumber(attr.count) then return 0.001; end
		done();
	end);
	return true;
end

module:hook("iq-set/host/urn:convsync:test:control", function (event)
	local origin, stanza = event.origin, event.stanza;
	local attr = stanza.tags[1].attr;
	local ok, err = actions[attr["do"]](attr, function () origin.send(st.reply(stanza)); end);
	if ok and attr["do"] == "flood" then return true; end
	origin.send(ok and st.reply(stanza) or st.error_reply(stanza, "cancel", "internal-server-error", tostring(err)));
	return true;
end);

-- A message or a published item that carries this element cannot be written as XML while the feed looks at it.
local function set(value, find)
	return function (event)
		local broken = find(event);
		if broken then broken.attr.value = value; end
	end
end
local function in_message(event) return event.stanza:get_child("broken", "urn:convsync:test"); end
local function in_item(event)
	return event.item and event.item.tags[1] and event.item.tags[1]:get_child("broken", "urn:convsync:test");
end
module:hook("message/bare", set({}, in_message), 0.5);
module:hook("message/bare", set(nil, in_message), -0.75);
-- A message that carries this element kills the server when it has been archived: by its recipient, its sender, its room.
local signal = require "util.signal";
local function die(side)
	return function (event)
		local die_here = event.stanza:get_child("die", "urn:convsync:test");
		if die_here and die_here.attr.side == side then signal.kill(require "util.pposix".getpid(), "SIGKILL"); end
	end
end
-- Or when the first thing is written to a client afterwards: the answer to its sender, or the carbon to its sender's other client.
local answered = false;
local function die_later(side)
	return function (event)
		local found = event.stanza:get_child("die", "urn:convsync:test");
		answered = answered or found ~= nil and found.attr.side == side;
	end
end
module:hook("message/bare", die_later("answer"), -0.9);
module:hook("pre-message/bare", die_later("carbon"), -0.25);
module:hook("c2s-pre-ondrain", function ()
	if answered then signal.kill(require "util.pposix".getpid(), "SIGKILL"); end
end, -1000);
module:hook("message/bare", die("in"), -0.25);
module:hook("pre-message/bare", die("out"), -0.25);
local rooms = "conference." .. module.host;
local function break_rooms(host)
	if host ~= rooms then return; end
	local events = prosody.hosts[host].events;
	module:hook_object_event(events, "muc-broadcast-message", set({}, in_message), -9);
	module:hook_object_event(events, "muc-broadcast-message", die("room"), -5);
	module:hook_object_event(events, "muc-broadcast-message", set(nil, in_message), -11);
end
module:hook_global("host-activated", break_rooms);
if prosody.hosts[rooms] then break_rooms(rooms); end
module:handle_items("pep-service", function (event)
	module:hook_object_event(event.item.service.events, "item-published", set({}, in_item), 1);
	module:hook_object_event(event.item.service.events, "item-published", set(nil, in_item), -1);
end, function () end, true);
