-- The durable outbox: append-only segment files, one sequence of records for each stream.
--
-- Decides: where a record lives, when a file may go, what a torn file means. Refuses to know: what an event says and
-- who reads it. Every append is flushed to the operating system, so a killed process loses nothing; a power cut can
-- (plain Lua has no fsync), which `high` in the state file and the component's own positions bring to light.
--
-- A stream that had to give up events never hides it: `gap` opens a new stream whose first event is of kind "gap".

local lfs = require "lfs";
local new_id = require "util.id".medium;
local now = require "util.time".now;
local records = module:require "records";

local SEGMENT_BYTES = 1024 * 1024; -- an acked file is removed whole, so a segment is also what may be held for nothing

local outbox = {};
local outbox_mt = { __index = outbox };

function outbox:_new_stream()
	local newest = self.streams[#self.streams];
	local started = ("%016.0f"):format(now() * 1e6);
	if newest and started <= newest.started then -- the clock went back; the order of streams must not
		started = ("%016.0f"):format(tonumber(newest.started) + 1);
	end
	local stream = { id = new_id(), started = started, acked = 0, high = 0, segments = {} };
	table.insert(self.streams, stream);
	self:_close_writer();
	self.current = stream;
	return stream;
end

function outbox:_close_writer()
	if self.writer then
		self.writer:close();
		self.writer = nil;
	end
end

function outbox:_write(record, n)
	local stream = self.current;
	local segment = stream.segments[#stream.segments];
	if not self.writer or segment.bytes >= SEGMENT_BYTES then
		self:_close_writer();
		segment = { path = records.segment_path(self.dir, stream, n), first = n, last = n - 1, bytes = 0 };
		local err;
		self.writer, err = io.open(segment.path, "ab");
		if not self.writer then return nil, err; end
		self.writer:setvbuf("full", 65536);
		table.insert(stream.segments, segment);
	end
	local ok, err = self.writer:write(record);
	if ok then ok, err = self.writer:flush(); end
	if not ok then return nil, err; end
	segment.last, segment.bytes = n, segment.bytes + #record;
	self.bytes = self.bytes + #record;
	return true;
end

-- The stream that the next event will be of, after a gap that was due; nil while nothing can be written.
function outbox:ready()
	if self.failed and not self:gap("write-failed") then return nil; end
	if self.bytes > self.max_bytes then self:gap("full"); end
	return self.current;
end

-- Appends an event, given without its opening `<event n='…'`. Returns n, or nil when nothing could be written.
function outbox:append(rest)
	local stream = self:ready();
	if not stream then return nil; end
	local n = stream.high + 1;
	local payload = ("<event n='%d'%s"):format(n, rest);
	local ok, err = self:_write(records.encode(n, payload), n);
	if not ok then
		self.log("error", "An event was lost, the outbox cannot be written: %s", err);
		self.failed = true;
		return nil;
	end
	stream.high = n;
	self.last_payload = payload;
	return n;
end

-- Opens a new stream whose first event says that events were lost before it. With "full" all that is held is given
-- up first: whoever has to start over from the archive gains nothing from the old half, and the newest events count.
function outbox:gap(reason)
	self.log("error", "The feed has a gap (%s): a new stream begins and the component starts over", reason);
	self.on_gap(reason);
	self.failed = nil;
	local stream = self:_new_stream();
	if reason == "full" then
		for _, old in ipairs(self.streams) do
			if old ~= stream then
				self:_remove_segments(old, math.huge);
				old.high, old.acked = 0, 0; -- the gap is a better mark than its ack: both sides forget the stream
			end
		end
	end
	local n = self:append((" kind='gap' account='%s' at='%.0f' reason='%s'/>"):format(self.host, now() * 1e6, reason));
	self:_forget();
	self:save();
	return n and stream;
end

-- Removes the files whose events are all acked. The one that is being written stays until it is full.
function outbox:_remove_segments(stream, upto)
	while stream.segments[1] and stream.segments[1].last <= upto do
		local segment = stream.segments[1];
		if stream == self.current and #stream.segments == 1 then
			if segment.bytes < SEGMENT_BYTES then return; end
			self:_close_writer();
		end
		if self.reader and self.reader.segment == segment then self:_close_reader(); end
		os.remove(segment.path);
		self.bytes = self.bytes - segment.bytes;
		table.remove(stream.segments, 1);
	end
end

-- Event n of the stream turned out to be unreadable: what comes from there on is lost.
function outbox:give_up(stream, n)
	self:_remove_segments(stream, math.huge);
	stream.high = n - 1;
	self:gap("unreadable");
end

function outbox:find(id)
	for _, stream in ipairs(self.streams) do
		if stream.id == id then return stream; end
	end
end

-- Everything up to n is committed elsewhere. The mark is written down before a file goes, else on the next `save`.
function outbox:ack(stream, n)
	if n <= stream.acked then return; end
	stream.acked = n;
	self.dirty = true;
	local first = stream.segments[1];
	local spent = first and first.last <= n and (stream ~= self.current or first.bytes >= SEGMENT_BYTES);
	if spent then
		self:save();
		self:_remove_segments(stream, n);
	end
	self:_forget();
end

-- A finished stream is forgotten, except the newest one that has an ack: it is the mark by which a component whose
-- database was restored to before that stream is found out.
function outbox:_forget()
	local kept, marked = {}, false;
	for i = #self.streams, 1, -1 do
		local stream = self.streams[i];
		local mark = stream.acked > 0 and not marked;
		if stream == self.current or stream.high > stream.acked or mark then
			table.insert(kept, 1, stream);
		end
		marked = marked or mark;
	end
	self.streams = kept;
end

function outbox:_close_reader()
	if self.reader then
		self.reader.file:close();
		self.reader = nil;
	end
end

function outbox:_open_reader(stream, n)
	self:_close_reader();
	for _, segment in ipairs(stream.segments) do
		if n >= segment.first and n <= segment.last then
			local file, err = io.open(segment.path, "rb");
			if not file then return nil, err; end
			self.reader = { stream = stream, segment = segment, file = file, n = segment.first };
			while self.reader.n < n do
				local _, length = records.read_header(file);
				if not length then return nil, "unreadable record"; end
				file:seek("cur", length + 1);
				self.reader.n = self.reader.n + 1;
			end
			return self.reader;
		end
	end
	return nil, "not held";
end

-- The XML of event n of a stream, which must be held. Reading on is cheap; the newest event costs no reading at all.
function outbox:read(stream, n)
	if stream == self.current and n == stream.high then return self.last_payload; end
	local reader = self.reader;
	if not reader or reader.stream ~= stream or reader.n ~= n or n > reader.segment.last then
		local err;
		reader, err = self:_open_reader(stream, n);
		if not reader then return nil, err; end
	end
	reader.file:seek("cur", 0); -- forget an end of file that was seen before more was appended
	local got, length, sum = records.read_header(reader.file);
	local payload = got == n and records.read_payload(reader.file, length, sum);
	if not payload then
		self:_close_reader();
		return nil, "unreadable record";
	end
	reader.n = n + 1;
	return payload;
end

-- Writes the acks down.
function outbox:save(unloaded)
	local ok, err = records.save_state(self.dir, self.streams, unloaded);
	if ok then
		self.dirty = false;
	else
		self.log("error", "The feed's acks cannot be written, events may be sent twice: %s", err);
	end
end

function outbox:close(unloaded)
	self:save(unloaded);
	self:_close_writer();
	self:_close_reader();
end

-- Takes what is held of one stream into account; true when events of it were lost.
function outbox:_recover(stream)
	local claimed, lost, high = stream.high, false, nil;
	local good = {};
	for _, segment in ipairs(stream.segments) do
		if lost or (high and segment.first ~= high + 1) then
			lost = true; -- nothing after a hole can be sent: n has no gaps
			self.log("error", "Dropped %s: it follows a broken part of its stream", segment.path);
			os.remove(segment.path);
		else
			local last, bytes, broken, err = records.verify(segment.path, segment.first);
			if broken then
				lost = true;
				self.log("error", "Dropped the broken end of %s after n=%s%s", segment.path, tostring(last or "-"),
					err and (": " .. err) or "");
				records.cut(segment.path, bytes);
			end
			if last then
				segment.last, segment.bytes, high = last, bytes, last;
				self.bytes = self.bytes + bytes;
				table.insert(good, segment);
			end
		end
	end
	stream.segments = good;
	stream.high = math.max(high or 0, stream.acked);
	lost = lost or stream.high < claimed or (good[1] ~= nil and good[1].first > stream.acked + 1);
	self:_remove_segments(stream, stream.acked);
	return lost;
end

-- Opens the outbox in dir (made when missing) and begins a new stream. options: host, max_bytes, log, on_gap.
local function open(dir, options)
	if lfs.attributes(dir, "mode") ~= "directory" then
		local ok, err = lfs.mkdir(dir);
		if not ok then error(("The feed's outbox %s cannot be made: %s"):format(dir, err), 0); end
	end
	local self = setmetatable({
		dir = dir, host = options.host, max_bytes = options.max_bytes, log = options.log, on_gap = options.on_gap;
		streams = {}, bytes = 0, dirty = false;
	}, outbox_mt);
	local known, unloaded = records.load(dir);
	for _, stream in pairs(known) do table.insert(self.streams, stream); end
	table.sort(self.streams, function (a, b) return a.started < b.started; end);
	local lost = false;
	for _, stream in ipairs(self.streams) do
		lost = self:_recover(stream) or lost;
	end
	if lost then
		self:gap("torn");
	elseif unloaded then
		self:gap("unloaded");
	else
		self:_new_stream();
	end
	self:_forget();
	self:save();
	return self;
end

return { open = open };
