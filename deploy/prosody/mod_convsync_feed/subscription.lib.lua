-- One component's subscription: which events it has been sent, which it has acked, and what it may be sent next.
--
-- Decides: the window, the batches, which acks count, who has lost memory. Refuses to know: where events are kept
-- (the outbox) and what they say. What is there leaves at once while the window is open, in as few batches as it fits into.

local st = require "util.stanza";
local xml = module:require "eventxml";
local xml_escape = st.xml_escape;

local xmlns_feed = "urn:convsync:feed:0";

local BATCH_EVENTS, BATCH_BYTES = 50, 64 * 1024;
local WINDOW_EVENTS, WINDOW_BYTES = 2000, 8 * 1024 * 1024; -- what the component's socket may have to hold

local subscription = {};
local subscription_mt = { __index = subscription };

-- session: the component's connection; told: stream id → the last n that the component has committed.
local function new(outbox, session, component, host, told)
	local self = setmetatable({
		outbox = outbox, session = session, component = component, host = host;
		told = told, marks = {}, in_flight = 0, in_flight_bytes = 0;
	}, subscription_mt);
	self.regressed = {};
	for _, stream in ipairs({ table.unpack(outbox.streams) }) do
		local n = told[stream.id] or 0;
		if n < stream.acked then
			-- It acked more than it now knows: its database is an older copy.
			table.insert(self.regressed, stream.id);
		else
			-- Committed there, but our own mark was not written down in time. More than we have: the component sees
			-- that in the answer (docs/feed.md §6).
			outbox:ack(stream, math.min(n, stream.high));
		end
	end
	return self;
end

function subscription:alive()
	return not self.session.destroyed and self.session.conn ~= nil;
end

-- sent: the last n sent; sizes: n → bytes, for what is in flight.
function subscription:_mark(stream)
	local mark = self.marks[stream.id];
	if not mark then
		mark = { sent = stream.acked, sizes = {} };
		self.marks[stream.id] = mark;
	end
	return mark;
end

function subscription:_settle(mark, from, upto)
	for n = from, upto do
		if mark.sizes[n] then
			self.in_flight = self.in_flight - 1;
			self.in_flight_bytes = self.in_flight_bytes - mark.sizes[n];
			mark.sizes[n] = nil;
		end
	end
end

-- Returns true, or false and why the ack does not count.
function subscription:ack(id, text)
	local n = text and #text <= 15 and text:match("^%d+$") and tonumber(text);
	if not n then return false, "not a number"; end
	local stream = id and self.outbox:find(id);
	if not stream then return false, "unknown stream"; end
	local mark = self:_mark(stream);
	if n > mark.sent then return false, "never sent"; end
	if n > stream.acked then
		self:_settle(mark, stream.acked + 1, n);
		self.outbox:ack(stream, n);
	end
	return true;
end

-- Events of this and later streams that have not been sent.
function subscription:_behind()
	local count = 0;
	for _, stream in ipairs(self.outbox.streams) do
		count = count + stream.high - math.min(self:_mark(stream).sent, stream.high);
	end
	return count;
end

