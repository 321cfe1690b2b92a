-- Convsync's feed: forwards what happens to the accounts of a VirtualHost, or in the rooms of a MUC component, to an
-- external component, and loses nothing.
--
-- docs/feed.md is the protocol. This file has what both kinds of host share, and guards all callbacks: whatever goes
-- wrong in here is logged and counted and never touches a user's stanza. The module decides nothing about conversations.
--
--   VirtualHost: users ─▶ events, pep, contacts ┐
--   MUC component:        rooms ─▶ members      ┴─▶ outbox (file) ─▶ subscription ─▶ component     requests: deliver, sessions,
--                                                                               accounts, account, archive, displayed
--   questions: that a client's request to the component is answered when the component is gone
--
-- Options (README.md explains them): convsync_feed_components, convsync_feed_outbox_max, convsync_feed_outbox_max_age,
-- convsync_feed_archive, convsync_feed_displayed.

local st = require "util.stanza";
local jid = require "util.jid";
local set = require "util.set";
local timer = require "util.timer";
local datamanager = require "util.datamanager";
local monotonic = require "util.time".monotonic;

local host = module.host;
local has_rooms = module:get_host_type() == "component";
if has_rooms and module:get_option_string("component_module") ~= "muc" then
	error("convsync_feed belongs on a VirtualHost or on a Component \"muc\"", 0);
end

local open_outbox = module:require "outbox".open;
local subscriptions = module:require "subscription";
local requests = module:require "requests";
local accounts = module:require "accounts";
local archive = module:require "archive";
local presence = module:require "presence";
local questions = not has_rooms and module:require "questions";
local xml = module:require "eventxml";
local source = module:require(has_rooms and "rooms" or "users");

local xmlns_feed = "urn:convsync:feed:0";
local VERSION = "0.4.0";
local TICK_SECONDS = 1; -- acks are written down so long after they came: a crash repeats at most one second of them
local SAVE_SECONDS = 600; -- and how long the outbox has run, by which the age of events is counted
local FAILURE_SECONDS = 600; -- between gaps because of callbacks that fail
local TOGETHER, TOGETHER_BYTES = 50, 64 * 1024; -- events that are written together: a batch

local components = set.new();
for name in module:get_option_set("convsync_feed_components", {}):items() do
	components:add(assert(jid.prep(name), "convsync_feed_components: not a JID: " .. tostring(name)));
end
local archive_offered = module:get_option_boolean("convsync_feed_archive", true);
local displayed_offered = module:get_option_boolean("convsync_feed_displayed", true);
local max_bytes = math.max(module:get_option_number("convsync_feed_outbox_max", 512), 1) * 1024 * 1024;
local max_age = module:get_option_number("convsync_feed_outbox_max_age", 30) * 86400; -- 0: none

local function counter(name, description)
	local metric = module:metric("counter", name, "", description, {}):with_labels();
	return function (count) metric:add(count or 1); end;
end
local count_event = counter("events", "Events written to the outbox");
local count_error = counter("errors", "Errors in the module's own callbacks: events may be missing");
local count_refused = counter("refused", "Requests refused because of who asked or what was asked");
local count_bad_ack = counter("bad_acks", "Acks that were ignored");
local count_gap = counter("gaps", "Times events were given up and the component was told to start over");
local count_lost = counter("lost", "Events that could not be written to the outbox");

local function gauge(name, unit, description)
	return module:metric("gauge", name, unit, description, {}):with_labels();
end
local measure_bytes = gauge("outbox_bytes", "bytes", "Size of the outbox");
local measure_events = gauge("outbox_events", "", "Events in the outbox");
local measure_age = gauge("outbox_age", "seconds", "Age of the oldest event in the outbox, to a minute");
local measure_connected = gauge("connected", "", "Components that are connected");
local measure_subscribed = gauge("subscribed", "", "Whether a component has subscribed");

local outbox, subscription;

-- A failure of ours is not the user's: the stanza goes on. It is the feed's, though: an event may be missing, so the
-- component is told that there is a gap; not more often than every ten minutes, since a gap makes every client start
-- over and whoever finds a stanza that fails in here must not do that at will. One that comes too early is told later.
local last_failure, missing = -math.huge, false;
local function tell_failure()
	if missing and outbox and monotonic() - last_failure > FAILURE_SECONDS then
		outbox:missed();
		last_failure, missing = monotonic(), false;
	end
end

