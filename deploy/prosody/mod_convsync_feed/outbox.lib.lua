-- The durable outbox: append-only segment files, one sequence of records for each stream.
--
-- Decides: where a record lives, when a file may go, what a torn file means. Refuses to know: what an event says and
-- who reads it. What is flushed is the operating system's, so a killed process loses nothing of it; a power cut can
-- (plain Lua has no fsync): an outbox that comes back open under another boot id begins with a gap. Events may wait in memory to
-- be flushed together; whoever lets them wait has to see to it that nobody hears of them before.
--
-- A stream that had to give up events never hides it: `gap` opens a new stream whose first event is of kind "gap".

local lfs = require "lfs";
local new_id = require "util.id".medium;
local time = require "util.time";
local records = module:require "records";
local notes = module:require "notes";
local recovery = module:require "recovery";

local now, monotonic = time.now, time.monotonic;
local SEGMENT_BYTES = 1024 * 1024; -- an acked file is removed whole, so a segment is also what may be held for nothing
local MARK_SECONDS = 60; -- how exactly the age of events is known
local RETRY_SECONDS = 1; -- between attempts to write where writing failed
local RECENT, SMALL = 64, 16384; -- that many of the newest events, but for large ones, are in memory too: most are sent at once

local outbox = {};
local outbox_mt = { __index = outbox };

-- A new current stream: behind all others, or right behind the one given.
function outbox:_new_stream(behind)
	self:flush();
	local at = #self.streams;
	if behind then
		for i, stream in ipairs(self.streams) do
			if stream == behind then at = i; end
		end
	end
	local before = self.streams[at];
	local started = ("%016.0f"):format(now() * 1e6);
	-- When the clock went back the order of streams must not.
	if before and (behind or started <= before.started) then
		started = ("%016.0f"):format(tonumber(before.started) + (behind and 1 or 1000));
	end
	local stream = { id = new_id(), started = started, acked = 0, high = 0, segments = {}, marks = {} };
	table.insert(self.streams, at + 1, stream);
	self:_close_writer();
	self.current, self.recent, self.queue = stream, { at = {} }, { count = 0, bytes = 0 };
	return stream;
end

function outbox:_close_writer()
	if self.writer then
		self.writer:close();
		self.writer = nil;
	end
end

-- Writes a queue's records, the first of which is event n.
function outbox:_write(queue, n)
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
	local ok, err = self.writer:write(table.unpack(queue));
	if ok then ok, err = self.writer:flush(); end
	if not ok then
		self:_close_writer(); -- part of the record may be there: nothing may come behind it
		if segment.bytes == 0 then
			os.remove(segment.path);
			table.remove(stream.segments);
		end
		return nil, err;
	end
	segment.last, segment.bytes = n + queue.count - 1, segment.bytes + queue.bytes;
	self.bytes = self.bytes + queue.bytes;
	return true;
end

-- Seconds that the outbox has been open, in all its life. The age of events is counted in these: a server's clock jumps.
function outbox:ran()
	return self.ran_before + monotonic() - self.opened_at;
end

