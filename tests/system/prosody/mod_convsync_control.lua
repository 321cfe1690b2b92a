-- For tests only: lets a client tell Prosody to unload, load or reload a module, and break a callback.
local modulemanager = require "core.modulemanager";
local st = require "util.stanza";

module:hook("iq-set/host/urn:convsync:test:control", function (event)
	local origin, stanza = event.origin, event.stanza;
	local control = stanza.tags[1];
	local ok, err = modulemanager[control.attr["do"]](module.host, control.attr.module);
	origin.send(ok and st.reply(stanza) or st.error_reply(stanza, "cancel", "internal-server-error", tostring(err)));
	return true;
end);

-- A message that carries this element meets a stanza that cannot be written as XML.
module:hook("message/bare", function (event)
	local broken = event.stanza:get_child("broken", "urn:convsync:test");
	if broken then broken.attr.value = {}; end
end, 0.5);
module:hook("message/bare", function (event)
	local broken = event.stanza:get_child("broken", "urn:convsync:test");
	if broken then broken.attr.value = nil; end
end, -0.75);
