-- What the outbox's files look like: a record is "n length checksum\n", the event's XML, "\n"; a segment is a run of
-- records with consecutive n; `state` holds the streams with their acks. Decides what is a whole record and what is
-- torn; refuses to know what is to be done about it.

local lfs = require "lfs";
local hashes = require "util.hashes";

local function checksum(payload)
	return hashes.sha1(payload, true):sub(1, 8);
end

local function encode(n, payload)
	return ("%d %d %s\n%s\n"):format(n, #payload, checksum(payload), payload);
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

-- Walks a segment and returns its last good n (nil: none), the bytes up to there, and whether the rest is broken.
local function verify(path, first)
	local file, err = io.open(path, "rb");
	if not file then return nil, 0, true, err; end
	local last, good = nil, 0;
	while true do
		local n, length, sum = read_header(file);
		if n ~= (last and last + 1 or first) or not read_payload(file, length, sum) then break; end
		last, good = n, file:seek();
	end
	local broken = good ~= file:seek("end");
	file:close();
	return last, good, broken;
end

-- Keeps the good head of a broken segment: Lua cannot truncate, so the head is copied and renamed into place.
local function cut(path, good)
	if good == 0 then return os.remove(path); end
	local file = assert(io.open(path, "rb"));
	local head = file:read(good);
	file:close();
	local copy = assert(io.open(path .. ".tmp", "wb"));
	assert(copy:write(head));
	copy:close();
	return os.rename(path .. ".tmp", path);
end

-- The streams of a folder by id: what the state file says of them and their segments, unverified; and whether the
-- module was unloaded by an operator.
local function load(dir)
	local streams, unloaded = {}, false;
	local file = io.open(dir .. "/state", "rb");
	if file then
		for line in file:lines() do
			local started, id, acked, high = line:match("^stream (%d+) (%S+) (%d+) (%d+)$");
			if id then
				streams[id] = { id = id, started = started, acked = tonumber(acked), high = tonumber(high), segments = {} };
			end
			unloaded = unloaded or line == "unloaded";
		end
		file:close();
	end
	for name in lfs.dir(dir) do
		local started, id, first = name:match("^(%d+)%.(%S+)%.(%d+)%.seg$");
		if id then
			streams[id] = streams[id] or { id = id, started = started, acked = 0, high = 0, segments = {} };
			table.insert(streams[id].segments, { path = dir .. "/" .. name, first = tonumber(first) });
		end
	end
	for _, stream in pairs(streams) do
		table.sort(stream.segments, function (a, b) return a.first < b.first; end);
	end
	return streams, unloaded;
end

-- Writes the state: to a new file, renamed into place, so that a reader sees the old or the new one.
local function save_state(dir, streams, unloaded)
	local lines = {};
	for _, s in ipairs(streams) do
		table.insert(lines, ("stream %s %s %d %d\n"):format(s.started, s.id, s.acked, s.high));
	end
	if unloaded then table.insert(lines, "unloaded\n"); end
	local file, err = io.open(dir .. "/state.tmp", "wb");
	if not file then return nil, err; end
	local ok, write_err = file:write(table.concat(lines));
	file:close();
	if not ok then return nil, write_err; end
	return os.rename(dir .. "/state.tmp", dir .. "/state");
end

return {
	encode = encode, read_header = read_header, read_payload = read_payload;
	segment_path = segment_path, verify = verify, cut = cut, load = load, save_state = save_state;
};
