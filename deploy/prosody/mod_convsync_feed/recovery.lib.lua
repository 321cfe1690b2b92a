-- What an outbox finds in its folder when it is opened, and what becomes of it. Decides what was lost; gives up nothing
-- that can still be read.
--
-- A stream's good beginning stays as it is. What is whole after a hole in it becomes a stream of its own behind a `gap`,
-- numbered anew. A file that cannot be read is set aside: its name gets the end ".unreadable". A folder of a later module is
-- set aside whole.

local lfs = require "lfs";
local records = module:require "records";
local notes = module:require "notes";

local LOOKED_AT = 10000; -- events before what was in work: as many as there may be in the second of its archiving
local recovery = {};

local function set_aside(outbox, path)
	outbox.log("error", "%s cannot be read and is set aside as %s.unreadable", path, path);
	os.rename(path, path .. ".unreadable");
end

-- Reads a stream's segments up to the first hole. Returns the wreck: what is behind it, { path, content, bytes }.
local function sort_out(outbox, stream)
	local good, wreck, high = {}, {}, nil;
	for _, segment in ipairs(stream.segments) do
		local content, err = records.content_of(segment.path);
		if not content then
			outbox.log("error", "%s", err);
			set_aside(outbox, segment.path);
			table.insert(wreck, { path = segment.path, content = "", bytes = 0 });
		elseif wreck[1] or (high and segment.first ~= high + 1) then
			table.insert(wreck, { path = segment.path, content = content, bytes = 0 });
		else
			local last, bytes = records.verify(content, segment.first);
			if last then
				segment.last, segment.bytes, high = last, bytes, last;
				table.insert(good, segment);
			end
			if bytes ~= #content or not last then -- a file without a record is what a power cut leaves
				table.insert(wreck, { path = segment.path, content = content, bytes = bytes });
			end
		end
	end
	stream.segments = good;
	return wreck, high;
end

-- What was written when the disk was full is torn, perhaps behind some that are whole, and was told of then: the stream that
-- follows begins with a gap.
local function was_told(stream, wreck, claimed, is_last)
	return not is_last and not stream.unknown and stream.high >= claimed and #wreck == 1;
end

-- Appends what is whole in the wreck behind a gap and removes the files. Returns how many events that were.
local function rescue(outbox, stream, wreck)
	local rescued = 0;
	for _, piece in ipairs(wreck) do
		records.salvage(piece.content, piece.bytes, function (event, n)
			if n <= stream.high or n <= stream.acked then return; end
			if rescued == 0 then outbox:gap("torn", stream); end
			rescued = rescued + 1;
			outbox:add(event);
			outbox:flush();
		end);
		if piece.bytes > 0 then
			local ok, err = records.cut(piece.path, piece.content, piece.bytes);
			if not ok then outbox.log("error", "%s cannot be mended: %s", piece.path, err); end
		else
			os.remove(piece.path);
		end
	end
	return rescued;
end

-- Takes what is held of one stream into account; true when events of it were lost and no gap says so yet.
local function recover(outbox, stream, is_last)
	local claimed = stream.high;
	local wreck, high = sort_out(outbox, stream);
	stream.high = math.max(high or 0, stream.acked);
	for _, segment in ipairs(stream.segments) do outbox.bytes = outbox.bytes + segment.bytes; end
	local lost = stream.high < claimed or (stream.segments[1] ~= nil and stream.segments[1].first > stream.acked + 1);
	stream.torn = wreck[1] ~= nil;
	if wreck[1] then
		local told = was_told(stream, wreck, claimed, is_last);
		local rescued = rescue(outbox, stream, wreck);
		outbox.log(told and "info" or "error", "Dropped a broken part of stream %s after n=%d: %d events behind it were whole",
			stream.id, stream.high, rescued);
		lost = not told and rescued == 0;
	end
	outbox:_remove_segments(stream, stream.acked);
	return lost;
end

-- What was in work when the server was killed: as `notes.take`, and `told`, where "account id" is true for each archived
-- message of which there is an event. What was in work was written in one go: who has an event of it has all, if nothing is torn.
local function expected(outbox)
	local found = notes.take(outbox.dir);
	local from = found and outbox:find(found.stream);
	if not from then return nil; end
	local told, written = {}, {};
	for _, stream in ipairs(outbox.streams) do
		local first = stream.segments[1] and stream.segments[1].first or math.huge;
		for n = math.max(first, stream == from and found.n - LOOKED_AT or 1), stream.started >= from.started and stream.high or 0 do
			local head = (outbox:read(stream, n) or ""):match("^[^>]*");
			local account, id = head:match(" account='([^']*)'"), head:match(" archive%-id='([^']*)'");
			if account and id then told[account .. " " .. id] = true; end
			if account and stream == from and n >= found.n then written[account] = not from.torn; end
		end
	end
	local missing = { since = found.since, told = told };
	for _, noted in ipairs(found) do
		if not written[noted.account] then table.insert(missing, noted); end
	end
	return missing;
end

-- Reads the folder into outbox.streams. Returns the reason for a gap that is due, or nil. reloaded: the module is being
-- reloaded, so nothing happened between its unloading and now.
function recovery.run(outbox, reloaded)
	local known, found = records.load(outbox.dir);
	if found.format > records.FORMAT then
		local aside = ("%s.format-%d"):format(outbox.dir, found.format);
		outbox.log("error", "%s is of a later version of the module and is set aside as %s", outbox.dir, aside);
		assert(os.rename(outbox.dir, aside));
		assert(lfs.mkdir(outbox.dir));
		return "unreadable";
	end
	outbox.ran_before = found.ran;
	local streams = {};
	for _, stream in pairs(known) do table.insert(streams, stream); end
	table.sort(streams, function (a, b) return a.started .. a.id < b.started .. b.id; end);
	for _, stream in ipairs(streams) do table.insert(outbox.streams, stream); end
	local lost = found.damaged or (not found.present and streams[1] ~= nil);
	if lost then
		outbox.log("error", "%s/state is damaged or missing: events may be sent twice and may have been lost", outbox.dir);
	end
	if found.booted and (found.booted == "-" or found.booted ~= records.boot_id()) then
		outbox.log("error", "%s was not closed before this machine was started: its newest events may be gone", outbox.dir);
		lost = true;
	end
	for i, stream in ipairs(streams) do
		lost = recover(outbox, stream, i == #streams) or lost;
	end
	outbox.expected = expected(outbox);
	if lost then return "torn"; end
	return found.unloaded and not reloaded and "unloaded" or nil;
end

return recovery;
