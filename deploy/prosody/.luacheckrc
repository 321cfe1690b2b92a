-- Prosody runs Lua 5.2–5.4; its modules find these globals.
std = "lua54"
read_globals = { "prosody" }
globals = { "module" }
max_line_length = 160
-- A configuration consists of globals.
files["convsync.cfg.lua"] = { ignore = { "1" } }
