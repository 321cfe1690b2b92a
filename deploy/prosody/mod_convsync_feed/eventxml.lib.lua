-- The XML of events and answers, as docs/feed.md has it. Decides how values are written; refuses to know what they mean.

local st = require "util.stanza";
local now = require "util.time".now;

local xml_escape = st.xml_escape;

-- ` name='value'`, or nothing for nil; true is written as a word, false is absence.
local function attribute(name, value)
	if value == nil or value == false then return ""; end
	return (" %s='%s'"):format(name, value == true and "true" or xml_escape(value));
end

-- What every event begins with, from after its n. attributes: { name, value, name, value, … }, in that order.
local function head(kind, account, attributes)
	local parts = { (" kind='%s' account='%s' at='%.0f'"):format(kind, xml_escape(account), now() * 1e6) };
	for i = 1, attributes and attributes.n or 0, 2 do
		table.insert(parts, attribute(attributes[i], attributes[i + 1]));
	end
	return table.concat(parts);
end

-- A message in its own namespace, addressed as told (nil: to nobody). The stanza itself is left as it was.
local function message(stanza, to)
	local attr = stanza.attr;
	local old_xmlns, old_to = attr.xmlns, attr.to;
	attr.xmlns, attr.to = "jabber:client", to;
	local ok, text = pcall(tostring, stanza);
	attr.xmlns, attr.to = old_xmlns, old_to;
	if not ok then error(text, 0); end
	return text;
end

-- Answers a request with one element, as text: what is large is written once, not built and then written.
local function answer(event, element)
	local attr = event.stanza.attr;
	return event.origin.send("<iq type='result'" .. attribute("id", attr.id) .. attribute("from", attr.to)
		.. attribute("to", attr.from) .. ">" .. element .. "</iq>");
end

return { attribute = attribute, head = head, message = message, answer = answer };
