"""Namespaces, and names as expat hands them over.

Names of elements are compared as Clark names, `{namespace}local`, made once when a module is imported: comparing them
is then one lookup in a dict. Only namespaces that a decoder or an encoder needs stand here; what they mean is the
business of the module that uses them.
"""

CLIENT = "jabber:client"
COMPONENT = "jabber:component:accept"  # the default namespace of a component's stream (XEP-0114)
XML = "http://www.w3.org/XML/1998/namespace"
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"  # defined conditions of errors (RFC 6120 §8.3.3)

FEED = "urn:convsync:feed:0"
FORWARD = "urn:xmpp:forward:0"
PRIVILEGES = ("urn:xmpp:privilege:2", "urn:xmpp:privilege:1")  # XEP-0356; :1 is ejabberd's before 24.10
DELEGATIONS = ("urn:xmpp:delegation:2", "urn:xmpp:delegation:1")  # XEP-0355; :1 is ejabberd's before 24.10

SYNC = "https://xabber.com/protocol/synchronization"
DELIVERY = "https://xabber.com/protocol/delivery"
REWRITE = "https://xabber.com/protocol/rewrite"
REWRITE_NOTIFY = "https://xabber.com/protocol/rewrite#notify"
XABBER_CHAT = "urn:xabber:chat"  # the type of a plain one-to-one conversation in Client Synchronization

CONVSYNC = "urn:convsync:0"
INBOX = "urn:xmpp:inbox:1"  # XEP-0430 0.2.0

SID = "urn:xmpp:sid:0"
HINTS = "urn:xmpp:hints"
MAM = "urn:xmpp:mam:2"
MAM_TMP = "urn:xmpp:mam:tmp"
CARBONS = "urn:xmpp:carbons:2"
CORRECT = "urn:xmpp:message-correct:0"
RETRACT = "urn:xmpp:message-retract:1"
MODERATE = "urn:xmpp:message-moderate:1"
FASTEN = "urn:xmpp:fasten:0"  # XEP-0422: how retractions up to 0.3 and moderation up to 0.2 name their target
RETRACT_FASTENED = "urn:xmpp:message-retract:0"
MODERATE_FASTENED = "urn:xmpp:message-moderate:0"
MARKERS = "urn:xmpp:chat-markers:0"
RECEIPTS = "urn:xmpp:receipts"
REACTIONS = "urn:xmpp:reactions:0"
REPLY = "urn:xmpp:reply:0"
FALLBACKS = ("urn:xmpp:fallback:0", "urn:xmpp:feature-fallback:0")  # the second one is of XEP-0428 before 0.1
REFERENCE = "urn:xmpp:reference:0"
MENTIONS = "urn:xmpp:mentions:0"
CHAT_STATES = "http://jabber.org/protocol/chatstates"
EME = "urn:xmpp:eme:0"
AXOLOTL = "eu.siacs.conversations.axolotl"
OMEMO = ("urn:xmpp:omemo:2", "urn:xmpp:omemo:1", AXOLOTL)  # in the order of `sync.model.conversation.ENCRYPTED`
OPENPGP = "urn:xmpp:openpgp:0"
LEGACY_PGP = "jabber:x:encrypted"

MUC = "http://jabber.org/protocol/muc"
MUC_USER = "http://jabber.org/protocol/muc#user"
CONFERENCE = "jabber:x:conference"
OCCUPANT_ID = "urn:xmpp:occupant-id:0"
DELAY = "urn:xmpp:delay"
PUBSUB = "http://jabber.org/protocol/pubsub"
PUBSUB_ERRORS = "http://jabber.org/protocol/pubsub#errors"
PUBSUB_EVENT = "http://jabber.org/protocol/pubsub#event"
MDS = "urn:xmpp:mds:displayed:0"
BOOKMARKS = "urn:xmpp:bookmarks:1"
NOTIFICATION_SETTINGS = "urn:xmpp:notification-settings:1"
NOTIFICATION_SETTINGS_0 = "urn:xmpp:notification-settings:0"  # XEP-0492 0.1: other names for the same attributes

JMI = "urn:xmpp:jingle-message:0"
# XEP-0353 0.4–0.5 bumped the namespace and 0.6 took that back; both spellings of the bump are met.
JMI_LEGACY = ("urn:xmpp:jingle-message:1", "urn:xmpp:jingle:jingle-message:1")
RTP = "urn:xmpp:jingle:apps:rtp:1"
CALL_INVITES = "urn:xmpp:call-invites:0"

DATA = "jabber:x:data"
RSM = "http://jabber.org/protocol/rsm"
DISCO_INFO = "http://jabber.org/protocol/disco#info"
DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
COMMANDS = "http://jabber.org/protocol/commands"
VERSION = "jabber:iq:version"
SOFTWARE_INFO = "urn:xmpp:dataforms:softwareinfo"
PUSH = "urn:xmpp:push:0"
PUSH_SUMMARY = "urn:xmpp:push:summary"
PUBLISH_OPTIONS = "http://jabber.org/protocol/pubsub#publish-options"


def clark(namespace: str, name: str) -> str:
    """`{namespace}name`, as ElementTree writes it."""
    return f"{{{namespace}}}{name}"


def local(tag: str) -> str:
    """The name without its namespace."""
    return tag.rpartition("}")[2]


def namespace(tag: str) -> str:
    """The namespace of a Clark name, empty when it has none."""
    return tag[1:].rpartition("}")[0] if tag[:1] == "{" else ""
