// A server that is not ours: node's http2, as far as a sender of pushes can tell like APNs. What it does with a request
// is the payload's `do`. Says its port on the first line, and of every request what it saw, as a line of JSON.
import { readFileSync } from "node:fs";
import { constants, createSecureServer } from "node:http2";

const [cert, key, settings] = process.argv.slice(2);
const server = createSecureServer({
  cert: readFileSync(cert),
  key: readFileSync(key),
  settings: JSON.parse(settings),
});
const connections = [];
server.on("secureConnection", (socket) => connections.push(socket));
const refuse = (status, body) => (stream) => {
  stream.respond({ ":status": status });
  stream.end(body && JSON.stringify(body));
};
const deeds = {
  ok: (stream, headers) => stream.respond({ ":status": 200, "apns-id": headers["apns-id"] }, { endStream: true }),
  gone: refuse(410, { reason: "Unregistered", timestamp: 1700000000000 }),
  empty: refuse(503),
  split: (stream) => {
    stream.respond({ ":status": 429 });
    stream.write('{"reason": "TooMany');
    stream.end('Requests"}');
  },
  long: (stream) => {
    stream.respond({ ":status": 503 });
    stream.end(JSON.stringify({ reason: "ServiceUnavailable", padding: "x".repeat(10_000_000) }));
  },
  reset: (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM),
  unseen: (stream) => stream.session.goaway(constants.NGHTTP2_NO_ERROR, stream.id - 2, Buffer.from('{"reason":"Shutdown"}')),
  bye: (stream, headers) => {
    deeds.ok(stream, headers);
    stream.session.close();
  },
  cut: () => connections.at(-1).destroy(),
  silent: () => {},
};

server.on("stream", (stream, headers) => {
  let body = "";
  stream.on("error", () => {});
  stream.on("data", (part) => (body += part));
  stream.on("end", () => {
    const payload = JSON.parse(body);
    console.log(JSON.stringify({ headers, payload }));
    deeds[payload.do ?? "ok"](stream, headers);
  });
});
server.on("session", (session) => session.on("error", () => {}));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