function outbox:_mark(stream, n)
	local marks, ran = stream.marks, self:ran();
	if not marks[1] or ran - marks[#marks].ran >= MARK_SECONDS then table.insert(marks, { n = n, ran = ran }); end
end

-- The age in seconds of the oldest event that is held, nil when none is.
function outbox:age()
	for _, stream in ipairs(self.streams) do
		if stream.high > stream.acked then
			local marks = stream.marks;
			while marks[2] and marks[2].n <= stream.acked + 1 do table.remove(marks, 1); end
			return marks[1] and self:ran() - marks[1].ran or 0;
		end
	end
end

-- How many events are held.
function outbox:count()
	local count = 0;
	for _, stream in ipairs(self.streams) do count = count + stream.high - stream.acked; end
	return count;
end

-- Gives up everything when the oldest event is older than it may get. Returns whether that was so.
function outbox:expire()
	local age = self.max_age and self:age();
	if not age or age <= self.max_age or self.failed then return false; end
	self.log("error", "The oldest event of the feed has waited for %.0f hours", age / 3600);
	self:gap("full");
	return true;
end

-- The stream that the next event will be of, after a gap that was due; nil and why while nothing can be written.
function outbox:ready()
	if self.failed then
		if monotonic() < self.failed then return nil, "the outbox cannot be written"; end
		local stream, err = self:gap("write-failed");
		if not stream then return nil, err; end
	end
	if self.bytes > self.max_bytes then return self:gap("full"); end
	return self.current;
end

-- An event is missing: a gap comes before the next one.
function outbox:missed()
	self.failed = self.failed or 0;
end

function outbox:_lose(err, count)
	self.lost = self.lost + count;
	self.on_lost(count);
	if not self.complained or monotonic() - self.complained >= RETRY_SECONDS then
		self.log("error", "%d events were lost so far: %s", self.lost, err);
		self.complained = monotonic();
	end
end

function outbox:_queue(event)
	local queue, recent = self.queue, self.recent;
	local n, at = self.current.high + queue.count + 1, 3 * queue.count;
	local header = records.header(n, event);
	queue[at + 1], queue[at + 2], queue[at + 3] = header, event, "\n";
	queue.count, queue.bytes = queue.count + 1, queue.bytes + #header + #event + 1;
	local place = n % RECENT + 1;
	recent[place], recent.at[place] = #event <= SMALL and event or nil, n;
end

-- Adds an event, given from after its n, to those that wait to be flushed.
function outbox:add(event)
	local stream, err = self:ready();
	if not stream then return self:_lose(err, 1); end
	self:_queue(event);
end

-- What waits is written, or why not.
function outbox:_flush()
	local queue, stream = self.queue, self.current;
	self.queue = { count = 0, bytes = 0 };
	local n = stream.high + 1;
	local ok, err = self:_write(queue, n);
	if not ok then
		self.failed = monotonic() + RETRY_SECONDS;
		return false, err;
	end
	self:_mark(stream, n);
	stream.high, self.dirty = n + queue.count - 1, true;
	self.on_written(queue.count);
	-- A file that goes missing must not go unnoticed, even if the server is killed next.
	if stream.segments[#stream.segments].first == n then self:save(); end
	return true;
end

-- Hands what waits to the operating system, in one write. What cannot be written is lost.
function outbox:flush()
	local count = self.queue and self.queue.count or 0;
	if count == 0 then return; end
	local ok, err = self:_flush();
	if not ok then self:_lose(err, count); end
end

-- A message of this account is about to be archived and then to become an event. Should the server be killed before that is
-- flushed, `expected` says so at the next start. author: of a room's message.
function outbox:expect(account, author)
	local count = self.queue.count;
	self.notes:add(self.current, self.current.high + count + 1, count == 0, account, author);
end

-- Opens a new stream (behind the others, or behind the one given) whose first event says that events were lost before
-- it. With "full" all that is held is given up first: whoever has to start over from the archive gains nothing from the
-- old half, and the newest events count. Returns the stream, or nil when nothing could be written.
function outbox:gap(reason, behind)
	self.failed = nil;
	local stream = self:_new_stream(behind);
	if reason == "full" then
		for _, old in ipairs(self.streams) do
			if old ~= stream then
				self:_remove_segments(old, math.huge);
				old.high, old.acked = 0, 0; -- the gap is a better mark than its ack: both sides forget the stream
			end
		end
	end
	self:_queue((" kind='gap' account='%s' at='%.0f' reason='%s'/>"):format(self.host, now() * 1e6, reason));
	local ok, err = self:_flush();
	if not behind then self:_forget(); end
	if not ok then return nil, err; end
	self.log("error", "The feed has a gap (%s): a new stream begins and the component starts over", reason);
	self.lost = 0;
	self.on_gap(reason);
	self:save();
	return stream;
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

-- Event n of the stream turned out to be unreadable: what comes from there on is lost, what was before it stays until it
-- is acked.
function outbox:give_up(stream, n)
	self:flush();
	self:_close_reader();
	local segments = stream.segments;
	while segments[1] and segments[#segments].first >= n do
		local segment = table.remove(segments);
		os.remove(segment.path);
		self.bytes = self.bytes - segment.bytes;
	end
	if segments[1] then segments[#segments].last = n - 1; end
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
	local kept, gone, marked = {}, {}, false;
	for i = #self.streams, 1, -1 do
		local stream = self.streams[i];
		local mark = stream.acked > 0 and not marked;
		local stays = stream == self.current or stream.high > stream.acked or mark;
		table.insert(stays and kept or gone, 1, stream);
		marked = marked or mark;
	end
	self.streams = kept;
	-- The component forgets it too when a hello does not name it: a server that is killed then must not bring it back, nor
	-- may a file of it that was being written when a gap came.
	if gone[1] then self:save(); end
	for _, stream in ipairs(gone) do self:_remove_segments(stream, math.huge); end
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

-- The XML of event n of a stream, which must be held, from after its n. Reading on is cheap; the newest events cost no
-- reading at all.
function outbox:read(stream, n)
	if stream == self.current then
		local place = n % RECENT + 1;
		if self.recent.at[place] == n and self.recent[place] then return self.recent[place]; end
	end
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

-- Writes down what is acked and how far the streams go. closed, unloaded: as for records.save_state.
function outbox:save(closed, unloaded)
	self.saved_at = monotonic();
	self:age(); -- so that the first of a stream's marks is that of its oldest event
	local ok, err = records.save_state(self.dir, self.streams, self:ran(), closed, unloaded);
	if ok then
		self.dirty = false;
	else
		self.log("error", "The outbox's state cannot be written, events may be sent twice: %s", err);
	end
end

function outbox:close(unloaded)
	self:flush();
	self:save(true, unloaded);
	self.notes:close();
	self:_close_writer();
	self:_close_reader();
end

-- Opens the outbox in dir (made when missing) and begins a new stream. options: host, max_bytes, max_age (seconds that the
-- server ran, or nil), reloaded, log, on_gap, on_lost and on_written (called with the number of events).
local function open(dir, options)
	if lfs.attributes(dir, "mode") ~= "directory" then
		local ok, err = lfs.mkdir(dir);
		if not ok then error(("The feed's outbox %s cannot be made: %s"):format(dir, err), 0); end
	end
	local self = setmetatable({
		dir = dir, host = options.host, max_bytes = math.huge, max_age = options.max_age;
		log = options.log, on_gap = options.on_gap, on_lost = options.on_lost, on_written = options.on_written, notes = notes.new(dir);
		streams = {}, bytes = 0, dirty = false, opened_at = monotonic(), ran_before = 0, lost = 0;
	}, outbox_mt);
	local reason = recovery.run(self, options.reloaded);
	self.max_bytes = options.max_bytes; -- not before everything is taken into account
	if not (reason and self:gap(reason)) then self:_new_stream(); end
	self:_forget();
	self:save();
	return self;
end

return { open = open };