local function attempt(f, ...)
	local ok, result = xpcall(f, debug.traceback, ...);
	if ok then return result; end
	count_error();
	module:log("error", "A callback failed, an event may be missing: %s", result);
	missing = true;
	tell_failure();
end

-- For hooks: what f returns is nobody's, or it would end the event for those after it.
local function guarded(f)
	return function (...) attempt(f, ...); end;
end

-- Looks at something before and after the server's own handlers of an event: before(event) returns what
-- after(known, event) is to be told; nil: this event is of no interest.
local function around(name, before, after)
	module:wrap_event(name, function (handlers, event_name, event)
		local known = attempt(before, event);
		local result = handlers(event_name, event);
		if known ~= nil then attempt(after, known, event); end
		return result;
	end);
end

local function live()
	if subscription and not subscription:alive() then subscription = nil; end
	return subscription;
end

local function send()
	if not live() then return; end
	if subscription.gone then
		subscription.gone = nil;
		subscription:forget_gone();
	end
	subscription:pump();
end

-- Writes what waits, then sends it.
local function settle()
	if not outbox then return; end -- the server is stopping
	outbox:flush();
	send();
end

local function waiting()
	return outbox ~= nil and outbox.queue.count > 0;
end

local on_turn = false; -- whether a timer will settle what nothing else does
local function on_timer()
	on_turn = false;
	if waiting() then attempt(settle); end
end

local function settle_later()
	if on_turn then return; end
	on_turn = true;
	timer.add_task(0, on_timer);
end

-- Whether a session is told nothing, not even that its message was taken, before what waits is settled (users.lib.lua).
local function is_announced(session)
	return session ~= nil and session.convsync_drains and session.type == "c2s" and session.host == host;
end

-- A message's events may wait for others: until anything is written to a client of this host, or a client asks something,
-- or there is nothing else to do. All others are settled at once: what this server sends the component next may be the
-- question of somebody who must see the event in its answer (docs/feed.md §7). origin: the session whose message it is.
local function emit(rest, origin)
	if not outbox then return; end
	outbox:add(rest);
	if is_announced(origin) and outbox.queue.count < TOGETHER and outbox.queue.bytes < TOGETHER_BYTES then
		settle_later();
	else
		settle();
	end
end

-- Who may ask: a configured component on its own connection.
local function allowed(event)
	local origin, from = event.origin, event.stanza.attr.from;
	if origin.type == "component" and origin.conn and origin.host == from and components:contains(from) then return true; end
	count_refused();
	module:log("warn", "Refused a request of %s", from);
	if event.stanza.attr.type ~= "error" then
		origin.send(st.error_reply(event.stanza, "auth", "forbidden"));
	end
	return false;
end

local function subscribe(event)
	local origin, stanza = event.origin, event.stanza;
	local told, error_type, condition, extra = subscriptions.parse(stanza.tags[1]);
	if not told then
		count_refused();
		local reply = st.error_reply(stanza, error_type, condition);
		if extra then reply:get_child("error"):add_direct_child(extra); end
		origin.send(reply);
		return;
	end
	-- Events are small and alone: with Nagle's algorithm each would wait for the receipt of the one before.
	origin.conn:setoption("tcp-nodelay", true);
	subscription = subscriptions.new(outbox, origin, stanza.attr.from, host, told);
	for _, id in ipairs(subscription.regressed) do
		module:log("warn", "%s has lost memory of stream %s: was its database restored?", stanza.attr.from, id);
	end
	xml.answer(event, subscription:hello(VERSION, presence.all(), has_rooms));
	subscription:pump();
end

local function ack(event)
	local element = event.stanza:get_child("ack", xmlns_feed);
	local ok, why = false, "no subscription";
	if live() and subscription.session == event.origin then
		ok, why = subscription:ack(element.attr.stream, element.attr.n);
	end
	if not ok then
		count_bad_ack();
		module:log("warn", "Ignored an ack of %s (stream %s, n %s): %s", event.stanza.attr.from,
			tostring(element.attr.stream), tostring(element.attr.n), why);
	elseif live() then
		subscription:pump();
	end
end

local function request(type, name, f)
	module:hook(("iq-%s/host/%s:%s"):format(type, xmlns_feed, name), function (event)
		if allowed(event) then
			if waiting() then attempt(settle); end
			local ok, err = xpcall(f, debug.traceback, event);
			if not ok then
				count_error();
				module:log("error", "A request failed: %s", err);
				event.origin.send(st.error_reply(event.stanza, "wait", "internal-server-error"));
			end
		end
		return true;
	end);
