-- What the outbox's files look like: a record is "n length checksum\n", the event's XML from after its n, "\n"; a segment is a
-- run of records with consecutive n; `state` holds the streams with their acks. Decides what is a whole record and what is
-- torn; refuses to know what is to be done about it.

local lfs = require "lfs";
local hashes = require "util.hashes";

local FORMAT = 1; -- of the folder; one that says more is of a later module
local EXPECTED = "expected"; -- the file of notes

local function checksum(payload)
	return hashes.sha1(payload, true):sub(1, 8);
end

-- A record is this, the payload and a line feed.
local function header(n, payload)
	return ("%d %d %s\n"):format(n, #payload, checksum(payload));
end

-- The order of names is the order of streams and of their events.
local function segment_path(dir, stream, first)
	return ("%s/%s.%s.%012d.seg"):format(dir, stream.started, stream.id, first);
end

-- Reads one record's header; nil at the end or where the file is broken.
local function read_header(file)
	local line = file:read("*l");
	local n, length, sum = (line or ""):match("^(%d+) (%d+) (%x+)$");
	if not n then return nil; end
	return tonumber(n), tonumber(length), sum;
end

local function read_payload(file, length, sum)
	local payload = file:read(length + 1);
	if not payload or #payload ~= length + 1 or payload:sub(-1) ~= "\n" then return nil; end
	payload = payload:sub(1, -2);
	if sum and checksum(payload) ~= sum then return nil; end
	return payload;
end

-- A file's bytes, or nil and why it cannot be read.
local function content_of(path)
	local file, err = io.open(path, "rb");
	if not file then return nil, err; end
	local content;
	content, err = file:read("*a");
	file:close();
	return content, err;
end

-- The record at a place in a segment: its payload, n, and where the next begins; nil where there is none.
local function record_at(content, place)
	local n, length, sum, start = content:match("^(%d+) (%d+) (%x+)\n()", place);
	if not n or #length > 9 then return nil; end
	local stop = start + tonumber(length);
	local payload = content:sub(start, stop - 1);
	if content:sub(stop, stop) ~= "\n" or payload:sub(1, 1) ~= " " or checksum(payload) ~= sum then return nil; end
	return payload, tonumber(n), stop + 1;
end

-- Walks a segment that begins with event `first`. Returns its last good n (nil: none) and the bytes up to there.
local function verify(content, first)
	local last, place = nil, 1;
	while true do
		local payload, n, following = record_at(content, place);
		if not payload or n ~= (last and last + 1 or first) then break; end
		last, place = n, following;
	end
	return last, place - 1;
end

-- Calls f(payload, n) for each whole record after so many bytes, whatever lies between them.
local function salvage(content, bytes, f)
	local place = bytes + 1;
	while true do
		place = content:find("%d+ %d+ %x%x%x%x%x%x%x%x\n", place);
		if not place then return; end
		local payload, n, following = record_at(content, place);
		if payload then f(payload, n); end
		place = following or place + 1;
	end
end

-- Keeps the good head of a broken segment: Lua cannot truncate, so the head is written anew and renamed into place.
local function cut(path, content, good)
	if good == 0 then return os.remove(path); end
	local copy, err = io.open(path .. ".tmp", "wb");
	if not copy then return nil, err; end
	local ok, write_err = copy:write(content:sub(1, good));
	copy:close();
	if not ok then return nil, write_err; end
	return os.rename(path .. ".tmp", path);
end

-- Names this run of the machine (random(4)); "-" where the system has no such name.
local function boot_id()
	return (content_of("/proc/sys/kernel/random/boot_id") or ""):match("^[%x-]+") or "-";
end

-- Reads `state` into the streams. Returns found: present (there is such a file), damaged (a line of it makes no sense),
-- format, unloaded (an operator had unloaded the module), ran (seconds that the outbox had been open), booted (the run of
-- the machine in which the outbox was open; nil when it was closed).
local function load_state(dir, streams)
	local content = content_of(dir .. "/state");
	local found = { present = content ~= nil, damaged = content == "", format = FORMAT, unloaded = false, ran = 0 };
	for line in (content or ""):gmatch("[^\n]*\n?") do
		local started, id, acked, high, ran = line:match("^stream (%d+) (%S+) (%d+) (%d+) (%d+)\n$");
		local format, total = line:match("^outbox (%d+) ran (%d+)");
		if id then
			streams[id] = {
				id = id, started = started, acked = tonumber(acked), high = tonumber(high), segments = {};
				marks = { { n = tonumber(acked) + 1, ran = tonumber(ran) } };
			};
		elseif format then
			found.format, found.ran = tonumber(format), tonumber(total);
		elseif line:match("^open %S+\n$") then
			found.booted = line:match("^open (%S+)");
		elseif line == "unloaded\n" then
			found.unloaded = true;
		elseif line ~= "" then
			found.damaged = true;
		end
	end
	return found;
end

-- The streams of a folder by id: what the state file says of them and their segments, unverified; and what was found
-- of the state file. A stream that it does not name is held to be acked up to where its files begin.
local function load(dir)
	local streams = {};
	local found = load_state(dir, streams);
	for name in lfs.dir(dir) do
		local started, id, first = name:match("^(%d+)%.(%S+)%.(%d+)%.seg$");
		if id then
			if not streams[id] then
				streams[id] = { id = id, started = started, high = 0, segments = {}, marks = {}, unknown = true };
			end
			table.insert(streams[id].segments, { path = dir .. "/" .. name, first = tonumber(first) });
		end
	end
	for _, stream in pairs(streams) do
		table.sort(stream.segments, function (a, b) return a.first < b.first; end);
		stream.acked = stream.acked or stream.segments[1].first - 1;
	end
	return streams, found;
end

-- Writes the state: to a new file, renamed into place, so that a reader sees the old or the new one. ran: seconds that
-- the outbox has been open (each stream has what that was at its oldest unacked event). closed: nothing will be written
-- from here on; unloaded: and it was an operator who closed it.
local function save_state(dir, streams, ran, closed, unloaded)
	local lines = { ("outbox %d ran %d\n"):format(FORMAT, math.floor(ran)) };
	for _, s in ipairs(streams) do
		table.insert(lines, ("stream %s %s %d %d %d\n"):format(s.started, s.id, s.acked, s.high,
			math.floor(s.marks[1] and s.marks[1].ran or ran)));
	end
	if not closed then table.insert(lines, ("open %s\n"):format(boot_id())); end
	if unloaded then table.insert(lines, "unloaded\n"); end
	local file, err = io.open(dir .. "/state.tmp", "wb");
	if not file then return nil, err; end
	local ok, write_err = file:write(table.concat(lines));
	local flushed, flush_err = file:close(); -- what does not fit on the disk may show here only
	if not ok or not flushed then return nil, write_err or flush_err; end
	return os.rename(dir .. "/state.tmp", dir .. "/state");
end

return {
	FORMAT = FORMAT, EXPECTED = EXPECTED, header = header, read_header = read_header, read_payload = read_payload;
	content_of = content_of, boot_id = boot_id, segment_path = segment_path, verify = verify, salvage = salvage, cut = cut, load = load, save_state = save_state;
};
