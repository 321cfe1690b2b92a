// A sender that is not ours: @parse/node-apn. Pushes each {token, type, …} of argv in turn over one provider, and prints
// a JSON list of what it made of the answers. With a team it signs tokens with the key, without one `key` is a
// certificate and its key.
import { readFileSync } from "node:fs";
import apn from "@parse/node-apn";

const { port, ca, key, team, keyId, app, pushes } = JSON.parse(process.argv[2]);
const credentials = team ? { token: { key, keyId, teamId: team } } : { cert: readFileSync(key), key: readFileSync(key) };
const provider = new apn.Provider({ ...credentials, address: "localhost", port, ca: [readFileSync(ca)] });

const outcomes = [];
for (const { token, type, collapse, payload } of pushes) {
  const note = new apn.Notification();
  note.topic = type === "voip" ? `${app}.voip` : app;
  note.pushType = type;
  note.expiry = type === "voip" ? 0 : Math.floor(Date.now() / 1000) + 3600;
  note.priority = type === "background" ? 5 : 10;
  if (collapse) note.collapseId = collapse;
  if (type === "alert") note.alert = "hello";
  if (type === "background") note.contentAvailable = 1;
  note.payload = payload ?? {};
  const { sent, failed } = await provider.send(note, token);
  const wrong = failed[0];
  outcomes.push({ sent: sent.length, status: wrong?.status, reason: wrong?.response?.reason, timestamp: wrong?.response?.timestamp });
}
console.log(JSON.stringify(outcomes));
provider.shutdown();
