-- Notes of what is in work: whose messages are about to be archived, or are archived and have no event in the outbox's
-- files yet. Should the server be killed in between, they say at the next start which archives to ask.
--
-- The file is a line for each account, written before the archive is: "stream n group since account author". A group is
-- what becomes events in one write; the first line of each goes to the file's beginning, over those of the last one. So the
-- group of the first line is the one that counts, and what follows of others is left over.

local now = require "util.time".now;
local records = module:require "records";

local notes = {};
local notes_mt = { __index = notes };

local function path_in(dir)
	return dir .. "/" .. records.EXPECTED;
end

local function new(dir)
	return setmetatable({ path = path_in(dir), group = 0, accounts = {} }, notes_mt);
end

-- A message of this account is about to be archived. stream, n: of the event that comes next; fresh: no event waits, so
-- whatever was noted before is done with. author: of a room's message.
function notes:add(stream, n, fresh, account, author)
	if not self.file then
		self.file = io.open(self.path, "wb");
		if not self.file then return; end
		self.file:setvbuf("no");
	end
	if fresh or not self.head then
		self.group, self.accounts = self.group + 1, {};
		self.head = ("%s %d %d %.0f "):format(stream.id, n, self.group, math.floor(now()));
		self.file:seek("set", 0);
	elseif self.accounts[account] then
		return;
	end
	self.accounts[account] = true;
	self.file:write(self.head .. account .. " " .. (author or "-") .. "\n");
end

-- Nothing is in work any more.
function notes:close()
	if self.file then
		self.file:close();
		os.remove(self.path);
	end
end

-- What was noted last in the folder, and removes it: { stream = id, n = of the first event of the group, since = seconds,
-- { account =, author = }, … }; nil where there is nothing.
local function take(dir)
	local content = records.content_of(path_in(dir)) or "";
	os.remove(path_in(dir));
	local head, id, n, since = content:match("^((%S+) (%d+) %d+ (%d+) )");
	if not head then return nil; end
	local found = { stream = id, n = tonumber(n), since = tonumber(since) };
	for line in content:gmatch("([^\n]*)\n") do
		local account, author = line:sub(#head + 1):match("^(%S+) (%S+)$");
		if account and line:sub(1, #head) == head then
			table.insert(found, { account = account, author = author ~= "-" and author or nil });
		end
	end
	return found;
end

return { new = new, take = take };
