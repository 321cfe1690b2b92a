// A sender that shares nothing with ours: node's http2 and its own ES256. Pushes once over one connection for each
// {token, type} of argv, and prints a JSON list of what was answered.
import { createPrivateKey, createSign } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect } from "node:http2";

const [address, ca, key, team, keyId, app, pushes] = process.argv.slice(2);
const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const signed = `${encoded({ alg: "ES256", kid: keyId })}.${encoded({ iss: team, iat: Math.floor(Date.now() / 1000) })}`;
const signature = createSign("SHA256")
  .update(signed)
  .sign({ key: createPrivateKey(readFileSync(key)), dsaEncoding: "ieee-p1363" }, "base64url");

const session = connect(address, { ca: readFileSync(ca) });
const send = ({ token, type }) =>
  new Promise((resolve, reject) => {
    const stream = session.request({
      ":method": "POST",
      ":path": `/3/device/${token}`,
      authorization: `bearer ${signed}.${signature}`,
      "apns-topic": type === "voip" ? `${app}.voip` : app,
      "apns-push-type": type,
      "apns-priority": "10",
    });
    let status, id, body = "";
    stream.on("response", (headers) => ([status, id] = [headers[":status"], headers["apns-id"]]));
    stream.on("data", (part) => (body += part));
    stream.on("end", () => resolve({ status, id, ...(body ? JSON.parse(body) : {}) }));
    stream.on("error", (error) => resolve({ error: error.code }));
    stream.end(JSON.stringify(type === "voip" ? { x: { k: "call" } } : { aps: { alert: "hello" } }));
  });

const answers = [];
for (const push of JSON.parse(pushes)) answers.push(await send(push));
console.log(JSON.stringify(answers));
session.close();