-- parts: place 1 is free, then the events. Text, not a stanza: they were written when they happened.
function subscription:_send(stream, parts, last)
	parts[1] = ("<message from='%s' to='%s'><feed xmlns='%s' stream='%s' shard='0' last='%d' head='%d' behind='%d'>")
		:format(xml_escape(self.host), xml_escape(self.component), xmlns_feed, stream.id, last, stream.high, self:_behind());
	parts[#parts + 1] = "</feed></message>";
	self.session.send(table.concat(parts));
end

-- One batch of a stream, as far as the window allows: in parts, as `_send` has it. Returns the number of its events, and
-- with an event that cannot be read its n and why.
function subscription:_collect(stream, mark, parts)
	local count, bytes = 0, 0;
	while mark.sent < stream.high and count < BATCH_EVENTS and bytes < BATCH_BYTES
		and self.in_flight < WINDOW_EVENTS and self.in_flight_bytes < WINDOW_BYTES do
		local n = mark.sent + 1;
		local event, err = self.outbox:read(stream, n);
		if not event then return count, n, err; end
		if count > 0 and bytes + #event > BATCH_BYTES then break; end
		local at = #parts;
		parts[at + 1], parts[at + 2], parts[at + 3], parts[at + 4] = "<event n='", ("%d"):format(n), "'", event;
		count, bytes = count + 1, bytes + #event;
		mark.sent, mark.sizes[n] = n, #event;
		self.in_flight, self.in_flight_bytes = self.in_flight + 1, self.in_flight_bytes + #event;
	end
	return count;
end

-- Sends what the window allows, the oldest stream first.
function subscription:pump()
	for _, stream in ipairs({ table.unpack(self.outbox.streams) }) do
		local mark = self:_mark(stream);
		while mark.sent < stream.high do
			local parts = { "" };
			local count, broken, err = self:_collect(stream, mark, parts);
			if broken then
				-- Its file has gone or changed under us. A gap is the honest answer: the component starts over.
				self.outbox.log("error", "Event %d of stream %s cannot be read: %s", broken, stream.id, err);
				self.outbox:give_up(stream, broken);
				if count > 0 then self:_send(stream, parts, mark.sent); end
				return self:pump();
			end
			if count == 0 then return; end -- the window is closed
			self:_send(stream, parts, mark.sent);
			if not self:alive() then return; end
		end
	end
end

-- The events of streams that the outbox gave up will never be acked: they no longer count as in flight.
function subscription:forget_gone()
	for id, mark in pairs(self.marks) do
		local stream = self.outbox:find(id);
		local high = stream and stream.high or 0;
		self:_settle(mark, high + 1, mark.sent);
		mark.sent = math.min(mark.sent, high);
		if not stream then self.marks[id] = nil; end
	end
end

-- The answer to the request. sessions: the XML of all the host's sessions.
function subscription:hello(module_version, sessions, has_rooms)
	local parts = {
		("<hello xmlns='%s' version='1' server='Prosody'"):format(xmlns_feed);
		xml.attribute("server-version", prosody.version), xml.attribute("module-version", module_version);
		xml.attribute("host", self.host), " shard='0' ordered-archive='false'", xml.attribute("rooms", has_rooms), ">";
	};
	for _, stream in ipairs(self.outbox.streams) do
		table.insert(parts, ("<stream id='%s' low='%d' high='%d' acked='%d'%s/>"):format(stream.id, stream.acked + 1,
			stream.high, stream.acked, xml.attribute("current", stream == self.outbox.current)));
	end
	for _, id in ipairs(self.regressed) do
		table.insert(parts, ("<regressed stream='%s'/>"):format(id));
	end
	table.insert(parts, sessions .. "</hello>");
	return table.concat(parts);
end

-- Reads a subscribe request. Returns told, or nil and the error (type, condition, extra element).
local function parse(subscribe)
	local versions = subscribe.attr.versions;
	if not versions or not subscribe.attr.buckets then return nil, "modify", "bad-request"; end
	local told = {};
	for tag in subscribe:childtags("stream") do
		local id, n = tag.attr.id, tag.attr.n;
		if not id or id == "" or told[id] or not n or #n > 15 or not n:match("^%d+$") then
			return nil, "modify", "bad-request";
		end
		told[id] = tonumber(n);
	end
	local common = false;
	for version in versions:gmatch("[^%s,]+") do common = common or version == "1"; end
	if not common then
		module:log("error", "The component speaks version %s of the feed, this module version 1: update the older one",
			versions:sub(1, 64));
		return nil, "cancel", "not-acceptable", st.stanza("unsupported-version", { xmlns = xmlns_feed, versions = "1" });
	end
	if subscribe.attr.buckets ~= "0-255" then return nil, "cancel", "feature-not-implemented"; end
	return told;
end

return { new = new, parse = parse };
