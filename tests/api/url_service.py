"""A program for sprites to serve on their URL: headers, bodies, streams and a WebSocket that echoes."""

SCRIPT = """
import base64, hashlib, http.server, json, sys, time
SEEN = []
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body, kind="application/json"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        path, _, query = self.path.partition("?")
        SEEN.append(self.path)
        if path == "/seen":
            self.answer(json.dumps(SEEN).encode())
        elif path == "/ws":
            self.echo()
        elif path == "/stream":  # a line a tenth of a second, so many
            self.send_response(200)
            self.end_headers()
            for number in range(int(query)):
                self.wfile.write(b"line %d\\n" % number)
                time.sleep(0.1)
            self.close_connection = True
        elif path == "/bytes":
            self.send_response(200)
            self.send_header("Content-Length", query)
            self.end_headers()
            chunk, left = bytes(1 << 20), int(query)
            while left:
                left -= self.wfile.write(chunk[:left])
        elif path == "/page":
            self.answer(b"<title>inside</title>", "text/html")
        else:
            self.answer(json.dumps({"path": self.path, "headers": dict(self.headers), "peer": self.client_address}).encode())
    def do_POST(self):
        SEEN.append(self.path)
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            data = self.rfile.read(min(left, 1 << 20))
            digest.update(data)
            left -= len(data)
        self.answer(digest.hexdigest().encode(), "text/plain")
    def echo(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        if "Sec-WebSocket-Protocol" in self.headers:
            self.send_header("Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"].split(",")[0])
        self.end_headers()
        self.close_connection = True
        while True:
            first, second = self.rfile.read(2)
            size = second & 0x7F
            long = {126: 2, 127: 8}.get(size, 0)
            extended = self.rfile.read(long)
            size = int.from_bytes(extended, "big") if long else size
            mask, data = self.rfile.read(4), self.rfile.read(size)
            mask = (mask * (size // 4 + 1))[:size]
            data = (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
            self.wfile.write(bytes([first, second & 0x7F]) + extended + data)
            if first & 0x0F == 8:
                return
    def log_message(self, *args):
        pass
address, port, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
time.sleep(delay)
class Server(http.server.ThreadingHTTPServer):
    address_family = __import__("socket").AF_INET6 if ":" in address else __import__("socket").AF_INET
    request_queue_size = 200
Server((address, port), Handler).serve_forever()
"""