end
request("set", "subscribe", subscribe);
if not has_rooms then
	request("set", "deliver", function (event) return requests.deliver(event, source.ignore); end);
end
request("get", "sessions", requests.sessions);

-- What the operator may keep to the server.
local function forbidden(event)
	accounts.refuse(event, "auth", "forbidden");
end
if not has_rooms then request("set", "displayed", displayed_offered and source.displayed or forbidden); end

-- What is kept of the time before the component.
local function reading(name, f)
	request("get", name, archive_offered and f or forbidden);
end
reading("accounts", function (event) return accounts.list(event, source.names); end);
reading("archive", function (event) return archive.page(event, source.exists); end);
if not has_rooms then reading("account", accounts.describe); end

module:hook("message/host", function (event)
	if not event.stanza:get_child("ack", xmlns_feed) then return; end
	if allowed(event) then guarded(ack)(event); end
	return true;
end);

source.start({
	components = components, emit = emit, settle = settle, waiting = waiting, guarded = guarded, around = around;
	ready = function () return outbox and outbox:ready(); end;
	expect = function (...) if outbox then outbox:expect(...); end end;
});

if questions then questions.start(components, guarded); end

local function stop(unloaded)
	if not outbox then return; end
	if missing or outbox.failed then outbox:gap("write-failed"); end -- nobody would say so afterwards
	outbox:close(unloaded);
	outbox, subscription = nil, nil;
end

local function connected(name)
	local component = prosody.hosts[name] and prosody.hosts[name].modules.component;
	return component ~= nil and component.connected == true;
end

local warned = false;
local function warn_when_nearly_full(age)
	local share = math.max(outbox.bytes / max_bytes, max_age > 0 and age / max_age or 0);
	if share > 0.8 and not warned then
		module:log("warn", "The outbox is nearly full: %.0f MB, the oldest event is %.0f hours old. Is the component running?",
			outbox.bytes / 1048576, age / 3600);
	end
	warned = share > 0.8 or warned and share > 0.5;
end

local function tick()
	if not outbox then return nil; end
	if outbox:expire() then send(); end
	tell_failure();
	if questions then attempt(questions.expire); end
	if outbox.dirty or monotonic() - outbox.saved_at > SAVE_SECONDS then outbox:save(); end
	local age, count = outbox:age() or 0, 0;
	for name in components:items() do count = count + (connected(name) and 1 or 0); end
	measure_bytes:set(outbox.bytes);
	measure_events:set(outbox:count());
	measure_age:set(age);
	measure_connected:set(count);
	measure_subscribed:set(live() and 1 or 0);
	warn_when_nearly_full(age);
	return TICK_SECONDS;
end

-- The server was killed while messages were in work: of those that were archived nobody would hear. They are behind what was
-- told, and the component knows one that it has by its archive id. Not before all hosts are up, since who belongs to a room
-- are accounts of another; and before any client is heard.
local function replay()
	local expected = outbox.expected or {};
	for _, noted in ipairs(expected) do
		local untold = {};
		for _, archived in ipairs(archive.since(jid.node(noted.account), expected.since)) do
			table.insert(untold, archived);
			if expected.told[noted.account .. " " .. archived.id] then untold = {}; end
		end
		for _, archived in ipairs(untold) do
			source.replay(noted.account, archived.id, archived.message, noted.author);
		end
	end
	outbox.expected = nil;
end

function module.load()
	if components:empty() then
		module:log("error", "convsync_feed_components is empty: events are kept and nobody may fetch them");
	end
	outbox = open_outbox(datamanager.getpath(nil, host, "convsync_feed", "d", true), {
		host = host, max_bytes = max_bytes, max_age = max_age > 0 and max_age or nil, reloaded = module.reloading;
		log = function (...) module:log(...); end;
		on_lost = count_lost, on_written = count_event;
		on_gap = function ()
			count_gap();
			if subscription then subscription.gone = true; end
		end;
	});
	module:hook_global("server-started", function () attempt(replay); end);
	module:add_timer(TICK_SECONDS, tick);
	-- A component that is connected already has subscribed to a module that is no more.
	for name in components:items() do
		if connected(name) then
			module:send(st.message({ from = host, to = name }):tag("started", { xmlns = xmlns_feed }));
		end
	end
end

module:hook_global("server-stopped", function () stop(false); end);

function module.unload()
	source.stop();
	-- Also when it is being reloaded: should the new module not load, events are missed from here on.
	stop(true);
end
