-- Convsync beside Prosody: what to add to prosody.cfg.lua. Replace example.org and the secret.
-- deploy/prosody/README.md explains every line.

-- Global section ------------------------------------------------------------------------------------------------------

-- The folder that holds mod_convsync_feed. Debian's prosody-modules need no path of their own.
plugin_paths = { "/etc/prosody/convsync" }

-- The component connects here: loopback unless it runs on another machine (then use a private network, XEP-0114 has no TLS).
component_ports = { 5347 }
component_interfaces = { "127.0.0.1" }

-- A list of thousands of conversations is one stanza where a client does not ask for pages; the default, 512 kB, ends the
-- component's connection. It counts in the global section only.
component_stanza_size_limit = 16 * 1024 * 1024

-- Prosody's default threshold, 105, starts to collect garbage anew when memory has grown by 5 %: most of its processor time
-- goes there. 200 is Lua's own default and costs some MB.
gc = { mode = "incremental"; threshold = 200; speed = 500 }

-- The users' host -----------------------------------------------------------------------------------------------------

VirtualHost "example.org"
	-- Besides what you have. mam is required: Convsync keeps state, the archive keeps the messages.
	modules_enabled = {
		-- pep and bookmarks tell it of displayed markers and of settings, blocklist of blocked peers.
		"mam"; "carbons"; "pep"; "bookmarks"; "smacks"; "csi"; "csi_simple"; "blocklist"; "offline";
		"delegation";
		"convsync_feed";
	}

	-- Who may fetch the feed. Nobody else's requests are answered.
	convsync_feed_components = { "sync.example.org" }
	-- MB of events to keep for a component that is away, and days. See "When it is full or too old".
	convsync_feed_outbox_max = 512
	convsync_feed_outbox_max_age = 30
	-- It may read what the server has kept of the time before it: rosters, bookmarks, archives.
	convsync_feed_archive = true

	-- What clients ask their own account goes to the component (XEP-0355).
	delegations = {
		["https://xabber.com/protocol/synchronization"] = { jid = "sync.example.org" };
		["https://xabber.com/protocol/rewrite"] = { jid = "sync.example.org" };
		["urn:xmpp:inbox:1"] = { jid = "sync.example.org" };
		["urn:xmpp:push:0"] = { jid = "sync.example.org" };
		["urn:convsync:0"] = { jid = "sync.example.org" };
	}

-- The rooms -----------------------------------------------------------------------------------------------------------

-- Leave this out where there are no rooms. With it a room's message is known once, and for members who are not in the
-- room as well; rooms elsewhere are known as far as the users' sessions see them.
Component "conference.example.org" "muc"
	modules_enabled = { "muc_mam"; "convsync_feed" }
	-- As on the users' host: each host has a feed of its own, with an outbox of its own.
	convsync_feed_components = { "sync.example.org" }
	convsync_feed_outbox_max = 512

-- The component -------------------------------------------------------------------------------------------------------

Component "sync.example.org"
	component_secret = "replace this"
	-- A component that was cut off may come back at once; the default would lock it out until the old connection is noticed.
	component_conflict_resolve = "kick_old"
	-- Needed here too, or nothing is delegated.
	modules_enabled = { "delegation" }
