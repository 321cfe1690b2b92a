-- Convsync's feed: forwards what happens to the accounts of a VirtualHost, or in the rooms of a MUC component, to an
-- external component, and loses nothing.
--
-- docs/feed.md is the protocol. This file has what both kinds of host share, and guards all callbacks: whatever goes
-- wrong in here is logged and counted and never touches a user's stanza. The module decides nothing about conversations.
--
--   VirtualHost: users ─▶ events, pep, contacts ┐
--   MUC component:        rooms ─▶ members      ┴─▶ outbox (file) ─▶ subscription ─▶ component     requests: deliver, sessions,
--                                                                                          accounts, account, archive
--
-- Options (README.md explains them): convsync_feed_components, convsync_feed_outbox_max, convsync_feed_archive.

local st = require "util.stanza";
local jid = require "util.jid";
local set = require "util.set";
local datamanager = require "util.datamanager";

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
local xml = module:require "eventxml";
local source = module:require(has_rooms and "rooms" or "users");

local xmlns_feed = "urn:convsync:feed:0";
local VERSION = "0.3.0";
local SAVE_SECONDS = 1; -- acks are written down this long after they came: a crash repeats at most one second of them

local components = set.new();
for name in module:get_option_set("convsync_feed_components", {}):items() do
	components:add(assert(jid.prep(name), "convsync_feed_components: not a JID: " .. tostring(name)));
end
local archive_offered = module:get_option_boolean("convsync_feed_archive", true);
local outbox_max = module:get_option_number("convsync_feed_outbox_max", 512) * 1024 * 1024;

local function counter(name, description)
	local metric = module:metric("counter", name, "", description, {}):with_labels();
	return function () metric:add(1); end;
end
local count_event = counter("events", "Events written to the outbox");
local count_error = counter("errors", "Errors in the module's own callbacks: events may be missing");
local count_refused = counter("refused", "Requests refused because of who asked or what was asked");
local count_bad_ack = counter("bad_acks", "Acks that were ignored");
local count_gap = counter("gaps", "Times events were given up and the component was told to start over");
local measure_held = module:metric("gauge", "outbox_bytes", "bytes", "Size of the outbox", {}):with_labels();

local outbox, subscription;

-- A failure of ours is not the user's: the stanza goes on. It is the feed's, though: an event may be missing, so the
-- component is told that there is a gap; not more often than every ten minutes, since a gap makes every client start
-- over and whoever finds a stanza that fails in here must not do that at will.
local last_failure = -math.huge;
local function attempt(f, ...)
	local ok, result = xpcall(f, debug.traceback, ...);
	if ok then return result; end
	count_error();
	module:log("error", "A callback failed, an event may be missing: %s", result);
	if outbox and os.time() - last_failure > 600 then
		outbox.failed, last_failure = true, os.time();
	end
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

local function emit(rest)
	if not outbox then return; end -- the server is stopping
	if outbox:append(rest) then count_event(); end
	if live() then
		if subscription.gone then
			subscription.gone = nil;
			subscription:forget_gone();
		end
		subscription:pump();
	end
end

-- Who may ask: a configured component on its own connection.
local function allowed(event)
	local origin, from = event.origin, event.stanza.attr.from;
	if origin.type == "component" and origin.conn and components:contains(from) then return true; end
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

-- What is kept of the time before the component. The operator may keep it to the server.
local function reading(name, f)
	request("get", name, archive_offered and f or function (event) accounts.refuse(event, "auth", "forbidden"); end);
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
	components = components, emit = emit, guarded = guarded, around = around;
	ready = function () return outbox and outbox:ready(); end;
});

local reloading = false;
local function stop(unloaded)
	if not outbox then return; end
	outbox:close(unloaded);
	outbox, subscription = nil, nil;
end

function module.load()
	if components:empty() then
		module:log("error", "convsync_feed_components is empty: events are kept and nobody may fetch them");
	end
	outbox = open_outbox(datamanager.getpath(nil, host, "convsync_feed", "d", true), {
		host = host, max_bytes = outbox_max;
		log = function (...) module:log(...); end;
		on_gap = function ()
			count_gap();
			if subscription then subscription.gone = true; end
		end;
	});
	module:add_timer(SAVE_SECONDS, function ()
		if not outbox then return; end
		if outbox.dirty then outbox:save(); end
		measure_held:set(outbox.bytes);
		return SAVE_SECONDS;
	end);
	-- A component that is connected already has subscribed to a module that is no more.
	for name in components:items() do
		local component = prosody.hosts[name] and prosody.hosts[name].modules.component;
		if component and component.connected then
			module:send(st.message({ from = host, to = name }):tag("started", { xmlns = xmlns_feed }));
		end
	end
end

function module.save()
	reloading = true;
	return {};
end

module:hook_global("server-stopped", function () stop(false); end);

function module.unload()
	source.stop();
	stop(not reloading);
end
