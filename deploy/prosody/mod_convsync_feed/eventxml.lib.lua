-- The XML of events and answers, as docs/feed.md has it. Decides how values are written; refuses to know what they mean.
--
-- Every event passes here. What costs is what Lua's collector has to look at, again and again since Prosody lets it run often:
-- so a text is put together in one buffer that is always the same, from the strings that are there, and becomes one string at the end.

local st = require "util.stanza";
local now = require "util.time".now;

local xml_escape = st.xml_escape;
local concat, find, format, match = table.concat, string.find, string.format, string.match;

local parts, count = {}, 0; -- the text that is being written; what is behind count is left over

local function escape(text)
	return find(text, "['&<>\"]") and xml_escape(text) or text;
end

-- ` name='value'`, or nothing for nil; true is written as a word, false is absence.
local function attribute(name, value)
	if value == nil or value == false then return ""; end
	return " " .. name .. "='" .. (value == true and "true" or escape(value)) .. "'";
end

-- Appends what is XML already.
local function add(text)
	count = count + 1;
	parts[count] = text;
end

-- Appends an attribute, as `attribute` has it.
local function put(name, value)
	if value == nil or value == false then return; end
	parts[count + 1], parts[count + 2], parts[count + 3] = " ", name, "='";
	parts[count + 4], parts[count + 5] = value == true and "true" or escape(value), "'";
	count = count + 5;
end

-- Begins an event, from after its n. One is written at a time: what is called before `text` must not write another.
local function begin(kind, account)
	count = 0;
	put("kind", kind);
	put("account", account);
	put("at", format("%.0f", now() * 1e6));
end

-- Ends what was begun.
local function text()
	local whole = concat(parts, "", 1, count);
	if count > 1000 then parts = {}; end
	count = 0;
	return whole;
end

-- parent: the namespace around the element. Attributes with a namespace have "namespace\1name" for a name.
local function write(element, parent)
	local name, attr, prefixes = element.name, element.attr, 0;
	add("<");
	add(name);
	for key, value in pairs(attr) do
		if find(key, "\1", 1, true) then
			local namespace, own = match(key, "^([^\1]*)\1?(.*)$");
			prefixes = prefixes + 1;
			add(format(" xmlns:ns%d='%s' ns%d:%s='%s'", prefixes, xml_escape(namespace), prefixes, own, xml_escape(value)));
		elseif key ~= "xmlns" or value ~= parent then
			put(key, value);
		end
	end
	if #element == 0 then return add("/>"); end
	add(">");
	for i = 1, #element do
		local child = element[i];
		if child.name then
			write(child, attr.xmlns);
		else
			add(escape(child));
		end
	end
	add("</");
	add(name);
	add(">");
end

-- Appends a message in its own namespace, addressed as told (nil: to nobody). The stanza itself is left as it was.
local function stanza(message, to)
	local attr = message.attr;
	local old_xmlns, old_to = attr.xmlns, attr.to;
	attr.xmlns, attr.to = "jabber:client", to;
	local ok, err = pcall(write, message);
	attr.xmlns, attr.to = old_xmlns, old_to;
	if not ok then error(err, 0); end
end

-- What an event begins with. attributes: { name, value, name, value, …; n = }, in that order.
local function head(kind, account, attributes)
	begin(kind, account);
	for i = 1, attributes and attributes.n or 0, 2 do put(attributes[i], attributes[i + 1]); end
	return text();
end

-- The text of a message, as `stanza` has it.
local function message(...)
	count = 0;
	stanza(...);
	return text();
end

-- Answers a request with one element, as text: what is large is written once, not built and then written.
local function answer(event, element)
	local attr = event.stanza.attr;
	return event.origin.send("<iq type='result'" .. attribute("id", attr.id) .. attribute("from", attr.to)
		.. attribute("to", attr.from) .. ">" .. element .. "</iq>");
end

return {
	attribute = attribute, begin = begin, put = put, add = add, stanza = stanza, text = text;
	head = head, message = message, answer = answer;
};
